"""Defines what every file format gives, which columns a file's folders name, and which query ids came already."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

from batchrank.data import Content, Floats
from batchrank.errors import InputError, Place, QueryError
from batchrank.io.opening import ForeignError
from batchrank.io.storage import stamp
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure

_T = TypeVar("_T")
TRUNCATED = "truncated-file"
"""The cause of a failure that ends its whole file."""

COLUMNAR = ("parquet", "arrow")
"""The formats whose records are rows."""


class ColumnsError(QueryError):
    """Raised when the names or types in a record, or in a whole file, don't tell what holds what.

    Attributes:
        ambiguous: several names fit one role, so that reading on could only guess.
    """

    def __init__(self, cause: str, message: str, *, ambiguous: bool = False) -> None:
        super().__init__(cause, message)
        self.ambiguous = ambiguous


class Gauge:
    """How far reading has come, for whoever shows progress; set by the reading thread.

    Attributes:
        label: what is done.
        share: the part that is done.
        ahead: what is done now, before the first query can be read: a join, a sort; None where reading is under way.
    """

    def __init__(self, label: str = "reading") -> None:
        self.label = label
        self.share = 0.0
        self.ahead: Gauge | None = None
        self._before, self._size, self._total = 0, 0, 0

    @property
    def measured(self) -> bool:
        """Whether ``share`` tells anything: nobody knows the size of standard input, or how long a sort takes."""
        return self._total > 0 or self.share > 0

    def begin(self, label: str, total: int = 0) -> "Gauge":
        """Do something ahead, over so many bytes; 0 where it can't be measured."""
        self.ahead = Gauge(label)
        self.ahead.start(total)
        return self.ahead

    def then(self, items: Iterable[_T], label: str) -> Iterator[_T]:
        """Pass on what something done ahead gives, and when it has ended begin what comes after it."""
        yield from items
        self.begin(label)

    def count(self) -> None:
        """Go on to the queries, told as parts of one."""
        self.start(1)
        self.file(1)
        self.ahead = None

    def start(self, total: int) -> None:
        """Begin an input of so many bytes; 0 when that can't be known."""
        self._before, self._size, self._total = 0, 0, total

    def file(self, size: int) -> None:
        """Go on to the next file."""
        self._before, self._size = self._before + self._size, size
        self.at(0)

    def at(self, done: float) -> None:
        """Tell which part of the current file was read, from 0 to 1."""
        if self._total:
            self.share = min(1.0, (self._before + self._size * done) / self._total)


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        name: how messages call it.
        path: a path or an address, None for standard input.
        format: the reader's name in ``INPUTS``.
        gauge: told how far reading has come.
        role: ``qrels`` or ``run`` where that is known; it tells what could be both.
        partition: the columns that the file's folders name, ``key=value``, as Spark and Hive write them.
        counts: records so far of each split, shared by all inputs of a job; for records that have no id.
        order: the field that tells each query's place, None for none.
    """

    name: str
    path: str | None
    format: str
    role: str = ""
    partition: dict[str, str | None] = field(default_factory=dict)
    gauge: Gauge = field(default_factory=Gauge, compare=False)
    counts: dict[str, int] = field(default_factory=dict, compare=False)
    order: str | None = None

    @property
    def unit(self) -> str:
        """What its records are called in messages."""
        return "row" if self.format in COLUMNAR else "line"

    @property
    def bytes(self) -> int:
        """The file's size; 0 when it has none."""
        try:
            return stamp(self.path)[0] if self.path is not None else 0
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Unordered:
    """In place of a value that tells a query's place: its record has no such field, but those of the names given."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A query, or as much of one as stands together in a file.

    Attributes:
        place: its first record.
        query_id: the query's id.
        query: the query's text or image.
        documents: texts, images and videos; a null one is an empty text here.
        doc_ids: aligned with ``documents``, None where missing; None when none has an id.
        scores: aligned with ``documents``, NaN where missing; None when none has a score.
        whole: a record of its own; otherwise the next segment may go on with the same query.
        fault: why the query can't be ranked; then there are no documents.
        order: the value of the field that queries are ordered by, where they are.
    """

    place: Place
    query_id: str
    query: Content
    documents: Sequence[Content]
    doc_ids: Sequence[str | None] | None
    scores: Sequence[float] | Floats | None
    whole: bool
    fault: Failure | None = None
    order: Any = None

    @classmethod
    def faulty(cls, place: Place, query_id: str, error: QueryError, *, whole: bool) -> "Segment":
        """A record whose query is known and can't be ranked."""
        fault = Failure(place, query_id, error.cause, str(error))
        return cls(place, query_id, "", [], None, None, whole, fault)


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A record, or a whole file, whose names don't tell what holds what."""

    failure: Failure
    ambiguous: bool

    @classmethod
    def of(cls, place: Place, error: ColumnsError, query_id: str | None = None) -> "Unrecognised":
        """What the error says about the record at this place."""
        return cls(Failure(place, query_id, error.cause, str(error)), error.ambiguous)


Item: TypeAlias = Segment | Failure | Unrecognised
Reader: TypeAlias = Callable[[Source, Columns], Iterator[Item]]


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How files of one format are known and read."""

    suffixes: tuple[str, ...]
    read: Reader


def later(place: Place, rows: int) -> Place:
    """The place so many rows further on."""
    return Place(place.file, place.unit, place.number + rows)


def cut(source: Source, number: int, error: Exception) -> Item:
    """The failure that stands for the rest of a file, or for all of it, where it can't be read further."""
    if isinstance(error, ForeignError):
        foreign = Failure(Place(source.name, source.unit, 1), None, error.cause, str(error))
        return Unrecognised(foreign, ambiguous=False)
    where, before = f"past {source.unit} {number}", "all before it was read, the rest was not"
    if not number:
        where, before = "at all", "nothing of it was read"
    message = f"{source.name} can't be read {where}: {error}; {before}: restore the file and run again"
    return Failure(Place(source.name, source.unit, number + 1), None, TRUNCATED, message)


def ended(source: Source, error: Exception, remedy: str | None = None) -> InputError:
    """What to raise where a file has to be read as a whole and can't be; by default, it is to be restored."""
    if isinstance(error, ForeignError):
        return InputError(f"{Place(source.name, source.unit, 1)}: {error}")
    remedy = remedy or "restore the file and run again"
    return InputError(f"{source.name} can't be read to its end: {error}; {remedy}")


def unreadable(source: Source, error: OSError) -> Unrecognised:
    """A file that can't be opened."""
    message = f"{source.name} can't be opened: {error.strerror or error}; make it readable, or leave it out"
    return Unrecognised(
        Failure(Place(source.name, source.unit, 1), None, "unreadable-file", message), ambiguous=False
    )


def schema_with(schema: Any, partition: Mapping[str, str | None]) -> Any:
    """A schema with the folders' columns; where the file has one of the same name, the file's counts."""
    for name in partition:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def batch_with(batch: Any, partition: Mapping[str, str | None]) -> Any:
    """A batch with the folders' columns, each with one value in all rows."""
    for name, value in partition.items():
        if name not in batch.schema.names:
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            schema = batch.schema.append(pa.field(name, pa.string()))
            batch = pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema)
    return batch


class SeenIds:
    """Exact, and bounded in memory: SQLite keeps the ids in an anonymous temporary file, about 50 bytes each."""

    _CACHE_KIB = 8192

    def __init__(self) -> None:
        # The reader may be driven from one thread after another, never from two at a time.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{self._CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE seen (id BLOB PRIMARY KEY, file INTEGER, unit TEXT, number INTEGER) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        self._files: dict[str, int] = {}

    def add(self, query_id: str, place: Place) -> Place | None:
        """Note an id; return where it came first if it is not new.

        Raises:
            InputError: the temporary file can't be written.
        """
        key = query_id.encode("utf-8", "surrogatepass")
        file = self._files.setdefault(place.file, len(self._files))
        try:
            new = self._database.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, file, place.unit, place.number),
            )
            if new.rowcount:
                return None
            found = self._database.execute("SELECT file, unit, number FROM seen WHERE id = ?", (key,))
            file, unit, number = found.fetchone()
        except sqlite3.Error as error:
            raise InputError(
                f"the list of query ids seen, which finds duplicates, can't be kept in a temporary file: {error}; "
                "free some space, or set SQLITE_TMPDIR to a folder that has some"
            ) from error
        return Place(list(self._files)[file], unit, number)

    def close(self) -> None:
        """Drop the list."""
        self._database.close()
