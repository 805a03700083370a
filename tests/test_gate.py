"""The quality gate: what two rankings have in common, and a run that drifted too far."""

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import make_job, outputs, rankings, rows, run, write_jsonl
from test_cli import batchrank, job_file

from batchrank.errors import JobError
from batchrank.job.sections import Gate
from batchrank.quality.gate import Baseline, judge, keep
from batchrank.quality.measures import kendall_tau, rbo
from batchrank.quality.rankings import tops

ids = st.lists(st.sampled_from([f"d{i}" for i in range(14)]), unique=True, max_size=12)


def test_rbo_of_published_examples() -> None:
    """Values that the rbo package gives for the paper's figure 5, and for lists used in its literature."""
    assert rbo(list("abcdefg"), list("zcavwxy"), 0.9) == pytest.approx(0.28821728571428573)
    assert rbo(list("12345"), list("23415"), 0.9) == pytest.approx(0.828)
    assert rbo(list("bacde"), list("abced"), 0.9) == pytest.approx(0.881775)
    assert rbo(list("abc"), list("abcdefg"), 0.9) == pytest.approx(1)
    assert rbo(list("a"), list("a"), 0.9) == 1


@given(first=ids, second=ids, p=st.floats(0.05, 0.99))
@settings(max_examples=200)
def test_rbo_is_a_similarity(first: list[str], second: list[str], p: float) -> None:
    """Between 0 and 1, symmetric, 1 for the same ranking, 0 for nothing in common."""
    value = rbo(first, second, p)
    assert -1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(rbo(second, first, p))
    assert rbo(first, first, p) == pytest.approx(1)
    if not set(first) & set(second) and (first or second):
        assert value == 0


@given(first=ids.filter(len), p=st.floats(0.1, 0.9), seed=st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_rbo_is_the_sum_it_stands_for(first: list[str], p: float, seed: Any) -> None:
    """Of lists of one length: (1 - p) times the sum of p^(d-1) times the agreement, the last one going on for ever."""
    second = seed.sample([*first, *(f"x{i}" for i in range(5))], len(first))
    total = 0.0
    for d in range(1, 2000):
        depth = min(d, len(first))
        total += p ** (d - 1) * len(set(first[:depth]) & set(second[:depth])) / depth
    assert rbo(first, second, p) == pytest.approx((1 - p) * total)


@given(first=ids, second=ids)
@settings(max_examples=200)
def test_tau_is_scipys(first: list[str], second: list[str]) -> None:
    """Tau-b over the documents of both, those that a ranking lacks tied below its end."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    value = kendall_tau(first, second)
    names = list(dict.fromkeys([*first, *second]))
    ranks = [[r.index(n) if n in r else len(r) for n in names] for r in (first, second)]
    known = kendalltau(*ranks).statistic if len(names) > 1 else math.nan
    if first == second:
        assert value == 1
    elif math.isnan(known):
        assert value == 0
    else:
        assert value == pytest.approx(known)


def test_the_judgement_names_what_moved_most(tmp_path: Path) -> None:
    """Means over the queries of both runs; those of one only are counted."""
    write_jsonl(tmp_path / "summary.json", [{"complete": True}])
    lines = [{"query_id": f"q{i}", "doc_id": d} for i in range(5) for d in "abcd"]
    write_jsonl(tmp_path / "ranking-00000.jsonl", lines)
    path = keep(tmp_path)
    assert path is not None
    now = [(f"q{i}", list("abcd")) for i in range(1, 6)]
    now[1] = ("q2", list("wxyz"))
    with Baseline(path) as baseline:
        found = judge(Gate(min_rbo=0.9, min_tau=0.9), now, baseline)
    assert not found.passed
    assert (found.compared, found.appeared, found.vanished) == (4, 1, 1)
    assert found.rbo == 0.75
    assert [one.query_id for one in found.moved] == ["q2"]
    assert (
        "gate.min_rbo" in found.reasons[0]
        and "gate.min_tau" in found.reasons[1]
        and "'q2'" in found.reasons[2]
    )


def reversed_texts(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same ids with each other's texts, so that the model ranks them otherwise."""
    for row in data:
        texts = [candidate["text"] for candidate in row["candidates"]]
        for candidate, text in zip(row["candidates"], reversed(texts), strict=True):
            candidate["text"] = text
    return data


@pytest.mark.anyio
@pytest.mark.parametrize("format", ["parquet", "jsonl", "trec"])
async def test_a_night_that_drifted_is_written_but_marked(tmp_path: Path, format: str) -> None:
    """Exit code 5 until it is accepted; what it is compared with stays the last run that passed."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(6, 23))
    sections: dict[str, Any] = {"gate": {"min_rbo": 0.9, "depth": 5}, "output": {"format": format}}
    first = await run(make_job(tmp_path, path, **sections))
    assert first.exit_code == 0
    assert any("no earlier run" in notice for notice in first.data["notices"])
    same = await run(make_job(tmp_path, path, **sections))
    assert (same.exit_code, same.data["gate"]["rbo"], same.data["gate"]["compared"]) == (0, 1.0, 6)
    write_jsonl(path, reversed_texts(rows(6, 23)))
    out = tmp_path / "out"
    for _ in range(2):
        drifted = await run(make_job(tmp_path, path, **sections))
        assert (drifted.exit_code, drifted.data["gate"]["passed"]) == (5, False)
        assert len(drifted.data["gate"]["moved"]) > 0
        summary = orjson.loads((out / "summary.json").read_bytes())
        assert summary["complete"] and summary["exit_code"] == 5
        assert orjson.loads((out / "gate-failed.json").read_bytes())["rbo"] < 0.9
    assert outputs(make_job(tmp_path, path, **sections))
    (out / "gate-failed.json").unlink()
    accepted = await run(make_job(tmp_path, path, **sections))
    assert (accepted.exit_code, accepted.data["gate"]["rbo"]) == (0, 1.0)
    assert any("gate: passed: rank-biased overlap 1.0000" in notice for notice in accepted.data["notices"])


@pytest.mark.anyio
async def test_quality_is_judged_where_there_are_judgements(tmp_path: Path) -> None:
    """nDCG at the depth, of this run and of the one before, against a floor and a drop."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(4, 23))
    job = make_job(tmp_path, path)
    await run(job)
    best = "".join(f"{row['query_id']} 0 {row['ranking'][0]['doc_id']} 1\n" for row in rankings(job))
    (tmp_path / "qrels.txt").write_text(best)
    gate = {"qrels": "qrels.txt", "min_ndcg": 0.99, "max_ndcg_drop": 0.01, "min_rbo": None}
    good = await run(make_job(tmp_path, path, gate=gate))
    assert (good.exit_code, good.data["gate"]["ndcg"], good.data["gate"]["ndcg_before"]) == (0, 1.0, 1.0)
    write_jsonl(path, reversed_texts(rows(4, 23)))
    bad = await run(make_job(tmp_path, path, gate=gate))
    assert bad.exit_code == 5 and bad.data["gate"]["ndcg"] < 0.99
    told = " ".join(bad.data["gate"]["reasons"])
    assert "gate.min_ndcg" in told and "gate.max_ndcg_drop" in told


@pytest.mark.anyio
async def test_another_jobs_output_can_be_the_measure(tmp_path: Path) -> None:
    """gate.against; what isn't there can't be kept to, so the gate is not passed."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(4, 23))
    await run(make_job(tmp_path, path, out="gold"))
    like = await run(make_job(tmp_path, path, gate={"against": "gold"}))
    assert (like.exit_code, like.data["gate"]["rbo"]) == (0, 1.0)
    missing = await run(make_job(tmp_path, path, out="other", gate={"against": "nowhere"}))
    assert missing.exit_code == 5 and "nowhere" in missing.data["gate"]["reasons"][0]


def test_a_gate_that_can_not_work_is_told_at_once(tmp_path: Path) -> None:
    """Before anything is read."""
    write_jsonl(tmp_path / "in.jsonl", rows(1, 3))
    for keys in ({"gate": {"min_ndcg": 0.5}}, {"gate": {}, "output": {"path": "-"}}):
        done = batchrank("run", job_file(tmp_path, **keys), cwd=tmp_path)
        assert done.returncode == JobError.exit_code and b"gate" in done.stderr, done.stderr


@pytest.mark.slow
def test_the_command_says_which_queries_moved(tmp_path: Path) -> None:
    """On stderr, with the exit code that a scheduler sees; status tells it as well."""
    path = write_jsonl(tmp_path / "in.jsonl", rows(4, 23))
    job_file(tmp_path, gate={"min_rbo": 0.95})
    assert batchrank("run", "job.yaml", cwd=tmp_path).returncode == 0
    write_jsonl(path, reversed_texts(rows(4, 23)))
    done = batchrank("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert b"queries that moved most" in done.stderr and b"gate-failed.json" in done.stderr
    assert b"batchrank gate accept out" in done.stderr
    assert b"exit code 5" in batchrank("status", "out", cwd=tmp_path).stdout


def test_tops_hold_one_query_at_a_time(tmp_path: Path) -> None:
    """Each query once, in order, however its rows are divided."""
    write_jsonl(tmp_path / "ranking-00000.jsonl", [{"query_id": "a", "doc_id": d} for d in "wxyz"])
    write_jsonl(tmp_path / "ranking-00001.jsonl", [{"query_id": "b", "doc_id": d} for d in "wx"])
    assert list(tops(str(tmp_path), 3)) == [("a", ["w", "x", "y"]), ("b", ["w", "x"])]
