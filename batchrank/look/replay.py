"""Ranks one query again by what the ledger knows, with the run's own parts, to see on which answers its ranking rests.

Nothing is sent and nothing is changed. What is asked, how refused requests are halved, which earlier answers serve and
how all of it is merged is decided by the very code that decided it in the run; whoever needs an answer that the
ledger lacks fails. What other queries decided is taken from what the run left: the verdict from the query's record,
findings of audits from the ledger. What comes out is compared with the output, so that no other ranking than the
one that was written is ever explained.
"""

import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import numpy as np

from batchrank.data import Positions, Purpose, Query
from batchrank.errors import LedgerError, QueryError
from batchrank.job.config import Job
from batchrank.ledger.entries import Known
from batchrank.ledger.glance import Attempt, Glance
from batchrank.look.rankings import Listing
from batchrank.look.source import input_facts
from batchrank.merge.reuse import Earlier
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Chunk, Failure, Merged, Ranking, Scores, Verdict
from batchrank.pipeline.assemble import recollector
from batchrank.pipeline.checkpoint import scope
from batchrank.pipeline.earlier import differences, identity
from batchrank.pipeline.endpoint import codec, encoder
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.pipeline.rank import Driver, Outcome
from batchrank.pipeline.recollect import Recollector, past_of, restricted
from batchrank.pipeline.stages import Reader
from batchrank.planning.rehearsal import Foreseen
from batchrank.send.admission import Scheduler
from batchrank.send.encoder import Outgoing
from batchrank.send.fleet import Fleet
from batchrank.send.limiter import Limiter
from batchrank.send.requests import Past, QueryContext, Recall
from batchrank.send.retry import Action
from batchrank.send.sender import Sender
from batchrank.send.spend import Spend

_EVER = 2**62
"""An epoch that no ledger comes to."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request of the query, and what the ledger knows of it.

    Attributes:
        round: its round, from 1.
        chunk: its chunk in that round, from 1.
        purpose: why it was sent.
        documents: positions of its documents, in request order.
        key: what the ledger knows it by.
        known: its answer or rejection.
    """

    round: int
    chunk: int
    purpose: Purpose
    documents: Positions
    key: bytes
    known: Known


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
    """

    replayed: Replayed | None = None
    query: Query | None = None
    prepared: Prepared | None = None
    known: Sequence[Earlier] = ()
    notes: list[str] = field(default_factory=list)


async def replay(job: Job, query: Query, position: int, listing: Listing) -> Findings:
    """Rank a query again, which stands at a position among all that is read, and compare with what was written.

    Raises:
        BatchrankError: the job can't be prepared, such as for want of its tokenizer.
    """
    told = Findings()
    path = job.ledger_path
    try:
        if path is None or not path.is_file() or not path.stat().st_size:
            raise LedgerError(f"{path}: there is no ledger")
        ledger = await anyio.to_thread.run_sync(Glance, path)
        try:
            await _Stage(job, ledger, told).run(query, position, listing)
        finally:
            ledger.close()
    except LedgerError as error:
        told.notes.append(f"{error}; so the answers that the ranking rests on can't be told")
    except (KeyError, TypeError) as error:
        told.notes.append(f"{path}: what it tells of the run is of another version, or damaged ({error!r})")
    return told


class _Stage:
    """Holds what all tries of one query share."""

    def __init__(self, job: Job, ledger: Glance, told: Findings) -> None:
        self._job = job
        self._ledger = ledger
        self._told = told
        self._ground = Preconditions(job)
        self._past = Past()
        self._scope = scope(job)

    async def run(self, query: Query, position: int, listing: Listing) -> None:
        if not await self._look_up():
            return
        # The first of each thousand lists of several requests carries a probe; the list's number isn't known here.
        missing = ""
        for index in (1, 0):
            try:
                found = await self._try(query, position, index, listing)
            except QueryError as error:
                missing = missing or str(error)
                continue
            if _same(found, listing):
                self._told.replayed = found
                return
        why = (
            f"the ledger lacks an answer ({missing})"
            if missing
            else "the answers in the ledger give another ranking now"
        )
        self._told.notes.append(
            f"the ranking can't be made again from the ledger: {why}. The input or the job has changed since, a later "
            "run has begun, or answers were dropped (batchrank ledger --compact)"
        )
        await self._recollect(query, position)

    async def _recollect(self, query: Query, position: int) -> None:
        """Find what any run was told of the query's documents."""
        driver = self._driver(_Silent(self._job, self._ledger, query), "unknown", None)
        with suppress(QueryError):
            prepared = self._told.prepared = self._prepared(driver, query, position)
            make = driver.sender.encoder
            contents = np.frombuffer(make.contents(prepared.query.documents), dtype="<u8")
            question = make.question(prepared.query)
            found = await self._ledger.recollect([question], before=_EVER)
            self._told.known = restricted(contents, prepared.query.sendable, found.get(question, []))

    async def _look_up(self) -> bool:
        """Find the state of the run that wrote the output; whether there is any."""
        state: dict[str, Any] | None = await self._ledger.load(f"run/{self._scope}")
        if state is None:  # the folder was moved since: the ledger in it has this job's state alone
            known = await self._ledger.load_all("run/")
            if len(known) != 1:
                self._told.notes.append("the ledger knows of no run that wrote to this folder")
                return False
            ((self._scope, state),) = known.items()
        self._ledger.run = state["number"]
        if "horizon" in state:
            self._past = past_of(state, self._job.reuse.seconds)
        files = await anyio.to_thread.run_sync(input_facts, self._job)
        settings = identity(self._job, self._ground.sharder.counter.name)
        changed = differences(state, settings, state["inputs"] if files is None else files)
        if changed:
            self._told.notes.append(f"changed since the run: {', '.join(changed)}")
        return True

    async def _try(self, query: Query, position: int, index: int, listing: Listing) -> Replayed:
        job = self._job
        sender = _Silent(job, self._ledger, query)
        sender.recall.past = self._past
        found = await recollector(job, self._ledger, sender, self._past, self._scope)
        driver = self._driver(sender, listing.record.get("verdict") or "unknown", found)
        prepared = self._prepared(driver, query, position)
        if prepared.multi_chunk_index is not None:
            prepared.multi_chunk_index = index
        await driver.recall([prepared])
        merged = await driver.merge(prepared)
        outcome = driver.outcome(prepared, merged)
        assert isinstance(outcome.result, Ranking)
        asked = sorted(sender.asked, key=lambda one: (one.round, one.chunk))
        tries = await self._ledger.attempts([one.key for one in asked])
        return Replayed(prepared, merged, outcome.result, asked, self._ledger.run, tries)

    def _driver(self, sender: Sender, verdict: Verdict, found: Recollector | None) -> Driver:
        verdicts = Foreseen(Verdicts(self._job.card.scores), verdict)
        return Driver(sender, verdicts, self._job.merge.method, None, recollector=found)

    def _prepared(self, driver: Driver, query: Query, position: int) -> Prepared:
        reader = Reader(iter(()), self._ground.preparer, precompute=driver.precompute)
        prepared = reader.prepare(query, position)
        if isinstance(prepared, Outcome):
            assert isinstance(prepared.result, Failure)
            raise QueryError(prepared.result.cause, prepared.result.message)
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


class _Silent(Sender):
    """A sender that may ask nothing: an answer that the ledger lacks fails the query, as with ``--only-failed``."""

    recall: "_Witness"

    def __init__(self, job: Job, ledger: Glance, query: Query) -> None:
        super().__init__(
            encoder=encoder(job, codec(job), legacy=ledger.legacy), wire=job.wire, ledger=ledger,
            scheduler=Scheduler(Limiter(rpm=job.card.rpm, tpm=job.card.tpm), Fleet([])), spend=Spend(None),
            attempts=1, max_delay=0, outage=math.inf, accepted=True,
            rng=random.Random(0),  # noqa: S311 no delay is ever drawn
        )  # fmt: skip
        self.recall = _Witness(ledger, self.encoder, (), lambda why: self.meaning(why) is Action.SPLIT)
        self.recall.allow = lambda query: False
        self._turn = anyio.Lock()

    @property
    def asked(self) -> list[Asked]:
        """The requests that the ledger knows."""
        return self.recall.asked

    async def score(self, context: QueryContext, chunk: Chunk, number: int, *, turn: int) -> list[Scores]:
        """The scores of a chunk; one chunk at a time, so that each request can be told to be its."""
        async with self._turn:
            self.recall.at = (context, turn, number)
            return await super().score(context, chunk, number, turn=turn)


class _Witness(Recall):
    """Notes what was looked up and found."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: list[Asked] = []
        self.at: tuple[QueryContext, int, int] | None = None
        self._purpose: Purpose = "pass"

    def request(self, context: QueryContext, documents: Positions, purpose: Purpose) -> Outgoing:
        """As ever."""
        self._purpose = purpose
        return super().request(context, documents, purpose)

    async def known(
        self, query: Query, documents: Positions, request: Outgoing, *, aside: bool = False
    ) -> Known | None:
        """As ever."""
        purpose = self._purpose
        found = await super().known(query, documents, request, aside=aside)
        if found is not None and self.at is not None:
            context, turn, number = self.at
            if query is context.query:  # not the harmless one that tells whether it is the query that fails
                self.asked.append(Asked(turn + 1, number + 1, purpose, documents, request.key, found))
        return found
