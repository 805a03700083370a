"""Text files of columns: runs, qrels, and the files of MS MARCO.

The first line tells which, every other line must be like it:

1. six columns: a TREC run, ``query Q0 document rank score tag``;
2. a header that names a query, a document and a score: qrels as in BEIR;
3. four columns, the last a whole number: TREC qrels, ``query 0 document relevance``;
4. four columns set apart by tabs: MS MARCO's ``top1000``, ``query-id document-id query passage``;
5. three columns, the last a whole number: an MS MARCO run, ``query document rank``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from batchrank.formats.names import DOC_ID, QUERY_ID

Fields: TypeAlias = list[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a document of a query.

    Attributes:
        doc_id: None where a record lists no documents.
        score: the first stage's score, or the relevance.
        rank: the first stage's rank, where it says no score.
    """

    query_id: str
    doc_id: str | None
    score: float | None = None
    rank: int | None = None
    query: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Attributes:
        name: as users call it.
        columns: how many there are.
        tabs: whether only tabs set them apart.
        judged: whether scores are relevance judgements.
        header: whether the first line names the columns.
        entry: makes an entry of a line's columns; a ``ValueError`` tells what is wrong.
    """

    name: str
    columns: int
    tabs: bool
    judged: bool
    header: bool
    entry: Callable[[Fields], Entry]

    def split(self, line: str) -> Fields:
        """A line's columns.

        Raises:
            ValueError: there are too few or too many.
        """
        fields = line.split("\t") if self.tabs else line.split()
        if len(fields) != self.columns:
            raise ValueError(f"it has {len(fields)} columns")
        return fields


RUN = Kind("a TREC run", 6, False, False, False, lambda f: Entry(f[0], f[2], score=_finite(f[4])))
QRELS = Kind("TREC qrels", 4, False, True, False, lambda f: Entry(f[0], f[2], score=int(f[3])))
TOP1000 = Kind(
    "MS MARCO's top1000", 4, True, False, False, lambda f: Entry(f[0], f[1], query=f[2], text=f[3])
)
MSMARCO = Kind("an MS MARCO run", 3, False, False, False, lambda f: Entry(f[0], f[1], rank=int(f[2])))


def kind_of(first: str) -> Kind | None:
    """The kind of a file whose first line this is; None when it is none of them."""
    spaced, tabbed = first.split(), first.split("\t")
    if len(spaced) == 6 and _is(_finite, spaced[4]):
        return RUN
    if (kind := _headed(tabbed if len(tabbed) > 2 else spaced, tabs=len(tabbed) > 2)) is not None:
        return kind
    if len(spaced) == 4 and _is(int, spaced[3]):
        return QRELS
    if len(tabbed) == 4:
        return TOP1000
    if len(spaced) == 3 and _is(int, spaced[2]):
        return MSMARCO
    return None


def _headed(names: Fields, *, tabs: bool) -> Kind | None:
    """Qrels whose first line names their columns, in any order."""
    lower = [name.strip().lower() for name in names]
    query = next((i for i, name in enumerate(lower) if name in QUERY_ID[0]), None)
    document = next((i for i, name in enumerate(lower) if name in DOC_ID[0]), None)
    score = next((i for i, name in enumerate(lower) if name in ("score", "relevance", "rel", "label")), None)
    if query is None or document is None or score is None:
        return None

    def entry(fields: Fields) -> Entry:
        return Entry(fields[query], fields[document], score=float(fields[score]))

    return Kind("qrels with a header", len(names), tabs, True, True, entry)


def texts_of(fields: Fields) -> tuple[str, str, str]:
    """The id, the title and the text in a line of a collection: id, (url,) (title,) text.

    Raises:
        ValueError: it has not two, three or four columns.
    """
    if len(fields) not in (2, 3, 4):
        raise ValueError(f"it has {len(fields)} columns")
    return fields[0], fields[-2] if len(fields) > 2 else "", fields[-1]


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is no finite number")
    return value


def _is(number: Callable[[str], object], text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True
