"""Stage 1: files of any shape become queries, in order, in bounded memory."""
