"""Makes requests, and looks up in the ledger which need not be sent and when the last minute's requests left."""

import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio

from batchrank.data import Content, Positions, Query, Rejection, Request
from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger.entries import Known
from batchrank.ledger.ledger import Ledger
from batchrank.send.stats import Encoded
from batchrank.wire import Codec

_MINUTE = 60.0
"""Seconds: the longest window of a quota."""
_SYNC = 1.0
"""Seconds that a request may leave after it was noted, as that has to be on disk before; it is taken to have left so
much later."""
_PRUNE = 10.0
"""Seconds between two removals of what is old; each looks at the whole table."""
_TABLE = "CREATE TABLE IF NOT EXISTS departures (at REAL NOT NULL, tokens INTEGER NOT NULL)"

wall = time.time
"""What tells the time, in seconds since 1970."""


class Departures:
    """When requests left, in the ledger; ``load`` once before the first ``note``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pruned = 0.0

    async def load(self) -> list[tuple[float, int]]:
        """What left in the last minute: how many seconds ago, and the tokens of each.

        Times in the future are those of a clock that was set back since; they tell nothing, and must not stall a run.
        """
        now = wall()
        rows: list[tuple[float, int]] = await self._ledger.perform(lambda db: _recent(db, now))
        return [(max(0.0, now - at - _SYNC), tokens) for at, tokens in rows]

    def note(self, tokens: int) -> None:
        """Note that a request of so many tokens is about to leave; written with the group that is open now."""
        now = wall()
        self._ledger.note(lambda db: db.execute("INSERT INTO departures VALUES (?,?)", (now, tokens)))
        if abs(now - self._pruned) > _PRUNE:
            self._pruned = now
            self._ledger.note(lambda db: _prune(db, now))


def _recent(db: sqlite3.Connection, now: float) -> list[tuple[float, int]]:
    db.execute(_TABLE)
    _prune(db, now)
    return db.execute("SELECT at, tokens FROM departures").fetchall()


def _prune(db: sqlite3.Connection, now: float) -> None:
    db.execute("DELETE FROM departures WHERE at NOT BETWEEN ? AND ?", (now - _MINUTE - _SYNC, now))


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


_HARMLESS: tuple[str, list[str]] = ("copy a file", ["Copy a file from one folder to another."])
"""What the endpoint is asked to see whether it works."""


class Encoder:
    """Encodes requests; all of a run ask the same model in the same way. Safe to use in another thread.

    Args:
        codec: the wire format.
        scope: what a request's key depends on besides its body: endpoint and wire format.
        model: the model's name as the endpoint knows it.
        instruct: the ranking instruction, None for the model's own.
        fps: frames of each second of a video, None for the model's own choice.
    """

    def __init__(
        self, codec: Codec, *, scope: str, model: str, instruct: str | None, fps: float | None
    ) -> None:
        self._codec = codec
        self._scope = hashlib.sha256(scope.encode())
        self._model = model
        self._instruct = instruct
        self._fps = fps

    def encode(self, query: Query, documents: Positions) -> Encoded:
        """The request of these documents; takes a while where they are many.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        body = self._body(query.text, _taken(query.documents, documents))
        digest = self._scope.copy()
        digest.update(body)
        return Encoded(body, digest.digest()[:16])

    def of_query(self, query: Query) -> Query:
        """The same query with one document that nothing has a reason to fail with."""
        return replace(query, doc_ids=["harmless"], documents=_HARMLESS[1], first_stage_scores=None)

    def harmless(self) -> bytes:
        """The body of a request that no endpoint has a reason to fail."""
        return self._body(*_HARMLESS)

    def _body(self, query: Content, documents: Sequence[Content]) -> bytes:
        return self._codec.body(Request(self._model, query, documents, self._instruct, self._fps))


def _taken(documents: Sequence[Content], positions: Positions) -> Sequence[Content]:
    """Those at ascending positions; all of them need no copy."""
    if len(positions) == len(documents):
        return documents
    return list(map(documents.__getitem__, positions.tolist()))


class _Unseen:
    """Not looked up yet."""


_UNSEEN = _Unseen()


class Recall:
    """What the ledger knows; shared by all queries of a run.

    Attributes:
        allow: which queries may be asked about; None for all. What those were rejected for is asked about again.
        anew: whether rejections of earlier runs are asked about again.

    Args:
        asked: keys of the requests that are under way, whose answers are not known yet.
        too_large: whether a rejection means that a request was too large.
    """

    def __init__(
        self,
        ledger: Ledger,
        encoder: Encoder,
        asked: Container[bytes],
        too_large: Callable[[Rejection], bool],
    ) -> None:
        self.allow: Callable[[Query], bool] | None = None
        self.anew = False
        self._ledger = ledger
        self._encoder = encoder
        self._asked = asked
        self._too_large = too_large
        self._ahead: dict[bytes, Known | _Unseen | None] = {}

    async def ahead(self, keys: Sequence[bytes]) -> None:
        """Look up what is going to be asked, many requests at one time.

        What is found serves whoever asks first; until then nobody else has asked, so it stays true.

        Raises:
            LedgerError: the ledger can't be read.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in self._ahead and key not in self._asked]
        if wanted:
            self._ahead.update(dict.fromkeys(wanted, _UNSEEN))
            found = await self._ledger.find(wanted)
            for key in wanted:
                if key in self._ahead:  # nobody has asked meanwhile
                    self._ahead[key] = found.get(key)

    async def known(self, query: Query, documents: Positions, key: bytes) -> Known | None:
        """The answer to a request, or the rejection that still decides about it; None where it has to be asked."""
        ahead = self._ahead.pop(key, _UNSEEN)
        known = await self._ledger.get(key) if isinstance(ahead, _Unseen) else ahead
        if known is not None and isinstance(known.outcome, Rejection):
            return known if await self._stands(query, documents, known) else None
        return known

    async def _stands(self, query: Query, documents: Positions, known: Known) -> bool:
        """Whether a rejection still decides.

        1. Not where the user wants just that asked about again.
        2. One for size stands only as long as everything that was asked instead is known: asking again costs nothing,
           and the server's limit may have been raised.
        3. Any other does.
        """
        assert isinstance(known.outcome, Rejection)
        if (self.allow is not None and self.allow(query)) or (self.anew and known.earlier):
            return False
        return not self._too_large(known.outcome) or await self._halves_known(query, documents)

    async def _halves_known(self, query: Query, documents: Positions) -> bool:
        if len(documents) == 1:
            return False
        halves = {self._encoder.encode(query, half).key: half for half in (documents[::2], documents[1::2])}
        found = await self._ledger.find(list(halves))
        for key, half in halves.items():
            known = found.get(key)
            if known is None:
                return False
            too_large = isinstance(known.outcome, Rejection) and self._too_large(known.outcome)
            if too_large and not await self._halves_known(query, half):
                return False
        return True
