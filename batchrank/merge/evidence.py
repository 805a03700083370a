"""Gathers what a query's answers show: one scale, what is proven, and the rankings that follow."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.agreement import agreement
from batchrank.merge.answers import Answer, FirstPass, Pool, drift, merged, overlap
from batchrank.merge.calibration import Estimate, calibrate
from batchrank.merge.certificate import Certificate, by_value, certify
from batchrank.merge.scale import Scale, align, falling, scale
from batchrank.outcomes import Merged, Verdict

PINNED = 1e6
"""Weight of a value that the hub itself gave, against 1 for an estimate, so that it practically doesn't move."""


@dataclass(slots=True)
class Evidence:
    """What is known of one query; it grows by ``repairs``.

    Attributes:
        pool: the documents.
        first: the first pass.
        hubs: answers that span the scale.
        extra: the probe's answers, all later ones, and those of earlier runs that are no piece of the first pass.
        verdict: what the verdict said.
        earlier: those of ``extra`` that were hubs, and join the scale.
    """

    pool: Pool
    first: FirstPass
    hubs: Sequence[Answer]
    verdict: Verdict
    extra: list[Answer] = field(default_factory=list)
    earlier: Sequence[Answer] = ()
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
        self._scale = self._scale or scale(self.first, self.hubs, self.earlier)
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
            for answer in [*self.first.answers, *self.extra]:
                _clip(answer.docs, value, self.estimate.hub)
                value[answer.docs] = -np.sort(-value[answer.docs])
            certificate = certify(self.first, self.chains, by_value(self.first, value))
            self._proof = len(self.extra), value, certificate
        return self._proof[1:]

    def contradictory(self, method: str) -> Merged:
        """The ranking when answers contradict each other: nothing is proven, noise is averaged.

        By value; a document that hubs saw too counts by the mean of all estimates. Trusting the hub at the top would
        throw away what the first pass told of it, which is as much.
        """
        known = np.stack(self._estimates())
        value = np.nansum(known, axis=0) / np.maximum(np.isfinite(known).sum(axis=0), 1)
        order = self.first.by(value)
        return self._merged(order, falling(value[order]), method, 0)

    def _estimates(self) -> list[Floats]:
        """An array for each answer that estimates documents: the first pass, hubs, earlier hubs of the same ones."""
        estimate, scale = self.estimate, self.scale
        found = [estimate.value, estimate.hub]
        held = [hub.docs for hub in self.hubs] or [scale.docs]
        tonight = np.isin(np.arange(len(self.first)), np.concatenate(held))
        base = Answer(scale.docs, scale.values)
        for other in self.earlier:
            moved = align(self.first, other, base)
            if moved is not None:
                value = np.full(len(self.first), np.nan)
                value[other.docs] = np.interp(-moved, -scale.values, estimate.hub[scale.docs])
                found.append(np.where(tonight, value, np.nan))  # others came into the scale from it
        return found

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
            agreement=agreement([*self.first.answers, *self.chains]),
        )


def _clip(docs: Positions, value: Floats, hub: Floats) -> None:
    """Keep the values of one answer, best first, between those of its hub documents."""
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
