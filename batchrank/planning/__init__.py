"""Tells what a job would do before anything is paid: ``init``, ``check`` and ``plan``."""
