"""Rows of a Ray data set are ranked on two nodes: the rankings of one process and one bill, whatever dies."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from against import KEY, World
from jobs import rows
from ray_nodes import Nodes
from test_cluster import crew_world, reached

import batchrank
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.sections import Columns

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
RELATIVE = {"base": "qwen3-rerank", "scores": "relative"}
_PATIENCE = 120.0
"""Seconds after which a pipeline is taken to hang."""


@pytest.fixture(scope="module")
def cluster(cluster: Nodes) -> Iterator[Nodes]:
    """The head, where the account is, and two nodes of one processor each, where the steps of a pipeline run."""
    import ray
    import ray.data

    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield cluster
    ray.shutdown()


def ranked(data: list[dict[str, Any]], job: Job, *, blocks: int = 6, **options: Any) -> list[dict[str, Any]]:
    """All rows of what a pipeline makes of some queries."""
    import ray.data

    import batchrank.ray

    dataset = ray.data.from_items(data, override_num_blocks=blocks)
    found: list[dict[str, Any]] = batchrank.ray.rerank(
        dataset, job, **{"batch_size": 7, **options}
    ).take_all()
    return found


async def in_thread(work: Callable[[], Any]) -> Any:
    """What blocks, while the emulator in this process answers."""
    with anyio.fail_after(_PATIENCE):
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def listed(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rankings, whatever the order of the queries."""
    return sorted((r["query_id"], r["rank"], r["doc_id"], r["score"]) for r in found if r["failure"] is None)


async def directly(data: list[dict[str, Any]], job: Job) -> list[tuple[Any, ...]]:
    """The rankings of ``rerank_sync``."""
    work = partial(batchrank.rerank_sync, data, job, on_failure=lambda failure: None)
    rankings: list[batchrank.Ranking] = await in_thread(work)
    return sorted(
        (ranking.query_id, rank, name, score)
        for ranking in rankings
        for rank, (name, score) in enumerate(zip(ranking.doc_ids, ranking.scores.tolist(), strict=True), 1)
    )


async def test_pairs_are_grouped_by_the_recipe_on_nodes_of_one_processor(
    tmp_path: Path, cluster: Nodes
) -> None:
    """The manual's own code, with this cluster and emulator: the rankings of the lists that the pairs were made of."""
    page = (Path(batchrank.__file__).parent / "cluster" / "README.md").read_text()
    recipe = page.split("### Pairs of a query and a document")[1].split("```python\n")[1].split("```")[0]
    one_row = recipe[recipe.index("def one_row") : recipe.index("pairs = ray.data")]
    grouping = next(line for line in recipe.splitlines() if "groupby" in line)
    data = rows(6, 5)
    async with crew_world(tmp_path, data=data) as w:
        import pyarrow as pa
        import ray.data

        import batchrank.ray as step

        expected = await directly(data, w.job("one"))
        pairs = [
            {"query_id": row["query_id"], "query": row["query"], "doc_id": one["id"], **one}
            for number in range(5)
            for row in data
            for one in [row["candidates"][number]]
        ]
        job = w.job("out")

        def work() -> list[dict[str, Any]]:
            names: dict[str, Any] = {
                "ray": ray,
                "pa": pa,
                "pairs": ray.data.from_items(pairs),
                "__name__": "__main__",
            }
            exec(one_row + grouping, names)
            found: list[dict[str, Any]] = step.rerank(names["queries"], job).take_all()
            return found

        found = await in_thread(work)
        assert listed(found) == expected
        assert len(found) == 30


async def test_the_rankings_are_those_of_rerank_sync(tmp_path: Path, cluster: Nodes) -> None:
    """In any order of rows and any batches; a bad row is told in one of its own; asked again, nothing is paid."""
    data = rows(40, 34)
    data[7]["query"] = ""
    async with crew_world(tmp_path, data=data) as w:
        expected = await directly(data, w.job("one", model=RELATIVE))
        job = w.job("ray", model=RELATIVE)
        found = await in_thread(partial(ranked, data, job))
        assert listed(found) == expected
        (failed,) = (row for row in found if row["failure"] is not None)
        assert failed["query_id"] == "q7" and failed["failure"]["cause"] == "empty-query"
        assert failed["doc_id"] is failed["rank"] is failed["score"] is None
        asked = w.emulator.requests
        again = await in_thread(partial(ranked, data[::-3] + data[::-1], job, blocks=3, batch_size=5))
        assert set(listed(again)) == set(expected)
        assert w.emulator.requests == asked
        assert set(w.emulator.counts.billed.values()) == {2}


async def test_a_step_that_is_killed_loses_nothing_and_is_not_paid_again(
    tmp_path: Path, cluster: Nodes
) -> None:
    """Its batches come again while the account still ranks them for the dead one."""
    async with crew_world(tmp_path, queries=120, latency=0.05) as w:
        data = rows(120, 34)
        expected = await directly(data, w.job("one", model=RELATIVE))
        before, found = w.emulator.requests, []

        async def run() -> None:
            found.append(await in_thread(partial(ranked, data, w.job("ray", model=RELATIVE))))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            for requests in (60, 250):
                await reached(w, before + requests)
                while not (alive := cluster.actors("MapWorker")):  # noqa: ASYNC110 the last one is being replaced
                    await anyio.sleep(0.1)
                os.kill(alive[0], signal.SIGKILL)
        assert listed(found[0]) == expected
        assert set(w.emulator.counts.billed.values()) == {2}


async def test_an_account_that_is_killed_goes_on_under_the_same_cap(tmp_path: Path, cluster: Nodes) -> None:
    """What it had in flight is counted as possibly billed; what it had been told is not asked again."""
    async with crew_world(tmp_path, queries=120, latency=0.05) as w:
        data = rows(120, 34)
        expected = await directly(data, w.job("one", model=RELATIVE))
        before, found = w.emulator.requests, []
        job = w.job("ray", model=RELATIVE, budget={"max_requests": before + 8}, rate={"concurrency": 8})

        async def run() -> None:
            found.append(await in_thread(partial(ranked, data, job)))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await reached(w, before + 200)
            os.kill(cluster.actors("_Account")[0], signal.SIGKILL)
        assert listed(found[0]) == expected
        assert w.emulator.requests - before <= before + 8
        assert (await in_thread(partial(runs, job))) == 1


async def test_a_call_that_gets_no_job_does_not_keep_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray repeats calls; the job that one refers to is gone where the pipeline is over, so that it waits for ever."""
    import pyarrow as pa

    import batchrank.ray

    monkeypatch.chdir(tmp_path)  # as the account does in its own process; here it is undone
    async with crew_world(tmp_path) as w:
        job, told = w.job("ray"), asyncio.get_running_loop().create_future()
        told.set_result(job)
        batch, account = pa.Table.from_pylist(rows(3, 5)), batchrank.ray._Account("pipeline", str(tmp_path))
        async with anyio.create_task_group() as group:
            group.start_soon(account.rank, batch, [asyncio.Future()], Columns())
            ranked = await account.rank(batch, [told], Columns())
            assert isinstance(ranked, pa.Table) and len(ranked) == 15
            assert (await in_thread(partial(runs, job))) == 1
            group.cancel_scope.cancel()


def runs(job: Job) -> int:
    """How many runs a ledger has seen, once it is free."""
    import sqlite3
    import time

    for _ in range(100):
        try:
            with sqlite3.connect(f"file:{job.ledger_path}?mode=ro", uri=True, timeout=0.1) as db:
                return int(db.execute("SELECT * FROM state WHERE name = 'runs'").fetchone()[1])
        except sqlite3.OperationalError as error:
            assert "locked" in str(error)
            time.sleep(0.2)
    raise AssertionError("the ledger is still in use")


async def test_a_cap_stops_the_pipeline_with_its_message(tmp_path: Path, cluster: Nodes) -> None:
    """What was billed is within it, by the server's own count; with a higher one the rest is asked."""
    data = rows(40, 34)
    async with crew_world(tmp_path, data=data) as w:
        with pytest.raises(Exception, match=r"BudgetReachedError: budget\.max_tokens"):
            await in_thread(partial(ranked, data, w.job("ray", budget={"max_tokens": 20_000})))
        assert 10_000 < w.emulator.counts.tokens <= 20_000
        assert len({row[0] for row in listed(await in_thread(partial(ranked, data, w.job("ray"))))}) == 40
        assert set(w.emulator.counts.billed.values()) == {1}


async def test_the_key_is_in_no_file_of_rays(tmp_path: Path, cluster: Nodes) -> None:
    """Read by the account alone, from the file on its node; a header's secret is told to nobody else, either."""
    async with crew_world(tmp_path) as w:
        job = w.job("ray", endpoint={"headers": {"X-Team": "team-secret-4711"}})
        assert len(await in_thread(partial(ranked, rows(10, 12), job))) == 120
        nowhere(w, cluster.session)
        (tmp_path / "key").unlink()
        with pytest.raises(Exception, match=r"JobError: endpoint\.api_key_file: .*/key: can't be read"):
            await in_thread(partial(ranked, rows(10, 12), job.model_copy(update={"name": "keyless"})))


def nowhere(w: World, session: Path) -> None:
    """No file holds a secret but the one that was made for it, and the job."""
    for folder in (session, w.folder):
        found = subprocess.run(
            ["grep", "-rlaE", f"{KEY}|team-secret-4711", "--exclude=ray.yaml", "--exclude=key", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.stdout == ""


async def test_pairs_are_refused(tmp_path: Path, cluster: Nodes) -> None:
    """A batch may end in the midst of a query; what to do is told, and the next pipeline works."""
    pairs = [{"query_id": "1", "query": "a", "doc_id": name, "text": name} for name in "bcd"]
    async with crew_world(tmp_path) as w:
        with pytest.raises(Exception, match=r"InputError: .* each row is one pair .*groupby"):
            await in_thread(partial(ranked, pairs, w.job("ray")))
        assert len(await in_thread(partial(ranked, rows(2, 3), w.job("ray")))) == 6


async def test_a_job_without_a_ledger_is_refused(tmp_path: Path, cluster: Nodes) -> None:
    """At once, as a batch that Ray asks for again would be paid again."""
    import ray.data

    import batchrank.ray

    job = Job(model="qwen3-rerank", endpoint={"url": "emulator"})  # type: ignore[arg-type]
    with pytest.raises(JobError, match="names no ledger"):
        batchrank.ray.rerank(ray.data.from_items(rows(1, 3)), job)
    with pytest.raises(JobError, match="dataset is a list"):
        batchrank.ray.rerank(rows(1, 3), job)
