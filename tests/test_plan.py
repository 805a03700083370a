"""``plan`` tells beforehand what ``run`` then does."""

from pathlib import Path

import orjson
import pytest
from jobs import make_job, rows, run, write_jsonl

from batchrank.cli.status import show_plan
from batchrank.planning.plan import plan

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["raw", "rrf", "hub"])
async def test_a_plan_foretells_requests_documents_and_tokens(tmp_path: Path, method: str) -> None:
    """Exactly for one-pass methods; for the hub to within the first query's probe and the extra documents' lengths."""
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(20, 34)), merge={"method": method}, tokenizer="qwen"
    )
    bill = plan(job).methods[method]
    totals = (await run(job)).data["totals"]
    probe = 0 if method == "rrf" else 1
    slack = 0.1 if method == "hub" else 0
    assert abs(totals["requests"] - probe - bill.requests) <= slack * bill.requests
    assert abs(totals["sent"] - 10 * probe - bill.documents) <= slack * bill.documents + 2
    assert abs(totals["tokens"] - bill.tokens) <= (slack + 0.02) * bill.tokens


async def test_a_plan_needs_no_key_and_tells_what_would_be_rejected(tmp_path: Path) -> None:
    """Bad records by cause, blank and over-long documents, the largest lists."""
    data = rows(3, 12)
    data[0]["candidates"][0]["text"] = ""
    data[1]["candidates"][0]["text"] = "word " * 5_000
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", [*data, b"{"]), endpoint={"url": None}, tokenizer="qwen"
    )
    found = plan(job)
    assert (found.queries, found.documents, found.blank, found.truncated) == (3, 36, 1, 1)
    assert found.rejected == {"broken-json": 1}
    assert [entry["documents"] for entry in found.largest] == [12, 12, 12]
    assert found.methods["hub"].seconds > 0
    assert orjson.loads(orjson.dumps(found.data()))["currency"] == "CNY"


async def test_what_is_printed_is_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets, of an extra's name or in a query's id, are no markup."""
    row = rows(1, 4)[0] | {"query_id": "[bold]q[/]"}
    show_plan(make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", [row]), tokenizer="bytes"), as_json=False)
    shown = capsys.readouterr().out
    assert "pip install 'batchrank[qwen]'" in shown
    assert "[bold]q[/]" in shown
