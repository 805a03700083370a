"""Decides from a text file's first lines how all of it is read: by a header, by column numbers, or by its kind."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from batchrank.job.sections import Columns
from batchrank.read.base import ColumnsError
from batchrank.read.columns import record_roles
from batchrank.read.delimited import Delimited, Fault, Fields
from batchrank.read.names import (
    CANDIDATES,
    DOC_ID,
    IDS,
    IMAGE,
    QUERY,
    QUERY_ID,
    SCORE,
    TEXT,
    TITLE,
    VIDEO,
    EntryRoles,
    TextRoles,
    entry_roles,
    text_roles,
)
from batchrank.read.tsv import (
    QUERY_COLUMN,
    Entry,
    Plan,
    kind_of,
    nearly_named,
    score_of,
    unclear,
    whole,
    width,
)
from batchrank.read.values import query_identifier, unidentified

_LABELS = ("relevance", "rel", "label")
_BEIR = {"query-id", "corpus-id", "score"}
_RANK = "rank"
_KNOWN = {
    name
    for tiers in (QUERY_ID, QUERY, CANDIDATES, DOC_ID, IDS, TEXT, SCORE, IMAGE, VIDEO)
    for tier in tiers
    for name in tier
} | {TITLE, _RANK, "url", "tag", "segment", *_LABELS}
_NAMED = 2
"""Known names that make the first line a header: one alone may be a word of a text."""
_RETURNS = "the lines end in carriage returns alone: convert them with tr '\\r' '\\n'"
_LATE = 10
"""Lines in which a header is looked for: comments may stand above it, or the line that names Excel's separator."""


def plan_of(file: Delimited, columns: Columns) -> Plan:
    """How a file of candidates is read.

    Raises:
        ColumnsError: the first lines don't tell.
    """
    plan = _plan(file, columns, (("query_id", "doc_id"), ("query_id", "text")), _candidates)
    beside = {name: value for name, value in file.source.partition.items() if name not in plan.names}
    return replace(plan, names=[*plan.names, *beside], beside=beside) if plan.names else plan


def collection_of(file: Delimited, columns: Columns, *, queries: bool) -> Plan:
    """How a corpus, or a collection of queries, is read.

    Raises:
        ColumnsError: the first lines don't tell.
    """
    keys = ("query_id", "query") if queries else ("doc_id", "text")
    return _plan(file, columns, (keys,), _queries if queries else _corpus)


def _plan(
    file: Delimited,
    columns: Columns,
    keys: Sequence[tuple[str, str]],
    headerless: Callable[[Delimited, Plan, list[Fields]], Plan],
) -> Plan:
    dialect, first = file.dialect(), file.first()
    sample = file.sample(dialect)
    table = [row for row in sample if not isinstance(row, Fault)]
    if not table:
        if not first:
            return Plan(dialect, 0)
        raise unclear(_unreadable(sample, first), first)
    if len(sample) == 1 and "\r" in first:
        raise unclear(_RETURNS, first)
    given = {role: name for role, name in columns.model_dump().items() if name is not None}
    if any(all(given.get(key, "").isdigit() for key in pair) for pair in keys):
        count = width(table, first)
        return Plan(dialect, count, None, [str(i + 1) for i in range(count)], header=False, first=first)
    names = _names(table[0], given)
    if names:
        if table[1:] and width(table[1:], first) != len(names):
            raise unclear(f"the header has {len(names)} columns, most lines have another number", first)
        return Plan(dialect, len(names), None, names, header=True, first=first)
    if late := next(filter(_all_known, table[1:_LATE]), None):
        raise unclear(
            f"the line of names ({', '.join(late)}) isn't the first: remove what stands before it", first
        )
    if len(table) > 1 and nearly_named(table):
        raise unclear("the first line seems to name the columns, but the names are not known", first)
    return headerless(file, Plan(dialect, 0, first=first), table)


def _unreadable(sample: Sequence[Fields | Fault], first: str) -> str:
    """Why none of the first lines can be read."""
    if "\r" in first:
        return _RETURNS
    faults = [row.message for row in sample if isinstance(row, Fault)]
    return f"none of the first lines can be read: {faults[0] if faults else 'a quote in them never ends'}"


def _names(cells: Fields, given: dict[str, str]) -> list[str]:
    """The names in the first line, known ones in small letters; none if it is no header.

    Raises:
        ColumnsError: a name comes twice.
    """
    stripped = [cell.strip() for cell in cells]
    names = [n if n in given.values() or n.lower() not in _KNOWN else n.lower() for n in stripped]
    if not set(names) & set(given.values()) and sum(name in _KNOWN for name in names) < _NAMED:
        return []
    if again := next((name for name in names if name and names.count(name) > 1), None):
        raise ColumnsError(
            "ambiguous-columns", f"two columns are named {again!r}; rename or drop one", ambiguous=True
        )
    return names


def _all_known(cells: Fields) -> bool:
    return len(cells) > 1 and all(cell.strip().lower() in _KNOWN for cell in cells)


def _candidates(file: Delimited, plan: Plan, table: list[Fields]) -> Plan:
    tabs = plan.dialect.delimiter is not None
    kind = kind_of(table, plan.first, tabs=tabs, role=file.source.role)
    return Plan(plan.dialect, kind.columns, kind, first=plan.first)


def _corpus(file: Delimited, plan: Plan, table: list[Fields]) -> Plan:
    names = {2: ("_id", "text"), 3: ("_id", "title", "text"), 4: ("_id", "url", "title", "text")}
    return _collection(plan, table, names, "an id and a text (or id, title, text; id, url, title, text)")


def _queries(file: Delimited, plan: Plan, table: list[Fields]) -> Plan:
    return _collection(plan, table, {2: ("_id", "text")}, "an id and a query's text")


def _collection(plan: Plan, table: list[Fields], names: dict[int, tuple[str, ...]], wanted: str) -> Plan:
    count = width(table, plan.first) if plan.dialect.delimiter is not None else 0
    if count not in names:
        raise unclear(f"most lines are not {wanted}, with tabs (or commas, in .csv) between", plan.first)
    return Plan(plan.dialect, count, None, names[count], header=False, first=plan.first)


def holds_texts(plan: Plan, columns: Columns) -> bool:
    """Whether a file's names say that it holds the documents' texts, so that it needs no corpus."""
    if not plan.names:
        return False
    try:
        record_roles(dict.fromkeys(plan.names), columns)
    except ColumnsError as error:
        return error.cause != "no-candidates"
    return True


def entries_of(plan: Plan, columns: Columns) -> tuple[bool, int, Callable[[Fields], Entry]]:
    """Whether a file's scores are judgements, the column of the query's id, and what makes an entry of a line.

    A ``ValueError`` of the last tells the line's fault.

    Raises:
        ColumnsError: the names tell neither queries nor documents.
    """
    if plan.kind is not None:
        return plan.kind.judged, QUERY_COLUMN, _identified(plan.kind.entry)
    fields = dict.fromkeys(plan.names)
    label = next((name for name in _LABELS if name in fields), None)
    if label and not columns.score and "score" not in fields:
        columns = columns.model_copy(update={"score": label})
    roles = entry_roles(fields, columns)
    judged = set(fields) == _BEIR or roles.score == (label,)
    query = list(plan.names).index(roles.query_id[0])
    return judged, query, _identified(_maker(plan, columns, roles))


def _identified(make: Callable[[Fields], Entry]) -> Callable[[Fields], Entry]:
    """The same, but for an entry whose query has no id; one whose document has none says so of its query."""

    def entry(fields: Fields) -> Entry:
        found = make(fields)
        query_identifier(found.query_id)
        return found

    return entry


def _maker(plan: Plan, columns: Columns, roles: EntryRoles) -> Callable[[Fields], Entry]:
    at = {name: i for i, name in enumerate(plan.names)}
    if roles.doc_id is None:
        raise ColumnsError("wrong-type", "a column can't hold a list of documents; write one line a document")
    query_id, doc_id = at[roles.query_id[0]], at[roles.doc_id[0]]
    score = at[roles.score[0]] if roles.score else None
    rank = at.get(_RANK) if score is None else None
    query = at[roles.query[0]] if roles.query else None
    text, title = _texts(at, columns, roles)

    def entry(fields: Fields) -> Entry:
        return Entry(
            fields[query_id],
            fields[doc_id],
            score=score_of(fields[score]) if score is not None else None,
            rank=whole(fields[rank]) if rank is not None and fields[rank] else None,
            query=(fields[query] or None) if query is not None else None,
            text=None if text is None else _titled(fields, text, title),
        )

    return entry


def _texts(at: dict[str, int], columns: Columns, roles: EntryRoles) -> tuple[int | None, int | None]:
    """Where a document's text and its title stand."""
    taken = {path[0] for path in roles.paths}
    name = (
        columns.text if columns.text in at else next((n for n in TEXT[0] if n in at and n not in taken), None)
    )
    return (None, None) if name is None else (at[name], at.get(TITLE) if name != TITLE else None)


def _titled(fields: Fields, text: int, title: int | None) -> str | None:
    parts = [fields[i] for i in (title, text) if i is not None and fields[i]]
    return "\n".join(parts) or None


def texts_in(plan: Plan, columns: Columns, *, queries: bool) -> Callable[[Fields], tuple[str, str, str]]:
    """What makes an id, a title and a text of a line; a ``QueryError`` tells that it has no id.

    Raises:
        ColumnsError: the names tell neither ids nor texts.
    """
    at = {name: i for i, name in enumerate(plan.names)}
    roles: TextRoles = text_roles(dict.fromkeys(plan.names), columns, queries=queries)
    name, text = at[roles.id[0]], at[roles.text[0]]
    title = at[roles.title[0]] if roles.title else None

    def row(fields: Fields) -> tuple[str, str, str]:
        if not fields[name]:
            raise unidentified()
        return fields[name], "" if title is None else fields[title], fields[text]

    return row
