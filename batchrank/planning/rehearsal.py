"""Rehearses tonight's run: all that decides what is asked is the run's own, but nothing is sent.

What is read of the ledger, how earlier answers serve and how a query is ranked is done by the run's own parts. What
they would send is counted instead, and answered with made-up scores that agree with all that is known of the query.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import anyio
import anyio.to_thread

from batchrank.data import Answer, Positions, Purpose, Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.job.config import Job
from batchrank.ledger.entries import Known
from batchrank.ledger.glance import Glance
from batchrank.merge.answers import Pool
from batchrank.merge.reuse import Earlier
from batchrank.merge.verdict import Verdicts
from batchrank.models import searches
from batchrank.outcomes import ABSOLUTE, Chunk, Scores, Verdict
from batchrank.pipeline.endpoint import codec, encoder
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.rank import Driver
from batchrank.pipeline.resume import Resume, scope
from batchrank.pipeline.shared import Recollector, SharedVerdicts
from batchrank.pipeline.workers import unwrap_exception_groups
from batchrank.planning.bill import Forecast, Net, World
from batchrank.read.layout import facts
from batchrank.send.encoder import Encoder, Outgoing
from batchrank.send.requests import Past, QueryContext, Recall
from batchrank.send.retry import Action, classify
from batchrank.send.stats import Counts


class Rehearsal:
    """Ranks queries by what the ledger knows, and by made-up scores where a run would ask.

    Args:
        job: the job.
        net: counts what would be asked.
        ledger: what is known.
        requests: makes requests.
        past: which answers of earlier runs count.
        verdict: the last run's.
        forecast: tells what a list takes of which nothing is known.
    """

    gate: str | None = None

    def __init__(
        self,
        job: Job,
        net: Net,
        ledger: Glance,
        requests: Encoder,
        past: Past,
        verdict: Verdict,
        forecast: Forecast,
    ) -> None:
        self.encoder = requests
        self.recall = Recall(ledger, requests, (), lambda why: self.meaning(why) is Action.SPLIT)
        self.recall.past = past
        self.counts = Counts()
        self._job = job
        self._net = net
        self._ledger = ledger
        self._forecast = forecast
        self._asked: set[bytes] = set()
        self._worlds: dict[int, World] = {}
        recollector = None
        if job.reuse.documents:
            kept = f"reuse/{scope(job)}/"
            recollector = Recollector(ledger, requests, self.recall, job.reuse.audit, kept)
        self._verdicts = Foreseen(Verdicts(job.card.scores), verdict)
        self.driver = Driver(self, self._verdicts, job.merge.method, None, recollector=recollector)

    @classmethod
    async def open(cls, ground: Preconditions, ledger: Glance, net: Net, forecast: Forecast) -> Self:
        """Begin as a run would begin now.

        Raises:
            LedgerError: the ledger can't be read.
            InputError: the input as a whole is unusable.
        """
        job = ground.job
        assert job.input is not None
        files = await anyio.to_thread.run_sync(facts, job.input)
        past, verdict = await Resume(ledger, job, files, ground.sharder.counter.name, None).foresee()
        requests = encoder(job, codec(job), legacy=ledger.legacy)
        found = cls(job, net, ledger, requests, past, verdict, forecast)
        if found.driver.recollector is not None:
            await found.driver.recollector.restore()
        return found

    async def run(self, batch: Sequence[Prepared]) -> None:
        """Rehearse queries, in input order.

        Raises:
            LedgerError: the ledger can't be read.
        """
        await self.driver.recall(batch)
        unknown = await self._unknown(batch)
        with unwrap_exception_groups():
            async with anyio.create_task_group() as group:
                for prepared in batch:
                    if prepared.position in unknown:
                        self._foretell(prepared)
                    else:
                        group.start_soon(self._rank, prepared)

    async def _unknown(self, batch: Sequence[Prepared]) -> set[int]:
        """Positions of lists of which nothing is known, so that their shape tells all; ranking each takes longer."""
        if self._verdicts.verdict in ABSOLUTE:
            return set()  # ranking them is quick, and takes less than the forecast says
        firsts = {
            one.position: [self.recall.request(one, chunk, "pass") for chunk in one.shards.chunks]
            for one in batch
            if one.multi_chunk_index is not None
            and not one.earlier
            and not self._verdicts.verdicts.carries_probe(one.multi_chunk_index)
        }
        keys = {position: _keys(requests) for position, requests in firsts.items()}
        found = await self._ledger.find([key for some in keys.values() for key in some])
        return {position for position, some in keys.items() if found.keys().isdisjoint(some)}

    def _foretell(self, prepared: Prepared) -> None:
        shards = prepared.shards
        bill = self._forecast.of(self._job.merge.method, shards, prepared.top_k)
        sendable = sum(map(len, shards.chunks))
        self._add(*bill, tokens=round(sum(map(shards.tokens, shards.chunks)) * bill[1] / sendable))

    def _add(self, requests: int, documents: int, searched: int, *, tokens: int) -> None:
        net = self._net
        net.requests += requests
        net.documents += documents
        net.searches += searched
        net.tokens += tokens

    async def _rank(self, prepared: Prepared) -> None:
        world = World(Pool(prepared.shards), len(prepared.query.documents), list(prepared.earlier))
        self._worlds[prepared.position] = world
        with suppress(QueryError):  # all of it was rejected before, and would be again
            await self.driver.rank(prepared)
        self._net.reused += world.reused
        del self._worlds[prepared.position]

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """What the ledger knows of a chunk, in halves where it was rejected; else made-up scores."""
        parts = await self._parts(context, chunk.documents, chunk.purpose)
        return [Scores(documents, answer.values, number) for documents, answer in parts]

    async def _parts(
        self, context: QueryContext, documents: Positions, purpose: Purpose
    ) -> list[tuple[Positions, Answer]]:
        request = self.recall.request(context, documents, purpose)
        known = await self.recall.known(context.query, documents, request, aside=context.aside)
        if known is not None and isinstance(known.outcome, Rejection):
            if len(documents) == 1:
                context.lose(documents, known.outcome)
                return []
            halves = documents[::2], documents[1::2]
            return [part for half in halves for part in await self._parts(context, half, purpose)]
        answer = self._known(context, documents, purpose, known)
        if answer is None:
            answer = self._made_up(context, documents, purpose, request)
        if purpose != "audit":
            earlier = known is not None and known.epoch < self.recall.past.before
            at = known.at if known and earlier else None
            context.meter.answered(request.key, documents, answer.tokens or 0, answer.searches, at=at)
        return [(documents, answer)]

    def _known(
        self, context: QueryContext, documents: Positions, purpose: Purpose, known: Known | None
    ) -> Answer | None:
        """An answer from the ledger."""
        if known is None or not isinstance(known.outcome, Answer):
            return None
        answer = known.outcome
        self._worlds[context.position].learn(Earlier(documents, answer.values, purpose, known.run))
        return answer

    def _made_up(
        self, context: QueryContext, documents: Positions, purpose: Purpose, request: Outgoing
    ) -> Answer:
        """An answer that agrees with what is known; its request is counted as asked, once."""
        tokens = context.shards.tokens(documents)
        if request.key not in self._asked:
            self._asked.add(request.key)
            self._add(1, len(documents), searches(len(documents)), tokens=tokens)
        world = self._worlds[context.position]
        return Answer(world.repeated(documents) if purpose == "audit" else world.scores(documents), tokens)

    def meaning(self, why: Rejection) -> Action:
        """What a rejection calls for."""
        return classify(why, self._job.wire)

    def stop(self, reason: BatchrankError) -> None:
        """Nothing: nothing is sent."""


class Foreseen(SharedVerdicts):
    """The last run's verdict, where none is declared, because tonight's depends on what nobody has asked yet."""

    def __init__(self, declared: Verdicts, last: Verdict) -> None:
        super().__init__(declared)
        self.verdict: Verdict = (declared.at(0, 0) if declared.settled else None) or last

    async def at(self, part: int, index: int) -> Verdict:
        """The same for all; nobody waits."""
        return self.verdict

    async def before(self, part: int, preceding: int) -> Verdict:
        """The same for all, but for who comes before any evidence."""
        return self.verdict if part or preceding or self.verdicts.settled else "unknown"

    def record_probe(self, part: int, index: int, probe: object) -> None:
        """Nothing: it is made up."""

    def record_hub(self, part: int, index: int, hub: object) -> None:
        """Nothing: it is made up."""


def _keys(requests: Sequence[Outgoing]) -> list[bytes]:
    """All keys that the ledger may know requests by."""
    return [key for one in requests for key in (one.key, one.old_key) if key is not None]
