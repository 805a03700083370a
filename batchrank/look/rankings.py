"""Finds one query's ranking in an output folder, whatever its format, without reading more of it than is needed."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from batchrank.errors import InputError
from batchrank.io.address import Where
from batchrank.io.storage import filesystem
from batchrank.write.folder import QUERIES, RANKING, OutputFolder, part_number, records

_COMPARED = 100_000
"""Ids that an unknown one is compared with: as many take a second or two."""
_NEAR = 5
"""Near names that are told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One document of a ranking, as the output tells it; None for what the format doesn't hold.

    Attributes:
        doc_id: its id.
        rank: its rank, from 1.
        before: its rank in the first stage, from 1.
        score: its score.
        raw_score: the score as answered first.
        text: its text.
    """

    doc_id: str
    rank: int
    before: int | None = None
    score: float | None = None
    raw_score: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One query's ranking.

    Attributes:
        query_id: the query's id.
        rows: its documents, best first.
        query: its text, where the format holds it.
        record: how it was made and what it took, as ``queries-*`` tells it; empty where nothing does.
    """

    query_id: str
    rows: list[Row]
    query: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def certified(self) -> int:
        """So many documents, from the top, are proven to stand where they do."""
        return int(self.record.get("certified") or 0)


class Rankings:
    """The rankings of an output folder; a run that goes on has those of its published parts.

    Args:
        folder: the folder.

    Raises:
        InputError: there is no ranking in it; from every method, that a file can't be understood.
    """

    def __init__(self, folder: Where) -> None:
        self.folder = OutputFolder(folder)
        self._parts = self.folder.parts()
        if not self._parts:
            raise InputError(
                f"{folder}: no {RANKING}-*.parquet (or .jsonl, .trec, .tsv, .json) in it; name the output folder of a "
                "job that has published a part (batchrank status tells), or its job file"
            )

    def ids(self) -> Iterator[str]:
        """The ids of all queries, in the order of the output."""
        for part in self._parts:
            beside = self._beside(part)
            with _understood(beside or part):
                if beside is None:
                    yield from map(_id_of_line, _lines(part))
                else:
                    yield from (record["query_id"] for record in _records(beside))

    def find(self, query_id: str) -> Listing | None:
        """The ranking of a query; None where there is none."""
        for part in self._parts:
            beside = self._beside(part)
            with _understood(beside or part):
                record = None if beside is None else _record(beside, query_id)
            if beside is not None and record is None:
                continue
            with _understood(part):
                found = _READERS[part.suffix](part, query_id)
            if found is None and record is not None:
                found = Listing(query_id, [])  # a query without documents
            if found is not None:
                own = {k: v for k, v in (record or found.record).items() if k not in ("query_id", "query")}
                return Listing(query_id, found.rows, found.query or (record or {}).get("query"), own)
        return None

    def required(self, query_id: str) -> Listing:
        """The ranking of a query.

        Raises:
            InputError: there is none; the message says why, where the dead letters tell, or which ids are alike.
        """
        if (found := self.find(query_id)) is not None:
            return found
        path = self.folder.letters()
        for letter in records(path) if path.exists() else ():
            if letter["query_id"] == query_id:
                raise InputError(
                    f"query {query_id!r} has no ranking: {letter['cause']}, {letter['message']} ({path.name})"
                )
        raise InputError(f"query {query_id!r}: no ranking of it in {self.folder.path}{self._alike(query_id)}")

    def _alike(self, query_id: str) -> str:
        some = list(islice(self.ids(), _COMPARED))
        low = query_id.lower()
        found = difflib.get_close_matches(query_id, some, _NEAR, 0.5)
        found += [name for name in some if low in name.lower()][:_NEAR]
        near = list(dict.fromkeys(found))[:_NEAR] or some[:_NEAR]
        said = "did you mean" if found else "its queries begin with"
        return f"; {said} {', '.join(map(repr, near))}" + ("?" if found else "")

    def _beside(self, part: Where) -> Where | None:
        """The file of per-query records that belongs to a part."""
        number = part_number(part.name)
        return next((p for p in self.folder.parts(QUERIES) if part_number(p.name) == number), None)


@contextmanager
def _understood(path: Where) -> Iterator[None]:
    """Raise an InputError that names the file where one can't be understood."""
    try:
        yield
    # What Arrow and orjson raise are ValueErrors, or OSErrors.
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path} can't be read: {error}; the file is damaged: run the job again, which makes it anew"
        ) from error


def _parquet_file(path: Where) -> Any:
    from pyarrow.parquet import ParquetFile

    system, inner = filesystem(os.fspath(path))
    return ParquetFile(inner, filesystem=system)


def _records(path: Where) -> Iterator[dict[str, Any]]:
    if path.suffix != ".parquet":
        yield from records(path)
        return
    with _parquet_file(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _record(path: Where, query_id: str) -> dict[str, Any] | None:
    return next((record for record in _records(path) if record["query_id"] == query_id), None)


def _lines(path: Where) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from filter(None, map(bytes.strip, lines))


_BEFORE_ID = b'{"query_id":'
_ID = re.compile(rb'"(?:[^"\\]|\\.)*"')
"""A string of JSON, in which every quote has a backslash before it."""


def _id_of_line(line: bytes) -> str:
    """A query's id, without parsing its ranking."""
    if (match := _ID.match(line, len(_BEFORE_ID))) is None:
        raise ValueError("a line does not begin with a query's id")
    found: str = orjson.loads(match[0])
    return found


_NAMES = ("doc_id", "rank", "first_stage_rank", "score", "raw_score", "text")
"""What a row tells, by the names that outputs give it; texts are there where the job asked for them."""


def _jsonl(path: Where, query_id: str) -> Listing | None:
    """Our own lines, or those of rank_llm, which hold texts."""
    name = orjson.dumps(query_id)
    own, other = _BEFORE_ID + name + b",", b'"qid":' + name
    for line in _lines(path):
        if line.startswith(own):
            data = orjson.loads(line)
            rows = [Row(*map(row.get, _NAMES)) for row in data["ranking"]]
            return Listing(query_id, rows, data.get("query"), data["merge"])
        if other in line and (data := orjson.loads(line))["query"]["qid"] == query_id:
            rows = [
                Row(one["docid"], rank, score=one["score"], text=one["doc"]["text"] or None)
                for rank, one in enumerate(data["candidates"], 1)
            ]
            return Listing(query_id, rows, data["query"]["text"])
    return None


def _parquet(path: Where, query_id: str) -> Listing | None:
    import pyarrow.compute as pc

    rows: list[Row] = []
    with _parquet_file(path) as file:
        for number in range(file.num_row_groups):
            if not pc.any(pc.equal(file.read_row_group(number, ["query_id"])["query_id"], query_id)).as_py():
                if rows:
                    break
                continue
            table = file.read_row_group(number)
            table = table.filter(pc.equal(table["query_id"], query_id))
            names = [name for name in _NAMES if name in table.column_names]
            rows += [
                Row(*values) for values in zip(*(table[name].to_pylist() for name in names), strict=True)
            ]
    return Listing(query_id, rows) if rows else None


def _run(path: Where, query_id: str) -> Listing | None:
    """TREC's or MS MARCO's: lines of one document, those of a query together."""
    start = query_id.encode() + (b"\t" if path.suffix == ".tsv" else b" ")
    rows: list[Row] = []
    for line in _lines(path):
        if line.startswith(start):
            words = line.decode().split()
            score = float(words[4]) if len(words) > 4 else None
            at = 1 if path.suffix == ".tsv" else 2
            rows.append(Row(words[at], int(words[at + 1]), score=score))
        elif rows:
            break
    return Listing(query_id, rows) if rows else None


def _predictions(path: Where, query_id: str) -> Listing | None:
    """Mteb's: one object, of which each query's entry stands on a line of its own."""
    start = orjson.dumps(query_id) + b": {"
    for line in _lines(path):
        if line.startswith(start):
            scores = orjson.loads(line[len(start) - 1 :].removesuffix(b","))
            return Listing(
                query_id,
                [Row(name, rank, score=score) for rank, (name, score) in enumerate(scores.items(), 1)],
            )
    return None


_READERS: dict[str, Callable[[Where, str], Listing | None]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".trec": _run,
    ".tsv": _run,
    ".json": _predictions,
}
