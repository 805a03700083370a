"""The table of file formats: adding one is one file and one row here."""

from batchrank.formats import jsonl, parquet
from batchrank.formats.base import InputFormat, OutputFormat
from batchrank.formats.trec import TrecWriter

INPUTS: dict[str, InputFormat] = {
    "jsonl": InputFormat((".jsonl", ".ndjson", ".json"), jsonl.read),
    "parquet": InputFormat((".parquet", ".pq"), parquet.read),
}
OUTPUTS: dict[str, OutputFormat] = {
    "parquet": OutputFormat((("ranking", ".parquet"), ("queries", ".parquet")), parquet.ParquetWriter),
    "jsonl": OutputFormat((("ranking", ".jsonl"),), jsonl.JsonlWriter),
    "trec": OutputFormat((("ranking", ".trec"), ("queries", ".jsonl")), TrecWriter),
}
