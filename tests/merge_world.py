"""The simulated world in which merging is judged: a true order, an API that answers by it, and a driver.

Everything is drawn as the project's method paper states it, so that its figures can be checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Consult, Method, Noticed, Round
from batchrank.outcomes import Chunk, Merged, Overlap, Scores, Verdict


def truth(n: int, seed: int) -> Floats:
    """True relevance of n documents in first-stage order."""
    r = np.random.default_rng([seed, n, 1])
    rel = r.random(n) < 0.05
    t = r.normal(size=n) + 2 * rel
    f = 0.6 * (t - t.mean()) / t.std() + 0.8 * r.normal(size=n)
    return np.asarray(t[np.argsort(-f, kind="stable")])


def logistic(y: Floats, r: np.random.Generator) -> Floats:
    """Another slope and shift for each request."""
    a, b = np.exp(r.uniform(np.log(0.5), np.log(2))), r.normal()
    return np.asarray(1 / (1 + np.exp(-(a * y + b))))


def identity(y: Floats, r: np.random.Generator) -> Floats:
    """Absolute scores: a pair's score doesn't depend on its request."""
    return 1 / (1 + np.exp(-(1.5 * y - 2)))


def ordinal(y: Floats, r: np.random.Generator) -> Floats:
    """Nothing but ranks."""
    ranks = np.empty(len(y))
    ranks[np.argsort(-y, kind="stable")] = np.arange(len(y))
    return 1 - ranks / len(y)


def minmax(y: Floats, r: np.random.Generator) -> Floats:
    """Scaled to the request's own range."""
    spread = y.max() - y.min()
    return np.asarray((y - y.min()) / spread) if spread > 0 else np.full(len(y), 0.5)


def softmax(y: Floats, r: np.random.Generator) -> Floats:
    """Shares of one whole."""
    e = np.exp(1.5 * (y - y.max()))
    return np.asarray(e / e.sum())


def warped(y: Floats, r: np.random.Generator) -> Floats:
    """Scaled to the request's range and bent by a power of the request's own."""
    return np.asarray(minmax(y, r) ** np.exp(r.uniform(np.log(0.5), np.log(2))))


FAMILIES: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "minmax": minmax,
    "softmax": softmax,
    "logistic": logistic,
    "ordinal": ordinal,
    "warped": warped,
    "identity": identity,
}


@dataclass
class Api:
    """Answers requests over documents of known relevance, and counts them."""

    relevance: Floats
    family: str
    seed: int = 0
    noise: float = 0.0
    requests: int = 0
    documents: int = 0
    r: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.r = np.random.default_rng([self.seed, 77, len(self.relevance)])

    def __call__(self, documents: Positions) -> Floats:
        self.requests += 1
        self.documents += len(documents)
        y = self.relevance[documents]
        if self.noise > 0:
            y = y + self.noise * self.r.normal(size=len(y))
        return FAMILIES[self.family](y, self.r)


@dataclass
class Shards:
    """Chunks within w documents and, if given, a budget of tokens."""

    chunks: Sequence[Positions]
    limit: int
    sizes: NDArray[np.int64]
    budget: int | None = None

    def split(self, documents: Positions) -> Sequence[Positions]:
        count = -(-len(documents) // self.limit)
        return [documents[i::count] for i in range(count)]

    def fits(self, documents: Positions) -> bool:
        within = self.budget is None or int(self.sizes[documents].sum()) <= self.budget
        return within and len(documents) <= self.limit


def stratified(
    n: int, w: int, seed: int = 0, sizes: NDArray[np.int64] | None = None, budget: int | None = None
) -> Shards:
    """Each block of c neighbouring first-stage ranks gives one document to each chunk."""
    tokens = np.ones(n, dtype=np.int64) if sizes is None else sizes
    c = -(-n // w)
    while True:
        r = np.random.default_rng([seed, n, c])
        owner = np.concatenate([r.permutation(c)[: min(c, n - i)] for i in range(0, n, c)])
        shards = Shards([np.flatnonzero(owner == i) for i in range(c)], w, tokens, budget)
        if all(shards.fits(chunk) for chunk in shards.chunks):
            return shards
        c += 1


def contiguous(n: int, w: int) -> Shards:
    """What everyone else does: cut the list into runs."""
    chunks = [np.arange(i, min(i + w, n)) for i in range(0, n, w)]
    return Shards(chunks, w, np.ones(n, dtype=np.int64))


@dataclass
class Outcome:
    """A merged ranking and what it took."""

    merged: Merged
    rounds: int
    requests: int
    documents: int
    probe: Overlap | None
    sent: list[Chunk]


Respond = Callable[[Chunk, int], Sequence[tuple[Positions, Floats]]]


def drive(
    method: Method,
    respond: Respond,
    verdict: Callable[[Overlap | None], Verdict],
    noticed: list[Noticed] | None = None,
) -> Outcome:
    """Run a method to its end; ``respond`` gives no answer if a request failed, several if a chunk was halved."""
    rounds, probe = 0, None
    sent: list[Chunk] = []
    reply: Sequence[Scores] | Verdict | None = None
    while True:
        try:
            step = next(method) if reply is None else method.send(reply)
        except StopIteration as stop:
            documents = sum(len(chunk) for chunk in sent)
            return Outcome(stop.value, rounds, len(sent), documents, probe, sent)
        if isinstance(step, Round):
            rounds += 1
            reply = [
                Scores(docs, values, i)
                for i, chunk in enumerate(step.chunks)
                for docs, values in respond(chunk, len(sent) + i)
            ]
            sent += step.chunks
        elif isinstance(step, Noticed):
            assert noticed is not None
            noticed.append(step)
            reply = "unknown"
        else:
            assert isinstance(step, Consult)
            probe = step.probe
            reply = verdict(step.probe)


def whole(api: Callable[[Positions], Floats]) -> Respond:
    """Every request is answered whole."""
    return lambda chunk, number: [(chunk.documents, api(chunk.documents))]
