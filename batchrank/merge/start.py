"""Starts merging one query: from its chunks, or from what earlier runs told of its documents."""

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from batchrank.data import Positions
from batchrank.merge.agreement import agreement
from batchrank.merge.answers import (
    Answer,
    FirstPass,
    Method,
    Noticed,
    Pool,
    Reply,
    Round,
    Shards,
    Step,
    ask,
    consult,
    merged,
    overlap,
)
from batchrank.merge.certificate import certify
from batchrank.merge.hub import ModelChangedError
from batchrank.merge.hub import probe as probe_documents
from batchrank.merge.methods import BLIND, COMPARING, METHODS
from batchrank.merge.reuse import Earlier, Memory
from batchrank.merge.trust import Audit
from batchrank.outcomes import ABSOLUTE, Chunk, Finding, Merged, Scores, Verdict


def start(
    method: str,
    shards: Shards,
    *,
    top_k: int,
    probe: bool = False,
    earlier: Sequence[Earlier] = (),
    barred: Positions | None = None,
    audit: int | None = None,
    noise: float | None = None,
) -> Method:
    """Start merging one query.

    Args:
        method: a name in ``METHODS``.
        shards: the query's chunks, at least one, and what fits a request.
        top_k: documents, the depth that must be exact.
        probe: whether this query carries the probe, as ``Verdicts.carries_probe`` says.
        earlier: answers of earlier runs, the oldest run's first.
        barred: document positions that are known to be refused; None for none.
        audit: a number that tells this run from others, where one of them is asked again first, to see whether it still
            holds; None where it isn't.
        noise: the share of pairs that two new answers order differently, as far as audits showed; None if none did.

    Cases:
    1. Earlier answers tell enough of its documents: only the rest is asked, see ``reuse``.
    2. One chunk, answered as a whole: its order is the ranking, whatever the method and the verdict.
    3. At most one answer comes: its own order is all there is to know.
    4. Otherwise (several chunks, or one that was halved) the method goes on from the first pass and the
    verdict.
    """
    if earlier:
        found = yield from _again(method, shards, top_k, probe, earlier, barred, audit, noise)
        if found is not None:
            return found
    many = len(shards.chunks) > 1
    asks = method not in BLIND
    if many:
        pool = Pool(shards)
        first = yield from _first_pass(pool, probe=probe and asks)
    else:
        chunk = Chunk(np.asarray(shards.chunks[0], dtype=np.intp))
        reply = yield Round([chunk])
        assert reply is not None and not isinstance(reply, str)
        if len(reply) == 1 and len(reply[0].documents) == len(chunk):
            return _whole(reply[0])
        pool = Pool(shards)
        pool.learn([chunk], reply)
        first = FirstPass(len(pool), [pool.answer(scores) for scores in reply if len(scores.documents)])
    if len(first.answers) <= 1:
        return _alone(pool, first, method if many else "single")
    verdict: Verdict = "unknown"
    if asks:
        verdict = yield from consult(overlap(first, first.probes))
    return (yield from METHODS[method](pool, first, verdict, top_k=top_k, memory=None, noise=None))


_NONE: Positions = np.empty(0, dtype=np.intp)


def _again(
    method: str,
    shards: Shards,
    top_k: int,
    probe: bool,
    earlier: Sequence[Earlier],
    barred: Positions | None,
    audit: int | None,
    noise: float | None,
) -> Generator[Step, Reply, Merged | None]:
    """Rank by what earlier runs told, and ask the rest; None where all is to be asked as ever.

    A probe needs no second look at documents that are asked about anyway: it goes out with the new documents' chunks.
    """
    pool = Pool(shards)
    memory = Memory.of(pool, earlier, _NONE if barred is None else barred)
    finding = None if audit is None else (yield from _audited(pool, earlier, audit))
    if memory is None or (finding is not None and finding.changed):
        return None
    if finding is not None:
        noise = max(noise or 0.0, finding.noise)
    asks, compares = method not in BLIND, method in COMPARING
    first = memory.first
    verdict: Verdict = "unknown"
    if probe and asks:
        if compares and not memory.worth(top_k):
            return None
        first = yield from _new_chunks(memory, probe=True)
    if asks:
        verdict = yield from consult(overlap(first, first.probes))
    absolute = verdict in ABSOLUTE
    if absolute and finding is not None and finding.differs:
        yield Noticed(replace(finding, changed=True), audit=False)
        return None
    compares = compares and not absolute
    if compares and not memory.worth(top_k):
        return None
    together = np.concatenate([memory.leading(top_k), memory.scaling, memory.new]) if compares else None
    if first is memory.first and (together is None or not pool.fits(np.unique(together))):
        first = yield from _new_chunks(memory, probe=False)
    if len(first.answers) <= 1 and not len(memory.new[first.answer_of[memory.new] < 0]):
        return replace(_alone(pool, first, method, memory.chains), recalled=True)
    try:
        found = yield from METHODS[method](pool, first, verdict, top_k=top_k, memory=memory, noise=noise)
        return replace(found, recalled=True)
    except ModelChangedError:
        yield Noticed(Finding(changed=True), audit=False)
        return None


def _audited(pool: Pool, earlier: Sequence[Earlier], seed: int) -> Generator[Step, Reply, Finding | None]:
    """Ask one of the earlier answers again, and tell what came of it."""
    told = [one for one in earlier if one.purpose != "audit"] or earlier
    answers = [Answer.of(pool.index(one.documents), one.values) for one in told]
    finding = yield from Audit(pool, answers, seed).run()
    if finding is not None:
        yield Noticed(finding, audit=True)
    return finding


def _new_chunks(memory: Memory, *, probe: bool) -> Generator[Step, Reply, FirstPass]:
    """Ask about the new documents in chunks of their own, and for the probe, of known ones, in the same round."""
    pool = memory.pool
    new = pool.shards.split(pool.positions[memory.new]) if len(memory.new) else ()
    chunks = [Chunk(np.asarray(chunk, dtype=np.intp)) for chunk in new]
    count = len(chunks)
    if probe:
        known = [pool.positions[piece.docs] for piece in memory.pieces]
        chunks.append(pool.chunk(probe_documents(pool, known), "probe"))
    answers = (yield from ask(pool, chunks)) if chunks else []
    return FirstPass(
        len(pool),
        [*memory.pieces, *(answer for answer in answers if answer.chunk < count)],
        [answer for answer in answers if answer.chunk >= count],
    )


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
        chunks.append(pool.chunk(probe_documents(pool, pool.shards.chunks), "probe"))
    answers = yield from ask(pool, chunks)
    scored = [answer for answer in answers if answer.chunk < count]
    return FirstPass(len(pool), scored, [answer for answer in answers if answer.chunk >= count])


def _alone(pool: Pool, first: FirstPass, method: str, chains: Sequence[Answer] = ()) -> Merged:
    """The order of the only answer, unless the probe, or what earlier runs told, contradicts it."""
    others = [*first.probes, *chains]
    proof = certify(first, others)
    order = proof.order if proof.consistent else first.by(first.raw)
    agreed = agreement([*first.answers, *others])
    return merged(
        pool, first, order, first.raw[order], method=method, certified=proof.depth, agreement=agreed
    )
