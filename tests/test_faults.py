"""Every fault the API may show: what becomes of the run, and that nothing received is paid for twice."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from against import World, same, world
from jobs import outputs, rankings, rows

from batchrank.emulator.settings import FAULTS
from batchrank.errors import RunStoppedError
from batchrank.pipeline.report import Report

pytestmark = pytest.mark.anyio

STOPS = {
    "400-arrearage": "Settle the account's bill",
    "403-unpurchased": "Settle the account's bill",
    "403-free-tier": "Settle the account's bill",
    "429-prepaid-overdue": "Settle the account's bill",
    "429-postpaid-overdue": "Settle the account's bill",
    "429-not-purchased": "Settle the account's bill",
    "429-free-quota": "Settle the account's bill",
}
DENIES = {
    "401": "Correct the key that endpoint.api_key_env or endpoint.api_key_file names",
    "403": "Have the vendor give this key access",
    "403-model": "Have the vendor give this key access",
    "403-workspace": "Have the vendor give this key access",
    "404-model": "Correct model or endpoint.url",
    "404-workspace": "Correct model or endpoint.url",
    "307": "never followed; set endpoint.url",
}
SLOWS = {name for name in FAULTS if name.startswith("429")} - set(STOPS)
SPLITS = {"400-too-large", "413"}
REFUSALS = {"400-inspection", "415-download", "415-format"}
REJECTS = {"400-parameter"}
GOOD = {"usage-missing", "usage-negative", "usage-string", "stale-keep-alive"}
UNKNOWN_FATE = {
    "reset-before-headers", "answer-dropped", "close-before-headers", "silence", "reset-mid-body", "close-mid-body",
    "silence-after-headers", "slow-loris",
}  # fmt: skip
USELESS = {name for name in FAULTS if name.startswith(("score-", "index-", "results-", "json-"))} | {
    "html-200",
    "gzip-bomb",
    "500+html+in-200",
}
PASSES = (
    set(FAULTS)
    - set(STOPS)
    - SLOWS
    - set(DENIES)
    - SPLITS
    - REFUSALS
    - REJECTS
    - GOOD
    - UNKNOWN_FATE
    - USELESS
)

SWITCHES: dict[str, Any] = {"silence": 100.0, "drip": 1.0, "huge_bytes": 70 * 2**20}
AT = 3
_right: list[dict[str, bytes]] = []


async def after(tmp_path: Path, fault: str, **more: Any) -> tuple[World, Report, bool]:
    """A small run whose third request meets the fault; whether its output is that of a run without faults."""
    if not _right:
        (tmp_path / "right").mkdir()
        async with world(tmp_path / "right", queries=2, candidates=14) as w:
            assert (await w.run(w.job())).exit_code == 0
            _right.append(outputs(w.job()))
    async with world(tmp_path, queries=2, candidates=14, script={AT: fault}, **SWITCHES, **more) as w:
        report = await w.run(w.job())
        return w, report, bool(_right[0]) and outputs(w.job()) == _right[0]


def test_every_fault_is_sorted() -> None:
    """A fault that the emulator learns must be given its place here."""
    known = {
        "400-algo", "408", "500", "500-algo", "500-timeout", "500-system", "500-service", "502", "503", "504",
        "500+in-200", "500+nested", "502+html", "503+html", "503+after-seconds", "503+after-date", "503+after-absurd",
        "503+after-garbage",
    }  # fmt: skip
    assert known == PASSES


@pytest.mark.parametrize("fault", sorted(PASSES))
async def test_what_may_pass_is_retried(tmp_path: Path, fault: str) -> None:
    """One retry and the right ranking; counted as possibly billed where a server may have done the work."""
    w, report, right = await after(tmp_path, fault)
    assert (report.exit_code, right) == (0, True)
    assert sum(report.data["process"]["retries"].values()) == 1
    assert w.paid_twice == 0
    possibly = report.data["spend"]["possibly_billed_tokens"]
    assert report.data["spend"]["tokens"] - possibly == w.emulator.counts.tokens
    assert (possibly == 0) == (fault.startswith("503") or fault == "400-algo")


@pytest.mark.parametrize("fault", sorted(SLOWS))
async def test_a_429_slows_down_and_never_costs_an_attempt(tmp_path: Path, fault: str) -> None:
    """Each kind slows what it is about; with a single attempt allowed the query is ranked all the same."""
    w, report, right = await after(tmp_path, fault, sections={"retry": {"attempts": 1}})
    assert (report.exit_code, right) == (0, True)
    kind = (
        "growth" if "growth" in fault else "tokens" if "tokens" in fault or "quota" in fault else "requests"
    )
    assert report.data["process"]["throttled"] == {"requests": 0, "tokens": 0, "growth": 0} | {kind: 1}
    assert w.paid_twice == 0


@pytest.mark.parametrize("fault", sorted(STOPS))
async def test_what_can_never_pass_stops_the_run(tmp_path: Path, fault: str) -> None:
    """Exit code 1 at once, with what to do; requests in flight are kept, and the run goes on when it is mended."""
    async with world(tmp_path, queries=2, candidates=14, script={AT: fault}, **SWITCHES) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 1 and isinstance(report.reason, RunStoppedError)
        assert STOPS[fault] in str(report.reason)
        assert report.data["process"]["requests"] <= 16
        assert (await w.run(job)).exit_code == 0
        assert w.paid_twice == 0


@pytest.mark.parametrize("fault", sorted(DENIES))
async def test_a_key_address_or_model_that_is_wrong_from_the_start_stops_the_run_at_once(
    tmp_path: Path, fault: str
) -> None:
    """Nothing was ever accepted, not even something harmless: it ends with the query's name and what to do."""
    async with world(tmp_path, queries=9, script=dict.fromkeys(range(1, 99), fault)) as w:
        report = await w.run(w.job())
        assert report.exit_code == 1 and isinstance(report.reason, RunStoppedError)
        assert DENIES[fault] in str(report.reason)
        assert re.search(r"query 'q\d' \(.*in\.jsonl, line \d\), \d+ documents, 'd", str(report.reason))
        assert w.emulator.requests <= 7


@pytest.mark.parametrize("fault", sorted(DENIES))
async def test_a_denial_for_good_stops_the_run_a_short_one_does_not(tmp_path: Path, fault: str) -> None:
    """Once requests were accepted, a probe tells: a revoked key ends the run, a rolling deploy costs a retry."""
    script = dict.fromkeys(range(AT, 999), fault)
    async with world(tmp_path, queries=2, candidates=14, script=script) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 1 and isinstance(report.reason, RunStoppedError)
        assert "refuses what it took before: query 'q" in str(report.reason)
        assert DENIES[fault] in str(report.reason)
        assert w.emulator.requests < 30
        script.clear()
        assert (await w.run(job)).exit_code == 0
        assert w.paid_twice == 0
    (tmp_path / "short").mkdir()
    _, report, right = await after(tmp_path / "short", fault)
    assert (report.exit_code, right) == (0, True)
    assert sum(report.data["process"]["retries"].values()) == 1


@pytest.mark.parametrize("fault", sorted(SPLITS))
async def test_a_request_too_large_is_halved(tmp_path: Path, fault: str) -> None:
    """Its halves are asked instead; every document has a score, and a rerun asks nothing."""
    async with world(tmp_path, queries=3, candidates=24, script={AT: fault}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 0 and report.data["process"]["splits"] == 1
        assert all(e["score"] is not None for row in rankings(job) for e in row["ranking"])
        paid, before = w.emulator.counts.tokens, outputs(job)
        await w.run(job)
        assert (w.emulator.counts.tokens, outputs(job)) == (paid, before)


@pytest.mark.parametrize("fault", sorted(REFUSALS))
async def test_one_bad_document_is_found_and_ranked_last(tmp_path: Path, fault: str) -> None:
    """Halving finds it; it goes to failed.jsonl, all others are ranked, and the run is complete."""
    data = rows(3, 24)
    data[1]["candidates"][7]["text"] += " forbidden"
    async with world(tmp_path, data=data, poison={"forbidden": fault}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 0
        assert [(x["query_id"], x["cause"]) for x in w.letters(job)] == [("q1", "document-refused")]
        assert "'d1-7' is ranked last" in w.letters(job)[0]["message"]
        ranking = rankings(job)[1]["ranking"]
        assert ranking[-1]["doc_id"] == "d1-7" and ranking[-1]["score"] is None
        assert all(e["score"] is not None for e in ranking[:-1])
        assert w.paid_twice == 0


async def test_a_query_refused_as_such_fails_alone(tmp_path: Path) -> None:
    """If every part is refused it is the query: soon a dead letter, and the rest is ranked."""
    data = rows(3, 24)
    data[1]["query"] += " forbidden"
    async with world(tmp_path, data=data, poison={"forbidden": "400-inspection"}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 3
        assert [(x["query_id"], x["cause"]) for x in w.letters(job)] == [("q1", "refused")]
        assert [row["query_id"] for row in rankings(job)] == ["q0", "q2"]
        assert w.emulator.counts.faults["400-inspection"] < 50


@pytest.mark.parametrize("fault", sorted(REJECTS))
async def test_a_query_that_is_rejected_as_such_fails_alone(tmp_path: Path, fault: str) -> None:
    """No part of it is accepted: soon a dead letter with what the API said, and the rest is ranked."""
    data = rows(3, 24)
    data[1]["query"] += " odd"
    async with world(tmp_path, data=data, poison={"odd": fault}) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 3
        assert [(x["query_id"], x["cause"]) for x in w.letters(job)] == [("q1", "rejected")]
        assert "Required body invalid" in w.letters(job)[0]["message"]
        assert w.emulator.counts.faults[fault] < 50
        asked = w.emulator.requests
        assert (await w.run(job)).exit_code == 3
        assert w.emulator.requests == asked  # remembered


@pytest.mark.parametrize("fault", sorted(GOOD))
async def test_an_answer_is_used_whatever_its_usage_says(tmp_path: Path, fault: str) -> None:
    """Missing or absurd usage counts as predicted; a connection gone stale costs one retry and no query."""
    w, report, right = await after(tmp_path, fault)
    assert (report.exit_code, right) == (0, True)
    assert w.paid_twice == 0
    assert report.data["process"]["ambiguous"] <= (fault == "stale-keep-alive")
    assert report.data["spend"]["tokens"] >= w.emulator.counts.tokens


@pytest.mark.parametrize("fault", sorted(USELESS))
async def test_an_answer_of_no_use_is_never_ranked(tmp_path: Path, fault: str) -> None:
    """Counted as possibly billed, asked again, and the ranking is the right one."""
    w, report, right = await after(tmp_path, fault)
    assert (report.exit_code, right) == (0, True)
    assert report.data["process"]["malformed"] == 1
    assert w.paid_twice <= 1
    assert report.data["spend"]["tokens"] >= w.emulator.counts.tokens
    assert report.data["spend"]["possibly_billed_tokens"] > 0


@pytest.mark.parametrize("fault", sorted(UNKNOWN_FATE))
async def test_a_broken_connection_is_ambiguous(tmp_path: Path, fault: str) -> None:
    """Sent, no answer received: counted, shown, possibly paid; asked again, and the ranking is the right one."""
    w, report, right = await after(tmp_path, fault, sections={"endpoint": {"timeout": 20}})
    assert (report.exit_code, right) == (0, True)
    assert report.data["process"]["ambiguous"] == 1
    assert w.paid_twice <= 1
    assert report.data["spend"]["tokens"] >= w.emulator.counts.tokens


@pytest.mark.slow
async def test_all_faults_at_once(tmp_path: Path) -> None:
    """One request in three fails in some way: every query is ranked right, and each payment is accounted for."""
    passing = sorted(
        PASSES | SLOWS | GOOD | USELESS | UNKNOWN_FATE - {"silence", "slow-loris"} - {"json-huge"}
    )
    faults = {name: 0.3 / len(passing) for name in passing if "absurd" not in name and name != "gzip-bomb"}
    sections = {"retry": {"max_delay": 2}, "endpoint": {"timeout": 5}}
    async with world(
        tmp_path,
        queries=12,
        faults=faults,
        fault_limit=2,
        sections=sections,
        **SWITCHES | {"huge_bytes": 2**17},
    ) as w:
        job, other = w.job(), w.job("other")
        report = await w.run(job)
        spend, counts = report.data["spend"], w.emulator.counts
        assert report.exit_code == 0
        assert counts.billed.total() <= report.data["totals"]["requests"] + sum(
            report.data["process"][kind] for kind in ("malformed", "ambiguous")
        )
        assert spend["tokens"] >= counts.tokens
        await w.run(other)
        assert same(job, other)


@pytest.mark.parametrize("limit", [{"documents": 4}, {"request_tokens": 500}])
async def test_a_limit_that_is_smaller_than_planned_is_learned_and_named(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    """Later lists are halved without being asked first; the summary says what to set, and a rerun pays nothing."""
    async with world(tmp_path, queries=20, **limit) as w:
        job = w.job()
        report = await w.run(job)
        assert report.exit_code == 0
        assert all(e["score"] is not None for row in rankings(job) for e in row["ranking"])
        (notice,) = [n for n in report.data["notices"] if "too large" in n]
        assert "set limits.documents to" in notice
        answered = report.data["totals"]["requests"]
        assert w.emulator.requests - answered < 0.25 * answered
        before = w.emulator.counts.tokens
        await w.run(job)
        assert w.emulator.counts.tokens == before


async def test_a_query_that_always_fails_is_a_dead_letter(tmp_path: Path) -> None:
    """While others succeed it is the query's own fault, after all tries; replayable, counted, and remembered."""
    data = rows(8, 24)
    data[4]["query"] += " unlucky"
    async with world(tmp_path, data=data, poison={"unlucky": "500"}) as w:
        job = w.job(retry={"attempts": 4})
        report = await w.run(job)
        assert report.exit_code == 3
        (letter,) = w.letters(job)
        assert (letter["query_id"], letter["cause"], letter["attempts"]) == ("q4", "no-answer", 4)
        assert report.data["totals"]["causes"] == {"no-answer": 1}
        asked = w.emulator.requests
        assert (await w.run(job)).exit_code == 3
        assert w.emulator.requests == asked


async def test_too_many_failed_queries_stop_the_run(tmp_path: Path) -> None:
    """failures.max_queries: past it the run ends with exit code 1, and says where to look."""
    data = rows(12, 24)
    for row in data[:6]:
        row["query"] += " odd"
    async with world(tmp_path, data=data, poison={"odd": "400-parameter"}) as w:
        report = await w.run(w.job(failures={"max_queries": 2}))
        assert report.exit_code == 1
        assert "failures.max_queries" in str(report.reason)
        letters = (tmp_path / "out" / "failed.partial.jsonl").read_bytes().splitlines()
        assert len(letters) >= 3 and orjson.loads(letters[0])["cause"] == "rejected"


@pytest.mark.parametrize("shape", ["plain", "nested", "in-200"])
async def test_errors_are_understood_in_every_shape(tmp_path: Path, shape: str) -> None:
    """Quota refusals and failures mean the same in each of the three shapes."""
    faults = {"500": 0.1, "429-tokens": 0.1, "503": 0.05}
    async with world(tmp_path, queries=3, faults=faults, error_shape=shape) as w:
        report = await w.run(w.job())
        assert report.exit_code == 0
        assert w.paid_twice == 0
