"""Compares a run with the one before it: whether job and input are still the same, and which queries failed then.

Two settings, or two inputs, must never meet in one output. So every key of a job counts, unless it is listed here as
harmless: a key that somebody adds counts from its first day.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from batchrank.data import Query
from batchrank.errors import JobError
from batchrank.job.config import Job
from batchrank.job.schema import key_names
from batchrank.outcomes import Failure
from batchrank.version import __version__
from batchrank.write.folder import LETTERS, SUMMARY, OutputFolder, records

_ACCESS = "who asks and by which way, not what is asked"
_PACE = "how fast and how often requests are sent; what became of each is in the ledger"
_END = "whether the run goes on or passes, not what it writes"
HARMLESS: dict[str, str] = {
    "name": "what people call the job; nothing in a ranking says it",
    "input.path": "the files that it names are compared themselves, by their names, sizes and times",
    "model": "the card and the price that it stands for are compared instead",
    "endpoint.urls": "replicas of one model come and go, and each answers for all",
    **dict.fromkeys(("endpoint.api_key_env", "endpoint.api_key_file", "endpoint.auth"), _ACCESS),
    **dict.fromkeys(
        ("endpoint.proxy", "endpoint.ca_file", "endpoint.client_cert", "endpoint.client_key"), _ACCESS
    ),
    "endpoint.timeout": _PACE,
    **dict.fromkeys(("rate.rpm", "rate.tpm", "rate.share", "rate.account", "rate.concurrency"), _PACE),
    **dict.fromkeys(("retry.attempts", "retry.max_delay", "retry.outage"), _PACE),
    **dict.fromkeys(("budget.max_cost", "budget.max_tokens", "budget.max_requests", "budget.per"), _END),
    "failures.max_queries": _END,
    **{
        f"gate.{key}": _END
        for key in (
            "against", "depth", "persistence", "min_rbo", "min_tau", "qrels", "min_ndcg", "max_ndcg_drop",
        )
    },
    **dict.fromkeys(("on.complete", "on.failed", "on.gate"), "whom a run tells of its end"),
    **dict.fromkeys(
        ("engine.processes", *(f"engine.ray.{key}" for key in ("address", "workers", "cpus", "memory"))),
        "who does the work; each part is made alike wherever that is",
    ),
    "output.path": "each folder has a state of its own in the ledger",
    "ledger": "where answers are kept, not what they say",
}  # fmt: skip
"""Keys that can't change a ranking, each with the reason."""
_HIDDEN = {"endpoint.headers", "endpoint.body"}
"""Keys whose values may be secrets: kept as fingerprints."""
_ADDRESSES = {"endpoint.url", "input.corpus", "input.queries"}
"""Keys whose values may have a secret in the query of an address."""
ITSELF, INPUT = "batchrank itself", "the input"
"""What may have changed besides keys of the job."""
PROGRAM = "batchrank"
"""What tells the version: another one may rank differently, but goes on with the same run's caps."""


def identity(job: Job, tokenizer: str) -> dict[str, Any]:
    """All that the rankings of a job depend on besides the input's content: by key, and as resolved."""
    data = job.model_dump(mode="json")
    card = job.card.model_dump(mode="json", exclude={"rpm", "tpm", "source", "prices", "tokenizer"})
    price = None if job.price is None else job.price.model_dump(mode="json")
    resolved = {
        PROGRAM: __version__,
        "model": {"card": card, "price": price},
        "endpoint": ["several" if job.endpoint.urls else _address(job.url), job.wire],
        "tokenizer in use": tokenizer,
    }
    return resolved | {key: _told(key, _value(data, key)) for key in leaves() if key not in HARMLESS}


def differences(before: Any, now: dict[str, Any], files: list[list[Any]] | None) -> list[str]:
    """What differs from the run before, for the user.

    Args:
        before: its state; None for none.
        now: this run's identity.
        files: this run's input files.
    """
    if before is None:
        return []
    known = before["identity"]
    less = "limits.documents" not in known  # noted by a batchrank that compared less
    told = (_said(key, known) for key in now if known.get(key) != now[key])
    changed = [ITSELF] if less else list(dict.fromkeys(told))
    return changed + ([INPUT] if before["inputs"] != files else [])


def _said(key: str, known: Mapping[str, Any]) -> str:
    """What differs; a key that the run before did not know is one of a newer batchrank."""
    return ITSELF if key == PROGRAM or key not in known else f"the job ({key})"


def leaves() -> list[str]:
    """The dotted names of the keys that hold a value, as opposed to those that hold other keys."""
    names = list(key_names())
    parents = {name.rpartition(".")[0] for name in names}
    return [name for name in names if name not in parents]


def _value(data: Any, key: str) -> Any:
    for name in key.split("."):
        data = None if data is None else data[name]
    return data


def _told(key: str, value: Any) -> Any:
    """A value as it may be kept in a file."""
    if not value:
        return value
    if key in _HIDDEN:
        return fingerprint(value)
    if key in _ADDRESSES:
        return _address(value) if isinstance(value, str) else [_address(one) for one in value]
    return value


def _address(url: str) -> str:
    """An address that tells changes without telling a secret that may be in its query."""
    base, mark, query = url.partition("?")
    return base + mark + (fingerprint(query)[:16] if query else "")


def input_fingerprint(files: list[list[Any]] | None) -> str:
    """What tells one state of an input from another: a run notes it, a benchmark asks whether its cell is up to date.

    Args:
        files: all files that are read, corpus and queries included, as ``read.layout.facts`` tells them.
    """
    return fingerprint(files)


def fingerprint(data: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()


_UNITS = ("line", "row", "query")


class OnlyFailed:
    """Tells the queries that failed in the run before from those whose answers the ledger must have.

    Args:
        ids: ids of queries that failed.
        places: places of records that could not be read, in case they were mended.
        ranked: how many queries the run before ranked.
    """

    def __init__(self, ids: frozenset[str], places: frozenset[str], ranked: int) -> None:
        self._ids = ids
        self._places = places
        self._ranked = ranked

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read the dead letters of a job.

        Raises:
            JobError: there are none, or they can't be read.
        """
        path = OutputFolder(job.destination or Path()).newest(LETTERS)
        try:
            letters = list(records(path))
        except FileNotFoundError:
            raise JobError(f"--only-failed: {path} does not exist: run the job without it first") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise JobError(f"--only-failed: {path} can't be read: {error}") from None
        ids = frozenset(letter["query_id"] for letter in letters if letter["query_id"] is not None)
        return cls(ids, frozenset(_place(letter) for letter in letters), _ranked(job))

    def __call__(self, query: Query) -> bool:
        """Whether requests may be sent for this query."""
        return query.id in self._ids or str(query.place) in self._places

    def fewer(self, ranked: int) -> JobError | None:
        """What to stop with where fewer queries are ranked than before; None where none would be missing."""
        if ranked >= self._ranked:
            return None
        return JobError(
            f"--only-failed: {ranked:,} queries are ranked now and {self._ranked:,} were before, because the input has "
            "changed since; the others would be missing from the output, which stays as it is: run the job without "
            "--only-failed"
        )


def _ranked(job: Job) -> int:
    """How many queries the last complete run ranked; 0 where that can't be told."""
    last = OutputFolder(job.destination or Path()).newest(SUMMARY).parent
    summary = OutputFolder(last).complete()
    return 0 if summary is None else int(summary["totals"]["queries"])


def _place(letter: dict[str, Any]) -> str:
    """Where a dead letter's query stands, as ``Place`` tells it: the unit is the key of its number."""
    return next((f"{letter['file']}, {unit} {letter[unit]}" for unit in _UNITS if unit in letter), "")


def refuse_unasked(results: Iterable[object]) -> None:
    """Stop a run that would lose a ranking: a query that did not fail before, and that the ledger can't answer.

    Raises:
        JobError: one of the results is the failure of such a query; the earlier output stays.
    """
    failure = next((r for r in results if isinstance(r, Failure) and r.cause == "not-asked"), None)
    if failure is not None:
        raise JobError(
            f"--only-failed: query {failure.query_id!r} ({failure.place}) is not in failed.jsonl, and the ledger lacks "
            "answers for it, because the input or the job has changed since; it would be missing from the output, "
            "which stays as it is: run the job without --only-failed"
        )
