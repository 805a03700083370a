"""The table of file formats: adding one is one file and one row here."""

from batchrank.read import columnar, jsonl, textfiles
from batchrank.read.base import InputFormat, OutputFormat
from batchrank.write import msmarco, mteb, rank_llm
from batchrank.write.formats import TrecWriter
from batchrank.write.rows import ParquetWriter

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

OUTPUTS: dict[str, OutputFormat] = {
    "parquet": OutputFormat((("ranking", ".parquet"), ("queries", ".parquet")), ParquetWriter),
    "jsonl": OutputFormat((("ranking", ".jsonl"),), jsonl.JsonlWriter),
    "trec": OutputFormat((("ranking", ".trec"), ("queries", ".jsonl")), TrecWriter, spaceless=True),
    "rank_llm": OutputFormat(
        (("ranking", ".jsonl"), ("queries", ".jsonl")), rank_llm.RankLlmWriter, texts=True
    ),
    "mteb": OutputFormat(
        (("ranking", ".json"), ("queries", ".jsonl")), mteb.PredictionsWriter, single=True, dataset=True
    ),
    "msmarco": OutputFormat(
        (("ranking", ".tsv"), ("queries", ".jsonl")), msmarco.MsMarcoWriter, spaceless=True
    ),
}
