"""Candidates named by id -> their texts, by DuckDB: whatever its size, a corpus is streamed past and never held.

Entries go into a table on disk; the corpus is scanned once against it; what was found is sorted by query, spilling to
disk, and streamed back as Arrow batches.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

from batchrank.errors import BatchrankError, InputError, MissingExtraError
from batchrank.read.scratch import Scratch

Array: TypeAlias = Any  # pyarrow has no type hints
Batches: TypeAlias = Iterable[Array]
Faults: TypeAlias = Sequence[BaseException]

_MEMORY = "400MB"
_THREADS = 4
_BATCH_ROWS = 2048

# The optimizer would swap sides by guesses about streams whose size it can't know, and build a table of the corpus.
# A progress bar would go to standard output, where rankings may go.
_SETTINGS = """
SET disabled_optimizers = 'join_order,build_side_probe_side';
SET preserve_insertion_order = false;
SET enable_progress_bar = false
"""
_ASKED = """
CREATE TABLE asked AS
SELECT query_id, row_number() OVER (ORDER BY min(seq)) - 1 AS ordinal, arg_min(file, seq) AS file,
    arg_min(number, seq) AS number, min(query) AS query, min(query) IS DISTINCT FROM max(query) AS conflict,
    arg_min({'file': file, 'number': number}, seq) FILTER (WHERE doc_id = '') AS nameless
FROM entries WHERE query_id <> '' GROUP BY query_id
"""
_QUESTIONS = """
CREATE TABLE questions AS
SELECT q.id AS query_id, min(q.text) AS text, min(q.text) IS DISTINCT FROM max(q.text) AS conflict
FROM stream q WHERE q.id IN (SELECT query_id FROM asked) GROUP BY q.id
"""
_INSTRUCTIONS = "CREATE TABLE instructions AS SELECT id, min(text) AS text FROM stream GROUP BY id"
_INSTRUCTED = """
UPDATE questions SET text = questions.text || ' ' || i.text
FROM instructions i WHERE i.id = questions.query_id AND i.text <> ''
"""
_UNINSTRUCTED = "SELECT query_id FROM questions WHERE query_id NOT IN (SELECT id FROM instructions)"
_QUERIES = """
SELECT a.ordinal, a.query_id, coalesce(q.text, a.query) AS text, a.file, a.number,
    CASE WHEN q.query_id IS NULL THEN a.conflict ELSE q.conflict END AS conflict,
    a.nameless.file AS nameless_file, a.nameless.number AS nameless_number
FROM asked a LEFT JOIN questions q USING (query_id) ORDER BY a.ordinal
"""
_WANTED = """
CREATE TABLE wanted AS
SELECT a.ordinal, CASE WHEN e.judged THEN md5(e.doc_id) END AS key, e.rank, e.seq, e.doc_id,
    CASE WHEN NOT e.judged THEN e.score END AS score, e.text
FROM entries e JOIN asked a USING (query_id) WHERE e.doc_id <> '' AND a.nameless IS NULL
"""
_DOCUMENTS = """
SELECT w.ordinal, w.seq, w.doc_id, w.score, c.id IS NULL AND w.text IS NULL AS missing, coalesce(w.text, CASE
    WHEN coalesce(c.title, '') = '' THEN c.text WHEN coalesce(c.text, '') = '' THEN c.title
    ELSE c.title || chr(10) || c.text END, '') AS text
FROM stream c RIGHT JOIN wanted w ON c.id = w.doc_id ORDER BY w.ordinal, w.key, w.rank, w.seq
"""
_OWN = """
SELECT ordinal, seq, doc_id, score, text IS NULL AS missing, coalesce(text, '') AS text
FROM wanted ORDER BY ordinal, key, rank, seq
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of the candidates.

    Attributes:
        ordinal: which query it is, from 0: its documents carry the same number.
        text: None where no file has it.
        file: the position of its first entry's file, ``number`` the line or row there.
        conflict: whether there are several texts for it.
        nameless: file and number of its first document without an id; then it comes without documents.
    """

    ordinal: int
    query_id: str
    text: str | None
    file: int
    number: int
    conflict: bool
    nameless: tuple[int, int] | None


class Join(AbstractContextManager["Join"]):
    """One join, in a temporary folder that goes away with it; ``TMPDIR`` tells where.

    Raises:
        MissingExtraError: DuckDB isn't installed.
        InputError: from every method: the folder is full.
    """

    task = "candidates and their texts can't be joined"
    """What messages say of a failure."""

    def __init__(self) -> None:
        try:
            import duckdb
            import pyarrow as pa
        except ImportError:
            raise MissingExtraError(
                "input: to join candidates with their texts, or to sort pairs, DuckDB is needed: "
                "pip install 'batchrank[corpus]'"
            ) from None
        self._errors = (duckdb.Error, pa.ArrowException, OSError)
        self._scratch = Scratch()
        config: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "threads": min(_THREADS, os.cpu_count() or 1),
            "temp_directory": str(self._scratch.path / "spilled"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._database = duckdb.connect(str(self._scratch.path / "join.duckdb"), config=config)
        self._database.execute(_SETTINGS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop everything."""
        self._database.close()
        self._scratch.close()

    def entries(self, schema: Any, batches: Batches) -> int:
        """Take the candidates; return how many queries there are. ``file`` and ``seq`` are to be among the columns."""
        self._stream("CREATE TABLE entries AS SELECT * FROM stream", schema, batches)
        self._run(_ASKED)
        self._run("CREATE TABLE questions (query_id VARCHAR, text VARCHAR, conflict BOOLEAN)")
        return int(self._run("SELECT count(*) FROM asked").fetchall()[0][0])

    def lacks_texts(self) -> bool:
        """Whether no candidate's record has its query's text."""
        return bool(self._run("SELECT bool_and(query IS NULL) FROM asked").fetchall()[0][0])

    def questions(self, schema: Any, batches: Batches) -> None:
        """Take the texts of queries."""
        self._run("DROP TABLE questions")
        self._stream(_QUESTIONS, schema, batches)

    def instructions(self, schema: Any, batches: Batches) -> set[str]:
        """Put an instruction after each query's text; return the queries that have none."""
        self._stream(_INSTRUCTIONS, schema, batches)
        self._run(_INSTRUCTED)
        return {query_id for (query_id,) in self._run(_UNINSTRUCTED).fetchall()}

    def asked(self) -> Iterator[Asked]:
        """The queries in the order in which they came first."""
        # A connection has one result at a time, and the documents are read beside this one.
        with self._database.cursor() as cursor:
            for batch in self._read(cursor, _QUERIES):
                names = ("ordinal", "query_id", "text", "file", "number", "conflict")
                columns = [batch.column(name).to_pylist() for name in names]
                where = [batch.column(f"nameless_{part}").to_pylist() for part in ("file", "number")]
                nameless = [None if file is None else (file, row) for file, row in zip(*where, strict=True)]
                yield from (Asked(*row) for row in zip(*columns, nameless, strict=True))

    def documents(self, schema: Any, corpus: Batches | None) -> Iterator[Array]:
        """Batches of ordinal, seq, doc_id, score, missing and text, by query, in first-stage order within each.

        A query without a document has no row here: whoever pairs the two goes by the ordinal.

        Without a corpus the texts are those of the entries.
        """
        self._run(_WANTED)
        self._run("DROP TABLE entries")
        if corpus is None:
            yield from self._read(self._database, _OWN)
            return
        yield from self._read(self._database, _DOCUMENTS, self._register(schema, corpus))

    def _run(self, sql: str) -> Any:
        with self._translated([]):
            return self._database.execute(sql)

    def _stream(self, sql: str, schema: Any, batches: Batches) -> None:
        """Run a statement over batches that Python makes while it runs."""
        with self._translated(self._register(schema, batches)):
            self._database.execute(sql)

    def _read(self, database: Any, sql: str, faults: Faults = ()) -> Iterator[Array]:
        with self._translated(faults):
            yield from database.sql(sql).to_arrow_reader(_BATCH_ROWS)

    def _register(self, schema: Any, batches: Batches) -> Faults:
        """Name batches ``stream``; returns where an error in making them is noted, as DuckDB only keeps its text."""
        import pyarrow as pa

        faults: list[BaseException] = []
        reader = pa.RecordBatchReader.from_batches(schema, _noting(batches, faults.append))
        self._database.register("stream", reader)
        return faults

    @contextmanager
    def _translated(self, faults: Faults) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            if faults and isinstance(faults[0], BatchrankError):
                raise faults[0] from error
            raise InputError(
                f"{self.task}: {error}; free some space, or set TMPDIR to a folder that has some"
            ) from error


def _noting(batches: Batches, note: Callable[[BaseException], None]) -> Iterator[Array]:
    try:
        yield from batches
    except Exception as error:
        note(error)
        raise


def numbered(schema: Any) -> Any:
    """The schema of entries with the columns that say where they come from."""
    import pyarrow as pa

    return schema.append(pa.field("file", pa.int32())).append(pa.field("seq", pa.int64()))


def numbering(files: Sequence[Batches]) -> Iterator[Array]:
    """The batches of several files with the columns that ``numbered`` tells."""
    import numpy as np
    import pyarrow as pa

    seq = 0
    for file, batches in enumerate(files):
        for batch in batches:
            rows = batch.num_rows
            places = pa.array(np.full(rows, file, np.int32)), pa.array(np.arange(seq, seq + rows))
            schema = numbered(batch.schema)
            yield pa.RecordBatch.from_arrays([*batch.columns, *places], schema=schema)
            seq += rows
