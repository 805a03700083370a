"""Takes queries and documents from an Arrow batch, a whole column at once, because one at a time is slow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrank.data import Content, Floats, Positions
from batchrank.errors import Place, QueryError
from batchrank.read import arrow
from batchrank.read.arrow import Array
from batchrank.read.base import Segment
from batchrank.read.columns import DocumentRoles, RecordRoles
from batchrank.read.pieces import lists
from batchrank.read.values import document_content, query_content, query_text, titled, unnamed


class Queries:
    """The queries of a batch."""

    def __init__(self, rows: Array, roles: RecordRoles) -> None:
        self._texts = arrow.strings(arrow.at(rows, roles.query)) if roles.query else [None] * len(rows)
        self._images = arrow.images(arrow.at(rows, roles.query_image)) if roles.query_image else None

    def __getitem__(self, row: int) -> Content:
        if self._images is None:
            return query_text(self._texts[row])
        return query_content(self._texts[row], self._images[row])


class Documents:
    """The documents of a batch."""

    def __init__(self, array: Array, roles: DocumentRoles | None) -> None:
        self._ids: Sequence[str | None] | None = None
        self._texts: Sequence[Any]
        self._scores: Floats | None = None
        self._wrong: NDArray[np.bool_] | None = None
        self._nameless: NDArray[np.bool_] | None = None
        self._visual = roles is not None and bool(roles.image or roles.video)
        if roles is None:
            self._texts = arrow.column(array, missing="")
            return
        missing: list[Any] = [None] * len(array) if self._visual else []
        self._texts = arrow.column(arrow.at(array, roles.text), missing="") if roles.text else missing
        titles = arrow.strings(arrow.at(array, roles.title), missing="") if roles.title else missing
        if self._visual:
            self._titles = titles
            self._images = arrow.images(arrow.at(array, roles.image)) if roles.image else missing
            self._videos = arrow.strings(arrow.at(array, roles.video)) if roles.video else missing
        elif roles.title:
            self._texts = list(map(titled, titles, self._texts))
        if roles.doc_id:
            ids = arrow.at(array, roles.doc_id)
            self._ids, self._nameless = arrow.column(ids), nameless(ids)
        if roles.score:
            self._scores, self._wrong = arrow.numbers(arrow.at(array, roles.score))

    def _contents(self, start: int, end: int, place: Place, *, whole: bool) -> list[Content]:
        """The documents from ``start`` up to ``end``; an error names the one to blame."""
        found: list[Content] = []
        for i in range(start, end):
            try:
                content = document_content(
                    self._texts[i] or "", self._titles[i] or "", self._images[i], self._videos[i]
                )
            except QueryError as error:
                number = i - start
                where = _which(number, place, whole=whole)
                error.args = (f"{where}: {error}",)
                raise
            found.append(content)
        return found

    def segment(
        self, start: int, end: int, place: Place, query_id: str, query: Content, *, whole: bool
    ) -> Segment:
        """The documents from ``start`` up to ``end`` as those of a query."""
        if self._wrong is not None and self._wrong[start:end].any():
            message = "a score is infinite; write a number, or null where there is none"
            raise QueryError("bad-score", message)
        if self._nameless is not None:
            refuse_nameless(self._nameless[start:end], place, whole=whole)
        ids = None if self._ids is None else self._ids[start:end]
        scores = None if self._scores is None else self._scores[start:end]
        texts: Sequence[Content] = self._texts[start:end]
        if self._visual:
            texts = self._contents(start, end, place, whole=whole)
        return Segment(place, query_id, query, texts, ids, scores, whole)


def nameless(ids: Array) -> NDArray[np.bool_] | None:
    """Which ids are null or empty; None when none is."""
    import pyarrow.compute as pc

    sized = arrow.is_text(ids.type) and not pa.types.is_null(ids.type)
    lengths = pc.binary_length(ids) if sized else None
    if not ids.null_count and (lengths is None or pc.min(lengths).as_py() != 0):
        return None
    wrong = ids.is_null()
    if lengths is not None:
        wrong = pc.or_(wrong, pc.fill_null(pc.equal(lengths, 0), False))
    found: NDArray[np.bool_] = wrong.to_numpy(zero_copy_only=False)
    return found if found.any() else None


def refuse_nameless(wrong: NDArray[np.bool_], place: Place, *, whole: bool) -> None:
    """Refuse a document whose id is null or empty.

    Raises:
        QueryError: there is one; the message names it.
    """
    if wrong.any():
        raise unnamed(_which(int(wrong.argmax()), place, whole=whole))


def _which(number: int, place: Place, *, whole: bool) -> str:
    return f"candidate {number + 1} of the list" if whole else str(later(place, number))


def later(place: Place, rows: int) -> Place:
    """The place so many rows further on."""
    return Place(place.file, place.unit, place.number + rows)


def candidates(array: Array) -> tuple[Array, Positions, NDArray[np.int64] | None]:
    """Candidates as one flat array, the n + 1 offsets into it, and None.

    A struct of lists is taken for the list of structs that it means; where its lists differ in length there are no
    candidates, and in place of None come the lengths, a row a list.
    """
    import pyarrow.compute as pc

    if not pa.types.is_struct(array.type):
        return *lists(array), None
    columns = [arrow.at(array, (field.name,)) for field in array.type]
    lengths = np.array([np.diff(lists(column)[1]) for column in columns])
    unequal = (lengths != lengths[0]).any(axis=0)
    if unequal.any():
        keep = pa.array(~unequal)
        columns = [pc.if_else(keep, column, pa.scalar(None, column.type)) for column in columns]
    flat = [lists(column) for column in columns]
    names = [field.name for field in array.type]
    return (
        pa.StructArray.from_arrays([values for values, _ in flat], names=names),
        flat[0][1],
        lengths if unequal.any() else None,
    )
