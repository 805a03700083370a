"""What is asked of an API, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrank.arrays import Floats
from batchrank.content import Content


@dataclass(frozen=True, slots=True)
class Request:
    """What one request asks; the same fields always make the same body.

    Attributes:
        model: the model's name as the endpoint knows it.
        query: the query.
        documents: what is to be scored, in order.
        instruct: the ranking instruction, None for the model's own.
        fps: how many frames of each second of a video are looked at, None for the model's own choice.
        extra: fields of the body besides; a mapping goes into the one that is there already.
    """

    model: str
    query: Content
    documents: Sequence[Content]
    instruct: str | None = None
    fps: float | None = None
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A valid answer: every document of the request scored exactly once.

    Attributes:
        values: one finite score a document, in request order.
        tokens: tokens billed; None when the API didn't say, or said nonsense.
        request_id: the API's name for the request, empty when it gave none.
        searches: searches billed, where the API bills those; None when it didn't say.
    """

    values: Floats
    tokens: int | None = None
    request_id: str = ""
    searches: int | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Anything but a valid answer.

    Attributes:
        status: the HTTP status, or None when no status line came.
        code: the API's error code; ``connection``, ``timeout`` or ``malformed`` for what isn't an API's error.
        message: what the API said, or what was wrong.
        retry_after: seconds the API asks to wait, None when it asks nothing.
        request_id: the API's name for the request, empty when it gave none.
    """

    status: int | None
    code: str
    message: str
    retry_after: float | None = None
    request_id: str = ""

    def __str__(self) -> str:
        status = "no answer" if self.status is None else f"HTTP {self.status}"
        name = f", request {self.request_id}" if self.request_id else ""
        return f"{status}, {self.code or 'no code'}: {self.message.rstrip('. ')}{name}"
