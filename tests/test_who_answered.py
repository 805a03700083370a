"""Who answered: each row of the ledger tells its server and the name of its key, and explanations tell both."""

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
import pytest
from against import world
from aiohttp import web
from fleets import Server, fleet, job_at
from jobs import rankings, rows, run, write_jsonl
from sick_server import reply
from test_cli import batchrank
from test_keys import A, B, two_keys
from test_ledger_reuse import about, answer, opened, written
from test_readme import PAGES

from batchrank.data import Rejection
from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.errors import LedgerError
from batchrank.job.config import Job
from batchrank.ledger.glance import Glance
from batchrank.ledger.ledger import Ledger
from batchrank.look.explain import explain
from batchrank.look.explanation import Explanation
from batchrank.look.source import Origin

pytestmark = pytest.mark.anyio
GPU1, GPU2 = ("http://gpu1:8080/rerank", "KEY_A"), ("http://gpu2:8080/rerank", "")


@dataclass
class Signing(Server):
    """A server that signs its answers: by its address, and by the name of the key that it was asked with."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await super().handle(request)
        assert isinstance(response, web.Response) and isinstance(response.body, bytes)
        name = {A: "KEY_A", B: "KEY_B"}.get(request.headers["Authorization"].removeprefix("Bearer "), "key")
        signed = orjson.loads(response.body) | {"id": f"{self.url} {name}"}
        return web.json_response(signed, status=response.status)


async def explained(job: Job, query: str, doc: str) -> Explanation:
    assert job.output is not None
    folder = Path(job.output.path)
    return await anyio.to_thread.run_sync(lambda: explain(folder, query, doc, known=Origin(job)))


def command(folder: Path, *arguments: str) -> Any:
    return batchrank(*arguments, cwd=folder)


def who(job: Job, table: str) -> Counter[Any]:
    """How often which server and key stand in a table of a job's ledger."""
    assert job.ledger_path is not None
    with closing(sqlite3.connect(job.ledger_path)) as db:
        found = f"SELECT url, key_name FROM {table} LEFT JOIN servers ON server = servers.id"
        return Counter(db.execute(found).fetchall())


async def test_each_row_tells_its_server(tmp_path: Path) -> None:
    """Answers, rejections, attempts, and what a killed process had in flight; the next process numbers on."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        one, other = ledger.servers[GPU1], ledger.servers[GPU2]
        assert (one, other, ledger.servers[GPU1]) == (1, 2, 1)
        await ledger.put(b"k", answer(0.5, 0.25), 9, about(5, 1, 2), other)
        await ledger.put(b"r", Rejection(413, "large", ""), 9, about(5, 3), one)
        await ledger.put(b"foreseen", Rejection(413, "large", ""), 0)
        await ledger.put_attempt(b"lost", "ambiguous", Rejection(None, "timeout", ""), 9, 3, other)
        await ledger.sent(b"killed", 9, 3, one)
    async with opened(path, run=2) as ledger:
        assert ledger.servers.by_number == {1: GPU1, 2: GPU2}
        assert ledger.servers["http://gpu3/", "KEY_A"] == 3
        found = await ledger.find([b"k", b"r", b"foreseen"])
        assert [found[key].server for key in (b"k", b"r", b"foreseen")] == [2, 1, None]
        ((recollected,),) = (await ledger.recollect([5], before=2)).values()
        assert recollected.server == 2
    glance = Glance(path)
    tries = await glance.attempts([b"lost", b"killed"])
    assert [(one.key, one.server) for one in tries] == [(b"lost", 2), (b"killed", 1)]
    assert glance.servers.by_number[3] == ("http://gpu3/", "KEY_A")
    glance.close()
    async with opened(path, run=3) as ledger:
        await ledger.forget()
        assert ledger.servers[GPU2] == 1
    Ledger(path).close()


async def test_an_answer_that_gets_another_key_keeps_its_server(tmp_path: Path) -> None:
    """So does a rejection: who answered does not change because batchrank names requests otherwise."""
    async with opened(tmp_path / "ledger.sqlite") as ledger:
        await ledger.put(b"k", answer(0.5), 9, None, ledger.servers[GPU1])
        await ledger.put(b"r", Rejection(413, "large", ""), 9, None, ledger.servers[GPU2])
        ledger.adopt(b"k", b"new", about(5, 1))
        await ledger.adopt(b"r", b"other", about(5, 1))
        found = await ledger.find([b"new", b"other"])
        assert [found[key].server for key in (b"new", b"other")] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE answers SET server = 2",
        "UPDATE answers SET server = NULL",
        "UPDATE rejections SET server = 1",
        "UPDATE attempts SET server = NULL",
        "UPDATE sent SET server = 2",
        "UPDATE servers SET url = 'http://gpu9/'",
    ],
)
async def test_another_server_than_was_written_is_damage(tmp_path: Path, change: str) -> None:
    """Whoever looks for the answers of a server that was wrong must find just those."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as ledger:
        await ledger.put(b"k", answer(0.5), 9, None, ledger.servers[GPU1])
        await ledger.put(b"r", Rejection(413, "large", ""), 9)
        await ledger.put_attempt(b"lost", "ambiguous", Rejection(None, "timeout", ""), 9, 3, 1)
        await ledger.sent(b"s", 9, 3, 1)
    written(path, lambda db: db.execute(change))
    with pytest.raises(LedgerError, match="corrupt"):
        Ledger(path)


async def test_requests_are_told_with_server_and_key(tmp_path: Path) -> None:
    """Three servers, two keys: what an explanation says is what the server signed; no key is in the ledger."""
    one, *_ = servers = Signing(), Signing(), Signing()
    numbers = count()
    one.fate = lambda q, docs, n: reply(500, {"message": "no"}) if next(numbers) in (5, 20) else None
    async with fleet(*servers):
        job = two_keys(tmp_path, *servers, queries=12, limits={"documents": 10}, retry={"max_delay": 0.01})
        assert (await run(job)).exit_code == 0
    failed = {text for _, docs, status in one.asked if status == 500 for text in docs}
    seen, tried = Counter[Any](), 0
    for row in rows(12, 24):
        ids = [each["id"] for each in row["candidates"] if each["text"] in failed]
        told = await explained(job, row["query_id"], (ids or ["d" + row["query_id"][1:] + "-0"])[0])
        for held in told.requests:
            assert held.request_id == f"{held.server} {held.key_name}"
            seen[held.server, held.key_name] += 1
        for text in told.attempts:
            assert text.endswith(f"(by {one.url}, key {text.split()[-1]}") and "KEY_" in text
            tried += 1
    assert len(seen) == 6 and who(job, "answers") == seen
    assert tried and {url for url, _ in who(job, "attempts")} == {one.url}
    data = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("ledger*"))
    assert b"KEY_A" in data and A.encode() not in data and B.encode() not in data


async def test_an_earlier_answer_is_told_with_who_gave_it_then(tmp_path: Path) -> None:
    """The second night asks another server about what is new."""
    first, second = Signing(), Signing()
    data = rows(4, 24)
    async with fleet(first, second):
        write_jsonl(tmp_path / "in.jsonl", data)
        assert (await run(job_at(tmp_path, first))).exit_code == 0
        for row in data:
            row["candidates"][3]["text"] += " edited"
        write_jsonl(tmp_path / "in.jsonl", data)
        job = job_at(tmp_path, second, reuse={"audit": 0})
        assert (await run(job)).exit_code == 0
    for row in rankings(job):
        told = await explained(job, row["query_id"], row["ranking"][0]["doc_id"])
        assert {one.earlier for one in told.requests} == {True, False}
        for one in told.requests:
            assert (one.server, one.key_name) == ((first if one.earlier else second).url, "key")


async def test_the_command_tells_server_and_key_of_a_fleet(tmp_path: Path) -> None:
    """Two emulators, whose addresses hold secrets: as text, as JSON and by the ledger's manual, without those."""
    settings = Settings(tokenizer="bytes", scores="relative", latency=0.01)
    async with Emulator(settings) as one, Emulator(settings) as other, world(tmp_path, queries=6) as w:
        urls = [f"{each.url}/compatible-api/v1/reranks" for each in (one, other)]
        job = w.job(endpoint={"url": None, "urls": [f"{url}?token=sesame-open-1" for url in urls]})
        assert (await w.run(job)).exit_code == 0
        told, asked_of = set[str](), list[dict[str, Any]]()
        for row in rankings(job):
            asked = "explain", "out.yaml", row["query_id"], row["ranking"][0]["doc_id"]
            done = await anyio.to_thread.run_sync(command, tmp_path, *asked)
            data = await anyio.to_thread.run_sync(command, tmp_path, *asked, "--json")
            requests = json.loads(data.stdout)["requests"]
            asked_of += requests
            assert {one["key_name"] for one in requests} == {"key"}
            assert b"sesame" not in done.stdout + data.stdout
            for one in requests:
                told.add(one["server"])
                (line,) = (
                    text
                    for text in done.stdout.decode().splitlines()
                    if f"answered by {one['server']}, key key" in text
                )
                assert f" {one['number']}" in line.partition(":")[0] or line.startswith("all ")
    assert job.ledger_path is not None
    counts, named = (
        statement.replace("http://gpu2:8080/rerank", urls[0])
        for statement in re.findall(
            r"^SELECT .*?;$", PAGES["batchrank/ledger/README.md"], re.DOTALL | re.MULTILINE
        )
    )
    with closing(sqlite3.connect(job.ledger_path)) as db:
        assert Counter({(url, name): n for url, name, n in db.execute(counts)}) == who(job, "answers")
        known = {key: name for key, name, _ in db.execute(named)}
    assert known == {each["key"]: each["request_id"] for each in asked_of if each["server"] == urls[0]}
    assert told == set(urls) == {url for url, _ in who(job, "answers")}
    assert b"sesame" not in b"".join(path.read_bytes() for path in (tmp_path / "out").glob("ledger*"))
