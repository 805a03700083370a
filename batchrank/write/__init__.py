"""Rankings, failures and the summary -> files, each published by a rename once it is complete."""

from batchrank.write.reports import FailureLog, write_summary
from batchrank.write.text import write_text
from batchrank.write.writer import Part, StreamWriter, Writer, WrittenFile

__all__ = ["FailureLog", "Part", "StreamWriter", "Writer", "WrittenFile", "write_summary", "write_text"]
