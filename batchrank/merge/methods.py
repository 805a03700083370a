"""The table of merge methods, and what all of them begin with."""

from collections.abc import Generator
from typing import Protocol

import numpy as np

from batchrank.merge.answers import FirstPass, Pool, Reply, ask, consult, merged, overlap
from batchrank.merge.certificate import certify
from batchrank.merge.full import full
from batchrank.merge.hub import probe as probe_documents
from batchrank.merge.hub_ import hub
from batchrank.merge.rounds import Method, Round, Shards, Step
from batchrank.merge.rrf import rrf
from batchrank.merge.simple import raw
from batchrank.merging import Chunk, Merged, Scores, Verdict


class Build(Protocol):
    """A method after the first pass."""

    def __call__(
        self, pool: Pool, first: FirstPass, verdict: Verdict, *, top_k: int
    ) -> Generator[Step, Reply, Merged]:
        """Go on from a first pass of at least two answers."""


METHODS: dict[str, Build] = {"hub": hub, "full": full, "rrf": rrf, "raw": raw}
BLIND = frozenset({"rrf"})  # methods to which the verdict makes no difference


def start(method: str, shards: Shards, *, top_k: int, probe: bool = False) -> Method:
    """Start merging one query.

    Args:
        method: a name in ``METHODS``.
        shards: the query's chunks, at least one, and what fits a request.
        top_k: documents, the depth that must be exact.
        probe: whether this query carries the probe, as ``Verdicts.carries_probe`` says.

    Cases:
    1. One chunk, answered as a whole: its order is the ranking, whatever the method and the verdict.
    2. At most one answer comes: its own order is all there is to know.
    3. Otherwise (several chunks, or one that came back in parts) the method goes on from the first pass and the
    verdict.
    """
    many = len(shards.chunks) > 1
    asks = method not in BLIND
    if many:
        pool = Pool(shards)
        first = yield from _first_pass(pool, probe=probe and asks)
    else:
        chunk = Chunk(np.asarray(shards.chunks[0], dtype=np.intp))
        reply = yield Round([chunk])
        assert not isinstance(reply, str)
        if len(reply) == 1 and len(reply[0].documents) == len(chunk):
            return _whole(reply[0])
        pool = Pool(shards)
        pool.learn([chunk], reply)
        first = FirstPass(len(pool), [pool.answer(scores) for scores in reply if len(scores.documents)])
    if len(first.pieces) <= 1:
        return _alone(pool, first, method if many else "single")
    verdict: Verdict = "unknown"
    if asks:
        verdict = yield from consult(overlap(first, first.probes))
    return (yield from METHODS[method](pool, first, verdict, top_k=top_k))


def _whole(scores: Scores) -> Merged:
    """The ranking by one answer that holds every document: most lists end here, so it does nothing else."""
    values = np.asarray(scores.values, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    best = values[order]
    return Merged(scores.documents[order], best, best, len(order), "single")


def _first_pass(pool: Pool, *, probe: bool) -> Generator[Step, Reply, FirstPass]:
    """Send every chunk and, in the same round, the probe."""
    chunks = [Chunk(np.asarray(chunk, dtype=np.intp)) for chunk in pool.shards.chunks]
    count = len(chunks)
    if probe:
        chunks.append(pool.chunk(probe_documents(pool), "probe"))
    answers = yield from ask(pool, chunks)
    pieces = [answer for answer in answers if answer.chunk < count]
    return FirstPass(len(pool), pieces, [answer for answer in answers if answer.chunk >= count])


def _alone(pool: Pool, first: FirstPass, method: str) -> Merged:
    """The order of the only answer, unless the probe contradicts it."""
    proof = certify(first, first.probes)
    order = proof.order if proof.consistent else first.by(first.raw)
    return merged(pool, first, order, first.raw[order], method=method, certified=proof.depth)
