"""Which documents the probe and the hub hold."""

from collections.abc import Sequence
from math import exp, lgamma, log

import numpy as np

from batchrank.arrays import Positions
from batchrank.merge.answers import FirstPass, Pool

DELTA = 0.1  # how often a hub without repairs may miss the cutoff
REFERENCES = 8  # documents that several hubs share
SWAP = 2  # places by which a quantile may give way to a shorter document


def probe(pool: Pool) -> Positions:
    """At least 12 documents, at least one of each chunk, at mixed first-stage quantiles.

    Chosen before any score is known, so that the probe goes out with the first pass.
    """
    chunks = [np.sort(pool.index(np.asarray(chunk))) for chunk in pool.shards.chunks]
    each = -(-12 // len(chunks))
    picked = []
    for i, chunk in enumerate(chunks):
        places = ((np.arange(each) + (i + 0.5) / len(chunks)) / each * len(chunk)).astype(np.intp)
        picked.append(chunk[np.unique(places)])
    # One of each chunk comes first: what doesn't fit one request is cut off behind.
    turns = np.concatenate([np.arange(len(docs)) for docs in picked])
    docs = np.concatenate(picked)[np.argsort(turns, kind="stable")][: max(12, len(chunks))]
    return longest_fitting(pool, docs)


def longest_fitting(pool: Pool, docs: Positions) -> Positions:
    """The longest prefix that fits one request."""
    low, high = 0, min(len(docs), pool.limit)
    if pool.fits(docs[:high]):
        return docs[:high]
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if pool.fits(docs[:middle]) else (low, middle)
    return docs[:low]


def heads(lengths: Sequence[int], k: int, delta: float = DELTA) -> Positions:
    """How many heads of each piece the hub needs.

    For each piece the least q for which it has q of the k - 1 best documents with probability ``delta`` / pieces at
    most: P(Binomial(k - 1, its share of the list) >= q). So with probability 1 - ``delta`` no piece has.
    """
    total, trials = sum(lengths), max(min(k, sum(lengths)) - 1, 0)
    kinds, which = np.unique(lengths, return_inverse=True)
    least = [
        max(int(np.argmax(np.r_[_binomial_tail(trials, length / total), 0] <= delta / len(lengths))), 1)
        for length in kinds.tolist()
    ]
    return np.array(least, dtype=np.intp)[which]


def _binomial_tail(trials: int, share: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """P(Binomial(trials, share) >= q) for q = 0..trials."""
    if share >= 1:
        return np.ones(trials + 1)
    whole, odds, rest = lgamma(trials + 1), log(share), log(1 - share)
    mass = [
        exp(whole - lgamma(q + 1) - lgamma(trials - q + 1) + q * odds + (trials - q) * rest)
        for q in range(trials + 1)
    ]
    return np.cumsum(mass[::-1])[::-1]


def quantiles(lengths: Sequence[int], limit: int) -> Positions:
    """How many quantiles of each piece the hub takes: some for a piece of mean length, more for a longer one."""
    each = min(max(limit // 60, 3), 8)
    shares = np.asarray(lengths) * (each * len(lengths) / sum(lengths))
    return np.maximum(np.rint(shares), 1).astype(np.intp)


def hubs(pool: Pool, first: FirstPass, k: int) -> list[Positions]:
    """The documents of each hub: one, unless limits bind.

    Cases:
    1. All fit one request.
    2. They do once quantiles give way to shorter documents near by.
    3. Several hubs, heads first, that share a few references.
    """
    lengths = [len(piece) for piece in first.pieces]
    q = heads(lengths, k)
    heads_, others = _places(first, q, quantiles(lengths, pool.limit))
    docs = np.concatenate([heads_, others])
    if pool.fits(docs):
        return [docs]
    others = _shorter(pool, first, heads_, others)
    docs = np.concatenate([heads_, others])
    if pool.fits(docs):
        return [docs]
    return _several(pool, first, docs)


def _places(first: FirstPass, q: Positions, t: Positions) -> tuple[Positions, Positions]:
    """Heads (all first places, then all second ones, ...) and the staggered quantiles with the last places."""
    count = len(first.pieces)
    heads_, others = [], []
    for i, piece in enumerate(first.pieces):
        length = len(piece)
        # Of a short piece, quantiles are given up first, then heads; the last document stays.
        tops, steps = min(int(q[i]), length), min(int(t[i]), max(length - int(q[i]) - 1, 0))
        stagger = (np.arange(steps) + (i + 0.5) / count) / max(steps, 1)
        places = np.unique(np.r_[tops + np.floor((length - tops) * stagger).astype(np.intp), length - 1])
        heads_.append(piece.docs[:tops])
        others.append(piece.docs[places[places >= tops]])
    layers = np.concatenate([np.arange(len(docs)) for docs in heads_])
    return np.concatenate(heads_)[np.argsort(layers, kind="stable")], np.concatenate(others)


def _shorter(pool: Pool, first: FirstPass, heads_: Positions, others: Positions) -> Positions:
    """Replace each quantile by the shortest document near it that isn't taken."""
    sizes = np.asarray(pool.shards.sizes)[pool.positions]
    taken = set(heads_.tolist()) | set(others.tolist())
    chosen = []
    for doc in others.tolist():
        docs, place = first.pieces[first.piece[doc]].docs, int(first.place[doc])
        near = [
            d for d in docs[max(place - SWAP, 0) : place + SWAP + 1].tolist() if d == doc or d not in taken
        ]
        best = min(near, key=lambda d: (sizes[d], abs(int(first.place[d]) - place), d))
        taken.add(best)
        chosen.append(best)
    return np.array(chosen, dtype=np.intp)


def _several(pool: Pool, first: FirstPass, docs: Positions) -> list[Positions]:
    """Spread the hub over requests that share references at even quantiles."""
    spread = docs[np.argsort(first.tiebreak[docs], kind="stable")]
    count = min(REFERENCES, pool.limit // 2)
    shared = longest_fitting(pool, spread[np.unique(np.linspace(0, len(spread) - 1, count).astype(np.intp))])
    while len(shared) > 2 and not pool.fits(np.r_[shared, _largest(pool, docs, shared)]):
        shared = shared[:-1]
    rest = docs[~np.isin(docs, shared)]
    parts = []
    while len(rest):
        part = longest_fitting(pool, np.concatenate([shared, rest]))
        if len(part) <= len(shared):
            break
        parts.append(part)
        rest = rest[len(part) - len(shared) :]
    return parts


def _largest(pool: Pool, docs: Positions, shared: Positions) -> Positions:
    rest = docs[~np.isin(docs, shared)]
    sizes = np.asarray(pool.shards.sizes)[pool.positions[rest]]
    return rest[[int(np.argmax(sizes))]] if len(rest) else rest
