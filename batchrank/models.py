"""Model cards: limits, accepted parameters, quotas and prices of each model, from ``models.toml``."""

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from batchrank.errors import JobError, UnknownModelError

Wire = Literal["dashscope", "dashscope-native", "cohere", "voyage", "tei", "nim"]
Parameter = Literal["instruct", "top_n", "return_documents", "fps"]
DISCONTINUED = {"gte-rerank": "qwen3-rerank"}
"""Names that the vendor no longer serves, with the successor it names."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Frozen):
    """What a million tokens cost, per kind of input."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    text: Annotated[float, Field(ge=0)]

    def cost(self, tokens: int) -> float:
        """The cost of so many text tokens, in ``currency``."""
        return tokens * self.text / 1e6


class Vendor(_Frozen):
    """Where a vendor's models are served."""

    api_key_env: str
    default_region: str
    hosts: dict[str, str]
    workspace_host: str | None = None
    workspace_regions: dict[str, str] = {}
    paths: dict[str, str]

    def url(self, wire: str, region: str | None, workspace: str | None = None) -> str:
        """The endpoint's address for a wire format in a region.

        Raises:
            JobError: the region or the wire is not one of the vendor's.
        """
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
        return host + self.paths[wire]


class Card(_Frozen):
    """One model: what it accepts and what it costs.

    Attributes:
        documents: most documents in one request.
        item_tokens: tokens after which the API silently cuts a query or a document.
        request_tokens: most tokens in one request, as query tokens x documents + document tokens.
        body_bytes: largest request body in bytes.
        rpm: requests a minute allowed per account.
        tpm: tokens a minute allowed per account.
        parameters: optional request parameters that the model accepts.
        scores: whether scores of different requests can be compared.
        prices: by region.
    """

    name: str
    vendor: str
    wire: Wire
    documents: Annotated[int, Field(ge=1)]
    item_tokens: Annotated[int, Field(ge=1)]
    request_tokens: Annotated[int, Field(ge=1)]
    body_bytes: Annotated[int, Field(ge=1024)]
    rpm: Annotated[float, Field(gt=0)]
    tpm: Annotated[float, Field(gt=0)]
    parameters: tuple[Parameter, ...] = ()
    scores: Literal["absolute", "relative", "unknown"] = "unknown"
    prices: dict[str, Price] = {}
    source: str = ""

    def price(self, region: str | None) -> Price | None:
        """The price in a region (None: the vendor's default one); None when the card knows no price there."""
        return self.prices.get(region or vendor(self.vendor).default_region)


@cache
def _tables() -> tuple[dict[str, Vendor], dict[str, Card]]:
    data = tomllib.loads(resources.files("batchrank").joinpath("models.toml").read_text(encoding="utf-8"))
    vendors = {name: Vendor(**fields) for name, fields in data["vendor"].items()}
    return vendors, {name: Card(name=name, **fields) for name, fields in data["model"].items()}


def cards() -> dict[str, Card]:
    """All model cards by name."""
    return dict(_tables()[1])


def vendor(name: str) -> Vendor:
    """A vendor by the name its cards use."""
    return _tables()[0][name]


def card(name: str) -> Card:
    """A model's card.

    Raises:
        UnknownModelError: no such card, or the vendor discontinued the model; says what to use instead.
    """
    known = _tables()[1]
    if name in known:
        return known[name]
    if name in DISCONTINUED:
        raise UnknownModelError(
            f"model: {name!r} was discontinued by its vendor; use {DISCONTINUED[name]!r}, its successor"
        )
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise UnknownModelError(
        f"model: no card for {name!r}; {hint} For another model write "
        "model: {base: <a known one>, name: <yours>} and override what differs"
    )
