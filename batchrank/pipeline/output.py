"""Decides where a run's output goes: under its own names, or aside until it is complete and has passed the gate."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchrank.errors import BatchrankError, ExitCode, InputError, TooManyFailuresError
from batchrank.io.address import Address, Where
from batchrank.io.atomic import Kept
from batchrank.job.config import Job
from batchrank.job.sections import Output
from batchrank.outcomes import Failure
from batchrank.pipeline.nights import asked, take_over_reference
from batchrank.pipeline.report import Report
from batchrank.pipeline.sink import FailureLines
from batchrank.quality.accept import held_to, judged_output
from batchrank.quality.gate import Judgement, keep
from batchrank.write import switch
from batchrank.write.destination import opened
from batchrank.write.folder import (
    LOCK,
    MARKER,
    NEXT,
    PARTIAL_LETTERS,
    SUMMARY,
    OutputFolder,
    write_summary,
)
from batchrank.write.switch import Claim
from batchrank.write.writer import FailureLog, StreamWriter, Writer


def apply_gate(job: Job, folder: Where, written: Where, result: Report) -> Report:
    """The report of a complete run with the gate's judgement in it; a run that failed it is marked, and says so.

    What can't be compared has not passed.

    Args:
        job: the job.
        folder: where its output is to be in the end, and the mark will be.
        written: where the run's output is now.
        result: the report so far.

    Raises:
        InputError: the baseline can't be written.
        OutputError: the mark can't be written.
    """
    gate, kept = job.gate, job.output_folder
    if gate is None or kept is None or result.reason is not None:
        return result
    if gate.against is None and keep(kept, folder, depth=gate.depth) is None:
        take_over_reference(job, kept, gate.depth)
    told: list[str] = []
    try:
        gate, told = held_to(gate, kept)
        found = judged_output(gate, kept, written)
    except BatchrankError as error:
        found = Judgement(False, (f"gate: the rankings could not be compared: {error}",), gate.depth)
    data: dict[str, Any] = result.data | {"gate": found.data()}
    marker = written / MARKER
    if found.passed:
        _remove(marker)
        notes = [*told, *found.passing()]
        return replace(result, data=data | {"notices": [*result.data["notices"], *notes]})
    write_summary(marker, found.data())
    notes = [
        *told,
        *found.reasons,
        f"the rankings did not pass the gate, and are marked by {folder / MARKER}; to accept them all the same: "
        f"batchrank gate accept {shlex.quote(str(folder)) if isinstance(folder, Path) else 'JOB'}",
    ]
    data |= {"notices": [*result.data["notices"], *notes], "exit_code": ExitCode.GATE}
    return replace(result, exit_code=ExitCode.GATE, data=data)


def _remove(file: Where) -> None:
    folder = opened(file.parent)
    folder.remove(file.name)
    folder.close()


def part_writer(job: Job, folder: Where, first_part: int, staging: Path | None = None) -> Writer:
    """What writes a job's parts to a folder, from one on, by way of a folder here where it is an address.

    Raises:
        OutputError: the folder can't be used.
    """
    assert job.output is not None
    return Writer(
        job.output.model_copy(update={"path": os.fspath(folder)}),
        first_part=first_part,
        staging=staging,
        dataset=(job.input.subset, job.input.split) if job.input else (None, None),
    )


def _with_first(data: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """A summary whose bill and times are those of the run that made the rankings.

    A rerun that asks nothing and writes the same would replace them by zeros; what it took stands as ``rerun``.

    Args:
        data: what this run has to say.
        earlier: the summary of the complete output that is in place; None for none.
    """
    alike = (
        earlier is not None and data["complete"] and data["parts"] and earlier.get("parts") == data["parts"]
    )
    if earlier is None or not alike or data["process"]["requests"] or data["spend"]["tokens"]:
        return data
    return data | {name: earlier[name] for name in _BILL} | {"rerun": {name: data[name] for name in _BILL}}


_BILL = ("spend", "process")
"""What a summary tells of money and time."""


class Outputs:
    """The output of one run. Its methods work on files: call them in a worker thread.

    Attributes:
        folder: the output's folder on this machine, which is locked; None for standard output.
        target: where the output is to be in the end: the folder, or an address.
        written: where this run writes: the target itself, or ``.next`` in it while an earlier complete output stands.
    """

    def __init__(self, job: Job) -> None:
        assert job.output is not None
        self._job = job
        self._output: Output = job.output
        self.folder = job.output_folder
        self.target = self.written = job.destination
        self._claim: Claim | None = None

    @property
    def aside(self) -> bool:
        """Whether an earlier complete output stays in place for now."""
        return self.written != self.target

    @property
    def staging(self) -> Path | None:
        """Where files are until they are published; those of an output here are where they will be."""
        if isinstance(self.written, Path) or self.folder is None:
            return self.written if isinstance(self.written, Path) else None
        return self.folder / NEXT if self.aside else self.folder

    @property
    def letters(self) -> str:
        """Where the dead letters are while the run is not complete, for messages."""
        return "the log" if self.staging is None else str(self.staging / PARTIAL_LETTERS)

    @property
    def record(self) -> dict[str, Any] | None:
        """What the last job that had the output noted; None when there is nothing."""
        if isinstance(self.target, Address):
            return OutputFolder(self.target).owner()
        return None if self._claim is None else self._claim.record

    def claim(self) -> None:
        """Lock the folder until ``release``.

        Raises:
            OutputError: another process has it.
        """
        if self.folder is not None:
            self._claim = Claim(self.folder)

    def note(self, ledger_id: str, tokenizer: str, files: list[list[Any]] | None) -> None:
        """Note whose output is being written from now on.

        Args:
            ledger_id: what tells the job's ledger.
            tokenizer: what counts tokens.
            files: the input files' names, sizes and times; None for standard input.

        Raises:
            OutputError: the system refuses.
        """
        if self._claim is not None:
            name, ledger = self._job.name or "job", self._job.ledger_path
            record = {"job": name, "ledger": str(ledger), "ledger_id": ledger_id, "pid": os.getpid()}
            record |= {} if ledger is None else {"ledger_file": str(ledger.absolute())}
            if self._output.dated is not None:
                record |= {"output": str(self.target), "asked": asked(self._job, tokenizer, files)}
            self._claim.note(record)
            if isinstance(self.target, Address):
                write_summary(self.target / LOCK, record)

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._claim is not None:
            self._claim.close()

    def settle(self) -> bool:
        """Finish a switch that was cut short, then see where this run writes; whether there was one.

        Raises:
            OutputError: a file of the output is lost or can't take its place.
        """
        if self.target is None:
            return False
        finished = switch.carry_out(self.target)
        if OutputFolder(self.target).spared():
            self.written = switch.aside(self.target)
        return finished

    def open(
        self, first_part: int, letters: Kept | None = None
    ) -> tuple[Writer | StreamWriter, FailureLog | FailureLines]:
        """What rankings and dead letters are written with.

        Args:
            first_part: the first part that is to be written.
            letters: what stays of the dead letters of an earlier process.

        Raises:
            OutputError: the folder can't be used.
        """
        if self.written is None:
            return StreamWriter(self._output, sys.stdout.buffer), FailureLines()
        writer = part_writer(self._job, self.written, first_part, self.staging)
        return writer, FailureLog(self.written, letters, staging=self.staging)

    def clear(self, writer: Writer | StreamWriter) -> None:
        """Take down what an older run that was not complete left, so that nobody takes a mixture for one output."""
        if self.target is None or self.written is None or not isinstance(writer, Writer):
            return
        _remove(self.written / SUMMARY)
        writer.sweep()
        if self.aside:
            _remove(self.written / MARKER)
        else:
            switch.dissolve(self.target)

    def nothing_ranked(self, first: Failure, failed: int, *, usable: bool) -> BatchrankError | None:
        """Why a run that came to its end without a ranking takes no earlier output's place; None where it may.

        1. No query could be sent: the input is unusable.
        2. All that were sent failed: an earlier complete output is not replaced by nothing.

        Args:
            first: the first query or record that could not be ranked.
            failed: how many there are.
            usable: whether any query could be sent.
        """
        text = f"the first of {failed:,}, {first.place}: {first.message}; see {self.letters}"
        if not usable:
            return InputError(f"input.path: no query in it can be ranked; {text}")
        return TooManyFailuresError(f"every query failed; {text}") if self.aside else None

    def notices(self, reason: BatchrankError | None, held: int) -> list[str]:
        """Where things are after a run that stopped, with so many rankings since its last complete part."""
        if reason is None or self.written is None:
            return []
        told = []
        if held:
            told.append(
                f"{held:,} rankings after the last complete part are in the ledger; run the job again to write them"
            )
        if self.aside:
            told.append(
                f"the last complete output is still in {self.target}; what this run has is in {self.written}"
            )
        return told

    def sum_up(self, result: Report) -> Report:
        """Write the summary, a complete run's with the gate's judgement; then only ``take_over`` is left to do.

        Raises:
            InputError: the baseline can't be read or written.
            OutputError: the summary can't be written, or a file in the way keeps the output from taking its place.
        """
        if self.target is None or self.written is None:
            return result
        if result.reason is None:
            result = apply_gate(self._job, self.target, self.written, result)
        write_summary(self.written / SUMMARY, _with_first(result.data, OutputFolder(self.target).complete()))
        if result.reason is None and self.aside:
            switch.decide(self.target)
        return result

    def take_over(self) -> None:
        """Put a complete output in the earlier one's place.

        Raises:
            OutputError: the system refuses; the next run goes on with it.
        """
        if self.target is not None and self.aside:
            switch.carry_out(self.target)
            self.written = self.target
        if isinstance(self.target, Address) and self.folder is not None:
            switch.dissolve(self.folder)
