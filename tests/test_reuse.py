"""Nights through the whole pipeline: only what is new is asked, the ranking is right, kills change nothing."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from against import PATH, World, world
from jobs import make_job, outputs, rankings, rows, run, write_jsonl
from sick_server import Api, job_for, serving, wrong

from batchrank.emulator.app import Emulator
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings
from batchrank.job.config import Job
from batchrank.pipeline.report import Report

pytestmark = pytest.mark.anyio
QUERY = "remove every file in a directory and its subdirectories"


class Nights:
    """One query a night, on an emulator that outlives them."""

    def __init__(self, folder: Path, url: str, n: int, **sections: Any) -> None:
        self.folder, self.url, self.n, self.sections = folder, url, n, sections
        self.r = random.Random(n)
        self.next = 0
        self.documents = [self.fresh() for _ in range(n)]
        (folder / "key").write_text("any")

    def fresh(self) -> dict[str, str]:
        self.next += 1
        words = " ".join(
            self.r.choice(("file", "directory", "tree", "remove", "list", "of")) for _ in range(9)
        )
        return {"id": f"d{self.next}", "text": f"{words} {self.r.random()}"}

    def replace(self, share: float) -> None:
        """Other documents in the place of some, and another order of the first stage."""
        for at in self.r.sample(range(len(self.documents)), round(share * self.n)):
            self.documents[at] = self.fresh()
        self.r.shuffle(self.documents)

    def job(self, k: int = 10, **sections: Any) -> Job:
        data = [{"query_id": "q", "query": QUERY, "candidates": self.documents}]
        given: dict[str, Any] = {"limits": {"documents": 500}, "merge": {"top_k": k}, "tokenizer": "bytes"}
        for name, section in {**self.sections, **sections}.items():
            given[name] = {**given.get(name, {}), **section} if isinstance(section, dict) else section
        endpoint = {
            "url": self.url + PATH,
            "api_key_file": str(self.folder / "key"),
            **given.pop("endpoint", {}),
        }
        return make_job(self.folder, write_jsonl(self.folder / "in.jsonl", data), endpoint=endpoint, **given)

    async def night(self, k: int = 10, **sections: Any) -> tuple[dict[str, Any], Report]:
        job = self.job(k, **sections)
        report = await run(job)
        assert report.exit_code == 0
        (row,) = rankings(job)
        return row, report

    def truth(self) -> list[str]:
        return [d["id"] for d in sorted(self.documents, key=lambda d: -relevance(QUERY, d["text"]))]


def top(row: dict[str, Any], k: int) -> list[str]:
    return [entry["doc_id"] for entry in row["ranking"][:k]]


def quotas(**switches: Any) -> Settings:
    settings: dict[str, Any] = {
        "tokenizer": "bytes",
        "scores": "relative",
        "rpm": float("inf"),
        "tpm": float("inf"),
    }
    return Settings(**settings | switches)


@pytest.mark.parametrize(
    ("n", "k", "most"), [(400, 10, 0.10), (400, 100, 0.33), (2_000, 10, 0.07), (2_000, 100, 0.14)]
)
async def test_the_second_night_asks_about_what_is_new(tmp_path: Path, n: int, k: int, most: float) -> None:
    """2% replaced and the order shuffled: the top is the API's own and certified, and the bill is small."""
    async with Emulator(quotas()) as emulator:
        nights = Nights(tmp_path, emulator.url, n, reuse={"audit": 0})
        _, first = await nights.night(k)
        nights.replace(0.02)
        row, second = await nights.night(k)
        assert top(row, k) == nights.truth()[:k] and row["merge"]["certified"] >= k
        assert row["merge"]["documents"] <= most * n
        assert row["merge"]["reused"] >= n - second.data["totals"]["sent"] and row["merge"]["oldest"]
        assert second.data["spend"]["tokens"] <= most * first.data["spend"]["tokens"] * 1.1
        assert second.data["spend"]["saved_tokens"] > 0
        assert row["merge"]["agreement"] == 1


@pytest.mark.slow
async def test_the_second_night_of_ten_thousand(tmp_path: Path) -> None:
    """As above, for a list of 10,000."""
    async with Emulator(quotas()) as emulator:
        nights = Nights(tmp_path, emulator.url, 10_000)
        await nights.night(100)
        nights.replace(0.02)
        row, _ = await nights.night(100)
        assert top(row, 100) == nights.truth()[:100] and row["merge"]["certified"] >= 100
        assert row["merge"]["documents"] <= 0.08 * 10_000


@pytest.mark.parametrize("method", ["hub", "raw"])
async def test_absolute_scores_are_asked_once(tmp_path: Path, method: str) -> None:
    """A card that declares them: new documents only."""
    async with Emulator(quotas(scores="absolute")) as emulator:
        card = {"base": "qwen3-rerank", "scores": "absolute"}
        nights = Nights(
            tmp_path, emulator.url, 1_000, model=card, merge={"method": method}, reuse={"audit": 0}
        )
        await nights.night()
        nights.replace(0.02)
        row, _ = await nights.night()
        assert row["merge"]["documents"] == 20 and top(row, 1_000) == nights.truth()


async def test_an_edited_document_is_new_and_a_renamed_one_is_not(tmp_path: Path) -> None:
    """Content counts, not ids; removed documents cost nothing."""
    async with Emulator(quotas()) as emulator:
        nights = Nights(tmp_path, emulator.url, 300, reuse={"audit": 0})
        await nights.night()
        for number, document in enumerate(nights.documents):
            document["id"] = f"renamed-{number}"
        del nights.documents[7::50]
        row, report = await nights.night()
        assert report.data["process"]["requests"] == 0
        assert top(row, 300) == nights.truth() and row["merge"]["certified"] == len(nights.documents)
        nights.documents[3]["text"] += " edited"
        before = emulator.counts.documents
        row, _ = await nights.night()
        assert top(row, 10) == nights.truth()[:10]
        assert 1 <= emulator.counts.documents - before <= 30


@pytest.mark.parametrize(
    "other",
    [
        {"instruct": "Rank by length."},
        {"model": {"base": "qwen3-rerank", "name": "qwen3-rerank-2"}, "endpoint": {"identity": "another"}},
        {"endpoint": {"body": {"extra": 1}}},
        {"reuse": {"documents": False}},
        {"reuse": {"max_age": "1h"}},
    ],
    ids=["instruct", "model", "parameter", "off", "too old"],
)
async def test_another_question_reuses_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    """Whatever the documents, a changed instruct, model or parameter is another question."""
    async with Emulator(quotas()) as emulator:
        nights = Nights(tmp_path, emulator.url, 200, reuse={"audit": 0})
        job = nights.job()
        await run(job)
        if "max_age" in other.get("reuse", {}):
            age(Path(tmp_path / "out" / "ledger.sqlite"), 7_200)
        nights.replace(0.02)
        if "model" in other:
            other = {**other, "model": {"base": "qwen3-rerank"}}
        row, _ = await nights.night(**other)
        assert row["merge"]["documents"] == 200 and row["merge"]["reused"] == 0


def age(ledger: Path, seconds: int) -> None:
    """Make a ledger's answers older."""
    from batchrank.ledger.rows import ANSWER, answer_checksum

    with closing(sqlite3.connect(ledger)) as db:
        db.execute("UPDATE answers SET at = at - ?", (seconds,))
        for row in db.execute(f"SELECT {ANSWER} FROM answers").fetchall():
            db.execute("UPDATE answers SET digest = ? WHERE key = ?", (answer_checksum(*row), row[0]))
        db.commit()


async def test_another_query_reuses_nothing(tmp_path: Path) -> None:
    """The same documents for another query are all asked about."""
    async with world(tmp_path, queries=1, candidates=9) as w:
        await w.run(w.job())
        data = rows(1, 9)
        data[0]["query"] += " else"
        write_jsonl(w.data, data)
        report = await w.run(w.job())
        assert report.data["totals"]["sent"] == 9 and report.data["totals"]["reused"] == 0


async def test_a_changed_model_is_noticed_said_and_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first audit: from there on nothing old is used, tonight and later; the rankings are the new model's."""
    data = rows(30, 40)
    sections: dict[str, Any] = {"limits": {"documents": 500}, "reuse": {"audit": 10}}
    async with serving(Api()) as api:
        job = job_for(tmp_path, data, api, **sections)
        await run(job)
        monkeypatch.setattr("sick_server.relevance", lambda q, t: random.Random(f"new {q}|{t}").gauss())
        for row in data:
            row["candidates"][5]["text"] += " edited"
        job = job_for(tmp_path, data, api, **sections)
        report = await run(job)
        assert not wrong(job, data, 10)
        assert report.data["reuse"]["changed"]
        assert [n for n in report.data["notices"] if "no longer ranks as it did" in n]
        assert report.data["totals"]["reused"] == 0
        asked = len(api.asked)
        for row in data:
            row["candidates"][6]["text"] += " edited"
        job = job_for(tmp_path, data, api, **sections)
        report = await run(job)
        assert not wrong(job, data, 10) and not report.data["reuse"]["changed"]
        assert len(api.asked) - asked <= 30 + 3
        assert report.data["totals"]["reused"] > 500


async def test_an_unchanged_list_is_audited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger would answer everything, an audit still finds that the model has changed."""
    data = rows(12, 20)
    sections: dict[str, Any] = {"limits": {"documents": 500}, "reuse": {"audit": 5}}
    async with serving(Api()) as api:
        await run(job_for(tmp_path, data, api, **sections))
        asked = len(api.asked)
        ledger = str(tmp_path / "out" / "ledger.sqlite")
        calm = await run(job_for(tmp_path, data, api, "again", ledger=ledger, **sections))
        assert len(api.asked) - asked == 3  # of 12 queries, every fifth
        assert not calm.data["reuse"]["changed"]
        monkeypatch.setattr("sick_server.relevance", lambda q, t: random.Random(f"new {q}|{t}").gauss())
        job = job_for(tmp_path, data, api, "third", ledger=ledger, **sections)
        report = await run(job)
        assert report.data["reuse"]["changed"] and not wrong(job, data, 20)


async def test_a_refused_document_is_not_asked_about_every_night(tmp_path: Path) -> None:
    """It was found once, and is told every night."""
    data = rows(1, 40)
    data[0]["candidates"][3]["text"] += " forbidden"
    async with world(tmp_path, data=data, poison={"forbidden": "400-inspection"}) as w:
        sections: dict[str, Any] = {"limits": {"documents": 500}, "reuse": {"audit": 0}}
        await w.run(w.job(**sections))
        for night in range(3):
            data[0]["candidates"][20 + night]["text"] += " edited"
            write_jsonl(w.data, data)
            asked = w.emulator.requests
            report = await w.run(w.job(**sections))
            assert w.emulator.requests - asked == 1
            assert report.data["totals"]["causes"] == {"document-refused": 1}
            assert len(w.letters(w.job(**sections))) == 1


async def test_the_same_job_again_asks_nothing_and_writes_the_same(tmp_path: Path) -> None:
    """After a night of reuse as after any: a rerun decides as the run before it did."""
    async with world(tmp_path, queries=6, candidates=40) as w:
        await w.run(w.job())
        edited(w, 0)
        await w.run(w.job())
        before, asked = outputs(w.job()), w.emulator.requests
        report = await w.run(w.job())
        assert w.emulator.requests == asked and outputs(w.job()) == before
        assert report.data["totals"]["reused"] > 100


def edited(w: World, night: int, every: int = 7) -> None:
    """A text or two in each list is edited."""
    data = rows(6, 40)
    for number, row in enumerate(data):
        for candidate in row["candidates"][(night + number) % every :: every * 3]:
            candidate["text"] += f" edited {night}"
        random.Random(f"{night}/{number}").shuffle(row["candidates"])
        for at, candidate in enumerate(row["candidates"]):
            candidate["score"] = float(-at)
    write_jsonl(w.data, data)


@pytest.mark.parametrize("cut", [3, 9, 14])
async def test_a_night_that_is_killed_goes_on_alike(tmp_path: Path, cut: int) -> None:
    """Stopped after so many requests and run on: the bytes of an uninterrupted night, nothing asked twice."""
    script: dict[int, str] = {}
    async with world(tmp_path, queries=6, candidates=40, script=script) as w:
        await w.run(w.job(), part_documents=60)
        shutil.copytree(tmp_path / "out", tmp_path / "kept")
        edited(w, 1)
        await w.run(w.job(), part_documents=60)
        whole = outputs(w.job())
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "kept", tmp_path / "out")
        before = w.paid_twice
        script[w.emulator.requests + cut] = "400-arrearage"
        assert (await w.run(w.job(), part_documents=60)).exit_code == 1
        report = await w.run(w.job(), part_documents=60)
        assert report.exit_code == 0 and outputs(w.job()) == whole
        assert w.paid_twice - before <= 40  # tonight's requests, which the first try of it asked as well
