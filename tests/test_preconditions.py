"""What a run refuses to start on, because it would overwrite its input or pay again for what was paid."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from against import world
from jobs import make_job, outputs, rows, run, write_jsonl
from test_cli import batchrank, job_file

from batchrank.errors import JobError, LedgerError
from batchrank.job import Job

pytestmark = pytest.mark.anyio


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "path", ["data", "data/", "data/*.jsonl", "data/../data", "data/ranking-*", "data/failed.jsonl"]
)
async def test_an_output_into_its_own_input_is_refused(tmp_path: Path, path: str) -> None:
    """The folder, a pattern that fits what will be written, or a file that would be replaced: nothing is touched."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("ranking-00000.jsonl", "failed.jsonl"):
        write_jsonl(data / name, rows(2, 3))
    before = files(data)
    job = make_job(tmp_path, data, out="data", input={"path": path})
    with pytest.raises(JobError, match=r"output\.path: .*set output\.path to another folder") as caught:
        await run(job)
    assert caught.value.exit_code == 2
    assert files(data) == before


async def test_a_corpus_in_the_output_folder_is_input_too(tmp_path: Path) -> None:
    """As are queries: all that a run reads."""
    corpus = tmp_path / "scifact"
    corpus.mkdir()
    write_jsonl(corpus / "corpus.jsonl", [{"_id": "d", "text": "a text"}])
    write_jsonl(corpus / "queries.jsonl", [{"_id": "q", "text": "a query"}])
    (tmp_path / "run.trec").write_text("q Q0 d 1 1.0 x\n")
    keys = {"path": str(tmp_path / "run.trec"), "corpus": str(corpus)}
    with pytest.raises(JobError, match=r"input\.corpus"):
        await run(make_job(tmp_path, tmp_path, out="scifact", input=keys))


async def test_an_input_beside_the_output_is_none_of_it(tmp_path: Path) -> None:
    """A file with a name of its own may stand in the output folder, as a pattern that fits nothing written may."""
    write_jsonl(tmp_path / "in.jsonl", rows(2, 3))
    for path in ("in.jsonl", "in*.jsonl"):
        assert (await run(make_job(tmp_path, tmp_path, out=".", input={"path": path}))).exit_code == 0
    again = make_job(tmp_path, tmp_path, out="again", input={"path": "in.jsonl"})
    assert (await run(again)).exit_code == 0


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_lost_ledger_is_a_stop(tmp_path: Path, complete: bool, elsewhere: bool) -> None:
    """The summary beside the output knows that there was one: nothing is asked again without --fresh."""
    script = {} if complete else {9: "400-arrearage"}
    async with world(tmp_path, script=script) as w:
        keys: dict[str, Any] = {"ledger": str(tmp_path / "kept.sqlite")} if elsewhere else {}
        job = w.job(**keys)
        await w.run(job, part_rows=30)
        before, asked = outputs(job), w.emulator.requests
        assert job.ledger_path is not None
        job.ledger_path.unlink()
        with pytest.raises(LedgerError, match=r"ledger is gone, but summary\.json .* run with --fresh"):
            await w.run(job)
        assert not job.ledger_path.exists()
        assert (outputs(job), w.emulator.requests) == (before, asked)
        assert (await w.run(job, fresh=True)).exit_code == 0
        assert (await w.run(job)).exit_code == 0


async def test_an_empty_ledger_in_its_place_is_a_stop(tmp_path: Path) -> None:
    """A file that somebody made anew holds no answer of the run that the summary tells of."""
    async with world(tmp_path) as w:
        job = w.job()
        await w.run(job)
        asked = w.emulator.requests
        (tmp_path / "out" / "ledger.sqlite").write_bytes(b"")
        with pytest.raises(LedgerError, match=r"holds nothing, but summary\.json .* run with --fresh"):
            await w.run(job)
        assert w.emulator.requests == asked


async def test_another_ledger_or_a_moved_folder_is_no_loss(tmp_path: Path) -> None:
    """A job that names a new ledger means it; a folder that was moved has its ledger with it."""
    async with world(tmp_path) as w:
        await w.run(w.job())
        asked = w.emulator.requests
        shutil.move(tmp_path / "out", tmp_path / "moved")
        assert (await w.run(w.job("moved"))).exit_code == 0
        assert w.emulator.requests == asked
        assert (await w.run(w.job("moved", ledger=str(tmp_path / "new.sqlite")))).exit_code == 0


async def test_a_run_that_asked_nothing_has_lost_nothing(tmp_path: Path) -> None:
    """All queries failed before anything was paid: the next run starts as any first one."""
    write_jsonl(tmp_path / "in.jsonl", [b"{broken"])
    job = make_job(tmp_path, tmp_path / "in.jsonl")
    assert (await run(job)).exit_code == 4
    (tmp_path / "out" / "ledger.sqlite").unlink()
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    assert (await run(job)).exit_code == 0


@pytest.mark.slow
def test_check_finds_what_a_run_would_refuse(tmp_path: Path) -> None:
    """Each with the exit code that the run ends with."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    job_file(tmp_path)
    assert batchrank("run", "job.yaml", cwd=tmp_path).returncode == 0
    (tmp_path / "out" / "ledger.sqlite").unlink()
    for command in ("check", "run"):
        done = batchrank(command, "job.yaml", cwd=tmp_path)
        assert done.returncode == 1 and b"ledger is gone" in done.stdout + done.stderr
    for command in ("check", "run"):
        done = batchrank(command, "job.yaml", "--set", "input.path=out", cwd=tmp_path)
        assert done.returncode == 2 and b"set output.path" in done.stdout + done.stderr
    write_jsonl(tmp_path / "in.jsonl", [b"{broken"])
    (tmp_path / "out" / "summary.json").unlink()
    for command in ("check", "run"):
        assert batchrank(command, "job.yaml", cwd=tmp_path).returncode == 4


@pytest.mark.parametrize("job", [None, "job.yaml", {"model": "qwen3-rerank"}])
async def test_a_run_takes_a_job(job: Any) -> None:
    """Anything else is told at once, with what makes one."""
    from batchrank import run as library_run

    with pytest.raises(JobError, match=r"a run needs a batchrank\.Job, .*load_job"):
        await library_run(job)


def test_the_check_of_an_unnamed_output_is_none() -> None:
    """A job without an output folder has nothing to overwrite."""
    from batchrank.pipeline.preconditions import refuse_lost_ledger, refuse_own_input

    job = Job.model_validate({"model": "qwen3-rerank", "input": {"path": "x"}, "output": {"path": "-"}})
    refuse_own_input(job, [["x", 1, 1]])
    refuse_lost_ledger(job)
