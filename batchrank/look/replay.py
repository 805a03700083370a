"""Ranks one query again by what the ledger knows, with the run's own parts, to see on which answers its ranking rests.

Nothing is sent and nothing is changed. What is asked, how refused requests are halved, which earlier answers serve and
how all of it is merged is decided by the very code that decided it in the run; whoever needs an answer that the
ledger lacks fails. What other queries decided is taken from what the run left: the verdict from the query's record,
findings of audits from the ledger. What comes out is compared with the output, so that no other ranking than the
one that was written is ever explained.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import numpy as np

from batchrank.data import Query
from batchrank.errors import LedgerError, QueryError
from batchrank.job.config import Job
from batchrank.ledger.glance import Attempt, Glance
from batchrank.ledger.servers import Server
from batchrank.look.rankings import Listing
from batchrank.look.silent import Asked, Silent
from batchrank.look.source import Found, input_facts
from batchrank.merge.reuse import Earlier
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Merged, Ranking, Verdict
from batchrank.pipeline.assemble import ranker
from batchrank.pipeline.earlier import differences, identity
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.resume import scope
from batchrank.pipeline.shared import past_of, restricted
from batchrank.planning.rehearsal import Foreseen
from batchrank.send.requests import Past

_EVER = 2**62
"""An epoch that no ledger comes to."""


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """A query that was ranked again.

    Attributes:
        prepared: the query, with what earlier runs told of it.
        merged: its ranking; of passages, where long documents were split.
        ranking: its ranking as it is written.
        asked: its requests that the ledger knows, in the order of rounds and chunks.
        run: the run that wrote the output.
        attempts: tries of these requests that brought no answer.
    """

    prepared: Prepared
    merged: Merged
    ranking: Ranking
    asked: Sequence[Asked]
    run: int
    attempts: Sequence[Attempt]


@dataclass(slots=True)
class Findings:
    """What came of it.

    Attributes:
        replayed: None where the query can't be ranked again as it was.
        query: the query as it was read.
        prepared: the query as it would be sent; None where it can't be.
        known: instead of a replay: all answers about the query's documents, whichever run asked.
        notes: what the reader should know, such as why there is no replay.
        servers: the servers by the ledger's numbers, each with the name of the key that it was asked with.
    """

    replayed: Replayed | None = None
    query: Query | None = None
    prepared: Prepared | None = None
    known: Sequence[Earlier] = ()
    notes: list[str] = field(default_factory=list)
    servers: Mapping[int, Server] = field(default_factory=dict)

    def server(self, number: int | None) -> Server:
        """The server of a number, and the name of the key; both empty where nobody knows."""
        return self.servers.get(number or 0, ("", ""))

    def by(self, number: int | None) -> str:
        """The same in words that follow on what it did; empty where nobody knows."""
        url, key_name = self.server(number)
        return url and f" (by {url}{key_name and f', key {key_name}'})"


async def replay(job: Job, found: Found, listing: Listing) -> Findings:
    """Rank a query of the input again, and compare with what was written.

    Raises:
        BatchrankError: the job can't be prepared, such as for want of its tokenizer.
    """
    told = Findings(query=found.query)
    path = job.ledger_path
    try:
        if path is None or not path.is_file() or not path.stat().st_size:
            raise LedgerError(f"{path}: there is no ledger")
        ledger = await anyio.to_thread.run_sync(Glance, path)
        told.servers = ledger.servers.by_number
        try:
            await _Replay(job, ledger, found, told).run(listing)
        finally:
            ledger.close()
    except LedgerError as error:
        told.notes.append(f"{error}; so the answers that the ranking rests on can't be told")
    except (KeyError, TypeError) as error:
        told.notes.append(f"{path}: what it tells of the run is of another version, or damaged ({error!r})")
    return told


class _Replay:
    """Holds what all tries of one query share."""

    def __init__(self, job: Job, ledger: Glance, found: Found, told: Findings) -> None:
        self._job = job
        self._ledger = ledger
        self._found = found
        self._told = told
        self._ground = Preconditions(job)
        self._past = Past()
        self._scope = scope(job)
        self._changed: Sequence[str] = ()

    async def run(self, listing: Listing) -> None:
        """Try it."""
        if not await self._look_up():
            return
        # The first list of each part that takes several requests carries a probe, which one that is isn't known here.
        missing = ""
        for index in (1, 0):
            try:
                found = await self._try(index, listing.record.get("verdict") or "unknown")
            except QueryError as error:
                missing = missing or str(error)
                continue
            if _same(found, listing):
                self._told.replayed = found
                return
        why = f"the ledger lacks an answer ({missing})" if missing else "its answers give another ranking now"
        if self._changed:
            self._told.notes.append(f"changed since the run: {', '.join(self._changed)}")
        self._told.notes.append(
            f"the ranking can't be made again from the ledger: {why}. The input or the job has changed since, a later "
            "run has begun, or answers were dropped (batchrank ledger --compact)"
        )
        with suppress(QueryError):
            await self._recollect()

    async def _look_up(self) -> bool:
        """Find the state of the run that wrote the output; whether there is any."""
        state: dict[str, Any] | None = await self._ledger.load(f"run/{self._scope}")
        if state is None:  # the folder was moved since: the ledger in it has this job's state alone
            known = await self._ledger.load_all("run/")
            here = None if self._job.destination is None else str(self._job.destination.absolute())
            known = {k: v for k, v in known.items() if v.get("folder") == here} or known
            if len(known) != 1:
                self._told.notes.append("the ledger knows of no run that wrote to this folder")
                return False
            ((self._scope, state),) = known.items()
        self._ledger.run = state["number"]
        if "horizon" in state:
            self._past = past_of(state, self._job.reuse.seconds)
        files = await anyio.to_thread.run_sync(input_facts, self._job)
        settings = identity(self._job, self._ground.sharder.counter.name)
        self._changed = differences(state, settings, state["inputs"] if files is None else files)
        return True

    async def _try(self, index: int, verdict: Verdict) -> Replayed:
        """Rank it as a query with this multi-chunk index: number 0 carries a probe."""
        job, ledger = self._job, self._ledger
        sender = Silent(job, ledger)
        verdicts = Foreseen(Verdicts(job.card.scores), verdict)
        driver = await ranker(
            job, self._ground.sharder, ledger, sender, verdicts,
            counted=False, past=self._past, scope=self._scope,
        )  # fmt: skip
        prepared = self._prepared()
        prepared.multi_chunk_index = index if len(prepared.shards.chunks) > 1 else None
        prepared.preceding = 1
        driver.precompute(prepared)
        await driver.recall([prepared])
        merged = await driver.merge(prepared)
        ranking = driver.outcome(prepared, merged).result
        assert isinstance(ranking, Ranking)
        asked = sorted(sender.asked, key=lambda one: (one.round, one.chunk))
        tries = await ledger.attempts([one.key for one in asked])
        return Replayed(prepared, merged, ranking, asked, ledger.run, tries)

    async def _recollect(self) -> None:
        """Find what any run was told of the query's documents."""
        make = Silent(self._job, self._ledger).encoder
        prepared = self._told.prepared = self._prepared()
        contents = np.frombuffer(make.contents(prepared.query.documents), dtype="<u8")
        question = make.question(prepared.query)
        found = await self._ledger.recollect([question], before=_EVER)
        self._told.known = restricted(contents, prepared.query.sendable, found.get(question, []))

    def _prepared(self) -> Prepared:
        spot = self._found.spot
        prepared = self._ground.preparer.prepare(self._found.query, self._found.position)
        prepared.part, prepared.place, prepared.last = spot
        return prepared


def _same(found: Replayed, listing: Listing) -> bool:
    """Whether it is what was written: the order, what is proven of it, and what it took."""
    rows, record, cost = listing.rows, listing.record, found.ranking.cost
    if list(found.ranking.doc_ids[: len(rows)]) != [row.doc_id for row in rows]:
        return False
    now = {
        "certified": found.ranking.merge.certified,
        "requests": cost.requests,
        "documents": cost.documents,
    }
    return all(record.get(name, value) == value for name, value in now.items())
