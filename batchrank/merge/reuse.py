"""Plans a query whose documents were partly ranked before: which answers of earlier runs serve, what is still asked.

An answer restricted to the documents that are still candidates still tells their order, although the request that it
answered no longer exists. So answers of earlier runs are *pieces* of tonight's first pass, a document in one piece
only, and all of them are chains for the certificate. Documents in no piece are *new*: only they have to be asked about,
together with those that may be at the top and with some that tell the scale.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from batchrank.data import Floats, Positions, Purpose
from batchrank.merge.agreement import Discord, total
from batchrank.merge.answers import Answer, FirstPass, Pool, Shards
from batchrank.merge.certificate import Certificate, certify, contenders
from batchrank.merge.heads import REFERENCES, heads, places, quantiles

_WORTH = 0.95
"""The share of asking anew that reuse may cost: below it, it isn't worth the older answers."""
INFORMATIVE = 4
"""Documents of a piece that have to be on the hub's scale: two fit any line, and the others have to confirm it."""


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """An answer of an earlier run, restricted to tonight's documents.

    Attributes:
        documents: document positions, each once.
        values: their scores.
        purpose: why it was asked.
        run: the run that asked.
        same: whether a request of just these documents, by rising position, is the one that was asked.
        at: when it was answered, in seconds since 1970; 0 where nobody knows.
        server: the ledger's number of who answered; None where nobody knows.
    """

    documents: Positions
    values: Floats
    purpose: Purpose
    run: int
    same: bool = False
    at: int = 0
    server: int | None = None


@dataclass(frozen=True, eq=False)
class Memory:
    """What earlier runs told of a query.

    Attributes:
        pool: tonight's documents.
        answers: the earlier answers, by index, the oldest run's first.
        runs: their runs.
        pieces: the first pass, as far as it is known.
        hubs: those of the answers that were hubs.
        barred: indices of documents that are known to be refused, so that they aren't asked about.
        unasked: documents of the plain method's chunks that were never asked as they are.
    """

    pool: Pool
    answers: Sequence[Answer]
    runs: Sequence[int]
    pieces: Sequence[Answer]
    hubs: Sequence[Answer]
    barred: Positions
    unasked: int
    _leading: dict[int, Positions] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, pool: Pool, earlier: Sequence[Earlier], barred: Positions) -> "Memory | None":
        """None where nothing is known, or where all that the plain method asks first was asked as it is."""
        known = [one for one in earlier if len(one.documents)]
        unasked = _unasked(pool.shards, known)
        if not known or not unasked:
            return None
        answers = [Answer.of(pool.index(one.documents), one.values) for one in known]
        taken = np.zeros(len(pool), dtype=bool)
        pieces = []
        # First passes first, as even samples of a list; among those the largest, and of equal ones the newest.
        ranks = [(known[i].purpose != "pass", -len(answers[i]), -known[i].run, i) for i in range(len(known))]
        for *_, number in sorted(ranks):
            piece = answers[number].only(~taken)
            if len(piece):
                pieces.append(piece)
                taken[piece.docs] = True
        hubs = [answer for one, answer in zip(known, answers, strict=True) if one.purpose == "hub"]
        return cls(pool, answers, [one.run for one in known], pieces, hubs, pool.index(barred), unasked)

    @cached_property
    def first(self) -> FirstPass:
        """The first pass, as far as it is known."""
        return FirstPass(len(self.pool), self.pieces)

    @property
    def new(self) -> Positions:
        """Indices of the documents that nothing is known of."""
        return np.setdiff1d(np.flatnonzero(self.first.answer_of < 0), self.barred)

    @property
    def chains(self) -> list[Answer]:
        """The answers that are no piece as a whole."""
        whole = {id(piece) for piece in self.pieces}
        return [answer for answer in self.answers if id(answer) not in whole]

    def leading(self, k: int) -> Positions:
        """The known documents that may be in the top k: by what is proven, or by the chance of their pieces."""
        if k not in self._leading:
            self._leading[k] = self._chosen(k)
        return self._leading[k]

    @cached_property
    def proof(self) -> Certificate:
        """What earlier answers prove."""
        return certify(self.first, self.chains)

    def _chosen(self, k: int) -> Positions:
        first, wanted, proof = self.first, min(k, len(self.first.scored)), self.proof
        likely = _heads(first.answers, heads([len(piece) for piece in first.answers], k))
        if not proof.consistent:
            return likely
        top = proof.order[: min(proof.depth, wanted)]
        if proof.depth < wanted:
            top = np.concatenate([top, contenders(proof, first, k)])
        return top if len(top) <= len(likely) else likely

    @cached_property
    def scaling(self) -> Positions:
        """The documents that put every piece on one scale.

        Quantiles of each piece, as many as a plain hub of this list takes of all; near each, what most of the earlier
        hubs hold, because that joins their scales to tonight's. A piece too short for one is left to the hub that it
        was asked in; one that no hub holds enough of takes enough of them for a line.
        """
        pieces, pool = self.pieces, self.pool
        held = np.zeros(len(pool), dtype=np.intp)
        for hub in self.hubs:
            held[hub.docs] += 1
        known = sum(map(len, pieces))
        each = int(quantiles([1], pool.limit)[0]) + 1
        wanted = each * -(-known // pool.limit)
        chosen = []
        for piece in pieces:
            count = round(wanted * len(piece) / known)
            joined = np.count_nonzero(held[piece.docs]) >= min(INFORMATIVE, len(piece))
            count = min(count if joined else max(count, INFORMATIVE), len(piece))
            if not count:
                continue
            edges = np.linspace(0, len(piece), count + 1).astype(np.intp)
            for low, high in itertools.pairwise(edges.tolist()):
                part = piece.docs[low:high]
                chosen.append(int(part[np.argmax(held[part])]))
        return np.array(chosen, dtype=np.intp)

    def settled(self, k: int) -> bool:
        """Whether nothing has to be asked: nothing is new, all is on one scale, the top k is proven or can't be."""
        if len(self.new):
            return False
        if len(self.pieces) == 1:
            return True
        proof = self.proof
        return self.scaled and (not proof.consistent or proof.depth >= min(k, len(self.first.scored)))

    @property
    def scaled(self) -> bool:
        """Whether earlier hubs put all pieces on one scale."""
        held = np.zeros(len(self.pool), dtype=bool)
        for hub in self.hubs:
            held[hub.docs] = True
        return all(np.count_nonzero(held[p.docs]) >= min(INFORMATIVE, len(p)) for p in self.pieces)

    def worth(self, k: int) -> bool:
        """Whether it saves enough: what is asked again is only estimated."""
        if self.settled(k):
            return True
        pool, new = self.pool, self.new
        again = np.union1d(self.leading(k), self.scaling)
        twice = len(again)
        if not pool.fits(np.union1d(again, new)):
            pieces = [len(chunk) for chunk in pool.shards.split(pool.positions[new])]
            twice += _hub_share([*map(len, self.pieces), *pieces], len(pieces), k, pool.limit)
            twice = _in_requests(twice, pool.limit)
        return len(new) + twice <= _WORTH * self.anew(k)

    def anew(self, k: int) -> int:
        """Documents that the plain method would ask about, as far as chunks were not asked as they are."""
        chunks, limit = [len(chunk) for chunk in self.pool.shards.chunks], self.pool.limit
        if len(chunks) == 1:
            return self.unasked
        return self.unasked + _in_requests(_hub_share(chunks, len(chunks), k, limit), limit)

    def discord(self, fresh: Sequence[Answer]) -> Discord:
        """How far tonight's answers contradict the earlier ones."""
        return total((old, new) for old in self.answers for new in fresh)

    @property
    def noise(self) -> Discord:
        """How far earlier answers of one run contradict each other."""
        numbered = list(zip(self.runs, self.answers, strict=True))
        return total(
            (one, two)
            for i, (run, one) in enumerate(numbered)
            for other, two in numbered[i + 1 :]
            if run == other
        )


def _hub_share(lengths: Sequence[int], last: int, k: int, limit: int) -> int:
    """How many documents a hub takes of the last so many pieces."""
    q, t, count = heads(lengths, k), quantiles(lengths, limit), len(lengths)
    taken = [places(lengths[i], int(q[i]), int(t[i]), i, count) for i in range(count - last, count)]
    return sum(tops + len(later) for tops, later in taken)


def _in_requests(documents: int, limit: int) -> int:
    """How many documents a hub of so many takes: where it needs several requests, they share references."""
    shared = min(REFERENCES, limit // 2)
    parts = -(-max(documents - shared, 1) // (limit - shared)) if documents > limit else 1
    return documents + (parts - 1) * shared


def _unasked(shards: Shards, known: Sequence[Earlier]) -> int:
    """Documents of the plain method's chunks that were not asked as they are."""
    asked = {one.documents.tobytes() for one in known if one.same}
    return sum(len(c) for c in shards.chunks if np.asarray(c, dtype=np.intp).tobytes() not in asked)


def _heads(pieces: Sequence[Answer], q: Positions) -> Positions:
    """The best documents of each piece, all first places before all second ones."""
    tops = [piece.docs[:count] for piece, count in zip(pieces, q.tolist(), strict=True)]
    layers = np.concatenate([np.arange(len(top)) for top in tops])
    return np.concatenate(tops)[np.argsort(layers, kind="stable")]
