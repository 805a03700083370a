"""Scores of many requests become one ranking. A merge method is a plain generator of rounds. Pure."""
