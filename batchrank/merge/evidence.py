"""All that one query's answers have shown so far, and the rankings that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass, Pool, drift, merged, overlap
from batchrank.merge.calibration import Estimate, calibrate
from batchrank.merge.certificate import Certificate, by_value, certify
from batchrank.merge.scale import Scale, falling, scale
from batchrank.outcomes import Merged, Verdict

PINNED = 1e6  # weight of a value that the hub itself gave, against 1 for an estimate


@dataclass(slots=True)
class Evidence:
    """What is known of one query; it grows by ``repairs``.

    Attributes:
        pool: the documents.
        first: the first pass.
        hubs: answers that span the scale.
        extra: the probe's answers, and all later ones.
        verdict: what the run-wide verdict said.
    """

    pool: Pool
    first: FirstPass
    hubs: Sequence[Answer]
    verdict: Verdict
    extra: list[Answer] = field(default_factory=list)
    _scale: Scale | None = None
    _estimate: Estimate | None = None
    _proof: tuple[int, Floats, Certificate] | None = None

    @property
    def chains(self) -> list[Answer]:
        """All answers but the first pass."""
        return [*self.hubs, *self.extra]

    @property
    def scale(self) -> Scale:
        """The hub's scale."""
        self._scale = self._scale or scale(self.first, self.hubs)
        return self._scale

    @property
    def estimate(self) -> Estimate:
        """All documents on the hub's scale."""
        self._estimate = self._estimate or calibrate(self.first, self.scale)
        return self._estimate

    def certify(self) -> Certificate:
        """What the answers so far prove; what they leave open stands in the order of ``values``."""
        return self._proven()[1]

    def values(self) -> Floats:
        """Estimates that agree with the hub: each document lies between its neighbours of the hub.

        Documents of a later answer share out their estimates in the order of that answer.
        """
        return self._proven()[0]

    def consistent(self, method: str) -> Merged | None:
        """The ranking that all answers agree with; None if they contradict each other."""
        value, certificate = self._proven()
        if not certificate.consistent:
            return None
        order = certificate.order
        weight = np.where(np.isnan(self.estimate.hub[order]), 1.0, PINNED)
        return self._merged(order, falling(value[order], weight), method, certificate.depth)

    def _proven(self) -> tuple[Floats, Certificate]:
        """Values and certificate, made anew when there are more answers."""
        if self._proof is None or self._proof[0] != len(self.extra):
            value = np.where(np.isnan(self.estimate.hub), self.estimate.value, self.estimate.hub)
            for answer in [*self.first.pieces, *self.extra]:
                _clip(answer.docs, value, self.estimate.hub)
                value[answer.docs] = -np.sort(-value[answer.docs])
            certificate = certify(self.first, self.chains, by_value(self.first, value))
            self._proof = len(self.extra), value, certificate
        return self._proof[1:]

    def contradictory(self, method: str) -> Merged:
        """The ranking when answers contradict each other: nothing is proven, noise is averaged.

        By value; a document that the hub saw too counts by the mean of both estimates. Trusting the hub at the top
        would throw away what the first pass told of it, which is as much.
        """
        both = (self.estimate.value + self.estimate.hub) / 2
        value = np.where(np.isnan(both), self.estimate.value, both)
        order = self.first.by(value)
        return self._merged(order, falling(value[order]), method, 0)

    def _merged(self, order: Positions, value: Floats, method: str, certified: int) -> Merged:
        estimate = self.estimate
        docs = self.scale.docs
        return merged(
            self.pool,
            self.first,
            order,
            estimate.score(value),
            method=method,
            certified=certified,
            verdict=self.verdict,
            drift=drift(estimate.score(estimate.left_out[docs]), self.scale.values),
            evidence=overlap(self.first, self.hubs),
        )


def _clip(docs: Positions, value: Floats, hub: Floats) -> None:
    """Keep the values of one piece, best first, between those of its hub documents."""
    known = np.flatnonzero(~np.isnan(hub[docs]))
    if not len(known):
        return
    bounds = falling(hub[docs[known]])
    rows = np.arange(len(docs))
    above = np.searchsorted(known, rows, side="right") - 1
    below = np.searchsorted(known, rows, side="left")
    upper = np.where(above >= 0, bounds[np.maximum(above, 0)], np.inf)
    lower = np.where(below < len(known), bounds[np.minimum(below, len(known) - 1)], -np.inf)
    value[docs] = np.clip(value[docs], lower, upper)
