"""Every format of the field gives the ranking that plain JSON lines give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from field_data import QUERIES, beir, corpus, entries, jsonl, lines, mteb, parquet, queries, run_file
from jobs import failed, make_job, rankings, run

from batchrank.data import Query
from batchrank.job.sections import Input
from batchrank.outcomes import Failure
from batchrank.planning.check import check_job
from batchrank.read.layout import sources
from batchrank.read.reader import read

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


def _results_json(folder: Path) -> dict[str, Any]:
    """As BEIR and ranx save a run."""
    results = {q["query_id"]: {c["id"]: c["score"] for c in q["candidates"]} for q in QUERIES}
    (folder / "run.json").write_text(json.dumps(results, indent=1))
    return {"path": str(folder / "run.json"), "corpus": str(beir(folder / "set"))}


def _colbert(folder: Path) -> dict[str, Any]:
    rows = [(q, d, i % 23 + 1, s) for i, (q, d, s) in enumerate(entries())]
    return {"path": str(lines(folder / "ranking.tsv", rows)), "corpus": str(beir(folder / "set"))}


FORMATS: list[Make] = [
    _trec, _beir, _beir_with_a_run, _run_over_beir, _mteb, _mteb_subset, _top1000, _ids_and_docs, _rank_llm,
    _msmarco_run, _lists_of_ids, _pairs_of_ids,
    _results_json, _colbert,
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


@pytest.mark.parametrize(
    "make", [_trec, _beir_with_a_run, _run_over_beir, _pairs_of_ids, _results_json, _colbert]
)
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


def test_qrels_without_a_header_are_a_pool(tmp_path: Path) -> None:
    """In a BEIR folder they are judgements by their place: labels are never a first stage."""
    folder = beir(tmp_path / "set")
    with_header = got(path=str(folder))
    lines(folder / "qrels/test.tsv", [(q, d, int(s > 22)) for q, d, s in entries()])
    one_each = [(q["query_id"], q["candidates"][0]["id"], 1) for q in QUERIES]
    for found in (got(path=str(folder)), with_header):
        assert all(isinstance(q, Query) and q.first_stage_scores is None for q in found)
    assert [list(q.doc_ids) for q in got(path=str(folder)) if isinstance(q, Query)] == [
        list(q.doc_ids) for q in with_header if isinstance(q, Query)
    ]
    lines(folder / "qrels/test.tsv", one_each)
    assert all(isinstance(q, Query) and q.first_stage_scores is None for q in got(path=str(folder)))


@pytest.mark.parametrize("subset", ["", "en"])
def test_mtebs_instructions_follow_the_queries(tmp_path: Path, subset: str) -> None:
    """As mteb asks: the text, a space, the instruction; a null one adds nothing, a missing one fails its query."""
    folder = mteb(tmp_path / "set", subset)
    rows = [{"query-id": q["query_id"], "instruction": f"only {q['query_id']}"} for q in QUERIES[:4]]
    rows[2]["instruction"] = None
    prefix = f"{subset}-" if subset else ""
    parquet(folder / f"{prefix}instruction/test-00000-of-00001.parquet", rows)
    found = got(path=str(folder))
    asked = [(q.id, q.text) for q in found if isinstance(q, Query)]
    texts = {q["query_id"]: q["query"] for q in QUERIES}
    assert asked == [
        ("q0", f"{texts['q0']} only q0"),
        ("q1", f"{texts['q1']} only q1"),
        ("q2", texts["q2"]),
        ("q3", f"{texts['q3']} only q3"),
    ]
    assert [(f.query_id, f.cause) for f in found if isinstance(f, Failure)] == [("q4", "missing-instruction")]
    by_run = got(path=str(run_file(tmp_path / "r.trec")), corpus=str(folder))
    assert [(q.id, q.text) for q in by_run if isinstance(q, Query)] == asked
    assert any("instruction" in source.name for source in sources(Input(path=(str(folder),))))


def test_a_query_without_an_instruction_takes_no_other_s_documents(tmp_path: Path) -> None:
    """Beside queries without documents, each keeps its own."""
    folder = mteb(tmp_path / "set")
    ranked = [{"query-id": q["query_id"], "corpus-ids": [c["id"] for c in q["candidates"]]} for q in QUERIES]
    ranked[1]["corpus-ids"] = []
    parquet(folder / "top_ranked/test-00000-of-00001.parquet", ranked)
    rows = [
        {"query-id": q["query_id"], "instruction": "briefly"}
        for q in QUERIES
        if q["query_id"] in ("q3", "q4")
    ]
    parquet(folder / "instruction/test-00000-of-00001.parquet", rows)
    found = got(path=str(folder))
    assert [(f.query_id, f.cause) for f in found if isinstance(f, Failure)] == [
        (name, "missing-instruction") for name in ("q0", "q1", "q2")
    ]
    assert [(q.id, q.documents[0]) for q in found if isinstance(q, Query)] == [
        (q["query_id"], q["candidates"][0]["text"]) for q in QUERIES[3:]
    ]


def test_a_column_of_instructions_counts_as_well(tmp_path: Path) -> None:
    """mteb puts it after the text wherever the queries of a dataset have it."""
    folder = mteb(tmp_path / "set")
    name = "queries/test-00000-of-00001.parquet"
    parquet(folder / name, [q | {"instruction": "briefly"} for q in queries()])
    found = got(path=str(folder))
    assert [q.text for q in found if isinstance(q, Query)] == [f"{q['query']} briefly" for q in QUERIES]


async def test_predictions_are_named_as_the_job_names_the_dataset(tmp_path: Path) -> None:
    """mteb looks predictions up by subset and split."""
    mteb(tmp_path / "set", "de", "dev")
    given = {"path": str(mteb(tmp_path / "set", "en", "dev")), "subset": "en", "split": "dev"}
    job = make_job(tmp_path, tmp_path, input=given, output={"format": "mteb"})
    assert (await run(job)).exit_code == 0
    found = json.loads((tmp_path / "out/ranking-00000.json").read_text())
    assert list(found) == ["mteb_model_meta", "en"]
    assert list(found["en"]) == ["dev"]
    assert len(found["en"]["dev"]) == len(QUERIES)


@pytest.mark.parametrize("format", ["trec", "msmarco"])
async def test_ids_that_the_output_cannot_hold_fail_before_the_first_request(
    tmp_path: Path, format: Any
) -> None:
    """White space would part the columns: the query is a bad record, in a run and in ``check``."""
    records = [
        *QUERIES[:2],
        QUERIES[2] | {"query_id": "has space"},
        QUERIES[3] | {"candidates": [{"id": "has\ttab", "text": "x"}]},
    ]
    data = jsonl(tmp_path / "x.jsonl", records)
    job = make_job(tmp_path, data, output={"format": format}, limits={"documents": 50})
    report = await run(job)
    assert report.exit_code == 3
    assert [(f["query_id"], f["cause"]) for f in failed(job)] == [
        ("has space", "id-with-space"),
        ("q3", "id-with-space"),
    ]
    assert report.data["process"]["requests"] == 2
    checked = await anyio.to_thread.run_sync(lambda: list(check_job(job, limit=None, ask=False)))
    found = [f.text for f in checked if f.name == "input"]
    assert found[1].startswith("2 would fail: id-with-space; the first, ")
    assert "choose output.format: parquet or jsonl" in found[1]


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
