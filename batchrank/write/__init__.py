"""Rankings, failures and the summary -> files, each published by a rename once it is complete."""

from batchrank.write.claim import Claim
from batchrank.write.folder import Kept
from batchrank.write.reports import FailureLog, write_summary
from batchrank.write.text import write_text
from batchrank.write.writer import Part, StreamWriter, Writer, WrittenFile

__all__ = [
    "Claim",
    "FailureLog",
    "Kept",
    "Part",
    "StreamWriter",
    "Writer",
    "WrittenFile",
    "write_summary",
    "write_text",
]
