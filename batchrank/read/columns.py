"""Finds which key or column holds what: by the job's ``input.columns``, otherwise by the usual names.

How a name is found, first match wins:

1. the name that ``input.columns`` gives; a dot reaches into an object (``doc.text``);
2. a name that has only this meaning (``query_id``, ``docid``); two of them are ambiguous;
3. a name that several roles share (``_id``, ``id``, ``text``), if only one role is left for it.

A query may be an object of id and text, a document one of text, title and id. Beside a list of texts there may be
one of their ids (``candidate_ids``); a record with ``positive`` and ``negative`` is one of mteb's.

A document may have an image or a video in place of its text, a query an image. Where the job names the text and not
the image, only the text is looked for: so that data with images can be ranked by its texts.
"""

from dataclasses import dataclass

from batchrank.job.sections import Columns
from batchrank.read.base import ColumnsError
from batchrank.read.names import (
    CANDIDATES,
    DOC_ID,
    IDS,
    IMAGE,
    LABELLED,
    NESTED_TEXT,
    QUERY,
    QUERY_ID,
    QUERY_IMAGE,
    SCORE,
    TEXT,
    TITLE,
    VIDEO,
    Fields,
    Path,
    ambiguous,
    listed,
    missing,
    named,
    pick,
)


@dataclass(frozen=True, slots=True)
class DocumentRoles:
    """Where a candidate has its parts; at least one of ``text``, ``image`` and ``video`` is there."""

    text: Path | None
    title: Path | None = None
    doc_id: Path | None = None
    score: Path | None = None
    image: Path | None = None
    video: Path | None = None

    @property
    def visual(self) -> bool:
        """Whether a document may be anything but a text."""
        return self.image is not None or self.video is not None


@dataclass(frozen=True, slots=True)
class RecordRoles:
    """Where a record has its parts: a list of candidates, or the one document of a pair.

    Attributes:
        query: the query's text; None where a query can only be an image.
        ids: a list of the candidates' ids beside them.
        labelled: whether the candidates are those of ``LABELLED``; then ``query_id`` may be empty.
        query_image: the query's image.
    """

    query_id: Path
    query: Path | None
    candidates: Path | None
    document: DocumentRoles | None
    ids: Path | None = None
    labelled: bool = False
    query_image: Path | None = None


def record_roles(fields: Fields, columns: Columns, *, sparse: bool = False) -> RecordRoles:
    """Find the roles in a record: one row a query, or one row a pair when there is no list.

    Args:
        fields: the names in it.
        columns: what the job names.
        sparse: whether other records may have other names, so that not all that the job names must be in this one.

    Raises:
        ColumnsError: a role is missing or ambiguous; the message names the key to set.
    """
    candidates = named("candidates", fields, columns) or pick("candidates", fields, CANDIDATES)
    if not candidates and all(name in fields for name in LABELLED) and not columns.text:
        return _labelled_roles(fields, columns)
    if not candidates:
        return _pair_roles(fields, columns, sparse)
    query, image = _query(fields, columns, QUERY)
    ids = pick("doc_id", fields, IDS)
    query_id = _query_id(fields, columns, query or image or ())
    return RecordRoles(query_id, query, candidates, None, ids, query_image=image)


def document_roles(fields: Fields, columns: Columns, *, sparse: bool = False) -> DocumentRoles:
    """Find the roles in one candidate of a list; the arguments are those of ``record_roles``.

    Raises:
        ColumnsError: there is no text, image or video, or a role is ambiguous.
    """
    image = _media("image", IMAGE, fields, columns, sparse)
    video = _media("video", VIDEO, fields, columns, sparse)
    media = image or video
    text = None if media and _textless(fields, columns, media, sparse) else _text(fields, columns)
    # An object around the content may hold the title and the id as well.
    content = text or media or ()
    around = content[:1] if len(content) > 1 else ()
    title = None
    if text:
        title = next((t for t in ((*around, TITLE), (TITLE,)) if _has(fields, t) and t != text), None)
    doc_id = named("doc_id", fields, columns) or pick("doc_id", fields, DOC_ID)
    if not doc_id and around and (nested := pick("doc_id", fields.get(around[0]) or (), DOC_ID)):
        doc_id = (*around, *nested)
    score = named("score", fields, columns) or pick("score", fields, SCORE)
    return DocumentRoles(text, title, doc_id, score, image, video)


def refuse_plain(columns: Columns, *, sparse: bool = False) -> None:
    """Refuse keys that can't apply when candidates are plain strings.

    Args:
        columns: what the job names.
        sparse: whether the candidates of other records may be images or videos.

    Raises:
        ColumnsError: the job names a part of a document.
    """
    for role in ("doc_id", "text", "score", *(() if sparse else ("image", "video"))):
        if name := getattr(columns, role):
            raise ColumnsError(
                "unknown-column",
                f"input.columns.{role} names {name!r}, but the candidates are plain strings, with nothing in them to "
                "name; remove the key, or make each candidate an object",
            )


def _labelled_roles(fields: Fields, columns: Columns) -> RecordRoles:
    query, _ = _query(fields, columns, QUERY, visual=False)
    query_id = named("query_id", fields, columns) or pick("query_id", fields, QUERY_ID)
    return RecordRoles(query_id or (), query, None, None, labelled=True)


def _pair_roles(fields: Fields, columns: Columns, sparse: bool) -> RecordRoles:
    texts = [name for name in TEXT[0] if name in fields]
    # An image that could be a part of a pair's document; where the job names the text only, none is.
    media = (
        columns.image
        or columns.video
        or (not columns.text and any(n in fields for n in (*IMAGE[0], *VIDEO[0])))
    )
    if not columns.text and not texts and not media:
        if any(name in fields for name in (*IDS[0], *DOC_ID[0])):
            raise ColumnsError(
                "no-candidates",
                f"no texts: the names there ({', '.join(fields)}) give documents by id only; set input.corpus to the "
                "file that holds their texts",
                ambiguous=True,
            )
        names = ", ".join(CANDIDATES[0] + TEXT[0] + IMAGE[0] + VIDEO[0])
        raise ColumnsError(
            "no-candidates",
            f"no candidates: none of {names} is among {listed(fields)}; set input.columns.candidates (one record a "
            "query) or input.columns.text (one record a pair)",
        )
    # `text` is the query's only where no other name is there for it and the document has one of its own.
    pictured = any(name in fields for name in QUERY_IMAGE[0])
    own = columns.text or len(texts) > 1 or (media and not pictured)
    query, image = _query(fields, columns, QUERY if own else QUERY[:1])
    asked = query or image or ()
    taken = {path[0] for path in (query, image) if path}
    document = {name: inner for name, inner in fields.items() if name not in taken}
    _refuse_shared_id(fields, columns, asked, document)
    theirs = (columns.doc_id, columns.text, columns.score, columns.image, columns.video)
    mine = {name: inner for name, inner in fields.items() if name not in theirs}
    query_id = _query_id(mine, columns, asked)
    document = {name: inner for name, inner in document.items() if (name,) != query_id}
    found = document_roles(document, columns, sparse=sparse)
    return RecordRoles(query_id, query, None, found, query_image=image)


def _refuse_shared_id(fields: Fields, columns: Columns, query: Path, document: Fields) -> None:
    """Refuse ``_id`` or ``id`` in a pair where both the query's id and the document's are still to be found."""
    shared = [name for name in DOC_ID[1] if name in fields]
    in_query = fields.get(query[0]) or () if len(query) > 1 else ()
    in_document = {name for inner in document.values() for name in inner or ()}
    known_query = columns.query_id or any(n in fields for tier in QUERY_ID[:2] for n in tier)
    known_query = known_query or any(n in in_query for tier in QUERY_ID for n in tier)
    known_document = columns.doc_id or any(n in fields for n in DOC_ID[0])
    known_document = known_document or any(n in in_document for tier in DOC_ID for n in tier)
    if shared and not known_query and not known_document:
        raise ambiguous(
            f"{' and '.join(shared)} could be the query's id or the document's", "query_id", "doc_id"
        )


def _query(
    fields: Fields, columns: Columns, tiers: tuple[tuple[str, ...], ...], *, visual: bool = True
) -> tuple[Path | None, Path | None]:
    """The query's text and its image; one of the two at least.

    1. The job names it: as it says; the names of images tell that it is one.
    2. An object: its text and its image.
    3. Otherwise the text, and the image beside it.
    """
    path = named("query", fields, columns)
    if path and visual and path[-1] in (*QUERY_IMAGE[0], *(IMAGE[0] if len(path) > 1 else ())):
        return None, path
    image = pick("query", fields, QUERY_IMAGE) if visual and not path else None
    path = path or pick("query", fields, tiers)
    if not path and not image:
        raise missing("query", fields)
    inner = fields.get(path[0]) if path and len(path) == 1 else None
    if path is None or inner is None:
        return path, image
    nested = pick("query", inner, (QUERY[0] + QUERY[1],))
    picture = pick("query", inner, IMAGE) if visual else None
    if not nested and not picture:
        raise missing("query", inner)
    return path + nested if nested else None, path + picture if picture else image


def _query_id(fields: Fields, columns: Columns, query: Path) -> Path:
    inner = fields.get(query[0]) or () if len(query) > 1 else ()
    if columns.query_id and columns.query_id in inner and columns.query_id not in fields:
        return query[0], columns.query_id
    if path := named("query_id", fields, columns):
        return path
    outer = pick("query_id", [name for name in fields if name != query[0]], QUERY_ID)
    nested = pick("query_id", inner, QUERY_ID)
    if nested and outer and outer[0] in QUERY_ID[0]:
        raise ambiguous(f"{outer[0]} and {query[0]}.{nested[0]} could both be the query's id", "query_id")
    if nested:
        return query[0], nested[0]
    if not outer:
        raise missing("query_id", fields)
    return outer


def _media(
    role: str, tiers: tuple[tuple[str, ...], ...], fields: Fields, columns: Columns, sparse: bool
) -> Path | None:
    """The document's image or video, in itself or in an object that holds its text otherwise."""
    if getattr(columns, role):
        try:
            return named(role, fields, columns)
        except ColumnsError:
            if sparse:
                return None
            raise
    if columns.text:
        return None
    if found := pick(role, fields, tiers):
        return found
    around = [name for name in TEXT[0] if name in fields]
    if len(around) != 1 or not (inner := fields[around[0]]):
        return None
    nested = pick(role, inner, tiers)
    return (around[0], *nested) if nested else None


def _textless(fields: Fields, columns: Columns, media: Path, sparse: bool) -> bool:
    """Whether a document of an image or a video has no name for a text."""
    if columns.text:
        try:
            named("text", fields, columns)
        except ColumnsError:
            return sparse
        return False
    names = [name for name in TEXT[0] if name in fields]
    # Objects without a text beside or around the image describe it.
    return all(inner and not set(inner) & set(NESTED_TEXT[0]) for inner in map(fields.get, names))


def _text(fields: Fields, columns: Columns) -> Path:
    """The document's text; beside a plain value, an object of the same role only describes the document."""
    plain = [name for name, inner in fields.items() if inner is None]
    path = named("text", fields, columns) or pick("text", plain, TEXT) or pick("text", fields, TEXT)
    if not path:
        raise missing("text", fields)
    inner = fields.get(path[0]) if len(path) == 1 else None
    if inner is None:
        return path
    nested = pick("text", inner, NESTED_TEXT)
    if not nested:
        raise missing("text", inner)
    return path + nested


def _has(fields: Fields, path: Path) -> bool:
    return path[0] in fields and (len(path) == 1 or path[1] in (fields[path[0]] or ()))
