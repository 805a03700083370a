"""Decides what a text file's columns hold, once, by its first lines, because one line alone may mislead.

1. A header: the first line's names tell, as those of JSON lines do.
2. ``input.columns`` gives numbers (``{query_id: 1, doc_id: 2, text: 3}``): they tell, and no line is a header.
3. Otherwise the number of columns that most lines have, and what stands in them:

   - six columns, the fifth a number: a TREC run, ``query Q0 document rank score tag``;
   - four columns: TREC qrels, ``query 0 document relevance``; ColBERT's ranking, ``query document rank score``; with
     tabs between, MS MARCO's ``top1000``, ``query-id document-id query passage``;
   - three columns: an MS MARCO run, ``query document rank``; BEIR's qrels, ``query document relevance``, where labels
     come more than once for a query; a run with scores, ``query document score``, where they have fractions.

What fits several is an error that shows the first line and names the keys to set; a later line of another number of
columns is a bad record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from batchrank.read.base import ColumnsError
from batchrank.read.delimited import Dialect

Fields: TypeAlias = list[str]
Test: TypeAlias = Callable[[str], bool]

_MOST = 2 / 3
"""The share of the lines that must agree: a few bad lines do no harm, a file of another kind is refused."""
_RANKED_ROWS = 3
"""So many different whole numbers of one query are ranks, fewer may be grades of relevance."""
_MISSING = {"", "nan", "na", "n/a", "null", "none", "\\n"}
_KEYS = (
    "set input.columns to the names or numbers of its columns ({query_id: 1, doc_id: 2, ...}), or input.format (trec "
    "for a run)"
)


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
    """A kind of file without a header.

    Attributes:
        name: as users call it.
        columns: how many there are.
        judged: whether scores are relevance judgements.
        entry: makes an entry of a line's columns; a ``ValueError`` tells what is wrong.
    """

    name: str
    columns: int
    judged: bool
    entry: Callable[[Fields], Entry]


QUERY_COLUMN = 0
"""Where the query's id stands in all of them."""
RUN = Kind("a TREC run", 6, False, lambda f: Entry(f[0], f[2], score=finite(f[4])))
QRELS = Kind("TREC qrels", 4, True, lambda f: Entry(f[0], f[2], score=whole(f[3])))
BEIR_QRELS = Kind("BEIR qrels", 3, True, lambda f: Entry(f[0], f[1], score=whole(f[2])))
TOP1000 = Kind("MS MARCO's top1000", 4, False, lambda f: Entry(f[0], f[1], query=f[2], text=f[3]))
MSMARCO = Kind("an MS MARCO run", 3, False, lambda f: Entry(f[0], f[1], rank=whole(f[2])))
COLBERT = Kind("a ColBERT ranking", 4, False, lambda f: Entry(f[0], f[1], score=finite(f[3])))
SCORED = Kind("a run with scores", 3, False, lambda f: Entry(f[0], f[1], score=finite(f[2])))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is read.

    Attributes:
        dialect: how its columns are set apart.
        columns: how many each line has.
        kind: what they are, where they have no names.
        names: those of the header, or the columns' numbers as ``input.columns`` counts them, and those of the folders.
        header: whether the first line names the columns.
        first: the first line, for messages.
        beside: what the file's folders name, ``key=value``.
    """

    dialect: Dialect
    columns: int
    kind: Kind | None = None
    names: Sequence[str] = field(default=())
    header: bool = False
    first: str = ""
    beside: Mapping[str, str | None] = field(default_factory=dict)


def width(table: Sequence[Fields], first: str) -> int:
    """How many columns the lines have.

    Raises:
        ColumnsError: they don't agree.
    """
    sizes = [len(row) for row in table]
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size), default=0)
    if sizes.count(usual) < _MOST * len(sizes):
        counts = ", ".join(f"{sizes.count(size)} have {size}" for size in sorted(set(sizes)))
        raise unclear(f"of the first {len(sizes)} lines {counts} columns", first)
    return usual


def kind_of(table: Sequence[Fields], first: str, *, tabs: bool, role: str = "") -> Kind:
    """The kind of a file whose first lines these are.

    Args:
        table: their columns.
        first: the first line, for messages.
        tabs: whether tabs (or commas) set the columns apart, so that they may hold texts.
        role: ``qrels`` or ``run`` where that is known, to tell what fits both.

    Raises:
        ColumnsError: it is none of them, or several.
    """
    columns = width(table, first)
    alike = [row for row in table if len(row) == columns]
    if columns == RUN.columns and _most(alike, 4, _finite):
        return RUN
    fitting: list[Kind] = []
    if columns in (3, 4):
        fitting = _of_three(alike) if columns == 3 else _of_four(alike, tabs=tabs)
    if role:
        fitting = [kind for kind in fitting if kind.judged == (role == "qrels")] or fitting
    if len(fitting) > 1:
        names = " or ".join(kind.name for kind in fitting)
        raise unclear(f"the lines could be those of {names}", first)
    if not fitting:
        raise unclear("the columns don't show what they hold", first)
    return fitting[0]


def _of_three(table: Sequence[Fields]) -> list[Kind]:
    if not _most(table, 2, _finite):
        return []
    if not _most(table, 2, _whole):
        return [SCORED]
    groups = _by_query(table, 2)
    if any(len(set(values)) < len(values) for values in groups):
        return [BEIR_QRELS]
    largest = max((int(v) for values in groups for v in values if _whole(v)), default=0)
    if largest > _RANKED_ROWS and any(len(values) >= _RANKED_ROWS for values in groups):
        return [MSMARCO]
    return [MSMARCO, BEIR_QRELS]


def _of_four(table: Sequence[Fields], *, tabs: bool) -> list[Kind]:
    if _most(table, 3, _finite):
        found = []
        # A document comes once for a query, but the second column of qrels is 0 everywhere.
        distinct = all(len(set(values)) == len(values) for values in _by_query(table, 1))
        if _most(table, 3, _whole) and (len({row[1] for row in table}) == 1 or not distinct):
            found.append(QRELS)
        if _most(table, 2, _whole) and distinct and _ranked(table):
            found.append(COLBERT)
        return found
    same = all(len(set(values)) == 1 for values in _by_query(table, 2))
    return [TOP1000] if tabs and same and not _most(table, 2, _finite) else []


def _ranked(table: Sequence[Fields]) -> bool:
    """Whether the third column counts the documents of each query: no number twice, from 0 or 1 on."""
    groups = _by_query(table, 2)
    lowest = min((int(value) for values in groups for value in values if _whole(value)), default=-1)
    return lowest in (0, 1) and all(len(set(values)) == len(values) for values in groups)


def _by_query(table: Sequence[Fields], column: int) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for row in table:
        groups.setdefault(row[0], []).append(row[column])
    return list(groups.values())


def _most(table: Sequence[Fields], column: int, test: Test) -> bool:
    return sum(test(row[column]) for row in table) >= _MOST * len(table) > 0


def nearly_named(table: Sequence[Fields]) -> bool:
    """Whether the first line seems to name columns: a column of numbers begins with a word."""
    first, rest = table[0], [row for row in table[1:] if len(row) == len(table[0])]
    words = all(cell.strip() and len(cell) <= 40 and not _finite(cell) for cell in first)
    return words and any(_most(rest, column, _finite) for column in range(len(first)))


def unclear(what: str, first: str) -> ColumnsError:
    """What to say of a file whose first lines don't tell what its columns hold."""
    return ColumnsError("wrong-format", f"{what}; the first line is {first[:120]!r}; {_KEYS}", ambiguous=True)


def finite(text: str) -> float:
    """A number.

    Raises:
        ValueError: it is none, or not a finite one.
    """
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is no finite number")
    return value


def score_of(text: str) -> float | None:
    """A score; None where it is missing, as data frames and databases write that.

    Raises:
        ValueError: it is no finite number.
    """
    return None if text.strip().lower() in _MISSING else finite(text)


def whole(text: str) -> int:
    """A whole number, also one that is written with a fraction of zero (``3.0``).

    Raises:
        ValueError: it is none.
    """
    value = finite(text)
    if value != int(value):
        raise ValueError(f"{text} is no whole number")
    return int(value)


def _finite(text: str) -> bool:
    return _is(finite, text)


def _whole(text: str) -> bool:
    return _is(int, text)


def _is(number: Callable[[str], object], text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True
