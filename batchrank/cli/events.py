"""How a run goes as log records, for machines: what ``Display`` and the closing lines tell people."""

import dataclasses
import logging

import anyio

from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Run

log = logging.getLogger("batchrank.run")
_EVERY = 10.0
_REFRESH = 0.5


class Events:
    """Logs a run's notices as they come, and its progress every ten seconds."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._notices = 0

    async def show(self) -> None:
        """Log until cancelled."""
        waited = 0.0
        while True:
            self._tell_notices()
            await anyio.sleep(_REFRESH)
            waited += _REFRESH
            if waited >= _EVERY and (progress := self._run.progress()):
                waited = 0.0
                known = {f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)}
                known.pop("latency")
                log.info("progress", extra=known)

    def closing(self, report: Report) -> None:
        """Log what came of the run."""
        self._tell_notices()
        for notice in report.data["notices"]:
            if notice not in self._run.notices:
                log.warning("note", extra={"note": notice})
        process = {name: value for name, value in report.data["process"].items() if name != "timeline"}
        keys = ("complete", "exit_code", "reason", "totals", "spend")
        log.log(
            logging.ERROR if report.exit_code else logging.INFO,
            "ended",
            extra={key: report.data[key] for key in keys} | {"sending": process},
        )

    def _tell_notices(self) -> None:
        for notice in self._run.notices[self._notices :]:
            log.info("note", extra={"note": notice})
        self._notices = len(self._run.notices)
