"""Stage 3 proper: turns a chunk into its scores, from the ledger or the API, in halves where it must be.

A request is halved when it is too large, when its content is refused, and when it fails again and again although the
endpoint works. So a bad document is found and lost alone, and the rest of its query is ranked.
"""

import asyncio
import random
from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from batchrank.data import Answer, Positions, Query, Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger.entries import Known
from batchrank.ledger.ledger import Ledger
from batchrank.models import searches
from batchrank.outcomes import Chunk, Scores
from batchrank.send.admission import Dispatcher
from batchrank.send.client import Client
from batchrank.send.exchange import Exchange, Outgoing
from batchrank.send.health import OutageDetector, Size, Sizes
from batchrank.send.known import Encoder, Recall, together
from batchrank.send.probe import Prober
from batchrank.send.retry import Action, classify
from batchrank.send.spend import Spend
from batchrank.send.stats import Counts, Encoded, Errand
from batchrank.send.transport import Http


class Sender:
    """Sends chunks; shared by all queries of a run.

    Attributes:
        spend: the run's account.
        counts: what has happened so far.
        encoder: makes requests.
        recall: what the ledger knows.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        accepted: whether the endpoint has taken a request of this run before.
        attempts: tries per request; being throttled doesn't count as one.
        max_delay: longest pause between two tries, seconds.
        outage: seconds without any success after which the run stops.
        rng: where the jitter comes from.
    """

    def __init__(
        self,
        *,
        http: Http,
        encoder: Encoder,
        wire: str,
        ledger: Ledger,
        dispatcher: Dispatcher,
        spend: Spend,
        attempts: int,
        max_delay: float,
        outage: float,
        accepted: bool,
        rng: random.Random,
    ) -> None:
        self._wire = wire
        self._ledger = ledger
        self.spend = spend
        self.encoder = encoder
        self._asked: dict[bytes, asyncio.Event] = {}
        self.recall = Recall(ledger, encoder, self._asked, self._too_large)
        self._sizes = Sizes()
        self._slow = 0
        self.counts = Counts()
        self._outage = OutageDetector(outage, accepted=accepted)
        self._exchange = Exchange(
            http=http, wire=wire, ledger=ledger, dispatcher=dispatcher, spend=spend, outage=self._outage,
            counts=self.counts,
        )  # fmt: skip
        self._prober = Prober(
            self._exchange, self._outage, harmless=encoder.harmless(), wire=wire,
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
    def notices(self) -> list[str]:
        """What the user should know about the sizes of requests."""
        found = [self._sizes.notice] if self._sizes.notice else []
        if self._slow:
            found.append(
                f"{self._slow:,} requests took too long (504, or no answer within endpoint.timeout) and were halved; "
                "set limits.documents to fewer, or endpoint.timeout to more"
            )
        return found

    async def score(self, errand: Errand, chunk: Chunk, number: int) -> list[Scores]:
        """The scores of chunk ``number`` of a round: one ``Scores``, more where it had to be halved.

        Documents that no request was accepted with are left out, and noted in the errand's meter.

        Raises:
            QueryError: the ledger lacks an answer, and this run may not ask for it.
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        parts = await self._parts(errand, chunk.documents, number, _Tally(), None)
        return [Scores(documents, answer.values, number) for documents, answer in parts]

    async def _parts(
        self, errand: Errand, documents: Positions, number: int, tally: "_Tally", part_of: Rejection | None
    ) -> list[tuple[Positions, Answer]]:
        """Ask for a chunk, or for a part of one that failed as ``part_of`` says; what was answered.

        Halves are asked one after the other, so that what becomes of them doesn't depend on timing, and little is asked
        in vain; those of a request that was too large at the same time, once something of the chunk was accepted.
        """
        if tally.doubtful and await self._query_fails(errand, number, tally):
            return self._lose(errand, documents, tally.why)
        encoded, outcome = await self._ask(errand, documents, number, part_of)
        if isinstance(outcome, Answer):
            tally.answered = True
            return [(documents, outcome)]
        if len(documents) == 1:
            tally.why = outcome
            return self._lose(errand, documents, outcome)
        self.counts.splits += 1
        self._slow += outcome.status == 504 or outcome.code == "timeout"
        # Each half is a sample of the chunk, whose documents stand in first-stage order.
        halves = documents[::2], documents[1::2]
        if not self._believed(outcome, documents, encoded):
            first = await self._parts(errand, halves[0], number, tally, outcome)
            return first + await self._parts(errand, halves[1], number, tally, outcome)
        if tally.answered:
            calls = [partial(self._parts, errand, half, number, _Tally(), None) for half in halves]
            found = [piece for pieces in await together(calls) for piece in pieces]
        else:
            found = await self._parts(errand, halves[0], number, tally, None)
            found += await self._parts(errand, halves[1], number, tally, None)
        if sum(len(part) for part, _ in found) == len(documents):
            # Nothing of it is too large alone, so it was the request's size.
            self._sizes.rejected(self._size(errand, documents, encoded), outcome)
        return found

    async def _query_fails(self, errand: Errand, number: int, tally: "_Tally") -> bool:
        """Whether it is the query that every request fails with: asked once, with a harmless document."""
        if tally.cleared is None:
            query = self.encoder.of_query(errand.query)
            _, outcome = await self._ask(errand.of(query), query.sendable, number, tally.why)
            tally.cleared = isinstance(outcome, Answer)
        return not tally.cleared

    def _lose(
        self, errand: Errand, documents: Positions, why: Rejection | None
    ) -> list[tuple[Positions, Answer]]:
        assert why is not None
        errand.meter.lost += [(document, why) for document in documents.tolist()]
        return []

    def _too_large(self, outcome: Rejection) -> bool:
        return self.meaning(outcome) is Action.SPLIT

    def _believed(self, outcome: Rejection, documents: Positions, encoded: Encoded) -> bool:
        """Whether a request really was too large: not where much larger ones were accepted, whatever is said."""
        return self._too_large(outcome) and self._sizes.plausible(len(documents), len(encoded.body))

    async def _ask(
        self, errand: Errand, documents: Positions, number: int, part_of: Rejection | None
    ) -> tuple[Encoded, Answer | Rejection]:
        """A request, and its answer or a rejection that calls for its halves."""
        whole = errand.whole if len(documents) == len(errand.query.sendable) else None
        encoded = whole or self.encoder.encode(errand.query, documents)
        key = encoded.key
        while (asked := self._asked.get(key)) is not None:
            await asked.wait()  # the very same request is under way: its answer will do for both
        self._asked[key] = done = asyncio.Event()
        try:
            known = await self.recall.known(errand.query, documents, key)
            if known is None:
                outcome = await self._fresh(errand, documents, number, encoded, part_of)
            else:
                outcome = self._reused(errand, documents, known)
        finally:
            del self._asked[key]
            done.set()
        if isinstance(outcome, Answer):
            self._accept(errand, documents, encoded, outcome)
        return encoded, outcome

    def _reused(self, errand: Errand, documents: Positions, known: Known) -> Answer | Rejection:
        """What the ledger knows, counted."""
        if isinstance(known.outcome, Answer):
            self._exchange.understood()
            self.counts.reused_requests += 1
            if known.earlier:
                self.counts.saved_requests += 1
                self.counts.saved_tokens += _billed(errand, documents, known.outcome)
                self.counts.saved_searches += _searches(documents, known.outcome)
        return known.outcome

    async def _fresh(
        self,
        errand: Errand,
        documents: Positions,
        number: int,
        encoded: Encoded,
        part_of: Rejection | None,
    ) -> Answer | Rejection:
        """Ask the API, unless what it said of smaller requests tells the answer."""
        if self.recall.allow is not None and not self.recall.allow(errand.query):
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
        where = partial(_where, errand.query, documents)
        outcome = await self._client.ask(request, where, part_of=part_of)
        if isinstance(outcome, Answer) and errand.sampled and not number and not exact:
            await self._compare(errand, documents, outcome)
        return outcome

    def _accept(self, errand: Errand, documents: Positions, encoded: Encoded, answer: Answer) -> None:
        """Count an answer for its query, once, and learn from it."""
        tokens = _billed(errand, documents, answer)
        self._sizes.accepted(len(documents), len(encoded.body))
        self._prober.answered(encoded.body, len(documents), tokens)
        meter = errand.meter
        if encoded.key not in meter.keys:
            meter.keys.add(encoded.key)
            meter.requests += 1
            meter.documents += len(documents)
            meter.tokens += tokens
            meter.searches += _searches(documents, answer)

    def _size(self, errand: Errand, documents: Positions, encoded: Encoded) -> Size:
        return Size(len(documents), errand.predictor.tokens(documents, exact=True), len(encoded.body))

    async def _compare(self, errand: Errand, documents: Positions, answer: Answer) -> None:
        """Tell the drift by a count that was not worth holding the request up for."""
        if answer.tokens is not None:
            count = partial(errand.predictor.tokens, documents, exact=True)
            predicted = await anyio.to_thread.run_sync(count)
            self.spend.compare(predicted, answer.tokens, len(documents))

    def _predicted(self, errand: Errand, documents: Positions) -> int:
        """The tokens to expect: counted where a cap depends on it, else perhaps an upper bound."""
        return errand.predictor.tokens(documents, exact=self.spend.capped)


@dataclass(slots=True)
class _Tally:
    """What became of a chunk's parts: whether any was answered, how many documents were lost, and why."""

    answered: bool = False
    why: Rejection | None = None
    cleared: bool | None = None

    @property
    def doubtful(self) -> bool:
        """Whether it may be the query, as nothing was accepted with any document."""
        return not self.answered and self.why is not None


def _where(query: Query, documents: Positions) -> str:
    """Which request it is, for messages."""
    first, last = (query.doc_ids[int(documents[i])] for i in (0, -1))
    which = (
        f"document {first!r}" if len(documents) == 1 else f"{len(documents)} documents, {first!r} to {last!r}"
    )
    return f"query {query.id!r} ({query.place}), {which}"


def _searches(documents: Positions, answer: Answer) -> int:
    """The searches billed; where the API named none, as many as the documents make."""
    return searches(len(documents)) if answer.searches is None else answer.searches


def _billed(errand: Errand, documents: Positions, answer: Answer) -> int:
    """The tokens billed; where the API named none, a count, which is the same on every run."""
    return errand.predictor.tokens(documents, exact=True) if answer.tokens is None else answer.tokens
