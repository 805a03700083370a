"""The ready jobs are valid, and each says what it is for."""

from pathlib import Path

import pytest

from batchrank.job import load_job

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.*"))


def test_there_are_some() -> None:
    """The glob above finds them."""
    assert len(CONFIGS) >= 6


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_ready_job_is_valid(path: Path) -> None:
    """It loads, its endpoint is known, and it begins with what it is for."""
    job = load_job(path, environ={})
    assert job.url.startswith("http")
    assert path.read_text().startswith("# ")
