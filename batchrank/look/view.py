"""Gathers what is shown of rankings: each document with its rank before and after, its score and its text."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from batchrank.data import Query
from batchrank.errors import BatchrankError
from batchrank.io.address import Where
from batchrank.look.rankings import Listing, Rankings
from batchrank.look.source import Origin, as_text, input_changed, origin, queries


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a ranking; None for what nobody knows.

    Attributes:
        rank: its rank, from 1.
        doc_id: its id.
        before: its rank in the first stage, from 1.
        score: its score.
        certified: whether its rank is proven.
        text: its text.
    """

    rank: int
    doc_id: str
    before: int | None
    score: float | None
    certified: bool
    text: str | None

    @property
    def move(self) -> int | None:
        """By how many ranks it rose; negative where it fell."""
        return None if self.before is None else self.before - self.rank


@dataclass(frozen=True, slots=True)
class View:
    """One query's ranking.

    Attributes:
        query_id: the query's id.
        query: its text.
        documents: its documents, best first.
        certified: how many of them, from the top, are proven to stand where they do.
    """

    query_id: str
    query: str | None
    documents: Sequence[Document]
    certified: int

    def moved(self) -> list[Document]:
        """The documents whose rank is not what it was."""
        return [one for one in self.documents if one.move]


class Views:
    """Shows rankings of an output folder.

    Attributes:
        notes: what the reader should know, such as why there are no texts.

    Args:
        folder: the folder.
        known: the job, where it is given; by default the one in the summary.
        texts: whether texts are looked up in the input.

    Raises:
        InputError: there is no ranking in the folder; from every method, that a file can't be understood.
    """

    def __init__(self, folder: Where, known: Origin | None = None, *, texts: bool = True) -> None:
        self.notes: list[str] = []
        self._rankings = Rankings(folder)
        if self._rankings.folder.complete() is None:
            self.notes.append(
                f"{folder} is the output of a run that has not ended: what it has published so far"
            )
        elif self._rankings.folder.next.parts():
            there = self._rankings.folder.next.path
            self.notes.append(f"a later run is under way; what it has published is in {there}")
        self._texts = texts
        self._folder = folder
        self._known = known

    def one(self, query_id: str) -> View:
        """The ranking of a query.

        Raises:
            InputError: there is none; the message names ids that are alike.
        """
        return next(self._with_texts([self._rankings.required(query_id)]))

    def first(self, count: int) -> list[View]:
        """The rankings of the first queries."""
        return self.some(list(islice(self._rankings.ids(), count)))

    def some(self, ids: Sequence[str]) -> list[View]:
        """The rankings of some queries, in the order given."""
        return list(self._with_texts([self._rankings.required(name) for name in ids]))

    def _with_texts(self, listings: Sequence[Listing]) -> Iterator[View]:
        whole = all(row.text is not None and row.before is not None for one in listings for row in one.rows)
        found = {} if whole or not self._texts else self._read({one.query_id for one in listings})
        for one in listings:
            yield _view(one, found.get(one.query_id))

    def _read(self, wanted: Collection[str]) -> dict[str, Query]:
        """The queries as the job reads them; what is missing is told once."""
        source = self._known or origin(self._folder)
        if source.job is None:
            self.notes.append(f"no texts: {source.note}")
            return {}
        try:
            found = {one.query.id: one.query for one in queries(source.job, wanted)}
        except BatchrankError as error:
            self.notes.append(f"no texts: {error}{source.hint}")
            return {}
        if len(found) < len(wanted):
            self.notes.append("not all of these queries are in the input any more: no texts of the others")
        if input_changed(source.job, self._rankings.folder):
            self.notes.append("the input has changed since: texts, and ranks before, may be other ones")
        return found


def _view(listing: Listing, query: Query | None) -> View:
    places: dict[str, int] = {}
    if query is not None:
        places = {name: place for place, name in enumerate(query.doc_ids)}
    documents = []
    for row in listing.rows:
        place = places.get(row.doc_id)
        text, before = row.text, row.before
        if query is not None and place is not None:
            text = as_text(query.documents[place]) if text is None else text
            before = place + 1 if before is None else before
        documents.append(
            Document(row.rank, row.doc_id, before, row.score, row.rank <= listing.certified, text)
        )
    said = listing.query if listing.query is not None or query is None else as_text(query.text)
    return View(listing.query_id, said, documents, listing.certified)
