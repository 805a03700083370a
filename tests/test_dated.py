"""{date} and {name} in output.path: each night has a folder, and one job goes on, compares and counts across them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
import pytest
from against import World, world
from jobs import make_job, rankings, rows, write_jsonl
from stores import Bucket, served
from test_cli import batchrank

from batchrank.cli.runs import runs
from batchrank.cli.status import named_job, output_folder
from batchrank.errors import ExitCode, JobError, LedgerError, OutputError
from batchrank.io.address import located
from batchrank.job import paths
from batchrank.job.config import Job
from batchrank.launch import make_run
from batchrank.pipeline.nights import going_on, latest, nights
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options
from batchrank.planning.check import check_job
from batchrank.quality.accept import accept
from batchrank.write.folder import OutputFolder

pytestmark = pytest.mark.anyio
Clock = Callable[[str], None]
OUT = "out/{date}"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the day on which jobs are loaded."""
    return lambda day: monkeypatch.setattr(paths, "today", lambda: f"2026-11-{day}")


def nightly(w: World, out: str = OUT, **sections: Any) -> Job:
    return w.job("nightly", **sections, output={"path": out, "part_documents": 60})


async def ran(job: Job, **options: Any) -> Report:
    return await make_run(job, Options(**options)).execute()


def path_of(folder: Path, text: str, *overrides: str, environ: dict[str, str] | None = None) -> Job:
    """A job whose output has a path."""
    from batchrank.job.load import load_job

    job = {"name": "pairs", "input": "in.jsonl", "model": "qwen3-rerank", "output": {"path": text}}
    (folder / "a.yaml").write_text(json.dumps(job))
    return load_job(folder / "a.yaml", overrides=overrides, environ=environ or {})


def test_placeholders_are_filled(tmp_path: Path, on: Clock) -> None:
    """Anywhere in a path or an address, also in what overrides the file; twice written braces are the path's own."""
    on("26")

    def output(text: str, *overrides: str, **environ: str) -> str:
        found = path_of(tmp_path, text, *overrides, environ=environ).output
        assert found is not None
        return found.path

    assert output("out/{date}") == f"{tmp_path}/out/2026-11-26"
    assert output("{name}-{date}/x/{date}") == f"{tmp_path}/pairs-2026-11-26/x/2026-11-26"
    assert output("s3://b/{name}/{date}?region=eu") == "s3://b/pairs/2026-11-26?region=eu"
    assert output("out/{{date}}/{{x}}") == f"{tmp_path}/out/{{date}}/{{x}}"
    assert output("out", "output.path={date}/x") == f"{tmp_path}/2026-11-26/x"
    assert output("out", BATCHRANK_OUTPUT__PATH="o/{date}") == f"{tmp_path}/o/2026-11-26"
    assert output("out/{date}", "name=other") == f"{tmp_path}/out/2026-11-26"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("out/{day}", r"line \d+: output\.path: \{day\} is unknown; \{date\} is the day"),
        ("out/{date:%Y}", r"\{date:%Y\} is unknown"),
        ("out/{}", r"\{\} is unknown"),
        ("out/{date", r"has a brace that stands alone .*written twice"),
        ("out/date}", r"has a brace that stands alone .*written twice"),
    ],
)
def test_another_placeholder_is_an_error(tmp_path: Path, path: str, said: str) -> None:
    """With the line, and what may stand there."""
    with pytest.raises(JobError, match=said):
        path_of(tmp_path, path)
    with pytest.raises(JobError, match="takes what begins with a brace for a mapping"):
        path_of(tmp_path, "out", "output.path={date}")


def test_the_ledger_is_one_for_all_nights(tmp_path: Path, on: Clock) -> None:
    """Beside the job file, where {date} would make a new one each night; {name} alone changes nothing."""
    on("26")
    assert path_of(tmp_path, OUT).ledger_path == tmp_path / "pairs.ledger.sqlite"
    assert path_of(tmp_path, "out/{name}").ledger_path == tmp_path / "out" / "pairs" / "ledger.sqlite"


async def test_the_next_night_asks_about_what_is_new_only(tmp_path: Path, on: Clock) -> None:
    """In a folder of its own; last night's stays as it was, and runs lists both."""
    async with world(tmp_path, queries=6, candidates=24) as w:
        on("25")
        await ran(nightly(w))
        before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "2026-11-25").iterdir()}
        on("26")
        asked = w.emulator.requests
        job = nightly(w)
        assert (await ran(job)).exit_code == 0
        assert w.emulator.requests == asked  # the same input
        assert len(rankings(job)) == 6 and job.output_folder == tmp_path / "out" / "2026-11-26"
        assert {p.name: p.read_bytes() for p in (tmp_path / "out" / "2026-11-25").iterdir()} == before
        assert rankings(job) == rankings(job.at_day("2026-11-25"))


@pytest.mark.parametrize("killed", [False, True])
async def test_a_run_that_was_cut_short_goes_on_past_midnight(
    tmp_path: Path, on: Clock, *, killed: bool
) -> None:
    """In the folder that it began, which is said; not in a second one. With --fresh tonight's begins."""
    async with world(tmp_path, queries=8, script={25: "400-arrearage"}) as w:
        on("25")
        assert (await ran(nightly(w))).exit_code == 1
        if killed:  # which leaves no summary
            (tmp_path / "out" / "2026-11-25" / "summary.json").unlink()
        on("26")
        job = nightly(w)
        found, note = going_on(job)
        assert found.output_folder == tmp_path / "out" / "2026-11-25" and note is not None
        run = make_run(job)
        done = await run.execute()
        assert done.exit_code == 0 and run.folder == tmp_path / "out" / "2026-11-25"
        assert any("goes on with the output of another day" in one for one in done.data["notices"])
        assert any("continues an earlier run" in one for one in done.data["notices"])
        assert not (tmp_path / "out" / "2026-11-26").exists() and w.paid_twice == 0
        assert len(rankings(found)) == 8
        assert going_on(job) == (job, None)  # complete now: the next run is tonight's
        assert (await ran(job)).exit_code == 0
        assert rankings(job) == rankings(found)


async def test_fresh_and_another_input_begin_tonights(tmp_path: Path, on: Clock) -> None:
    """What was cut short then stays as it is, and is told; another ledger's is none of this job's."""
    async with world(tmp_path, queries=8, script={25: "400-arrearage"}) as w:
        on("25")
        await ran(nightly(w))
        on("26")
        job = nightly(w)
        assert make_run(job, Options(fresh=True)).folder == tmp_path / "out" / "2026-11-26"
        other = nightly(w, ledger="other.sqlite")
        assert going_on(other) == (other, None)
        write_jsonl(w.data, rows(9, 20))
        done = await ran(job)
        assert done.exit_code == 0 and len(rankings(job)) == 9
        (note,) = [one for one in done.data["notices"] if "2026-11-25" in one]
        assert "isn't complete and stays as it is" in note
        assert OutputFolder(tmp_path / "out" / "2026-11-25").complete() is None


async def test_what_looks_at_outputs_finds_the_newest(tmp_path: Path, on: Clock) -> None:
    """A day later the job file still leads to last night's; one that failed before a ranking is status's only."""
    async with world(tmp_path, queries=4, candidates=20) as w:
        on("25")
        await ran(nightly(w))
        on("27")
        job = nightly(w)
        file = str(tmp_path / "nightly.yaml")
        last = tmp_path / "out" / "2026-11-25"
        found = named_job(file)
        assert found is not None and found.output_folder == last == output_folder(file)
        empty = tmp_path / "out" / "2026-11-26"
        empty.mkdir()
        (empty / ".batchrank.lock").write_bytes(b"{}")
        assert output_folder(file) == empty
        found = named_job(file)
        assert found is not None and found.output_folder == last
        (tmp_path / "out" / "2026-12-01").mkdir()
        (tmp_path / "out" / "2026-12-01" / ".batchrank.lock").write_bytes(b"{}")
        (tmp_path / "out" / "notes").mkdir()
        assert [one.output_folder for one in nights(job)] == [empty, last]


async def test_a_lost_ledger_is_noticed_by_last_nights_output(tmp_path: Path, on: Clock) -> None:
    """Tonight's folder, which isn't there yet, tells nothing; and all would be paid for again."""
    async with world(tmp_path, queries=4, candidates=20) as w:
        on("25")
        await ran(nightly(w))
        (tmp_path / "nightly.ledger.sqlite").unlink()
        on("26")
        with pytest.raises(LedgerError, match=r"the ledger is gone, but summary\.json"):
            await ran(nightly(w))


async def test_the_gate_compares_with_the_night_before(tmp_path: Path, on: Clock) -> None:
    """The last that passed, or was accepted; as in one folder for all nights. What was accepted holds later, too."""
    gate = {"min_rbo": 0.99, "depth": 10}
    async with world(tmp_path, queries=6, candidates=24) as w:
        on("24")
        first = await ran(nightly(w, gate=gate))
        assert any("there is no earlier run" in one for one in first.data["notices"])
        data = [{**row, "query": row["query"][::-1]} for row in rows(6, 24)]
        write_jsonl(w.data, data)
        on("25")
        job = nightly(w, gate=gate)
        looked = await anyio.to_thread.run_sync(lambda: list(check_job(job, limit=1, ask=False)))
        finding = next(one for one in looked if one.name == "gate")
        assert finding.text.endswith("compares with " + str(tmp_path / "out" / "2026-11-24"))
        assert (await ran(job)).exit_code == ExitCode.GATE
        on("26")
        again = await ran(nightly(w, gate=gate))  # held to the 24th, as the 25th did not pass
        assert again.exit_code == ExitCode.GATE and again.data["gate"]["compared"] == 6
        folder = tmp_path / "out" / "2026-11-26"
        accept(folder, folder)
        on("27")
        assert (await ran(nightly(w, gate=gate))).exit_code == 0


async def test_runs_lists_all_nights(tmp_path: Path, on: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """By the job file those of all folders, with the folder of each; by one folder that one's."""
    async with world(tmp_path, queries=3, candidates=20) as w:
        for day in ("25", "26"):
            on(day)
            await ran(nightly(w))

        def told(name: str, *, as_json: bool = True) -> str:
            runs(name, every=False, last=None, as_json=as_json)
            return capsys.readouterr().out

        found = orjson.loads(await anyio.to_thread.run_sync(told, str(tmp_path / "nightly.yaml")))
        assert [one["output"][-10:] for one in found] == ["2026-11-25", "2026-11-26"]
        alone = orjson.loads(await anyio.to_thread.run_sync(told, str(tmp_path / "out" / "2026-11-26")))
        assert [one["output"][-10:] for one in alone] == ["2026-11-26"]
        runs(str(tmp_path / "nightly.yaml"), every=False, last=None, as_json=False)
        assert "2026-11-25" in capsys.readouterr().out.split("\n", 2)[1]


async def test_only_failed_mends_the_last_output(tmp_path: Path, on: Clock) -> None:
    """That of the night before, whose dead letters they are."""
    data = rows(5, 8)
    data[2]["query"] = ""
    async with world(tmp_path, data=data) as w:
        on("25")
        assert (await ran(nightly(w))).exit_code == ExitCode.FAILED_QUERIES
        data[2]["query"] = "mended"
        write_jsonl(w.data, data)
        on("26")
        job = nightly(w)
        assert (await ran(job, only_failed=True)).exit_code == 0
        assert len(rankings(job.at_day("2026-11-25"))) == 5
        assert not (tmp_path / "out" / "2026-11-26").exists()


async def test_an_address_is_dated_likewise(tmp_path: Path, on: Clock) -> None:
    """Each night's objects below its day; one that was cut short goes on there."""
    with served() as host:
        bucket = Bucket(*host, "dated")
        async with world(tmp_path, queries=6, script={25: "400-arrearage"}) as w:
            on("25")
            path = bucket.address("n/{date}")
            assert (await ran(nightly(w, path))).exit_code == 1
            on("26")
            job = nightly(w, path)
            run = make_run(job)
            assert str(run.outputs.target).endswith("n/2026-11-25")
            assert (await run.execute()).exit_code == 0
            assert "summary.json" in bucket.objects("n/2026-11-25") and not bucket.objects("n/2026-11-26")
            on("27")
            job = nightly(w, path)
            assert latest(job).destination == located(bucket.address("n/2026-11-25"))
            assert (await ran(job)).exit_code == 0
            assert "summary.json" in bucket.objects("n/2026-11-27")


def test_check_and_run_say_where_it_goes(tmp_path: Path) -> None:
    """As commands, with the day that it is."""
    make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 8)), output={"path": "o/{name}/{date}"})
    done = batchrank("check", "out.yaml", cwd=tmp_path)
    assert done.returncode == 0 and f"o/out/{paths.today()}"[:-3].encode() in done.stdout
    assert batchrank("run", "out.yaml", "--quiet", cwd=tmp_path).returncode == 0
    (tmp_path / "qrels.txt").write_text("q0 0 d0-1 1\n")
    qrels = ("--qrels", "qrels.txt")
    for command in (
        ("status", "out.yaml"), ("runs", "out.yaml"), ("view", "out.yaml"), ("gate", "show", "out.yaml"),
        ("plan", "out.yaml"), ("ledger", "out.yaml"), ("report", "out.yaml", "--no-plan"),
        ("explain", "out.yaml", "q0", "d0-1"), ("eval", "out.yaml", *qrels), ("diff", "out.yaml", "out.yaml"),
    ):  # fmt: skip
        done = batchrank(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


async def test_a_folder_that_is_in_use_is_not_begun_anew(tmp_path: Path, on: Clock) -> None:
    """A run that goes on past midnight while tonight's starts: that one is told, and nothing is asked twice."""
    from batchrank.write.switch import Claim

    async with world(tmp_path, queries=8, script={25: "400-arrearage"}) as w:
        on("25")
        await ran(nightly(w))
        claim = Claim(tmp_path / "out" / "2026-11-25")
        try:
            on("26")
            with pytest.raises(OutputError, match="another batchrank process"):
                await ran(nightly(w))
        finally:
            claim.close()
