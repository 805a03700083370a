"""The same queries through every writer at hand, in every shape: rankings are the same, byte for byte."""

import uuid
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from jobs import make_job, outputs, run
from writers import SHAPES, WRITERS, queries
from writers_columnar import duckdb_parquet, pandas_categories, polars_parquet
from writers_text import Write, jsonl

from batchrank.data import Query
from batchrank.job.sections import Input
from batchrank.read.reader import read

CASES = [(name, shape) for name, writer in WRITERS.items() for shape in SHAPES if shape in writer.shapes]
_expected: dict[tuple[bool, bool], dict[str, bytes]] = {}


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "shape"), CASES)
async def test_every_writer_s_file_gives_the_same_ranking(tmp_path: Path, name: str, shape: str) -> None:
    """Byte for byte that of JSON lines of one record a query, whose writer is this project's own."""
    writer = WRITERS[name]
    rows = queries(spread=writer.spread, scored=writer.scored)
    source = writer.source(shape, tmp_path)
    assert values(list(read(Input.model_validate(source)))) == expected(rows)
    job = make_job(tmp_path, tmp_path, input=source)
    report = await run(job)
    assert (report.exit_code, report.data["notices"]) == (0, [])
    kind = writer.spread, writer.scored
    if kind not in _expected:
        (tmp_path / "plain").mkdir()
        plain = make_job(tmp_path, jsonl(rows, tmp_path / "plain"), out="out-plain")
        assert (await run(plain)).exit_code == 0
        _expected[kind] = outputs(plain)
    assert outputs(job) == _expected[kind]


def values(found: list[Any]) -> list[Any]:
    """Ids, texts, order and scores."""
    shown = []
    for query in found:
        assert isinstance(query, Query), query
        scores = query.first_stage_scores
        documents = zip(query.doc_ids, query.documents, strict=True)
        shown.append((query.id, query.text, list(documents), None if scores is None else scores.tolist()))
    return shown


def expected(rows: list[dict[str, Any]]) -> list[Any]:
    """What the records say, taken from them."""
    return [
        (
            row["query_id"],
            row["query"],
            [(c["id"], c["text"]) for c in row["candidates"]],
            [c["score"] for c in row["candidates"]] if "score" in row["candidates"][0] else None,
        )
        for row in rows
    ]


def test_duckdb_s_uuids_are_ids(tmp_path: Path) -> None:
    """In pairs, in lists and joined with a corpus of them: canonical text."""
    ids = [str(uuid.UUID(int=i * 3**70)) for i in range(4)]
    rows = ", ".join(f"('{ids[i // 2]}'::UUID, 'how', '{ids[i]}'::UUID, 'text {i}')" for i in range(4))
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE pairs AS FROM (VALUES {rows}) t(query_id, query, doc_id, text)")
        database.execute(f"COPY pairs TO '{tmp_path}/pairs.parquet'")
        lists = "SELECT query_id, any_value(query) AS query, list(doc_id ORDER BY doc_id) AS candidate_ids"
        database.execute(f"COPY ({lists} FROM pairs GROUP BY query_id) TO '{tmp_path}/lists.parquet'")
        database.execute(f"COPY (SELECT doc_id, text FROM pairs) TO '{tmp_path}/corpus.parquet'")
    corpus = (str(tmp_path / "corpus.parquet"),)
    for source in (
        Input(path=(str(tmp_path / "pairs.parquet"),)),
        Input(path=(str(tmp_path / "lists.parquet"),), corpus=corpus),
    ):
        found = {
            q.id: dict(zip(q.doc_ids, q.documents, strict=True)) for q in read(source) if isinstance(q, Query)
        }
        assert found == {
            ids[0]: {ids[0]: "text 0", ids[1]: "text 1"},
            ids[1]: {ids[2]: "text 2", ids[3]: "text 3"},
        }


@pytest.mark.parametrize("writer", [duckdb_parquet, polars_parquet, pandas_categories])
def test_repeats_of_any_writer_are_read_in_bounded_memory(tmp_path: Path, writer: Write) -> None:
    """Long texts that come again and again are stored once, whoever writes them, and never decoded all at once."""
    texts = [f"{i} " + "word " * 20_000 for i in range(3)]
    rows = [
        {"query_id": f"q{i // 40}", "query": "how", "doc_id": i, "text": texts[i % 3]} for i in range(1200)
    ]
    path = writer(rows, tmp_path)
    before = pa.total_allocated_bytes()
    taken = [pa.total_allocated_bytes() - before for _ in read(Input(path=(str(path),)))]
    assert len(taken) == 30
    assert np.max(taken) < 64 * 2**20
