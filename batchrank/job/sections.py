"""Defines the sections of a job, with every key and its default."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from batchrank.io.storage import address_of
from batchrank.job.endpoint import check_json, http_address, http_addresses, proxy_address, refuse_key
from batchrank.job.reading import Columns as Columns
from batchrank.job.reading import Sample
from batchrank.models import Template, Wire

Positive = Annotated[int, Field(ge=1)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """Frozen, and strict about unknown keys; what is refused may be a secret in the wrong place, and isn't repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class Input(Section):
    """Where the queries come from.

    Attributes:
        path: files, globs or folders, here or at an address (``s3://...``), or a dataset's name (``beir:scifact``);
            ``-`` is standard input.
        corpus: where the texts of documents are, when ``path`` names documents by id: files, or a dataset's folder.
        queries: where the texts of queries are, when ``path`` names queries by id.
        split: which part of a dataset's folder; ``test`` by default.
        subset: which language or subset of a dataset's folder that has several.
        sort: group pairs that don't come grouped by query, on disk, before the first query.
        sample: draw so many queries, or such a part (``5%``), the same ones each time.
        limit: stop after so many queries.
    """

    path: Annotated[tuple[str, ...], Field(min_length=1)]
    format: Literal["auto", "jsonl", "parquet", "arrow", "csv", "tsv", "trec", "beir", "mteb"] = "auto"
    corpus: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    queries: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    split: Annotated[str, Field(min_length=1)] | None = None
    subset: Annotated[str, Field(min_length=1)] | None = None
    columns: Columns = Columns()
    sort: bool = False
    sample: Sample | None = None
    limit: Positive | None = None

    @field_validator("sample", mode="before")
    @classmethod
    def _number_or_part(cls, value: Any) -> Any:
        return {"queries": value} if isinstance(value, int | str) else value

    @field_validator("path", "corpus", "queries", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple):
            return values
        return [address_of(path) if isinstance(path, str) else path for path in values]

    @field_validator("path", "corpus", "queries")
    @classmethod
    def _no_secrets(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if any("://" in path and urlsplit(path).username for path in value or ()):
            raise ValueError(
                "a key or password in the address would end up in reports; set it in the environment"
            )
        return value


class Workspace(Section):
    """A workspace of Model Studio, which has a host of its own."""

    workspace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
    region: str | None = None


class Endpoint(Section):
    """Where requests are sent, and with which key. What may hold a secret is not in its ``repr``.

    Attributes:
        url: the full address; None takes the model's; ``emulator`` starts one inside this process.
        urls: instead, the addresses of several servers of the same model; their order decides nothing.
        identity: what answers are remembered under; None takes wire, model and region, so not the address.
        api_key_env: the name of the environment variable that holds the key; None takes the vendor's own. Several
            names are several keys, each with a quota of its own.
        api_key_file: a file that holds the key, instead, or several; read again when the server refuses the key.
        auth: how the key is sent: ``bearer``, in a header of this name, or ``none``.
        body: fields added to every request; mappings go into those that are there already.
        template: the model's own prompt around query and documents; None takes the model's.
        proxy: the address of a proxy, ``none`` for none; None takes what the environment says.
        ca_file: certificates that are trusted instead of the system's.
        client_cert: the certificate that this client shows, and perhaps its key.
        client_key: the certificate's key, where it is a file of its own.
        timeout: seconds one attempt may take.
    """

    url: Annotated[str | None, Field(repr=False)] = None
    urls: Annotated[tuple[str, ...], Field(repr=False)] = ()
    identity: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None
    wire: Wire | None = None
    region: str | Workspace | None = None
    api_key_env: Variable | Annotated[tuple[Variable, ...], Field(min_length=1)] | None = None
    api_key_file: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    auth: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "bearer"
    headers: Annotated[dict[str, str], Field(repr=False)] = {}
    body: Annotated[dict[str, JsonValue], Field(repr=False)] = {}
    template: Template | None = None
    proxy: Annotated[str | None, Field(repr=False)] = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60

    @field_validator("api_key_env", "api_key_file")
    @classmethod
    def _different(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("a name comes twice; each key has a quota of its own, so name each once")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return value if value is None or value == "emulator" else http_address(value)

    @field_validator("urls")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return http_addresses(value)

    @field_validator("body")
    @classmethod
    def _numbers(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        check_json(value)
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy_address(cls, value: str | None) -> str | None:
        if value is None or value == "none":
            return value
        return proxy_address(value)

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _no_key(cls, value: Any) -> Any:
        for name in value if isinstance(value, list | tuple) else [value]:
            if isinstance(name, str):
                refuse_key(name)
        return value

    @model_validator(mode="after")
    def _together(self) -> "Endpoint":
        if self.url is not None and self.urls:
            raise ValueError("url and urls exclude each other; write all addresses in endpoint.urls")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key needs endpoint.client_cert, the certificate that it is the key of")
        if self.auth == "none" and (self.api_key_env or self.api_key_file):
            raise ValueError(
                "auth: none sends no key, so api_key_env and api_key_file have no use; remove one or the other"
            )
        return self


class Merge(Section):
    """How the chunks of one query become one ranking; ``top_k`` is the depth that must be exact."""

    method: Literal["hub", "full", "rrf", "raw"] = "hub"
    top_k: Positive = 100


class Limits(Section):
    """What one request may hold; None takes the model card's number.

    Attributes:
        item_characters: a query or document beyond it is cut before it is sent, because the API would refuse it.
        long_documents: what to do with a document of more than ``item_tokens``: let the API cut it, rank it by its best
            passage, or let its query fail.
        passage_overlap: tokens that neighbouring passages share.
        overhead_tokens: billed per document on top of query, instruct and document.
        headroom: the part of ``request_tokens`` that is kept free.
    """

    documents: Positive | None = None
    request_tokens: Positive | None = None
    item_tokens: Positive | None = None
    item_characters: Positive | None = None
    body_bytes: Annotated[int, Field(ge=1024)] | None = None
    long_documents: Literal["truncate", "split", "error"] = "truncate"
    passage_overlap: Annotated[int, Field(ge=0)] = 100
    overhead_tokens: Annotated[int, Field(ge=0)] = 0
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.02


class Retry(Section):
    """How often one request is tried.

    Attributes:
        attempts: tries per request; being throttled doesn't count as one.
        max_delay: the longest pause between two tries, seconds.
        outage: after so many seconds without any success the run stops, to be continued later.
    """

    attempts: Positive = 6
    max_delay: Annotated[float, Field(gt=0)] = 60
    outage: Annotated[float, Field(gt=0)] = 600


class Budget(Section):
    """What may be spent: a cost in the price's currency, a number of tokens, a number of requests.

    Attributes:
        per: what the caps hold for: one input and its settings, a calendar day in UTC, or all that the ledger paid.
    """

    max_cost: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Positive | None = None
    max_requests: Positive | None = None
    per: Literal["run", "day", "total"] = "run"


class Failures(Section):
    """Past so many failed queries the run stops."""

    max_queries: Annotated[int, Field(ge=0)] | None = None


class Gate(Section):
    """What the new rankings must keep to, compared with the last run that did; past it the run ends with exit code 5.

    Attributes:
        against: another job's output folder to compare with.
        depth: documents of each query that are compared.
        persistence: how likely a reader is to go on to the next rank: the p of rank-biased overlap.
        min_rbo: the least mean rank-biased overlap.
        min_tau: the least mean Kendall's tau.
        qrels: judgements, for the next two.
        min_ndcg: the least nDCG at the depth.
        max_ndcg_drop: the most that it may fall.
    """

    against: str | None = None
    depth: Annotated[int, Field(ge=1, le=1000)] = 10
    persistence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    min_rbo: Annotated[float, Field(ge=0, le=1)] | None = 0.8
    min_tau: Annotated[float, Field(ge=-1, le=1)] | None = None
    qrels: tuple[str, ...] = ()
    min_ndcg: Annotated[float, Field(ge=0, le=1)] | None = None
    max_ndcg_drop: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("qrels", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _judged(self) -> "Gate":
        if not self.qrels and (self.min_ndcg is not None or self.max_ndcg_drop is not None):
            raise ValueError("min_ndcg and max_ndcg_drop need gate.qrels")
        return self


PART_DOCUMENTS = 250_000
"""Documents of a part: it takes seconds to make anew, and a large run has few files."""
_SECRETS = ("key", "secret", "password", "token", "sig=")
"""What the names of options hold that carry a secret."""


class Output(Section):
    """Where rankings go: a folder, an address (``s3://...``), or ``-`` for JSON lines on standard output.

    Attributes:
        texts: whether documents and queries themselves are written, too, where the format has a place for them.
    """

    path: str
    format: Literal["parquet", "jsonl", "trec", "rank_llm", "mteb", "msmarco"] = "parquet"
    top_n: Positive | None = None
    texts: bool = False
    part_documents: Positive = PART_DOCUMENTS

    @field_validator("path")
    @classmethod
    def _usable(cls, value: str) -> str:
        if "://" not in value:
            return value
        parts = urlsplit(value)
        if parts.username or any(word in parts.query.lower() for word in _SECRETS):
            raise ValueError(
                "a key or password in the address would end up in reports; set it in the environment"
            )
        if parts.scheme in ("file", "local"):
            raise ValueError("a folder here is written as its path alone, without file://")
        if not parts.netloc and not parts.path.strip("/"):
            raise ValueError("the address names no bucket; write such as s3://bucket/folder")
        return value

    @model_validator(mode="after")
    def _place_for_texts(self) -> "Output":
        if self.texts and self.format in ("trec", "mteb", "msmarco"):
            raise ValueError(
                f"a {self.format} file holds ids and scores, and no texts; remove output.texts, or set output.format "
                "to parquet, jsonl or rank_llm"
            )
        return self
