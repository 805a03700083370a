"""The same queries, written by every library at hand that people write their data with.

A writer takes the records of a shape and a folder, and tells what it wrote: the keys of a job's input. Nothing is told
but where the file is, and that pairs are to be sorted where they are not.
"""

import bz2
import csv
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from jobs import text
from writers_columnar import (
    arrow_of_everything,
    datafusion_folder,
    datasets_parquet,
    duckdb_parquet,
    fastparquet_pairs,
    pages_of_version_2,
    pandas_categories,
    pandas_parquet,
    polars_categories,
    polars_parquet,
    pyarrow_parquet,
    saved_dataset,
    views,
)
from writers_text import (
    Rows,
    Write,
    arrow_csv,
    compressed,
    csv_file,
    duckdb_file,
    headerless,
    hive,
    json_file,
    jsonl,
    raw_headerless,
    raw_tabs,
)

_ODD = [
    '"to be" or not',
    'he said "no"',
    "ends, with; marks | of all",
    "Höhe 高さ 🗻",
    "it's {json: [1]}",
    "a\\nb \\N",
]
_SPREAD = ["one\ttab", "two\nlines", '"quoted"', 'all\t"of"\nit', "  spaces around  "]


def queries(*, spread: bool = True, scored: bool = True) -> Rows:
    """33 queries of two to eight documents: one is empty, some are hard on writers, each of those once.

    Args:
        spread: whether texts may hold tabs and line ends.
        scored: whether documents have first-stage scores.
    """
    odd = [*_ODD, *(_SPREAD if spread else ())]

    def document(q: int, d: int) -> dict[str, Any]:
        words = odd[q // 3 % len(odd)] if d == 1 and q % 3 == 0 else f"ü {text(q * 100 + d)}" if d else ""
        return {"id": f"d{q}-{d}", "text": words} | ({"score": 9.5 - d} if scored else {})

    return [
        {
            "query_id": f"q{q}",
            "query": f"wie geht {text(q, 4)}?",
            "candidates": [document(q, d) for d in range(q % 7 + 2)],
        }
        for q in range(3 * len([*_ODD, *_SPREAD]))
    ]


def _heads(row: dict[str, Any]) -> dict[str, Any]:
    return {"query_id": row["query_id"], "query": row["query"]}


def pairs(rows: Rows) -> Rows:
    """One record a pair of a query and a document."""
    return [
        {**_heads(row), "doc_id": c["id"]} | {k: v for k, v in c.items() if k != "id"}
        for row in rows
        for c in row["candidates"]
    ]


def columns(rows: Rows) -> Rows:
    """Candidates as one object of lists."""
    return [
        _heads(row)
        | {"candidates": {key: [c[key] for c in row["candidates"]] for key in row["candidates"][0]}}
        for row in rows
    ]


def ids(rows: Rows) -> Rows:
    """Candidates by id only: their texts are in ``corpus``."""
    return [
        _heads(row) | {"candidates": [{"doc_id": c["id"], "score": c["score"]} for c in row["candidates"]]}
        for row in rows
    ]


def corpus(rows: Rows) -> Rows:
    """The documents of all queries, by id."""
    return [{"_id": c["id"], "title": "", "text": c["text"]} for row in rows for c in row["candidates"]]


SHAPES: dict[str, Callable[[Rows], Rows]] = {"nested": list, "pairs": pairs, "columns": columns, "ids": ids}


@dataclass(frozen=True, slots=True)
class Writer:
    """Something that writes records.

    Attributes:
        write: takes the records and the folder; returns what a job's input names.
        shapes: what it can write.
        spread: whether it can write tabs and line ends within a text.
        scored: whether it writes scores.
        sort: whether it leaves pairs unsorted.
    """

    write: Write
    shapes: tuple[str, ...] = tuple(SHAPES)
    spread: bool = True
    scored: bool = True
    sort: bool = False

    def source(self, shape: str, folder: Path) -> dict[str, Any]:
        """The input of a job, written."""
        rows = queries(spread=self.spread, scored=self.scored)
        found: dict[str, Any] = {"path": str(self.write(SHAPES[shape](rows), folder))}
        if shape == "ids":
            (folder / "corpus").mkdir()
            found["corpus"] = str(self.write(corpus(rows), folder / "corpus"))
        return found | ({"sort": True} if self.sort else {})


def _unsorted(write: Write) -> Writer:
    """The pairs of all queries in turns."""

    def mixed(rows: Rows, folder: Path) -> Path:
        turns: Counter[str] = Counter()
        keyed = []
        for row in rows:
            keyed.append((turns[row["query_id"]], row))
            turns[row["query_id"]] += 1
        return write([row for _, row in sorted(keyed, key=lambda pair: pair[0])], folder)

    return Writer(mixed, ("pairs",), sort=True)


_PAIRS, _JSON = ("pairs",), ("nested", "pairs")
WRITERS: dict[str, Writer] = {
    "jsonl": Writer(jsonl),
    "array": Writer(json_file(), _JSON),
    "array-printed": Writer(json_file(indent=2), _JSON),
    "json-printed": Writer(json_file(indent=1, lines=True), _JSON),
    "csv": Writer(csv_file(), _PAIRS),
    "csv-unscored": Writer(csv_file(), _PAIRS, scored=False),
    "csv-all": Writer(csv_file(quoting=csv.QUOTE_ALL), _PAIRS),
    "csv-nonnumeric": Writer(csv_file(quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"), _PAIRS),
    "csv-semicolon": Writer(csv_file(delimiter=";"), _PAIRS),
    "csv-utf16": Writer(csv_file("utf-16"), _PAIRS),
    "csv-bom": Writer(csv_file("utf-8-sig"), _PAIRS),
    "csv-headerless": Writer(headerless(","), _PAIRS, scored=False),
    "tsv": Writer(csv_file(delimiter="\t"), _PAIRS),
    "tsv-all": Writer(csv_file(delimiter="\t", quoting=csv.QUOTE_ALL), _PAIRS),
    "tsv-headerless": Writer(headerless("\t"), _PAIRS, scored=False),
    "raw-tabs": Writer(raw_tabs, _PAIRS, spread=False),
    "raw-headerless": Writer(raw_headerless, _PAIRS, spread=False, scored=False),
    "arrow-csv": Writer(arrow_csv(",", "x.csv"), _PAIRS),
    "arrow-tsv": Writer(arrow_csv("\t", "x.tsv"), _PAIRS),
    "duckdb-csv": Writer(duckdb_file("x.csv", "HEADER"), _PAIRS),
    "duckdb-tsv": Writer(duckdb_file("x.tsv", "HEADER, DELIMITER '\t'"), _PAIRS),
    "duckdb-jsonl": Writer(duckdb_file("x.jsonl", "FORMAT json")),
    "duckdb-array": Writer(duckdb_file("x.json", "FORMAT json, ARRAY true")),
    "duckdb-parquet": Writer(duckdb_parquet),
    "pyarrow": Writer(pyarrow_parquet),
    "pyarrow-pages-v2": Writer(pages_of_version_2),
    "views": Writer(views),
    "arrow-of-everything": Writer(arrow_of_everything),
    "pandas": Writer(pandas_parquet),
    "pandas-categories": Writer(pandas_categories),
    "fastparquet": Writer(fastparquet_pairs, _PAIRS),  # it writes lists as JSON texts
    "polars": Writer(polars_parquet),
    "polars-categories": Writer(polars_categories),
    "datafusion": Writer(datafusion_folder),
    "datasets": Writer(datasets_parquet),
    "saved": Writer(saved_dataset),
    "hive": Writer(hive, ("nested",)),
    "unsorted-csv": _unsorted(csv_file()),
    "unsorted-jsonl": _unsorted(jsonl),
    "unsorted-parquet": _unsorted(pyarrow_parquet),
    "unsorted-arrow": _unsorted(arrow_of_everything),
    "csv-bz2": Writer(compressed(csv_file(), bz2.compress, ".bz2"), _PAIRS),
    "tsv-xz": Writer(compressed(csv_file(delimiter="\t"), lzma.compress, ".xz"), _PAIRS),
    "array-zst": Writer(compressed(json_file(), zstandard.compress, ".zst"), ("nested",)),
}
