"""``batchrank check --ask`` against small servers: a wrong model, address or wire is told in the server's words."""

from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
import pytest
from aiohttp import web
from emulator_client import serving
from jobs import make_job, rows, write_jsonl
from test_send_http import server

from batchrank.emulator.endpoints import path
from batchrank.planning.check import Finding, check_job
from batchrank.wire import CODECS

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


async def asked(folder: Path, url: str, wire: str) -> Finding:
    (folder / "key").write_text("sk-canary")
    endpoint = {"url": url, "wire": wire, "api_key_file": str(folder / "key")}
    job = make_job(folder, write_jsonl(folder / "in.jsonl", rows(1, 2)), endpoint=endpoint)
    found = await anyio.to_thread.run_sync(lambda: list(check_job(job, limit=1, ask=True)))
    return next(finding for finding in found if finding.name == "endpoint")


@pytest.mark.parametrize("wire", sorted(CODECS))
async def test_a_right_key_is_accepted_on_every_wire(tmp_path: Path, wire: str) -> None:
    """Each API's complaint about a request without documents is no fault; a wrong key is one."""
    async with serving(keys=("sk-canary",)) as client:
        found = await asked(tmp_path, client.emulator.url + path(wire), wire)
    assert (found.state, found.exit_code) == ("ok", 0), found
    async with serving(keys=("other",)) as client:
        found = await asked(tmp_path, client.emulator.url + path(wire), wire)
    assert (found.state, found.exit_code) == ("fault", 1) and "Correct the key" in found.text


@pytest.mark.parametrize(
    ("wire", "status", "body", "state", "exit_code", "words"),
    [
        ("cohere", 400, {"message": "list of documents must not be empty"}, "ok", 0, "the key is accepted"),
        ("cohere", 422, {"detail": [{"msg": "List should have at least 1 item"}]}, "ok", 0, "accepted"),
        ("jina", 200, {"results": []}, "ok", 0, "the key is accepted"),
        ("cohere", 429, {"message": "Too many requests"}, "note", 0, "at its limit now"),
        (
            "siliconflow",
            400,
            {"code": 20012, "message": "Model does not exist."},
            "fault",
            1,
            "Model does not",
        ),
        ("cohere", 400, {"error": {"message": "Invalid model name passed in"}}, "fault", 1, "Invalid model"),
        (
            "cohere",
            200,
            {"error": "Unexpected endpoint or method."},
            "fault",
            1,
            "Correct model or endpoint.url",
        ),
        ("cohere", 200, {"code": 1, "message": "no such route", "data": []}, "fault", 1, "no such route"),
        ("cohere", 422, {"error": "missing field `texts`"}, "fault", 1, "missing field `texts`"),  # TEI
        ("cohere", 200, "<h1>Welcome to nginx</h1>", "fault", 1, "Welcome to nginx"),
        ("cohere", 404, {"detail": "Not Found"}, "fault", 1, "Correct model or endpoint.url"),
        ("jina", 402, {"detail": "Account balance not enough"}, "fault", 1, "Settle the account's bill"),
        (
            "cohere",
            400,
            {"error": {"message": "Budget has been exceeded!"}},
            "fault",
            1,
            "Settle the account",
        ),
        ("cohere", 403, {"message": "Quota will be replenished in 02:15:31."}, "fault", 75, "in 02:15:31"),
        ("cohere", 503, {"message": "starting up"}, "fault", 75, "try again later"),
    ],
)
async def test_what_would_stop_a_run_is_told_before_it(
    tmp_path: Path, wire: str, status: int, body: Any, state: str, exit_code: int, words: str
) -> None:
    """Nothing that would stop a run passes for an accepted key, and the server's words are shown."""

    async def answer(request: web.Request) -> web.Response:
        data = body.encode() if isinstance(body, str) else orjson.dumps(body)
        return web.Response(status=status, body=data)

    async with server(answer) as url:
        found = await asked(tmp_path, url, wire)
    assert (found.state, found.exit_code) == (state, exit_code), found
    assert words in found.text
