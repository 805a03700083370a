"""``batchrank rerank``: one list from a file or a pipe, by the library's ``rerank``, with nothing left behind."""

import asyncio
import gzip
import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import text
from servers import ranks, serving
from test_cli import batchrank

from batchrank import Endpoint, Job, Limits, Merge, Rate, rerank_sync
from batchrank.errors import ExitCode

QUERY = "copy a directory tree"
TEXTS = [text(seed) for seed in range(25)]
EMULATED = ("--emulated", "--set", "tokenizer=bytes", "--set", "rate.rpm=1000000")


def ranked(out: bytes) -> list[str]:
    return [line.split("\t")[-1] for line in out.decode().splitlines()]


@pytest.mark.parametrize(
    "data",
    [
        "\n".join(TEXTS),
        "\ufeff\n\n" + "\r\n\r\n".join(TEXTS) + "\r\n",
        json.dumps(TEXTS),
        json.dumps(TEXTS, indent=2),
        "\n".join(map(json.dumps, TEXTS)),
        "\n".join(json.dumps({"id": f"d{i}", "text": t}) for i, t in enumerate(TEXTS)),
        "\n".join(json.dumps({"id": f"d{i}", "text": t}, indent=1) for i, t in enumerate(TEXTS)),
        json.dumps([{"text": t} for t in TEXTS]),
    ],
    ids=["lines", "windows", "array", "indented", "strings", "objects", "printed", "without-ids"],
)
def test_every_form_of_a_list_gives_the_library_s_ranking(tmp_path: Path, data: str) -> None:
    """From a file and from a pipe, merged from ten requests; nothing is on disk afterwards."""
    (tmp_path / "docs").write_bytes(data.encode())
    job = Job(
        model="qwen3-rerank", endpoint=Endpoint(url="emulator"), limits=Limits(documents=10), merge=Merge(),
        tokenizer="bytes", rate=Rate(rpm=10**6),
    )  # fmt: skip
    (expected,) = rerank_sync([{"query_id": "q", "query": QUERY, "candidates": TEXTS}], job)
    best = [TEXTS[int(doc_id)] for doc_id in expected.doc_ids]
    many = (*EMULATED, "--set", "limits.documents=10")
    file = batchrank("rerank", QUERY, "docs", *many, cwd=tmp_path)
    pipe = batchrank("rerank", QUERY, *many, cwd=tmp_path, stdin=data.encode())
    assert file.returncode == pipe.returncode == 0, file.stderr
    assert ranked(file.stdout) == best and pipe.stdout == file.stdout
    assert b"25 documents, 10 requests" in file.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


def test_json_tells_all_of_it(tmp_path: Path) -> None:
    """The first N with ids, scores and whole texts, and what they took; a blank document has no score."""
    documents = [
        {"id": "a", "text": "copy\ta\ntree"},
        {"id": "b", "text": " "},
        {"id": "c", "text": "socket"},
    ]
    data = json.dumps(documents).encode()
    done = batchrank("rerank", QUERY, "--json", *EMULATED, cwd=tmp_path, stdin=data)
    found = json.loads(done.stdout)
    assert [(one["rank"], one["doc_id"]) for one in found["ranking"]] == [(1, "a"), (2, "c"), (3, "b")]
    assert found["ranking"][0]["text"] == "copy\ta\ntree" and found["ranking"][2]["score"] is None
    assert found["documents"] == 3 and found["requests"] == 1 and found["tokens"] > 0
    top = batchrank("rerank", QUERY, "--json", "--top", "1", "--quiet", *EMULATED, cwd=tmp_path, stdin=data)
    assert json.loads(top.stdout)["ranking"] == found["ranking"][:1] and top.stderr == b""
    lines = batchrank("rerank", QUERY, *EMULATED, cwd=tmp_path, stdin=data).stdout.decode().splitlines()
    assert lines[0].split("\t")[2:] == ["a", "copy a tree"]


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", 4, "there is no document"),
        (b'{"text": "a"}\n{"text": "b\n', 4, "line 2"),
        (b'["a", "b"', 4, "standard input, line"),
        (b'{"text": "a"}\n{"text": 5}\n', 4, "candidate 2 of the list"),
        (b"a\n\xff\n", 4, "line 2: this is no UTF-8"),
        (b'{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', 4, "'a'"),
        (b" \xe2\x80\x8b \n\xe2\x80\x8b", 4, "are empty"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, data: bytes, code: int, said: str) -> None:
    """What begins as JSON is never ranked as text; the message says where, and nothing is on stdout."""
    done = batchrank("rerank", QUERY, *EMULATED, cwd=tmp_path, stdin=data)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert said in done.stderr.decode() and b"Traceback" not in done.stderr


def test_files_of_others(tmp_path: Path) -> None:
    """A compressed list is read; a table is sent to where tables are ranked; prose with brackets stays prose."""
    (tmp_path / "docs.txt.gz").write_bytes(gzip.compress(b"[1] copy a tree\n{see} socket\n"))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "docs.parquet")
    done = batchrank("rerank", QUERY, "docs.txt.gz", *EMULATED, cwd=tmp_path)
    assert ranked(done.stdout) == ["[1] copy a tree", "{see} socket"]
    table = batchrank("rerank", QUERY, "docs.parquet", *EMULATED, cwd=tmp_path)
    assert table.returncode == ExitCode.INPUT and b"batchrank init" in table.stderr


@pytest.mark.anyio
@pytest.mark.real_clock
async def test_a_server_is_asked_as_the_options_say(tmp_path: Path) -> None:
    """At its address, for its model; a ledger that is named is paid once; the key's absence says how to try."""
    (tmp_path / "docs.txt").write_text("long document of a few words\nshort\n")
    async with serving(ranks) as server:
        command = partial(batchrank, "rerank", QUERY, "docs.txt", "--url", server.url, cwd=tmp_path)
        options: tuple[Any, ...] = ("--model", "jina-reranker-v3", "--set", "endpoint.auth=none")
        for _ in range(2):
            done = await asyncio.to_thread(command, *options, "--set", "ledger=paid.sqlite")
            assert done.returncode == 0, done.stderr
            assert ranked(done.stdout) == ["long document of a few words", "short"]
        assert [body["model"] for body in server.bodies] == ["jina-reranker-v3"]
    keyless = await asyncio.to_thread(command)
    assert keyless.returncode == ExitCode.USAGE and b"--emulated" in keyless.stderr
    for wrong in (("--emulated",), ("--set", "output.path=out"), ("--set", "rate.rmp=1")):
        assert (await asyncio.to_thread(command, *wrong)).returncode == ExitCode.USAGE


def test_a_job_s_environment_brings_no_ledger(tmp_path: Path) -> None:
    """Variables that set a job's input and output are not about this list."""
    (tmp_path / "docs.txt").write_text("a\nb\n")
    done = batchrank(
        *("rerank", QUERY, "docs.txt", *EMULATED), cwd=tmp_path,
        BATCHRANK_OUTPUT__PATH="out", BATCHRANK_INPUT__PATH="none.jsonl",
    )  # fmt: skip
    assert done.returncode == 0 and not (tmp_path / "out").exists()


def test_a_terminal_shows_each_document_on_one_line(tmp_path: Path) -> None:
    """Cut to the width with an ellipsis, so that ranks stand below one another."""
    (tmp_path / "docs.txt").write_text("\n".join(f"{t} " * 5 for t in TEXTS))
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "batchrank", "rerank", QUERY, "docs.txt", *EMULATED],
        cwd=tmp_path, stdout=follower, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm", "COLUMNS": "60"},
    )  # fmt: skip
    os.close(follower)
    assert done.returncode == 0, done.stderr
    lines = os.read(leader, 2**16).decode().splitlines()
    os.close(leader)
    assert len(lines) == 25 and all(len(line) <= 60 and "…" in line for line in lines)
