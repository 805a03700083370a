"""check compares what a run will write with what is free on the disk."""

import pickle
import random
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobs import make_job, rows, run, write_jsonl

from batchrank.errors import ExitCode
from batchrank.job.config import Job
from batchrank.pipeline.preconditions import Preconditions
from batchrank.planning.check import Finding, check_job, ending
from batchrank.planning.space import Needs, Sized, needs, shortage
from batchrank.planning.survey import survey
from batchrank.read.reader import read

pytestmark = pytest.mark.anyio
MIB = 2**20


def sized(job: Job, limit: int | None = None) -> Needs:
    """What a look at a job's input foretells."""
    assert job.output is not None
    return needs(job, survey(Preconditions(job), Sized(top_n=job.output.top_n), limit=limit))


@pytest.mark.parametrize("top_n", [None, 10])
@pytest.mark.parametrize(
    "form", ["parquet", "jsonl", "trec", "rank_llm", "mteb", "msmarco", "parquet, texts", "jsonl, texts"]
)
async def test_what_is_foretold_is_what_is_written(tmp_path: Path, form: str, top_n: int | None) -> None:
    """About, of every format, also with few documents of each list, and with their texts."""
    form, _, texts = form.partition(", ")
    data = rows(20, 400)
    draw = random.Random(7)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 11))) for _ in range(3_000)]
    for number, row in enumerate(data):
        row["query_id"] = str(number)
        for place, one in enumerate(row["candidates"]):
            one["id"] = str(10_000 * number + place)
            # Texts that are compressed as well as prose.
            one["text"] = " ".join(draw.choices(words, k=15)) if texts else one["text"]
    given = write_jsonl(tmp_path / "in.jsonl", data)
    job = make_job(
        tmp_path,
        given,
        output={"format": form, "top_n": top_n, "texts": bool(texts)},
        limits={"documents": 100},
        merge={"top_k": 10},
    )
    told = sized(job)
    await run(job)
    files = [path for path in (tmp_path / "out").iterdir() if path.name.startswith(("ranking-", "queries-"))]
    output = sum(path.stat().st_size for path in files)
    ledger = sum(path.stat().st_size for path in (tmp_path / "out").glob("ledger.sqlite"))
    if top_n is None:
        assert 0.7 < told.output / output < 1.4, (told.output, output)
    else:
        assert told.output < 1.4 * output
    assert 0.5 < told.ledger / ledger < 1.5, (told.ledger, ledger)


@pytest.mark.parametrize("limit", [None, 150])
def test_the_beginning_tells_of_the_rest(tmp_path: Path, limit: int | None) -> None:
    """By the part of the input that it is, or of the queries that are wanted."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(300, 60)), input={"limit": limit})
    assert sized(job, limit=60).output == pytest.approx(sized(job).output, rel=0.35)


def same(free: int, path: Path) -> int:
    """So much is free, wherever that is."""
    return free


def test_what_is_too_little_for_certain_is_a_fault(tmp_path: Path) -> None:
    """A doubt is a note; what a ledger may know already is no certain need; plenty is no word."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(1, 4)))
    needed = Needs(100 * MIB, 100 * MIB)
    cases = [(400, None), (250, False), (150, False), (130, True), (0, True)]
    for free, certain in cases:
        found = shortage(job, needed, free=partial(same, free * MIB))
        assert (None if found is None else found[0]) is certain, free
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ledger.sqlite").write_bytes(b"")
    found = shortage(job, needed, free=partial(same, 100 * MIB))
    assert found is not None and not found[0]
    assert "100.0 MiB are free on the disk of" in found[1] and "take about 200.0 MiB; make room" in found[1]


def findings(job: Job) -> list[Finding]:
    return list(check_job(job, limit=None, ask=False))


def test_check_is_not_ready_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends a run with 1; and so says check, before it costs anything."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(4, 20)))
    assert ending(findings(job)) == ExitCode.COMPLETE
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    found = findings(job)
    (finding,) = [one for one in found if one.name == "space"]
    assert finding.state == "fault" and "0 KiB are free" in finding.text
    assert ending(found) == ExitCode.FAILED
    piped = make_job(tmp_path, Path("-"))
    assert any(one.name == "space" and one.state == "fault" for one in findings(piped))


async def test_what_ordering_takes_is_counted(tmp_path: Path) -> None:
    """All queries go through temporary files, however few are ranked; on a disk of their own or on the output's."""
    data = [{**row, "priority": number} for number, row in enumerate(rows(300, 60))]
    given = write_jsonl(tmp_path / "in.jsonl", data)
    ordered = make_job(tmp_path, given, input={"order": "-priority"}, output={"top_n": 3})
    assert ordered.input is not None
    kept = sum(len(pickle.dumps(one, pickle.HIGHEST_PROTOCOL)) for one in read(ordered.input))
    assert sized(ordered).temporary == pytest.approx(kept, rel=0.1)
    few = make_job(tmp_path, given, input={"order": "-priority", "limit": 150}, output={"top_n": 3})
    assert sized(few, limit=200).temporary == pytest.approx(kept, rel=0.35)
    assert sized(make_job(tmp_path, given)).temporary == 0
    (tmp_path / "out").mkdir(exist_ok=True)
    found = shortage(few, Needs(MIB, MIB, 300 * MIB), free=partial(same, 100 * MIB))
    assert found is not None and found[0] and "TMPDIR" in found[1]
