"""Tells what the requests of a query share, and looks up in the ledger which of them need not be sent."""

from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray

from batchrank.data import Answer, Positions, Purpose, Query, Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger.access import Access
from batchrank.ledger.entries import About, Known
from batchrank.send.encoder import Encoder, Outgoing
from batchrank.send.stats import Meter

Result = TypeVar("Result")


async def together(calls: Sequence[Callable[[], Awaitable[Result]]]) -> list[Result]:
    """What the calls return, in order; one that fails waits for the others, whose answers are being paid for.

    Raises:
        BatchrankError: what one of them raised, rather one that stops the run than one that concerns a query.
    """
    results: dict[int, Result] = {}
    faults: list[BatchrankError] = []

    async def call(number: int) -> None:
        try:
            results[number] = await calls[number]()
        except BatchrankError as fault:
            faults.append(fault)

    async with anyio.create_task_group() as group:
        for number in range(len(calls)):
            group.start_soon(call, number)
    if faults:
        raise min(faults, key=lambda fault: isinstance(fault, QueryError))
    return [results[number] for number in range(len(calls))]


class Predictor(Protocol):
    """What sending asks of sharding, for one query."""

    @property
    def exact(self) -> bool:
        """Whether ``tokens`` tells exact counts by now, as opposed to an upper bound."""

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """Tokens that a request with these documents is expected to cost; ``exact``: count them now if possible."""


@dataclass(slots=True, eq=False, kw_only=True)
class QueryContext:
    """What all requests made for one query share.

    Attributes:
        query: what they are made of.
        shards: predicts their tokens.
        position: the query's place among all that was read, from 0; the smallest goes first.
        meter: counts what was answered.
        whole: the request of all its documents, where that was made ahead.
        question: what tells its question from others, contents: each document's content, so that answers serve document
            by document; 0 and None where they don't.
        aside: whether answers of earlier runs are left aside.
        sampled: whether the tokens of each round's first request are counted for the drift of bills, where nothing else
            needs that.
    """

    query: Query
    shards: Predictor
    position: int
    meter: Meter
    whole: Outgoing | None = None
    question: int = 0
    contents: NDArray[np.uint64] | None = None
    aside: bool = False
    sampled: bool = False

    def about(self, documents: Positions, purpose: Purpose) -> About | None:
        """What an answer about some of the documents is about, for the ledger."""
        if self.contents is None:
            return None
        return About(self.question, self.contents[documents].tobytes(), purpose)

    def where(self, documents: Positions) -> str:
        """Which request it is, for messages."""
        query = self.query
        first, last = (query.doc_ids[int(documents[i])] for i in (0, -1))
        one = len(documents) == 1
        which = f"document {first!r}" if one else f"{len(documents)} documents, {first!r} to {last!r}"
        return f"query {query.id!r} ({query.place}), {which}"

    def billed(self, documents: Positions, answer: Answer) -> int:
        """The tokens billed; where the API named none, a count, which is the same on every run."""
        return self.shards.tokens(documents, exact=True) if answer.tokens is None else answer.tokens

    def lose(self, documents: Positions, why: Rejection | None) -> list[tuple[Positions, Answer]]:
        """Note documents that no request was accepted with; what was answered of them: nothing."""
        assert why is not None
        self.meter.lost += [(document, why) for document in documents.tolist()]
        return []

    def instead(self, query: Query) -> "QueryContext":
        """The same for another query, whose requests are not counted for this one."""
        return QueryContext(query=query, shards=_Bytes(query), position=self.position, meter=Meter())


@dataclass(slots=True)
class Tally:
    """What became of a chunk's parts: whether any was answered, how many documents were lost, and why.

    ``purpose`` is why the chunk is sent.
    """

    purpose: Purpose = "pass"
    answered: bool = False
    why: Rejection | None = None
    cleared: bool | None = None

    @property
    def doubtful(self) -> bool:
        """Whether it may be the query, as nothing was accepted with any document."""
        return not self.answered and self.why is not None


class _Bytes:
    """Predicts tokens by bytes, which are never fewer, for a query that wasn't sharded."""

    exact = False

    def __init__(self, query: Query) -> None:
        self._query = query

    def tokens(self, documents: Positions, *, exact: bool = False) -> int:
        """The most tokens that a request with these documents can take."""
        query = len(str(self._query.text).encode("utf-8", "replace"))
        texts = (str(self._query.documents[i]) for i in documents.tolist())
        return sum(query + len(text.encode("utf-8", "replace")) for text in texts)


class _Unseen:
    """Not looked up yet."""


_UNSEEN = _Unseen()


@dataclass(frozen=True, slots=True)
class Past:
    """Which answers of earlier runs a run may use: decided when it begins, so that a resumed run decides alike.

    Attributes:
        before: answers serve document by document only if they were known before this epoch of the ledger.
        floor: only answers of this run and later ones, as the model has changed in it.
        since: only answers no older, in seconds since 1970.
    """

    before: int = 0
    floor: int = 0
    since: int = 0


class Recall:
    """What the ledger knows; shared by all queries of a run.

    Attributes:
        allow: which queries may be asked about; None for all. What those were rejected for is asked about again.
        anew: whether rejections of earlier runs are asked about again.
        past: which answers of earlier runs count.

    Args:
        asked: keys of the requests that are under way, whose answers are not known yet.
        too_large: whether a rejection means that a request was too large.
    """

    def __init__(
        self,
        ledger: Access,
        encoder: Encoder,
        asked: Container[bytes],
        too_large: Callable[[Rejection], bool],
    ) -> None:
        self.allow: Callable[[Query], bool] | None = None
        self.anew = False
        self.past = Past()
        self._ledger = ledger
        self._encoder = encoder
        self._asked = asked
        self._too_large = too_large
        self._ahead: dict[bytes, Known | _Unseen | None] = {}

    async def ahead(self, requests: Sequence[Outgoing]) -> None:
        """Look up what is going to be asked, many requests at one time.

        What is found serves whoever asks first; until then nobody else has asked, so it stays true.

        Raises:
            LedgerError: the ledger can't be read.
        """
        by_key = {request.key: request for request in requests}
        wanted = [key for key in by_key if key not in self._ahead and key not in self._asked]
        if wanted:
            self._ahead.update(dict.fromkeys(wanted, _UNSEEN))
            found = await self._find([by_key[key] for key in wanted])
            for key in wanted:
                if key in self._ahead:  # nobody has asked meanwhile
                    self._ahead[key] = found.get(key)

    async def _find(self, requests: Sequence[Outgoing]) -> dict[bytes, Known]:
        """What the ledger knows about requests, by key; what it knows by the key of an older batchrank gets today's."""
        found = await self._ledger.find([request.key for request in requests])
        older = {r.old_key: r for r in requests if r.old_key is not None and r.key not in found}
        if not older:
            return found
        found = dict(found)  # what was found may be others' too
        known = await self._ledger.find(list(older))
        for old_key, request in older.items():
            if old_key in known:
                self._ledger.adopt(old_key, request.key, request.about)
                found[request.key] = known[old_key]
        return found

    def request(self, context: QueryContext, documents: Positions, purpose: Purpose) -> Outgoing:
        """The request of some of a query's documents; what an audit asks is not known from before."""
        if purpose == "pass" and context.whole and len(documents) == len(context.query.sendable):
            return context.whole
        salt = f"audit {self.past.before}".encode() if purpose == "audit" else b""
        request = self._encoder.encode(context.query, documents, salt=salt)
        request.about = context.about(documents, purpose)
        return request

    async def known(
        self, query: Query, documents: Positions, request: Outgoing, *, aside: bool = False
    ) -> Known | None:
        """The answer to a request, or the rejection that still decides about it; None where it has to be asked.

        Args:
            query: the query.
            documents: positions of the request's documents.
            request: the request.
            aside: whether answers of earlier runs are left aside.
        """
        ahead = self._ahead.pop(request.key, _UNSEEN)
        known = (await self._find([request])).get(request.key) if isinstance(ahead, _Unseen) else ahead
        if known is not None and isinstance(known.outcome, Rejection):
            return known if await self._stands(query, documents, known) else None
        if known is not None and known.earlier:
            past = self.past
            if aside or known.run < past.floor or known.at < past.since:
                return None
        return known

    async def _stands(self, query: Query, documents: Positions, known: Known) -> bool:
        """Whether a rejection of an earlier run still holds.

        1. No, if the user wants just that asked about again.
        2. One for size holds only as long as everything that was asked instead is known: asking again costs nothing,
           and the server's limit may have been raised.
        3. Any other one holds.
        """
        assert isinstance(known.outcome, Rejection)
        if (self.allow is not None and self.allow(query)) or (self.anew and known.earlier):
            return False
        return not self._too_large(known.outcome) or await self._halves_known(query, documents)

    async def _halves_known(self, query: Query, documents: Positions) -> bool:
        if len(documents) == 1:
            return False
        halves = [(self._encoder.encode(query, half), half) for half in (documents[::2], documents[1::2])]
        found = await self._find([request for request, _ in halves])
        for request, half in halves:
            known = found.get(request.key)
            if known is None:
                return False
            too_large = isinstance(known.outcome, Rejection) and self._too_large(known.outcome)
            if too_large and not await self._halves_known(query, half):
                return False
        return True
