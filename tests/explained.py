"""A server that writes down every answer, and a check of explanations that knows nothing but these and the output."""

import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import sick_server
from aiohttp import web
from jobs import rankings
from sick_server import Api, relevance

from batchrank.job.config import Job
from batchrank.look.explain import explain
from batchrank.look.explanation import Explanation, Order
from batchrank.look.source import Origin

PROVEN = {"request", "chain", "tie", "comparable"}


@dataclass
class Diary(Api):
    """A server whose answers can be read afterwards: for each, the query and the scores by text.

    ``score`` gives the score of a document in a request, from its relevance and the request's own slope and shift.
    """

    answers: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    score: Callable[[float], float] = lambda value: 1 / (1 + math.exp(-value))
    relevance: Callable[[str, str], float] = relevance

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        q, docs = body["query"], body["documents"]
        key = (q, tuple(docs))
        n = self.seen[key] = self.seen.get(key, 0) + 1
        fault: web.StreamResponse | None = self.fate(q, docs, n)
        self.asked.append((q, tuple(docs), 200 if fault is None else fault.status))
        if fault is not None:
            return fault
        rng = random.Random(repr(key))
        slope, shift = (rng.uniform(0.5, 2), rng.gauss()) if self.relative else (1.0, 0.0)
        scores = {text: self.score(slope * self.relevance(q, text) + shift) for text in docs}
        self.answers.append((q, scores))
        results = [{"index": i, "relevance_score": scores[text]} for i, text in enumerate(docs)]
        usage = {"total_tokens": self.tokens(q, docs)}
        return web.json_response({"results": results, "usage": usage, "id": f"answer-{len(self.answers)}"})


@asynccontextmanager
async def serving(diary: Diary) -> AsyncIterator[Diary]:
    async with sick_server.serving(diary):
        yield diary


@dataclass
class Checker:
    """Follows explanations of a job's output, link by link, through the server's answers."""

    api: Diary
    job: Job
    data: list[dict[str, Any]]
    audits: bool = False  # whether some queries were asked about once more, to see whether old answers hold
    proofs: dict[str, int] = field(default_factory=dict)
    longest: int = 0

    def __post_init__(self) -> None:
        self.rows = {row["query_id"]: row for row in rankings(self.job)}
        self.texts = {
            (row["query_id"], one["id"]): one["text"] for row in self.data for one in row["candidates"]
        }
        self.asked = {row["query_id"]: row["query"] for row in self.data}

    def check(self, query: str, doc: str, other: str | None = None) -> Explanation:
        assert self.job.output is not None
        folder = Path(self.job.output.path)
        found = explain(folder, query, doc, against=other, known=Origin(self.job))
        row = self.rows[query]
        ranks = {entry["doc_id"]: entry["rank"] for entry in row["ranking"]}
        assert found.replayed, found.notes
        assert found.rank == ranks[doc]
        self._held(found)
        told = {(order.upper, order.lower) for order in found.orders}
        near = [e["doc_id"] for e in row["ranking"] if abs(e["rank"] - ranks[doc]) == 1]
        for name in {*near, *([other] if other and other != doc else [])}:
            assert tuple(sorted((doc, name), key=ranks.__getitem__)) in told
        for order in found.orders:
            assert (order.upper_rank, order.lower_rank) == (ranks[order.upper], ranks[order.lower])
            assert order.upper_rank < order.lower_rank
            self._follow(row, found, order)
        return found

    def _held(self, found: Explanation) -> None:
        """Each request that is said to have held it did, with its score and rank, and none is left out."""
        query, text = self.asked[found.query_id], self.texts[found.query_id, found.doc_id]
        known = [scores for q, scores in self.api.answers if q == query and text in scores]
        for one in found.requests:
            if one.score is not None:
                assert any(
                    scores[text] == one.score and one.rank == 1 + sum(v > one.score for v in scores.values())
                    for scores in known
                    if one.key is None or len(scores) == one.documents
                ) or (one.key is None and any(scores[text] == one.score for scores in known))
        held = {one.score for one in found.requests if one.score is not None}
        asked = {scores[text] for scores in known}
        if not any(one.earlier for one in found.requests):
            assert held <= asked if self.audits else held == asked

    def _follow(self, row: dict[str, Any], found: Explanation, order: Order) -> None:
        self.proofs[order.proof] = self.proofs.get(order.proof, 0) + 1
        merge = row["merge"]
        entries = {entry["doc_id"]: entry for entry in row["ranking"]}
        proven = entries[order.upper]["certified"]
        if entries[order.lower]["score"] is None:
            assert order.proof == "unscored"
            return
        assert order.proof in PROVEN or not proven, order
        if order.proof not in PROVEN:
            assert not order.chain
            self._no_request_decides(found, order, merge)
            return
        if order.proof == "comparable":
            (fact,) = order.chain
            assert merge["verdict"].startswith("absolute")
            assert (fact.upper, fact.lower) == (order.upper, order.lower)
            for name, score in ((fact.upper, fact.upper_score), (fact.lower, fact.lower_score)):
                assert score == entries[name]["raw_score"] and score in self._scores(found.query_id, name)
            assert fact.upper_score >= fact.lower_score
            return
        at = order.upper
        self.longest = max(self.longest, len(order.chain))
        for fact in order.chain:
            assert fact.upper == at
            at = fact.lower
            assert fact.upper_score >= fact.lower_score and fact.tie == (fact.upper_score == fact.lower_score)
            self._is_so(found, fact)
        assert at == order.lower
        assert (order.proof == "tie") == all(fact.tie for fact in order.chain)

    def _is_so(self, found: Explanation, fact: Any) -> None:
        """One answer of the server holds both, with these scores; and the request that is named may be it."""
        query = self.asked[found.query_id]
        upper, lower = (self.texts[found.query_id, name] for name in (fact.upper, fact.lower))
        known = [
            scores for q, scores in self.api.answers if q == query and upper in scores and lower in scores
        ]
        same = [s for s in known if (s[upper], s[lower]) == (fact.upper_score, fact.lower_score)]
        assert same
        if fact.tie:  # it says nothing where another answer separates the two
            assert all(scores[upper] == scores[lower] for scores in known)
        request = found.requests[fact.request - 1]
        if request.key is not None:
            assert request.documents in {len(scores) for scores in same}
            assert request.request_id in {
                f"answer-{n}" for n, (_, s) in enumerate(self.api.answers, 1) if any(s is one for one in same)
            }

    def _no_request_decides(self, found: Explanation, order: Order, merge: dict[str, Any]) -> None:
        """Where nothing is said to prove it, no request orders the two, or answers contradict each other."""
        if order.proof == "contradiction":
            assert not merge["certified"]
            return
        query = self.asked[found.query_id]
        upper, lower = (self.texts[found.query_id, name] for name in (order.upper, order.lower))
        for q, scores in self.api.answers:
            if q == query and upper in scores and lower in scores:
                assert scores[upper] == scores[lower] or merge["method"] in ("rrf", "raw")

    def _scores(self, query_id: str, name: str) -> set[float]:
        text = self.texts[query_id, name]
        return {s[text] for q, s in self.api.answers if q == self.asked[query_id] and text in s}


def pairs(checker: Checker, count: int, seed: int) -> list[tuple[str, str, str]]:
    """So many random queries, each with two of its documents."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        query = rng.choice(sorted(checker.rows))
        names = [entry["doc_id"] for entry in checker.rows[query]["ranking"]]
        found.append((query, rng.choice(names), rng.choice(names)))
    return found
