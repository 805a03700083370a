"""Defines the emulator's switches, which are the options of ``batchrank emulate``, and which requests fail by them.

What decides is the seed, the request's content, and how often that request has come, so that every fault can be
repeated. A fault is named ``<base>`` or, for refusals, ``<base>+<twist>+...``. There are four kinds:

1. refusals (``429-requests``, ``503``, ...): nothing is computed and nothing billed; see ``refusals``;
2. answers with wrong content (``score-nan``, ``index-missing``, ...): computed and billed; see ``answers``;
3. answers whose body is broken (``json-truncated``, ...): computed and billed; see ``answers``;
4. connections that break (``reset-before-headers``, ``slow-loris``, ...): see ``answers``.

A request may meet several: its first refusal, else all wrong contents and the first broken connection.
"""

import difflib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from batchrank.emulator.answers import BODY_FAULTS, DELIVERY_FAULTS, RESULT_FAULTS, UNBILLED_DELIVERIES
from batchrank.emulator.refusals import REJECTIONS, ErrorShape, Rejection, with_retry_after
from batchrank.errors import JobError

if TYPE_CHECKING:
    from batchrank.models import Card


TWISTS = {
    "after-seconds": "sends Retry-After in seconds",
    "after-date": "sends Retry-After as an HTTP-date",
    "after-absurd": "sends a Retry-After of a year",
    "after-garbage": "sends a Retry-After that is no time at all",
    "nested": "puts the error into an error object",
    "in-200": "sends the error with HTTP status 200",
    "html": "sends a gateway's HTML page",
}
"""What a refusal's name may be followed by."""
_BASES = (*REJECTIONS, *RESULT_FAULTS, *BODY_FAULTS, *DELIVERY_FAULTS)

FAULTS: tuple[str, ...] = (
    *_BASES,
    *(
        f"{base}+{after}"
        for base in ("429", "429-requests", "503")
        for after in TWISTS
        if after.startswith("after-")
    ),
    *(
        "500+in-200",
        "429-tokens+in-200",
        "429-requests+nested",
        "500+nested",
        "502+html",
        "503+html",
        "500+html+in-200",
    ),
)
"""Every base, and the usual twists."""


def check_fault(name: str) -> None:
    """Check a fault's name.

    Raises:
        JobError: no such fault, or the twist doesn't go with it.
    """
    base, *twists = name.split("+")
    if base not in _BASES:
        close = difflib.get_close_matches(base, _BASES, n=3) or sorted(_BASES)
        raise JobError(f"emulator: unknown fault {name!r}; did you mean one of: {', '.join(close)}?")
    for twist in twists:
        if twist not in TWISTS or base not in REJECTIONS:
            raise JobError(f"emulator: {name!r}: only refusals take a twist, one of: {', '.join(TWISTS)}")


Family = Literal["logistic", "minmax", "softmax", "ordinal", "warped"]


def _cards() -> "Mapping[str, Card]":
    from batchrank.models import cards

    return cards()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the emulator behaves; by default as the API's documents say. ``switches`` tells what each one does."""

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
    cards: Annotated[Mapping[str, "Card"], "the models that are served, by name"] = field(
        default_factory=_cards
    )

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


class Switch(NamedTuple):
    """One of the settings: its type, its default (None for a mapping), and what it does."""

    name: str
    kind: Any
    default: Any
    text: str


def switches() -> list[Switch]:
    """All settings, as they are declared: names in their types are not resolved."""
    found = []
    for one in fields(Settings):
        kind, text = get_args(one.type)
        found.append(Switch(one.name, kind, None if callable(one.default_factory) else one.default, text))
    return found


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request.

    Attributes:
        names: the faults as named.
        rejection: its refusal.
        results: wrong contents, by name.
        bodies: broken bodies, by name.
        delivery: a broken connection, by name.
    """

    names: tuple[str, ...] = ()
    rejection: Rejection | None = None
    results: tuple[str, ...] = ()
    bodies: tuple[str, ...] = ()
    delivery: str | None = None

    @property
    def billed(self) -> bool:
        """Whether the answer is computed, so that it costs."""
        return self.rejection is None and self.delivery not in UNBILLED_DELIVERIES


@dataclass(slots=True)
class Fates:
    """Decides requests' fates; remembers how often each content came, if any fault is drawn."""

    settings: Settings
    _times_failed: dict[bytes, int] = field(default_factory=dict)
    _times_seen: dict[bytes, int] = field(default_factory=dict)

    def draw(self, number: int, content: bytes) -> Fate:
        """The fate of the request with this number (from 1) and this digest of its content."""
        scripted = self.settings.script.get(number)
        if scripted is not None:
            return self.named(scripted)
        if not self.settings.faults:
            return Fate()
        seen = self._times_seen[content] = self._times_seen.get(content, 0) + 1
        failed = self._times_failed.get(content, 0)
        if self.settings.fault_limit and failed >= self.settings.fault_limit:
            return Fate()
        rng = rng_for(self.settings.seed, content, f"fault {seen}")
        names = [name for name, probability in self.settings.faults.items() if rng.random() < probability]
        if names:
            self._times_failed[content] = failed + 1
        return self.named(",".join(names)) if names else Fate()

    def named(self, names: str) -> Fate:
        """The fate that consists of these faults, joined by commas."""
        listed = tuple(names.split(","))
        refusals = [self._rejection(name) for name in listed if name.split("+")[0] in REJECTIONS]
        deliveries = [name for name in listed if name in DELIVERY_FAULTS]
        return Fate(
            names=listed,
            rejection=refusals[0] if refusals else None,
            results=tuple(name for name in listed if name in RESULT_FAULTS),
            bodies=tuple(name for name in listed if name in BODY_FAULTS),
            delivery=deliveries[0] if deliveries else None,
        )

    def _rejection(self, name: str) -> Rejection:
        base, *twists = name.split("+")
        rejection = REJECTIONS[base]
        for twist in twists:
            if twist == "nested":
                rejection = replace(rejection, shape="nested")
            elif twist == "in-200":
                rejection = replace(rejection, shape="in-200")
            elif twist == "html":
                rejection = replace(rejection, html=True)
            else:
                rejection = with_retry_after(rejection, twist, self.settings.retry_seconds)
        return rejection


def rng_for(seed: int, content: bytes, purpose: str) -> random.Random:
    """Random numbers that follow from the seed, a content's digest and what they are for."""
    key = blake2b(content, digest_size=8, key=seed.to_bytes(16, "big", signed=True), person=b"batchrank")
    key.update(purpose.encode())
    return random.Random(int.from_bytes(key.digest(), "big"))  # noqa: S311 - reproducible on purpose
