"""MTEB's instructions: which files hold them, and their texts by query.

mteb asks a query with its instruction after it, a space between (``_combine_queries_with_instruction_text``): from the
``instruction`` folder of a dataset (query-id, instruction), or from a column of that name beside the queries' texts. A
null instruction adds nothing; a query that the folder lacks is an error there.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import pyarrow as pa

from batchrank.formats import Source, corpus, runs
from batchrank.formats.parquet import opened
from batchrank.job.sections import Columns
from batchrank.read.join import Array

_NAME = "instruction"
_COLUMNS = Columns(query=_NAME)


def within(queries: Sequence[Source]) -> list[Source]:
    """The files of queries that have a column of instructions."""
    return [source for source in queries if _has_column(source)]


def _has_column(source: Source) -> bool:
    try:
        if source.format == "parquet":
            with opened(source) as file:
                return _NAME in file.schema_arrow.names
        if source.format != "jsonl":
            return False
        with closing(runs.records(source, lambda failure: None)) as records:  # type: ignore[type-var]
            _, record = next(records, (None, {}))
            return _NAME in record
    except (OSError, pa.ArrowException):
        return False  # its reader will say what is wrong


def texts(files: Iterable[Source], report: runs.Report) -> Iterator[Array]:
    """Batches of query id and instruction, of the schema that collections of texts have."""
    for source in files:
        yield from corpus.read(source, _COLUMNS, report, queries=True)
