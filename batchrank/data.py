"""What is read: queries with their candidates."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter

import numpy as np

from batchrank.arrays import Floats, Positions, taken
from batchrank.content import Content
from batchrank.errors import Place

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
        with suppress(
            TypeError, IndexError
        ):  # from an image or a video, which is never blank; from an empty text
            ends = (map(end, self.documents) for end in (_first, _last))  # type: ignore[arg-type]
            if any(map(_INVISIBLE.isdisjoint, ends)):
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
        where = place or Place("<queries>", "query", 1)
        values = None if scores is None else np.asarray(scores, dtype=np.float64)
        if values is None or np.isnan(values).all():
            return cls(id, text, doc_ids, documents, None, where)
        if not np.isnan(values).any() and (values[1:] > values[:-1]).any():
            order = np.argsort(-values, kind="stable")
            doc_ids, documents = taken(doc_ids, order), taken(documents, order)
            values = values[order]
        return cls(id, text, doc_ids, documents, values, where)


def is_blank(content: Content) -> bool:
    """Whether a document is a text of which nothing can be seen, so that no API ranks it."""
    if not isinstance(content, str):
        return False
    return not content or (content[0] in _INVISIBLE and not content.strip(_STRIPPED))
