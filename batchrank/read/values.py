"""Defines what one value may be (an id, a query, a text, an image, a score, a label), alike for every format."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from batchrank.data import Content, Image, Video
from batchrank.errors import Place, QueryError
from batchrank.outcomes import Failure
from batchrank.read.base import Item, Segment, Source

NAN = float("nan")
_WRITE_IMAGE = (
    "write an address, a data URI, a path below image_root, or bytes in a binary column or {bytes, path}"
)

_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction, or one beyond 64 bits",
    str: "a string",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
    type(None): "null",
}


def kind(value: object) -> str:
    """A value's type in a user's words."""
    return _TYPES.get(type(value), type(value).__name__)


def identifier(value: object, what: str) -> str | None:
    """An id as a string; None where it is missing.

    Raises:
        QueryError: it is neither a string nor a whole number.
    """
    if type(value) is str or value is None:
        return value
    if type(value) is int:
        return str(value)
    raise QueryError("wrong-type", f"{what} is {kind(value)}; write a string or a whole number")


def query_identifier(value: object) -> str:
    """A query's id as a string.

    Raises:
        QueryError: it is missing, empty or of a wrong type.
    """
    query_id = value if type(value) is str else identifier(value, "the query id")
    if not query_id:
        raise QueryError("no-query-id", "the query id is null or empty; give the query an id")
    return query_id


def query_text(value: object) -> str:
    """A query's text.

    Raises:
        QueryError: it is missing, blank or not a string.
    """
    if value is None:
        raise QueryError("null-query", "the query is null; write its text, or remove the record")
    if type(value) is not str:
        raise QueryError("wrong-type", f"the query is {kind(value)}, not a string; write its text")
    if not value or value.isspace():
        raise QueryError("empty-query", "the query is empty; write its text, or remove the record")
    return value


def query_content(text: object, image: object) -> Content:
    """A query: a text or an image.

    Raises:
        QueryError: it is neither or both, or of a wrong type.
    """
    picture = _image(image, "the query's image")
    if picture is None:
        return query_text(text)
    if text is not None and not (type(text) is str and _blank(text)):
        raise QueryError(
            "text-and-media",
            "a query is a text or an image, not both: leave one of them out, or set input.columns.query to the one "
            "that is meant",
        )
    return picture


def document_content(text: str, title: str, image: object, video: object) -> Content:
    """A document: an image, a video, or else a text below its title; empty when there is none of them.

    A title beside an image or a video only describes it.

    Raises:
        QueryError: it is several of them, or one is of a wrong type.
    """
    picture = _image(image, "the document's image")
    if video is not None and type(video) is not str:
        raise QueryError("wrong-type", f"the document's video is {kind(video)}; write its address")
    film = None if video is None or _blank(video) else Video(video)
    if picture is None and film is None:
        return titled(title, text)
    given = [
        name
        for name, there in (
            ("text", not _blank(text)),
            ("image", picture is not None),
            ("video", film is not None),
        )
        if there
    ]
    if len(given) > 1:
        raise QueryError(
            "text-and-media",
            f"a document is a text, an image or a video, not several: this one has {' and '.join(given)}; leave one "
            "of them out, or set input.columns.text to rank by the texts only",
        )
    return picture or film or ""


def _image(value: object, what: str) -> Image | None:
    """An image as it is given, or as an object ``{bytes, path}``, as data sets have it; None where there is none."""
    if type(value) is dict:
        if value and not value.keys() <= {"bytes", "path"}:
            raise QueryError(
                "wrong-type", f"{what} is an object of {', '.join(map(str, value))[:80]}; {_WRITE_IMAGE}"
            )
        inner = value.get("bytes")
        if inner is not None and type(inner) is not bytes:
            raise QueryError("wrong-type", f"the bytes of {what} are {kind(inner)}; {_WRITE_IMAGE}")
        value = value.get("path") if inner is None else inner
    if value is None:
        return None
    if type(value) is bytes:
        return Image(value) if value else None
    if type(value) is not str:
        raise QueryError("wrong-type", f"{what} is {kind(value)}; {_WRITE_IMAGE}")
    return None if _blank(value) else Image(value)


def _blank(text: str) -> bool:
    return not text or text.isspace()


def document_text(value: object) -> str:
    """A document's text or title; a missing one is empty.

    Raises:
        QueryError: it is not a string.
    """
    if value is None:
        return ""
    if type(value) is not str:
        raise QueryError("wrong-type", f"the document's text is {kind(value)}, not a string")
    return value


def score(value: object) -> float:
    """A score; a missing one is NaN.

    Raises:
        QueryError: it is not a number, or too large.
    """
    if value is None:
        return NAN
    if type(value) is float or type(value) is int:
        try:
            return float(value)
        except OverflowError:  # from Python only: a whole number of hundreds of digits
            raise QueryError(
                "bad-score", "a score is beyond what a number holds; write a smaller one"
            ) from None
    raise QueryError("wrong-type", f"the score is {kind(value)}; write a number or null")


def titled(title: str, text: str) -> str:
    """The text with its title on a line before it; either may be empty."""
    return f"{title}\n{text}" if title and text else title or text


def unequal(ids: int, documents: int) -> QueryError:
    """What to say where a list of ids doesn't fit the list of documents."""
    return QueryError(
        "unequal-lists",
        f"there are {ids} ids and {documents} candidates; write one id for each, or none at all",
    )


def unequal_columns(lengths: dict[str, int]) -> QueryError:
    """What to say where the candidates are an object of lists that aren't of one length, told by name."""
    counts = ", ".join(f"{name}: {length}" for name, length in lengths.items())
    return QueryError(
        "unequal-lists",
        f"the candidates are given as lists of different lengths ({counts}); write lists of one length",
    )


def unnamed(which: str = "") -> QueryError:
    """What to say of a document whose id is there but says nothing; ``which`` tells which it is."""
    message = (
        "the document's id is null or empty; fill it in, or leave out the ids of all: then they are numbered"
    )
    return QueryError("no-document-id", f"{which}: {message}" if which else message)


def unidentified() -> QueryError:
    """What to say of a record of a collection whose id is missing."""
    return QueryError("no-id", "the id is null or empty; give the record an id, or remove it")


POSITIVE, NEGATIVE = "positive", "negative"
_PREFIXES = {POSITIVE: "apositive", NEGATIVE: "negative"}


class Labels:
    """Numbers the records of one split, over all of its files."""

    def __init__(self, source: Source) -> None:
        name = re.match(r"[A-Za-z]+", PurePosixPath(source.path or "").name)
        self._split = name[0] if name else "test"
        self._counts = source.counts

    def next(self) -> str:
        """The id of the next query."""
        number = self._counts.get(self._split, 0)
        self._counts[self._split] = number + 1
        return f"{self._split}_query{number}"

    def item(self, place: Place, query_id: Any, query: Any, positive: Any, negative: Any) -> Item:
        """One record as a segment; ``query_id`` is None where it has none."""
        name: str | None = None
        try:
            lists = {POSITIVE: _texts(positive, POSITIVE), NEGATIVE: _texts(negative, NEGATIVE)}
            if not all(lists.values()):
                message = "the record lacks a positive or a negative text; mteb leaves it out too"
                raise QueryError("no-candidates", message)
            name = self.next() if query_id is None else query_identifier(query_id)
            return _segment(place, name, query_text(query), lists)
        except QueryError as error:
            if name is None:
                return Failure(place, None, error.cause, str(error))
            return Segment.faulty(place, name, error, whole=True)


def hashed(doc_id: str) -> bytes:
    """A key by which documents without a first stage are sorted: it has nothing to do with their relevance."""
    return hashlib.md5(doc_id.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def relevance(doc_id: str) -> int:
    """The relevance that a document's id tells: 1 for a positive text."""
    return int(doc_id.startswith(_PREFIXES[POSITIVE]))


def _segment(place: Place, query_id: str, query: str, lists: dict[str, list[str]]) -> Segment:
    documents = {
        f"{_PREFIXES[label]}_{query_id}_{number:05}": text
        for label, texts in lists.items()
        for number, text in enumerate(texts)
    }
    ids = sorted(documents, key=hashed)
    return Segment(place, query_id, query, [documents[i] for i in ids], ids, None, whole=True)


def _texts(value: Any, label: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise QueryError("wrong-type", f"{label} is {kind(value)}; write a list of texts")
    return [document_text(text) for text in value]
