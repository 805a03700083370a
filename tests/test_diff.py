"""``batchrank diff``: what two outputs have in common, whatever wrote them."""

import json
from pathlib import Path
from typing import Any

import pytest
from field_data import QUERIES, jsonl, run_file
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import make_job, run
from peak_memory import LINUX, Peak
from test_cli import batchrank

from batchrank.errors import InputError
from batchrank.quality.diff import diff
from batchrank.quality.measures import churn, common_tau

ids = st.lists(st.sampled_from([f"d{i}" for i in range(14)]), unique=True, max_size=12)


@given(first=ids, second=ids)
@settings(max_examples=200)
def test_tau_over_common_documents_is_scipys(first: list[str], second: list[str]) -> None:
    """What one ranking lacks doesn't count; of fewer than two common documents nothing can be told."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    common = [name for name in first if name in second]
    value = common_tau(first, second)
    if len(common) < 2:
        assert value is None
    else:
        assert value == pytest.approx(
            kendalltau(range(len(common)), [second.index(c) for c in common]).statistic
        )


def test_churn_is_the_share_of_exchanged_documents() -> None:
    """Whatever their order; of shorter rankings a share of what there is."""
    assert churn("abcde", "edcba", 5) == 0
    assert churn("abcde", "abxyz", 5) == 0.6
    assert churn("abc", "bac", 1) == 1
    assert churn("ab", "abcd", 10) == 0.5
    assert churn("", "", 10) == 0


def write(path: Path, run: dict[str, str]) -> str:
    """A TREC run with a letter for each document."""
    lines = [f"{q} Q0 {d} {r} {-r} x\n" for q, docs in run.items() for r, d in enumerate(docs, 1)]
    path.write_text("".join(lines))
    return str(path)


def test_every_figure_is_that_of_the_queries_of_both(tmp_path: Path) -> None:
    """Means, the worst and how many changed; what only one output ranks is counted and named."""
    first = write(tmp_path / "a.trec", {"q1": "abcde", "q2": "abcde", "q3": "abcde", "old": "ab"})
    second = write(
        tmp_path / "b.trec", {"new1": "a", "q3": "vwxyz", "q2": "bacde", "q1": "abcde", "new2": "a"}
    )
    found = diff(first, second, cutoffs=(1, 5))
    assert (found.queries, [one.queries for one in found.outputs]) == (3, [4, 5])
    # The rbo package gives 0.9 for abcde against bacde: the top rank's tenth is lost, as they agree from rank 2 on.
    assert (found.rbo.mean, found.rbo.worst, found.rbo.changed) == (round(1.9 / 3, 6), 0, 2)
    assert (found.tau.mean, found.tau.worst, found.tau.changed) == (0.9, 0.8, 1)
    assert {k: (f.mean, f.worst, f.changed) for k, f in found.churn.items()} == {
        1: (round(2 / 3, 6), 1, 2),
        5: (round(1 / 3, 6), 1, 1),
    }
    assert [(one.query_id, one.tau, one.first) for one in found.moved] == [
        ("q3", None, ("a", "v")),
        ("q2", 0.8, ("a", "b")),
    ]
    assert found.only == ((1, ["old"]), (2, ["new1", "new2"]))


def test_a_run_whose_lines_are_mixed_up_is_the_same_run(tmp_path: Path) -> None:
    """A query's lines need not stand together, as they needn't for `eval`; none of them is lost."""
    path = write(tmp_path / "a.trec", {"q1": "abcde", "q2": "vwxyz"})
    lines = Path(path).read_text().splitlines(keepends=True)
    (tmp_path / "b.trec").write_text("".join(lines[0::2] + lines[1::2]))
    found = diff(path, str(tmp_path / "b.trec"))
    assert (found.queries, found.rbo.mean, found.moved, found.churn[5].mean) == (2, 1, [], 0)


async def _output(tmp_path: Path, out: str, **sections: Any) -> str:
    data = jsonl(tmp_path / "in.jsonl", QUERIES)
    sections["output"] = {"path": out} | sections.get("output", {})
    assert (await run(make_job(tmp_path, data, out=out, **sections))).exit_code == 0
    return str(tmp_path / out)


@pytest.mark.anyio
async def test_outputs_are_alike_whatever_their_format(tmp_path: Path) -> None:
    """Those of every format that a job writes."""
    first = await _output(tmp_path, "parquet")
    for format in ("jsonl", "trec", "rank_llm", "mteb", "msmarco"):
        found = diff(first, await _output(tmp_path, format, output={"format": format}))
        assert (found.queries, found.rbo.mean, found.tau.mean, found.rbo.changed) == (5, 1, 1, 0), format


@pytest.mark.anyio
async def test_jobs_are_told_with_their_cost_and_depth(tmp_path: Path) -> None:
    """As their summaries tell it; a run that is no job's has only its queries."""
    first = await _output(tmp_path, "hub", merge={"top_k": 7})
    second = await _output(tmp_path, "raw", model="gte-rerank-v2", merge={"method": "raw", "top_k": 3})
    found = diff(first, second)
    one, two = found.outputs
    assert (one.model, one.method, one.top_k) == ("qwen3-rerank", "hub", 7)
    assert (two.model, two.method, two.top_k) == ("gte-rerank-v2", "raw", 3)
    assert one.cost and two.cost and one.currency == "CNY" and one.tokens
    assert list(found.churn) == [1, 3, 5, 7, 10]
    bare = diff(str(run_file(tmp_path / "run.trec")), first)
    assert (bare.outputs[0].queries, bare.outputs[0].cost, list(bare.churn)) == (5, None, [1, 5, 7, 10])


def test_depth_bounds_what_is_compared(tmp_path: Path) -> None:
    """Below it nothing counts."""
    first = write(tmp_path / "a.trec", {"q1": "abcde"})
    second = write(tmp_path / "b.trec", {"q1": "abxyz"})
    assert diff(first, second, depth=2).rbo.mean == 1
    assert (diff(first, second).rbo.mean or 1) < 1


def test_outputs_without_a_common_query_are_refused(tmp_path: Path) -> None:
    """With some ids of either, so that it shows why."""
    first, second = write(tmp_path / "a.trec", {"q1": "ab"}), write(tmp_path / "b.trec", {"1": "ab"})
    with pytest.raises(InputError, match=r"no query of .*'q1' against '1'"):
        diff(first, second)
    with pytest.raises(InputError, match="no such file"):
        diff(first, str(tmp_path / "none"))


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    """The same figures; a mistake is exit code 2 or 4."""
    write(tmp_path / "a.trec", {"q1": "abcde", "q2": "abcde", "q3": "ab"})
    write(tmp_path / "b.trec", {"q1": "bacde", "q2": "abcde"})
    shown = batchrank("diff", "a.trec", "b.trec", cwd=tmp_path).stdout.decode()
    assert "2 queries of both" in shown and "only in A: 1 query: q3" in shown
    moved = shown.split("moved most")[1].splitlines()[1:]
    assert [line.split() for line in moved] == [["q1", "0.9000", "0.8000", "0.0%", "a", "b"]]
    data = json.loads(batchrank("diff", "a.trec", "b.trec", "--json", "-k", "2", cwd=tmp_path).stdout)
    assert data["rbo"]["mean"] == 0.95 and list(data["churn"]) == ["2"]
    assert data["moved"] == [
        {"query_id": "q1", "rbo": 0.9, "tau": 0.8, "churn": {"2": 0}, "first": ["a", "b"]}
    ]
    assert batchrank("diff", "a.trec", "none", cwd=tmp_path).returncode == 4
    assert batchrank("diff", "a.trec", "b.trec", "--persistence", "1", cwd=tmp_path).returncode == 2


@LINUX
@pytest.mark.slow
def test_memory_does_not_grow_with_the_outputs(tmp_path: Path) -> None:
    """Of 15,000 queries the documents' names alone would take 100 MiB of strings, of either output."""

    def made(name: str, queries: int) -> str:
        path = tmp_path / name
        with path.open("w") as file:
            file.writelines(
                f"q{q} Q0 document-{q}-{d} {d} {-d} x\n" for q in range(queries) for d in range(50)
            )
        return str(path)

    def grown(queries: int) -> int:
        first, second = made("a.trec", queries), made("b.trec", queries)
        peak = Peak()
        found = diff(first, second)
        assert (found.queries, found.rbo.changed) == (queries, 0)
        return peak.grown()

    small, large = grown(1_000), grown(15_000)
    assert large < small + 48
