"""How good rankings are, as trec_eval has it."""

import json
import sys
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from field_data import QUERIES, RELEVANT, beir, jsonl, lines, parquet, qrels_file, run_file
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import make_job, run
from typer.testing import CliRunner

from batchrank.cli.app import app
from batchrank.errors import InputError, JobError, MissingExtraError
from batchrank.quality.judgements import Evaluation, evaluate
from batchrank.quality.measures import DEFAULT, p_value
from batchrank.quality.rankings import trec_order

OFFICIAL = {"nDCG@10": "ndcg_cut_10", "AP": "map", "R@100": "recall_100", "P@5": "P_5", "RR": "recip_rank"}
DOCUMENTS = [*"abcdefgh", "ä", "Z", "10", "9", "𝔘", "�"]
# Ties, and numbers that differ as 64-bit floats but not as 32-bit ones.
SCORES = st.sampled_from(
    [1.0, 1.0 + 1e-12, 1.0 + 1e-6, 0.5, 0.0, -0.0, -2.0, 1e-50, 1e30, 16777217.0, 16777216.0]
)
RUNS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1),
    min_size=1,
)
QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q4"]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1),
    min_size=1,
)


@settings(max_examples=80, deadline=None)
@given(RUNS, QRELS)
def test_values_are_those_of_trec_eval_to_1e_9_with_ties(
    tmp_path_factory: pytest.TempPathFactory,
    scores: dict[str, dict[str, float]],
    judged: dict[str, dict[str, int]],
) -> None:
    """Query by query, on runs with ties in either precision, read from a TREC run file."""
    import pytrec_eval

    folder = tmp_path_factory.mktemp("run")
    run_path = lines(
        folder / "run.trec",
        [(q, "Q0", d, 0, repr(s), "x") for q, docs in scores.items() for d, s in docs.items()],
        " ",
    )
    qrels_path = lines(
        folder / "qrels.txt", [(q, 0, d, r) for q, docs in judged.items() for d, r in docs.items()], " "
    )
    expected = pytrec_eval.RelevanceEvaluator(judged, set(OFFICIAL.values())).evaluate(scores)
    if not set(scores) & set(judged):
        with pytest.raises(InputError, match="is judged by"):
            evaluate(str(run_path), [str(qrels_path)])
        return
    result = evaluate(str(run_path), [str(qrels_path)], measures=[*OFFICIAL, "RR@10"])
    assert set(result.queries) == set(judged)
    for ours, theirs in OFFICIAL.items():
        for query in judged:
            value = expected.get(query, {}).get(theirs, 0.0)
            assert result.after[ours][query] == pytest.approx(value, abs=1e-9)
    for (
        query
    ) in judged:  # MS MARCO's measure, which the library behind it computes from another order of ties
        value = expected.get(query, {}).get("recip_rank", 0.0)
        assert result.after["RR@10"][query] == pytest.approx(value if value >= 0.1 else 0.0, abs=1e-9)


def test_ties_are_broken_by_falling_id() -> None:
    """As trec_eval does; those without a score come last."""
    assert trec_order(["a", "b", "c", "d"], [1.0, 2.0, 1.0 + 1e-12, float("nan")]) == ["b", "c", "a", "d"]


async def _output(tmp_path: Path, format: str, **output: Any) -> Path:
    data = jsonl(tmp_path / "in.jsonl", QUERIES)
    job = make_job(tmp_path, data, out=format, output={"format": format, "path": format, **output})
    assert (await run(job)).exit_code == 0
    return tmp_path / format


@pytest.mark.anyio
async def test_every_output_format_is_judged_alike(tmp_path: Path) -> None:
    """What a job wrote is judged in the order that it wrote, whatever the format."""
    qrels = str(qrels_file(tmp_path / "qrels.txt"))
    formats = ("parquet", "jsonl", "trec", "rank_llm", "mteb", "msmarco")
    results = [evaluate(str(await _output(tmp_path, format)), [qrels]) for format in formats]
    assert all(result.after == results[0].after for result in results)
    assert [result.before is not None for result in results] == [True, True, False, False, False, False]
    assert results[0].before == results[1].before
    assert not any(result.notes for result in results)


@pytest.mark.anyio
async def test_before_is_the_first_stage(tmp_path: Path) -> None:
    """From an output with both ranks, and the same from the run that it was made of; the relevant document was at 8."""
    qrels = [str(qrels_file(tmp_path / "qrels.txt"))]
    out = await _output(tmp_path, "parquet")
    first = evaluate(str(run_file(tmp_path / "run.trec")), qrels, measures=["RR", "AP"])
    result = evaluate(str(out), qrels, measures=["RR", "AP"])
    assert (
        result.before
        == first.after
        == evaluate(str(out), qrels, before=str(tmp_path / "run.trec"), measures=["RR", "AP"]).before
    )
    assert [c.before for c in result.comparisons] == [0.125, 0.125]
    for one in result.comparisons:
        assert one.before is not None
        assert one.difference == one.after - one.before


@pytest.mark.anyio
async def test_a_cut_output_has_no_first_stage(tmp_path: Path) -> None:
    """With ``top_n`` the rest of the first stage is unknown: better none than a wrong one, and the note says so."""
    qrels = [str(qrels_file(tmp_path / "qrels.txt"))]
    for format in ("parquet", "jsonl"):
        result = evaluate(str(await _output(tmp_path, format, top_n=5)), qrels)
        assert result.before is None
        assert "name it with --before" in result.notes[0]


@pytest.mark.anyio
async def test_an_unfinished_output_says_so(tmp_path: Path) -> None:
    """A run that has not ended is judged as far as it goes, and the note tells."""
    out = await _output(tmp_path, "parquet")
    (out / "summary.json").unlink()
    assert "has not ended" in evaluate(str(out), [str(qrels_file(tmp_path / "qrels.txt"))]).notes[0]


def judged(tmp_path: Path, *paths: Path, **options: Any) -> Evaluation:
    return evaluate(str(run_file(tmp_path / "run.trec")), [str(p) for p in paths], **options)


def test_qrels_of_every_kind_are_read(tmp_path: Path) -> None:
    """TREC, BEIR's with a header, JSON lines and Parquet judge alike; several files are one."""
    records = [{"query_id": q, "doc_id": d, "relevance": 1} for q, d in RELEVANT.items()]
    hyphens = [{"query-id": q, "corpus-id": d, "score": 1} for q, d in RELEVANT.items()]
    expected = judged(tmp_path, qrels_file(tmp_path / "qrels.txt")).after
    assert judged(tmp_path, beir(tmp_path / "set") / "qrels/test.tsv").after == expected
    assert judged(tmp_path, jsonl(tmp_path / "qrels.jsonl", records)).after == expected
    assert judged(tmp_path, parquet(tmp_path / "qrels.parquet", hyphens)).after == expected
    two = jsonl(tmp_path / "1.jsonl", records[:2]), jsonl(tmp_path / "2.jsonl", records[2:])
    assert judged(tmp_path, *two).after == expected


def test_qrels_without_a_header_and_of_ranx_are_read(tmp_path: Path) -> None:
    """BEIR's three columns, ranx's JSON, CSV with a header, an array of records: they judge alike."""
    pairs = list(RELEVANT.items())
    expected = judged(tmp_path, qrels_file(tmp_path / "qrels.txt")).after
    assert judged(tmp_path, lines(tmp_path / "q.tsv", [(q, d, 1) for q, d in pairs])).after == expected
    ranx = tmp_path / "ranx.json"
    ranx.write_text(json.dumps({q: {d: 1} for q, d in pairs}))
    assert judged(tmp_path, ranx).after == expected
    table = [("qid", "docid", "relevance"), *((q, d, 1) for q, d in pairs)]
    assert judged(tmp_path, lines(tmp_path / "q.csv", table, ",")).after == expected
    ranx.write_text(json.dumps([{"query_id": q, "doc_id": d, "score": 1} for q, d in pairs], indent=2))
    assert judged(tmp_path, ranx).after == expected


def test_candidates_with_whole_scores_are_no_qrels(tmp_path: Path) -> None:
    """Texts, queries or ranks beside them, or scores none of which comes twice, tell what they are."""
    pairs = [
        {"query_id": q["query_id"], "doc_id": c["id"], "score": int(c["score"])}
        for q in QUERIES[:1]
        for c in q["candidates"]
    ]
    files = [
        (jsonl(tmp_path / "a.jsonl", [p | {"text": "x"} for p in pairs]), "has text, as candidates have"),
        (parquet(tmp_path / "a.parquet", [p | {"rank": 1} for p in pairs]), "has rank, as candidates have"),
        (jsonl(tmp_path / "lists.jsonl", QUERIES), "has candidates, query, as candidates have"),
        (jsonl(tmp_path / "b.jsonl", pairs), "all 23 values of query 'q0' are different, as scores are"),
        (parquet(tmp_path / "b.parquet", pairs), "all 23 values"),
        (
            lines(tmp_path / "b.csv", [list(pairs[0]), *(list(p.values()) for p in pairs)], ","),
            "all 23 values",
        ),
    ]
    for path, why in files:
        with pytest.raises(InputError, match=f"{path.name}: these are no relevance judgements .*{why}"):
            judged(tmp_path, path)


def test_results_of_beir_and_ranx_are_judged(tmp_path: Path) -> None:
    """``{query: {document: score}}``, on one line or many, is judged as the same run in TREC's format is."""
    results = {q["query_id"]: {c["id"]: c["score"] for c in q["candidates"]} for q in QUERIES}
    qrels = qrels_file(tmp_path / "qrels.txt")
    expected = judged(tmp_path, qrels).after
    for indent in (None, 2):
        (tmp_path / "run.json").write_text(json.dumps(results, indent=indent))
        assert evaluate(str(tmp_path / "run.json"), [str(qrels)]).after == expected
    (tmp_path / "mteb.json").write_text(json.dumps({"default": {"test": results}}))
    assert evaluate(str(tmp_path / "mteb.json"), [str(qrels)]).after == expected


def test_arrow_files_are_judged_and_judge(tmp_path: Path) -> None:
    """As Parquet does; a query without documents scores 0, a document without an id is told."""
    qrels = qrels_file(tmp_path / "qrels.txt")
    expected = judged(tmp_path, qrels).after
    judgements = [{"query_id": q, "doc_id": d, "relevance": 1} for q, d in RELEVANT.items()]
    lists = [
        {"query_id": q["query_id"], "candidate_ids": [c["id"] for c in q["candidates"]]} for q in QUERIES
    ]
    for name, rows in (
        ("qrels", judgements),
        ("run", lists),
        ("empty", [*lists[1:], lists[0] | {"candidate_ids": []}]),
    ):
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), tmp_path / f"{name}.arrow")
    assert evaluate(str(tmp_path / "run.arrow"), [str(tmp_path / "qrels.arrow")]).after == expected
    assert evaluate(str(tmp_path / "empty.arrow"), [str(qrels)]).after["nDCG@10"]["q0"] == 0
    jsonl(tmp_path / "empty.jsonl", [*lists[1:], lists[0] | {"candidate_ids": None}])
    assert evaluate(str(tmp_path / "empty.jsonl"), [str(qrels)]).after["nDCG@10"]["q0"] == 0
    for path in (
        jsonl(tmp_path / "x.jsonl", [{"query_id": "q0", "candidate_ids": ["a", None]}]),
        tmp_path / "x.arrow",
    ):
        pyarrow.feather.write_feather(
            pa.table({"query_id": ["q0"], "candidate_ids": [["a", ""]]}), tmp_path / "x.arrow"
        )
        with pytest.raises(InputError, match=r"a document's id of query 'q0' is null or empty"):
            evaluate(str(path), [str(qrels)])


def test_what_is_no_ranking_at_all_is_told_for_what_it_is(tmp_path: Path) -> None:
    """An archive, whatever its name, as a ranking and as judgements."""
    run = run_file(tmp_path / "run.trec")
    for name in ("x.jsonl", "x.parquet", "x.arrow", "x.tsv"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("x", "{}")
        for ranking, qrels in ((tmp_path / name, qrels_file(tmp_path / "q.txt")), (run, tmp_path / name)):
            with pytest.raises(InputError, match=rf"{name}, (line|row) 1: the file is a ZIP archive"):
                evaluate(str(ranking), [str(qrels)])


@pytest.mark.anyio
async def test_an_older_mteb_file_is_its_own_qrels(tmp_path: Path) -> None:
    """The file that was ranked judges the ranking."""
    records = [
        {
            "query": q["query"],
            "positive": [q["candidates"][0]["text"]],
            "negative": [c["text"] for c in q["candidates"][1:]],
        }
        for q in QUERIES
    ]
    for data in (jsonl(tmp_path / "test.jsonl", records), parquet(tmp_path / "test.parquet", records)):
        job = make_job(tmp_path, data, out=data.suffix[1:])
        assert (await run(job)).exit_code == 0
        result = evaluate(str(tmp_path / data.suffix[1:]), [str(data)], measures=["NumRel", "RR"])
        assert result.comparisons[0].after == len(QUERIES)
        assert 0 < result.comparisons[1].after <= 1
        assert not result.notes


def test_judged_queries_without_a_ranking_count_unless_left_out(tmp_path: Path) -> None:
    """A failed query is no better than one that scores 0; the note names how many there are."""
    qrels = lines(tmp_path / "q.txt", [("q0", 0, "d0-0", 1), ("lost", 0, "x", 1)], " ")
    result = judged(tmp_path, qrels, measures=["RR"])
    assert (result.comparisons[0].after, len(result.queries)) == (0.5, 2)
    assert result.notes[0].startswith("1 of 2 judged queries have no ranking and score 0")
    assert result.notes[1] == "4 ranked queries are not judged and don't count"
    assert judged(tmp_path, qrels, measures=["RR"], ranked_only=True).comparisons[0].after == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("other", 0, "d", 1)], r"none of the 5 queries of .* is judged by .*\(which judges 'other', ...\)"),
        ([("q0", "Q0", "d", 1, 0.5, "x")], "these are no relevance judgements"),
        ([("q0", 0, "d", 1), ("q0", 0, "d", 2)], "document 'd' of query 'q0' is judged 1 and 2"),
        ([], "no judgement in it"),
    ],
)
def test_wrong_qrels_are_told(tmp_path: Path, rows: list[Any], message: str) -> None:
    """The message says what is wrong with them, never a row of zeros."""
    with pytest.raises(InputError, match=message):
        judged(tmp_path, lines(tmp_path / "q.txt", rows, " "))


def test_documents_of_other_names_are_noticed(tmp_path: Path) -> None:
    """Query ids are often just numbers and fit by chance; document ids then don't."""
    result = judged(tmp_path, lines(tmp_path / "q.txt", [("q0", 0, "elsewhere", 1)], " "))
    assert result.notes[-1] == "no ranked document of any query is judged: are these the right qrels?"


def test_unknown_measures_and_missing_paths_are_told(tmp_path: Path) -> None:
    """Names are ir-measures'; a path that isn't there is named."""
    qrels = qrels_file(tmp_path / "qrels.txt")
    with pytest.raises(JobError, match="no measure is called 'nDGC@10'; some that are: nDCG@10"):
        judged(tmp_path, qrels, measures=["nDGC@10"])
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        judged(tmp_path, tmp_path / "none.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no ranking-\*\.parquet"):
        evaluate(str(tmp_path / "empty"), [str(qrels)])
    with pytest.raises(InputError, match="these are relevance judgements, not a ranking"):
        evaluate(str(qrels), [str(qrels)])


def test_without_ir_measures_the_install_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra names itself."""
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'batchrank\[eval\]'"):
        judged(tmp_path, qrels_file(tmp_path / "qrels.txt"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, -0.1, 0.5, -0.5, 0.3]), min_size=1, max_size=9))
def test_the_test_counts_all_swaps_of_few_queries(differences: list[float]) -> None:
    """For few queries the p-value is the share of all swaps whose mean difference is as large."""
    seen = abs(sum(differences)) - 1e-9
    swaps = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(value >= seen for value in swaps) / len(swaps)
    assert p_value([0.0] * len(differences), differences) == pytest.approx(expected)


def test_the_test_of_many_queries_agrees_with_the_normal_law() -> None:
    """Sampled, repeatable, and close to what theory says for a hundred normal differences."""
    from statistics import NormalDist

    differences = np.random.default_rng(3).normal(0.2, 1.0, 100)
    p = p_value(np.zeros(100).tolist(), differences.tolist())
    z = differences.sum() / np.sqrt((differences**2).sum())
    assert p == p_value(np.zeros(100).tolist(), differences.tolist())
    assert p == pytest.approx(2 * (1 - NormalDist().cdf(abs(z))), abs=0.015)
    assert p_value([0.0] * 200, [1.0] * 200) == 1 / 20_001
    assert p_value([1.0] * 50, [1.0] * 50) == 1.0


@pytest.mark.anyio
async def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    """Means before and after with the test, each query's values with -q, and the same as JSON."""
    qrels = str(qrels_file(tmp_path / "qrels.txt"))
    out = str(await _output(tmp_path, "parquet"))
    shown = CliRunner().invoke(app, ["eval", out, "--qrels", qrels])
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == ["measure", *DEFAULT]
    header = ["measure", "before", "after", "difference", "p", "better", "worse", "same"]
    assert shown.stdout.splitlines()[1].split() == header
    data = json.loads(
        CliRunner().invoke(app, ["eval", out, "--qrels", qrels, "-q", "-m", "RR", "--json"]).stdout
    )
    assert data["queries"] == 5
    assert data["measures"]["RR"]["before"] == 0.125
    assert data["per_query"]["q0"]["RR"]["before"] == 0.125
    each = CliRunner().invoke(app, ["eval", out, "--qrels", qrels, "-q", "-m", "P@5"]).stdout
    assert [line.split()[0] for line in each.splitlines()[1:6]] == [f"q{i}" for i in range(5)]
