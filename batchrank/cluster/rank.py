"""Ranks parts of the input in a process of its own: shards, asks, merges and writes them, and hands over what it did.

It is the same pipeline as that of one process, whose gateway and ledger are elsewhere; so it writes the same bytes.
"""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio.from_thread

from batchrank.cluster.channel import Channel
from batchrank.cluster.handover import fetch, hand_over
from batchrank.cluster.messages import Finished, Standing, Terms
from batchrank.cluster.remote import RemoteGateway, RemoteLedger
from batchrank.cluster.stage import StagedCutter, StagedPart
from batchrank.errors import BatchrankError
from batchrank.io.address import Where
from batchrank.io.patience import Patience, waited_for
from batchrank.io.scratch import Scratch
from batchrank.merge.verdict import Verdicts
from batchrank.outcomes import Failure
from batchrank.pipeline.assemble import ranker, sharder
from batchrank.pipeline.earlier import refuse_unasked
from batchrank.pipeline.endpoint import codec, encoder
from batchrank.pipeline.output import part_writer
from batchrank.pipeline.prepare import Prepared, Preparer
from batchrank.pipeline.rank import Driver
from batchrank.pipeline.shared import SharedVerdicts
from batchrank.pipeline.sink import Sink
from batchrank.pipeline.stages import Flow, Reader
from batchrank.pipeline.summary import Outcome, Totals
from batchrank.pipeline.workers import MemoryBudget
from batchrank.send.sender import Sender
from batchrank.send.stats import Counts, Timeline

_BEAT = 0.25
"""Seconds between two reports of how far this process has come."""


class _Letters:
    """Takes dead letters, for who keeps the file of them."""

    def __init__(self) -> None:
        self.taken: list[Failure] = []

    def write(self, failure: Failure) -> None:
        """Take one."""
        self.taken.append(failure)

    def mark(self) -> None:
        """Nothing is kept here."""


class _Parts:
    """Writes the parts of this process, one after the other, and hands each over once it stands.

    Args:
        channel: to whom.
        verdicts: whether scores can be compared.
        folder: where they are written.
    """

    def __init__(self, channel: Channel, terms: Terms, verdicts: SharedVerdicts, folder: Where) -> None:
        self._folder = folder
        self._channel, self._terms, self._verdicts = channel, terms, verdicts
        self._sink: Sink | None = None
        self._letters = _Letters()
        self._told: dict[str, Any] | None = terms.head

    @property
    def open(self) -> Totals:
        """The sums of the part at hand."""
        return Totals() if self._sink is None else self._sink.totals

    async def deliver(self, outcomes: list[Outcome]) -> None:
        """Write some outcomes, in order."""
        if self._terms.only is not None:
            refuse_unasked(outcome.result for outcome in outcomes)
        first = 0
        for at, outcome in enumerate(outcomes):
            if outcome.last or at == len(outcomes) - 1:
                await self._write(outcomes[first : at + 1])
                first = at + 1
        self.tell_head()

    async def _write(self, outcomes: list[Outcome]) -> None:
        part = outcomes[0].part
        if self._sink is None:
            self._letters = _Letters()
            self._sink = Sink(
                part_writer(self._terms.job, self._folder, part, self._terms.staging), self._letters, Totals(),
                top_k=self._terms.job.merge.top_k, verdicts=self._verdicts.verdicts, clear=self._clear,
            )  # fmt: skip
        sink = self._sink
        for checkpoint in await sink.write(outcomes):
            finished = Finished(checkpoint, self._letters.taken, sink.first_failure)
            self.tell_head()
            await sink.close(complete=False)
            if self._terms.written is None:
                await hand_over(self._channel, checkpoint, Path(self._folder))
            await self._channel.call("finished", finished)
            self._sink = None

    def tell_head(self) -> None:
        """Tell what part 0 came to, once that is known here."""
        if self._told is None and (head := self._verdicts.verdicts.head) is not None:
            self._told = head
            self._channel.tell("head", head)

    def know_head(self, head: dict[str, Any]) -> None:
        """Learn what part 0 came to."""
        self._told = head
        self._verdicts.verdicts.head = head
        self._verdicts.notify()

    def _clear(self) -> None:
        anyio.from_thread.run(self._channel.call, "clear")

    async def abort(self) -> None:
        """Give up the part at hand."""
        if self._sink is not None:
            await self._sink.close(complete=False)


async def rank(channel: Channel, terms: Terms) -> BatchrankError | None:
    """Rank parts until there are no more.

    Args:
        channel: where parts come from, and where everything is asked.
        terms: what is to be known.

    Returns:
        Why this process stopped early; None where there are no more parts.
    """
    # One that publishes its parts itself waits for their store as long as a run in one process does.
    patience = Patience(terms.job.retry.outage)
    with patience.applied():
        if terms.written is not None:
            return await _rank(channel, terms, terms.written, patience)
        with closing(Scratch()) as own:  # which somebody removes even if this process is killed
            return await _rank(channel, terms, own.path, patience)


async def _rank(channel: Channel, terms: Terms, folder: Where, patience: Patience) -> BatchrankError | None:
    job = terms.job
    counts, verdicts = Counts(timeline=_RankedElsewhere(channel)), SharedVerdicts(Verdicts(job.card.scores))
    ledger = RemoteLedger(channel, run=terms.run, legacy=terms.legacy)
    gateway = RemoteGateway(channel, counted=terms.counted)
    shards = sharder(job)
    sender = Sender(
        encoder=encoder(job, codec(job), legacy=terms.legacy), wire=job.wire, ledger=ledger, gateway=gateway,
        counts=counts,
    )  # fmt: skip
    sender.recall.allow, sender.recall.anew = terms.only, terms.anew
    driver = await ranker(
        job, shards, ledger, sender, verdicts, counted=terms.counted, past=terms.past, scope=terms.scope
    )
    parts = _Parts(channel, terms, verdicts, folder)
    if terms.head is not None:
        parts.know_head(terms.head)
    room = terms.room
    memory = MemoryBudget(room)
    flow = Flow(driver, parts.deliver, memory=memory, drain=terms.drain)

    async def stop(reason: BatchrankError, drain: float | None) -> None:
        patience.heed(reason)
        flow.stop(reason, drain=drain)

    async def know_head(head: dict[str, Any]) -> None:
        parts.know_head(head)

    async def know_room(queries: int) -> None:
        room.queries = queries

    channel.know({"stop": stop, "head": know_head, "room": know_room})
    async with anyio.create_task_group() as group:
        group.start_soon(_beat, channel, flow, parts, counts)
        await flow.run(_batches(channel, terms, Preparer(job, shards), driver, folder))
        group.cancel_scope.cancel()
    await parts.abort()
    _stand(channel, flow, parts, counts)
    for notice in sender.notices:
        channel.tell("notice", notice)
    return flow.reason


async def _batches(
    channel: Channel, terms: Terms, preparer: Preparer, driver: Driver, folder: Where
) -> AsyncIterator[list[Prepared | Outcome]]:
    """What is to be ranked: part after part, as this process gets to them."""
    given: StagedPart
    while (given := await channel.call("part")) is not None:
        part = given if terms.written is not None else await fetch(channel, given, Path(folder))
        try:
            reader = Reader(
                part.read(), preparer, StagedCutter(part),
                position=part.position, precompute=driver.precompute, ended=driver.verdicts.record_end,
            )  # fmt: skip
            async for batch in reader.batches():
                yield batch
        finally:
            if part is not given:
                part.path.unlink(missing_ok=True)


async def _beat(channel: Channel, flow: Flow, parts: _Parts, counts: Counts) -> None:
    while True:
        await anyio.sleep(_BEAT)
        parts.tell_head()
        _stand(channel, flow, parts, counts)


def _stand(channel: Channel, flow: Flow, parts: _Parts, counts: Counts) -> None:
    channel.tell(
        "stands",
        Standing(
            flow.admitted, flow.admitted_documents, flow.unfinished, flow.completed, parts.open,
            counts.reused_requests, counts.recalled, counts.saved_tokens, counts.saved_searches, counts.spared_tokens,
            counts.splits, waited_for(),
        ),
    )  # fmt: skip


class _RankedElsewhere(Timeline):
    """Tells of each query that was ranked to who keeps count."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def ranked(self, query_id: str, seconds: float, requests: int, documents: int) -> None:
        """Tell of one."""
        self._channel.tell("ranked", query_id, seconds, requests, documents)
