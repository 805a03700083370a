"""One query, from its first chunk to its ranking: drives the merge method's steps against the API."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import numpy as np

from batchrank.errors import BatchrankError, Place, QueryError
from batchrank.merge import start
from batchrank.merge.rounds import Method, Round
from batchrank.models import Price
from batchrank.pipeline.verdicts import SharedVerdicts
from batchrank.records import Chunk, Failure, Merged, Query, QueryCost, Ranking, Scores, Verdict
from batchrank.send import Errand, Meter, Sender
from batchrank.shard import QueryShards


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A query that was read and sharded.

    Attributes:
        position: its place among all that was read, from 0.
        ordinal: its place among the queries of more than one chunk, from 0; None with a single chunk.
        weight: bytes it holds in memory, roughly.
    """

    query: Query
    shards: QueryShards
    position: int
    ordinal: int | None
    weight: int


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A ranking, and the documents in it that the API refused."""

    ranking: Ranking
    refused: list[Failure]


@dataclass(frozen=True, slots=True, eq=False)
class Driver:
    """Drives queries; shared by all of a run.

    Attributes:
        method: the merge method's name.
        top_k: the depth that must be exact.
        price: what a token costs, None when unknown.
    """

    sender: Sender
    verdicts: SharedVerdicts
    method: str
    top_k: int
    price: Price | None

    async def rank(self, prepared: Prepared) -> Ranked:
        """Rank one query.

        Raises:
            QueryError: it can't be ranked; the run goes on.
            RunStoppedError: nothing can be ranked.
            StoppedError: the run has to stop for now.
        """
        ordinal, merged = prepared.ordinal, None
        try:
            merged, meter = await self._merge(prepared)
            return self._ranked(prepared.query, merged, meter)
        finally:
            if ordinal is not None:
                self.verdicts.record_hub(ordinal, merged.evidence if merged else None)

    async def _merge(self, prepared: Prepared) -> tuple[Merged, Meter]:
        shards, ordinal = prepared.shards, prepared.ordinal
        meter = Meter(chunks=len(shards.chunks))
        probe = ordinal is not None and self.verdicts.verdicts.carries_probe(ordinal)
        method = start(self.method, shards, top_k=self.top_k, probe=probe)
        reply: Sequence[Scores] | Verdict | None = None
        rounds = 0
        while True:
            step = await _off_loop(ordinal is not None, _advance, method, reply)
            if isinstance(step, Merged):
                return step, meter
            if isinstance(step, Round):
                errand = Errand(prepared.query, shards, (prepared.position, rounds), meter)
                reply = await self._round(errand, step.chunks)
                rounds += 1
            else:
                assert ordinal is not None
                if step.probe is not None:
                    self.verdicts.record_probe(ordinal, step.probe)
                reply = await self.verdicts.at(ordinal)

    async def _round(self, errand: Errand, chunks: Sequence[Chunk]) -> list[Scores]:
        """The scores of all chunks; one chunk's failure waits for the others, whose answers are being paid for."""
        if len(chunks) == 1:
            return await self.sender.score(errand, chunks[0], 0)
        scores: list[list[Scores]] = [[] for _ in chunks]
        faults: list[BatchrankError] = []

        async def send(number: int) -> None:
            try:
                scores[number] = await self.sender.score(errand, chunks[number], number)
            except BatchrankError as fault:
                faults.append(fault)

        async with anyio.create_task_group() as group:
            for number in range(len(chunks)):
                group.start_soon(send, number)
        if faults:
            raise min(faults, key=lambda fault: isinstance(fault, QueryError))
        return [piece for pieces in scores for piece in pieces]

    def _ranked(self, query: Query, merged: Merged, meter: Meter) -> Ranked:
        if not np.isfinite(merged.scores).any():
            raise QueryError("refused", f"the API refused every document; the first: {meter.refused[0][1]}")
        cost = QueryCost(
            meter.chunks,
            meter.requests,
            meter.documents,
            meter.tokens,
            None if self.price is None else self.price.cost(meter.tokens),
        )
        refused = [
            Failure(
                query.place,
                query.id,
                "document-refused",
                f"document {query.doc_ids[i]!r} is ranked last: {why}",
                1,
            )
            for i, why in sorted(meter.refused, key=lambda item: item[0])
        ]
        return Ranked(Ranking.of(query, merged, cost), refused)


def _advance(method: Method, reply: Any) -> Any:
    """The method's next step, or what it returned."""
    try:
        return method.send(reply)
    except StopIteration as end:
        return end.value


async def _off_loop(large: bool, function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args) if large else function(*args)


def failure(place: Place, query_id: str | None, error: QueryError) -> Failure:
    """The dead letter of a query that can't be ranked."""
    return Failure(place, query_id, error.cause, str(error), error.attempts)
