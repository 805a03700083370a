"""Data in memory -> queries and failures, with the checks that a file's records get."""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read import memory
from batchrank.read.base import Item, Segment, Unrecognised
from batchrank.read.groups import queries as joined
from batchrank.read.memory import ArrowStream, Records
from batchrank.read.seen import SeenIds

Record: TypeAlias = Query | Mapping[str, Any]
"""A query, or a record as a file has it: a query with its candidates, or a pair of a query and a document."""
Queries: TypeAlias = Iterable[Record] | AsyncIterable[Record] | ArrowStream
"""What can be ranked: queries or records, one after the other, or a table of records: a data frame, an Arrow table."""


class Memory:
    """Queries from memory; pairs that follow one another and have the same query id are one query.

    Args:
        columns: what holds what, where the names don't tell.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._records = Records(columns)
        self._seen = SeenIds()
        self._held: list[Segment] = []

    def table(self, data: object) -> Iterator[list[Query | Failure]]:
        """The queries of a table, some at a time.

        Raises:
            InputError: its columns don't tell what is what.
        """
        for items in memory.table(data, self._columns):
            yield [found for item in items for found in self._push(item)]
        yield self.end()

    def take(self, value: object) -> list[Query | Failure]:
        """The queries that are complete with one more query or record: a pair may be continued by the next one."""
        return self._push(self._records.item(value))

    def end(self) -> list[Query | Failure]:
        """The query that nothing continues any more."""
        held, self._held = self._held, []
        return list(joined(held, self._seen))

    def close(self) -> None:
        """Forget what came."""
        self._seen.close()

    def _push(self, item: Item) -> list[Query | Failure]:
        if isinstance(item, Unrecognised):
            failure = item.failure
            message = memory.in_call(failure.message)
            return [Failure(failure.place, failure.query_id, failure.cause, message)]
        if isinstance(item, Failure):
            return [item]
        if self._held and not item.whole and item.query_id == self._held[0].query_id:
            self._held.append(item)
            return []
        done = self.end()
        self._held.append(item)
        return done + self.end() if item.whole else done


def refuse_single(data: object) -> None:
    """Refuse what is no collection of queries.

    Raises:
        InputError: it is a single query or record, a text, or nothing that can be gone through.
    """
    name = type(data).__name__
    what = "give a list or another iterable of batchrank.Query objects or dicts, or a table of them"
    if isinstance(data, Query):
        raise InputError("rerank: queries is a single Query; put it into a list: [query]")
    if isinstance(data, Mapping):
        advice = "put it into a list: [record]"
        if data and not any(isinstance(value, str | list) for value in data.values()):
            advice = (
                f"name one of its parts, such as data[{next(iter(data))!r}]"  # a data set with its splits
            )
        raise InputError(f"rerank: queries is a single {name}; {advice}")
    if isinstance(data, str | bytes):
        raise InputError(
            f"rerank: queries is a {name}; {what}. batchrank.run() ranks a file that a job names"
        )
    if not memory.is_table(data) and not isinstance(data, Iterable | AsyncIterable):
        raise InputError(
            f"rerank: queries is a {name}, which can't be gone through; {what} (collect a lazy one)"
        )
