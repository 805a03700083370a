"""Every format of the field gives the ranking that plain JSON lines give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from field_data import QUERIES, beir, corpus, entries, jsonl, lines, mteb, parquet, queries, run_file
from jobs import make_job, rankings, run

from batchrank.job import Input
from batchrank.read import read
from batchrank.records import Failure, Query

pytestmark = pytest.mark.anyio
Make = Callable[[Path], dict[str, Any]]


def _trec(folder: Path) -> dict[str, Any]:
    run_path = str(run_file(folder / "run.trec"))
    texts = jsonl(folder / "corpus.jsonl.gz", corpus())
    asked = lines(folder / "queries.tsv", [(q["_id"], q["text"]) for q in queries()])
    return {"path": run_path, "corpus": str(texts), "queries": str(asked)}


def _beir(folder: Path) -> dict[str, Any]:
    return {"path": str(beir(folder / "set"))}


def _beir_with_a_run(folder: Path) -> dict[str, Any]:
    run_file(beir(folder / "set") / "bm25.trec")
    return {"path": str(folder / "set"), "format": "beir"}


def _run_over_beir(folder: Path) -> dict[str, Any]:
    return {"path": str(run_file(folder / "bm25.txt")), "corpus": str(beir(folder / "set"))}


def _mteb(folder: Path) -> dict[str, Any]:
    return {"path": str(mteb(folder / "set"))}


def _mteb_subset(folder: Path) -> dict[str, Any]:
    mteb(folder / "set", "de", "dev")
    return {"path": str(mteb(folder / "set", "en", "dev")), "subset": "en", "split": "dev", "format": "mteb"}


def _top1000(folder: Path) -> dict[str, Any]:
    """As MS MARCO has it: not sorted by query."""
    rows = [(q["query_id"], c["id"], q["query"], c["text"]) for q in QUERIES for c in q["candidates"]]
    rows.sort(key=lambda row: (row[1].partition("-")[2], row[0]))
    return {"path": str(lines(folder / "top1000.dev.tsv", rows))}


def _ids_and_docs(folder: Path) -> dict[str, Any]:
    records = [
        {
            "query_id": q["query_id"],
            "query": q["query"],
            "candidate_ids": [c["id"] for c in q["candidates"]],
            "candidate_docs": [c["text"] for c in q["candidates"]],
        }
        for q in QUERIES
    ]
    jsonl(folder / "a.jsonl", records[:2])
    parquet(folder / "b.parquet", records[2:])
    return {"path": str(folder / "[ab].*")}


def _rank_llm(folder: Path) -> dict[str, Any]:
    records = [
        {
            "query": {"qid": q["query_id"], "text": q["query"]},
            "candidates": [
                {"docid": c["id"], "score": c["score"], "doc": {"contents": c["text"]}}
                for c in q["candidates"]
            ],
        }
        for q in QUERIES
    ]
    return {"path": str(jsonl(folder / "retrieve.jsonl", records))}


def _msmarco_run(folder: Path) -> dict[str, Any]:
    ranked = [
        (q["query_id"], c["id"], i) for q in QUERIES for i, c in reversed([*enumerate(q["candidates"], 1)])
    ]
    run_path = lines(folder / "run.dev.tsv", ranked)
    texts = lines(folder / "collection.tsv", [(d["_id"], d["text"]) for d in corpus()])
    asked = parquet(folder / "queries.parquet", queries())
    return {"path": str(run_path), "corpus": str(texts), "queries": str(asked)}


def _lists_of_ids(folder: Path) -> dict[str, Any]:
    records = [
        {"query_id": q["query_id"], "query": q["query"], "candidate_ids": [c["id"] for c in q["candidates"]]}
        for q in QUERIES
    ]
    jsonl(folder / "a.jsonl", records[:2])
    parquet(folder / "b.parquet", records[2:])
    return {"path": str(folder / "[ab].*"), "corpus": str(parquet(folder / "corpus.parquet", corpus()))}


def _pairs_of_ids(folder: Path) -> dict[str, Any]:
    records = [{"query_id": q, "doc_id": d, "score": s} for q, d, s in entries()]
    jsonl(folder / "a.jsonl", records[:30])
    parquet(folder / "b.parquet", records[30:])
    beir(folder / "set")
    return {"path": str(folder / "[ab].*"), "corpus": str(folder / "set"), "queries": str(folder / "set")}


FORMATS: list[Make] = [
    _trec, _beir, _beir_with_a_run, _run_over_beir, _mteb, _mteb_subset, _top1000, _ids_and_docs, _rank_llm,
    _msmarco_run, _lists_of_ids, _pairs_of_ids,
]  # fmt: skip


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__.strip("_"))
async def test_a_format_gives_the_ranking_of_plain_json_lines(tmp_path: Path, make: Make) -> None:
    """Queries and order are those of the same data as JSON lines; nothing is told to the job but where it is."""
    plain = make_job(
        tmp_path, jsonl(tmp_path / "plain.jsonl", QUERIES), out="plain", limits={"documents": 50}
    )
    given = make(tmp_path)
    job = make_job(tmp_path, Path(given["path"]), input=given, limits={"documents": 50})
    assert (await run(plain)).exit_code == 0
    report = await run(job)
    assert (report.exit_code, report.data["notices"]) == (0, [])
    assert _orders(rankings(job)) == _orders(rankings(plain))
    assert [row["query_id"] for row in rankings(job)] == [row["query_id"] for row in QUERIES]


def _orders(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {row["query_id"]: [e["doc_id"] for e in row["ranking"]] for row in found}


def got(**keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate(keys)))


@pytest.mark.parametrize("make", [_trec, _beir_with_a_run, _run_over_beir, _pairs_of_ids])
def test_a_run_keeps_its_scores_and_its_order(tmp_path: Path, make: Make) -> None:
    """First-stage scores are those of the run."""
    found = got(**make(tmp_path))
    for query, row in zip(found, QUERIES, strict=True):
        assert isinstance(query, Query)
        assert query.first_stage_scores is not None
        assert list(query.doc_ids) == [c["id"] for c in row["candidates"]]
        assert list(query.documents) == [c["text"] for c in row["candidates"]]
        assert query.first_stage_scores.tolist() == [c["score"] for c in row["candidates"]]


@pytest.mark.parametrize("make", [_mteb, _ids_and_docs, _msmarco_run, _lists_of_ids])
def test_lists_without_scores_keep_their_order(tmp_path: Path, make: Make) -> None:
    """Where there are ranks or lists only, they are the order, and there are no scores."""
    for query, row in zip(got(**make(tmp_path)), QUERIES, strict=True):
        assert isinstance(query, Query)
        assert query.first_stage_scores is None
        assert list(query.doc_ids) == [c["id"] for c in row["candidates"]]


def test_a_pool_of_judged_documents_tells_nobody_the_answer(tmp_path: Path) -> None:
    """Candidates from qrels come in an order that has nothing to do with their relevance."""
    pool = [
        (q, d, 1 if i < 3 else 0) for q in ("q0", "q1") for i, d in enumerate(f"other{j}" for j in range(40))
    ]
    found = got(path=str(beir(tmp_path / "set", judged=pool)))
    orders = [list(query.doc_ids) for query in found if isinstance(query, Query)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(d for q, d, _ in pool if q == "q0")
    assert max(orders[0].index(f"other{j}") for j in range(3)) > 5
    assert all(isinstance(q, Query) and q.first_stage_scores is None for q in found)


def test_older_mteb_records_get_the_ids_that_mteb_gives_them(tmp_path: Path) -> None:
    """Its qrels fit; documents are in no telling order; what mteb leaves out is reported and not counted."""
    records: list[dict[str, Any]] = [
        {"query": "how", "positive": ["good", "fine"], "negative": ["bad"] * 30},
        {"query": "nothing", "positive": [], "negative": ["bad"]},
        {"query": "why", "positive": ["because"], "negative": ["no", None]},
    ]
    jsonl(tmp_path / "set/test.jsonl.gz", records)
    parquet(tmp_path / "pq/test-00000-of-00002.parquet", records[:2])
    parquet(tmp_path / "pq/test-00001-of-00002.parquet", records[2:])
    for path in (tmp_path / "set", tmp_path / "pq"):
        found = got(path=str(path))
        assert [f.cause for f in found if isinstance(f, Failure)] == ["no-candidates"]
        how, why = [q for q in found if isinstance(q, Query)]
        assert (how.id, why.id) == ("test_query0", "test_query1")
        assert dict(zip(why.doc_ids, why.documents, strict=True)) == {
            "apositive_test_query1_00000": "because",
            "negative_test_query1_00000": "no",
            "negative_test_query1_00001": "",
        }
        assert list(how.doc_ids[:2]) != ["apositive_test_query0_00000", "apositive_test_query0_00001"]


async def test_older_mteb_gives_the_ranking_of_plain_json_lines(tmp_path: Path) -> None:
    """Positive and negative texts are scored as candidates of a list are."""
    records = [
        {
            "query": q["query"],
            "positive": [c["text"] for c in q["candidates"][:2]],
            "negative": [c["text"] for c in q["candidates"][2:]],
        }
        for q in QUERIES
    ]
    job = make_job(tmp_path, jsonl(tmp_path / "test.jsonl", records), limits={"documents": 50})
    plain = make_job(
        tmp_path, jsonl(tmp_path / "plain.jsonl", QUERIES), out="plain", limits={"documents": 50}
    )
    assert ((await run(job)).exit_code, (await run(plain)).exit_code) == (0, 0)
    texts = {i: t for q in got(path=str(tmp_path / "test.jsonl")) for i, t in _texts(q)}
    known = {c["id"]: c["text"] for q in QUERIES for c in q["candidates"]}
    assert [[texts[i] for i in order] for order in _orders(rankings(job)).values()] == [
        [known[i] for i in order] for order in _orders(rankings(plain)).values()
    ]


def _texts(query: Query | Failure) -> list[tuple[str, str]]:
    assert isinstance(query, Query)
    return [(i, str(t)) for i, t in zip(query.doc_ids, query.documents, strict=True)]


async def test_a_ranking_can_be_the_next_stages_input(tmp_path: Path) -> None:
    """What a job wrote is read as a run, in every format but mteb's; rank_llm's needs no corpus beside it."""
    given = {"path": str(beir(tmp_path / "set")), "format": "beir"}
    suffixes = {"jsonl": "jsonl", "parquet": "parquet", "trec": "trec", "msmarco": "tsv", "rank_llm": "jsonl"}
    orders = []
    for format, suffix in suffixes.items():
        output = {"format": format, "top_n": 5, "path": format}
        job = make_job(tmp_path, tmp_path, out=format, input=given, output=output)
        assert (await run(job)).exit_code == 0
        again = got(path=str(tmp_path / format / f"ranking-*.{suffix}"), corpus=str(tmp_path / "set"))
        orders.append([list(query.doc_ids) for query in again if isinstance(query, Query)])
        if format == "rank_llm":
            alone = got(path=str(tmp_path / format / f"ranking-*.{suffix}"))
            assert list(map(_texts, alone)) == list(map(_texts, again))
    assert [len(order) for order in orders[0]] == [5] * 5
    assert all(order == orders[0] for order in orders)
