"""What servers and datasets say never steers the terminal it is printed on; data for programs stays what it is."""

import asyncio
import json
import logging
import os
import pty
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import commands
import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from jobs import write_jsonl
from rich.table import Table
from servers import scores, serving
from typer.testing import CliRunner

from batchrank.cli import terminal as said
from batchrank.cli.app import app
from batchrank.cli.terminal import log_to_stderr
from batchrank.errors import BatchrankError, escaped, escaped_json

ANYIO = pytest.mark.anyio
TITLE, CLEAR, FORGED, TURNED = "\x1b]0;owned\x07", "\x1b[2J", "\n12:00:00 INFO all is well", "\u202eevil"
NASTY = f"{TITLE}{CLEAR}\rdone{FORGED}{TURNED}\x9b2J\x7f[/red][bold]:boom: \ud800"
SENDABLE = NASTY.replace("\ud800", "")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|^12:00:00 INFO all", re.MULTILINE)


@given(st.text())
def test_escaped_text_is_one_line_of_what_can_be_seen(text: str) -> None:
    """Nothing is left that a terminal acts on; with lines, only their ends, and each is indented."""
    assert not RAW.search(escaped(text)) and "\n" not in escaped(text)
    assert all(line.startswith("  ") for line in escaped(text, lines=True).split("\n")[1:])
    assert escaped("tab\there, é, 語, \U0001f600") == "tab\\there, é, 語, \U0001f600"
    escaped(text).encode()


@given(st.dictionaries(st.text(), st.text()))
def test_escaped_json_is_the_same_data(data: dict[str, str]) -> None:
    """Every character is still there, as an escape where a terminal would act on it."""
    shown = escaped_json(json.dumps(data, ensure_ascii=False, indent=1))
    assert json.loads(shown) == data and not RAW.search(shown)


def test_tables_hold_no_markup_and_no_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A cell is shown as what it is: neither colours nor emoji nor an error because a tag isn't closed."""
    table = Table(box=None)
    table.add_column("name")
    table.add_row(SENDABLE)
    said.console(width=500).print(table)
    said.console(width=500).print(SENDABLE, soft_wrap=True)
    out = capsys.readouterr().out
    assert out.count("[/red][bold]:boom:") == 2 and not RAW.search(out)
    assert "\\x1b]0;owned\\x07" in out and "\\x1b[2J" in out and "\\r" in out and "\\u202e" in out


def test_log_lines_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of ours and of libraries, with an exception: one line each, the trace indented."""
    log_to_stderr(verbose=True, quiet=False)
    logging.getLogger("batchrank.test").warning("it says %s", SENDABLE)
    logging.getLogger("some.library").error("%s", SENDABLE)
    try:
        raise ValueError(SENDABLE)
    except ValueError:
        logging.getLogger("batchrank.test").exception("failed")
    shown = capsys.readouterr().err
    assert not RAW.search(shown) and shown.count("all is well") == 3
    assert all(re.match(r"\d\d:\d\d:\d\d [A-Z]+ |  ", line) for line in shown.splitlines())


async def _refuses(request: web.Request, body: Any) -> web.Response:
    """One query is refused, in words that forge; the rest is ranked."""
    if "bad" in body["query"]:
        return web.json_response({"code": f"E{CLEAR}", "message": SENDABLE}, status=400)
    return web.json_response(scores(body))


async def _fails(request: web.Request, body: Any) -> web.Response:
    return web.json_response({"code": f"E{CLEAR}", "message": SENDABLE}, status=500)


def _job(folder: Path, url: str) -> None:
    candidates = [{"id": f"d{i}{SENDABLE}", "text": f"text {i} {SENDABLE}"} for i in range(4)]
    data: list[Any] = [
        {
            "query_id": f"q{i}{SENDABLE}",
            "query": f"{'bad' if i else 'good'} {SENDABLE}",
            "candidates": candidates,
        }
        for i in range(3)
    ]
    write_jsonl(
        folder / "in.jsonl", [*data, {"query_id": f"e{SENDABLE}", "query": "", "candidates": candidates}]
    )
    job = {
        "input": {"path": "in.jsonl"}, "model": "qwen3-rerank", "tokenizer": "bytes", "output": {"path": "out"},
        "endpoint": {"url": url, "auth": "none"}, "retry": {"attempts": 2, "max_delay": 0.01, "outage": 0.4},
    }  # fmt: skip
    (folder / "job.yaml").write_bytes(orjson.dumps(job))
    (folder / "qrels.txt").write_text("".join(f"q0{CLEAR} 0 d{i}{CLEAR} 1\n" for i in range(4)))


async def _command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(partial(commands.run, *arguments, cwd=folder, environ=os.environ))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _invoke(command: str) -> tuple[int, str, str]:
    """What a command says that needs no process of its own; what it raises is an exit code's message."""
    done = CliRunner().invoke(app, command.split())
    assert done.exception is None or isinstance(done.exception, SystemExit | BatchrankError), done.exception
    return done.exit_code, done.stdout, done.stderr


@ANYIO
@pytest.mark.real_clock
@pytest.mark.parametrize("reply", [_refuses, _fails])
async def test_no_command_lets_anybody_steer_the_terminal(
    tmp_path: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run, check, status, plan, ledger, init, eval and report print escapes; what programs read keeps the data."""
    monkeypatch.chdir(tmp_path)
    async with serving(reply) as server:
        _job(tmp_path, server.url)
        format = "json" if reply is _fails else "text"
        told = [await _command(tmp_path, "run", "job.yaml", "--verbose", "--log-format", format)]
        told.append(await _command(tmp_path, "check", "job.yaml", "--ask"))
    later = ["status out", "plan job.yaml", "ledger job.yaml", "init in.jsonl -o new.yaml", "report out"]
    told += [
        await asyncio.get_running_loop().run_in_executor(None, _invoke, command)
        for command in [*later, "eval out --qrels qrels.txt --per-query"]
    ]
    for code, out, errors in told:
        assert not RAW.search(out + errors), (code, out, errors)
        assert "Traceback" not in errors
    assert "owned" in told[0][2]
    assert format == "text" or all(json.loads(line) for line in told[0][2].splitlines())
    code, out, _ = await asyncio.get_running_loop().run_in_executor(None, _invoke, "status out --json")
    assert code == 0 and not RAW.search(out)
    if reply is _refuses:
        letters = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
        assert {letter["query_id"] for letter in letters} == {
            f"q1{SENDABLE}",
            f"q2{SENDABLE}",
            f"e{SENDABLE}",
        }
        assert any(SENDABLE[:40] in letter["message"] for letter in letters)
        assert not RAW.search((tmp_path / "out" / "report.html").read_text())


@ANYIO
@pytest.mark.real_clock
async def test_the_live_display_stays_ours(tmp_path: Path) -> None:
    """On a terminal, what a failing server says is a text like any other: no title, no clearing, no broken tags."""
    ours, theirs = pty.openpty()
    async with serving(_fails) as server:
        _job(tmp_path, server.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchrank", "run", "job.yaml", "--set", "retry.outage=1.5"),
            cwd=tmp_path, stderr=theirs, stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm", "COLUMNS": "400"},
        )  # fmt: skip
        os.close(theirs)
        shown = await asyncio.get_running_loop().run_in_executor(None, _all_of, ours)
        assert await process.wait() == 75
    assert "queries" in shown and "owned" in shown
    assert TITLE not in shown and CLEAR not in shown and TURNED not in shown and "Traceback" not in shown


def _all_of(terminal: int) -> str:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 2**16)
        except OSError:  # nobody has the other end any more
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)


def test_dead_letters_on_standard_error_are_single_lines(tmp_path: Path) -> None:
    """A run into standard output has no failed.jsonl: its dead letters are log lines, for any handler."""
    write_jsonl(tmp_path / "in.jsonl", [{"query_id": f"e{SENDABLE}", "query": "", "candidates": ["a"]}])
    done = subprocess.run(
        [sys.executable, "-c", _LETTERS],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert "owned" in done.stderr and not RAW.search(done.stderr), done.stderr


_LETTERS = """
import anyio, logging
import batchrank
logging.basicConfig(level=logging.INFO)
job = batchrank.Job(
    model="qwen3-rerank", endpoint={"url": "emulator"}, tokenizer="bytes",
    input={"path": "in.jsonl"}, output={"path": "-", "format": "jsonl"},
)
try:
    anyio.run(batchrank.run, job)
except batchrank.BatchrankError:
    pass
"""


@ANYIO
@pytest.mark.real_clock
async def test_a_terminal_that_goes_away_takes_nothing_along(tmp_path: Path) -> None:
    """The display's terminal is closed in the midst of a run, as by a lost connection: the run is completed."""
    ours, theirs = pty.openpty()
    asked, goes = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request, body: Any) -> web.Response:
        asked.set()
        await goes.wait()
        return web.json_response(scores(body))

    async with serving(waits) as server:
        _job(tmp_path, server.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "batchrank", "run", "job.yaml", "--verbose"),
            cwd=tmp_path, stderr=theirs, stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        await asked.wait()
        os.close(ours)
        goes.set()
        assert await process.wait() == 3  # one query is empty
    assert (tmp_path / "out" / "summary.json").exists()
