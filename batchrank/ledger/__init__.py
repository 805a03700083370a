"""The ledger keeps every paid answer, durable before it is used. SQLite, one process at a time."""
