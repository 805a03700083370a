"""Runs benchmarks: a job for each dataset, model, instruct and merge method, and one table that compares them."""
