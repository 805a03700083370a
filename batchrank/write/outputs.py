"""x"""

from batchrank.write.formats import TrecWriter
from batchrank.write.jsonlwriter import JsonlWriter, OutputFormat
from batchrank.write.msmarco import MsMarcoWriter
from batchrank.write.mteb import PredictionsWriter
from batchrank.write.rank_llm import RankLlmWriter
from batchrank.write.rows import ParquetWriter

OUTPUTS: dict[str, OutputFormat] = {
    "parquet": OutputFormat((("ranking", ".parquet"), ("queries", ".parquet")), ParquetWriter),
    "jsonl": OutputFormat((("ranking", ".jsonl"),), JsonlWriter),
    "trec": OutputFormat((("ranking", ".trec"), ("queries", ".jsonl")), TrecWriter, spaceless=True),
    "rank_llm": OutputFormat((("ranking", ".jsonl"), ("queries", ".jsonl")), RankLlmWriter, texts=True),
    "mteb": OutputFormat(
        (("ranking", ".json"), ("queries", ".jsonl")), PredictionsWriter, single=True, dataset=True
    ),
    "msmarco": OutputFormat((("ranking", ".tsv"), ("queries", ".jsonl")), MsMarcoWriter, spaceless=True),
}
