"""Translates between requests and each API's JSON, and tells what servers answer and refuse. All of it is pure."""
