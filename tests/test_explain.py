"""Explanations: every link of every chain is followed through the server's own answers."""

import random
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from explained import Checker, Diary, pairs, serving
from jobs import rows, run
from sick_server import job_for, reply

pytestmark = pytest.mark.anyio
PAIRS = 25


def checked(checker: Checker, seed: int, count: int = PAIRS) -> None:
    for query, doc, other in pairs(checker, count, seed):
        checker.check(query, doc, other)


async def proven(checker: Checker, seed: int = 1) -> Checker:
    await anyio.to_thread.run_sync(checked, checker, seed)
    return checker


async def test_one_request_proves_all_of_a_short_list(tmp_path: Path) -> None:
    """Its scores are the order."""
    data = rows(6, 8)
    async with serving(Diary()) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    found = await proven(Checker(api, job, data))
    assert set(found.proofs) == {"request"}


@pytest.mark.parametrize("method", ["hub", "full"])
async def test_chains_through_the_hub_prove_a_long_list(tmp_path: Path, method: str) -> None:
    """As deep as it is certified; what is an estimate is said to be one."""
    data = rows(5, 44)
    async with serving(Diary()) as api:
        job = job_for(tmp_path, data, api, merge={"method": method})
        await run(job)
    found = await proven(Checker(api, job, data), 2)
    assert found.longest >= 2 and found.proofs["request"] > 20
    assert ("estimate" in found.proofs) == (method == "hub")


@pytest.mark.parametrize(
    ("method", "relative"), [("hub", True), ("full", True), ("hub", False), ("rrf", True)]
)
async def test_what_earlier_runs_were_told_proves_as_well(
    tmp_path: Path, method: str, relative: bool
) -> None:
    """The second and the third night, on which some documents are new and the order is another."""
    data = rows(5, 44)
    sections: dict[str, Any] = {
        "limits": {"documents": 20},
        "reuse": {"audit": 3},
        "merge": {"method": method},
    }
    async with serving(Diary(relative=relative)) as api:
        for night in range(3):
            job = job_for(tmp_path, data, api, **sections)
            await run(job)
            found = await proven(Checker(api, job, data), 10 + night)
            if night:
                assert any(row["merge"]["reused"] for row in found.rows.values())
            rng = random.Random(night)
            for row in data:
                row["candidates"][rng.randrange(44)]["text"] += f" edited {night}"
                rng.shuffle(row["candidates"])
                for at, candidate in enumerate(row["candidates"]):
                    candidate["score"] = float(-at)
    told = await anyio.to_thread.run_sync(found.check, "q1", found.rows["q1"]["ranking"][0]["doc_id"])
    assert any(one.earlier and one.at for one in told.requests) and told.reused


async def test_answers_of_a_model_that_has_changed_prove_nothing(tmp_path: Path) -> None:
    """An audit found that: from there on only tonight's answers count, and are told."""
    data = rows(12, 44)
    sections: dict[str, Any] = {"limits": {"documents": 20}, "reuse": {"audit": 5}}
    async with serving(Diary()) as api:
        await run(job_for(tmp_path, data, api, **sections))
        api.answers.clear()
        api.relevance = lambda query, text: random.Random(f"new {query}|{text}").gauss()
        for row in data:
            row["candidates"][5]["text"] += " edited"
        job = job_for(tmp_path, data, api, **sections)
        report = await run(job)
    assert report.data["reuse"]["changed"]
    found = await proven(Checker(api, job, data, audits=True), 12)
    assert {"request", "chain"} <= set(found.proofs)


async def test_each_part_has_a_probe_and_an_audit_of_its_own(tmp_path: Path) -> None:
    """Wherever in the output a query stands, it is ranked again as it was."""
    data = rows(12, 44)
    sections: dict[str, Any] = {
        "limits": {"documents": 20}, "reuse": {"audit": 2}, "output": {"part_documents": 130}
    }  # fmt: skip
    async with serving(Diary()) as api:
        for night in range(2):
            job = job_for(tmp_path, data, api, **sections)
            await run(job)
            await proven(Checker(api, job, data, audits=True), 20 + night)
            for row in data:
                row["candidates"][7]["text"] += " edited"
    assert len(list((tmp_path / "out").glob("ranking-*"))) == 4


async def test_a_night_that_was_cut_short_and_went_on_is_explained_alike(tmp_path: Path) -> None:
    """It decided as it began, and so does the explanation."""
    data = rows(8, 44)
    sections: dict[str, Any] = {"limits": {"documents": 20}, "output": {"part_documents": 130}}
    async with serving(Diary()) as api:
        await run(job_for(tmp_path, data, api, **sections))
        for row in data:
            row["candidates"][7]["text"] += " edited"
        cut = await run(job_for(tmp_path, data, api, budget={"max_requests": 5}, **sections))
        assert not cut.exit_code.complete
        job = job_for(tmp_path, data, api, budget={"max_requests": None}, **sections)
        assert (await run(job)).exit_code.complete
    await proven(Checker(api, job, data, audits=True), 30)


async def test_lost_documents_are_told_and_the_rest_is_proven(tmp_path: Path) -> None:
    """A request with a document that is refused is asked in halves, and a blank one is never asked."""
    data = rows(5, 34)
    for row in data:
        row["candidates"][7]["text"] += " forbidden"
        row["candidates"][9]["text"] = " "

    def fate(query: str, docs: list[str], n: int) -> Any:
        if any("forbidden" in text for text in docs):
            return reply(400, {"code": "DataInspectionFailed", "message": "inappropriate content"})
        return None

    async with serving(Diary(fate)) as api:
        job = job_for(tmp_path, data, api)
        report = await run(job)
    assert report.data["totals"]["causes"] == {"document-refused": 5}
    checker = Checker(api, job, data)
    await proven(checker, 3)
    lost = await anyio.to_thread.run_sync(checker.check, "q2", "d2-7")
    assert lost.score is None and lost.unscored is not None and "DataInspectionFailed" in lost.unscored
    assert len(lost.refused) == 4 or len(lost.refused) == 5  # ten documents, in halves down to one
    blank = await anyio.to_thread.run_sync(checker.check, "q2", "d2-9")
    assert blank.unscored == "its text is blank, so it was never sent" and not any(
        one.rank for one in blank.requests
    )


async def test_comparable_scores_prove_across_requests(tmp_path: Path) -> None:
    """A probe found them equal, so raw scores tell."""
    data = rows(5, 44)
    async with serving(Diary(relative=False)) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    found = await proven(Checker(api, job, data), 4)
    assert {"request", "comparable"} <= set(found.proofs) <= {"request", "comparable", "chain"}
    assert all(row["merge"]["verdict"] == "absolute" for row in found.rows.values())


async def test_ties_are_told_as_ties(tmp_path: Path) -> None:
    """A server that rounds to one digit, alike in each request."""
    data = rows(5, 24)
    async with serving(Diary(relative=False, score=lambda value: round(value, 1))) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    found = await proven(Checker(api, job, data), 5)
    assert "tie" in found.proofs


async def test_ties_say_nothing_where_other_answers_separate_them(tmp_path: Path) -> None:
    """A server that rounds after scaling each request otherwise."""
    data = rows(5, 44)
    async with serving(Diary(score=lambda value: round(3 * value) / 3)) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    found = await proven(Checker(api, job, data), 11)
    for name, row in found.rows.items():
        for entry in row["ranking"][:12:2]:
            await anyio.to_thread.run_sync(found.check, name, entry["doc_id"])
    assert {"request", "chain", "estimate"} <= set(found.proofs)


async def test_answers_that_contradict_each_other_prove_nothing(tmp_path: Path) -> None:
    """Noise that is new in each request: nothing is certified, and only what all requests agree on is shown as fact."""
    data = rows(5, 44)
    rng = random.Random(7)
    async with serving(Diary(relevance=lambda q, text: rng.gauss())) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    found = await proven(Checker(api, job, data), 6)
    assert "contradiction" in found.proofs and "chain" not in found.proofs


@pytest.mark.parametrize("method", ["rrf", "raw"])
async def test_methods_without_a_proof_say_so(tmp_path: Path, method: str) -> None:
    """Between documents of different requests."""
    data = rows(5, 44)
    async with serving(Diary()) as api:
        job = job_for(tmp_path, data, api, merge={"method": method})
        await run(job)
    found = await proven(Checker(api, job, data), 8)
    assert {"rrf": "fusion", "raw": "raw"}[method] in found.proofs


async def test_tries_that_failed_are_told(tmp_path: Path) -> None:
    """A garbled answer, after which the request was sent again."""
    data = rows(1, 8)

    def fate(query: str, docs: list[str], n: int) -> Any:
        return (
            reply(200, {"results": [{"index": 0, "relevance_score": 1}]})
            if n == 1 and len(docs) > 1
            else None
        )

    async with serving(Diary(fate)) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
    told = await anyio.to_thread.run_sync(Checker(api, job, data).check, "q0", "d0-3")
    assert len(told.attempts) == 1 and told.attempts[0].startswith("malformed: HTTP 200")


async def test_nothing_is_sent_and_nothing_is_changed(tmp_path: Path) -> None:
    """Neither a byte of the output or the ledger, nor another file beside them."""
    data = rows(2, 44)
    async with serving(Diary()) as api:
        job = job_for(tmp_path, data, api)
        await run(job)
        asked = len(api.asked)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        await proven(Checker(api, job, data), 9)
        assert len(api.asked) == asked
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
