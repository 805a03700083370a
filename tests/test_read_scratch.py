"""The folder for what doesn't fit in memory."""

import os
from pathlib import Path

import pytest

from batchrank.io.scratch import Scratch

OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def left_over(folder: Path, name: str, *, old: bool = True) -> Path:
    """A folder as a killed process leaves it."""
    path = folder / name
    path.mkdir()
    (path / "join.duckdb").write_text("data")
    (path / "lock").touch()
    if old:
        os.utime(path / "lock", (OLD, OLD))
    return path


def test_it_goes_away_with_its_contents(tmp_path: Path) -> None:
    """Nothing is left when it is closed."""
    scratch = Scratch()
    (scratch.path / "spilled").mkdir()
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """A folder that nobody holds any more goes when the next one is made."""
    left = left_over(tmp_path, "batchrank-abc")
    Scratch().close()
    assert not left.exists()


def test_folders_in_use_new_ones_and_others_stay(tmp_path: Path) -> None:
    """Another process's folder is locked, or too young to be sure; a folder of another kind is nobody's business."""
    held = Scratch()
    os.utime(held.path / "lock", (OLD, OLD))
    kept = [left_over(tmp_path, "batchrank-new", old=False), left_over(tmp_path, "other-x"), held.path]
    (tmp_path / "batchrank-data").mkdir()
    Scratch().close()
    assert all(path.exists() for path in [*kept, tmp_path / "batchrank-data"])
    held.close()
