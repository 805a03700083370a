"""One request from its chunk to durable scores, through every failure."""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from batchrank.errors import BatchrankError, OutageError, QueryError, RunStoppedError
from batchrank.ledger import Ledger
from batchrank.records import Answer, Chunk, Positions, Query, Rejection, Request, Scores
from batchrank.retry import Action, classify, delay, slows
from batchrank.send.dispatch import Dispatcher, Priority
from batchrank.send.http import UNREACHABLE, Http
from batchrank.send.sizes import Sizes
from batchrank.send.spend import Spend
from batchrank.wire import Codec

log = logging.getLogger(__name__)

_REFUSALS = 8
"""Documents refused one after another, and none accepted, before the query itself is held to be refused."""


class Predictor(Protocol):
    """What sending asks of sharding, for one query."""

    def tokens(self, documents: Positions) -> int:
        """Tokens that a request with these documents is expected to cost."""


@dataclass(slots=True)
class Meter:
    """What one query took: answered requests only, so that it is the same on every run."""

    chunks: int = 0
    requests: int = 0
    documents: int = 0
    tokens: int = 0
    refused: list[tuple[int, Rejection]] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    """What happened while sending; depends on timing, so it belongs to the summary and the display."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    reused_requests: int = 0
    reused_tokens: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    ambiguous: int = 0
    splits: int = 0
    latency: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """One query's errand: what every request made for it shares."""

    query: Query
    predictor: Predictor
    priority: tuple[int, int]
    meter: Meter


class Sender:
    """Sends chunks; shared by all queries of a run.

    Args:
        scope: what a request's key depends on besides its body: endpoint and wire format.
        attempts: tries per request; being throttled doesn't count as one.
        max_delay: longest pause between two tries, seconds.
        outage: seconds without any success after which the run stops.
        rng: where the jitter comes from.
    """

    def __init__(
        self,
        *,
        http: Http,
        codec: Codec,
        ledger: Ledger,
        dispatcher: Dispatcher,
        spend: Spend,
        scope: str,
        model: str,
        instruct: str | None,
        attempts: int,
        max_delay: float,
        outage: float,
        rng: random.Random,
    ) -> None:
        self._http = http
        self._codec = codec
        self._ledger = ledger
        self._dispatcher = dispatcher
        self.spend = spend
        self._scope = hashlib.sha256(scope.encode())
        self._model = model
        self._instruct = instruct
        self._attempts = attempts
        self._max_delay = max_delay
        self._outage = outage
        self._rng = rng
        self._asked: dict[bytes, anyio.Event] = {}
        self._stopping = anyio.Event()
        self._retry_budget = 100.0
        self._last_success: float | None = None
        self._sizes = Sizes()
        self.counts = Counts()
        self.allow: Callable[[Query], bool] | None = None

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._dispatcher.close(reason)
        self._stopping.set()

    async def score(self, errand: Errand, chunk: Chunk, number: int) -> list[Scores]:
        """The scores of chunk ``number`` of a round: one ``Scores``, more where it had to be split.

        Raises:
            QueryError: the API will not rank this query, or gave no usable answer in all attempts.
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        seen: list[bool] = []
        pieces = await self._pieces(errand, chunk.documents, number, seen, len(chunk))
        if len(pieces) == len(seen) == 1:
            self._sizes.accepted(len(chunk), errand.predictor.tokens(chunk.documents))
        return [Scores(documents, answer.values, number) for documents, answer in pieces]

    async def _pieces(
        self, errand: Errand, documents: Positions, number: int, seen: list[bool], whole: int
    ) -> list[tuple[Positions, Answer]]:
        """Ask for a chunk, or a piece of one; ``seen`` tells which pieces of the ``whole`` were answered."""
        predicted = errand.predictor.tokens(documents)
        texts = errand.query.documents
        request = Request(
            self._model, errand.query.text, [texts[i] for i in documents.tolist()], self._instruct
        )
        outcome = await self._ask(
            errand.query, self._codec.body(request), len(documents), predicted, (*errand.priority, number)
        )
        meter = errand.meter
        if isinstance(outcome, Answer):
            seen.append(True)
            meter.requests += 1
            meter.documents += len(documents)
            meter.tokens += predicted if outcome.tokens is None else outcome.tokens
            return [(documents, outcome)]
        if not seen and len(documents) == whole and classify(outcome) is Action.SPLIT:
            self._sizes.rejected(len(documents), predicted, outcome)
        if len(documents) == 1:
            seen.append(False)
            meter.refused.append((int(documents[0]), outcome))
            if len(seen) >= _REFUSALS and not any(seen):
                raise QueryError("refused", f"the API refuses every part of this query: {outcome}")
            return []
        self.counts.splits += 1
        first = await self._pieces(
            errand, documents[::2], number, seen, whole
        )  # each half a sample of the chunk
        return first + await self._pieces(errand, documents[1::2], number, seen, whole)

    async def _ask(
        self, query: Query, body: bytes, documents: int, predicted: int, priority: Priority
    ) -> Answer | Rejection:
        """An answer, or a rejection that calls for the request's halves; both durable."""
        key = self._key(body)
        while (asked := self._asked.get(key)) is not None:
            await asked.wait()  # the very same request is under way: its answer will do for both
        self._asked[key] = anyio.Event()
        try:
            known = await self._ledger.get(key)
            if known is not None:
                self.counts.reused_requests += 1
                self.counts.reused_tokens += predicted if isinstance(known, Answer) else 0
                return known
            if self.allow is not None and not self.allow(query):
                raise QueryError(
                    "not-asked", "the ledger lacks an answer, and this run asks only about what failed"
                )
            return await self._ask_api(key, body, documents, predicted, priority)
        finally:
            self._asked.pop(key).set()

    async def _ask_api(
        self, key: bytes, body: bytes, documents: int, predicted: int, priority: Priority
    ) -> Answer | Rejection:
        attempts = 0
        while True:
            outcome = await self._attempt(key, body, documents, predicted, priority)
            if isinstance(outcome, Answer):
                return outcome
            action = classify(outcome)
            if action is Action.STOP:
                raise RunStoppedError(f"the API rejects every request: {outcome}")
            if action in (Action.SPLIT, Action.REFUSE):
                return outcome
            attempts += not slows(action)
            if action is Action.FAIL:
                raise QueryError("rejected", f"the API rejected a request: {outcome}", attempts=attempts)
            self.counts.retries[outcome.code or str(outcome.status)] += 1
            if attempts >= self._attempts:
                raise QueryError(
                    "no-answer",
                    f"no usable answer in {attempts} attempts; the last: {outcome}",
                    attempts=attempts,
                )
            self._may_go_on(outcome)
            pause = delay(max(1, attempts), outcome.retry_after, self._max_delay, self._rng)
            with anyio.move_on_after(pause):
                await self._stopping.wait()

    def _may_go_on(self, outcome: Rejection) -> None:
        self._retry_budget -= 1
        if self._retry_budget < 0:
            raise OutageError(
                f"more requests fail than succeed; the last failure: {outcome}. Run the job again later"
            )
        now = anyio.current_time()
        if self._last_success is None:
            self._last_success = now
        if now - self._last_success > self._outage:
            raise OutageError(
                f"no request has succeeded for {self._outage:g} s; the last failure: {outcome}. Run the job again later"
            )

    async def _attempt(
        self, key: bytes, body: bytes, documents: int, predicted: int, priority: Priority
    ) -> Answer | Rejection:
        async with self._dispatcher.turn(priority, predicted):
            self.spend.reserve(predicted)
            self._ledger.sent(key, predicted)
            started = anyio.current_time()
            try:
                outcome = await self._http.post(body, documents)
            except BaseException:
                self.spend.lose(predicted)
                raise
            self.counts.requests += 1
            self.counts.latency += 0.1 * (anyio.current_time() - started - self.counts.latency)
            with anyio.CancelScope(shield=True):
                await self._settle(key, outcome, documents, predicted)
        return outcome

    async def _settle(self, key: bytes, outcome: Answer | Rejection, documents: int, predicted: int) -> None:
        """Make what came back durable, and let everybody learn from it.

        1. An answer: committed, billed.
        2. A rejection that decides something: committed, not billed.
        3. A malformed answer, or an unknown fate: committed as perhaps billed.
        4. Any other rejection: not billed.
        """
        limiter, places = self._dispatcher.limiter, self._dispatcher.places
        if isinstance(outcome, Answer):
            self.spend.settle(predicted, outcome.tokens, documents)
            limiter.settle(predicted, predicted if outcome.tokens is None else outcome.tokens)
            self._retry_budget = min(self._retry_budget + 0.5, 1000.0)
            self._last_success = anyio.current_time()
            self.counts.documents += documents
            self.counts.tokens += predicted if outcome.tokens is None else outcome.tokens
            places.succeeded()
            await self._ledger.put(key, outcome, predicted)
            return
        log.debug("attempt failed: %s", outcome)
        action = classify(outcome)
        if action in (Action.SPLIT, Action.REFUSE):
            self.spend.release(predicted)
            await self._ledger.put(key, outcome, predicted)
        elif outcome.code == "malformed":
            self.spend.lose(predicted)
            self.counts.malformed += 1
            await self._ledger.put_attempt(key, "malformed", outcome, predicted)
        elif outcome.status is None and outcome.code != UNREACHABLE:
            self.spend.lose(predicted)
            self.counts.ambiguous += 1
            places.struggled()
            await self._ledger.put_attempt(key, "ambiguous", outcome, predicted)
        else:
            self.spend.release(predicted)
            self._ledger.unsent(key)
            if action in (Action.SLOW_REQUESTS, Action.SLOW_TOKENS, Action.SLOW_GROWTH):
                limiter.throttled(action.value, outcome.retry_after)

    def _key(self, body: bytes) -> bytes:
        digest = self._scope.copy()
        digest.update(body)
        return digest.digest()[:16]
