"""Defines how a run stood when a part had been published, and where one starts that finds such parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchrank.io.address import Where
from batchrank.io.atomic import Kept
from batchrank.ledger.state import Spent
from batchrank.merge.verdict import Declared, Verdicts
from batchrank.pipeline.summary import Totals
from batchrank.send.requests import Past
from batchrank.write.destination import stands
from batchrank.write.folder import PARTIAL_LETTERS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How a run stood when a part had been published, or had ended without a ranking.

    Attributes:
        part: the part's number, from 0.
        files: its files' names and sizes in bytes.
        position: items of the input dealt with so far.
        totals: the sums so far.
        verdicts: what whoever goes on needs to know of the part, to tell whether scores can be compared.
        letters: bytes and SHA-256 of the dead letters so far; None where there is no file of them.
        digests: SHA-256 of the part's files.
        tags: what a store told of them, where they are in one.
    """

    part: int
    files: dict[str, int]
    position: int
    totals: dict[str, Any]
    verdicts: dict[str, Any]
    letters: list[Any] | None
    digests: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def changed(self, folder: Where) -> list[str]:
        """The part's files in a folder that are lost, or no longer what was written."""
        return [
            name
            for name, known in self.digests.items()
            if not stands(folder / name, self.files[name], known, self.tags.get(name))
        ]

    @property
    def kept(self) -> Kept | None:
        """What stays of the file of dead letters."""
        return None if self.letters is None else Kept(*self.letters)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts.

    Attributes:
        checkpoints: of the parts that stay as they are.
        changed: what differs from the run before, for the user.
        spent: what earlier processes of this run have spent.
        continued: whether this continues a run that was cut short.
        damaged: files that are no longer what was written.
        past: which answers of earlier runs may be used.
    """

    checkpoints: Sequence[Checkpoint]
    changed: Sequence[str]
    spent: Spent
    continued: bool
    damaged: Sequence[str] = ()
    past: Past = field(default_factory=Past)

    @property
    def position(self) -> int:
        """Items of the input that were dealt with, their dead letters included."""
        return self.checkpoints[-1].position if self.checkpoints else 0

    @property
    def kept(self) -> Kept | None:
        """What stays of the file of dead letters."""
        return self.checkpoints[-1].kept if self.checkpoints else None

    @property
    def totals(self) -> Totals:
        """The sums so far."""
        return Totals(**self.checkpoints[-1].totals) if self.checkpoints else Totals()

    def verdicts(self, declared: Declared) -> Verdicts:
        """What is known so far of whether scores can be compared, where the model's are declared to be of a kind."""
        if not self.checkpoints:
            return Verdicts(declared)
        return Verdicts.restore([checkpoint.verdicts for checkpoint in self.checkpoints])

    @property
    def notice(self) -> str | None:
        """What the user should know about where the run starts."""
        if self.damaged:
            return (
                f"{', '.join(self.damaged)}: lost or changed since an earlier process of this run wrote it; the parts "
                "from there on are made anew from the ledger"
            )
        if self.checkpoints:
            return (
                f"continues an earlier run: {len(self.checkpoints)} published parts, "
                f"{self.checkpoints[-1].position:,} queries, stay as they are"
            )
        if self.changed:
            return (
                f"changed since the last run: {', '.join(self.changed)}; all rankings are made anew, and what is known "
                "is not asked again"
            )
        return (
            "continues an earlier run that was cut short; its answers are reused" if self.continued else None
        )


def standing(folder: Where, staging: Path, known: list[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints whose parts and dead letters are what was written, and the files that no longer are."""
    found: list[Checkpoint] = []
    damaged: list[str] = []
    for checkpoint in known:
        damaged = checkpoint.changed(folder)
        if damaged:
            break
        found.append(checkpoint)
    letters = staging / PARTIAL_LETTERS
    while found and (kept := found[-1].kept) is not None and not kept.stands(letters):
        damaged = [letters.name]
        found.pop()
    return found, damaged
