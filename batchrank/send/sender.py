"""Stage 3 proper: turns a chunk into its scores, from the ledger or the API, in halves where it must be.

A request is halved when it is too large, when its content is refused, and when it fails again and again although the
endpoint works. So a bad document is found and lost alone, and the rest of its query is ranked.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger import Known, Ledger
from batchrank.models import searches
from batchrank.records import Answer, Chunk, Content, Positions, Query, Rejection, Request, Scores
from batchrank.retry import Action, classify
from batchrank.send.client import Client
from batchrank.send.counts import Counts, Encoded, Errand
from batchrank.send.dispatch import Dispatcher
from batchrank.send.exchange import Exchange, Outgoing
from batchrank.send.http import Http
from batchrank.send.outage import OutageDetector
from batchrank.send.probe import Prober
from batchrank.send.sizes import Size, Sizes
from batchrank.send.spend import Spend
from batchrank.send.together import together
from batchrank.wire import Codec

_HARMLESS: tuple[str, list[str]] = ("copy a file", ["Copy a file from one folder to another."])
"""What the endpoint is asked to see whether it works."""
_LOST = 8
"""Documents lost one after another, and none accepted, before the rest of their chunk is given up: it is the query
then."""


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
        wire: str,
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
        accepted: bool,
        rng: random.Random,
    ) -> None:
        self._codec = codec
        self._wire = wire
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
        self.anew = False
        self._outage = OutageDetector(outage, accepted=accepted)
        self._exchange = Exchange(
            http=http, wire=wire, ledger=ledger, dispatcher=dispatcher, spend=spend, outage=self._outage,
            counts=self.counts,
        )  # fmt: skip
        self._prober = Prober(
            self._exchange, self._outage, harmless=self._body(*_HARMLESS), wire=wire,
            max_delay=max_delay, rng=rng,
        )  # fmt: skip
        self._client = Client(
            self._exchange, self._prober, self._outage, ledger,
            wire=wire, attempts=attempts, max_delay=max_delay, rng=rng, counts=self.counts,
        )  # fmt: skip

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._exchange.stop(reason)

    def trouble(self) -> str | None:
        """What is wrong, while nothing succeeds; None while all is well."""
        return self._outage.trouble(anyio.current_time())

    def meaning(self, why: Rejection) -> Action:
        """What a rejection calls for, in the words of this endpoint's wire."""
        return classify(why, self._wire)

    @property
    def notice(self) -> str | None:
        """What the user should know about the sizes of requests."""
        return self._sizes.notice

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
        """The scores of chunk ``number`` of a round: one ``Scores``, more where it had to be halved.

        Documents that no request was accepted with are left out, and noted in the errand's meter.

        Raises:
            QueryError: the ledger lacks an answer, and this run may not ask for it.
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        parts = await self._parts(errand, chunk.documents, number, _Tally(), part=False)
        return [Scores(documents, answer.values, number) for documents, answer in parts]

    async def _parts(
        self, errand: Errand, documents: Positions, number: int, tally: "_Tally", *, part: bool
    ) -> list[tuple[Positions, Answer]]:
        """Ask for a chunk, or for ``part`` of one that failed; what was answered.

        Halves are asked one after the other, so that what becomes of them doesn't depend on timing, and little is asked
        in vain; those of a request that was too large at the same time, as they are likely to be accepted.
        """
        if tally.hopeless:
            return self._lose(errand, documents, tally.why)
        outcome = await self._ask(errand, documents, number, part=part)
        if isinstance(outcome, Answer):
            tally.answered = True
            return [(documents, outcome)]
        if len(documents) == 1:
            tally.lost, tally.why = tally.lost + 1, outcome
            return self._lose(errand, documents, outcome)
        self.counts.splits += 1
        # Each half is a sample of the chunk, whose documents stand in first-stage order.
        first, second = documents[::2], documents[1::2]
        if self._too_large(outcome) and self._outage.accepted:
            halves = [
                partial(self._parts, errand, half, number, _Tally(), part=False) for half in (first, second)
            ]
            return [piece for pieces in await together(halves) for piece in pieces]
        found = await self._parts(errand, first, number, tally, part=True)
        return found + await self._parts(errand, second, number, tally, part=True)

    def _lose(
        self, errand: Errand, documents: Positions, why: Rejection | None
    ) -> list[tuple[Positions, Answer]]:
        assert why is not None
        errand.meter.lost += [(document, why) for document in documents.tolist()]
        return []

    def _too_large(self, outcome: Rejection) -> bool:
        return self.meaning(outcome) is Action.SPLIT

    async def _ask(
        self, errand: Errand, documents: Positions, number: int, *, part: bool
    ) -> Answer | Rejection:
        """An answer, or a rejection that calls for the request's halves."""
        whole = errand.whole if len(documents) == len(errand.query.sendable) else None
        encoded = whole or self.encode(errand.query, documents)
        key = encoded.key
        while (asked := self._asked.get(key)) is not None:
            await asked.wait()  # the very same request is under way: its answer will do for both
        self._asked[key] = done = asyncio.Event()
        try:
            outcome = await self._known(errand, documents, key)
            if outcome is None:
                outcome = await self._fresh(errand, documents, number, encoded, part=part)
        finally:
            del self._asked[key]
            done.set()
        if isinstance(outcome, Answer):
            self._accept(errand, documents, encoded, outcome)
        return outcome

    async def _fresh(
        self, errand: Errand, documents: Positions, number: int, encoded: Encoded, *, part: bool
    ) -> Answer | Rejection:
        """Ask the API, unless what it said of smaller requests tells the answer."""
        if self.allow is not None and not self.allow(errand.query):
            raise QueryError(
                "not-asked", "the ledger lacks an answer, and this run asks only about what failed"
            )
        if len(documents) > 1 and self._sizes.known:  # a single one has no halves to be asked instead
            why = self._sizes.hopeless(self._size(errand, documents, encoded))
            if why is not None:
                await self._ledger.put(encoded.key, why, 0)  # so that a rerun halves it too
                return why
        predicted, exact = self._predicted(errand, documents), errand.predictor.exact
        request = Outgoing(
            encoded.key, encoded.body, len(documents), predicted, (*errand.priority, number), exact
        )
        outcome = await self._client.ask(request, partial(_where, errand.query, documents), part=part)
        if isinstance(outcome, Answer):
            if errand.sampled and not number and not exact:
                await self._compare(errand, documents, outcome)
        elif self._too_large(outcome):
            outcome = self._learn_size(errand, documents, encoded, outcome)
        return outcome

    def _accept(self, errand: Errand, documents: Positions, encoded: Encoded, answer: Answer) -> None:
        """Count an answer for its query, once, and learn from it."""
        self._sizes.accepted(len(documents), len(encoded.body))
        self._prober.answered(encoded.body, len(documents))
        meter = errand.meter
        if encoded.key not in meter.keys:
            meter.keys.add(encoded.key)
            meter.requests += 1
            meter.documents += len(documents)
            meter.tokens += _billed(errand, documents, answer)
            meter.searches += _searches(documents, answer)

    def _learn_size(
        self, errand: Errand, documents: Positions, encoded: Encoded, why: Rejection
    ) -> Rejection:
        """Remember that a request was too large; where it can't have been, as larger ones were accepted, say that."""
        if not self._sizes.plausible(len(documents), len(encoded.body)):
            return Rejection(why.status, "rejected", f"{why.code}: {why.message}", None, why.request_id)
        self._sizes.rejected(self._size(errand, documents, encoded), why)
        return why

    def _size(self, errand: Errand, documents: Positions, encoded: Encoded) -> Size:
        return Size(len(documents), errand.predictor.tokens(documents, exact=True), len(encoded.body))

    async def _known(self, errand: Errand, documents: Positions, key: bytes) -> Answer | Rejection | None:
        """What the ledger knows; what was once rejected is asked about again where the user wants just that."""
        recalled = self._recalled.pop(key, _UNSEEN)
        known = await self._ledger.get(key) if isinstance(recalled, _Unseen) else recalled
        if known is None:
            return None
        if isinstance(known.outcome, Rejection):
            stands = await self._stands(errand, documents, known.outcome, earlier=known.earlier)
            return known.outcome if stands else None
        self._exchange.understood()
        self.counts.reused_requests += 1
        if known.earlier:
            self.counts.saved_requests += 1
            self.counts.saved_tokens += _billed(errand, documents, known.outcome)
            self.counts.saved_searches += _searches(documents, known.outcome)
        return known.outcome

    async def _stands(self, errand: Errand, documents: Positions, why: Rejection, *, earlier: bool) -> bool:
        """Whether a rejection still decides.

        1. Not where the user wants just that asked about again.
        2. One for size stands only as long as everything that was asked instead is known: asking again costs nothing,
           and the server's limit may have been raised.
        3. Any other does.
        """
        if (self.allow is not None and self.allow(errand.query)) or (self.anew and earlier):
            return False
        return not self._too_large(why) or await self._halves_known(errand, documents)

    async def _halves_known(self, errand: Errand, documents: Positions) -> bool:
        if len(documents) == 1:
            return False
        halves = {self.encode(errand.query, half).key: half for half in (documents[::2], documents[1::2])}
        found = await self._ledger.find(list(halves))
        for key, half in halves.items():
            known = found.get(key)
            if known is None:
                return False
            too_large = isinstance(known.outcome, Rejection) and self._too_large(known.outcome)
            if too_large and not await self._halves_known(errand, half):
                return False
        return True

    async def _compare(self, errand: Errand, documents: Positions, answer: Answer) -> None:
        """Tell the drift by a count that was not worth holding the request up for."""
        if answer.tokens is not None:
            count = partial(errand.predictor.tokens, documents, exact=True)
            predicted = await anyio.to_thread.run_sync(count)
            self.spend.compare(predicted, answer.tokens, len(documents))

    def _predicted(self, errand: Errand, documents: Positions) -> int:
        """The tokens to expect: counted where a cap depends on it, else perhaps an upper bound."""
        return errand.predictor.tokens(documents, exact=self.spend.capped)

    def _body(self, query: Content, documents: Sequence[Content]) -> bytes:
        return self._codec.body(Request(self._model, query, documents, self._instruct, self._fps))

    def encode(self, query: Query, documents: Positions) -> Encoded:
        """The request of these documents. It takes a while; safe to call in another thread.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        texts = _taken(query.documents, documents)
        body = self._body(query.text, texts)
        digest = self._scope.copy()
        digest.update(body)
        return Encoded(body, digest.digest()[:16])


@dataclass(slots=True)
class _Tally:
    """What became of a chunk's parts: whether any was answered, how many documents were lost, and why."""

    answered: bool = False
    lost: int = 0
    why: Rejection | None = None

    @property
    def hopeless(self) -> bool:
        """Whether it must be the query, as nothing was accepted with any document."""
        return not self.answered and self.lost >= _LOST


def _where(query: Query, documents: Positions) -> str:
    """Which request it is, for messages."""
    first, last = (query.doc_ids[int(documents[i])] for i in (0, -1))
    which = (
        f"document {first!r}" if len(documents) == 1 else f"{len(documents)} documents, {first!r} to {last!r}"
    )
    return f"query {query.id!r} ({query.place}), {which}"


def _taken(documents: Sequence[Content], positions: Positions) -> Sequence[Content]:
    """Those at ascending positions; all of them need no copy."""
    if len(positions) == len(documents):
        return documents
    return list(map(documents.__getitem__, positions.tolist()))


def _searches(documents: Positions, answer: Answer) -> int:
    """The searches billed; where the API named none, as many as the documents make."""
    return searches(len(documents)) if answer.searches is None else answer.searches


def _billed(errand: Errand, documents: Positions, answer: Answer) -> int:
    """The tokens billed; where the API named none, a count, which is the same on every run."""
    return errand.predictor.tokens(documents, exact=True) if answer.tokens is None else answer.tokens
