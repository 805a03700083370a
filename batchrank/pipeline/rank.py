"""Ranks one query, from its chunks to its ranking, and waits for its part's verdict where its merge needs it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.to_thread
import numpy as np

from batchrank.data import Rejection
from batchrank.errors import BatchrankError, QueryError
from batchrank.merge.answers import Method, Noticed, Round
from batchrank.merge.start import start
from batchrank.merge.trust import Standing
from batchrank.models import Price, searches
from batchrank.outcomes import Chunk, Failure, Merged, QueryCost, Ranking, Scores, Verdict
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.shared import Recollector, SharedVerdicts
from batchrank.pipeline.summary import LOST, Outcome
from batchrank.send.encoder import Encoder
from batchrank.send.requests import QueryContext, Recall, together
from batchrank.send.retry import Action
from batchrank.send.stats import Counts, Meter

_SAMPLE = 8, 100
"""Counted exactly although nothing else needs it: the first so many queries, then one in so many."""


_NOTHING = Standing(holds=True)
"""That of a query without earlier answers."""
_MERGES = 2
"""Lists merged at a time: merging holds the interpreter's lock, so that more threads would only wait for each other."""


class Scorer(Protocol):
    """What gives chunks their scores: a run sends requests, a plan has none sent."""

    @property
    def encoder(self) -> Encoder:
        """What makes requests."""

    @property
    def recall(self) -> Recall:
        """What the ledger knows."""

    @property
    def counts(self) -> Counts:
        """What has happened so far."""

    @property
    def gate(self) -> str | None:
        """What holds requests back now; None for nothing."""

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """The scores of a round's chunk, as ``Sender.score`` tells."""

    def meaning(self, why: Rejection) -> Action:
        """What a rejection calls for."""

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more."""


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """Drives queries; shared by all of a run.

    Attributes:
        method: the merge method's name.
        price: what a token costs, None when unknown.
        exact: whether tokens are to be counted exactly: a cap or the token quota depends on them.
        sample: whether those of some requests are counted otherwise, to tell how bills differ from them.
        texts: whether rankings are to hold their texts.
        attempts: tries of a request before it is given up, as dead letters tell.
        recollector: finds what earlier runs told of documents; None where only whole requests are looked up.
    """

    sender: Scorer
    verdicts: SharedVerdicts
    method: str
    price: Price | None
    exact: bool = False
    sample: bool = False
    texts: bool = False
    attempts: int = 1
    recollector: Recollector | None = None
    _threads: anyio.CapacityLimiter = field(
        default_factory=partial(anyio.CapacityLimiter, _MERGES), init=False
    )

    def precompute(self, prepared: Prepared) -> None:
        """Do in the reader's thread what would hold up the event loop: count tokens, and make a single request."""
        if self.exact:
            prepared.shards.count()
        if self.recollector is not None:
            self.recollector.note(prepared)
        if len(prepared.shards.chunks) == 1:
            documents = prepared.shards.chunks[0]
            prepared.whole = self.sender.encoder.encode(prepared.query, documents)
            prepared.whole.about = prepared.about(documents, "pass")

    async def recall(self, prepared: Sequence[Prepared]) -> None:
        """Look up in the ledger, at one time, what queries are going to ask.

        Raises:
            LedgerError: the ledger can't be read.
        """
        whole = [item.whole for item in prepared if item.whole is not None]
        calls = [partial(self.sender.recall.ahead, whole)]
        if self.recollector is not None:
            calls.append(partial(self.recollector.recall, prepared))
        await asyncio.gather(*(call() for call in calls))  # at one time, so that it is one commit

    async def rank(self, prepared: Prepared) -> Outcome:
        """Rank one query.

        Raises:
            QueryError: it can't be ranked; the run goes on.
            RunStoppedError: nothing can be ranked.
            StoppedError: the run has to stop for now.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        index = prepared.multi_chunk_index
        try:
            merged = await self.merge(prepared)
        except QueryError:
            if index is not None:
                self.verdicts.record_hub(prepared.part, index, None)
            raise
        finally:
            if self.recollector is not None:
                self.recollector.ended(prepared.part, prepared.place)
        if index is not None:
            self.verdicts.record_hub(prepared.part, index, merged.evidence)
        meter, seconds = prepared.meter, loop.time() - started
        self.sender.counts.timeline.ranked(prepared.source.id, seconds, meter.requests, meter.documents)
        return self.outcome(prepared, merged)

    def stop(self, reason: BatchrankError) -> None:
        """Send nothing more and keep nobody waiting for evidence; requests in flight go on."""
        self.sender.stop(reason)
        self.verdicts.stop(reason)
        if self.recollector is not None:
            self.recollector.stop(reason)

    def forget(self, part: int) -> None:
        """Drop what only a part's own queries ask for, now that all of them have been written."""
        self.verdicts.verdicts.forget(part)
        if self.recollector is not None:
            self.recollector.forget(part)

    async def merge(self, prepared: Prepared) -> Merged:
        """Drive a query's merge method to its end; raises what ``rank`` does."""
        index, shards = prepared.multi_chunk_index, prepared.shards
        probe = index is not None and self.verdicts.verdicts.carries_probe(index)
        prepared.sampled = self.sample and (
            prepared.position < _SAMPLE[0] or not prepared.position % _SAMPLE[1]
        )
        standing = await self._standing(prepared) if prepared.earlier else _NOTHING
        method = start(
            self.method, shards,
            top_k=prepared.top_k, probe=probe,
            earlier=prepared.earlier if standing.holds else (),
            barred=np.array(sorted(prepared.refused), dtype=np.intp) if prepared.refused else None,
            audit=self.sender.recall.past.before if standing.audit else None, noise=standing.noise,
        )  # fmt: skip
        reply: Sequence[Scores] | Verdict | None = None
        turn = 0
        while True:
            if index is None and not prepared.earlier:
                step = _step(method, reply)
            else:  # of a large list in a thread, as it takes a while
                step = await anyio.to_thread.run_sync(_step, method, reply, limiter=self._threads)
            if isinstance(step, Merged):
                return step
            if isinstance(step, Round):
                if len(step.chunks) == 1:
                    reply = await self.sender.score(prepared, step.chunks[0], 0, turn=turn)
                else:
                    reply = await self._round(prepared, step, turn)
                turn += 1
            elif isinstance(step, Noticed):
                reply = None
                await self._notice(prepared, step)
            elif index is None:  # a single chunk that was halved: what was known before it must do
                reply = await self.verdicts.before(prepared.part, prepared.preceding)
            else:
                if step.probe is not None:
                    self.verdicts.record_probe(prepared.part, index, step.probe)
                reply = await self.verdicts.at(prepared.part, index)

    async def _standing(self, prepared: Prepared) -> Standing:
        """How far a query may rely on what earlier runs told; where it may not, none of that is used."""
        assert self.recollector is not None
        standing = await self.recollector.standing(prepared.part, prepared.place)
        prepared.aside = not standing.holds
        return standing

    async def _notice(self, prepared: Prepared, noticed: Noticed) -> None:
        """Take in how far earlier answers still hold; where they don't, the query begins anew."""
        assert self.recollector is not None
        await self.recollector.notice(prepared.part, prepared.place, noticed.finding, audit=noticed.audit)
        if noticed.finding.changed:
            prepared.aside = True
            prepared.meter = Meter(chunks=prepared.meter.chunks)

    async def _round(self, prepared: Prepared, step: Round, turn: int) -> list[Scores]:
        """The scores of all chunks; one chunk's failure waits for the others, whose answers are being paid for."""
        calls = [
            partial(self.sender.score, prepared, chunk, number, turn=turn)
            for number, chunk in enumerate(step.chunks)
        ]
        return [piece for pieces in await together(calls) for piece in pieces]

    def outcome(self, prepared: Prepared, merged: Merged) -> Outcome:
        """What became of a query that was merged.

        Raises:
            QueryError: no document of it has a score.
        """
        meter, faults = prepared.meter, prepared.faults
        if merged.recalled:
            meter.lost += prepared.refused.items()
        if meter.lost:
            lost = {document: why for document, why in meter.lost if not merged.scored(document)}
            if not np.isfinite(merged.scores).any():
                raise self._all_lost(lost[min(lost)])
            faults = faults + [
                self._lost(prepared, merged, document, why) for document, why in sorted(lost.items())
            ]
        cost = None
        if self.price is not None:
            images = meter.tokens if prepared.visual else 0
            cost = self.price.cost(meter.tokens, image_tokens=images, searches=meter.searches)
        if merged.recalled:
            meter.rested_on(prepared.oldest)
            self._saved(prepared)
        took = QueryCost(
            meter.chunks, meter.requests, meter.documents, meter.tokens, cost, meter.searches,
            _reused(meter, merged) if meter.reused else 0, meter.oldest,
        )  # fmt: skip
        if prepared.passages is not None:
            merged = prepared.passages.fold(merged)
        ranking = Ranking.of(prepared.source, merged, took, texts=self.texts)
        return Outcome.of(prepared, ranking, faults)

    def _saved(self, prepared: Prepared) -> None:
        """Count what earlier answers saved a query: one pass over its documents, less what was asked."""
        counts, shards = self.sender.counts, prepared.shards
        counts.recalled += 1
        spared = shards.tokens(prepared.query.sendable)
        counts.saved_searches += sum(searches(len(chunk)) for chunk in shards.chunks)
        for documents in prepared.meter.asked:
            spared -= shards.tokens(documents)
            counts.saved_searches -= searches(len(documents))
        counts.saved_tokens += spared
        counts.spared_tokens += spared

    def _all_lost(self, why: Rejection) -> QueryError:
        """Why a query has no ranking: refused, rejected, or no request that held any of it was ever answered."""
        action = self.sender.meaning(why)
        if action is Action.REFUSE:
            return QueryError("refused", f"the API refuses every part of this query: {why}", attempts=1)
        if action is Action.REJECT:
            return QueryError("rejected", f"the API rejects every part of this query: {why}", attempts=1)
        message = f"no part of this query got a usable answer, while other queries did; the last: {why}"
        return QueryError("no-answer", message, attempts=self.attempts)

    def _lost(self, prepared: Prepared, merged: Merged, document: int, why: Rejection) -> Failure:
        query, name, passages = prepared.source, prepared.query.doc_ids[document], prepared.passages
        message = f"document {name!r} is ranked last, without a score: {why}"
        if passages is not None and merged.scored(int(passages.owners[document])):
            message = f"document {name!r} is ranked by its other passages, as one got no score: {why}"
        if self.sender.meaning(why) is Action.REFUSE:
            return Failure(query.place, query.id, "document-refused", message, 1)
        return Failure(query.place, query.id, LOST, message, self.attempts)


def _reused(meter: Meter, merged: Merged) -> int:
    """How many documents have a score although this run asked nothing about them."""
    scored = merged.order[np.isfinite(merged.scores)]
    return len(np.setdiff1d(scored, np.concatenate(meter.asked))) if meter.asked else len(scored)


def _step(method: Method, reply: Any) -> Any:
    """The method's next step, or what it returned."""
    try:
        return method.send(reply)
    except StopIteration as end:
        return end.value
