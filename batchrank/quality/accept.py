"""Accepts rankings that did not pass their gate, so that what they reached is what later ones are held to.

A threshold that looks at one run alone, as ``min_ndcg`` does, would fail the next night likewise. So what was accepted
is noted beside the output, and stands in for a threshold as long as the job says the same threshold.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import InputError, JobError, OutputError
from batchrank.io.address import Where, located
from batchrank.job.sections import Gate
from batchrank.quality.gate import Baseline, Judgement, judge, keep
from batchrank.quality.rankings import tops
from batchrank.write.destination import opened
from batchrank.write.folder import (
    ACCEPTED,
    BASELINE,
    DECIDED,
    MARKER,
    NEXT,
    SUMMARY,
    OutputFolder,
    write_summary,
)
from batchrank.write.switch import Claim

_ROUNDED = 1e-6
"""Figures are noted with six digits, and the same rankings must reach them."""
_FIGURES = {
    "min_rbo": ("rbo", -_ROUNDED),
    "min_tau": ("tau", -_ROUNDED),
    "min_ndcg": ("ndcg", -_ROUNDED),
    "max_ndcg_drop": ("ndcg_drop", _ROUNDED),
}
"""The figure that each threshold is held against, and in which direction it is missed."""
_COMPARED = ("depth", "persistence", "against", "qrels")
"""Keys of the gate that a figure depends on."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the gate of a complete run found.

    Attributes:
        judgement: as in ``summary.json``; None where the job has no gate.
        accepted: when it was accepted all the same; None where it wasn't.
    """

    judgement: dict[str, Any] | None
    accepted: str | None

    @property
    def passed(self) -> bool:
        """Whether the rankings may be used as far as the gate tells."""
        return self.judgement is None or self.judgement["passed"] or self.accepted is not None


def found(folder: Where) -> Found:
    """What the gate of the run found whose output is in a folder.

    Raises:
        InputError: there is no complete run.
    """
    judgement = _summary(folder).get("gate")
    return Found(judgement, None if judgement is None else judgement.get("accepted"))


def accept(folder: Where, kept: Path) -> Found:
    """Accept the rankings in a folder, if they did not pass; what was found then, with the time of it.

    Args:
        folder: where the output is.
        kept: the output's folder on this machine, which is another one where the output is at an address.

    Raises:
        InputError: there is no complete run.
        JobError: the job has no gate.
        OutputError: a run is writing to the folder, or was cut off while it replaced it, or a file can't be written.
    """
    _summary(folder)  # before the lock, which makes the folder
    if (folder / NEXT / DECIDED).exists():
        raise OutputError(
            f"{folder}: a run was cut off while its output took the place of the one there; run the job again first"
        )
    claim = Claim(kept)
    try:
        summary = _summary(folder)
        judgement = summary.get("gate")
        if judgement is None:
            raise JobError(
                f"{folder}: the job has no gate, so there is nothing to accept; give it one: gate: {{}}"
            )
        if judgement["passed"] or judgement.get("accepted"):
            return Found(judgement, judgement.get("accepted"))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        figures = {name: judgement.get(name) for name in ("rbo", "tau", "ndcg", "ndcg_drop")}
        # In this order: whatever cuts it off, the rankings are either accepted or still marked.
        write_summary(kept / ACCEPTED, {"accepted": now, "gate": summary["job"]["gate"], "figures": figures})
        write_summary(folder / SUMMARY, summary | {"gate": judgement | {"accepted": now}})
        place = opened(folder)
        place.remove(MARKER)
        place.close()
    finally:
        claim.close()
    return Found(judgement, now)


def _summary(folder: Where) -> dict[str, Any]:
    summary = OutputFolder(folder).complete()
    if summary is None:
        raise InputError(
            f"{folder}: there is no complete run in it; name a job's output folder, or its job file"
        )
    return summary


def held_to(gate: Gate, folder: Path) -> tuple[Gate, list[str]]:
    """The gate with what was accepted in place of thresholds, and what there is to say about it.

    Only what looks at other things than the last accepted run is replaced: that run's rankings stand in for themselves.

    Args:
        gate: as the job says.
        folder: the output's folder on this machine.

    Raises:
        InputError: what was accepted can't be read.
    """
    try:
        known = orjson.loads((folder / ACCEPTED).read_bytes())
        changes = dict(_changes(gate, known["gate"], known["figures"]))
        when = str(known["accepted"])[:10]
    except FileNotFoundError:
        return gate, []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / ACCEPTED} can't be read: {error!r}; remove it, and the job's own thresholds hold again"
        ) from None
    told = [
        f"gate.{name}: held to {value:.4f}, which was accepted on {when}, instead of {getattr(gate, name):g}"
        for name, value in changes.items()
    ]
    return gate.model_copy(update=changes), told


def _changes(gate: Gate, then: dict[str, Any], figures: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Each threshold that what was accepted doesn't reach, with what it reached."""
    now = gate.model_dump(mode="json")
    if any(now[name] != then[name] for name in _COMPARED):
        return
    for name, (figure, slack) in _FIGURES.items():
        most_or_least, reached = now[name], figures[figure]
        if most_or_least is None or reached is None or most_or_least != then[name]:
            continue
        alone = name == "min_ndcg" or gate.against is not None
        if alone and (reached - most_or_least) * slack > 0:
            yield name, reached + slack


def judged_output(gate: Gate, folder: Path, written: Where) -> Judgement:
    """What a gate finds of a run's rankings, compared with what is kept beside the output, or with another job's.

    Args:
        gate: the gate.
        folder: where the baseline is kept.
        written: where the rankings are.

    Raises:
        InputError: what they are compared with, or the judgements, can't be read.
    """
    rankings = tops(os.fspath(written), gate.depth)
    path = folder / BASELINE
    if gate.against:
        if not OutputFolder(gate.against).accepted():
            raise InputError(f"gate.against: {gate.against} holds no complete run that passed its gate")
        keep(folder, located(gate.against), depth=gate.depth)
    if not path.exists():
        return judge(gate, rankings, None)
    with Baseline(path) as baseline:
        return judge(gate, rankings, baseline)
