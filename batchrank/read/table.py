"""The table of file formats: adding one is one file and one row here."""

from batchrank.read import columnar, jsonl, textfiles
from batchrank.read.base import InputFormat

INPUTS: dict[str, InputFormat] = {
    "jsonl": InputFormat((".jsonl", ".ndjson", ".json"), jsonl.read),
    "parquet": InputFormat((".parquet", ".pq"), columnar.read),
    "arrow": InputFormat((".arrow", ".feather", ".ipc"), columnar.read),
    "csv": InputFormat((".csv",), textfiles.read),
    "tsv": InputFormat((".tsv", ".trec", ".run"), textfiles.read),
}
"""Formats whose records may hold the texts of a query's documents."""

TEXT_SUFFIXES = (*INPUTS["csv"].suffixes, *INPUTS["tsv"].suffixes)
"""Of files of columns: runs, qrels, collections; see ``tsv``."""
