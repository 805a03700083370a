"""Finds the queries whose first documents reranking changed most, because a look at them tells more than averages."""

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass

from batchrank.data import Query
from batchrank.errors import BatchrankError
from batchrank.io.address import Where
from batchrank.look.source import Origin, as_text, queries
from batchrank.quality.measures import rbo
from batchrank.quality.rankings import moves

QUERIES, DEPTH = 20, 10
"""Queries that are shown, and documents of each: more than a person reads, and little for a page."""
_TEXT = 160
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True)
class Place:
    """One document among the first ones.

    Attributes:
        doc_id: its id.
        other: its rank in the other ranking, if it is among the first there too.
        text: its text, cut.
    """

    doc_id: str
    other: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Moved:
    """One query whose first documents changed.

    Attributes:
        query_id: its id, and ``query`` its text, cut.
        overlap: rank-biased overlap of its first documents before and after: 1 the same, 0 all others.
        new: how many of the first documents were not among the first before.
        before: the first documents of the first stage.
        after: the first documents of the result.
    """

    query_id: str
    query: str
    overlap: float
    new: int
    before: Sequence[Place]
    after: Sequence[Place]


def most_moved(folder: Where, source: Origin | None, notes: list[str]) -> list[Moved]:
    """The queries that moved most, the most first; none where the output doesn't tell of the first stage.

    Args:
        folder: the output folder.
        source: the job, whose input holds the texts; None to leave them out.
        notes: takes why texts are missing.

    Raises:
        InputError: the rankings can't be read.
    """
    found = (
        (rbo(before, after), number, query, before, after)
        for number, (query, before, after) in enumerate(moves(os.fspath(folder), DEPTH))
    )
    most = heapq.nsmallest(QUERIES, (one for one in found if one[0] < 1))
    read = {} if source is None or not most else _read(source, [one[2] for one in most], notes)
    return [
        _moved(query, read.get(query), overlap, before, after) for overlap, _, query, before, after in most
    ]


def _read(source: Origin, wanted: Sequence[str], notes: list[str]) -> dict[str, Query]:
    try:
        if source.job is not None:
            return {one.query.id: one.query for one in queries(source.job, wanted)}
        why = source.note
    except BatchrankError as error:
        why = str(error)
    notes.append(f"the queries that moved most are shown without texts: {why}")
    return {}


def _moved(
    name: str, query: Query | None, overlap: float, before: Sequence[str], after: Sequence[str]
) -> Moved:
    texts = {}
    if query is not None:
        wanted = {*before, *after}
        texts = {doc: as_text(query.documents[at]) for at, doc in enumerate(query.doc_ids) if doc in wanted}
    new = len(set(after) - set(before))
    said = "" if query is None else _cut(as_text(query.text))
    return Moved(name, said, overlap, new, _places(before, after, texts), _places(after, before, texts))


def _places(ranking: Sequence[str], other: Sequence[str], texts: dict[str, str]) -> list[Place]:
    ranks = {name: rank for rank, name in enumerate(other, 1)}
    return [Place(name, ranks.get(name), _cut(texts.get(name, ""))) for name in ranking]


def _cut(text: str) -> str:
    line = " ".join(text[: 4 * _TEXT].split())
    return line if len(line) <= _TEXT else line[: _TEXT - 1] + "…"
