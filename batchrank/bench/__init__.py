"""Benchmark runs: datasets x models x instructs x merge methods, a job each, one table."""

from batchrank.bench.matrix import Bench, Cell, load_bench
from batchrank.bench.results import Result, result
from batchrank.bench.table import write_tables

__all__ = ["Bench", "Cell", "Result", "load_bench", "result", "write_tables"]
