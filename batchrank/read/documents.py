"""Reads one list of documents, so that a list can be ranked without making an input file of it.

What a file holds is told by its start, whatever its name:

1. a JSON array of texts or objects, on one line or many;
2. JSON objects, one a line or printed over several;
3. JSON strings, one a line;
4. else plain text, one document a line; blank lines are skipped.

What begins as JSON does and isn't is refused: ranked as text, it would look right.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import orjson

from batchrank.data import Query
from batchrank.errors import InputError
from batchrank.io.opening import ForeignError
from batchrank.io.storage import shown
from batchrank.job.sections import Columns
from batchrank.outcomes import Failure
from batchrank.read.base import Source
from batchrank.read.jsonl import Lines
from batchrank.read.jsonstream import START, Broken, Shape, values
from batchrank.read.memory import NAME, Memory

_ARRAY = re.compile(r'\[\s*(?:["{\]]|null)')
_OBJECT = re.compile(r'\{\s*(?:["}]|$)', re.MULTILINE)
_ID = "query"
"""The only query's id, which nobody sees."""


def read_documents(path: str, query: str, columns: Columns | None = None) -> Query:
    """A query with the documents of a file as its candidates; without ids, these are their positions, from 0.

    Args:
        path: a file or an address; ``-`` is standard input.
        query: the query's text.
        columns: which key holds what in objects, where their names don't tell.

    Raises:
        InputError: the file can't be read, holds no document, or one that is none.
    """
    source = Source("standard input" if path == "-" else shown(path), None if path == "-" else path, "jsonl")
    candidates = list(_documents(source))
    if not candidates:
        raise InputError(f"{source.name}: there is no document in it; write one a line")
    memory = Memory(columns or Columns())
    (found,) = memory.take({"query_id": _ID, "query": query, "candidates": candidates})
    memory.close()
    if isinstance(found, Failure):
        raise InputError(f"{source.name}: {found.message.removeprefix(f'{NAME}: ')}")
    return found


def _documents(source: Source) -> Iterator[Any]:
    try:
        lines = Lines(source)
        with lines.closing():
            text = lines.decompress()
            start = text.peek(START)[:START].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
            if _ARRAY.match(start):
                yield from _values(source, text, Shape.ARRAY)
            elif _OBJECT.match(start):
                yield from _values(source, text, Shape.VALUES)
            else:
                yield from _texts(source, text)
    except ForeignError as error:
        raise InputError(
            f"{source.name}: {error}. A table of queries and candidates is ranked by a job: batchrank init FILE"
        ) from error
    except OSError as error:
        raise InputError(f"{source.name} can't be read: {error.strerror or error}") from error


def _values(source: Source, text: io.BufferedReader, shape: Shape) -> Iterator[Any]:
    for number, value in values(text, shape):
        if isinstance(value, Broken):
            raise InputError(f"{source.name}, line {number}: {value.message}")
        try:
            yield orjson.loads(value)
        except ValueError as error:
            raise InputError(f"{source.name}, line {number}: this is no JSON ({error}); correct it") from None


def _texts(source: Source, text: io.BufferedReader) -> Iterator[str]:
    """Lines of text; where each of them is a JSON string, what these hold."""
    try:
        found = text.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{source.name}, line {number}: this is no UTF-8 text; write it as UTF-8") from None
    lines = [line for line in (line.strip() for line in found.split("\n")) if line]
    try:
        strings = [orjson.loads(line) for line in lines if line.startswith('"')]
    except ValueError:
        strings = []
    yield from strings if len(strings) == len(lines) else lines
