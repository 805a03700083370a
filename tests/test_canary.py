"""No secret that a job knows leaves a trace: in no file, no message, no argument, whatever the server does with it."""

import asyncio
import base64
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import commands
import orjson
import pytest
from aiohttp import web
from jobs import rows, write_jsonl
from servers import Proxy, Tls, proxying, scores, serving
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.errors import BatchrankError, JobError
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.job.secrets import Secrets, secrets_of

ANYIO = pytest.mark.anyio
CANARIES = {
    "key": "sk-canary-key-1b2c3d4e",
    "header": "canary-header-5f6a7b8c",
    "body": "canary/body+9d0e1f2a==",
    "proxy user": "canaryuser3b4c",
    "proxy password": "canary:pass@5d6e",
    "query": "canary/query+7f8a9b==",
}
_INPUTS = ("key", "key2", "job.yaml", "client.key")


def _job(folder: Path, server: str, proxy: Proxy, *, fleet: bool = False, keys: int = 1) -> None:
    tls = Tls(folder)
    (folder / "key").write_text(CANARIES["key"])
    (folder / "key2").write_text(CANARIES["key"] + "-canary2")  # which begins like the other
    user, password = "canaryuser3b4c", "canary%3Apass%405d6e"
    job: dict[str, Any] = {
        "input": {"path": "in.jsonl"},
        "model": "qwen3-rerank",
        "tokenizer": "bytes",
        "retry": {"attempts": 2, "max_delay": 0.01, "outage": 0.5},
        "endpoint": {
            "url": f"{server}/rerank?api-version=2&sig=canary%2Fquery%2B7f8a9b%3D%3D",
            "api_key_file": "key" if keys == 1 else ["key", "key2"],
            "headers": {"X-Tenant": CANARIES["header"]},
            "body": {"gateway": {"auth_token": CANARIES["body"]}},
            "proxy": f"http://{user}:{password}@{proxy.address}",
            "client_cert": str(tls.cert),
            "client_key": str(tls.key),
        },
        "output": {"path": "out"},
    }
    if fleet:
        url = job["endpoint"].pop("url")
        job["endpoint"]["urls"] = [url, url.replace("/rerank", "/other")]
    (folder / "job.yaml").write_bytes(orjson.dumps(job))
    write_jsonl(folder / "in.jsonl", rows(3, 6))


def _arguments(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text() if sys.platform == "linux" else "unknown"


async def _command(folder: Path, *arguments: str) -> str:
    """What a command says, with what the system shows of its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batchrank", *arguments),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONASYNCIODEBUG": "1"},
    )  # fmt: skip
    while not (shown := _arguments(process.pid)):  # noqa: ASYNC110 another process, which is about to begin
        await asyncio.sleep(0)
    out, _ = await process.communicate()
    return f"{shown}\n{out.decode()}"


async def _forked(folder: Path, *arguments: str) -> str:
    """What a command says."""
    environ = {**os.environ, "PYTHONASYNCIODEBUG": "1"}
    done = await asyncio.to_thread(partial(commands.run, *arguments, cwd=folder, environ=environ))
    return f"{done.stdout.decode()}\n{done.stderr.decode()}"


def _invoke(command: str) -> str:
    """What a command says that needs no process of its own, or raises."""
    done = CliRunner().invoke(app, command.split())
    assert done.exception is None or isinstance(done.exception, SystemExit | BatchrankError), done.exception
    return f"{done.output} {done.exception!r}"


def _traces(folder: Path, *texts: str) -> list[str]:
    lines = (folder / "client.key").read_text().splitlines()
    login = f"{CANARIES['proxy user']}:{CANARIES['proxy password']}"
    encoded = [base64.b64encode(text.encode()).decode().rstrip("=") for text in (*CANARIES.values(), login)]
    hidden = ["canary", lines[1], *encoded]  # all secrets hold that word, however the rest is spelled
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in _INPUTS]
    found = [f"{path}: {text}" for path in files for text in hidden if text.encode() in path.read_bytes()]
    return found + [f"{s} in {text}" for text in texts for s in hidden if s in text]


def _echo(request: web.Request, body: Any) -> str:
    """All that a server was told."""
    return f"{request.raw_path} {request.query_string} {dict(request.query)} {dict(request.headers)} {body}"


async def _well(request: web.Request, body: Any) -> web.Response:
    return web.json_response(scores(body) | {"id": _echo(request, body)[:400]})


async def _fails(request: web.Request, body: Any) -> web.Response:
    return web.json_response({"code": "E", "message": _echo(request, body)}, status=500)


async def _redirects(request: web.Request, body: Any) -> web.Response:
    return web.Response(status=302, headers={"Location": f"/login?next={request.raw_path}"})


async def _echoes(request: web.Request, body: Any) -> web.Response:
    return web.Response(status=400, text=f"<p>{_echo(request, body)}</p>", content_type="text/html")


async def _one_at_a_time(request: web.Request, body: Any) -> web.Response:
    """One query's documents are refused with an echo: a dead letter."""
    if "d1-0" in str(body) or any(text.endswith(" 1000") for text in body["documents"]):
        return web.json_response({"message": _echo(request, body)[:300]}, status=400)
    return web.json_response(scores(body))


@ANYIO
@pytest.mark.real_clock
@pytest.mark.parametrize("reply", [_well, _fails, _redirects, _echoes, _one_at_a_time])
async def test_no_secret_leaves_a_trace(tmp_path: Path, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, header, body field, proxy, query, client key: not in any file of the run, nor in what any command says."""
    monkeypatch.chdir(tmp_path)
    async with serving(reply) as server, proxying(user="canaryuser3b4c:canary:pass@5d6e") as proxy:
        _job(tmp_path, server.url, proxy)
        format = "json" if reply in (_fails, _one_at_a_time) else "text"
        command = _command if reply is _well else _forked  # the system shows the same whatever the reply
        said = [await command(tmp_path, "run", "job.yaml", "--verbose", "--log-format", format)]
        said.append(await command(tmp_path, "check", "job.yaml", "--ask"))
    assert server.headers, said
    assert server.headers[0]["X-Tenant"] == CANARIES["header"]
    later = ["status out", "status out --json", "plan job.yaml", "ledger job.yaml"]
    said += [await asyncio.get_running_loop().run_in_executor(None, _invoke, command) for command in later]
    if (tmp_path / "out" / "summary.json").exists():
        said.append(await asyncio.get_running_loop().run_in_executor(None, _invoke, "report out"))
        assert (tmp_path / "out" / "report.html").exists(), said[-1]
    assert not _traces(tmp_path, *said)
    assert not any("Traceback" in text for text in said), said


async def _half_fails(request: web.Request, body: Any) -> web.Response:
    return await (_fails if request.path == "/other" else _well)(request, body)


@ANYIO
@pytest.mark.real_clock
@pytest.mark.parametrize("reply", [_half_fails, _fails, _redirects])
async def test_no_secret_of_a_fleet_leaves_a_trace(
    tmp_path: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the query of any address is in no status, metric, notice or report; nor in what a command says."""
    monkeypatch.chdir(tmp_path)
    async with serving(reply) as server, proxying(user="canaryuser3b4c:canary:pass@5d6e") as proxy:
        _job(tmp_path, server.url, proxy, fleet=True)
        said = [await _forked(tmp_path, "run", "job.yaml", "--verbose")]
        said.append(await _forked(tmp_path, "check", "job.yaml", "--ask"))
    assert {"/rerank", "/other"} <= set(server.paths), said
    loop = asyncio.get_running_loop()
    said += [
        await loop.run_in_executor(None, _invoke, command)
        for command in ("status out", "status out --json", "plan job.yaml", "report out")
    ]
    assert not _traces(tmp_path, *said)
    assert "/other" in said[2] and not any("Traceback" in text for text in said), said


async def _one_key_fails(request: web.Request, body: Any) -> web.Response:
    refused = not request.headers["Authorization"].endswith("canary2")
    return await (_echoes if refused else _well)(request, body)


@ANYIO
@pytest.mark.real_clock
@pytest.mark.parametrize("reply", [_one_key_fails, _fails, _echoes])
async def test_none_of_several_keys_leaves_a_trace(
    tmp_path: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two keys of which one begins like the other, all of which the server repeats."""
    monkeypatch.chdir(tmp_path)
    async with serving(reply) as server, proxying(user="canaryuser3b4c:canary:pass@5d6e") as proxy:
        _job(tmp_path, server.url, proxy, keys=2)
        said = [await _forked(tmp_path, "run", "job.yaml", "--verbose")]
        said.append(await _forked(tmp_path, "check", "job.yaml", "--ask"))
    assert len({headers["Authorization"] for headers in server.headers}) == 2, said
    loop = asyncio.get_running_loop()
    said += [
        await loop.run_in_executor(None, _invoke, command)
        for command in ("status out", "status out --json", "plan job.yaml", "report out")
    ]
    assert not _traces(tmp_path, *said)
    assert not any("Traceback" in text for text in said), said


@ANYIO
@pytest.mark.real_clock
async def test_a_proxy_that_repeats_its_password_is_not_repeated(tmp_path: Path) -> None:
    """A refused login: message, status and files hold neither the user nor the password, in any spelling."""
    async with serving(_well) as server, proxying(user="somebody:else") as proxy:
        _job(tmp_path, server.url, proxy)
        said = await _command(tmp_path, "run", "job.yaml", "--verbose")
    assert "endpoint.proxy" in said and not _traces(tmp_path, said)


@pytest.mark.parametrize(
    "text",
    [
        "endpoint:\n  headers:\n    Authorization: Bearer: sk-canary-key-1b2c3d4e\n",
        "endpoint:\n\tapi_key: sk-canary-key-1b2c3d4e\n",
        "endpoint: {url: 'sk-canary-key-1b2c3d4e'}\n",
        "endpoint: {url: 'ftp://host/?token=sk-canary-key-1b2c3d4e'}\n",
        "endpoint: {auth: 'Bearer sk-canary-key-1b2c3d4e'}\n",
        "endpoint: {proxy: 'socks5://u:sk-canary-key-1b2c3d4e@h'}\n",
        "endpoint: {headers: ['sk-canary-key-1b2c3d4e']}\n",
        "endpoint: {api_key: 'sk-canary-key-1b2c3d4e'}\n",
        "endpoint: {body: 'sk-canary-key-1b2c3d4e'}\n",
        "endpoint: 'sk-canary-key-1b2c3d4e'\n",
        "endpoint: {body: {a: [1, 2}} # sk-canary-key-1b2c3d4e\n",
    ],
)
def test_a_job_that_is_refused_is_not_repeated(tmp_path: Path, text: str) -> None:
    """What stands under endpoint may be a secret in the wrong place: the line is named, never shown."""
    path = tmp_path / "job.yaml"
    path.write_text(f"model: qwen3-rerank\ninput: {{path: x}}\noutput: {{path: o}}\n{text}")
    with pytest.raises(JobError) as caught:
        load_job(path, environ={})
    assert "canary" not in str(caught.value) and str(path) in str(caught.value)


def test_an_override_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    """Who writes --set or a variable wrongly may have written a secret."""
    path = tmp_path / "job.yaml"
    path.write_text("model: qwen3-rerank\ninput: {path: x}\noutput: {path: o}\n")
    for override in ("endpoint.headers.X-Key:sk-canary-key-1b2c3d4e", "sk-canary-key-1b2c3d4e"):
        with pytest.raises(JobError) as caught:
            load_job(path, overrides=[override], environ={})
        assert "canary" not in str(caught.value) and "--set" in str(caught.value)


def test_a_job_in_a_trace_or_a_log_shows_no_secret() -> None:
    """Neither the text of a job, nor pydantic's own words about one that is refused."""
    endpoint = {"url": "http://h/?t=canary-1", "headers": {"X": "canary-2"}, "body": {"token": "canary-3"}}
    job = Job(model="qwen3-rerank", endpoint={**endpoint, "proxy": "http://u:canary-4@h"})  # type: ignore[arg-type]
    assert "canary" not in f"{job} {job!r} {job.endpoint!r}"
    with pytest.raises(ValueError, match="timeout") as caught:
        Job(model="qwen3-rerank", endpoint={**endpoint, "timeout": "canary-5"})  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)


def test_all_secrets_of_a_job_are_known(tmp_path: Path) -> None:
    """From the job alone, the environment's proxy included; what is no secret stays readable."""
    (tmp_path / "key").write_text("key-canary")
    endpoint = {
        "url": "http://h/?v=2&t=query%2Dcanary",
        "headers": {"X": "Bearer header-canary"},
        "body": {"auth": "body-canary", "max_tokens_per_doc": 512, "note": "not-hidden"},
        "api_key_file": str(tmp_path / "key"),
    }
    job = Job(model="qwen3-rerank", endpoint=endpoint)  # type: ignore[arg-type]
    secrets = secrets_of(job, {"HTTP_PROXY": "http://puser-canary:ppass%40canary@proxy"})
    told = "key-canary header-canary HEADER-CANARY body-canary query%2Dcanary query-canary puser-canary ppass@canary"
    assert "canary" not in secrets.hide(f"{told}. not-hidden").lower()
    assert secrets.hide("not-hidden 512") == "not-hidden 512"
    assert secrets.hide_all({"a": ["x key-canary", 1, None]}) == {"a": ["x (secret)", 1, None]}
    assert Secrets().hide("anything") == "anything"
    mixed = Secrets(["a/b=c:d e+canary-1"])
    for text in ("a/b%3Dc:d%20e%2Bcanary-1", "a%2fb=c%3ad e+canary-1", "A/B%3dC:D+E%2bCANARY-1"):
        assert mixed.hide(f"<{text}>") == mixed.hide_bytes(f"<{text}>".encode()).decode() == "<(secret)>"
