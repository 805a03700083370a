"""Replaces documents' ids by their texts with DuckDB, which streams a corpus of any size and never holds it.

Entries go into a table on disk. The corpus is scanned once. Texts of documents that are asked for go to a file, and
DuckDB gets no more than their positions in it. It sorts those by query, on disk if need be, so that its memory doesn't
grow with the texts.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Positions
from batchrank.errors import BatchrankError, InputError, MissingExtraError, install_line
from batchrank.io.scratch import Kept, Scratch
from batchrank.read.entries import noting, titled_texts, without_text

Array: TypeAlias = Any  # pyarrow has no type hints
Batches: TypeAlias = Iterable[Array]
Faults: TypeAlias = Sequence[BaseException]

_MEMORY = "400MB"
_THREADS = 4  # each needs memory of its own, and DuckDB is given little
_BATCH_ROWS = 2048  # as many as DuckDB computes at a time
_PLACED = ("place", "size")
_STORED_ROWS = 1 << 16  # texts that are stored before DuckDB is told where they stand
_SPARSE = 16
"""So many slots for each document that is asked for: of the others about one in so many is kept without need."""
_SLOTS = 1 << 20, 1 << 27
"""The least and the most slots, of a byte each."""

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
    CASE WHEN NOT e.judged THEN e.score END AS score, e.place, e.size
FROM entries e JOIN asked a USING (query_id) WHERE e.doc_id <> '' AND a.nameless IS NULL
"""
_FOUND = "CREATE TABLE found (id VARCHAR, place BIGINT, size BIGINT)"
_HASHES = "SELECT hash(doc_id) AS hash FROM wanted"
_DOCUMENTS = """
SELECT w.ordinal, w.seq, w.doc_id, w.score, w.place IS NULL AND f.id IS NULL AS missing,
    coalesce(w.place, f.place, 0) AS place, coalesce(w.size, f.size, 0) AS size
FROM wanted w LEFT JOIN found f ON f.id = w.doc_id ORDER BY w.ordinal, w.key, w.rank, w.seq
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
                f"{install_line('corpus')}"
            ) from None
        self._errors = (duckdb.Error, pa.ArrowException, OSError)
        self._exhausted = duckdb.OutOfMemoryException
        self._scratch = Scratch()
        self._kept = Kept(self._scratch.path / "texts")
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
        self._kept.close()
        self._scratch.close()

    def entries(self, schema: Any, batches: Batches) -> int:
        """Take the candidates; return how many queries there are. ``file`` and ``seq`` are to be among the columns."""
        schema, batches = without_text(schema, *_PLACED), map(self._without_text, batches)
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

    def documents(self, corpus: Batches | None) -> Iterator[Array]:
        """Batches of ordinal, seq, doc_id, score, missing, place and size, by query, in first-stage order within each.

        A query without a document has no row here: whoever pairs the two goes by the ordinal. ``text`` has the text.

        Without a corpus the texts are those of the entries.
        """
        self._run(_WANTED)
        self._run("DROP TABLE entries")
        self._run(_FOUND)
        if corpus is not None:
            self._find(corpus)
        with self._translated([]):
            self._kept.flush()
        yield from self._read(self._database, _DOCUMENTS)

    def text(self, place: int, size: int) -> str:
        """The text of a document."""
        with self._translated([]):
            return self._kept.read(place, size).decode()

    def _find(self, corpus: Batches) -> None:
        """Keep the texts of the documents that are asked for, and a few others."""
        import pyarrow as pa

        asked = self._slots()
        held: list[Array] = []
        rows = 0
        for batch in corpus:
            with self._translated([]):
                batch = batch.take(pa.array(self._asked_in(batch, asked)))
                places, sizes = self._kept.add(titled_texts(batch))
                held.append(pa.table({"id": batch.column("id"), "place": places, "size": sizes}))
                rows += len(places)
                if rows >= _STORED_ROWS:
                    self._store(held)
                    rows = 0
        with self._translated([]):
            self._store(held)

    def _slots(self) -> NDArray[np.bool_]:
        """Marks the slots, by hash, of the documents that are asked for."""
        least, most = _SLOTS
        count = self._run("SELECT count(*) FROM wanted").fetchall()[0][0]
        slots = np.zeros(min(max(1 << (count * _SPARSE).bit_length(), least), most), bool)
        for batch in self._read(self._database, _HASHES):
            slots[_slot(batch.column("hash").to_numpy(), slots)] = True
        return slots

    def _asked_in(self, batch: Array, slots: NDArray[np.bool_]) -> Positions:
        import pyarrow as pa

        rows = pa.table({"id": batch.column("id"), "row": np.arange(batch.num_rows)})
        self._database.register("stream", rows)
        found = self._database.execute("SELECT row, hash(id) AS hash FROM stream").fetchnumpy()
        chosen: Positions = np.sort(found["row"][slots[_slot(found["hash"], slots)]])
        return chosen

    def _store(self, held: list[Array]) -> None:
        import pyarrow as pa

        if held:
            self._database.register("stream", pa.concat_tables(held))
            self._database.execute("INSERT INTO found SELECT * FROM stream")
            held.clear()

    def _without_text(self, batch: Array) -> Array:
        """The entries with the place of each text instead of it."""
        import pyarrow as pa

        texts = batch.column("text")
        nothing = texts.is_null().to_numpy(zero_copy_only=False)
        places = [pa.array(place, pa.int64(), mask=nothing) for place in self._kept.add(texts)]
        schema = without_text(batch.schema, *_PLACED)
        columns = [batch.column(name) for name in schema.names if name not in _PLACED]
        return pa.RecordBatch.from_arrays([*columns, *places], schema=schema)

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
        reader = pa.RecordBatchReader.from_batches(schema, noting(batches, faults.append))
        self._database.register("stream", reader)
        return faults

    @contextmanager
    def _translated(self, faults: Faults) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            if faults and isinstance(faults[0], BatchrankError):
                raise faults[0] from error
            what, remedy = str(error), "free some space, or set TMPDIR to a folder that has some"
            # Where its spilled files are full, the database calls that out of memory too.
            if isinstance(error, self._exhausted) and "temp_directory" not in what:
                what = what.partition("\n")[0]  # the rest is advice on settings that no user has
                remedy = (
                    f"more than the {_MEMORY} of memory set aside for it are needed; split the candidates into files "
                    "of fewer queries, and run each"
                )
            raise InputError(f"{self.task}: {what}; {remedy}") from error


def _slot(hashes: NDArray[np.uint64], slots: NDArray[np.bool_]) -> Positions:
    return (hashes & np.uint64(len(slots) - 1)).astype(np.int64)
