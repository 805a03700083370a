"""The command line: commands, printing, exit codes."""

from batchrank.cli.app import app, main

__all__ = ["app", "main"]
