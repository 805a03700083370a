"""Turns text files of columns (CSV, tabs, white space) into segments, into entries, or into texts by id."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from batchrank.errors import Place, QueryError
from batchrank.io import storage
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import ColumnsError, Item, Source, Unrecognised, cut, unreadable
from batchrank.read.columns import record_roles
from batchrank.read.delimited import Delimited, Fault, Fields
from batchrank.read.objects import Objects
from batchrank.read.plans import collection_of, entries_of, holds_texts, plan_of, texts_in
from batchrank.read.tsv import Entry, Plan, score_of

T = TypeVar("T")


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """The pairs of a file that holds their texts; what can't be read is yielded as a failure in its place."""
    try:
        file = Delimited(source)
    except OSError as error:
        yield unreadable(source, error)
        return
    with file.closing():
        try:
            file.look()
            plan = plan_of(file, columns)
            if plan.columns:
                yield from _pairs(file, plan, columns)
        except ColumnsError as error:
            yield Unrecognised.of(Place(source.name, "line", 1), error)
        except OSError as error:
            yield cut(source, file.number, error)


def _pairs(file: Delimited, plan: Plan, columns: Columns) -> Iterator[Item]:
    roles = record_roles(dict.fromkeys(plan.names), columns)
    score = roles.document.score[0] if roles.document and roles.document.score else None
    objects = Objects(columns, file.source)

    def item(place: Place, fields: Fields) -> Item:
        record: dict[str, Any] = {n: c or None for n, c in zip(plan.names, fields, strict=True)}
        if score is not None and record[score] is not None:
            record[score] = _number(record[score])
        return objects.item(record, place)

    for place, row in _rows(file, plan):
        yield row if isinstance(row, Failure) else item(place, row)


def _number(text: str) -> object:
    """A score; what is none stays a text, which is refused where scores are looked at."""
    try:
        return score_of(text)
    except ValueError:
        return text


def _rows(file: Delimited, plan: Plan) -> Iterator[tuple[Place, Fields | Failure]]:
    """The lines below the header, or why one of them can't be read."""
    header = plan.header
    names: Fields | None = None
    beside = [value or "" for value in plan.beside.values()]
    for number, row in file.rows(plan.dialect, plan.columns):
        place = Place(file.source.name, "line", number)
        if isinstance(row, Fault):
            yield place, Failure(place, None, row.cause, row.message)
        elif header:
            header, names = False, row
        elif row == names:
            why = "the line repeats the header, as happens where files are joined; remove it"
            yield place, Failure(place, None, "repeated-header", why)
        elif len(row) != plan.columns:
            what = plan.kind.name if plan.kind else "the others"
            why = (
                f"the line has {len(row)} columns, and {what} {'has' if plan.kind else 'have'} {plan.columns}; correct "
                "the line (write a tab within a text as a space, or put the text in quotes)"
            )
            yield place, Failure(place, None, "broken-line", why)
        else:
            yield place, row + beside


def entries(
    source: Source, columns: Columns, report: Callable[[Failure], None]
) -> Iterator[tuple[bool, int, Entry]]:
    """Whether it is judged, the line, and the entry of each line of a file that names documents by id.

    Raises:
        ColumnsError: the first lines don't show how to read it.
        OSError: the file can't be read to its end.
    """
    file = Delimited(source)
    with file.closing():
        file.look()
        plan = plan_of(file, columns)
        if not plan.columns:
            return
        judged, query, entry = entries_of(plan, columns)
        what = plan.kind.name if plan.kind else "the columns that the header names"
        for place, found in _made(file, plan, entry, what, report, query):
            yield judged, place.number, found


def texts(
    source: Source, columns: Columns, report: Callable[[Failure], None], *, queries: bool
) -> Iterator[tuple[str, str, str]]:
    """The id, the title and the text of each line of a collection.

    Raises:
        ColumnsError: the first lines don't show how to read it.
        OSError: the file can't be read to its end.
    """
    file = Delimited(source)
    with file.closing():
        file.look()
        plan = collection_of(file, columns, queries=queries)
        if plan.columns:
            row = texts_in(plan, columns, queries=queries)
            for _, found in _made(file, plan, row, "an id and a text", report):
                yield found


def _made(
    file: Delimited,
    plan: Plan,
    make: Callable[[Fields], T],
    what: str,
    report: Callable[[Failure], None],
    query: int | None = None,
) -> Iterator[tuple[Place, T]]:
    """What is made of each line; what is wrong with one is reported with its query, where a column has the id."""
    for place, row in _rows(file, plan):
        if isinstance(row, Failure):
            report(row)
            continue
        try:
            found = make(row)
        except QueryError as error:
            report(Failure(place, _known(row, query), error.cause, str(error)))
            continue
        except ValueError as error:
            why = f"the line is not one of {what}: {error}; correct the line"
            report(Failure(place, _known(row, query), "broken-line", why))
            continue
        yield place, found


def _known(row: Fields, query: int | None) -> str | None:
    return None if query is None else row[query] or None


def names_in(source: Source) -> Sequence[str]:
    """The names of a file's columns; none where it has no header, or can't be read."""
    try:
        file = Delimited(source)
        with file.closing():
            file.look()
            return plan_of(file, Columns()).names
    except (OSError, ColumnsError):
        return ()  # its reader will say what is wrong


def is_whole(source: Source, columns: Columns) -> bool:
    """Whether a file holds its texts, so that it is read without a corpus; one that can't be read is not looked into.

    Raises:
        ColumnsError: the first lines don't tell what the columns hold.
    """
    if not storage.is_file(source.path or ""):
        return False  # a pipe can be read only once
    try:
        file = Delimited(source)
    except OSError:
        return True  # its reader will say what is wrong
    with file.closing():
        try:
            file.look()
        except OSError:
            return True
        plan = plan_of(file, columns)
        return not plan.columns or holds_texts(plan, columns)
