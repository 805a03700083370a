"""Runs the four stages as one: what holds them back, how a run resumes and ends, and its summary."""
