"""What people and machines are told of several servers, whose turn it is, and what a job may say of them."""

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import orjson
import pytest
from fleets import Server, fleet, job_at
from sick_server import reply

from batchrank.cli.display import _facts, closing_lines
from batchrank.cli.status import _status_facts
from batchrank.data import Rejection
from batchrank.errors import JobError
from batchrank.job.load import load_job
from batchrank.observe.facts import gather, read_status
from batchrank.observe.observer import Observer
from batchrank.observe.page import render
from batchrank.pipeline.run import Run
from batchrank.planning.check import Finding, check_job, ending
from batchrank.send.concurrency import ConcurrencyLimit
from batchrank.send.fleet import Fleet, Replica, names
from batchrank.send.retry import Action
from batchrank.send.transport import Http
from batchrank.wire import CODECS

ANYIO = pytest.mark.anyio


@ANYIO
@pytest.mark.real_clock
async def test_check_asks_each(tmp_path: Path) -> None:
    """One that fails is a note as long as another one works, and says which; when all fail it is a fault."""
    well, refuses, absent = Server(), Server(fate=lambda q, d, n: reply(401, {"message": "no"})), Server()
    async with fleet(well, refuses, absent):
        await absent.stop()

        def checked(*servers: Server) -> dict[str, Finding]:
            job = job_at(tmp_path, *servers)
            found = [one for one in check_job(job, limit=1, ask=True) if one.name == "endpoint"]
            return dict(zip(job.urls, found, strict=True))

        found = await anyio.to_thread.run_sync(checked, well, refuses, absent)
        assert ending(found.values()) == 0
        assert [found[server.url].state for server in (well, refuses, absent)] == ["ok", "note", "note"]
        assert "can't be reached" in found[absent.url].text and "Correct the key" in found[refuses.url].text
        assert "the run will go on with the other replicas" in found[absent.url].text
        found = await anyio.to_thread.run_sync(checked, absent, refuses)
        assert {one.state for one in found.values()} == {"fault"}


@ANYIO
async def test_people_and_machines_are_told_of_each(tmp_path: Path) -> None:
    """Progress, status, metrics, closing lines and report: requests, failures, and which are out."""
    sick = Server(fate=lambda q, d, n: reply(500, {"message": "oh"}))
    servers = Server(), sick
    async with fleet(*servers):
        one = Run(job_at(tmp_path, *servers, queries=60))
        with Observer(one) as observer:
            async with anyio.create_task_group() as group:
                group.start_soon(observer.watch)
                report = await one.execute()
                group.cancel_scope.cancel()
            observer.ended(report)
        name = sick.url.split("/")[2]
        progress = one.progress()
        assert progress is not None
    out = tmp_path / "out"
    lines = [*closing_lines(one, report), *(f"{a} {b}" for a, b in _facts(progress))]
    lines += [f"{a} {b}" for a, b in _status_facts(read_status(out))]
    assert len([line for line in lines if line.startswith("replicas") and f"{name} " in line]) == 3
    assert all(" OUT: HTTP 500" in line for line in lines if line.startswith("replicas")), lines
    metrics = (out / "metrics.prom").read_text()
    assert f'batchrank_replica_up{{job="out",replica="{name}"}} 0.0' in metrics
    assert f'batchrank_replica_failures_total{{job="out",replica="{name}"}}' in metrics
    assert f"failed at {name}" in render(gather(out, with_plan=False))


def replica(limit: ConcurrencyLimit, name: str = "") -> Replica:
    return Replica(Http("http://127.0.0.1:9/", CODECS["dashscope"]), limit, name)


def test_the_least_busy_goes_first_by_what_it_may_have() -> None:
    """2 of 10 is less than 1 of 4; of equals one after the other; what a request failed at comes last."""
    large, small = replica(ConcurrencyLimit(10)), replica(ConcurrencyLimit(4))
    both = Fleet([large, small])
    for _ in range(2):
        both.take(large)
    both.take(small)
    assert both.choose() is large and both.choose([large]) is small
    assert both.choose([large, small]) is large
    even = Fleet([replica(ConcurrencyLimit(4)) for _ in range(3)])
    turns = []
    for _ in range(9):
        chosen = even.choose()
        assert chosen is not None
        even.take(chosen)
        turns.append(chosen)
    assert all(turns.count(one) == 3 for one in even.replicas)


def test_the_last_one_is_never_taken_out() -> None:
    """A fleet of one has no state of its own: what becomes of it is the endpoint's."""
    one, two = replica(ConcurrencyLimit(4), "a:1"), replica(ConcurrencyLimit(4), "b:2")
    both, gone = Fleet([one, two], 8), Rejection(None, "unreachable", "refused")
    both.failed(one, gone, Action.RETRY, 0.0)
    assert one.out and both.limit == 8 and two.limit == 8
    for _ in range(100):
        both.failed(two, gone, Action.RETRY, 0.0)
    assert not two.out and both.serving == 1
    both.answered(one, 1.0, 0.1, 10, waiting=True, probe=False)
    assert one.out
    both.answered(one, 1.0, 0.1, 10, waiting=True, probe=True)
    assert two.out and not one.out and one.limit == both.limit == 1
    both.answered(one, 2.0, 0.1, 10, waiting=True, probe=False)
    assert one.limit == 8


def test_what_was_sent_before_it_came_back_tells_nothing_of_it() -> None:
    """Requests that hang from before neither fill the place of its trial nor fail it when they time out."""
    one, two = replica(ConcurrencyLimit(4), "a:1"), replica(ConcurrencyLimit(4), "b:2")
    both, late = Fleet([one, two]), Rejection(None, "timeout", "no answer")
    for _ in range(4):
        both.take(one)
    for _ in range(3):
        both.failed(one, late, Action.RETRY, 0.0)
    assert one.out
    both.take(one)  # a probe
    both.answered(one, 9.0, 0.1, 10, waiting=True, probe=True)
    both.leave(one)
    assert not one.out and one.limit - one.places.busy == 1
    for _ in range(4):
        both.failed(one, late, Action.RETRY, 0.0)
        both.leave(one)
    assert not one.out and one.failures == 7
    both.failed(one, late, Action.RETRY, 9.5)
    assert one.out


def test_names_tell_servers_apart_and_no_secret() -> None:
    """Host and port, the path where that is needed, a number at last; never the query."""
    assert names(["http://a:1/rerank?k=s", "http://b:1/rerank"]) == ["a:1", "b:1"]
    assert names(["http://a/x", "http://a/y"]) == ["a/x", "a/y"]
    assert names(["http://a/x?k=s1", "http://a/x?k=s2"]) == ["a/x (1)", "a/x (2)"]


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"url": "http://a/r", "urls": ["http://b/r"]}, "endpoint: url and urls exclude each other"),
        ({"urls": ["http://a/r", "http://a/r"]}, "endpoint.urls: http://a/r comes twice"),
        ({"urls": ["http://a/r?canary", "http://a/r?canary"]}, "endpoint.urls: http://a/r comes twice"),
        ({"urls": ["ftp://a/r"]}, "is not an http"),
        ({"urls": ["http://u:canary@a/r"]}, "a user or password in the address"),
        ({"urls": ["emulator"]}, "write endpoint.url: emulator"),
        (
            {"urls": ["https://dashscope.aliyuncs.com/r", "https://dashscope-intl.aliyuncs.com/r"]},
            "endpoint.urls: they are not all in one region",
        ),
    ],
)
def test_what_can_t_be_right_is_told(tmp_path: Path, endpoint: dict[str, Any], said: str) -> None:
    """Before anything is sent, and without repeating a secret."""
    path = tmp_path / "job.yaml"
    job = {"input": "x", "model": "qwen3-rerank", "endpoint": endpoint, "output": {"path": "out"}}
    path.write_bytes(orjson.dumps(job | {"input": {"path": "x"}}))
    with pytest.raises(JobError) as caught:
        load_job(path, environ={})
    assert said in str(caught.value) and "canary" not in str(caught.value)
