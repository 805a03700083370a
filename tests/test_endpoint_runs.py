"""Whole runs and checks by the ways of the endpoint: what is told, what is nowhere, what check finds before."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from against import KEY, world
from aiohttp import web
from jobs import failed, make_job, outputs, rows, run, write_jsonl
from servers import Tls, proxying, ranks, scores, serving

from batchrank.job.config import Job
from batchrank.job.running import Rate
from batchrank.planning.check import Finding, check_job

ANYIO = pytest.mark.anyio
API, MODE = "/compatible-api/v1/reranks", "/compatible-mode/v1/reranks"
SECRET = "canary-3f9a71c0"


@ANYIO
async def test_a_run_finds_the_path_that_works_and_its_answers_are_found_again(tmp_path: Path) -> None:
    """The notice says what to set; the next run asks nothing, although the job still names the wrong path."""

    async def reply(request: web.Request, body: Any) -> web.Response:
        return await ranks(request, body) if request.path == MODE else web.Response(status=404)

    data = write_jsonl(tmp_path / "in.jsonl", rows(4, 8))
    async with serving(reply) as server:
        own: dict[str, Any] = {"endpoint": {"url": server.url + API, "auth": "none"}, "reuse": {"audit": 0}}
        report = await run(make_job(tmp_path, data, **own))
        asked = len(server.paths)
        ledger = str(tmp_path / "out" / "ledger.sqlite")
        again = await run(make_job(tmp_path, data, out="again", ledger=ledger, **own))
    assert report.exit_code == again.exit_code == 0
    assert [n for n in report.data["notices"] if f"set endpoint.url: {server.url}{MODE}" in n]
    assert len(server.paths) == asked and report.data["spend"]["tokens"] == 32


@ANYIO
async def test_a_key_that_changes_during_a_run_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of a few requests each: all is ranked, nothing retried or possibly billed, no key is written."""
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    left, number = 0, 0

    async def reply(request: web.Request, body: Any) -> web.Response:
        nonlocal left, number
        if left == 0 or request.headers["Authorization"] != f"Bearer {SECRET}-{number}":
            if left == 0:
                number, left = number + 1, 3
                file.write_text(f"{SECRET}-{number}")
            return web.json_response({"code": "InvalidApiKey", "message": str(request.headers)}, status=401)
        left -= 1
        return web.json_response(scores(body))

    file.write_text(f"{SECRET}-0")
    data = write_jsonl(tmp_path / "in.jsonl", rows(12, 8))
    async with serving(reply) as server:
        own = {"url": server.url, "api_key_file": str(file)}
        report = await run(make_job(tmp_path, data, endpoint=own, rate={"concurrency": 1}))
    assert report.exit_code == 0 and number >= 4 and report.data["process"]["ambiguous"] == 0
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not any(SECRET.encode() in path.read_bytes() for path in written)
    assert SECRET not in caplog.text + repr(report)


@ANYIO
@pytest.mark.parametrize("password", [SECRET, "wrong-" + SECRET])
async def test_the_proxy_s_password_leaves_no_trace(
    tmp_path: Path, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is the right one or not: not in logs, ledger, summary, output or errors."""
    caplog.set_level(logging.DEBUG)
    data = write_jsonl(tmp_path / "in.jsonl", rows(3, 8))
    async with serving() as server, proxying(f"night:{SECRET}") as proxy:
        own = {"url": server.url, "auth": "none", "proxy": f"http://night:{password}@{proxy.address}"}
        job = make_job(tmp_path, data, endpoint=own, retry={"outage": 2})
        report = await run(job)
    assert report.exit_code == (0 if password == SECRET else 1), report
    assert password == SECRET or "Correct endpoint.proxy" in str(report.reason)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not any(b"canary" in path.read_bytes() for path in written)
    assert "canary" not in caplog.text + repr(report) + str(report.reason)


@ANYIO
async def test_a_field_that_is_a_secret_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats the body it got, in its answers and its errors."""
    caplog.set_level(logging.DEBUG)

    async def reply(request: web.Request, body: Any) -> web.Response:
        if len(server.paths) % 2:
            return web.json_response({"code": "E", "message": str(body)[-400:]}, status=500)
        return web.json_response(scores(body) | {"id": body["auth_token"]})

    data = write_jsonl(tmp_path / "in.jsonl", rows(3, 8))
    async with serving(reply) as server:
        own = {"url": server.url, "auth": "none", "body": {"auth_token": SECRET}}
        report = await run(make_job(tmp_path, data, endpoint=own))
    assert report.exit_code == 0
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in written)
    assert SECRET not in caplog.text + repr(report)


@ANYIO
async def test_running_out_of_descriptors_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no connection can be opened requests wait, none counts as possibly billed, and the output is the same."""
    import errno

    import aiohttp

    async with world(tmp_path, queries=6, candidates=34) as w:
        calm = w.job(out="calm")
        await w.run(calm)
        failures, original = iter(range(12)), aiohttp.TCPConnector._create_connection

        async def scarce(self: aiohttp.TCPConnector, req: Any, *rest: Any) -> Any:
            if next(failures, None) is not None:
                raise aiohttp.ClientConnectorError(
                    req.connection_key, OSError(errno.EMFILE, "Too many open files")
                )
            return await original(self, req, *rest)

        monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", scarce)
        job = w.job()
        report = await w.run(job)
    assert report.exit_code == 0 and not failed(job) and report.data["process"]["ambiguous"] == 0
    assert set(report.data["process"]["retries"]) == {"unreachable"} and next(failures, None) is None
    assert outputs(job) == outputs(calm)


def found(job: Job, *, ask: bool = False) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_job(job, limit=10, ask=ask)}


def checked(folder: Path, **endpoint: Any) -> Job:
    data = write_jsonl(
        folder / "in.jsonl", [{"query_id": "q", "query": "x" * 50, "candidates": ["a", "b" * 300]}]
    )
    (folder / "key").write_text(KEY)
    own = {"url": "http://127.0.0.1:9/rerank", "api_key_file": str(folder / "key"), **endpoint}
    return make_job(folder, data, endpoint=own, limits={"documents": 10, "item_characters": 200})


def test_check_tells_prompts_fields_and_what_will_be_cut(tmp_path: Path) -> None:
    """What goes with every request, and what is longer than the API takes, before a run."""
    findings = found(checked(tmp_path, body={"user": "night"}, template={"document": "D: {document}"}))
    assert (
        findings["request"].text
        == "the model's own prompt goes around the query and each document; user added to every request"
    )
    assert "1 texts are longer than the API reads and will be cut" in findings["input"].text
    assert findings["rate"].state == "ok" and "requests in flight" in findings["rate"].text


@pytest.mark.parametrize(
    ("endpoint", "name", "said"),
    [
        ({"ca_file": "gone.pem"}, "request", "endpoint.ca_file: "),
        ({"proxy": "http://me:canary@127.0.0.1:9"}, "endpoint", "the proxy 127.0.0.1:9 can't be reached"),
        (
            {"template": {"document": "{document}" + "x" * 300}},
            "prepare",
            "endpoint.template: the prompt around a document",
        ),
    ],
)
def test_check_finds_what_would_fail(tmp_path: Path, endpoint: dict[str, Any], name: str, said: str) -> None:
    """Certificates, proxies and prompts, each named; no password is shown."""
    finding = found(checked(tmp_path, **endpoint))[name]
    assert finding.state == "fault" and said in finding.text and "canary" not in finding.text


def test_check_says_that_fewer_connections_can_be_had_than_the_job_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rate.concurrency beyond the limit of open files is a note, and what to raise."""
    monkeypatch.setattr("batchrank.pipeline.endpoint.open_files", lambda: 200)
    job = checked(tmp_path).model_copy(update={"rate": Rate(concurrency=500)})
    finding = found(job)["rate"]
    assert finding.state == "note" and "104 connections" in finding.text and "ulimit -n" in finding.text


@ANYIO
async def test_check_goes_the_way_that_a_run_goes(tmp_path: Path) -> None:
    """To the server by its own authority's certificate; to the proxy, and with --ask through it."""
    tls = Tls(tmp_path)

    async def refuse(request: web.Request, body: Any) -> web.Response:
        return web.json_response({"code": "InvalidParameter", "message": "no documents"}, status=400)

    async def endpoint(ask: bool = False, **more: Any) -> Finding:
        job = checked(tmp_path, url=f"{server.url}/rerank", **more)
        return (await anyio.to_thread.run_sync(partial(found, job, ask=ask)))["endpoint"]

    async with serving(refuse, tls=tls.server()) as server, proxying(f"me:{SECRET}") as proxy:
        way = f"http://me:{SECRET}@{proxy.address}"
        strange = await endpoint()
        known = await endpoint(ca_file=str(tls.ca))
        untried = await endpoint(ca_file=str(tls.ca), proxy=way)
        assert not proxy.asked and not server.paths
        asked = await endpoint(ask=True, ca_file=str(tls.ca), proxy=way)
        refused = await endpoint(ask=True, ca_file=str(tls.ca), proxy=way.replace("me:", "you:"))
    assert strange.state == "fault" and "endpoint.ca_file" in strange.text
    assert known.state == "ok" and "over TLS" in known.text
    assert untried.state == "ok" and "localhost behind it was not tried (--ask does)" in untried.text
    assert asked.state == "ok" and "the key is accepted" in asked.text and len(server.paths) == 1
    assert refused.state == "fault" and "correct endpoint.proxy" in refused.text
    assert SECRET not in asked.text + refused.text + untried.text
