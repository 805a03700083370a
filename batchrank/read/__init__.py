"""Reads files of any shape as queries, in order and in bounded memory: this is stage 1."""
