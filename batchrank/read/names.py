"""Lists the names that the field uses for its columns, and tells which of them name documents by id."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """The name that a record has of the first tier of names of which it has any.

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
    way = ", or to the query's, whose text is then its id" if role == "query_id" else ""
    return ColumnsError(
        cause,
        f"no {label}: none of {names} is among {listed(fields)}; set input.columns.{role} to its name{way}",
    )


def listed(fields: Iterable[str]) -> str:
    """The names in a record, in a user's words."""
    names = [str(name)[:60] for name in fields]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"the names there ({', '.join(names[:20])}{more})" if names else "the names there (it has none)"


_LISTS = (IDS[0], (*CANDIDATES[0], "ranking"))
_JUDGED = {"query-id", "corpus-id", "score"}


@dataclass(frozen=True, slots=True)
class EntryRoles:
    """Where a record has its parts.

    Attributes:
        query: the query's text, where the record holds it.
        many: a list of ids, or of objects that have one.
        doc_id: the one document's id, where there is no list.
        judged: whether the scores are relevance judgements: the names are those of BEIR's and MTEB's qrels.
    """

    query_id: Path
    query: Path | None
    many: Path | None
    doc_id: Path | None
    score: Path | None
    judged: bool

    @property
    def paths(self) -> list[Path]:
        """All that is there."""
        return [p for p in (self.query_id, self.query, self.many, self.doc_id, self.score) if p]


@dataclass(frozen=True, slots=True)
class ItemRoles:
    """Where an object of a list has the document's id and its score."""

    doc_id: Path
    score: Path | None


@dataclass(frozen=True, slots=True)
class TextRoles:
    """Where a record of a collection has its id, its text and its title."""

    id: Path
    text: Path
    title: Path | None


def entry_roles(fields: Fields, columns: Columns) -> EntryRoles:
    """Find the roles in a record of a run.

    Raises:
        ColumnsError: there is no query id or no document id, or a role is ambiguous.
    """
    columns = _present(fields, columns)
    query = named("query", fields, columns) or pick("query", fields, QUERY)
    inner = fields.get(query[0]) if query and len(query) == 1 else None
    query_id = named("query_id", fields, columns) or pick("query_id", fields, QUERY_ID[:2])
    if query and inner:
        query_id = query_id or ((query[0], *found) if (found := pick("query_id", inner, QUERY_ID)) else None)
        text = pick("query", inner, QUERY)
        query = (query[0], *text) if text else None
    query_id = query_id or pick("query_id", fields, QUERY_ID[2:])
    if not query_id:
        raise _missing("query id", QUERY_ID, fields, "query_id")
    many = named("candidates", fields, columns) or pick("candidates", fields, _LISTS)
    if many:
        return EntryRoles(query_id, query, many, None, None, judged=False)
    doc_id = named("doc_id", fields, columns) or pick(
        "doc_id", [f for f in fields if (f,) != query_id], DOC_ID
    )
    if not doc_id:
        raise _missing("document id or list of them", (*_LISTS, *DOC_ID), fields, "doc_id")
    score = named("score", fields, columns) or pick("score", fields, SCORE)
    if query in [(name,) for name in QUERY[1]] and not columns.query:
        query = None  # in a pair that is the document's text
    return EntryRoles(query_id, query, None, doc_id, score, judged=set(fields) == _JUDGED)


def item_roles(fields: Fields, columns: Columns) -> ItemRoles:
    """Find the roles in an object of a list.

    Raises:
        ColumnsError: there is no document id, or a role is ambiguous.
    """
    columns = _present(fields, columns)
    doc_id = named("doc_id", fields, columns) or pick("doc_id", fields, DOC_ID)
    if not doc_id:
        raise _missing("document id", DOC_ID, fields, "doc_id")
    return ItemRoles(doc_id, named("score", fields, columns) or pick("score", fields, SCORE))


def text_roles(fields: Fields, columns: Columns, *, queries: bool) -> TextRoles:
    """Find the roles in a record of a corpus, or of a collection of queries.

    Raises:
        ColumnsError: there is no id or no text, or a role is ambiguous.
    """
    columns = _present(fields, columns)
    key, names = ("query_id", QUERY_ID) if queries else ("doc_id", DOC_ID)
    text_key, texts = ("query", (*QUERY, *NESTED_TEXT)) if queries else ("text", NESTED_TEXT)
    name = named(key, fields, columns) or pick(key, fields, names)
    if not name:
        raise _missing("id", names, fields, key)
    text = named(text_key, fields, columns) or pick(text_key, fields, texts)
    if not text:
        raise _missing("text", texts, fields, text_key)
    title = (TITLE,) if TITLE in fields and not queries and text != (TITLE,) else None
    return TextRoles(name, text, title)


def _present(fields: Fields, columns: Columns) -> Columns:
    """The job's names without those that aren't there: a run and its corpus rarely share their names."""
    inner = {name for names in fields.values() for name in names or ()}
    gone = {
        role: None
        for role, name in columns.model_dump().items()
        if name is not None and name not in fields and name.rpartition(".")[2] not in inner
    }
    return columns.model_copy(update=gone)


def _missing(what: str, tiers: tuple[tuple[str, ...], ...], fields: Fields, key: str) -> ColumnsError:
    names = ", ".join(dict.fromkeys(name for tier in tiers for name in tier))
    there = ", ".join(list(fields)[:20])
    return ColumnsError(
        "no-columns",
        f"no {what}: none of {names} is among the names there ({there}); set input.columns.{key}",
    )
