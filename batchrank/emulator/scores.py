"""Relevance to the scores that one request's answer carries: comparable between requests, or not."""

from typing import Literal

import numpy as np

from batchrank.arrays import Floats

Family = Literal["logistic", "minmax", "softmax", "ordinal", "warped"]
_CENTRE, _SCALE = -2.0, 1.5
_BF16_STEP = 2.0**-8


def absolute(logits: Floats) -> Floats:
    """The logistic of the relevance: a document has the same score in every request."""
    scores: Floats = 1 / (1 + np.exp(-logits))
    return scores


def relative(logits: Floats, family: Family, rng: np.random.Generator) -> Floats:
    """Scores in 0..1 that rise with relevance by a map of this request's own.

    1. logistic: a slope between a half and two, and a shift, drawn for the request.
    2. minmax: the best is 1 and the worst 0.
    3. softmax: they add up to 1.
    4. ordinal: the rank alone, from 1 downwards.
    5. warped: minmax, then a power drawn for the request.
    """
    y = (logits - _CENTRE) / _SCALE
    if family == "logistic":
        slope, shift = np.exp(rng.uniform(np.log(0.5), np.log(2))), rng.normal()
        return absolute(slope * y + shift)
    if family == "softmax":
        weights: Floats = np.exp(y - y.max())
        weights /= weights.sum()
        return weights
    if family == "ordinal":
        order = np.argsort(-y, kind="stable")
        scores = np.empty(len(y))
        scores[order] = 1 - np.arange(len(y)) / len(y)
        return scores
    spread: Floats = (y - y.min()) / (np.ptp(y) or 1.0)
    return spread if family == "minmax" else spread ** np.exp(rng.uniform(np.log(0.5), np.log(2)))


def noisy(logits: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Relevance with a normal error of ``sigma`` logits."""
    return logits + sigma * rng.normal(size=len(logits)) if sigma else logits


def jittered(logits: Floats, rng: np.random.Generator) -> Floats:
    """Logits as BF16 arithmetic gives them: off by up to a step of their own 8 bits, then rounded to those bits."""
    moved = logits * (1 + _BF16_STEP * rng.uniform(-1, 1, size=len(logits)))
    mantissa, exponent = np.frexp(moved)
    rounded: Floats = np.ldexp(np.round(mantissa * 256) / 256, exponent)
    return rounded
