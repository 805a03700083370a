"""The four stages in one run: what holds them back, resume, drain, summary."""
