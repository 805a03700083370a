"""Defines the data that flows from reading to sending, every record frozen: queries, candidates, requests, answers.

A *document position* counts a query's candidates from 0 in first-stage order, a *query position* those of the input.

numpy is imported by what computes, as ``batchrank models`` needs a name from here, and nothing of numpy.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from batchrank.errors import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Positions: TypeAlias = NDArray[np.intp]
    Floats: TypeAlias = NDArray[np.float64]
else:
    Positions = Floats = Any
_Item = TypeVar("_Item")


def taken(items: Sequence[_Item], positions: Positions) -> Sequence[_Item]:
    """Those at the positions given, in that order; by the sequence's own ``take`` where it has one."""
    take: Callable[[Positions], Sequence[_Item]] | None = getattr(items, "take", None)
    return take(positions) if take else list(map(items.__getitem__, positions.tolist()))


Kind: TypeAlias = Literal["text", "image", "video"]
Purpose: TypeAlias = Literal["pass", "probe", "hub", "repair", "audit"]
"""Why a request is sent: for the first pass, to compare, to merge, to prove, to see whether an old answer holds."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        value: before it is prepared: an http(s) address, a data URI, a path or bytes; then an address or a data URI.
        pixels: width and height, None where the header isn't at hand or doesn't tell.
    """

    kind: ClassVar[Kind] = "image"
    value: str | bytes
    pixels: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """A video; ``value`` is its http(s) address."""

    kind: ClassVar[Kind] = "video"
    value: str


Content: TypeAlias = str | Image | Video

_RANGES = (
    (0x0000, 0x0020), (0x007F, 0x00A0), (0x00AD, 0x00AD), (0x061C, 0x061C), (0x1680, 0x1680), (0x180E, 0x180E),
    (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x2066, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
)  # fmt: skip
"""White space, control and format characters, but for the format characters that are drawn (Arabic number signs and
the like). Written out, because looking at every character there is would take 0.1 s of each start."""
_INVISIBLE = frozenset(chr(code) for first, last in _RANGES for code in range(first, last + 1))
_STRIPPED = "".join(_INVISIBLE)
_first, _last = itemgetter(0), itemgetter(-1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document that the first stage retrieved for a query.

    Attributes:
        id: the document's id; None takes the candidate's position in the list as given, from 0.
        text: what is sent to the model: a text, or an image or a video where the model takes one. A blank text is
            never sent: it is ranked last with no score.
        score: the first stage's score, higher is better; None when unknown.
    """

    id: str | None
    text: Content
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A query and its candidates, as columns of equal length n in first-stage order.

    Attributes:
        id: the query's id, unique in the input.
        text: the query itself, never blank; an image where the model takes one.
        doc_ids: n ids, unique within the query.
        documents: n texts, images or videos.
        first_stage_scores: n floats, never increasing, NaN where unknown; None when no candidate has one.
        place: where the query stands in the input.
    """

    id: str
    text: Content
    doc_ids: Sequence[str]
    documents: Sequence[Content]
    first_stage_scores: Floats | None = None
    place: Place = field(default=Place("<queries>", "query", 1))

    def __len__(self) -> int:
        return len(self.documents)

    @cached_property
    def sendable(self) -> Positions:
        """Positions of the documents that have a text that can be seen: blank ones are rejected by the APIs.

        A text of nothing but white space, zero-width or control characters is blank: a tokenizer leaves nothing of it.
        """
        import numpy as np

        texts: Any = self.documents
        # The errors come from an image or a video, which is never blank, and from an empty text.
        with suppress(TypeError, IndexError):
            if _INVISIBLE.isdisjoint(map(_first, texts)) or _INVISIBLE.isdisjoint(map(_last, texts)):
                return np.arange(len(self.documents), dtype=np.intp)
        blank = [i for i, item in enumerate(self.documents) if is_blank(item)]
        return np.delete(np.arange(len(self.documents), dtype=np.intp), blank)

    @classmethod
    def of(
        cls, id: str, text: Content, candidates: Sequence[Candidate], *, place: Place | None = None
    ) -> "Query":
        """Make a query from candidates in any order.

        If every candidate has a score, first-stage order is by falling score (ties as given);
        otherwise it is the order given.
        """
        ids = [str(i) if c.id is None else c.id for i, c in enumerate(candidates)]
        return cls.from_columns(
            id, text, ids, [c.text for c in candidates], [c.score for c in candidates], place
        )

    @classmethod
    def from_columns(
        cls,
        id: str,
        text: Content,
        doc_ids: Sequence[str],
        documents: Sequence[Content],
        scores: Sequence[float | None] | Floats | None,
        place: Place | None = None,
    ) -> "Query":
        """Make a query from columns in any order; ``of`` tells which order results."""
        import numpy as np

        values = None if scores is None else np.asarray(scores, dtype=np.float64)
        if values is not None and (len(values) < 2 or not (values[:-1] >= values[1:]).all()):
            missing = np.isnan(values)
            if missing.all():
                values = None
            elif not missing.any():
                order = np.argsort(-values, kind="stable")
                doc_ids, documents = taken(doc_ids, order), taken(documents, order)
                values = values[order]
        return cls(id, text, doc_ids, documents, values, place or Place("<queries>", "query", 1))


def is_blank(content: Content) -> bool:
    """Whether a document is a text of which nothing can be seen, so that no API ranks it."""
    if not isinstance(content, str):
        return False
    return not content or (content[0] in _INVISIBLE and not content.strip(_STRIPPED))


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
