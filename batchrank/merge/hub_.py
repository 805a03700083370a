"""``hub``, the default: one more request that holds some of every chunk proves the top and scales the rest."""

from collections.abc import Generator

import numpy as np

from batchrank.arrays import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass, Pool, Reply, ask
from batchrank.merge.certificate import Certificate, contenders
from batchrank.merge.evidence import Evidence
from batchrank.merge.hub import hubs, longest_fitting
from batchrank.merge.rounds import Step
from batchrank.merge.simple import by_raw_score, by_standard_score
from batchrank.merging import Merged, Verdict

PATIENCE = 3  # repairs without progress


def hub(pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int) -> Generator[Step, Reply, Merged]:
    """Hub, then repairs until the top k is proven or can't be."""
    known = yield from gather(pool, first, verdict, top_k=top_k)
    if isinstance(known, Merged):
        return known
    return known.consistent("hub") or known.contradictory("hub")


def gather(
    pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int
) -> Generator[Step, Reply, Evidence | Merged]:
    """Ask for hub and repairs.

    Cases:
    1. The verdict is absolute: the raw scores are the ranking.
    2. The hub was lost twice: the standard scores are.
    3. Otherwise return the evidence.
    """
    if verdict in ("absolute", "absolute, noisy"):
        return by_raw_score(pool, first, verdict)
    known = yield from _ask_hubs(pool, first, top_k, verdict)
    if known is None:
        return by_standard_score(pool, first, verdict)
    known.extra += first.probes
    yield from _repair(known, min(top_k, len(first.scored)))
    return known


def _ask_hubs(
    pool: Pool, first: FirstPass, top_k: int, verdict: Verdict
) -> Generator[Step, Reply, Evidence | None]:
    """Ask for the hubs, for a lost one twice; anew, and smaller, where they were too large.

    Hubs that came back in parts are no common scale, but what their parts tell stays known.
    """
    planned = pool.tokens
    parts = hubs(pool, first, top_k)
    answers = yield from ask(pool, [pool.chunk(docs, "hub") for docs in parts])
    extra: list[Answer] = []
    if pool.tokens != planned:
        smaller = hubs(pool, first, top_k)
        if not all(map(np.array_equal, smaller, parts)):
            extra, parts = answers, smaller
            answers = yield from ask(pool, [pool.chunk(docs, "hub") for docs in parts])
    lost = sorted(set(range(len(parts))) - {answer.chunk for answer in answers})
    if lost:
        answers += yield from ask(pool, [pool.chunk(parts[i], "hub") for i in lost])
    return Evidence(pool, first, answers, verdict, extra) if answers else None


def _repair(known: Evidence, k: int) -> Generator[Step, Reply, None]:
    """Send those that may still belong to the top k until it is proven.

    Nothing is sent when answers contradict each other (there is no order to prove), or when the same documents
    were in one request already (the answer is known).
    """
    certificate, stuck = known.certify(), 0
    while certificate.consistent and certificate.depth < k and stuck < PATIENCE:
        docs = _chosen(known, certificate, k)
        if any(np.isin(docs, answer.docs).all() for answer in [*known.first.pieces, *known.chains]):
            return
        known.extra += yield from ask(known.pool, [known.pool.chunk(docs, "repair")])
        before, certificate = certificate.depth, known.certify()
        stuck = 0 if certificate.depth > before else stuck + 1


def _chosen(known: Evidence, certificate: Certificate, k: int) -> Positions:
    """The documents of a repair.

    Cases:
    1. All contenders fit one request.
    2. They don't: all sources, then the first few of each piece, then by estimated value, as many as fit.
    """
    first, pool = known.first, known.pool
    docs = contenders(certificate, first, k)
    if pool.fits(docs):
        return docs
    contends = np.zeros(len(first), dtype=bool)
    contends[docs] = True
    each = max(pool.limit // (2 * len(first.pieces)), 1)
    tops = [piece.docs[contends[piece.docs]] for piece in first.pieces]
    value = known.values()
    sources = _by(value, certificate.sources())
    leading = _by(value, np.concatenate([top[:each] for top in tops]))
    rest = _by(value, docs)
    wanted = np.concatenate([sources, leading, rest])
    _, seen = np.unique(wanted, return_index=True)
    return longest_fitting(pool, wanted[np.sort(seen)])


def _by(value: Floats, docs: Positions) -> Positions:
    return docs[np.lexsort((docs, -value[docs]))]
