"""What a single value may be: an id, a query, a text, a score; the same for every format."""

from batchrank.errors import QueryError

NAN = float("nan")

_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction, or one beyond 64 bits",
    str: "a string",
    list: "a list",
    dict: "an object",
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
    query_id = identifier(value, "the query id")
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
        QueryError: it is not a number.
    """
    if value is None:
        return NAN
    if type(value) is float or type(value) is int:
        return float(value)
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
