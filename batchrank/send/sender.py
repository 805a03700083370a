"""Stage 3 proper: a chunk -> its scores, from the ledger or the API, in halves where it must be."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from functools import partial

import anyio.to_thread

from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger import Known, Ledger
from batchrank.records import Answer, Chunk, Content, Positions, Query, Rejection, Request, Scores
from batchrank.retry import Action, classify
from batchrank.send.attempts import Attempts
from batchrank.send.counts import Counts, Encoded, Errand
from batchrank.send.dispatch import Dispatcher
from batchrank.send.health import Health
from batchrank.send.http import Http
from batchrank.send.sizes import Sizes
from batchrank.send.spend import Spend
from batchrank.wire import Codec

_REFUSALS = 8
"""Documents refused one after another, and none accepted, before the query itself is held to be refused."""


class _Unseen:
    """Not looked up yet."""


_UNSEEN = _Unseen()


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
        fps: float | None,
        attempts: int,
        max_delay: float,
        outage: float,
        rng: random.Random,
    ) -> None:
        self._codec = codec
        self._ledger = ledger
        self.spend = spend
        self._scope = hashlib.sha256(scope.encode())
        self._model = model
        self._instruct = instruct
        self._fps = fps
        self._asked: dict[bytes, asyncio.Event] = {}
        self._recalled: dict[bytes, Known | _Unseen | None] = {}
        self._sizes = Sizes()
        self.counts = Counts()
        self.allow: Callable[[Query], bool] | None = None
        self._api = Attempts(
            http=http, ledger=ledger, dispatcher=dispatcher, spend=spend, health=Health(outage),
            attempts=attempts, max_delay=max_delay, rng=rng, counts=self.counts,
        )  # fmt: skip

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._api.stop(reason)

    async def recall(self, keys: Sequence[bytes]) -> None:
        """Look up what is going to be asked, many requests at one time.

        What is found serves whoever asks first; until then nobody else has asked, so it stays true.

        Raises:
            LedgerError: the ledger can't be read.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in self._asked and key not in self._recalled]
        if wanted:
            self._recalled.update(dict.fromkeys(wanted, _UNSEEN))
            found = await self._ledger.find(wanted)
            for key in wanted:
                if key in self._recalled:  # nobody has asked meanwhile
                    self._recalled[key] = found.get(key)

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
        outcome = await self._ask(errand, documents, number)
        meter = errand.meter
        if isinstance(outcome, Answer):
            seen.append(True)
            meter.requests += 1
            meter.documents += len(documents)
            meter.tokens += _billed(errand, documents, outcome)
            return [(documents, outcome)]
        if not seen and len(documents) == whole and classify(outcome) is Action.SPLIT:
            self._sizes.rejected(len(documents), errand.predictor.tokens(documents), outcome)
        if len(documents) == 1:
            seen.append(False)
            meter.refused.append((int(documents[0]), outcome))
            if len(seen) >= _REFUSALS and not any(seen):
                raise QueryError("refused", f"the API refuses every part of this query: {outcome}")
            return []
        self.counts.splits += 1
        # Each half is a sample of the chunk, whose documents stand in first-stage order.
        first = await self._pieces(errand, documents[::2], number, seen, whole)
        return first + await self._pieces(errand, documents[1::2], number, seen, whole)

    async def _ask(self, errand: Errand, documents: Positions, number: int) -> Answer | Rejection:
        """An answer, or a rejection that calls for the request's halves; both durable."""
        query = errand.query
        whole = errand.whole if len(documents) == len(query.sendable) else None
        encoded = whole or self.encode(query, documents)
        key = encoded.key
        while (asked := self._asked.get(key)) is not None:
            await asked.wait()  # the very same request is under way: its answer will do for both
        self._asked[key] = done = asyncio.Event()
        try:
            known = await self._known(errand, documents, key)
            if known is not None:
                return known
            if self.allow is not None and not self.allow(query):
                raise QueryError(
                    "not-asked", "the ledger lacks an answer, and this run asks only about what failed"
                )
            predicted = self._predicted(errand, documents)
            exact = errand.predictor.exact
            outcome = await self._api.ask(
                key,
                encoded.body,
                len(documents),
                predicted,
                (*errand.priority, number),
                exact=exact,
            )
            if errand.sampled and not number and not exact and isinstance(outcome, Answer):
                await self._compare(errand, documents, outcome)
            return outcome
        finally:
            del self._asked[key]
            done.set()

    async def _known(self, errand: Errand, documents: Positions, key: bytes) -> Answer | Rejection | None:
        """What the ledger knows; content once refused is asked about again where the user wants just that."""
        recalled = self._recalled.pop(key, _UNSEEN)
        known = await self._ledger.get(key) if isinstance(recalled, _Unseen) else recalled
        if known is None:
            return None
        if isinstance(known.outcome, Rejection):
            again = self.allow is not None and self.allow(errand.query)
            return None if again and classify(known.outcome) is Action.REFUSE else known.outcome
        self.counts.reused_requests += 1
        if known.earlier:
            self.counts.saved_requests += 1
            self.counts.saved_tokens += _billed(errand, documents, known.outcome)
        return known.outcome

    async def _compare(self, errand: Errand, documents: Positions, answer: Answer) -> None:
        """Tell the drift by a count that was not worth holding the request up for."""
        if answer.tokens is not None:
            count = partial(errand.predictor.tokens, documents, exact=True)
            predicted = await anyio.to_thread.run_sync(count)
            self.spend.compare(predicted, answer.tokens, len(documents))

    def _predicted(self, errand: Errand, documents: Positions) -> int:
        """The tokens to expect: counted where a cap depends on it, else perhaps an upper bound."""
        return errand.predictor.tokens(documents, exact=self.spend.capped)

    def encode(self, query: Query, documents: Positions) -> Encoded:
        """The request of these documents. It takes a while; safe to call in another thread.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        texts = _taken(query.documents, documents)
        body = self._codec.body(Request(self._model, query.text, texts, self._instruct, self._fps))
        digest = self._scope.copy()
        digest.update(body)
        return Encoded(body, digest.digest()[:16])


def _taken(documents: Sequence[Content], positions: Positions) -> Sequence[Content]:
    """Those at ascending positions; all of them need no copy."""
    if len(positions) == len(documents):
        return documents
    return list(map(documents.__getitem__, positions.tolist()))


def _billed(errand: Errand, documents: Positions, answer: Answer) -> int:
    """The tokens billed; where the API named none, a count, which is the same on every run."""
    return errand.predictor.tokens(documents, exact=True) if answer.tokens is None else answer.tokens
