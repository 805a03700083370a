"""The four stages in one run: backpressure, resume, drain, progress."""
