"""Defines the job as a whole, and checks what its keys mean together."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from batchrank.errors import JobError
from batchrank.io.address import Address, Where, located
from batchrank.job.endpoint import REDACTED, proxy_for, read_key, redacted, refuse_alike, region_of
from batchrank.job.paths import absolute, moved
from batchrank.job.rules import require_consistent
from batchrank.job.running import Engine, On, Rate, Reuse
from batchrank.job.sections import (
    Budget,
    Failures,
    Gate,
    Input,
    Limits,
    Merge,
    Output,
    Retry,
    Section,
)
from batchrank.job.servers import Endpoint, Workspace
from batchrank.ledger import LEDGER
from batchrank.models import Card, Price, Template, card, vendor


class Job(Section):
    """One run, fully described. ``input`` and ``output`` may be left out when used as a library.

    Raises:
        JobError: from the properties, when keys contradict each other.
    """

    name: Annotated[str, Field(pattern=r"^[^/\x00]+$")] | None = None
    input: Input | None = None
    model: Annotated[str | dict[str, Any], Field(union_mode="left_to_right")]
    endpoint: Endpoint = Endpoint()
    instruct: Annotated[str, Field(min_length=1)] | None = None
    fps: Annotated[float, Field(gt=0, le=1)] | None = None
    image_root: str | None = None
    merge: Merge = Merge()
    reuse: Reuse = Reuse()
    limits: Limits = Limits()
    tokenizer: Annotated[str, Field(min_length=1)] = "auto"
    rate: Rate = Rate()
    retry: Retry = Retry()
    budget: Budget = Budget()
    failures: Failures = Failures()
    gate: Gate | None = None
    on: On = On()
    engine: Engine = Engine()
    output: Output | None = None
    ledger: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        """A path alone: ``input: candidates.jsonl``."""
        return {"path": value} if isinstance(value, str | list | tuple) else value

    @field_validator("endpoint", mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        """An address alone: ``endpoint: http://host/rerank``."""
        return {"url": value} if isinstance(value, str | list | tuple) else value

    @model_validator(mode="after")
    def _consistent(self) -> "Job":
        require_consistent(self)
        return self

    @cached_property
    def card(self) -> Card:
        """The model's card with everything that this job overrides: the model mapping, limits and rate."""
        overrides: dict[str, Any] = {}
        if isinstance(self.model, str):
            base = card(self.model)
        else:
            overrides = dict(self.model)
            base = card(str(overrides.pop("base", "") or overrides.get("name", "")))
        if price := overrides.pop("price", None):
            overrides["prices"] = dict.fromkeys([*base.prices, vendor(base.vendor).default_region], price)
        for section in (self.limits, self.rate):
            overrides |= {k: v for k, v in section if v is not None and k in Card.model_fields}
        try:
            return Card.model_validate(base.model_dump() | overrides)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise JobError(f"model.{key}: {first['msg'][0].lower()}{first['msg'][1:]}") from None

    @property
    def region(self) -> str | None:
        """The region that is named; None for the vendor's own."""
        region = self.endpoint.region
        return region.region if isinstance(region, Workspace) else region

    @property
    def wire(self) -> str:
        """The wire format's name."""
        return self.endpoint.wire or self.card.wire

    @property
    def template(self) -> Template | None:
        """The prompt around query and documents; None for none."""
        return self.endpoint.template or self.card.template

    @property
    def said_instruct(self) -> str | None:
        """The instruct that requests hold: the job's, else the card's where a prompt needs one."""
        needed = self.template is not None and self.template.instructs
        return self.instruct or (self.card.instruct if needed else None)

    @property
    def destination(self) -> Where | None:
        """Where rankings go; None for standard output, or where the job names no output."""
        out = self.output
        return None if out is None or out.path == "-" else located(out.path)

    @property
    def output_folder(self) -> Path | None:
        """Where rankings go on this machine; for an address, a folder beside the ledger for what stays here."""
        found = self.destination
        if not isinstance(found, Address):
            return found
        return (Path(self.ledger).parent if self.ledger else Path()) / found.folder_name

    def at_day(self, day: str) -> "Job":
        """The same job with its output of a day, in ISO format, where that has ``{date}`` in its path."""
        out = self.output
        if out is None or out.dated is None:
            return self
        return self.model_copy(update={"output": out.named(out.dated.at(day), out.dated)})

    @property
    def ledger_path(self) -> Path | None:
        """Where the ledger is; None when there is neither a ledger nor an output folder."""
        if self.ledger:
            return Path(self.ledger)
        folder = self.output_folder
        return None if folder is None else folder / LEDGER

    @property
    def emulated(self) -> bool:
        """Whether requests go to an emulator inside this process."""
        return self.endpoint.url == "emulator"

    @property
    def price(self) -> Price | None:
        """The price that applies, or None when unknown."""
        return self.card.price(self.region)

    @property
    def url(self) -> str:
        """Where requests go, as configured or as the card says, to one of several; ``emulator`` for an embedded one.

        Raises:
            JobError: the region is unknown.
        """
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """The addresses of all servers, in an order that doesn't depend on the job's.

        Raises:
            JobError: the region is unknown.
        """
        own, region = self.endpoint, self.endpoint.region
        if own.urls:
            return sorted(own.urls)
        workspace = region.workspace if isinstance(region, Workspace) else None
        return [own.url or vendor(self.card.vendor).url(self.wire, self.region, workspace)]

    @property
    def regions(self) -> set[str]:
        """The vendor's regions that the addresses are in; empty text for what is none of its hosts."""
        known = vendor(self.card.vendor)
        return {region_of(known, url) or "" for url in self.urls}

    @property
    def answers_identity(self) -> str:
        """Who answers, as the ledger remembers it: what two endpoints share that answer alike, never an address.

        An emulator inside this process never counts as the endpoint that it stands for.

        Raises:
            JobError: the region is unknown.
        """
        own = self.endpoint
        if own.identity is not None:
            who = own.identity
        else:
            region = next(iter(self.regions))
            who = "\n".join([self.wire, self.card.name, region or self.region or ""])
        return f"emulator\n{who}" if self.emulated else who

    def proxy(self, environ: Mapping[str, str] | None = None, *, url: str | None = None) -> str | None:
        """The proxy that requests go through, with its user and password; None for none.

        Args:
            environ: the environment, ``os.environ`` by default.
            url: the address that they go to, where there are several.

        Raises:
            JobError: the environment names one that can't be used.
        """
        if self.emulated:
            return None
        return proxy_for(url or self.url, self.endpoint.proxy, os.environ if environ is None else environ)

    @property
    def key_sources(self) -> tuple[str, ...]:
        """The environment variables or files that hold the keys; none where the server needs no key."""
        own = self.endpoint
        if own.auth == "none":
            return ()
        named = own.api_key_file or own.api_key_env or vendor(self.card.vendor).api_key_env or ()
        return (named,) if isinstance(named, str) else named

    @property
    def key_variables(self) -> frozenset[str]:
        """Environment variables that may hold a key, in use or not: nothing that is started gets them."""
        own, default = self.endpoint, vendor(self.card.vendor).api_key_env
        named = own.api_key_env or ()
        return frozenset([*((named,) if isinstance(named, str) else named), *([default] if default else [])])

    @property
    def key_names(self) -> list[str]:
        """What each key is told by: its variable, or its file's own name where that tells the files apart."""
        sources = list(self.key_sources)
        files = [Path(source).name for source in sources if self.endpoint.api_key_file]
        return files if files and len(set(files)) == len(files) else sources

    def api_key(self, source: str | None = None) -> str | None:
        """Read a key from its variable or file, by default the first; None when no key is needed.

        Raises:
            JobError: the file or variable is missing or empty, or holds what no header can carry.
        """
        if self.emulated or not self.key_sources:
            return None
        return read_key(source or self.key_sources[0], file=bool(self.endpoint.api_key_file))

    def api_keys(self) -> dict[str, str]:
        """Read all keys, by their variables or files; none where no key is needed.

        Raises:
            JobError: one can't be read, or is the same as another one.
        """
        found = {source: key for source in self.key_sources if (key := self.api_key(source)) is not None}
        refuse_alike(found)
        return found

    @property
    def quota(self) -> tuple[float, float]:
        """Requests and tokens a minute that all keys together may send."""
        keys = 1 if self.emulated else max(1, len(self.key_sources))
        return self.card.rpm * keys, self.card.tpm * keys

    def public(self) -> dict[str, Any]:
        """The resolved job as plain data, its paths as they are from any folder, without what could be a secret."""
        data = self.model_dump(mode="json")
        data["endpoint"]["headers"] = dict.fromkeys(self.endpoint.headers, REDACTED)
        data["endpoint"]["body"] = redacted(self.endpoint.body)
        if (proxy := urlsplit(self.endpoint.proxy or "")).username or proxy.password:
            data["endpoint"]["proxy"] = proxy._replace(
                netloc=f"{REDACTED}@{proxy.netloc.rpartition('@')[2]}"
            ).geturl()
        data["endpoint"]["url"] = _public(self.endpoint.url)
        data["endpoint"]["urls"] = [_public(url) for url in self.endpoint.urls]
        data["on"] = {event: hook and REDACTED for event, hook in data["on"].items()}
        return moved(data, absolute)


def _public(url: str | None) -> str | None:
    parts = urlsplit(url or "")
    return parts._replace(query=REDACTED).geturl() if parts.query else url
