"""Writers of JSON, and of files of columns as text: each takes records and a folder, and returns what it wrote."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import orjson
import pyarrow as pa
import pyarrow.csv
from jobs import write_jsonl

Rows: TypeAlias = list[dict[str, Any]]
Write: TypeAlias = Callable[[Rows, Path], Path]


def jsonl(rows: Rows, folder: Path) -> Path:
    return write_jsonl(folder / "x.jsonl", rows)


def json_file(*, indent: int | None = None, lines: bool = False) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        path = folder / "x.json"
        texts = [json.dumps(row, indent=indent) for row in rows]
        path.write_text("\n".join(texts) if lines else json.dumps(rows, indent=indent))
        return path

    return write


def csv_file(encoding: str = "utf-8", **dialect: Any) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        path = folder / ("x.tsv" if dialect.get("delimiter") == "\t" else "x.csv")
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(rows[0]), **dialect)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def _top1000(row: dict[str, Any]) -> list[str]:
    return [row[name] for name in ("query_id", "doc_id", "query", "text")]


def headerless(delimiter: str) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        path = folder / ("x.csv" if delimiter == "," else "x.tsv")
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(map(_top1000, rows))
        return path

    return write


def _raw(path: Path, rows: Iterable[Iterable[Any]]) -> Path:
    """No quotes at all, as MS MARCO and ColBERT write."""
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows))
    return path


def raw_tabs(rows: Rows, folder: Path) -> Path:
    return _raw(folder / "x.tsv", [list(rows[0]), *(row.values() for row in rows)])


def raw_headerless(rows: Rows, folder: Path) -> Path:
    return _raw(folder / "x.tsv", map(_top1000, rows))


def arrow_csv(delimiter: str, name: str) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        options = pyarrow.csv.WriteOptions(delimiter=delimiter)
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), folder / name, options)
        return folder / name

    return write


def duckdb_file(name: str, options: str) -> Write:
    def write(rows: Rows, folder: Path) -> Path:
        with duckdb.connect() as database:
            database.register("rows", pa.Table.from_pylist(rows))
            database.execute(f"COPY (FROM rows) TO '{folder / name}' ({options})")
        return folder / name

    return write


def hive(rows: Rows, folder: Path) -> Path:
    """A folder a query, whose names are in the order of the queries."""
    for number, record in enumerate(rows):
        (folder / f"x/part={number:02}").mkdir(parents=True)
        (folder / f"x/part={number:02}/x.jsonl").write_bytes(orjson.dumps(record))
    return folder / "x"


def compressed(write: Write, compress: Callable[[bytes], bytes], suffix: str) -> Write:
    def packed(rows: Rows, folder: Path) -> Path:
        plain = write(rows, folder)
        found = plain.with_name(plain.name + suffix)
        found.write_bytes(compress(plain.read_bytes()))
        plain.unlink()
        return found

    return packed
