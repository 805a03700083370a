"""Turns a chunk into its scores, from the ledger or the API, in halves where it must be: the centre of stage 3.

A request is halved when it is too large, when its content is refused, and when it fails again and again although the
endpoint works. So a bad document is found and lost alone, and the rest of its query is ranked.
"""

import asyncio
from functools import partial

import anyio.to_thread

from batchrank.data import Answer, Positions, Purpose, Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.ledger.access import Access
from batchrank.ledger.entries import Known
from batchrank.models import searches
from batchrank.outcomes import Chunk, Scores
from batchrank.send.admission import Priority
from batchrank.send.encoder import Encoder, Outgoing
from batchrank.send.gateway import Asking
from batchrank.send.health import Size, Sizes
from batchrank.send.requests import QueryContext, Recall, Tally, together
from batchrank.send.retry import Action, classify
from batchrank.send.stats import Counts


class Sender:
    """Sends chunks; shared by all queries of a run.

    Attributes:
        counts: what has happened so far.
        encoder: makes requests.
        recall: what the ledger knows.

    Args:
        wire: the wire format, whose words tell what a rejection means.
        gateway: asks the endpoint.
    """

    def __init__(
        self, *, encoder: Encoder, wire: str, ledger: Access, gateway: Asking, counts: Counts
    ) -> None:
        self._wire = wire
        self._ledger = ledger
        self._gateway = gateway
        self.encoder = encoder
        self.counts = counts
        self._asked: dict[bytes, asyncio.Event | None] = {}  # with what others wait for, if any do
        self.recall = Recall(ledger, encoder, self._asked, self._too_large)
        self._sizes = Sizes()

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more; requests in flight go on, whoever waits gets the reason raised."""
        self._gateway.stop(reason)

    @property
    def gate(self) -> str | None:
        """What holds requests back now, as the gateway tells."""
        return self._gateway.gate

    def meaning(self, why: Rejection) -> Action:
        """What a rejection calls for, in the words of this endpoint's wire."""
        return classify(why, self._wire)

    @property
    def notices(self) -> list[str]:
        """What the user should know about the sizes of requests."""
        return self._sizes.notices

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """The scores of chunk ``number`` of a round: one ``Scores``, more where it had to be halved.

        Documents that no request was accepted with are left out, and noted in the query's meter.

        Args:
            context: the query's.
            chunk: what is asked about.
            number: the chunk's place in its round, from 0.
            turn: the round's place among the query's, from 0.

        Raises:
            QueryError: the ledger lacks an answer, and this run may not ask for it.
            RunStoppedError: no request of this run can succeed.
            StoppedError: the run has to stop for now.
        """
        documents, priority = chunk.documents, (context.position, turn, number)
        request, outcome = await self._ask(context, documents, priority, None, chunk.purpose)
        if isinstance(outcome, Answer):
            return [Scores(documents, outcome.values, number)]
        tally = Tally(chunk.purpose)
        parts = await self._divided(context, documents, priority, tally, request, outcome)
        return [Scores(positions, answer.values, number) for positions, answer in parts]

    async def _parts(
        self,
        context: QueryContext,
        documents: Positions,
        priority: Priority,
        tally: Tally,
        part_of: Rejection | None,
    ) -> list[tuple[Positions, Answer]]:
        """Ask for a part of a chunk, and for its halves where it is rejected; return what was answered.

        ``part_of`` is how the request failed that this is a part of. Halves are asked one after the other, so that the
        result doesn't depend on timing, and little is asked without need. Those of a request that was too large are
        asked at the same time, once something of the chunk was accepted.
        """
        if tally.doubtful and await self._query_fails(context, priority, tally):
            return context.lose(documents, tally.why)
        request, outcome = await self._ask(context, documents, priority, part_of, tally.purpose)
        if isinstance(outcome, Answer):
            tally.answered = True
            return [(documents, outcome)]
        return await self._divided(context, documents, priority, tally, request, outcome)

    async def _divided(
        self,
        context: QueryContext,
        documents: Positions,
        priority: Priority,
        tally: Tally,
        request: Outgoing,
        why: Rejection,
    ) -> list[tuple[Positions, Answer]]:
        """Ask for the halves of a request that was rejected; a single document is lost."""
        if len(documents) == 1:
            tally.why = why
            return context.lose(documents, why)
        self.counts.splits += 1
        self._sizes.slow += why.status == 504 or why.code == "timeout"
        # Each half is a sample of the chunk, whose documents stand in first-stage order.
        halves = documents[::2], documents[1::2]
        # Larger ones may have been accepted, whatever is said.
        if not (self._too_large(why) and self._sizes.plausible(request.documents, len(request.body))):
            first = await self._parts(context, halves[0], priority, tally, why)
            return first + await self._parts(context, halves[1], priority, tally, why)
        if tally.answered:
            fresh = partial(Tally, tally.purpose)
            calls = [partial(self._parts, context, half, priority, fresh(), None) for half in halves]
            found = [piece for pieces in await together(calls) for piece in pieces]
        else:
            found = await self._parts(context, halves[0], priority, tally, None)
            found += await self._parts(context, halves[1], priority, tally, None)
        if sum(len(part) for part, _ in found) == len(documents):
            # Nothing of it is too large alone, so it was the request's size.
            tokens = context.shards.tokens(documents, exact=True)
            self._sizes.rejected(Size(len(documents), tokens, len(request.body)), why)
        return found

    async def _query_fails(self, context: QueryContext, priority: Priority, tally: Tally) -> bool:
        """Whether it is the query that every request fails with: asked once, with a harmless document."""
        if tally.cleared is None:
            query = self.encoder.of_query(context.query)
            _, outcome = await self._ask(
                context.instead(query), query.sendable, priority, tally.why, tally.purpose
            )
            tally.cleared = isinstance(outcome, Answer)
        return not tally.cleared

    def _too_large(self, outcome: Rejection) -> bool:
        return self.meaning(outcome) is Action.SPLIT

    async def _ask(
        self,
        context: QueryContext,
        documents: Positions,
        priority: Priority,
        part_of: Rejection | None,
        purpose: Purpose,
    ) -> tuple[Outgoing, Answer | Rejection]:
        """A request, and its answer or a rejection that calls for its halves."""
        request = self.recall.request(context, documents, purpose)
        while request.key in self._asked:  # the very same request is under way: its answer will do for both
            asked = self._asked[request.key] = self._asked[request.key] or asyncio.Event()
            await asked.wait()
        self._asked[request.key] = None
        try:
            known = await self.recall.known(context.query, documents, request, aside=context.aside)
            outcome: Answer | Rejection | None = None
            if known is not None:
                outcome = self._reused(context, documents, known)
            elif self.recall.allow is not None or self._sizes.known:
                outcome = await self._foregone(context, documents, request)
            if outcome is None:
                request.priority = priority
                # Counted where a cap depends on it, else perhaps an upper bound.
                request.predicted = context.shards.tokens(documents, exact=self._gateway.counted)
                request.exact = context.shards.exact
                where = partial(context.where, documents)
                outcome = await self._gateway.ask(request, where, part_of=part_of)
                if context.sampled and not request.exact:
                    await self._compare(context, documents, priority, outcome)
        finally:
            if (done := self._asked.pop(request.key)) is not None:
                done.set()
        if isinstance(outcome, Answer):
            self._accept(context, documents, request, outcome, known, purpose)
        return request, outcome

    def _reused(self, context: QueryContext, documents: Positions, known: Known) -> Answer | Rejection:
        """What the ledger knows, counted."""
        if isinstance(known.outcome, Answer):
            self._gateway.understood()
            self.counts.reused_requests += 1
            if known.earlier:
                named = known.outcome.searches
                self.counts.saved_tokens += context.billed(documents, known.outcome)
                self.counts.saved_searches += searches(len(documents)) if named is None else named
        return known.outcome

    async def _foregone(
        self, context: QueryContext, documents: Positions, request: Outgoing
    ) -> Rejection | None:
        """The rejection that is known beforehand, as the API found smaller requests too large; None if there is none.

        Raises:
            QueryError: this run may not ask about the query.
        """
        if self.recall.allow is not None and not self.recall.allow(context.query):
            raise QueryError("not-asked", "the ledger lacks an answer, and only what failed is asked about")
        if len(documents) == 1 or not self._sizes.known:  # a single one has no halves to be asked instead
            return None
        tokens = context.shards.tokens(documents, exact=True)
        why = self._sizes.hopeless(Size(len(documents), tokens, len(request.body)))
        if why is not None:
            await self._ledger.put(request.key, why, 0, request.about)  # so that a rerun halves it too
        return why

    def _accept(
        self,
        context: QueryContext,
        documents: Positions,
        request: Outgoing,
        answer: Answer,
        known: Known | None,
        purpose: Purpose,
    ) -> None:
        """Count an answer for its query, once, and learn from it."""
        tokens = answer.tokens
        if tokens is None:
            tokens = context.billed(documents, answer)
        self._sizes.accepted(len(documents), len(request.body))
        self._gateway.answered(request, tokens)
        if purpose != "audit":  # not the query's: a resumed run that knows what it found doesn't ask again
            earlier = known is not None and known.epoch < self.recall.past.before
            context.meter.answered(
                request.key, documents, tokens, answer.searches, at=known.at if known and earlier else None
            )

    async def _compare(
        self, context: QueryContext, documents: Positions, priority: Priority, outcome: Answer | Rejection
    ) -> None:
        """Measure the drift by a round's first request; its tokens are counted only now, to hold nothing up."""
        if isinstance(outcome, Answer) and outcome.tokens is not None and priority[2] == 0:
            count = partial(context.shards.tokens, documents, exact=True)
            predicted = await anyio.to_thread.run_sync(count)
            self._gateway.compare(predicted, outcome.tokens, len(documents))
