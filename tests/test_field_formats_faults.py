"""What is wrong in joined files is told, and the rest is ranked."""

import gzip
import sys
from pathlib import Path
from typing import Any

import pytest
from field_data import (
    QUERIES,
    beir,
    corpus,
    entries,
    jsonl,
    lines,
    mteb,
    parquet,
    qrels_file,
    queries,
    run_file,
)
from jobs import failed, make_job, rankings, run

from batchrank.data import Query
from batchrank.errors import InputError, MissingExtraError, Place
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read.join import Join
from batchrank.read.layout import facts, find, sources
from batchrank.read.reader import read


def got(**keys: Any) -> list[Query | Failure]:
    return list(read(Input.model_validate(keys)))


def split(found: list[Query | Failure]) -> tuple[list[Query], list[Failure]]:
    return [q for q in found if isinstance(q, Query)], [f for f in found if isinstance(f, Failure)]


@pytest.mark.anyio
async def test_a_document_missing_in_the_corpus_is_ranked_last_and_reported(tmp_path: Path) -> None:
    """It stands in the ranking, last and without a score; failed.jsonl names it, the query and the run's line."""
    folder = beir(tmp_path / "set")
    jsonl(folder / "corpus.jsonl", [d for d in corpus() if d["_id"] not in ("d1-3", "d1-4")])
    job = make_job(
        tmp_path, folder, input={"path": str(run_file(tmp_path / "r.trec")), "corpus": str(folder)}
    )
    await run(job)
    letters = failed(job)
    assert [(f["cause"], f["query_id"], f["line"]) for f in letters] == [("missing-document", "q1", 24)] * 2
    assert f"document 'd1-3' is not in {folder / 'corpus.jsonl'}; it is ranked last" in letters[0]["message"]
    ranking = next(row for row in rankings(job) if row["query_id"] == "q1")["ranking"]
    assert [(e["doc_id"], e["score"]) for e in ranking[-2:]] == [("d1-3", None), ("d1-4", None)]
    assert all(e["score"] is not None for e in ranking[:-2])
    assert len(rankings(job)) == 5


def test_a_query_without_a_text_or_any_document_is_a_failure(tmp_path: Path) -> None:
    """It can't be ranked; the message says in which file something lacks."""
    folder = beir(tmp_path / "set")
    jsonl(folder / "queries.jsonl", [q for q in queries() if q["_id"] != "q3"])
    jsonl(folder / "corpus.jsonl", [d for d in corpus() if not d["_id"].startswith("d2-")])
    found, failures = split(got(path=str(run_file(tmp_path / "run.trec")), corpus=str(folder)))
    assert [q.id for q in found] == ["q0", "q1", "q4"]
    assert [(f.query_id, f.cause) for f in failures] == [
        ("q2", "all-documents-missing"),
        ("q3", "missing-query"),
    ]
    assert "none of the query's 23 documents ('d2-0', 'd2-1', 'd2-2', ...) is in" in failures[0].message
    assert f"query id 'q3' is not in {folder / 'queries.jsonl'}" in failures[1].message
    assert failures[1].place == Place(str(tmp_path / "run.trec"), "line", 70)


def test_the_wrong_corpus_ends_the_run(tmp_path: Path) -> None:
    """If no query has any of its documents, nothing is ranked, and the message names the key to correct."""
    wrong = jsonl(tmp_path / "other.jsonl", [{"id": "x", "contents": "y"}])
    asked = jsonl(tmp_path / "queries.jsonl", queries())
    with pytest.raises(InputError, match=r"none of the query's 23 documents.*correct input\.corpus"):
        got(path=str(run_file(tmp_path / "run.trec")), corpus=str(wrong), queries=str(asked))


def test_a_document_that_the_corpus_holds_twice_is_refused(tmp_path: Path) -> None:
    """Nobody could tell which text is meant."""
    folder = beir(tmp_path / "set")
    jsonl(folder / "corpus.jsonl", [*corpus(), {"_id": "d0-5", "title": "", "text": "another"}])
    found, failures = split(got(path=str(folder)))
    assert len(found) == 4
    assert [(f.query_id, f.cause) for f in failures] == [("q0", "duplicate-document")]
    assert f"document id 'd0-5' comes more than once in {folder / 'corpus.jsonl'}" in failures[0].message


def test_a_broken_line_in_any_file_is_named(tmp_path: Path) -> None:
    """The rest of the file is read; the failures stand before the first query, but that of a query in its place."""
    run_path = run_file(tmp_path / "run.trec")
    run_path.write_text(run_path.read_text() + "q4 Q0 d4-0\nq4 Q0 d4-1 1 inf x\n")
    texts = jsonl(tmp_path / "corpus.jsonl", corpus())
    texts.write_bytes(texts.read_bytes() + b'{"_id": \n{"_id": null, "text": "a"}\n[]\n')
    asked = lines(tmp_path / "queries.tsv", [*((q["_id"], q["text"]) for q in queries()), ("lonely",)])
    found = got(path=str(run_path), corpus=str(texts), queries=str(asked))
    told = [(f.cause, f.place.file, f.place.number) for f in found[:5] if isinstance(f, Failure)]
    assert told == [
        ("broken-line", str(run_path), 116),
        ("broken-line", str(asked), 7),
        ("broken-json", str(texts), 166),
        ("no-id", str(texts), 167),
        ("wrong-type", str(texts), 168),
    ]
    ranked, failures = split(found[5:])
    assert len(ranked) == 4
    assert [(f.query_id, f.cause, f.place.number) for f in failures] == [("q4", "broken-line", 117)]


@pytest.mark.parametrize("name", ["pairs.jsonl", "lists.jsonl", "pairs.csv"])
def test_a_query_is_not_ranked_without_a_document_whose_record_is_wrong(tmp_path: Path, name: str) -> None:
    """A partial ranking would be paid for: the query fails by its id, as where records hold their texts."""
    asked = [("q1", "d1", "2"), ("q1", "d2", "x"), ("q2", "d1", "1"), ("q3", "d2", "y"), ("q1", "d3", "z")]
    asked += [("q4", "d3", "1")]
    pairs = [{"query_id": q, "doc_id": d, "score": s if s.isalpha() else int(s)} for q, d, s in asked]
    path = tmp_path / name
    if name == "pairs.jsonl":
        jsonl(path, pairs)
    elif name == "lists.jsonl":
        jsonl(path, [{"query_id": p.pop("query_id"), "candidates": [p]} for p in pairs])
    else:
        path.write_text("query_id,doc_id,score\n" + "".join(f"{q},{d},{s}\n" for q, d, s in asked))
    texts = jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "text": f"t{i}"} for i in range(4)])
    queries = jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": f"t{i}"} for i in range(1, 5)])
    ranked, failures = split(got(path=str(path), corpus=str(texts), queries=str(queries)))
    assert [q.id for q in ranked] == ["q2", "q4"]
    first = int(name == "pairs.csv")
    assert [(f.query_id, f.place.number) for f in failures] == [("q1", 2 + first), ("q3", 4 + first)]


def test_a_cut_corpus_ends_the_run(tmp_path: Path) -> None:
    """Whatever documents stood past the cut would be missing everywhere: the file is to be restored."""
    texts = jsonl(tmp_path / "corpus.jsonl.gz", corpus())
    texts.write_bytes(gzip.compress(b"".join(b'{"_id": "d%d", "text": "x"}\n' % i for i in range(9)))[:-9])
    asked = jsonl(tmp_path / "queries.jsonl", queries())
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz can't be read to its end: .*restore the file"):
        got(path=str(run_file(tmp_path / "run.trec")), corpus=str(texts), queries=str(asked))


def test_files_of_nothing_but_broken_records_end_the_run(tmp_path: Path) -> None:
    """A thousand records that can't be read are a wrong file."""
    texts = lines(tmp_path / "corpus.jsonl", [("no JSON here",)] * 2000)
    with pytest.raises(InputError, match=r"1000 records can't be read; the first, .*corpus\.jsonl, line 1"):
        got(path=str(run_file(tmp_path / "run.trec")), corpus=str(texts), queries=str(texts))
    texts = lines(tmp_path / "corpus.tsv", [("no tabs here",)] * 2000)
    with pytest.raises(InputError, match=r"corpus\.tsv, line 1: most lines are not .* 'no tabs here'"):
        got(path=str(run_file(tmp_path / "run.trec")), corpus=str(texts), queries=str(texts))


@pytest.mark.parametrize("make", [run_file, qrels_file])
def test_a_run_alone_names_the_key_to_set(tmp_path: Path, make: Any) -> None:
    """A run or qrels hold no texts: the message says which keys do."""
    path = make(tmp_path / "run.txt")
    with pytest.raises(InputError, match=r"names queries by id only; set input\.queries"):
        got(path=str(path), corpus=str(jsonl(tmp_path / "corpus.jsonl", corpus())))
    with pytest.raises(InputError, match=r"names documents by id only; set input\.corpus"):
        got(path=str(path), queries=str(jsonl(tmp_path / "queries.jsonl", queries())))
    with pytest.raises(InputError, match=r"names queries by id only; set input\.queries"):
        got(path=str(path))


def test_records_of_ids_alone_name_the_key_to_set(tmp_path: Path) -> None:
    """JSON lines without texts are no broken records but a missing corpus."""
    path = jsonl(tmp_path / "x.jsonl", [{"query_id": "q", "query": "x", "candidate_ids": ["a"]}])
    with pytest.raises(InputError, match=r"give documents by id only; set input\.corpus"):
        got(path=str(path))


def test_parts_of_a_dataset_must_be_told_apart(tmp_path: Path) -> None:
    """Several runs, splits or subsets are never chosen from silently; the message names key and choices."""
    folder = beir(tmp_path / "beir")
    run_file(folder / "a.trec"), run_file(folder / "b.run")
    with pytest.raises(InputError, match=r"several runs \(a\.trec, b\.run\); set input\.path to the one"):
        got(path=str(folder))
    mteb(tmp_path / "mteb", "de"), mteb(tmp_path / "mteb", "en")
    with pytest.raises(InputError, match=r"input\.subset: .* has the subsets de, en of top_ranked"):
        got(path=str(tmp_path / "mteb"))
    mteb(tmp_path / "two", split="dev"), mteb(tmp_path / "two", split="final")
    with pytest.raises(
        InputError, match=r"input\.split: top_ranked in .* has the parts dev, final; say which"
    ):
        got(path=str(tmp_path / "two"))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"is no dataset's folder: it lacks corpus or queries"):
        got(path=str(tmp_path / "none"), format="beir")


def test_a_split_can_be_chosen(tmp_path: Path) -> None:
    """``input.split`` picks the qrels, and the parts of other roles that have it."""
    (query,) = got(path=str(beir(tmp_path / "set")), split="train")
    assert isinstance(query, Query)
    assert (query.id, query.doc_ids, query.documents) == ("unasked", ["other1"], ["t\nnobody asks for this"])


def test_names_can_be_told_for_any_of_the_files(tmp_path: Path) -> None:
    """``input.columns`` names what it names in whichever of the files has it."""
    records = [{"topic": q, "ref": d, "w": s} for q, d, s in entries()]
    texts = [{"ref": d["_id"], "words": d["text"], "text": "not this"} for d in corpus()]
    columns = Columns(query_id="topic", doc_id="ref", text="words", score="w")
    found = got(
        path=str(parquet(tmp_path / "run.parquet", records)),
        corpus=str(jsonl(tmp_path / "c.jsonl", texts)),
        queries=str(jsonl(tmp_path / "q.jsonl", queries())),
        columns=columns,
    )
    assert [list(q.documents) for q in split(found)[0]] == [
        [c["text"] for c in r["candidates"]] for r in QUERIES
    ]


def test_lists_of_ids_and_documents_must_be_of_one_length(tmp_path: Path) -> None:
    """A missing id would shift all that follow."""
    record = {"query_id": "q", "query": "x", "candidate_ids": ["a"], "candidate_docs": ["x", "y"]}
    for path in (jsonl(tmp_path / "x.jsonl", [record]), parquet(tmp_path / "x.parquet", [record])):
        (failure,) = got(path=str(path))
        assert isinstance(failure, Failure)
        assert (failure.cause, failure.query_id) == ("unequal-lists", "q")
        assert "1 ids and 2 candidates" in failure.message


def test_without_duckdb_the_install_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra names itself."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'batchrank\[corpus\]'"):
        got(path=str(beir(tmp_path / "set")))


def test_standard_output_stays_the_rankings_own() -> None:
    """A join that takes long shows no progress bar of its own, in any of its connections."""
    with Join() as join, join._database.cursor() as cursor:
        for database in (join._database, cursor):
            found = database.execute("SELECT current_setting('enable_progress_bar')").fetchall()
            assert found == [(False,)]


def test_all_files_of_an_input_are_known(tmp_path: Path) -> None:
    """A corpus that changed is a changed input."""
    folder = beir(tmp_path / "set")
    names = {Path(s.name).name for s in find([str(folder)])}
    assert names == {"corpus.jsonl", "queries.jsonl", "test.tsv", "train.tsv"}
    source = Input(path=(str(run_file(tmp_path / "run.trec")),), corpus=(str(folder),))
    assert {Path(s.name).name for s in sources(source)} == {"run.trec", "corpus.jsonl", "queries.jsonl"}
    before = facts(source)
    jsonl(folder / "corpus.jsonl", [])
    assert facts(source) != before
    assert facts(Input(path=("-",))) is None


def test_limit_and_gauge_follow_the_queries(tmp_path: Path) -> None:
    """``input.limit`` stops early, and nothing is left in the temporary folder."""
    from batchrank.read.base import Gauge

    gauge, left = Gauge(), tmp_path / "tmp"
    left.mkdir()
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(left))
        for query in read(Input(path=(str(beir(tmp_path / "set")),), limit=2), gauge):
            found.append(gauge.share)
            assert isinstance(query, Query)
    assert found == [0.2, 0.4]
    assert list(left.iterdir()) == []
