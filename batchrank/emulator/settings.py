"""Defines the emulator's switches, which are the options of ``batchrank emulate`` as well."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from batchrank.emulator.faults import check_fault
from batchrank.emulator.refusals import ErrorShape
from batchrank.errors import JobError

if TYPE_CHECKING:
    from batchrank.models import Card


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
