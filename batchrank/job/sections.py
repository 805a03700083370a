"""Defines the sections of a job, with every key and its default."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from batchrank.io.storage import address_of
from batchrank.job.paths import Dated
from batchrank.job.reading import Columns as Columns
from batchrank.job.reading import Sample

Positive = Annotated[int, Field(ge=1)]


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
        order: rank queries by this field of their records, the lowest first; the highest first with a minus before it.
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
    order: Annotated[str, Field(pattern=r"^-?[^-]")] | None = None
    sample: Sample | None = None
    limit: Positive | None = None

    @field_validator("order", mode="before")
    @classmethod
    def _column(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

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

    @model_validator(mode="after")
    def _ordered(self) -> "Input":
        if self.order is not None and (self.corpus or self.queries):
            raise ValueError(
                "order takes a field of records that hold their texts, and corpus or queries join them by id; put the "
                "lines of input.path in order instead, and remove input.order"
            )
        return self

    @field_validator("path", "corpus", "queries")
    @classmethod
    def _no_secrets(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if any("://" in path and urlsplit(path).username for path in value or ()):
            raise ValueError(
                "a key or password in the address would end up in reports; set it in the environment"
            )
        return value


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

    In a job file the path may hold ``{date}`` and ``{name}``; a job that was loaded has what they stand for.

    Attributes:
        texts: whether documents and queries themselves are written, too, where the format has a place for them.
    """

    path: str
    format: Literal["parquet", "jsonl", "trec", "rank_llm", "mteb", "msmarco"] = "parquet"
    top_n: Positive | None = None
    texts: bool = False
    part_documents: Positive = PART_DOCUMENTS
    _dated: Dated | None = PrivateAttr(None)

    @property
    def dated(self) -> Dated | None:
        """How the path goes on other days; None where it is the same on all."""
        return self._dated

    def named(self, path: str, dated: Dated | None) -> "Output":
        """The same output at a path, which ``dated`` tells for other days."""
        found = self.model_copy(update={"path": path})
        found._dated = dated
        return found

    @field_validator("path", mode="before")
    @classmethod
    def _in_quotes(cls, value: Any) -> Any:
        if isinstance(value, dict):
            raise ValueError(
                "YAML takes what begins with a brace for a mapping; write ./{date}, or put it in quotes"
            )
        return value

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
