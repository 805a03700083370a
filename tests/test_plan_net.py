"""``plan`` tells what tonight's run will really ask, given what the ledger knows, and leaves the ledger alone."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from against import World, world
from jobs import rows, write_jsonl
from test_ledger_moved import of_third_schema

from batchrank.data import Positions
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.merge.answers import Pool
from batchrank.merge.reuse import Earlier
from batchrank.pipeline import resume
from batchrank.pipeline.shared import CHANGED
from batchrank.pipeline.workers import background_task
from batchrank.planning.bill import Net
from batchrank.planning.bill import World as Imagined
from batchrank.planning.plan import plan

pytestmark = pytest.mark.anyio


class One:
    """A list in one request."""

    def __init__(self, n: int) -> None:
        self.chunks = (np.arange(n),)
        self.limit = n
        self.sizes = np.ones(n, dtype=np.int64)

    def fits(self, documents: Positions) -> bool:
        return True

    def split(self, documents: Positions) -> tuple[Positions]:
        return (documents,)


ABSOLUTE = {"model": {"base": "qwen3-rerank", "name": "qwen3-rerank", "scores": "absolute"}}


def files(folder: Path) -> dict[str, bytes]:
    """All that a ledger consists of."""
    return {path.name: path.read_bytes() for path in folder.glob("ledger.sqlite*")}


def foretold(job: Job) -> Net:
    """The net part of a job's plan; making it changes nothing beside the ledger."""
    assert job.ledger_path is not None
    before = files(job.ledger_path.parent)
    found = plan(job)
    assert found.net is not None and found.notice is None
    assert files(job.ledger_path.parent) == before
    return found.net


async def asked(w: World, job: Job) -> tuple[int, int]:
    """Requests and documents that a run asks."""
    before = len(w.emulator.received)
    assert (await w.run(job)).exit_code == 0
    bodies = [orjson.loads(request.body) for request in w.emulator.received[before:]]
    return len(bodies), sum(len(body["documents"]) for body in bodies)


def night(w: World, queries: int = 8, candidates: int = 60, share: float = 0.02, seed: int = 1) -> None:
    """Write tonight's input: a share of the documents replaced, the first stage's order shuffled."""
    rng = np.random.default_rng(seed)
    data = rows(queries, candidates)
    for row in data:
        for number in rng.choice(candidates, max(1, round(share * candidates)), replace=False).tolist():
            row["candidates"][number]["text"] += " tonight"
        rng.shuffle(row["candidates"])
        for place, one in enumerate(row["candidates"]):
            one["score"] = float(candidates - place)
    write_jsonl(w.data, data)


@pytest.mark.parametrize(
    ("sections", "scores"),
    [
        ({"merge": {"method": "rrf"}}, "relative"),
        ({"merge": {"method": "raw"}}, "relative"),
        ({"merge": {"method": "hub"}, **ABSOLUTE}, "absolute"),
        ({"merge": {"method": "raw"}, **ABSOLUTE, "reuse": {"audit": 3}}, "absolute"),
        ({"merge": {"method": "hub"}}, "absolute"),
        ({"limits": {"documents": 60}}, "relative"),
    ],
    ids=["rrf", "raw", "declared", "audits", "found-absolute", "one-request"],
)
async def test_where_nothing_depends_on_answers_a_plan_is_exact(
    tmp_path: Path, sections: dict[str, Any], scores: str
) -> None:
    """Requests and documents of the second night, its audits and its probe included."""
    async with world(tmp_path, data=rows(8, 60), scores=scores, sections=sections) as w:
        job = w.job()
        await asked(w, job)
        night(w)
        net = foretold(job)
        assert net.reused > 0.5 * 8 * 60 or "limits" in sections
        assert (net.requests, net.documents) == await asked(w, job)


async def test_night_after_night_a_plan_is_exact(tmp_path: Path) -> None:
    """A part of each list is new; a document that was refused is known to be."""
    poison = {"forbidden": "400-inspection"}
    async with world(tmp_path, data=rows(8, 60), sections={"merge": {"method": "rrf"}}, poison=poison) as w:
        job = w.job()
        for number in range(4):
            night(w, share=0.05 * number, seed=number)
            data = [orjson.loads(line) for line in w.data.read_bytes().splitlines()]
            for row in data:
                of_one = next(one for one in row["candidates"] if one["id"].endswith("-7"))
                of_one["text"] = "forbidden"
            write_jsonl(w.data, data)
            net = plan(job).net
            told = await asked(w, job)
            assert net is None if number == 0 else net is not None and (net.requests, net.documents) == told


@pytest.mark.parametrize(("method", "off"), [("hub", 0.05), ("full", 0.4)])
async def test_repairs_are_foreseen_about(tmp_path: Path, method: str, off: float) -> None:
    """What only tonight's answers decide is foretold by made-up ones: near what is asked, far from asking anew."""
    async with world(
        tmp_path,
        data=rows(8, 300),
        sections={"merge": {"method": method}, "limits": {"documents": 60}},
    ) as w:
        job = w.job()
        await asked(w, job)
        night(w, candidates=300)
        net, whole = foretold(job), plan(job).methods[method]
        requests, documents = await asked(w, job)
        assert abs(net.documents - documents) <= off * documents < 0.1 * whole.documents
        assert abs(net.requests - requests) <= off * requests
        assert net.saved_tokens == whole.tokens - net.tokens
        assert net.saved_cost is not None and net.saved_cost + (net.cost or 0) == pytest.approx(whole.cost)


async def test_a_night_without_changes_costs_nothing(tmp_path: Path) -> None:
    """The plan knows by which answers the last night decided."""
    async with world(tmp_path, data=rows(8, 60)) as w:
        job = w.job()
        await asked(w, job)
        net = foretold(job)
        assert (net.requests, net.documents, net.tokens, net.cost, net.reused) == (0, 0, 0, 0.0, 480)
        night(w)
        await asked(w, job)
        net = foretold(job)
        assert (net.requests, net.documents, net.reused) == (0, 0, 480) and await asked(w, job) == (0, 0)


async def test_whole_requests_count_where_documents_do_not(tmp_path: Path) -> None:
    """``reuse.documents: false``: a query that changed is asked as a whole, the others are not asked at all."""
    async with world(
        tmp_path, data=rows(8, 34), sections={"reuse": {"documents": False}, "merge": {"method": "rrf"}}
    ) as w:
        job = w.job()
        await asked(w, job)
        data = rows(8, 34)
        data[3]["candidates"][5]["text"] += " tonight"
        write_jsonl(w.data, data)
        net = foretold(job)
        assert (net.requests, net.documents) == await asked(w, job)
        assert 0 < net.documents <= 34 and net.reused == 8 * 34 - net.documents


@pytest.mark.parametrize("documents", [True, False])
async def test_answers_that_are_too_old_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: bool
) -> None:
    """``reuse.max_age`` passed: all is asked anew."""
    sections = {"reuse": {"documents": documents, "max_age": "30d"}, "merge": {"method": "rrf"}}
    async with world(tmp_path, data=rows(8, 34), sections=sections) as w:
        job = w.job()
        await asked(w, job)
        write_jsonl(w.data, [*rows(7, 34), {**rows(1, 34)[0], "query_id": "q7", "query": "another"}])
        assert foretold(job).reused == 7 * 34
        monkeypatch.setattr(resume, "wall", lambda: time.time() + 31 * 86_400)
        net = foretold(job)
        assert (net.documents, net.reused, net.saved_tokens) == (8 * 34, 0, 0)
        assert (net.requests, net.documents) == await asked(w, job)


async def test_answers_of_a_model_that_has_changed_since_count_for_nothing(tmp_path: Path) -> None:
    """A run noted it, and left them aside; so will tonight's."""
    async with world(tmp_path, data=rows(8, 34), sections={"merge": {"method": "rrf"}}) as w:
        job = w.job()
        await asked(w, job)
        assert job.ledger_path is not None
        ledger = Ledger(job.ledger_path)
        async with background_task(ledger.serve):
            await ledger.save(CHANGED, 2)
        ledger.close()
        night(w, candidates=34)
        net = foretold(job)
        assert net.documents == 8 * 34 and (net.requests, net.documents) == await asked(w, job)


async def test_what_an_older_batchrank_paid_for_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its keys, and without bringing its ledger up to date: answers, and rejections that decided a split."""
    async with world(tmp_path, queries=6, request_tokens=700) as w:
        with monkeypatch.context() as older:
            older.setattr(Job, "answers_identity", Job.url)
            await asked(w, w.job())
        of_third_schema(tmp_path / "out" / "ledger.sqlite")
        now = w.job("now", ledger=str(tmp_path / "out" / "ledger.sqlite"))
        net = foretold(now)
        assert (net.requests, net.documents, net.reused) == (0, 0, 6 * 34)
        assert await asked(w, now) == (0, 0)


@pytest.mark.parametrize("at", [3, 12])
async def test_a_run_that_goes_on_is_foretold_the_rest(tmp_path: Path, at: int) -> None:
    """It decides as it began, and what it asked before it was cut off is known."""
    script: dict[int, str] = {}
    async with world(tmp_path, data=rows(12, 60), script=script, sections={"merge": {"method": "rrf"}}) as w:
        job = w.job()
        await asked(w, job)
        night(w, queries=12, share=0.2)
        every = foretold(job)
        script[w.emulator.requests + at] = "400-arrearage"
        assert at < every.requests
        before = len(w.emulator.received)
        assert (await w.run(job, part_documents=60)).exit_code == 1
        done = len(w.emulator.received) - before
        net = foretold(job)
        assert 0 < net.requests < every.requests <= net.requests + done
        assert (net.requests, net.documents) == await asked(w, job)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hubs", [True, False])
def test_made_up_scores_contradict_no_answer(seed: int, hubs: bool) -> None:
    """Whatever is known of some documents, in many answers that overlap, with and without ties."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 20 if seed % 2 else 10**6, 50).astype(np.float64)
    world = Imagined(Pool(One(50)), 50, [])
    for number, size in enumerate((30, 20, 10, 5, 1)):
        documents = rng.choice(45, size, replace=False)
        values = truth[documents] * rng.uniform(0.5, 2)
        world.learn(Earlier(documents, values, "hub" if hubs and number == 2 else "pass", 1))
    scores = world.scores(np.arange(50))
    for one in world.told:
        order = np.lexsort((-scores[one.documents], -one.values))
        assert (np.diff(scores[one.documents][order]) <= 0).all()
    assert np.isfinite(scores).all()
