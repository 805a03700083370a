"""Replaces an earlier complete output by tonight's as a whole, so that a run that is cut short takes nothing away.

A run whose folder holds a complete output writes below ``.next`` in it, which patterns and data sets' readers pass
over. Once all of it is there, the switch is decided by a file that says what goes where, made durable before the first
rename; then it is carried out, by the same process or, if that is killed, by the next one before anything else:

1. ``summary.json`` goes, so that nobody who looks for it takes a mixture for one run's output;
2. each new file is renamed to its name, over the old one of that name, and what the old output has besides is removed;
3. the new ``summary.json`` takes its place.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from batchrank.errors import OutputError
from batchrank.io.atomic import Folder
from batchrank.write.reports import write_summary
from batchrank.write.writer import is_part

NEXT = ".next"
SUMMARY = "summary.json"
LETTERS = "failed.jsonl"
MARKER = "gate-failed.json"
_DECIDED = "switch.json"
_TEMPORARY = re.compile(
    r"\.(failed\.jsonl|gate-failed\.json|summary\.json|switch\.json)\.tmp|failed\.partial\.jsonl"
)


def complete(folder: Path) -> bool:
    """Whether a folder holds the complete output of a run under its own names."""
    try:
        return _summary(folder).get("complete") is True
    except (OSError, ValueError):
        return False


def spared(folder: Path) -> bool:
    """Whether what a folder holds must not be taken down yet: rankings that are complete, or nobody can tell.

    A complete output without a ranking is nothing to keep.
    """
    try:
        summary = _summary(folder)
        return summary.get("complete") is True and summary.get("totals", {}).get("queries") != 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def _summary(folder: Path) -> dict[str, Any]:
    summary = orjson.loads((folder / SUMMARY).read_bytes())
    if not isinstance(summary, dict):
        raise ValueError("no object")
    return summary


def newest(folder: Path, name: str) -> Path:
    """Where a file of the last complete output is, also while a switch to it is cut short."""
    waiting = folder / NEXT / name
    return waiting if (folder / NEXT / _DECIDED).exists() and waiting.exists() else folder / name


def aside(folder: Path) -> Path:
    """The folder for an output that is to replace another one; made where it is missing.

    Raises:
        OutputError: it can't be made, or something else has its name.
    """
    outer = Folder(folder)
    try:
        outer.make_folder(NEXT)
    finally:
        outer.close()
    return folder / NEXT


def decide(folder: Path) -> None:
    """Decide durably that what is in ``.next`` replaces what the folder holds; all of it is complete and durable.

    Raises:
        OutputError: a file can't take its place, because a link or a folder has its name; or the system refuses.
    """
    inner, outer = Folder(folder / NEXT), Folder(folder)
    try:
        inner.sync()
        moved = {name: inner.size(name) for name in sorted(inner.names()) if _is_output(name)}
        for name in moved:
            outer.require_regular(name)
        removed = [name for name in sorted(outer.names()) if name not in moved and _is_ours(name)]
    finally:
        inner.close()
        outer.close()
    write_summary(folder / NEXT / _DECIDED, {"moved": moved, "removed": removed})


def carry_out(folder: Path) -> bool:
    """Carry out a switch that was decided, from wherever it stands; whether there was one.

    Raises:
        OutputError: a file is lost or can't take its place, or what was decided can't be read.
    """
    decided = _decided(folder / NEXT / _DECIDED)
    if decided is None:
        return False
    moved, removed = decided
    inner, outer = Folder(folder / NEXT), Folder(folder)
    try:
        if inner.size(SUMMARY) is not None:
            outer.remove(SUMMARY)
            outer.sync()
        for name in (name for name in moved if name != SUMMARY):
            _move(inner, outer, name, moved[name])
        for name in removed:
            outer.remove(name)
        _move(inner, outer, SUMMARY, moved[SUMMARY])
        outer.sync()
        inner.sync()
        _dissolve(inner, outer)
    finally:
        inner.close()
        outer.close()
    return True


def dissolve(folder: Path) -> None:
    """Remove what a run that was never completed left in ``.next``.

    Raises:
        OutputError: the system refuses.
    """
    if not (folder / NEXT).is_dir() or (folder / NEXT).is_symlink():
        return
    inner, outer = Folder(folder / NEXT), Folder(folder)
    try:
        _dissolve(inner, outer)
    finally:
        inner.close()
        outer.close()


def _dissolve(inner: Folder, outer: Folder) -> None:
    inner.remove(_DECIDED)
    inner.sync()
    for name in inner.names():
        if _is_ours(name):
            inner.remove(name)
    with suppress(OSError):  # somebody else's file is in it: it stays
        inner.path.rmdir()
    outer.sync()


def _move(inner: Folder, outer: Folder, name: str, size: int) -> None:
    if inner.size(name) is not None:
        outer.take(inner, name)
    elif outer.size(name) != size:
        raise OutputError(
            f"{outer.path / name} is lost: neither it nor {inner.path / name} is the file of {size:,} bytes that the "
            f"last run wrote; restore it, or remove {inner.path} and run again with --fresh"
        )


def _decided(path: Path) -> tuple[dict[str, int], list[str]] | None:
    """What was decided: the files to move with their sizes, and those to remove; None when nothing was.

    A name in it that no output has is refused: nothing else is ever moved or removed.
    """
    try:
        data: Any = orjson.loads(path.read_bytes())
        moved, removed = dict(data["moved"]), list(data["removed"])
        if SUMMARY in moved and all(map(_is_output, moved)) and all(map(_is_ours, removed)):
            return moved, removed
        reason = "it names files that no run writes"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error)
    raise OutputError(
        f"{path}, which says how the output was to be replaced, can't be used: {reason}; remove {path.parent} to keep "
        "what is in place, and run again with --fresh"
    )


def _is_output(name: str) -> bool:
    return name in (SUMMARY, LETTERS, MARKER) or (is_part(name) and not name.startswith("."))


def _is_ours(name: str) -> bool:
    return _is_output(name) or is_part(name) or _TEMPORARY.fullmatch(name) is not None
