"""Several processes rank one run: the same bytes as one, one bill, and nothing lost when one of them dies.

The processes are real ones, on the system's clock, against an emulator in this process.
"""

import gzip
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from against import KEY, World, same, world
from crash_harness import children
from jobs import failed, outputs, rows, write_jsonl
from test_who_answered import who

from batchrank.cluster import rankers
from batchrank.cluster.channel import Channel, Handler
from batchrank.cluster.crew import Crew
from batchrank.cluster.processes import LocalProcess, LocalStarter, NotStartedError, Process, Spawn, Starter
from batchrank.cluster.run import CrewRun
from batchrank.errors import ExitCode, InterruptedRunError, JobError
from batchrank.job.config import Job
from batchrank.launch import make_run
from batchrank.pipeline.deadline import Until
from batchrank.pipeline.report import Report
from batchrank.pipeline.run import Options

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]
FAST: dict[str, Any] = {"rpm": 10**9, "tpm": 10**12}


@asynccontextmanager
async def crew_world(folder: Path, **switches: Any) -> AsyncIterator[World]:
    """An emulator without a quota."""
    unlimited = {"rpm": float("inf"), "tpm": float("inf"), "latency": 0.002}
    async with world(folder, **{"queries": 40, **unlimited, **switches}) as w:
        w.sections = {"rate": FAST, "output": {"part_documents": 150}}
        yield w


async def ranked(job: Job, processes: int, **options: Any) -> Report:
    """Run a job in so many processes."""
    engine = job.engine.model_copy(update={"processes": processes})
    return await make_run(job.model_copy(update={"engine": engine}), Options(**options)).execute()


async def reached(w: World, requests: int) -> None:
    """Wait until the emulator has seen so many requests."""
    while w.emulator.requests < requests:  # noqa: ASYNC110 other processes
        await anyio.sleep(0.002)


def everything(job: Job) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Whatever a job wrote that must not depend on who wrote it."""
    return outputs(job), failed(job)


async def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    """Hubs over many requests, a bad record and a bad query: the same bytes, the same dead letters, each paid once."""
    data = rows(26, 34)
    data[7]["query"] = ""
    data[21] = {"query_id": "q21", "query": "no candidates"}
    async with crew_world(tmp_path, data=data) as w:
        one, several = w.job("one"), w.job("several")
        first, second = await ranked(one, 1), await ranked(several, 3)
        assert first.exit_code == second.exit_code == ExitCode.FAILED_QUERIES
        assert everything(one) == everything(several)
        assert len(everything(one)[0]) > 3
        assert first.data["totals"] == second.data["totals"]
        assert first.data["verdict"] == second.data["verdict"]
        assert first.data["parts"] == second.data["parts"]
        assert w.summary(several)["process"]["requests"] == w.summary(one)["process"]["requests"]
        assert who(one, "answers") == who(several, "answers") and not who(several, "answers")[None, None]
        again = await ranked(several, 2)
        assert again.data["process"]["requests"] == 0
        assert everything(one) == everything(several)


async def test_how_many_rank_is_told(tmp_path: Path) -> None:
    """While it goes on, in progress and so in the status; in a run of one process there is nothing to tell."""
    async with crew_world(tmp_path, latency=0.05) as w:
        several = w.job("several")
        engine = several.engine.model_copy(update={"processes": 2})
        run = make_run(several.model_copy(update={"engine": engine}))
        reports: list[Report] = []
        seen = set[tuple[int | None, int | None]]()

        async def execute() -> None:
            reports.append(await run.execute())

        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            while not reports:
                if progress := run.progress():
                    seen.add((progress.rankers, progress.machines))
                await anyio.sleep(0.01)
        assert (2, 1) in seen and not any(rankers is None or rankers > 2 for rankers, _ in seen)
        alone = make_run(w.job("one"))
        assert (await alone.execute()).exit_code == 0
        told = alone.progress()
        assert told is not None and told.rankers is None


def _lists(folder: Path, data: list[dict[str, Any]]) -> dict[str, Any]:
    pq.write_table(pa.Table.from_pylist(data), folder / "lists.parquet", row_group_size=7)
    return {"path": str(folder / "lists.parquet")}


def _pairs(folder: Path, data: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = [
        {"query_id": row["query_id"], "query": row["query"], "doc_id": one["id"], "text": one["text"]}
        for row in data
        for one in row["candidates"]
    ]
    (folder / "pairs").mkdir()
    for number, first in enumerate(range(0, len(pairs), 333)):  # a query's pairs go on in the next file
        table = pa.Table.from_pylist(pairs[first : first + 333])
        pq.write_table(table, folder / "pairs" / f"{number}.parquet", row_group_size=50)
    return {"path": str(folder / "pairs")}


def _compressed(folder: Path, data: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, data))))
    return {"path": str(folder / "a.jsonl.gz"), "limit": 37}


def _joined(folder: Path, data: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "run.trec").write_text(
        "".join(
            f"{row['query_id']} Q0 {one['id']} {rank} {one['score']} bm25\n"
            for row in data
            for rank, one in enumerate(row["candidates"], 1)
        )
    )
    texts = [{"_id": one["id"], "text": one["text"]} for row in data for one in row["candidates"]]
    write_jsonl(folder / "corpus.jsonl", texts)
    write_jsonl(folder / "queries.jsonl", [{"_id": row["query_id"], "text": row["query"]} for row in data])
    return {
        "path": str(folder / "run.trec"),
        "corpus": str(folder / "corpus.jsonl"),
        "queries": str(folder / "queries.jsonl"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("written", [_lists, _pairs, _compressed, _joined])
async def test_whatever_the_input_is(
    tmp_path: Path, written: Callable[[Path, list[dict[str, Any]]], dict[str, Any]]
) -> None:
    """Lists and pairs across row groups and files, compressed lines with a limit, a run joined with its corpus."""
    async with crew_world(tmp_path, data=rows(40, 34)) as w:
        given = written(tmp_path, rows(40, 34))
        output = {"format": "parquet", "part_documents": 200}
        one = w.job("one", input=given, output=output)
        await ranked(one, 1)
        for processes in (2, 3):
            several = w.job(f"several{processes}", input=given, output=output)
            assert (await ranked(several, processes)).exit_code == 0
            assert everything(one) == everything(several)


async def test_a_process_that_dies_loses_nothing(tmp_path: Path) -> None:
    """Ranking processes are killed in the midst of it: others take over, and no request is paid twice."""
    async with crew_world(tmp_path, latency=0.02) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        before, report = w.emulator.requests, []

        async def run() -> None:
            report.append(await ranked(several, 2))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            for requests in (20, 60):
                await reached(w, before + requests)
                ranking = sorted(pid for pid, role in children(os.getpid()).items() if role == "ranker")
                os.kill(ranking[0], signal.SIGKILL)
        assert report[0].exit_code == 0
        assert everything(one) == everything(several)
        assert w.paid_twice == w.emulator.counts.billed.total() - len(w.emulator.counts.billed)
        assert set(w.emulator.counts.billed.values()) == {2}  # once by each job


@pytest.mark.slow
async def test_a_process_that_is_suspended_holds_up_nothing_for_ever(tmp_path: Path) -> None:
    """Stopped for a while and continued, it goes on; the bytes are the same."""
    async with crew_world(tmp_path, latency=0.02) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        before = w.emulator.requests
        async with anyio.create_task_group() as group:
            group.start_soon(ranked, several, 2)
            await reached(w, before + 30)
            ranking = sorted(pid for pid, role in children(os.getpid()).items() if role == "ranker")
            os.kill(ranking[0], signal.SIGSTOP)
            await anyio.sleep(1)
            os.kill(ranking[0], signal.SIGCONT)
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}


@pytest.mark.slow
async def test_a_reader_that_dies_stops_the_run_which_can_go_on(tmp_path: Path) -> None:
    """Without its reader a run can't go on; it says so, and started again it writes the same bytes."""
    many = rows(150, 8)  # as many parts, too many to be read before any is ranked
    async with crew_world(tmp_path, data=many, latency=0.02) as w:
        one = w.job("one")
        several = w.job("several", output={"part_documents": 8})
        await ranked(w.job("one", output={"part_documents": 8}), 1)
        before, report = w.emulator.requests, []

        async def run() -> None:
            report.append(await ranked(several, 2))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await reached(w, before + 10)
            os.kill(
                next(pid for pid, role in children(os.getpid()).items() if role == "reader"), signal.SIGKILL
            )
        assert report[0].exit_code == ExitCode.FAILED
        assert "the process that reads the input died: killed by SIGKILL" in str(report[0].reason)
        assert (await ranked(several, 2)).exit_code == 0
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}


@pytest.mark.slow
async def test_an_interrupted_run_drains_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C: what is in flight is answered and kept; run again, nothing is asked twice."""
    async with crew_world(tmp_path, latency=0.02) as w:
        one, several = w.job("one"), w.job("several")
        await ranked(one, 1)
        before, report = w.emulator.requests, []
        engine = several.engine.model_copy(update={"processes": 2})
        run = make_run(several.model_copy(update={"engine": engine}))

        async def execute() -> None:
            report.append(await run.execute())

        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            await reached(w, before + 40)
            run.stop(InterruptedRunError("interrupted by SIGINT", signal.SIGINT))
        assert report[0].exit_code == ExitCode.INTERRUPTED
        assert not children(os.getpid())
        assert (await ranked(several, 2)).exit_code == 0
        assert everything(one) == everything(several)
        assert set(w.emulator.counts.billed.values()) == {2}


async def test_the_cap_holds_for_all_of_them(tmp_path: Path) -> None:
    """Three processes and one cap: what was billed is within it, by the server's own count."""
    async with crew_world(tmp_path) as w:
        job = w.job("out", budget={"max_tokens": 20_000})
        report = await ranked(job, 3)
        assert report.exit_code == ExitCode.FAILED
        assert "budget.max_tokens" in str(report.reason)
        assert 10_000 < w.emulator.counts.tokens <= 20_000
        assert report.data["spend"]["tokens"] == w.emulator.counts.tokens


async def test_the_same_request_in_two_parts_is_asked_once(tmp_path: Path) -> None:
    """Two processes that ask the very same thing share one answer, and one bill."""
    data = [{**row, "query_id": f"{row['query_id']}-{copy}"} for copy in range(4) for row in rows(6, 9)]
    async with crew_world(tmp_path, data=data, latency=0.1) as w:
        job = w.job("out", output={"part_documents": 54})
        assert (await ranked(job, 3)).exit_code == 0
        assert set(w.emulator.counts.billed.values()) == {1}
        assert len(w.emulator.counts.billed) == 6


@pytest.mark.slow
async def test_only_failed_and_earlier_answers_work_as_with_one_process(tmp_path: Path) -> None:
    """A second night over changed lists: ranked by earlier answers alike, each part audited by itself."""
    async with crew_world(tmp_path, data=rows(16, 34)) as w:
        w.sections["limits"] = {"documents": 40}
        for out, processes in (("one", 1), ("several", 2)):
            job = w.job(out)
            assert (await ranked(job, processes)).exit_code == 0
            night = rows(16, 34)
            for row in night:
                row["candidates"][4] = {"id": "new", "text": f"new {row['query_id']}", "score": 5.0}
            changed = write_jsonl(tmp_path / f"night-{out}.jsonl", night)
            report = await ranked(w.job(out, input={"path": str(changed)}), processes)
            assert report.exit_code == 0
            assert report.data["totals"]["reused"] > 100
            assert len(report.data["reuse"]["audits"]) > 1
        assert same(w.job("one"), w.job("several"))  # but for the times at which the first night was


async def test_the_key_is_in_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who rank don't send, so they don't get the key, neither by their environment nor by what they are told."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    async with crew_world(
        tmp_path, queries=400, latency=0.05
    ) as w:  # too many to be read before any is ranked
        job = w.job("out", endpoint={"api_key_file": None})
        async with anyio.create_task_group() as group:
            group.start_soon(ranked, job, 2)
            await reached(w, 10)
            others = children(os.getpid())
            for pid in others:
                os.kill(pid, signal.SIGSTOP)  # none of them ends meanwhile
            assert sorted(others.values()) == ["ranker", "ranker", "reader"]
            assert _holds(os.getpid(), KEY.encode())  # it would be found
            assert not any(_holds(pid, KEY.encode()) for pid in others)
            for pid in others:
                os.kill(pid, signal.SIGCONT)
            group.cancel_scope.cancel()


def _holds(pid: int, text: bytes) -> bool:
    """Whether a process has a text in its environment, or anywhere in the memory that it has written to."""
    if text in Path(f"/proc/{pid}/environ").read_bytes():
        return True
    page = os.sysconf("SC_PAGE_SIZE")
    with (
        Path(f"/proc/{pid}/maps").open() as maps,
        Path(f"/proc/{pid}/pagemap").open("rb", 0) as pages,
        Path(f"/proc/{pid}/mem").open("rb", 0) as memory,
    ):
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw") or "[v" in line:
                continue
            first, last = (int(at, 16) // page for at in span.split("-"))
            pages.seek(first * 8)
            flags = np.frombuffer(pages.read((last - first) * 8), np.uint64) >> np.uint64(62)
            (edges,) = np.diff(np.concatenate([[False], flags > 0, [False]])).nonzero()  # there, or swapped
            for begin, end in edges.reshape(-1, 2).tolist():
                memory.seek((first + begin) * page)
                if text in memory.read((end - begin) * page):
                    return True
    return False


@pytest.mark.parametrize("output", [{"path": "-"}, {"format": "mteb"}])
async def test_what_can_not_be_written_in_parts_is_refused(tmp_path: Path, output: dict[str, Any]) -> None:
    """Standard output and a format of one file: told before anything is asked."""
    async with crew_world(tmp_path) as w:
        with pytest.raises(JobError, match="several processes write one part"):
            await ranked(w.job("out", output=output), 2)
        assert w.emulator.requests == 0


@pytest.mark.slow  # the clock is real, and less than ten seconds leave no time to drain
async def test_several_processes_end_in_time(tmp_path: Path) -> None:
    """What is in flight is answered by then, the time to go and what is left are told, and the rest is ranked later."""
    async with crew_world(tmp_path, queries=120, latency=0.1) as w:
        job, other = w.job(rate={"rpm": 1_500, "tpm": 10**12}), w.job("other")
        began = time.time()
        report = await ranked(job, 2, until=Until(began + 10, "06:00"))
        assert report.exit_code == ExitCode.STOPPED and "--until 06:00 leaves no time to send more" in str(
            report.reason
        )
        assert 5 < time.time() - began < 10
        assert report.data["process"]["ambiguous"] == 0
        assert (await ranked(w.job(), 2)).exit_code == 0 and w.paid_twice == 0
        await ranked(other, 1)
        assert same(job, other)


@pytest.mark.slow
async def test_what_is_left_at_a_cap_is_told_of_several_processes(tmp_path: Path) -> None:
    """As of one: by what was ranked, and by what is under way."""
    async with crew_world(tmp_path) as w:
        whole = (await ranked(w.job("other"), 1)).data["spend"]["tokens"]
        report = await ranked(w.job(budget={"max_tokens": whole // 2}), 2)
        (notice,) = [n for n in report.data["notices"] if "the rest of the input would take" in n]
        told = re.search(r"\(([\d,]+) tokens\) in all", notice)
        assert told is not None and int(told[1].replace(",", "")) == pytest.approx(whole, rel=0.35)


class Narrow(LocalStarter):
    """Has room for three that rank, and for two once one has ended; who comes then waits."""

    room, here = 3, 0

    @asynccontextmanager
    async def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AsyncIterator[tuple[Process, Channel]]:
        ranks = role == "ranker"
        while ranks and self.here >= self.room:  # noqa: ASYNC110 other processes
            await anyio.sleep(0.05)
        self.here += ranks
        try:
            async with super().start(role, handlers, spawn) as started:
                yield started
        finally:
            self.here -= ranks
            self.room -= ranks and self.room > 2


class NarrowRun(CrewRun):
    """A run where there is no room for a process in place of one that died, as on a cluster that lost a machine."""

    @asynccontextmanager
    async def _starter(self) -> AsyncIterator[tuple[Starter, int]]:
        yield Narrow(self.job.key_variables), 3


@pytest.mark.slow
async def test_a_run_goes_on_where_nobody_replaces_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part 0 is lost, all others wait for what it comes to, and no process comes: one of them begins anew."""
    monkeypatch.setattr(rankers, "_PATIENCE", 0.3)
    async with crew_world(tmp_path, latency=0.15) as w:
        one, several = w.job("one"), w.job("several")
        run = NarrowRun(several)
        reports: list[Report] = []

        async def execute() -> None:
            reports.append(await run.execute())

        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            await reached(w, 12)
            crew = cast(Crew, run._flow)
            held = next(one for one in crew._rankers.members if 0 in one.hands.parts)
            os.kill(cast(LocalProcess, held.process).child.pid, signal.SIGKILL)
        await ranked(one, 1)
        assert reports[0].exit_code == 0 and everything(one) == everything(several)


class Lost(LocalStarter):
    """Starts two that rank; those that are to come besides fail at first, as on a machine that the cluster lost."""

    failures, started = 5, 0
    others_rank: Callable[[], bool]

    @asynccontextmanager
    async def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AsyncIterator[tuple[Process, Channel]]:
        self.started += role == "ranker"
        if role == "ranker" and self.started > 2 and self.failures:
            while not self.others_rank():  # noqa: ASYNC110 other processes
                await anyio.sleep(0.01)
            self.failures -= 1
            raise NotStartedError("its machine was lost")
        async with super().start(role, handlers, spawn) as started:
            yield started


async def test_a_run_goes_on_where_others_can_not_be_started_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a cluster notices that a machine is gone, it may want to start processes there."""
    monkeypatch.setattr(rankers, "_PAUSE", 0.01)
    async with crew_world(tmp_path, latency=0.05) as w:
        one, several = w.job("one"), w.job("several")
        starter = Lost(several.key_variables)
        starter.others_rank = lambda: w.emulator.requests > 0
        assert (await started_by(several, starter, 6)).exit_code == 0
        assert not starter.failures
        await ranked(one, 1)
        assert everything(one) == everything(several)


class Hollow(LocalStarter):
    """Starts what says that it is there, and dies before it asks for a part."""

    @asynccontextmanager
    async def start(
        self, role: str, handlers: Mapping[str, Handler], spawn: Spawn
    ) -> AsyncIterator[tuple[Process, Channel]]:
        async with super().start(role, handlers, spawn) as (process, channel):
            if role == "ranker":

                async def hello(found: dict[str, str]) -> Any:
                    terms = await handlers["hello"](found)
                    cast(LocalProcess, process).child.kill()
                    return terms

                channel.know({**handlers, "hello": hello})
            yield process, channel


async def test_processes_that_die_before_they_ask_for_a_part_stop_the_run(tmp_path: Path) -> None:
    """They would die again and again for ever."""
    async with crew_world(tmp_path) as w:
        job = w.job("several")
        with anyio.fail_after(60):
            report = await started_by(job, Hollow(job.key_variables), 1)
        assert report.exit_code == ExitCode.FAILED
        assert "3 processes died before they began; the last: killed by SIGKILL" in str(report.reason)
        assert w.emulator.requests == 0


async def started_by(job: Job, starter: Starter, size: int) -> Report:
    """Run a job in so many processes that a starter starts."""

    class Started(CrewRun):
        @asynccontextmanager
        async def _starter(self) -> AsyncIterator[tuple[Starter, int]]:
            yield starter, size

    return await Started(job).execute()
