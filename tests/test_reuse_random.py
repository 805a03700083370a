"""Random nights through the whole pipeline: adds, removals, edits, reorders, ties, failures and stops."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from against import world
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import outputs, rankings, rows, write_jsonl
from test_fixed_fates import in_virtual_time

from batchrank.emulator.relevance import relevance
from batchrank.job.config import Job

STEPS = st.lists(
    st.tuples(st.sampled_from(["edit", "remove", "add", "shuffle", "swap ids"]), st.floats(0, 0.4)),
    max_size=4,
)


def changed(row: dict[str, Any], steps: list[tuple[str, float]], rng: random.Random) -> dict[str, Any]:
    """One list, a night later."""
    candidates = [dict(candidate) for candidate in row["candidates"]]
    for what, share in steps:
        some = rng.sample(candidates, round(share * len(candidates)))
        if what == "remove" and len(some) < len(candidates):
            candidates = [candidate for candidate in candidates if candidate not in some]
        elif what == "edit":
            for candidate in some:
                candidate["text"] += f" edited {rng.random()}"
        elif what == "add":  # some with a text that another one has: they tie
            candidates += [{"id": f"new-{rng.random()}", "text": c["text"]} for c in some[:3]]
            candidates += [{"id": f"new-{rng.random()}", "text": f"file tree {rng.random()}"} for _ in some]
        elif what == "shuffle":
            rng.shuffle(candidates)
        elif len(some) > 1:
            some[0]["id"], some[1]["id"] = some[1]["id"], some[0]["id"]
    for candidate in candidates:
        candidate.pop("score", None)
    return row | {"candidates": candidates}


def check_certificates(job: Job, data: list[dict[str, Any]]) -> None:
    """Each certified prefix is in the model's own order, and nothing after it is better."""
    texts = {row["query_id"]: {c["id"]: c["text"] for c in row["candidates"]} for row in data}
    queries = {row["query_id"]: row["query"] for row in data}
    for ranked in rankings(job):
        name = ranked["query_id"]
        true = [relevance(queries[name], texts[name][entry["doc_id"]]) for entry in ranked["ranking"]]
        proven = ranked["merge"]["certified"]
        assert true[:proven] == sorted(true[:proven], reverse=True)
        assert not proven or proven == len(true) or true[proven - 1] >= max(true[proven:])


async def random_nights(folder: Path, nights: list[Any], seed: int, cut: int, limit: int) -> None:
    """Nights with faults; one of them is stopped and run on, and compared with one that wasn't."""
    rng = random.Random(seed)
    script: dict[int, str] = {}
    sections: dict[str, Any] = {
        "limits": {"documents": limit},
        "reuse": {"audit": 2},
        "retry": {"max_delay": 0.1},
    }
    faults = {"500": 0.1, "answer-dropped": 0.05, "429-requests": 0.05}
    data = [changed(row, [], rng) for row in rows(3, 30)]
    async with world(folder, data=data, script=script, faults=faults, fault_limit=2, sections=sections) as w:
        job = w.job()
        assert (await w.run(job, part_documents=40)).exit_code == 0
        for steps in nights:
            data = [changed(row, steps, rng) for row in data]
            write_jsonl(w.data, data)
            shutil.rmtree(folder / "kept", ignore_errors=True)
            shutil.copytree(folder / "out", folder / "kept")
            report = await w.run(job, part_documents=40)
            assert report.exit_code == 0
            whole = outputs(job)
            check_certificates(job, data)
            anew = await w.run(w.job("anew", reuse={"documents": False}), part_documents=40)
            assert report.data["totals"]["sent"] <= anew.data["totals"]["sent"]
            shutil.rmtree(folder / "anew")
            shutil.rmtree(folder / "out")
            shutil.copytree(folder / "kept", folder / "out")
            script[w.emulator.requests + cut] = "400-arrearage"
            await w.run(job, part_documents=40)
            script.clear()
            assert (await w.run(job, part_documents=40)).exit_code == 0
            assert outputs(job) == whole


def nights_in_virtual_time(nights: list[Any], seed: int, cut: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        in_virtual_time(random_nights(Path(folder), nights, seed, cut, limit))


GIVEN = {
    "nights": st.lists(STEPS, min_size=1, max_size=3),
    "seed": st.integers(0, 2**20),
    "cut": st.integers(1, 25),
    "limit": st.sampled_from([8, 12, 40]),
}


@settings(max_examples=5, deadline=None)
@given(**GIVEN)
def test_random_nights(nights: list[Any], seed: int, cut: int, limit: int) -> None:
    """Never a false certificate, always the same bytes, and no more asked than without reuse."""
    nights_in_virtual_time(nights, seed, cut, limit)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(**GIVEN)
def test_many_random_nights(nights: list[Any], seed: int, cut: int, limit: int) -> None:
    """As above."""
    nights_in_virtual_time(nights, seed, cut, limit)
