"""Tells what tonight's run would send, net of what the ledger knows, because most of a nightly list costs nothing."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from batchrank.errors import LedgerError
from batchrank.ledger.database import translated
from batchrank.ledger.glance import Glance
from batchrank.pipeline.preconditions import Preconditions
from batchrank.pipeline.prepare import Prepared
from batchrank.planning.bill import Forecast, Net
from batchrank.planning.rehearsal import Rehearsal

_BATCH = 256, 20_000
"""Queries, and documents, that are looked up at a time: few enough to be held in memory, enough to cost little each."""


class Tonight:
    """Rehearses a job's queries, a batch at a time, in an event loop of its own; to be entered first, and left last.

    Args:
        ground: what prepares the queries.
        forecast: tells what a list takes of which nothing is known.

    Attributes:
        net: what the run would send; None where there is no ledger, or it can't be looked at.
        notice: why it can't.
    """

    def __init__(self, ground: Preconditions, forecast: Forecast) -> None:
        self.net: Net | None = None
        self.notice: str | None = None
        self._ground = ground
        self._forecast = forecast
        self._batch: list[Prepared] = []
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._rehearsal: Rehearsal | None = None

    def __enter__(self) -> Self:
        path = self._ground.job.ledger_path
        with ExitStack() as stack:
            if path is not None and (ledger := self._opened(path)) is not None:
                stack.callback(ledger.close)
                self._portal = stack.enter_context(start_blocking_portal())
                self.net = Net()
                self._guarded(ledger)
            self._stack = stack.pop_all()
        return self

    def _opened(self, path: Path) -> Glance | None:
        try:
            with translated(path, "read"):
                return Glance(path) if path.is_file() and path.stat().st_size else None
        except LedgerError as error:
            self.notice = str(error)
            return None

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, ready: Prepared) -> None:
        """Rehearse a query, soon."""
        if self._rehearsal is None:
            return
        self._rehearsal.driver.precompute(ready)
        self._batch.append(ready)
        queries, documents = _BATCH
        if len(self._batch) >= queries or sum(len(one.query) for one in self._batch) >= documents:
            self.end()

    def end(self) -> None:
        """Rehearse what is left."""
        batch, self._batch = self._batch, []
        self._guarded(batch)

    def _guarded(self, work: Glance | list[Prepared]) -> None:
        """Open the rehearsal, or go on with it; where the ledger fails, its net part of a plan is left out."""
        if self._portal is None or self.net is None:
            return
        try:
            if isinstance(work, Glance):
                self._rehearsal = self._portal.call(
                    Rehearsal.open, self._ground, work, self.net, self._forecast
                )
            elif self._rehearsal is not None:
                self._portal.call(self._rehearsal.run, work)
        except LedgerError as error:
            self.net, self._rehearsal, self.notice = None, None, str(error)
