"""Reads the model cards: limits, accepted parameters, quotas and prices of each model, from ``models.toml``."""

import difflib
import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from batchrank.data import Kind
from batchrank.errors import JobError, UnknownModelError

Wire: TypeAlias = Literal[
    "dashscope", "dashscope-native", "cohere", "jina", "siliconflow", "vllm", "voyage", "tei", "nim"
]
Parameter: TypeAlias = Literal["instruct", "top_n", "return_documents", "fps"]

UNLIMITED = 10**12
"""A limit that no request reaches: where none is documented."""
_BODY_BYTES = 16 * 2**20  # 16 MiB where a card has no limit; what a server finds too large is halved
_Positive: TypeAlias = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


SEARCH_DOCUMENTS = 100
"""Documents that one search pays for, where searches are billed (Cohere's pricing page)."""


def searches(documents: int) -> int:
    """Searches that a request of so many documents is billed as, if none is so long that it counts for several."""
    return -(-documents // SEARCH_DOCUMENTS)


class Price(_Frozen):
    """What a million tokens cost, per kind of input, and what a thousand searches cost.

    ``image`` is None where images and videos cost what text does, ``search`` where searches aren't billed. A search
    is a query with up to 100 documents.
    """

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    text: Annotated[float, Field(ge=0)] = 0
    image: Annotated[float, Field(ge=0)] | None = None
    search: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _something(self) -> "Price":
        if "text" not in self.model_fields_set and self.search is None:
            raise ValueError("a price needs text (of a million tokens) or search (of a thousand searches)")
        return self

    def cost(self, tokens: int, *, image_tokens: int = 0, searches: int = 0) -> float:
        """The cost of so many tokens and searches in ``currency``, ``image_tokens`` being images' and videos'."""
        dear = self.text if self.image is None else self.image
        of_tokens = ((tokens - image_tokens) * self.text + image_tokens * dear) / 1e6
        return of_tokens + searches * (self.search or 0.0) / 1e3

    @property
    def dearest(self) -> "Price":
        """The price at which no token costs less than it may: usage doesn't tell which tokens were images'."""
        return Price(currency=self.currency, text=max(self.text, self.image or 0.0), search=self.search)


def is_file(tokenizer: str) -> bool:
    """Whether a card's tokenizer is a file, as opposed to a repository."""
    return tokenizer.endswith((".json", ".tiktoken"))


class Vendor(_Frozen):
    """Where a vendor's models are served.

    Attributes:
        api_key_env: the environment variable that holds the API key; None where none is needed.
        default_region: the region of a job that names none.
        hosts: base addresses by region; empty for servers that are the user's own.
        workspace_host: the pattern of a workspace's own host.
        workspace_regions: what ``{region}`` in it stands for, by region.
        paths: by wire format.
        workspace_paths: the same on a workspace's own host, where that differs.
    """

    api_key_env: str | None = None
    default_region: str = "default"
    hosts: dict[str, str] = {}
    workspace_host: str | None = None
    workspace_regions: dict[str, str] = {}
    paths: dict[str, str]
    workspace_paths: dict[str, str] = {}

    def url(self, wire: str, region: str | None, workspace: str | None = None) -> str:
        """The endpoint's address for a wire format in a region.

        Raises:
            JobError: the region or the wire is not one of the vendor's.
        """
        if not self.hosts:
            raise JobError("endpoint.url: required, because the server is your own: write its full address")
        if wire not in self.paths:
            raise JobError(f"wire {wire!r} has no known path at this vendor: set endpoint.url")
        name = region or self.default_region
        if name not in self.hosts:
            raise JobError(f"endpoint.region: unknown region {name!r}; one of {', '.join(self.hosts)}")
        if workspace is None:
            return self.hosts[name] + self.paths[wire]
        if self.workspace_host is None:
            raise JobError("endpoint.region: this vendor has no workspaces")
        host = self.workspace_host.format(workspace=workspace, region=self.workspace_regions[name])
        return host + self.workspace_paths.get(wire, self.paths[wire])


PLACEHOLDER = re.compile(r"\{[a-z_]+\}")
_INSTRUCT = "{instruct}"


class Template(_Frozen):
    """The model's own prompt around a query and around each document, for a server that puts none there itself.

    Placeholders are replaced, nothing else: braces in a query or a document mean nothing.

    Attributes:
        query: the prompt with ``{query}``, and ``{instruct}`` where the instruct belongs.
        document: the prompt with ``{document}``.
    """

    query: str = "{query}"
    document: str = "{document}"

    @field_validator("query", "document")
    @classmethod
    def _placeholders(cls, value: str, info: ValidationInfo) -> str:
        own = f"{{{info.field_name}}}"
        found = PLACEHOLDER.findall(value)
        if found.count(own) != 1:
            raise ValueError(f"{own} must stand in it once, where the {info.field_name}'s text belongs")
        if unknown := set(found) - {own, _INSTRUCT}:
            raise ValueError(f"{min(unknown)} is no placeholder here; known: {own}, {_INSTRUCT}")
        return value

    @property
    def instructs(self) -> bool:
        """Whether the instruct is part of the prompt, instead of a field of the request."""
        return _INSTRUCT in self.query + self.document

    def around_query(self, instruct: str | None) -> tuple[str, str]:
        """What stands before and after a query."""
        return self._around(self.query, "{query}", instruct)

    def around_document(self, instruct: str | None) -> tuple[str, str]:
        """What stands before and after a document."""
        return self._around(self.document, "{document}", instruct)

    @staticmethod
    def _around(prompt: str, placeholder: str, instruct: str | None) -> tuple[str, str]:
        before, _, after = prompt.partition(placeholder)
        return before.replace(_INSTRUCT, instruct or ""), after.replace(_INSTRUCT, instruct or "")


class Vision(_Frozen):
    """What a model takes of images and videos, and how many tokens they are.

    Attributes:
        image_formats: names as in media types.
        video_formats: the same for videos.
        image_bytes: the largest image.
        token_pixels: pixels a token stands for.
        image_tokens: the least and the most tokens of one image.
        video_frames: most frames looked at.
        frame_tokens: most tokens of one frame.
    """

    image_formats: tuple[str, ...]
    video_formats: tuple[str, ...]
    image_bytes: _Positive
    token_pixels: _Positive
    image_tokens: tuple[_Positive, _Positive]
    video_frames: _Positive
    frame_tokens: _Positive
    source: str = ""


class Card(_Frozen):
    """One model: what it accepts and what it costs.

    Attributes:
        documents: most documents in one request (most texts, where a model takes more kinds).
        media: most images and videos in one request, for a model that takes them.
        query_kinds: what a query may be.
        item_tokens: tokens after which the API silently cuts a query or a document.
        item_characters: characters after which it refuses one outright.
        request_tokens: most tokens in one request, as query tokens x documents + document tokens.
        body_bytes: largest request body in bytes.
        rpm: requests a minute allowed per account, infinite for no quota.
        tpm: tokens a minute allowed per account, infinite for no quota.
        parameters: optional request parameters that the model accepts.
        scores: whether scores of different requests can be compared.
        prices: by region.
        regions: where the model is served; empty where it is served in all of the vendor's.
        tokenizer: the model's own: ``qwen``, a repository of Hugging Face's, or a tokenizer's file; None where it isn't
            known, so that tokens are estimated.
        template: the prompt that the model was trained with, for a server that puts none around what it is sent.
        instruct: the instruct that fills such a prompt where a job gives none.
        vision: what images and videos may be, for a model that takes them.
    """

    name: str
    vendor: str
    wire: Wire
    documents: _Positive
    media: dict[Kind, _Positive] = {}
    query_kinds: tuple[Kind, ...] = ("text",)
    item_tokens: _Positive = UNLIMITED
    item_characters: _Positive = UNLIMITED
    request_tokens: _Positive = UNLIMITED
    body_bytes: Annotated[int, Field(ge=1024)] = _BODY_BYTES
    rpm: Annotated[float, Field(gt=0)] = math.inf
    tpm: Annotated[float, Field(gt=0)] = math.inf
    parameters: tuple[Parameter, ...] = ()
    scores: Literal["absolute", "relative", "unknown"] = "unknown"
    prices: dict[str, Price] = {}
    regions: tuple[str, ...] = ()
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    template: Template | None = None
    instruct: Annotated[str, Field(min_length=1)] | None = None
    vision: Vision | None = None
    source: str = ""

    @property
    def counts(self) -> dict[Kind, int]:
        """Most documents of each kind in one request; a kind that is missing isn't accepted."""
        return {**self.media, "text": self.documents}

    @property
    def item_limits(self) -> str:
        """What is not read of an item, or makes it be refused, in words."""
        limits = {"tokens": self.item_tokens, "characters": self.item_characters}
        return " or ".join(f"{most:,} {unit}" for unit, most in limits.items() if most < UNLIMITED)

    def price(self, region: str | None) -> Price | None:
        """The price in a region (None: the vendor's default one); None when the card knows no price there."""
        return self.prices.get(region or vendor(self.vendor).default_region)


@dataclass(frozen=True, slots=True)
class _Tables:
    vendors: dict[str, Vendor]
    cards: dict[str, Card]
    discontinued: dict[str, str]


@cache
def _tables() -> _Tables:
    data = tomllib.loads(resources.files("batchrank").joinpath("models.toml").read_text(encoding="utf-8"))
    return _Tables(
        {name: Vendor(**fields) for name, fields in data["vendor"].items()},
        {name: Card(name=name, **fields) for name, fields in data["model"].items()},
        data["discontinued"],
    )


def cards() -> dict[str, Card]:
    """All model cards by name."""
    return dict(_tables().cards)


def vendor(name: str) -> Vendor:
    """A vendor by the name its cards use."""
    return _tables().vendors[name]


def card(name: str) -> Card:
    """A model's card.

    Raises:
        UnknownModelError: no such card, or the vendor discontinued the model; says what to use instead.
    """
    tables = _tables()
    known, discontinued = tables.cards, tables.discontinued
    if name in known:
        return known[name]
    if name in discontinued:
        raise UnknownModelError(
            f"model: {name!r} was discontinued by its vendor; use {discontinued[name]!r}, its successor"
        )
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    other = "For another model write model: {base: <a known one>, name: <yours>} and override what differs"
    raise UnknownModelError(f"model: no card for {name!r}; {hint} {other}")
