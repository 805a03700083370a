"""The quality gate at the end of a run, and what it needs of the run before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from batchrank.errors import BatchrankError, InputError
from batchrank.job.config import Job
from batchrank.job.sections import Gate
from batchrank.pipeline.report import Report
from batchrank.quality.baseline import NAME, Baseline, accepted, keep
from batchrank.quality.gate import Judgement, judge
from batchrank.quality.rankings import tops
from batchrank.write.reports import write_summary
from batchrank.write.switch import MARKER

GATE_FAILED = 5


def gated(job: Job, folder: Path, written: Path, result: Report) -> Report:
    """The report of a complete run with the gate's judgement in it; a run that failed it is marked, and says so.

    What can't be compared has not passed.

    Args:
        job: the job.
        folder: its output folder, where the baseline is kept, and the mark will be.
        written: where the run's output is now.
        result: the report so far.

    Raises:
        InputError: the baseline can't be written.
        OutputError: the mark can't be written.
    """
    gate = job.gate
    if gate is None or result.reason is not None:
        return result
    if gate.against is None:
        keep(folder, depth=gate.depth)
    try:
        found = _judged(gate, folder, written)
    except BatchrankError as error:
        found = Judgement(False, (f"gate: the rankings could not be compared: {error}",), gate.depth)
    data: dict[str, Any] = result.data | {"gate": found.data()}
    marker = written / MARKER
    if found.passed:
        marker.unlink(missing_ok=True)
        first = found.compared == 0 and found.rbo is None
        notes = ["gate: there is no earlier run to compare with"] if first else []
        return replace(result, data=data | {"notices": [*result.data["notices"], *notes]})
    write_summary(marker, found.data())
    notes = [
        *found.reasons,
        f"the rankings did not pass the gate; to accept them all the same, remove {folder / MARKER}",
    ]
    data |= {"notices": [*result.data["notices"], *notes], "exit_code": GATE_FAILED}
    return replace(result, exit_code=GATE_FAILED, data=data)


def _judged(gate: Gate, folder: Path, written: Path) -> Judgement:
    rankings = tops(str(written), gate.depth)
    path = folder / NAME
    if gate.against:
        if not accepted(Path(gate.against)):
            raise InputError(f"gate.against: {gate.against} holds no complete run that passed its gate")
        keep(folder, Path(gate.against), depth=gate.depth)
    if not path.exists():
        return judge(gate, rankings, None)
    with Baseline(path) as baseline:
        return judge(gate, rankings, baseline)
