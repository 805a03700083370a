"""The second night: last night's output stays whole under its own names until tonight's can take its place."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from against import World, same, world
from jobs import outputs, rankings, rows, write_jsonl

from batchrank.bench.matrix import load_bench
from batchrank.bench.table import result
from batchrank.job.config import Job
from batchrank.observe.facts import gather
from batchrank.quality.judgements import evaluate
from batchrank.write import switch
from batchrank.write.folder import NEXT

pytestmark = pytest.mark.anyio
NAMES = ("ranking-", "queries-", "failed", "summary.json", "gate-failed")


def output(job: Job) -> dict[str, bytes]:
    """All that a run writes for others to read, the summary included."""
    return outputs(job, names=NAMES)


def changed(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same queries, asked otherwise, so that every request is new."""
    return [{**row, "query": row["query"] + " tonight"} for row in data]


async def first_night(w: World, job: Job, *, queries: int = 12) -> dict[str, bytes]:
    """Run a job to its end and change its input; what it wrote."""
    assert (await w.run(job, part_documents=60)).exit_code == 0
    write_jsonl(w.data, changed(rows(queries, 34)))
    return output(job)


async def test_a_night_that_is_cut_short_takes_nothing_away(tmp_path: Path) -> None:
    """Its own parts wait aside, are not made twice, and replace the others once all of them are there."""
    script: dict[int, str] = {}
    async with world(tmp_path, queries=12, script=script) as w:
        job = w.job()
        before = await first_night(w, job)
        script[w.emulator.requests + 45] = "400-arrearage"
        stopped = await w.run(job, part_documents=60)
        assert stopped.exit_code == 1
        assert output(job) == before
        aside = tmp_path / "out" / NEXT
        assert any(str(aside) in notice for notice in stopped.data["notices"])
        assert orjson.loads((aside / "summary.json").read_bytes())["complete"] is False
        part = (aside / "ranking-00000.jsonl").stat()
        report = await w.run(job, part_documents=60)
        assert report.exit_code == 0 and any("published parts" in n for n in report.data["notices"])
        now = (tmp_path / "out" / "ranking-00000.jsonl").stat()
        assert (part.st_ino, part.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)
        assert not aside.exists()
        other = w.job("other", ledger=str(tmp_path / "out" / "ledger.sqlite"), reuse={"audit": 0})
        await w.run(other, part_documents=60)
        assert same(job, other) and output(job).keys() == output(other).keys()
        assert w.summary(job)["totals"] == w.summary(other)["totals"] | {"reused": 0}
        assert w.summary(other)["totals"]["reused"] == w.summary(other)["totals"]["documents"]
        assert w.emulator.counts.paid_twice == 0


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"budget": {"max_tokens": 3_000}}, 1),
        ({"failures": {"max_queries": 1}}, 1),
        ({"endpoint": {"url": "http://127.0.0.1:9/rerank"}, "retry": {"outage": 30}}, 75),
        ({"output": {"format": "trec"}, "budget": {"max_tokens": 3_000}}, 1),
    ],
    ids=["budget", "failures", "outage", "other-format"],
)
async def test_whatever_stops_a_night_leaves_the_last_one(
    tmp_path: Path, sections: dict[str, Any], code: int
) -> None:
    """A cap, too many failed queries, an outage, also of a job that was changed: the output stays, byte for byte."""
    async with world(tmp_path, queries=12, poison={"unlucky": "400-inspection"}) as w:
        before = await first_night(w, w.job())
        data = changed(rows(12, 34))
        for row in data[8:]:
            row["query"] += " unlucky"
        write_jsonl(w.data, data)
        report = await w.run(w.job(**sections), part_documents=60)
        assert report.exit_code == code, report.reason
        assert output(w.job()) == before


@pytest.mark.parametrize("first", [True, False], ids=["no-earlier-output", "an-earlier-output"])
@pytest.mark.parametrize(
    "data",
    [
        [b"{broken", b"[]"],
        [{**rows(1, 3)[0], "query": ""}],
        [{**rows(1, 3)[0], "candidates": []}],
        [{**rows(1, 1)[0], "candidates": [{"id": "d", "text": "x" * 200_000}]}],
    ],
    ids=["broken", "empty-query", "no-candidates", "too-large"],
)
async def test_an_input_without_a_usable_query_is_unusable(
    tmp_path: Path, data: list[Any], first: bool
) -> None:
    """Exit code 4, the first record named, and nothing of an earlier output is touched."""
    async with world(tmp_path, sections={"limits": {"documents": 10, "item_tokens": 10**6}}) as w:
        before = {} if first else await first_night(w, w.job())
        write_jsonl(w.data, data)
        report = await w.run(w.job())
        assert report.exit_code == 4
        assert "no query in it can be ranked" in str(report.reason) and "in.jsonl, line 1" in str(
            report.reason
        )
        assert "failed.partial.jsonl" in str(report.reason)
        assert {name: data for name, data in output(w.job()).items() if name in before} == before


async def test_a_night_in_which_every_query_fails_replaces_nothing(tmp_path: Path) -> None:
    """The API refuses each of them: a complete output does not make way for an empty one."""
    async with world(tmp_path, queries=12, poison={"tonight": "400-inspection"}) as w:
        before = await first_night(w, w.job())
        report = await w.run(w.job())
        assert (report.exit_code, output(w.job())) == (1, before)
        assert "every query failed; the first of 12" in str(report.reason)


async def test_a_switch_cut_short_is_finished_before_anything_else(tmp_path: Path) -> None:
    """Whoever runs the job next, even to be refused at once, leaves the newer output whole."""
    async with world(tmp_path, queries=12) as w:
        job, other = w.job(), w.job("other")
        await first_night(w, job)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(switch, "carry_out", lambda folder: False)  # killed just before
            await w.run(job, part_documents=60)
        (tmp_path / "out" / "summary.json").unlink()
        (tmp_path / "out" / NEXT / "ranking-00000.jsonl").rename(tmp_path / "out" / "ranking-00000.jsonl")
        write_jsonl(w.data, [b"{broken"])
        assert (await w.run(job)).exit_code == 4
        write_jsonl(w.data, changed(rows(12, 34)))
        await w.run(other, part_documents=60)
        assert same(job, other)
        assert output(job).keys() == output(other).keys()


async def test_only_failed_reads_the_letters_of_the_output_in_place(tmp_path: Path) -> None:
    """Also after an attempt that was stopped, whose own letters are aside."""
    data = rows(8, 34)
    data[5]["query"] += " unlucky"
    poison, script = {"unlucky": "400-inspection"}, dict[int, str]()
    async with world(tmp_path, data=data, poison=poison, script=script) as w:
        job = w.job()
        assert (await w.run(job)).exit_code == 3
        before = output(job)
        poison.clear()
        script[w.emulator.requests + 2] = "400-arrearage"
        assert (await w.run(job, only_failed=True)).exit_code == 1
        assert output(job) == before
        assert (await w.run(job, only_failed=True)).exit_code == 0
        assert len(rankings(job)) == 8 and w.letters(job) == []


async def test_only_failed_after_the_input_changed_deletes_no_ranking(tmp_path: Path) -> None:
    """A query that is new, and was not among the failed, can't be asked about: a stop, and the output as it was."""
    data: list[Any] = rows(8, 34)
    data[5] = {**data[5], "query": ""}
    async with world(tmp_path, data=data) as w:
        job = w.job()
        assert (await w.run(job)).exit_code == 3
        before = output(job)
        mended: list[Any] = rows(8, 34)
        write_jsonl(w.data, [*mended[:6], *changed(mended[6:])])
        report = await w.run(job, only_failed=True)
        assert (report.exit_code, output(job)) == (2, before)
        assert "'q6'" in str(report.reason) and "run the job without --only-failed" in str(report.reason)
        write_jsonl(w.data, mended[:4])
        report = await w.run(job, only_failed=True)
        assert (report.exit_code, output(job)) == (2, before)
        assert "4 queries are ranked now and 7 were before" in str(report.reason)
        write_jsonl(w.data, mended)
        assert (await w.run(job, only_failed=True)).exit_code == 0
        assert len(rankings(job)) == 8


async def test_the_report_and_eval_tell_of_the_output_in_place(tmp_path: Path) -> None:
    """While a later run is under way they see last night's whole; the report says where the rest is."""
    script: dict[int, str] = {}
    async with world(tmp_path, queries=12, script=script) as w:
        job = w.job()
        await first_night(w, job)
        out = str(tmp_path / "out")
        (tmp_path / "q.txt").write_text("".join(f"q{i} 0 d{i}-0 1\n" for i in range(12)))
        before = evaluate(out, [str(tmp_path / "q.txt")])
        script[w.emulator.requests + 45] = "400-arrearage"
        await w.run(job, part_documents=60)
        assert evaluate(out, [str(tmp_path / "q.txt")]).after == before.after
        facts = gather(out, with_plan=False)
        assert facts.summary["complete"] and len(facts.queries.chunks) == 12
        assert any(str(tmp_path / "out" / ".next") in note for note in facts.notes)
        aside = gather(tmp_path / "out" / ".next", with_plan=False)
        assert not aside.summary["complete"] and 0 < len(aside.queries.chunks) < 12


async def test_a_gated_night_is_compared_with_the_one_in_place(tmp_path: Path) -> None:
    """Cut short and gone on with: judged as a whole at its end, and marked when it takes its place."""
    script: dict[int, str] = {}
    async with world(tmp_path, queries=12, script=script, sections={"gate": {"min_rbo": 0.99}}) as w:
        job = w.job()
        before = await first_night(w, job)
        data = rows(12, 34)
        for row in data:
            texts = [candidate["text"] for candidate in row["candidates"]]
            for candidate, text in zip(row["candidates"], reversed(texts), strict=True):
                candidate["text"] = f"{text} anew"
        write_jsonl(w.data, data)
        script[w.emulator.requests + 45] = "400-arrearage"
        assert (await w.run(job, part_documents=60)).exit_code == 1
        assert output(job) == before
        report = await w.run(job, part_documents=60)
        assert (report.exit_code, report.data["gate"]["compared"]) == (5, 12)
        assert (tmp_path / "out" / "gate-failed.json").exists()
        write_jsonl(w.data, rows(12, 34))
        assert (await w.run(job, part_documents=60)).exit_code == 0
        assert not (tmp_path / "out" / "gate-failed.json").exists()


async def test_what_waits_aside_goes_when_the_output_it_was_to_replace_is_gone(tmp_path: Path) -> None:
    """Somebody removed the summary: the next run writes in place, and leaves nothing of the older one."""
    script: dict[int, str] = {}
    async with world(tmp_path, queries=12, script=script) as w:
        job, other = w.job(), w.job("other")
        await first_night(w, job)
        script[w.emulator.requests + 45] = "400-arrearage"
        await w.run(job, part_documents=60)
        (tmp_path / "out" / "summary.json").unlink()
        assert (await w.run(job, part_documents=60)).exit_code == 0
        await w.run(other, part_documents=60)
        assert same(job, other) and not (tmp_path / "out" / NEXT).exists()


def test_the_table_of_a_benchmark_is_that_of_the_jobs_it_asks_for(tmp_path: Path) -> None:
    """An output that stays in place while a changed cell was cut short is not the changed cell's."""
    from test_bench import write_bench
    from test_cli import batchrank

    write_bench(tmp_path)
    assert batchrank("bench", "bench.yaml", cwd=tmp_path).returncode == 0
    path = write_bench(tmp_path, job={"endpoint": {"url": "emulator"}, "tokenizer": "bytes"})
    bench, cells = load_bench(path)
    assert [result(cell, bench.measures).state for cell in cells] == ["missing", "missing"]
