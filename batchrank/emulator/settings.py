"""Holds the emulator's switches, and turns relevance into the scores that a request's answer carries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_type_hints

import numpy as np

from batchrank.data import Floats
from batchrank.emulator.faults import check_fault
from batchrank.emulator.refusals import ErrorShape
from batchrank.errors import JobError
from batchrank.models import Card, cards

Family = Literal["logistic", "minmax", "softmax", "ordinal", "warped"]
_CENTRE = -2.0
"""About the middle of the scorer's logits, which are mapped so that theirs is 0."""
_SCALE = 1.5
"""About their spread, which is mapped to 1."""
_BF16_STEP = 2.0**-8
"""The relative step of 16-bit brain floats: noise as of a server that computes with them."""


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the emulator behaves; by default as the API's documents say. ``described`` tells what each switch does."""

    seed: Annotated[
        int, "everything drawn at random (scores, noise, latency, faults, request ids) follows from it"
    ] = 0
    keys: Annotated[
        tuple[str, ...], "API keys that are accepted; none given: any key is, but there must be one"
    ] = ()
    api: Annotated[
        Literal["cohere", "jina", "vllm", "voyage", "tei"],
        "whose the paths are that several APIs have (/rerank, /v1/rerank, /v2/rerank); each API is also served below "
        "/<wire>, such as /tei/rerank",
    ] = "cohere"
    cards: Annotated[Mapping[str, Card], "the models that are served, by name"] = field(default_factory=cards)

    documents: Annotated[int | None, "most documents in a request; by default the model card's"] = None
    request_tokens: Annotated[
        int | None,
        "most tokens in a request, as query tokens x documents + document tokens; by default the card's",
    ] = None
    item_tokens: Annotated[
        int | None, "tokens after which a query or document is silently cut; by default the card's"
    ] = None
    item_characters: Annotated[int, "a document longer than this is refused, not cut"] = 300_000
    body_bytes: Annotated[int | None, "most bytes in a request's body; by default the card's"] = None

    rpm: Annotated[
        float | None, "requests a minute for each model, inf for no quota; by default the card's"
    ] = None
    tpm: Annotated[
        float | None, "tokens a minute for each model, inf for no quota; by default the card's"
    ] = None
    per_second: Annotated[bool, "hold a sixtieth of the quotas in any one second too"] = True
    growth: Annotated[
        float | None, "how many times the requests of the last second the next one may have; none: any"
    ] = None
    growth_start: Annotated[int, "requests a second that growth always allows"] = 10
    retry_after: Annotated[
        Literal["none", "seconds", "date"], "whether a 429 past a quota tells when to come back, and how"
    ] = "none"

    tokenizer: Annotated[str, "how tokens are counted: auto, qwen, bytes, or a tokenizer file"] = "auto"
    overhead_tokens: Annotated[int, "tokens billed for each document on top of the documented formula"] = 0
    bill_instruct: Annotated[bool, "bill the tokens of instruct once for each document"] = False

    scores: Annotated[
        Literal["absolute", "relative"],
        "whether a document's score is the same in every request, or only ranks within one",
    ] = "absolute"
    family: Annotated[Family, "how relative scores differ between requests"] = "logistic"
    sigma: Annotated[
        float, "noise on relevance in logits, drawn anew for each request; relevance is -6 to 7"
    ] = 0.0
    jitter: Annotated[bool, "round relevance as BF16 does, a little differently in each request"] = False

    latency: Annotated[float, "seconds from a request to its answer (the median, if they spread)"] = 0.0
    latency_spread: Annotated[
        float, "standard deviation of the logarithm of the latency; 0: always the same"
    ] = 0.0
    concurrency: Annotated[int | None, "requests worked on at a time, others wait; none: any number"] = None

    error_shape: Annotated[
        ErrorShape,
        "how errors look: plain (code, message, request_id), nested in an error object, or plain in-200",
    ] = "plain"
    faults: Annotated[
        Mapping[str, float], "faults by name, with the probability that a request meets them"
    ] = field(default_factory=dict)
    fault_limit: Annotated[
        int, "after so many faulty answers to one and the same body it is answered well; 0: never"
    ] = 3
    script: Annotated[
        Mapping[int, str], "faults by the number of the request they befall, from 1, several joined by commas"
    ] = field(default_factory=dict)
    poison: Annotated[
        Mapping[str, str], "faults that befall every request with this text in its query or a document"
    ] = field(default_factory=dict)
    retry_seconds: Annotated[float, "what Retry-After says, in seconds from now"] = 2.0
    silence: Annotated[float, "seconds that a silent connection stays open"] = 3600.0
    drip: Annotated[float, "seconds between the bytes of a slow answer"] = 1.0
    huge_bytes: Annotated[int, "decoded size of a huge answer"] = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        """Check what types can't.

        Raises:
            JobError: an unknown fault, or a probability outside 0..1.
        """
        for name, probability in self.faults.items():
            check_fault(name)
            if not 0 <= probability <= 1:
                raise JobError(
                    f"emulator: the probability of fault {name!r} is {probability}; give one in 0..1"
                )
        for names in (*self.script.values(), *self.poison.values()):
            for name in names.split(","):
                check_fault(name)


def described() -> dict[str, str]:
    """What each switch does, by name."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}
