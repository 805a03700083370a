"""Writes stage 4's files: rankings, failures and the summary, each published by a rename once it is complete."""
