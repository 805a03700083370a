"""Benchmark runs: datasets x models x instructs x merge methods, a job each, one table."""
