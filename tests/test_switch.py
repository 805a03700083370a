"""One output in another one's place: cut off anywhere, whoever comes next finishes it, and touches nothing else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from written import contents

from batchrank.errors import OutputError
from batchrank.write import switch
from batchrank.write.folder import NEXT, OutputFolder, write_summary

OLD = {
    "ranking-00000.jsonl": b"old 0", "ranking-00001.jsonl": b"old 1", "ranking-00002.jsonl": b"old 2",
    "failed.jsonl": b"", "gate-failed.json": b"{}", "summary.json": b'{"complete": true, "night": 1}',
}  # fmt: skip
NEW = {
    "ranking-00000.parquet": b"new 0", "ranking-00001.jsonl": b"new 1 ", "queries-00000.parquet": b"new",
    "failed.jsonl": b"new", "summary.json": b'{"complete": true, "night": 2}',
}  # fmt: skip
OTHERS = {"ledger.sqlite": b"answers", "status.json": b"{}", "notes.txt": b"mine", "ranking.jsonl": b"mine"}


class Killed(BaseException):
    """What stands for the end of the process."""


def nights(folder: Path) -> Path:
    """A folder with last night's output, and tonight's aside."""
    aside = folder / NEXT
    aside.mkdir(parents=True)
    for place, files in ((folder, OLD | OTHERS), (aside, NEW)):
        for name, data in files.items():
            (place / name).write_bytes(data)
    return folder


def at_each_step(monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]) -> None:
    """Call a function before and after every change of a name and every sync."""

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **keywords: Any) -> Any:
            step()
            result = call(*args, **keywords)
            step()
            return result

        return inner

    for name in ("rename", "unlink", "fsync", "rmdir"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def whole(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if name not in OTHERS}


def test_the_new_output_takes_the_old_ones_place(tmp_path: Path) -> None:
    """Its files are in place byte for byte, the old ones gone, the rest of the folder as it was."""
    folder = nights(tmp_path / "out")
    switch.decide(folder)
    assert whole(folder) == OLD
    assert switch.carry_out(folder)
    assert contents(folder) == NEW | OTHERS
    assert not switch.carry_out(folder)


def test_a_switch_cut_off_at_any_step_is_finished(tmp_path: Path) -> None:
    """Until it is decided the old output is whole; from then on every new file is in one place or the other."""
    step, done = 0, False
    while not done:
        folder = nights(tmp_path / f"{step}")
        steps = iter(range(step))

        def kill(steps: Any = steps) -> None:
            if next(steps, None) is None:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            at_each_step(patch, kill)
            try:
                switch.decide(folder)
                switch.carry_out(folder)
                done = True
            except Killed:
                pass
        if not done and not (folder / NEXT / "switch.json").exists() and whole(folder) != NEW:
            assert whole(folder) == OLD
            switch.decide(folder)
        for name, data in NEW.items():
            assert OutputFolder(folder).newest(name).read_bytes() == data
        switch.carry_out(folder)
        assert files(folder) == NEW | OTHERS
        step += 1
    assert step > 40


def test_a_summary_stands_beside_one_outputs_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds the same summary before and after reading has read one run's output: there is none in between."""
    folder = nights(tmp_path / "out")
    seen = []

    def look() -> None:
        found = whole(folder)
        if "summary.json" in found:
            assert found in (OLD, NEW)
        seen.append("summary.json" in found)

    at_each_step(monkeypatch, look)
    switch.decide(folder)
    switch.carry_out(folder)
    assert not all(seen)


@pytest.mark.parametrize(
    "decided",
    [
        b"{",
        b"[]",
        orjson.dumps({"moved": {"summary.json": 1, "../../notes.txt": 1}, "removed": []}),
        orjson.dumps({"moved": {"summary.json": 1}, "removed": ["ledger.sqlite"]}),
        orjson.dumps({"moved": {}, "removed": ["ranking-00000.jsonl"]}),
    ],
)
def test_what_no_run_decided_is_not_carried_out(tmp_path: Path, decided: bytes) -> None:
    """A broken or foreign decision is a clear stop: nothing but outputs is ever moved or removed."""
    folder = nights(tmp_path / "out")
    (folder / NEXT / "switch.json").write_bytes(decided)
    with pytest.raises(OutputError, match=r"switch\.json, .* can't be used: .*remove .*\.next"):
        switch.carry_out(folder)
    assert files(folder) == OLD | OTHERS


def test_a_lost_file_is_told(tmp_path: Path) -> None:
    """Somebody removed a new part in the midst of the switch: never a complete-looking output without it."""
    folder = nights(tmp_path / "out")
    switch.decide(folder)
    (folder / NEXT / "ranking-00000.parquet").unlink()
    with pytest.raises(OutputError, match=r"ranking-00000\.parquet is lost"):
        switch.carry_out(folder)
    assert not (folder / "summary.json").exists()


def test_a_link_in_the_way_stops_the_switch_before_it_begins(tmp_path: Path) -> None:
    """A part's name that is a link is left alone, and so is the old output."""
    folder = nights(tmp_path / "out")
    (folder / "queries-00000.parquet").symlink_to("notes.txt")
    with pytest.raises(OutputError, match="is a symbolic link"):
        switch.decide(folder)
    (folder / "queries-00000.parquet").unlink()
    assert whole(folder) == OLD
    assert (folder / "notes.txt").read_bytes() == b"mine"


def test_nothing_is_written_aside_through_a_link(tmp_path: Path) -> None:
    """``.next`` that leads elsewhere is refused."""
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / NEXT).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"\.next is not a folder"):
        switch.aside(tmp_path / "out")


def test_a_complete_output_is_spared_and_one_that_may_be(tmp_path: Path) -> None:
    """A summary that says so, or one that is too damaged to say; not that of a run that was cut short, nor none."""
    assert not OutputFolder(tmp_path).spared()
    for data, expected in (({"complete": True}, True), ({"complete": False}, False), ({}, False)):
        write_summary(tmp_path / "summary.json", data)
        assert (OutputFolder(tmp_path).complete() is not None) is OutputFolder(tmp_path).spared() is expected
    for damaged in ("{", "", "[]"):
        (tmp_path / "summary.json").write_text(damaged)
        assert OutputFolder(tmp_path).complete() is None and OutputFolder(tmp_path).spared()
