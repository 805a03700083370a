"""A newcomer's commands: init, check, schema, help."""

from functools import partial
from pathlib import Path

import anyio
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jobs import make_job, rows, write_jsonl
from test_cli import batchrank, job_file

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.errors import InputError, JobError


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
def test_init_writes_a_job_that_runs_as_it_is(tmp_path: Path, kind: str) -> None:
    """Without a key it runs on the emulator; the file says what was found."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / ("a.parquet" if kind == "parquet" else "a.jsonl")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows(4, 7)), path)
    else:
        write_jsonl(path, rows(4, 7))
    made = batchrank("init", "data" if kind == "folder" else f"data/{path.name}", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert b"4 queries, 7 candidates each" in made.stdout
    text = (tmp_path / "job.yaml").read_text()
    assert "#   4 queries, 7 candidates each" in text and "url: emulator" in text
    assert batchrank("check", "job.yaml", cwd=tmp_path).returncode == 0
    assert batchrank("run", "job.yaml", cwd=tmp_path).returncode == 0
    assert list(tmp_path.glob("out/*/ranking-00000.parquet"))


def test_init_asks_the_real_api_where_there_is_a_key(tmp_path: Path) -> None:
    """The key stays where it is."""
    write_jsonl(tmp_path / "a.jsonl", rows(1, 3))
    batchrank("init", "a.jsonl", cwd=tmp_path, DASHSCOPE_API_KEY="sk-1234567890")
    text = (tmp_path / "job.yaml").read_text()
    assert "endpoint" not in yaml.safe_load(text)
    assert "sk-1234567890" not in text


@pytest.mark.slow
def test_init_replaces_nothing(tmp_path: Path) -> None:
    """Unless told to; and the job may stand elsewhere, under a name that YAML would misread."""
    write_jsonl(tmp_path / "a: #1.jsonl", rows(1, 3))
    assert batchrank("init", "a: #1.jsonl", "-o", "jobs/yes.yaml", cwd=tmp_path).returncode == 0
    assert yaml.safe_load((tmp_path / "jobs" / "yes.yaml").read_text())["input"] == {"path": "../a: #1.jsonl"}
    again = batchrank("init", "a: #1.jsonl", "-o", "jobs/yes.yaml", cwd=tmp_path)
    assert again.returncode == JobError.exit_code and b"--force" in again.stderr
    assert batchrank("init", "a: #1.jsonl", "-o", "jobs/yes.yaml", "--force", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("record", "said"),
    [({"a": 1}, b"none of"), ({"query_id": "q", "query": "", "candidates": ["a"]}, b"line 1")],
)
def test_init_tells_what_it_could_not_make_out(
    tmp_path: Path, record: dict[str, object], said: bytes
) -> None:
    """The job is written all the same, and its check ends as the look did."""
    write_jsonl(tmp_path / "a.jsonl", [record])
    done = batchrank("init", "a.jsonl", cwd=tmp_path)
    assert done.returncode == InputError.exit_code and said in done.stdout
    assert batchrank("check", "job.yaml", cwd=tmp_path).returncode == InputError.exit_code


def findings(tmp_path: Path, *arguments: str, key: str = "") -> tuple[int, dict[str, dict[str, str]]]:
    done = batchrank("check", "job.yaml", "--json", *arguments, cwd=tmp_path, DASHSCOPE_API_KEY=key)
    found = orjson.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    return done.returncode, {finding["name"]: finding for finding in found["findings"]}


def test_check_names_all_that_would_fail(tmp_path: Path) -> None:
    """The key, an endpoint nobody listens at, and a record: each with what to do."""
    write_jsonl(tmp_path / "in.jsonl", [*rows(2, 3), {"query_id": "x", "query": " ", "candidates": ["a"]}])
    job_file(tmp_path, endpoint={"url": "http://127.0.0.1:9/rerank"})
    code, found = findings(tmp_path)
    assert code == 2
    assert "export DASHSCOPE_API_KEY" in found["key"]["text"]
    assert found["endpoint"]["state"] == "fault" and "127.0.0.1:9" in found["endpoint"]["text"]
    assert "empty-query" in found["input"]["text"] and "line 3" in found["input"]["text"]
    assert not (tmp_path / "out").exists()


def test_check_finds_a_used_up_place(tmp_path: Path) -> None:
    """An output that is a file, and an input that is not there."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    job_file(tmp_path, output={"path": "in.jsonl/out"}, input={"path": "none.jsonl"})
    code, found = findings(tmp_path)
    assert code == 4  # which a run finds first
    assert found["output"]["state"] == "fault" and found["input"]["state"] == "fault"


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_check_asks_without_spending(tmp_path: Path) -> None:
    """One request without documents tells whether the key is accepted; none is billed."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    async with Emulator(Settings(keys=("right",))) as emulator:
        job_file(tmp_path, endpoint={"url": f"{emulator.url}/compatible-api/v1/reranks"})
        for key, code in (("right", 0), ("wrong", 1)):
            found = await anyio.to_thread.run_sync(partial(findings, tmp_path, "--ask", key=key))
            assert found[0] == code, found
        assert emulator.counts.tokens == 0


@pytest.mark.slow
def test_a_misspelt_command_or_option_is_answered_with_the_right_one(tmp_path: Path) -> None:
    """And completion can be installed."""
    assert b"'run'" in batchrank("rnu", cwd=tmp_path).stderr
    assert b"--quiet" in batchrank("run", "x", "--quite", cwd=tmp_path).stderr
    assert b"--install-completion" in batchrank("--help", cwd=tmp_path).stdout


def test_schema_is_what_editors_need(tmp_path: Path) -> None:
    """JSON, with the job's keys."""
    assert "merge" in orjson.loads(batchrank("schema", cwd=tmp_path).stdout)["properties"]


def test_a_glob_that_the_shell_has_replaced_is_told(tmp_path: Path) -> None:
    """What came of it are more arguments than the command takes."""
    for command in (("init", "a.jsonl", "b.jsonl"), ("run", "job.yaml", "--set", "input.path=a", "b.jsonl")):
        ended = batchrank(*command, cwd=tmp_path)
        assert ended.returncode == 2
        assert b"(b.jsonl); " + command[0].encode() + b" takes one" in ended.stderr
        assert b"write '*.jsonl'" in ended.stderr
    assert b"takes none" in batchrank("schema", "x", cwd=tmp_path).stderr


def test_an_output_that_is_a_file_is_told(tmp_path: Path) -> None:
    """By check and run, with the key to change."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 4))
    make_job(tmp_path, tmp_path / "in.jsonl")
    (tmp_path / "out").write_text("")
    for command in ("check", "run"):
        ended = batchrank(command, "out.yaml", cwd=tmp_path)
        assert ended.returncode == 1
        assert (
            b"out is a file, and a folder is needed there; choose another output.path"
            in ended.stdout + ended.stderr
        )
