"""Merges by a hub, the default: one more request, with some of every chunk, proves the top and scales the rest."""

from collections.abc import Generator, Sequence

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass, Pool, Reply, Step, ask
from batchrank.merge.certificate import Certificate, contenders
from batchrank.merge.evidence import Evidence
from batchrank.merge.heads import REFERENCES, heads, places, quantiles
from batchrank.merge.reuse import Memory
from batchrank.merge.scale import by_raw_score, by_standard_score
from batchrank.merge.trust import contradicts
from batchrank.outcomes import ABSOLUTE, Merged, Verdict

SWAP = 2
"""Places by which a quantile may give way to a shorter document: it stays about where it was."""


def probe(pool: Pool, pieces: Sequence[Positions]) -> Positions:
    """At least 12 documents, at least one of each piece, at mixed first-stage quantiles.

    Chosen before any score is known, so that the probe goes out with the first pass.
    """
    chunks = [np.sort(pool.index(np.asarray(piece))) for piece in pieces]
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


def hubs(pool: Pool, first: FirstPass, k: int) -> list[Positions]:
    """The documents of each hub: one, unless limits bind.

    Cases:
    1. All fit one request.
    2. They do once quantiles give way to shorter documents near by.
    3. Several hubs, heads first, that share a few references.
    """
    lengths = [len(answer) for answer in first.answers]
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
    count = len(first.answers)
    heads_, others = [], []
    for i, answer in enumerate(first.answers):
        tops, later = places(len(answer), int(q[i]), int(t[i]), i, count)
        heads_.append(answer.docs[:tops])
        others.append(answer.docs[later])
    layers = np.concatenate([np.arange(len(docs)) for docs in heads_])
    return np.concatenate(heads_)[np.argsort(layers, kind="stable")], np.concatenate(others)


def _shorter(pool: Pool, first: FirstPass, heads_: Positions, others: Positions) -> Positions:
    """Replace each quantile by the shortest document near it that isn't taken."""
    sizes = np.asarray(pool.shards.sizes)[pool.positions]
    taken = set(heads_.tolist()) | set(others.tolist())
    chosen = []
    for doc in others.tolist():
        docs, place = first.answers[first.answer_of[doc]].docs, int(first.place[doc])
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


PATIENCE = 3
"""Repairs without progress before it is given up, so that a list of near ties ends."""


class ModelChangedError(Exception):
    """Tonight's answers contradict earlier ones by more than noise explains."""


def hub(
    pool: Pool,
    first: FirstPass,
    verdict: Verdict,
    *,
    top_k: int,
    memory: Memory | None = None,
    noise: float | None = None,
) -> Generator[Step, Reply, Merged]:
    """Hub, then repairs until the top k is proven or can't be."""
    known = yield from gather(pool, first, verdict, top_k=top_k, memory=memory, noise=noise)
    if isinstance(known, Merged):
        return known
    return known.consistent("hub") or known.contradictory("hub")


def gather(
    pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int, memory: Memory | None, noise: float | None
) -> Generator[Step, Reply, Evidence | Merged]:
    """Ask for hub and repairs.

    Cases:
    1. The verdict is absolute: the raw scores are the ranking.
    2. The hub was lost twice: the standard scores are.
    3. Otherwise return the evidence.

    Raises:
        ModelChangedError: see there; what earlier runs told is of no use.
    """
    if verdict in ABSOLUTE:
        return by_raw_score(pool, first, verdict)
    known = yield from _ask_hubs(pool, first, top_k, verdict, memory)
    if known is None:
        return by_standard_score(pool, first, verdict)
    if memory is not None and contradicts(memory, [*first.answers[len(memory.pieces) :], *known.hubs], noise):
        raise ModelChangedError
    known.extra += first.probes
    # With a memory, proving the top must not cost more than asking everything anew would.
    most = None if memory is None else memory.anew(top_k)
    yield from _repair(known, min(top_k, len(known.first.scored)), most)
    return known


def _ask_hubs(
    pool: Pool, first: FirstPass, top_k: int, verdict: Verdict, memory: Memory | None
) -> Generator[Step, Reply, Evidence | None]:
    """Ask for the hubs, for a lost one twice; anew, and smaller, where they were too large.

    Hubs that were halved are no common scale, but what the halves' answers tell stays known. Where earlier hubs are
    scale enough and prove the top, nothing is asked.
    """
    planned = pool.tokens
    parts = _planned(pool, first, top_k, memory)
    answers = (yield from ask(pool, [pool.chunk(docs, "hub") for docs in parts])) if parts else []
    extra: list[Answer] = []
    if pool.tokens != planned:
        smaller = _planned(pool, first, top_k, memory)
        if not all(map(np.array_equal, smaller, parts)):
            extra, parts = answers, smaller
            answers = yield from ask(pool, [pool.chunk(docs, "hub") for docs in parts])
    lost = sorted(set(range(len(parts))) - {answer.chunk for answer in answers})
    if lost:
        answers += yield from ask(pool, [pool.chunk(parts[i], "hub") for i in lost])
    if memory is None:
        return Evidence(pool, first, answers, verdict, extra) if answers else None
    if not answers and not memory.scaled:
        return None
    whole = _with_new(first, [*answers, *extra])
    return Evidence(pool, whole, answers, verdict, [*extra, *memory.chains], memory.hubs)


def _planned(pool: Pool, first: FirstPass, k: int, memory: Memory | None) -> list[Positions]:
    """The documents of each hub; with a memory only those that it leaves open."""
    if memory is None:
        return hubs(pool, first, k)
    if memory.settled(k):
        return []
    docs = np.concatenate([memory.leading(k), memory.scaling])
    fresh = first.answers[len(memory.pieces) :]
    if fresh:
        later = FirstPass(len(first), fresh)
        lengths = [len(answer) for answer in first.answers]
        q, t = heads(lengths, k)[-len(fresh) :], quantiles(lengths, pool.limit)[-len(fresh) :]
        docs = np.concatenate([docs, *_places(later, q, t)])
    else:
        docs = np.concatenate([docs, memory.new])
    _, seen = np.unique(docs, return_index=True)
    docs = docs[np.sort(seen)]
    return [docs] if pool.fits(docs) else _several(pool, first, docs)


def _with_new(first: FirstPass, answers: Sequence[Answer]) -> FirstPass:
    """A first pass with what it lacks, taken from later answers: documents that were asked about in a hub only."""
    found = list(first.answers)
    known = first.answer_of >= 0
    for answer in answers:
        piece = answer.only(~known)
        if len(piece):
            found.append(piece)
            known[piece.docs] = True
    return FirstPass(len(first), found, first.probes) if len(found) > len(first.answers) else first


def _repair(known: Evidence, k: int, most: int | None) -> Generator[Step, Reply, None]:
    """Send those that may still belong to the top k until it is proven, or until so many documents were asked about.

    Nothing is sent when answers contradict each other (there is no order to prove), or when the same documents
    were in one request already (the answer is known).
    """
    certificate, stuck = known.certify(), 0
    while certificate.consistent and certificate.depth < k and stuck < PATIENCE:
        docs = _chosen(known, certificate, k)
        if any(np.isin(docs, answer.docs).all() for answer in [*known.first.answers, *known.chains]):
            return
        if most is not None and known.pool.asked + len(docs) > most:
            return
        known.extra += yield from ask(known.pool, [known.pool.chunk(docs, "repair")])
        before, certificate = certificate.depth, known.certify()
        stuck = 0 if certificate.depth > before else stuck + 1


def _chosen(known: Evidence, certificate: Certificate, k: int) -> Positions:
    """The documents of a repair.

    Cases:
    1. All contenders fit one request.
    2. They don't: all sources, then the first few of each answer, then by estimated value, as many as fit.
    """
    first, pool = known.first, known.pool
    docs = contenders(certificate, first, k)
    if pool.fits(docs):
        return docs
    contends = np.zeros(len(first), dtype=bool)
    contends[docs] = True
    each = max(pool.limit // (2 * len(first.answers)), 1)
    tops = [answer.docs[contends[answer.docs]] for answer in first.answers]
    value = known.values()
    sources = _by(value, certificate.sources())
    leading = _by(value, np.concatenate([top[:each] for top in tops]))
    rest = _by(value, docs)
    wanted = np.concatenate([sources, leading, rest])
    _, seen = np.unique(wanted, return_index=True)
    return longest_fitting(pool, wanted[np.sort(seen)])


def _by(value: Floats, docs: Positions) -> Positions:
    return docs[np.lexsort((docs, -value[docs]))]
