"""The key is nowhere, the server is who it says, answers stay within bounds, and no file is written elsewhere."""

import asyncio
import logging
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import KEY, PATH, world
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from jobs import rows, write_jsonl
from peak_memory import LINUX, Peak

from batchrank.data import Answer, Rejection
from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import FAULTS, Settings
from batchrank.errors import LedgerError, OutputError
from batchrank.job.load import load_job
from batchrank.job.secrets import Secrets
from batchrank.ledger.ledger import Ledger
from batchrank.send.transport import Http
from batchrank.wire import CODECS

ANYIO = pytest.mark.anyio
HEADER = "tenant-secret-91b5c7"


def traces(folder: Path, *texts: str) -> list[str]:
    """Where a secret has left a trace: any file of a folder but the key's own, or any of the texts."""
    secrets = [KEY.encode(), HEADER.encode()]
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("key", "out.yaml", "job.yaml")]
    found = [str(path) for path in files if any(s in path.read_bytes() for s in secrets)]
    return found + [text for text in texts if KEY in text or HEADER in text]


@ANYIO
async def test_the_key_leaves_no_trace_under_any_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs of everything at debug level, ledger, write-ahead log, summary, dead letters, output, errors."""
    caplog.set_level(logging.DEBUG)
    script = dict(enumerate((f for f in FAULTS if f not in ("json-huge", "gzip-bomb", "silence")), 1))
    stops = 0
    async with world(
        tmp_path, queries=20, script=script, drip=0.001, sections={"endpoint": {"timeout": 5}}
    ) as w:
        job = w.job(endpoint={"headers": {"X-Tenant": HEADER}, "timeout": 5})
        while (report := await w.run(job)).exit_code not in (0, 3):
            stops += 1
            assert not traces(tmp_path, caplog.text, str(report.reason), repr(report))
        assert stops >= 2
        assert not traces(tmp_path, caplog.text, repr(report))


def _echoes(request: web.Request) -> dict[str, Any]:
    said = request.headers["Authorization"]
    return {
        "json": {
            "status": 500,
            "text": orjson.dumps({"code": "E" + said, "message": f"bad: {said}"}).decode(),
        },
        "cut": {"status": 500, "text": orjson.dumps({"message": "x" * 480 + said}).decode()},
        "html": {"status": 502, "text": f"<html>{said} {request.headers['X-Tenant']}"},
        "useless": {"status": 200, "text": f"nonsense {said}"},
        "id": {
            "status": 500,
            "text": orjson.dumps({"code": "E", "message": "m", "request_id": said}).decode(),
        },
        "redirect": {"status": 307, "headers": {"Location": f"https://elsewhere/?key={KEY}"}},
        "reason": {"status": 503, "reason": f"No {KEY}"},
    }


ECHOES = ["json", "cut", "html", "useless", "id", "redirect", "reason"]


@ANYIO
@pytest.mark.parametrize("echo", ECHOES)
async def test_a_server_that_echoes_the_key_does_not_get_it_into_anything(
    tmp_path: Path, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a server says is searched for the key and the values of further headers."""
    caplog.set_level(logging.DEBUG)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(**_echoes(request)[echo])

    app = web.Application()
    app.router.add_post("/rerank", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/rerank"
    try:
        async with world(tmp_path, queries=2, candidates=8) as w:
            endpoint = {"url": url, "headers": {"X-Tenant": HEADER}}
            report = await w.run(w.job(endpoint=endpoint, retry={"attempts": 2}))
    finally:
        await runner.cleanup()
    assert report.exit_code in (1, 3, 75)
    assert not traces(tmp_path, caplog.text, repr(report), str(report.reason))


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=6, max_size=40),
    st.integers(0, 60),
)
def test_secrets_are_hidden_in_every_spelling_and_even_when_cut(secret: str, cut: int) -> None:
    """As it is, in JSON, in an address; and no more than three characters of it where a message was cut off."""
    secrets = Secrets([f"Bearer {secret}"])
    for spelled in (secret, orjson.dumps(secret).decode()[1:-1], repr(secret)[1:-1]):
        assert spelled not in secrets.hide(f"<{spelled}>")
        assert spelled.encode() not in secrets.hide_bytes(f"<{spelled}>".encode())
        hidden = secrets.hide(f"\x00{spelled[:cut]}")
        assert len(spelled[:cut]) < 4 or not hidden.endswith("\x00" + spelled[:cut])


def test_a_key_written_where_its_name_belongs_is_not_repeated(tmp_path: Path) -> None:
    """The commonest mistake with api_key_env: the message must not print what was given."""
    from batchrank.errors import JobError

    job = {"model": "qwen3-rerank", "input": {"path": "x"}, "output": {"path": "o"}}
    for endpoint in ({"api_key_env": KEY}, {"headers": {"X-Key": [KEY]}}, {"headers": KEY}):
        (tmp_path / "job.yaml").write_bytes(orjson.dumps(job | {"endpoint": endpoint}))
        with pytest.raises(JobError) as caught:
            load_job(tmp_path / "job.yaml", environ={})
        assert KEY not in str(caught.value)


@ANYIO
async def test_a_secret_in_the_address_stays_out_of_the_ledger(tmp_path: Path) -> None:
    """Some gateways take a token in the query: neither summary nor ledger tells it."""
    async with world(tmp_path, queries=2, candidates=8) as w:
        await w.run(w.job(endpoint={"url": f"{w.emulator.url}{PATH}?token={HEADER}"}))
        assert not traces(tmp_path)


def _arguments(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes() if sys.platform == "linux" else b""


@ANYIO
@pytest.mark.real_clock
async def test_the_process_does_not_show_the_key(tmp_path: Path) -> None:
    """Not in the arguments of the process, nor in what it prints when asked for every detail."""
    write_jsonl(tmp_path / "in.jsonl", rows(3, 12))
    async with Emulator(
        Settings(tokenizer="bytes", latency=0.3, script={2: "500", 3: "index-missing"})
    ) as emulator:
        job = {
            "input": {"path": "in.jsonl"}, "model": "qwen3-rerank", "tokenizer": "bytes",
            "endpoint": {"url": emulator.url + PATH, "api_key_env": "SOME_KEY"}, "output": {"path": "out"},
        }  # fmt: skip
        (tmp_path / "job.yaml").write_bytes(orjson.dumps(job))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchrank", "run", "job.yaml", "--verbose"),
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "SOME_KEY": KEY, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        while not emulator.requests:  # noqa: ASYNC110 another process
            await asyncio.sleep(0.005)
        arguments = _arguments(process.pid)
        out, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert b"attempt failed" in errors
    assert not traces(tmp_path, arguments.decode(), out.decode(), errors.decode())


def _self_signed(folder: Path) -> ssl.SSLContext:
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    names = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run(["openssl", *command.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


@ANYIO
async def test_a_self_signed_server_is_refused(tmp_path: Path) -> None:
    """The certificate is verified, and there is no switch to turn that off: exit 1 before anything is sent."""
    context = _self_signed(tmp_path)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/rerank", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        async with world(tmp_path, queries=2, candidates=8) as w:
            port = runner.addresses[0][1]
            report = await w.run(w.job(endpoint={"url": f"https://localhost:{port}/rerank"}))
    finally:
        await runner.cleanup()
    assert report.exit_code == 1 and asked == []
    assert "certificate" in str(report.reason) and "Correct endpoint.url" in str(report.reason)
    assert report.data["spend"]["tokens"] == 0


@ANYIO
@LINUX
@pytest.mark.parametrize("fault", ["json-huge", "gzip-bomb", "json-deep"])
async def test_no_answer_is_larger_or_deeper_than_an_answer_can_be(fault: str) -> None:
    """A quarter of a gigabyte, as it is or compressed, and 100,000 levels: given up early, in little memory."""
    settings = Settings(tokenizer="bytes", script={1: fault}, huge_bytes=2**28)
    async with Emulator(settings) as emulator:  # noqa: SIM117 the second needs the first
        async with Http(emulator.url + PATH, CODECS["dashscope"], key="k", answer_bytes=2**20) as http:
            peak = Peak()
            body = orjson.dumps({"model": "qwen3-rerank", "query": "q", "documents": ["a", "b"]})
            first, second = await http.post(body, 2), await http.post(body, 2)
    assert isinstance(first, Rejection) and first.code == "malformed"
    assert isinstance(second, Answer)
    assert peak.grown() < 100


def test_the_ledger_is_the_owners_alone_even_if_it_was_not(tmp_path: Path) -> None:
    """A ledger that was copied with wider permissions is narrowed when it is opened."""
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    path.chmod(0o644)
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@ANYIO
@pytest.mark.parametrize(
    "name", ["ranking-00000.jsonl", "failed.jsonl", "failed.partial.jsonl", "summary.json", "ledger.sqlite"]
)
async def test_no_file_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    """A link planted in the output folder leads nowhere: what it points to is not touched."""
    (tmp_path / "out").mkdir()
    target = tmp_path / "elsewhere"
    target.write_bytes(b"precious")
    (tmp_path / "out" / name).symlink_to(target)
    async with world(tmp_path, queries=2, candidates=8) as w:
        try:
            report = await w.run(w.job())
        except (OutputError, LedgerError) as error:
            assert "symbolic link" in str(error)
        else:
            assert report.exit_code == 0 or "symbolic link" in str(report.reason)
    assert target.read_bytes() == b"precious"
