"""Accounts that have nothing left, and limits raised since: what a run says, what it costs, how it goes on."""

from pathlib import Path
from typing import Any

import pytest
from jobs import failed, rankings, rows, run
from sick_server import Api, job_for, reply, serving

pytestmark = pytest.mark.anyio
ALL: dict[str, Any] = {"limits": {"documents": 500}, "rate": {"concurrency": 1}}


@pytest.mark.parametrize(
    ("status", "body", "headers", "code", "said"),
    [
        (
            429,
            {"message": "Usage limit reached. It resets at 2030-01-02T03:04:05Z."},
            {},
            75,
            "resets at 2030-",
        ),
        (403, {"message": "Quota will be replenished in 02:15:31."}, {}, 75, "(replenished in 02:15:31)"),
        (429, {"message": "slow down"}, {"Retry-After": "7200"}, 75, "(comes back in 2.0 hours)"),
        (429, {"error": {"code": "1113", "message": "Insufficient balance, please recharge"}}, {}, 1, "bill"),
        (400, {"error": {"message": "Budget has been exceeded! Current cost: 5.1"}}, {}, 1, "bill"),
    ],
    ids=["resets-at", "replenished-in", "retry-after", "balance", "litellm-budget"],
)
async def test_an_account_with_nothing_left_ends_the_run(
    tmp_path: Path, status: int, body: Any, headers: Any, code: int, said: str
) -> None:
    """After a request, a harmless one and few others, with the time it comes back; 75 only where waiting helps."""
    async with serving(Api(lambda q, d, n: reply(status, body, headers=headers))) as api:
        report = await run(job_for(tmp_path, rows(40, 6), api, **ALL))
    assert report.exit_code == code
    assert said in str(report.reason)
    assert len(api.asked) <= 4


@pytest.mark.parametrize(
    "how", [{}, {"only_failed": True}, {"fresh": True}], ids=["plain", "only-failed", "fresh"]
)
async def test_a_document_that_was_too_large_is_asked_again(tmp_path: Path, how: dict[str, bool]) -> None:
    """Its rejection cost nothing and the limit may have been raised since; nothing else is asked again."""
    data = rows(3, 6)
    data[1]["candidates"][2]["text"] = "x" * 500
    most = [300]

    def fate(query: str, documents: list[str], n: int) -> Any:
        return reply(413, {"message": "Payload Too Large"}) if max(map(len, documents)) > most[0] else None

    async with serving(Api(fate)) as api:
        job = job_for(tmp_path, data, api, **ALL)
        assert (await run(job)).exit_code == 3
        assert [letter["query_id"] for letter in failed(job)] == [data[1]["query_id"]]
        sent, most[0] = len(api.asked), 1000
        again = await run(job, **how)
    assert (again.exit_code, failed(job)) == (0, [])
    assert all(entry["score"] is not None for row in rankings(job) for entry in row["ranking"])
    assert len(api.asked) - sent == 1
