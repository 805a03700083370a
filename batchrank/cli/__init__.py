"""Holds the command line: its commands, what they print, and their exit codes."""

import os

# Arrow's own allocators keep what one burst of documents took; which one it uses is settled when it is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
