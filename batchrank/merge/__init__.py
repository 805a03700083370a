"""Turns scores of many requests into one ranking. A merge method is a plain generator of rounds; all of it is pure."""
