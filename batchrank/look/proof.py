"""Finds in the answers what proves that one document stands above another: a chain of "scored above, in one request".

The ranking itself is merged by the run's own code, and whether ties count is what merging found; this only looks for
the shortest chain of facts, each of which anybody can check by the scores of one request.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from batchrank.data import Floats, Positions, Purpose
from batchrank.merge.answers import Answer, FirstPass
from batchrank.merge.certificate import certify


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one request told of the query's documents.

    Attributes:
        documents: positions of its documents.
        values: their scores.
        purpose: why it was asked.
        run: the run that asked.
        at: when it was answered, in seconds since 1970; 0 where nobody knows.
        round: its round and ``chunk``, from 1; 0 where an earlier run asked, and only its answer is known.
        key: what the ledger knows it by, in hexadecimal digits; empty likewise.
        request_id: the API's name for it, empty where it gave none.
        tokens: tokens billed.
        whole: whether all of its documents are still candidates.
        server: the address of who answered, and the name of the key; both empty where nobody knows.
    """

    documents: Positions
    values: Floats
    purpose: Purpose
    run: int
    at: int
    round: int = 0
    chunk: int = 0
    key: str = ""
    request_id: str = ""
    tokens: int | None = None
    whole: bool = True
    server: tuple[str, str] = ("", "")

    def score(self, document: int) -> float | None:
        """The score of a document; None where it wasn't in it."""
        found = np.flatnonzero(self.documents == document)
        return float(self.values[found[0]]) if len(found) else None

    def rank(self, document: int) -> int | None:
        """A document's rank in it, from 1: one more than have a higher score."""
        score = self.score(document)
        return None if score is None else int((self.values > score).sum()) + 1


@dataclass(frozen=True, slots=True)
class Link:
    """One fact: a document scored above another in one request, or the same.

    Attributes:
        request: the answer's index.
        upper: the document above, and ``upper_score`` its score there.
        lower: the one below, and ``lower_score`` its score there.
    """

    request: int
    upper: int
    upper_score: float
    lower: int
    lower_score: float

    @property
    def tie(self) -> bool:
        """Whether both have the same score."""
        return self.upper_score == self.lower_score


class Proofs:
    """Finds chains in a query's answers.

    Attributes:
        consistent: whether no answer contradicts another; if one does, no chain proves anything.
        ties: whether documents that an answer ties count as equal, because no other answer separates them.

    Args:
        told: the answers.
        n: how many documents the query has.
    """

    def __init__(self, told: Sequence[Told], n: int) -> None:
        self.told = told
        self._answers = [Answer.of(one.documents, np.asarray(one.values, dtype=np.float64)) for one in told]
        self._place = [np.full(n, -1, dtype=np.intp) for _ in told]
        for place, answer in zip(self._place, self._answers, strict=True):
            place[answer.docs] = np.arange(len(answer))
        free = np.ones(n, dtype=bool)
        pieces = []
        order = sorted(range(len(told)), key=lambda i: (told[i].purpose != "pass", -len(told[i].documents)))
        for number in order:
            piece = self._answers[number].only(free)
            if len(piece):
                pieces.append(piece)
                free[piece.docs] = False
        proof = certify(FirstPass(n, pieces), self._answers)
        self.consistent = proof.graph is not None
        self.ties = proof.graph is not None and proof.graph.ties

    def chain(self, top: int, bottom: int) -> list[Link] | None:
        """The shortest chain from one document down to another; None where there is none, or answers contradict.

        Each answer is walked through once: what stands below a place of it was reached from the first such place.
        """
        if not self.consistent:
            return self.direct(top, bottom)
        came: dict[int, Link] = {}
        reached = [len(answer) for answer in self._answers]
        queue = deque([top])
        while queue and bottom not in came:
            document = queue.popleft()
            for number, answer in enumerate(self._answers):
                place = int(self._place[number][document])
                if place < 0:
                    continue
                first = self._below(answer, place)
                for at in range(first, reached[number]):
                    other = int(answer.docs[at])
                    if other != document and other not in came and other != top:
                        came[other] = self._link(number, document, other)
                        queue.append(other)
                reached[number] = min(reached[number], first)
        return _walked(came, top, bottom) if bottom in came else None

    def direct(self, top: int, bottom: int) -> list[Link] | None:
        """One request that has the first above the second, where all that hold both agree; None otherwise."""
        both = [link for link in self.between(top, bottom) if not link.tie]
        return both[:1] if both and all(link.upper == top for link in both) else None

    def between(self, one: int, other: int) -> list[Link]:
        """What each request says that held both."""
        found = []
        for number, place in enumerate(self._place):
            if place[one] >= 0 and place[other] >= 0:
                link = self._link(number, one, other)
                found.append(link if link.upper_score >= link.lower_score else self._link(number, other, one))
        return found

    def _below(self, answer: Answer, place: int) -> int:
        """The first place that is below another, or tied with it where ties count."""
        falling = -answer.values
        side: Literal["left", "right"] = "left" if self.ties else "right"
        return int(np.searchsorted(falling, -answer.values[place], side=side))

    def _link(self, number: int, upper: int, lower: int) -> Link:
        values, place = self._answers[number].values, self._place[number]
        return Link(number, upper, float(values[place[upper]]), lower, float(values[place[lower]]))


def _walked(came: dict[int, Link], top: int, bottom: int) -> list[Link]:
    chain = [came[bottom]]
    while chain[-1].upper != top:
        chain.append(came[chain[-1].upper])
    return chain[::-1]
