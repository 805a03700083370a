"""A command ends cleanly at any moment and in any surroundings: an exit code and a message, never a trace."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import commands
import orjson
import pytest
from jobs import rows, write_jsonl

from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.load import load_job

ROOT = str(Path(__file__).parent.parent)
REAL = [pytest.mark.anyio, pytest.mark.real_clock]
MINIMAL = "model: qwen3-rerank\ninput: {path: in.jsonl}\noutput: {path: out}\n"


def _files(folder: Path, **sections: Any) -> None:
    write_jsonl(folder / "in.jsonl", rows(3, 8))
    job = {
        "input": {"path": "in.jsonl"}, "model": "qwen3-rerank", "tokenizer": "bytes", "endpoint": {"url": "emulator"},
        "output": {"path": "out", "format": "jsonl"}, **sections,
    }  # fmt: skip
    (folder / "job.yaml").write_bytes(orjson.dumps(job))


def _environ(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ROOT, **changes}


async def _start(folder: Path, *arguments: str, python: Sequence[str] = ()) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *python, "-m", "batchrank", *arguments),
        cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, env=_environ(),
    )  # fmt: skip


async def _said(process: asyncio.subprocess.Process, text: str) -> str:
    """What a process says on stderr, up to a text."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    return said


class TestInterrupted:
    """Ctrl-C, whenever it comes."""

    pytestmark = REAL

    @pytest.mark.parametrize(
        "module", ["pathlib", "typer.core", "batchrank.cli.app", "pydantic_core", "numpy", "pyarrow.lib"]
    )
    async def test_while_it_is_imported(self, tmp_path: Path, module: str) -> None:
        """The start goes into imports, be it before or in the command: the process is gone at once."""
        _files(tmp_path)
        process = await _start(tmp_path, "run", "job.yaml", python=["-X", "importtime"])
        await _said(process, module)
        process.send_signal(signal.SIGINT)
        out, errors = await process.communicate()
        assert (process.returncode, out) == (130, b"")
        assert b"Traceback" not in errors and b"Exception ignored" not in errors
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("command", ["run", "plan", "check"])
    async def test_while_the_job_is_read(self, tmp_path: Path, command: str) -> None:
        """A job file on a pipe that nobody writes to."""
        os.mkfifo(tmp_path / "job.yaml")
        process = await _start(tmp_path, command, "job.yaml")
        writer = await asyncio.to_thread(os.open, tmp_path / "job.yaml", os.O_WRONLY)  # there is a reader now
        process.send_signal(signal.SIGINT)
        out, errors = await process.communicate()
        os.close(writer)
        assert (process.returncode, out, errors) == (130, b"", b"")

    async def test_when_all_is_done(self, tmp_path: Path) -> None:
        """The last words are said: complete or interrupted, without a trace."""
        _files(tmp_path)
        for _ in range(3):
            process = await _start(tmp_path, "run", "job.yaml")
            await _said(process, "output: ")
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
            assert (
                process.returncode in (0, 130) and b"Traceback" not in errors and b"Exception" not in errors
            )


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """nohup batchrank run: the terminal goes, the run goes on."""
    _files(tmp_path, input={"path": "-"})
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", "trap '' HUP; exec \"$0\" -m batchrank run job.yaml", sys.executable),
        cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, env=_environ(),
    )  # fmt: skip
    while not (tmp_path / "out" / "status.json").exists():  # noqa: ASYNC110 another process
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    _, errors = await process.communicate((tmp_path / "in.jsonl").read_bytes())
    assert process.returncode == 0, errors


def _complaint(folder: Path, data: bytes | str, name: str = "job.yaml") -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(JobError) as caught:
        load_job(path, environ={})
    assert str(path) in str(caught.value)
    return str(caught.value)


_BOMB = "x0: &x0 [a, b]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}, *x{i - 1}]\n" for i in range(1, 40))
_MERGES = "x0: &x0 {a: 1}\n" + "".join(f"x{i}: &x{i} {{<<: [*x{i - 1}, *x{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 100_000, "nested"),
        ("a: " + "[" * 60 + "]" * 60, "line 4: is nested more than 50 levels"),
        ("".join(" " * i + "a:\n" for i in range(1000)), "nested"),
        ("a:\n" + "- " * 5000 + "b", "nested"),
        (_BOMB, "values, those that aliases repeat included"),
        (_MERGES, "values, those that aliases repeat included"),
        ("a: &a [*a]\n", "line 4: an alias stands within the value that it repeats"),
        ("a: &a {b: *a}\n", "line 4: an alias stands within the value that it repeats"),
        ("model: other\n", "line 4: model: the key stands here a second time"),
        ("endpoint: {body: {a: 1, a: 2}}\n", "endpoint.body.a: the key stands here a second time"),
        ("endpoint: {body: {list: [{a: 1, a: 2}]}}\n", "the key stands here a second time"),
        ("rate:\n\trpm: 6\n", "line 5, column 1: while scanning"),
        ("rate:\n\trpm: 6\n", "indent with spaces, not with tabs"),
        ("rate: {rpm: " + "9" * 10_000 + "}\n", "digits"),
        ("a: \x00\n", "the character U+0000 can't stand there"),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("? [a, b]\n: c\n", "unhashable"),
        ("#" * 2**20, "is larger than 1,048,576 bytes"),
    ],
)
def test_job_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    """Depth, aliases, keys that come twice, tabs, numbers, size: a message that names the file, in no time."""
    assert said in _complaint(tmp_path, MINIMAL + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested"),
        ("a = " + "[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("model = 'a'\nmodel = 'b'", "Cannot overwrite a value"),
        ("a = " + "9" * 10_000, "digits"),
        (".".join("a" * 1 for _ in range(5000)) + " = 1", "nested"),
    ],
)
def test_toml_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    """The same for TOML."""
    assert said in _complaint(tmp_path, text, "job.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["job.yaml", "job.toml"])
def test_job_files_of_windows_tools_are_read(tmp_path: Path, encoding: str, name: str) -> None:
    """A byte order mark tells how the file is written; PowerShell writes UTF-16."""
    toml = 'model = "qwen3-rerank"\ninput.path = "é.jsonl"\noutput.path = "out"\n'
    text = toml if name.endswith("toml") else MINIMAL.replace("in.jsonl", "é.jsonl")
    (tmp_path / name).write_bytes(text.encode(encoding))
    job = load_job(tmp_path / name, environ={})
    assert job.input is not None and job.input.path == (str(tmp_path / "é.jsonl"),)
    assert "save it as UTF-8" in _complaint(tmp_path, text.encode("latin-1"), name)


def test_overrides_are_bounded_as_files_are(tmp_path: Path) -> None:
    """--set, the environment, and a job made in Python."""
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL)
    deep = "[" * 5000
    with pytest.raises(JobError, match="--set: a value is nested"):
        load_job(path, overrides=[f"endpoint.body={deep}"], environ={})
    with pytest.raises(JobError, match="environment: a value is nested"):
        load_job(path, environ={"BATCHRANK_INPUT": deep})
    body: Any = 1
    for _ in range(400):
        body = [body]
    with pytest.raises(ValueError, match=r"body"):
        Job(model="qwen3-rerank", endpoint={"body": {"a": body}})  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/out", "~/out"])
def test_a_home_that_is_not_there_is_no_error_of_ours(tmp_path: Path, path: str) -> None:
    """Neither without HOME nor with a user who doesn't exist."""
    (tmp_path / "job.yaml").write_text(MINIMAL.replace("{path: out}", f"{{path: '{path}'}}"))
    assert load_job(tmp_path / "job.yaml", environ={}).output is not None


def _shell(folder: Path, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = _environ(BATCHRANK=f"{sys.executable} -m batchrank", **environ)
    variables.pop("PYTHONUNBUFFERED", None)  # what is held back until the end is part of the matter
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "command", ["models", "schema", "plan job.yaml --json", "run job.yaml --set output.path=-", "--help"]
)
def test_nobody_reads_the_output(tmp_path: Path, command: str) -> None:
    """batchrank ... | head, or | true: nothing is said about it."""
    _files(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as unread:
        done = commands.run(*command.split(), cwd=tmp_path, environ=_environ(), stdout=unread)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    _shell(tmp_path, f"$BATCHRANK {command} >&-")


@pytest.mark.parametrize("command", ["models", "schema", "plan job.yaml --json"])
def test_a_full_disk_below_standard_output_is_told_in_a_line(tmp_path: Path, command: str) -> None:
    """It is no fault of ours, so there is no trace; the command has failed."""
    _files(tmp_path)
    done = _shell(tmp_path, f"$BATCHRANK {command} > /dev/full; echo $? > code")
    assert (tmp_path / "code").read_text() == "1\n"
    assert done.stderr.startswith("batchrank: standard output can't be written: No space left on device"), (
        done.stderr
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    """The run is complete all the same, and no file of its own takes a stream's place."""
    _files(tmp_path)
    done = _shell(tmp_path, f"$BATCHRANK run job.yaml --verbose {closed}; echo $? > code")
    assert (tmp_path / "code").read_text() == "0\n", done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"ranking-00000.jsonl", "ledger.sqlite", "summary.json"} <= names
    assert (tmp_path / "out" / "ledger.sqlite").read_bytes().startswith(b"SQLite format 3")


_OF_THE_WORLD: list[dict[str, Any]] = [
    {"query_id": "語é", "query": "語", "candidates": [{"id": "é", "text": "語"}]},
    {"query_id": "leer", "query": "é", "candidates": []},
]


def test_no_home_is_needed(tmp_path: Path) -> None:
    """A scheduler may set none."""
    _files(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", _OF_THE_WORLD)
    environ = _environ()
    environ.pop("HOME", None)
    assert commands.run("run", "job.yaml", "--verbose", cwd=tmp_path, environ=environ).returncode == 3
    assert b"1 would fail" in commands.run("check", "job.yaml", cwd=tmp_path, environ=environ).stdout
    found = commands.run("plan", "job.yaml", "--json", cwd=tmp_path, environ=environ)
    assert orjson.loads(found.stdout)["largest"][0]["query_id"] == "語é"


@pytest.mark.parametrize(
    "environ", [{"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_any_environment_will_do(tmp_path: Path, environ: dict[str, str]) -> None:
    """Where streams carry ASCII only: texts of the world are escaped, JSON stays JSON."""
    _files(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", _OF_THE_WORLD)
    assert _shell(tmp_path, "$BATCHRANK run job.yaml --verbose", **environ).returncode == 3
    assert "1 would fail" in _shell(tmp_path, "$BATCHRANK check job.yaml", **environ).stdout
    found = _shell(tmp_path, "$BATCHRANK plan job.yaml --json", **environ)
    assert orjson.loads(found.stdout)["largest"][0]["query_id"] == "語é"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_the_current_folder_need_not_be_writable(tmp_path: Path) -> None:
    """Nor there at all: everything is relative to the job file."""
    _files(tmp_path)
    job = tmp_path / "job.yaml"
    assert commands.run("run", str(job), cwd=Path("/proc"), environ=_environ()).returncode == 0
    gone = _shell(
        tmp_path, f"mkdir gone; cd gone; rmdir ../gone; $BATCHRANK run {job}; $BATCHRANK plan other.yaml"
    )
    assert "no such job file" in gone.stderr
    done = commands.run("init", str(tmp_path / "in.jsonl"), cwd=Path("/proc"), environ=_environ())
    assert done.returncode == 2 and b"can't be written" in done.stderr
