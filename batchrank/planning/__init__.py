"""Tells what a job would do before anything is paid: ``init``, ``check``, ``plan``, and what a ledger holds."""
