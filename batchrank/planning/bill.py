"""Foretells what a merge method sends for a list, by scores made up so that no known answer contradicts them.

``Forecast`` goes by the list's shape alone, as if nothing were known of it; a ``World`` holds what is known of it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass, Pool, Round
from batchrank.merge.certificate import certify
from batchrank.merge.evidence import Evidence
from batchrank.merge.reuse import Earlier
from batchrank.merge.scale import falling
from batchrank.merge.start import start
from batchrank.models import searches
from batchrank.outcomes import Scores
from batchrank.shard.chunks import QueryShards


@dataclass(slots=True)
class Bill:
    """What one merge method would send; tokens and searches as predicted, seconds at the full quota."""

    requests: int = 0
    documents: int = 0
    tokens: int = 0
    searches: int = 0
    cost: float | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Net(Bill):
    """What tonight's run would send, given what the ledger knows.

    Attributes:
        reused: documents that get a score although nothing is asked about them tonight.
        saved_tokens: tokens less than without the ledger.
        saved_cost: cost less than without it; None without a price.
    """

    reused: int = 0
    saved_tokens: int = 0
    saved_cost: float | None = None


class Forecast:
    """Requests, documents and searches of each merge method, by the shape of the list."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, tuple[int, ...]], tuple[int, int, int]] = {}

    def of(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        """Requests, documents and searches that a list would take."""
        lengths = tuple(len(chunk) for chunk in shards.chunks)
        if len(lengths) == 1:
            return 1, lengths[0], searches(lengths[0])
        key = method, top_k, lengths
        if key not in self._known:
            self._known[key] = self._drive(method, shards, top_k)
        return self._known[key]

    def _drive(self, method: str, shards: QueryShards, top_k: int) -> tuple[int, int, int]:
        requests = documents = searched = 0
        merging = start(method, shards, top_k=top_k)
        reply: Any = None
        while True:
            try:
                step = merging.send(reply)
            except StopIteration:
                return requests, documents, searched
            reply = "relative"
            if isinstance(step, Round):
                requests += len(step.chunks)
                documents += sum(map(len, step.chunks))
                searched += sum(searches(len(chunk)) for chunk in step.chunks)
                reply = [Scores(c.documents, scrambled(c.documents), i) for i, c in enumerate(step.chunks)]


_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of the golden ratio, modulo 1, are spread evenly and in no order: a scramble without a seed."""

_STEP = 1e-9
"""How far equal estimates are drawn apart, as a share of their range: more would bend the scale near 0 and 1."""


def scrambled(documents: Positions) -> Floats:
    """Scores, consistent between requests: a scramble of the position, as if the first stage knew little."""
    value: Floats = (documents.astype(np.float64) + 1) * _GOLDEN % 1.0
    return value


@dataclass(slots=True, eq=False)
class World:
    """What is known of a query, and made up.

    Attributes:
        pool: its documents that can be sent.
        n: all of its documents.
        told: what answers tell of them.
    """

    pool: Pool
    n: int
    told: list[Earlier]
    _asked: list[Positions] = field(default_factory=list)
    _scores: Floats | None = None

    def learn(self, one: Earlier) -> None:
        """Take in an answer."""
        self.told.append(one)
        self._scores = None

    def scores(self, documents: Positions) -> Floats:
        """Scores of documents that are asked about."""
        self._asked.append(documents)
        if self._scores is None:
            self._scores = self._made_up()
        return self._scores[documents]

    def repeated(self, documents: Positions) -> Floats:
        """Scores of documents of one answer, as that told them: of the shortest, where several hold them all."""
        for one in sorted(self.told, key=lambda one: len(one.documents)):
            if np.isin(documents, one.documents).all():
                order = np.argsort(one.documents, kind="stable")
                return one.values[order[np.searchsorted(one.documents[order], documents)]]
        return scrambled(documents)

    @property
    def reused(self) -> int:
        """How many documents something is known of, and nothing was asked."""
        known = np.zeros(self.n, dtype=bool)
        for one in self.told:
            known[one.documents] = True
        for documents in self._asked:
            known[documents] = False
        return int(known.sum())

    def _made_up(self) -> Floats:
        """Scores of all documents that contradict no answer, as far as these don't contradict each other.

        What the answers leave open stands in the order of the estimates that a ranking makes of them, on the scale of
        the hubs where there are some. What no answer tells of is spread evenly among the others.
        """
        scores = scrambled(np.arange(self.n))
        answers = [(one.purpose, Answer.of(one.documents, one.values)) for one in self.told]
        free = np.ones(self.n, dtype=bool)
        pieces = []
        for _, answer in sorted(answers, key=lambda one: (one[0] != "pass", -len(one[1]))):
            piece = answer.only(free)
            if len(piece):
                pieces.append(piece)
                free[piece.docs] = False
        if not pieces:
            return scores
        first = FirstPass(self.n, pieces)
        hubs = [answer for purpose, answer in answers if purpose == "hub"]
        whole = {id(one) for one in (*pieces, *hubs)}
        others = [answer for _, answer in answers if id(answer) not in whole]
        value = first.raw if len(pieces) == 1 else 1 - first.quantile
        if hubs:
            known = Evidence(self.pool, first, hubs, "relative", others)
            value, proof = known.values(), known.certify()
        else:
            proof = certify(first, others)
        order = first.by(value) if proof.graph is None else proof.order
        levels = falling(value[order])
        if hubs:
            levels = known.estimate.score(levels)
        scores[order] = _apart(levels, None if proof.graph is None else proof.graph.node[order])
        scores[free] = np.quantile(scores[order], scores[free])
        return scores


def _apart(levels: Floats, nodes: Positions | None) -> Floats:
    """Levels that fall strictly, but for documents of one node, which all answers tie."""
    places = np.arange(len(levels))
    if nodes is not None:
        places = np.maximum.accumulate(np.where(np.r_[True, nodes[1:] != nodes[:-1]], places, 0))
    step = _STEP * (np.ptp(levels) or 1.0) / len(levels)
    return np.asarray(levels[places] - step * places)
