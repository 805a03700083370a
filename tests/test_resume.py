"""A job cut off anywhere and started again: the same bytes, nothing asked twice, nothing mixed."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import same, world
from jobs import outputs, rankings, rows, write_jsonl

from batchrank.errors import JobError, LedgerError
from batchrank.ledger.care import compact
from batchrank.ledger.ledger import Ledger
from batchrank.pipeline.resume import Resume, scope
from batchrank.read.layout import facts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("at", "part_documents"), [(1, 60), (17, 60), (50, 60), (33, 500_000)])
async def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(
    tmp_path: Path, at: int, part_documents: int
) -> None:
    """Whatever was answered before the stop is not asked again, and the output doesn't show the stop."""
    async with world(tmp_path, script={at: "400-arrearage"}) as w:
        job, other = w.job(), w.job("other")
        first = await w.run(job, part_documents=part_documents)
        assert first.exit_code == 1
        second = await w.run(job, part_documents=part_documents)
        assert second.exit_code == 0
        assert w.paid_twice == 0
        await w.run(other, part_documents=part_documents)
        assert same(job, other)
        assert second.data["totals"] == w.summary(other)["totals"]
        assert second.data["parts"] == w.summary(other)["parts"]


@pytest.mark.slow
async def test_a_chain_of_stops_changes_nothing(tmp_path: Path) -> None:
    """Stopped every few requests, on and on: still the same bytes, each request paid once."""
    async with world(tmp_path, queries=12, script=dict.fromkeys(range(5, 400, 7), "400-arrearage")) as w:
        job = w.job()
        codes = []
        while (code := (await w.run(job, part_documents=60)).exit_code) != 0:
            codes.append(code)
        assert len(codes) > 5 and set(codes) == {1}
        assert w.paid_twice == 0
        other = w.job("other", ledger=str(tmp_path / "out" / "ledger.sqlite"), reuse={"documents": False})
        await w.run(other, part_documents=60)
        assert same(job, other)


async def test_published_parts_are_not_touched_again(tmp_path: Path) -> None:
    """A part in place stays the very same file, and its requests aren't even looked up."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job, part_documents=60)
        part = tmp_path / "out" / "ranking-00000.jsonl"
        before = part.stat()
        report = await w.run(job, part_documents=60)
        assert report.exit_code == 0
        after = part.stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert any("published parts" in notice for notice in report.data["notices"])
        assert [row["query_id"] for row in rankings(job)] == [f"q{i}" for i in range(12)]


async def test_a_part_that_was_lost_or_changed_is_made_anew(tmp_path: Path) -> None:
    """Someone deleted a part between the runs: it comes back, from the ledger."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job, other = w.job(), w.job("other")
        await w.run(job, part_documents=60)
        (tmp_path / "out" / "ranking-00001.jsonl").unlink()
        await w.run(job, part_documents=60)
        await w.run(other, part_documents=60)
        assert same(job, other)


@pytest.mark.parametrize("damage", ["zeroed", "flipped"])
@pytest.mark.parametrize("name", ["ranking-00001.jsonl", "failed.partial.jsonl"])
async def test_a_file_that_was_damaged_is_made_anew_and_told(tmp_path: Path, name: str, damage: str) -> None:
    """Its size is right and its content isn't: nothing of it is kept, nothing is paid again."""
    data: list[Any] = rows(14, 34)
    data[0] = {**data[0], "query": ""}
    async with world(tmp_path, data=data, script={90: "400-arrearage"}) as w:
        job, other = w.job(), w.job("other", ledger=str(tmp_path / "out" / "ledger.sqlite"))
        await w.run(job, part_documents=60)
        path = tmp_path / "out" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content if damage == "flipped" else bytes(len(content)))
        report = await w.run(job, part_documents=60)
        assert any(f"{name}: lost or changed since" in notice for notice in report.data["notices"])
        assert w.paid_twice == 0
        await w.run(other, part_documents=60)
        assert same(job, other) and w.letters(job) == w.letters(other)


async def test_a_stop_leaves_no_part_that_only_looks_complete(tmp_path: Path) -> None:
    """What it had of the next part is in the ledger, and told; an output never changes under its final name."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job, other = w.job(), w.job("other")
        report = await w.run(job, part_documents=150)
        before = outputs(job)
        assert before and report.data["parts"].keys() == before.keys()
        assert any(
            "rankings after the last complete part are in the ledger" in n for n in report.data["notices"]
        )
        await w.run(job, part_documents=150)
        await w.run(other, part_documents=150)
        assert same(job, other) and before.items() <= outputs(other).items()


async def test_dead_letters_are_on_disk_and_not_in_the_ledger(tmp_path: Path) -> None:
    """Thousands of them cost neither memory nor room in the run's state: a checkpoint tells how many bytes stand."""
    data: list[Any] = rows(12, 34)
    data = [{**row, "query": "", "query_id": f"bad{i}"} for i, row in enumerate(rows(3_000, 1))] + data
    async with world(tmp_path, data=data, script={70: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job, part_documents=3_060)
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        part = await ledger.load(f"part/{scope(job)}/0")
        ledger.close()
        assert part["letters"][0] > 100_000 and len(orjson.dumps(part)) < 5_000
        report = await w.run(job, part_documents=3_060)
        assert report.exit_code == 3 and len(w.letters(job)) == report.data["totals"]["failed"] == 3_000


@pytest.mark.slow
async def test_a_changed_job_is_said_and_nothing_is_mixed(tmp_path: Path) -> None:
    """Other parts would be another job's: all are made anew, and the summary says what changed."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        await w.run(w.job(reuse={"documents": False}), part_documents=60)
        assert (tmp_path / "out" / "ranking-00000.jsonl").exists()
        given: dict[str, Any] = {"output": {"top_n": 3}, "reuse": {"documents": False}}
        job, other = w.job(**given), w.job("other", **given)
        report = await w.run(job, part_documents=60)
        assert any(
            n.startswith("changed since the last run: the job (output.top_n)") for n in report.data["notices"]
        )
        await w.run(other, part_documents=60)
        assert same(job, other)
        assert report.data["process"]["reused_requests"] > 0


async def test_a_setting_that_was_changed_after_a_kill_is_in_all_of_the_output(tmp_path: Path) -> None:
    """Parts made with the old value don't stay beside those made with the new one."""
    split = {"item_tokens": 12, "long_documents": "split", "passage_overlap": 2}
    qwen: dict[str, Any] = {"tokenizer": "qwen", "sections": {"tokenizer": "qwen"}}
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}, **qwen) as w:
        await w.run(w.job(limits={"item_tokens": 12}), part_documents=60)
        assert (tmp_path / "out" / "ranking-00000.jsonl").exists()
        given: dict[str, Any] = {"limits": split, "reuse": {"documents": False}}
        job, other = w.job(**given), w.job("other", **given)
        report = await w.run(job, part_documents=60)
        assert any("the job (limits.long_documents), the job (" in n for n in report.data["notices"])
        await w.run(other, part_documents=60)
        assert same(job, other)


async def test_a_kill_at_the_start_of_other_settings_leaves_no_parts_to_mix(tmp_path: Path) -> None:
    """Whatever was committed by then: the parts of the old settings don't stay."""
    async with world(tmp_path, queries=6, script={35: "400-arrearage"}) as w:
        await w.run(w.job(), part_documents=60)
        given: dict[str, Any] = {"output": {"top_n": 3}, "reuse": {"documents": False}}
        job, other = w.job(**given), w.job("other", **given)
        saved = tmp_path / "saved"
        shutil.copytree(tmp_path / "out", saved)
        for commits in range(1, 8):
            shutil.rmtree(tmp_path / "out")
            shutil.copytree(saved, tmp_path / "out")
            ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
            assert job.input is not None
            resume = Resume(ledger, job, facts(job.input), "bytes", tmp_path / "out")
            left, save = commits, ledger.save

            async def killed(name: str, value: Any) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                await save(name, value)  # noqa: B023 called within this turn of the loop

            ledger.save = killed  # type: ignore[method-assign]
            with suppress(KeyboardInterrupt):
                await resume.begin(fresh=False)
            ledger.close()
            await w.run(job, part_documents=60)
            await w.run(other, part_documents=60)
            assert same(job, other), commits


async def test_state_of_another_kind_is_a_clear_stop(tmp_path: Path) -> None:
    """Its checksum is right, and this version can't read it: nothing is sent."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job, part_documents=60)
        asked = w.emulator.requests
        for name, value in ((f"part/{scope(job)}/0", {"part": 0}), (f"run/{scope(job)}", {"number": 1})):
            ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
            await ledger.save(name, value)
            ledger.close()
            with pytest.raises(LedgerError, match=r"can't be used .*--fresh"):
                await w.run(job, part_documents=60)
        assert w.emulator.requests == asked
        assert (await w.run(job, part_documents=60, fresh=True)).exit_code == 0


async def test_a_changed_input_is_said_and_what_did_not_change_is_reused(tmp_path: Path) -> None:
    """One query more between the runs: only its requests are asked."""
    async with world(tmp_path, queries=6) as w:
        await w.run(w.job())
        asked = w.emulator.requests
        write_jsonl(w.data, rows(7, 34))
        report = await w.run(w.job())
        assert any("changed since the last run: the input" in notice for notice in report.data["notices"])
        assert 0 < w.emulator.requests - asked < asked / 4
        assert [row["query_id"] for row in rankings(w.job())] == [f"q{i}" for i in range(7)]


async def test_an_old_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """Fewer queries than last time, or another format: no file of the old run remains."""
    async with world(tmp_path, queries=9) as w:
        await w.run(w.job(), part_documents=60)
        assert len(outputs(w.job())) > 2
        write_jsonl(w.data, rows(2, 34))
        await w.run(w.job(), part_documents=60)
        assert set(outputs(w.job())) == {"ranking-00000.jsonl"}
        await w.run(w.job(output={"format": "trec"}), part_documents=500)
        assert set(outputs(w.job())) == {"ranking-00000.trec"} | {
            name for name in outputs(w.job()) if name.startswith("queries-00000")
        }


async def test_fresh_starts_over_from_the_ledger(tmp_path: Path) -> None:
    """--fresh makes all parts anew and pays nothing; --forget pays again."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job, part_documents=60)
        before = (tmp_path / "out" / "ranking-00000.jsonl").stat().st_mtime_ns
        report = await w.run(job, part_documents=60, fresh=True)
        assert report.exit_code == 0
        assert (tmp_path / "out" / "ranking-00000.jsonl").stat().st_mtime_ns != before
        assert w.paid_twice == 0
        forgot = await w.run(job, part_documents=60, fresh=True, forget=True)
        assert forgot.data["process"]["reused_requests"] == 0
        assert w.paid_twice == w.emulator.counts.billed.total() / 2


async def test_only_failed_asks_only_about_what_failed(tmp_path: Path) -> None:
    """The dead letters are replayable: everything else comes from the ledger, and the ranking is whole."""
    data = rows(8, 34)
    for lost in (2, 5):
        data[lost]["query"] += " unlucky"
    poison = {"unlucky": "500"}
    retry = {"attempts": 2, "max_delay": 1}
    async with world(tmp_path, data=data, sections={"retry": retry}, poison=poison) as w:
        job = w.job()
        first = await w.run(job)
        assert first.exit_code == 3
        assert [(x["query_id"], x["cause"]) for x in w.letters(job)] == [
            ("q2", "no-answer"),
            ("q5", "no-answer"),
        ]
        poison.clear()
        w.emulator.received.clear()
        second = await w.run(job, only_failed=True)
        assert second.exit_code == 0 and w.letters(job) == []
        asked = {orjson.loads(r.body)["query"] for r in w.emulator.received}
        assert asked == {data[2]["query"], data[5]["query"]}
        assert [row["query_id"] for row in rankings(job)] == [f"q{i}" for i in range(8)]
        assert w.paid_twice == 0


async def test_only_failed_asks_again_about_refused_content(tmp_path: Path) -> None:
    """A refusal is remembered, so that a rerun doesn't repeat it; --only-failed is for when it has been lifted."""
    data = rows(3, 34)
    data[1]["candidates"][7]["text"] += " forbidden"
    poison = {"forbidden": "400-inspection"}
    async with world(tmp_path, data=data, poison=poison) as w:
        job = w.job()
        first = await w.run(job)
        assert first.exit_code == 0
        assert [(x["query_id"], x["cause"]) for x in w.letters(job)] == [("q1", "document-refused")]
        poison.clear()
        asked = w.emulator.requests
        await w.run(job)
        assert w.emulator.requests == asked
        report = await w.run(job, only_failed=True)
        assert report.exit_code == 0 and w.letters(job) == []
        assert all(e["score"] is not None for e in rankings(job)[1]["ranking"])


async def test_only_failed_needs_dead_letters(tmp_path: Path) -> None:
    """Without a run before there is nothing that failed."""
    async with world(tmp_path) as w:
        with pytest.raises(JobError, match="run the job without it first"):
            await w.run(w.job(), only_failed=True)


async def test_dead_letters_stand_in_input_order_even_after_a_resume(tmp_path: Path) -> None:
    """failed.jsonl is the same file whether or not the run was cut off: bad records and failed queries, in order."""
    data: list[Any] = rows(14, 34)
    for bad in (2, 9, 12):
        data[bad] = {**data[bad], "query": ""}
    for lost in (1, 7, 11, 13):
        data[lost]["candidates"][3]["text"] += " forbidden"
    poison = {"forbidden": "400-inspection"}
    async with world(tmp_path, data=data, poison=poison, script={90: "400-arrearage"}) as w:
        job = w.job()
        other = w.job("other", ledger=str(tmp_path / "out" / "ledger.sqlite"), reuse={"documents": False})
        assert (await w.run(job, part_documents=60)).exit_code == 1
        assert not (tmp_path / "out" / "failed.jsonl").exists()
        report = await w.run(job, part_documents=60)
        assert any("published parts" in notice for notice in report.data["notices"])
        await w.run(other, part_documents=60)
        assert report.exit_code == 3
        letters = w.letters(job)
        assert letters == w.letters(other) and len(letters) == 7
        assert same(job, other)
        assert report.data["totals"] == w.summary(other)["totals"] | {"reused": 0}


async def test_a_nightly_job_pays_only_for_what_is_new(tmp_path: Path) -> None:
    """``ledger:`` names last night's: the summary tells requests reused and money saved."""
    async with world(tmp_path, queries=6) as w:
        monday = await w.run(w.job("monday"))
        shared = str(tmp_path / "monday" / "ledger.sqlite")
        write_jsonl(w.data, rows(7, 34))
        tuesday = await w.run(w.job("tuesday", ledger=shared, reuse={"audit": 0}))
        spend, process = tuesday.data["spend"], tuesday.data["process"]
        assert process["reused_requests"] == monday.data["process"]["requests"]
        assert spend["saved_tokens"] == monday.data["spend"]["tokens"]
        assert spend["saved_cost"] == pytest.approx(monday.data["spend"]["cost"])
        assert 0 < spend["tokens"] < monday.data["spend"]["tokens"] / 2
        assert w.paid_twice == 0
        assert not (tmp_path / "tuesday" / "ledger.sqlite").exists()


async def test_a_resumed_run_does_not_call_its_own_answers_savings(tmp_path: Path) -> None:
    """What an earlier process of this run paid is spent, not saved."""
    async with world(tmp_path, script={30: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job)
        report = await w.run(job)
        assert report.data["process"]["reused_requests"] > 20
        assert report.data["spend"]["saved_tokens"] == 0
        assert report.data["spend"]["tokens"] == w.emulator.counts.tokens


async def test_jobs_that_share_a_ledger_keep_apart(tmp_path: Path) -> None:
    """Each has its own parts and its own run; compacting for one keeps what the other used last."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        shared = str(tmp_path / "shared.sqlite")
        one = w.job("one", ledger=shared)
        await w.run(one, part_documents=60)
        two = w.job("two", ledger=shared, merge={"method": "rrf"})
        assert (await w.run(two, part_documents=60)).exit_code == 0
        report = await w.run(one, part_documents=60)
        assert any("published parts" in notice for notice in report.data["notices"])
        plain = w.job("plain")
        await w.run(plain, part_documents=60)
        assert same(one, plain)
        ledger = Ledger(Path(shared))
        await compact(ledger, scope(one))
        ledger.close()
        asked = w.emulator.requests
        for job in (one, two):
            assert (await w.run(job, part_documents=60)).data["process"]["requests"] == 0
        assert w.emulator.requests == asked


async def test_compacting_drops_what_is_no_longer_used(tmp_path: Path) -> None:
    """Answers that the last complete run did without are dropped; the rest still answers a rerun."""
    async with world(tmp_path) as w:
        await w.run(w.job())
        write_jsonl(w.data, rows(3, 34))
        await w.run(w.job())
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        assert (await compact(ledger, scope(w.job()))).unused > 0
        ledger.close()
        assert (await w.run(w.job())).data["process"]["requests"] == 0


async def test_compacting_waits_for_a_complete_run(tmp_path: Path) -> None:
    """While a run is unfinished every answer may still be needed."""
    async with world(tmp_path, script={9: "400-arrearage"}) as w:
        await w.run(w.job())
        ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
        with pytest.raises(JobError, match="not complete"):
            await compact(ledger, scope(w.job()))
        ledger.close()


async def test_an_interrupted_run_leaves_no_complete_looking_output(tmp_path: Path) -> None:
    """The old summary goes with the first new ranking; the new one says that the run is not complete."""
    async with world(tmp_path, queries=12, script={70: "400-arrearage"}) as w:
        job = w.job()
        await w.run(job, part_documents=60)
        summary = w.summary(job)
        assert (summary["complete"], summary["exit_code"]) == (False, 1)
        assert set(summary["parts"]) == {p.name for p in (tmp_path / "out").glob("ranking-*")}
        assert (tmp_path / "out" / "failed.partial.jsonl").exists()
