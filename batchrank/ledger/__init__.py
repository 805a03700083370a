"""Keeps every paid answer, on disk before it is used, so that nothing is paid for twice. One process at a time.

It is an SQLite file.
"""

LEDGER = "ledger.sqlite"
"""Its name in an output folder."""
