"""The names of the field, and how one of them is found in a record."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from batchrank.job.sections import Columns
from batchrank.read.base import ColumnsError

Path: TypeAlias = tuple[str, ...]
Fields: TypeAlias = Mapping[str, tuple[str, ...] | None]
"""The names in a record; an object's value is the names in it, anything else is None."""

QUERY_ID = (("query_id", "qid", "query-id"), ("custom_id",), ("_id", "id"))
QUERY = (("query", "query_text", "question"), ("text",))
CANDIDATES = (("candidates", "documents", "docs", "passages", "candidate_docs"),)
DOC_ID = (("doc_id", "docid", "pid", "did", "corpus-id"), ("_id", "id"))
IDS = (("candidate_ids", "corpus-ids", "doc_ids", "docids"),)
LABELLED = ("positive", "negative")
TEXT = (("text", "passage", "doc", "contents", "content", "body", "document"),)
NESTED_TEXT = ((*TEXT[0], "segment"),)
SCORE = (("score",),)
IMAGE = (("image", "image_url", "image_path", "image_bytes"),)
VIDEO = (("video", "video_url"),)
QUERY_IMAGE = (tuple(f"query_{name}" for name in IMAGE[0]),)
TITLE = "title"

_CAUSES = {
    "query_id": ("no-query-id", "query id", QUERY_ID),
    "query": ("null-query", "query", QUERY + QUERY_IMAGE[:1]),
    "candidates": ("no-candidates", "list of candidates", CANDIDATES),
    "text": ("no-text", "document text", TEXT + IMAGE + VIDEO),
}


def named(role: str, fields: Fields, columns: Columns) -> Path | None:
    """The path that the job names for a role; None when it names none.

    Raises:
        ColumnsError: nothing of that name is there.
    """
    name: str | None = getattr(columns, role)
    if name is None:
        return None
    outer, _, inner = name.partition(".")
    if name in fields:
        return (name,)
    if inner and inner in (fields.get(outer) or ()):
        return outer, inner
    for outer, names in fields.items():
        if role in ("doc_id", "text", "score", "image", "video") and name in (names or ()):
            return outer, name
    raise ColumnsError(
        "unknown-column",
        f"input.columns.{role} names {name!r}, which is not among {listed(fields)}; correct it",
    )


def pick(role: str, fields: Iterable[str], tiers: tuple[tuple[str, ...], ...]) -> Path | None:
    """The name that is there of the first tier that has any.

    Raises:
        ColumnsError: two of one tier are there.
    """
    present = set(fields)
    for tier in tiers:
        found = [name for name in tier if name in present]
        if len(found) > 1:
            label = role.replace("_", " ")
            raise ambiguous(f"{' and '.join(found)} could each be the {label}", role)
        if found:
            return (found[0],)
    return None


def ambiguous(what: str, *roles: str) -> ColumnsError:
    """What to say where a name may stand for several things."""
    keys = " or ".join(f"input.columns.{role}" for role in roles)
    return ColumnsError("ambiguous-columns", f"{what}; set {keys} to the right name", ambiguous=True)


def missing(role: str, fields: Iterable[str]) -> ColumnsError:
    """What to say where a role has no name."""
    cause, label, tiers = _CAUSES[role]
    names = ", ".join(dict.fromkeys(name for tier in tiers for name in tier))
    return ColumnsError(
        cause, f"no {label}: none of {names} is among {listed(fields)}; set input.columns.{role} to its name"
    )


def listed(fields: Iterable[str]) -> str:
    """The names in a record, in a user's words."""
    names = [str(name)[:60] for name in fields]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"the names there ({', '.join(names[:20])}{more})" if names else "the names there (it has none)"
