"""MTEB's instructions: which files hold them, and their texts by query.

mteb asks a query with its instruction after it, a space between (``_combine_queries_with_instruction_text``): from the
``instruction`` folder of a dataset (query-id, instruction), or from a column of that name beside the queries' texts. A
null instruction adds nothing; a query that the folder lacks is an error there.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from batchrank.job.sections import Columns
from batchrank.read import corpus_ as corpus
from batchrank.read import runs
from batchrank.read.base import COLUMNAR, Source
from batchrank.read.columnar import names_in
from batchrank.read.corpus import Report
from batchrank.read.join import Array

_NAME = "instruction"
_COLUMNS = Columns(query=_NAME)


def within(queries: Sequence[Source]) -> list[Source]:
    """The files of queries that have a column of instructions."""
    return [source for source in queries if _has_column(source)]


def _has_column(source: Source) -> bool:
    if source.format in COLUMNAR:
        return _NAME in names_in(source)
    if source.format != "jsonl":
        return False
    try:
        with closing(runs.records(source, lambda failure: None)) as records:  # type: ignore[type-var]
            _, record = next(records, (None, {}))
            return _NAME in record
    except OSError:
        return False  # its reader will say what is wrong


def texts(files: Iterable[Source], report: Report) -> Iterator[Array]:
    """Batches of query id and instruction, of the schema that collections of texts have."""
    for source in files:
        yield from corpus.read(source, _COLUMNS, report, queries=True)
