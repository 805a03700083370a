"""Judgements and ids that trec_eval's C code can't hold: the process lives, and all other values are trec_eval's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from field_data import lines
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrank.errors import InputError, JobError
from batchrank.job.sections import Gate
from batchrank.quality.gate import judge
from batchrank.quality.judgements import evaluate
from batchrank.quality.measures import Measures

OFFICIAL = {
    "nDCG@10": "ndcg_cut_10", "AP": "map", "R@100": "recall_100", "P@5": "P_5", "RR": "recip_rank",
    "Bpref": "bpref", "Rprec": "Rprec", "Success@5": "success_5",
}  # fmt: skip
JUDGED = st.dictionaries(st.sampled_from("abcdef"), st.integers(-5, 3), min_size=1)
RANKED = st.lists(st.sampled_from("abcdefgh"), unique=True)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries({"q1": JUDGED, "q2": JUDGED}), st.fixed_dictionaries({"q1": RANKED, "q2": RANKED})
)
def test_negative_relevances_give_trec_evals_values(
    judged: dict[str, dict[str, int]], ranked: dict[str, Sequence[str]]
) -> None:
    """Beside others they are what trec_eval takes them for; where all are negative nothing is relevant, so all is 0."""
    import pytrec_eval

    found = Measures(list(OFFICIAL), judged).per_query(ranked, list(judged))
    for query in judged:
        if max(judged[query].values()) < 0 or not ranked[query]:
            assert {values[query] for values in found.values()} == {0.0}
            continue
        scores = {d: float(-rank) for rank, d in enumerate(ranked[query])}
        trec = pytrec_eval.RelevanceEvaluator({query: judged[query]}, set(OFFICIAL.values()))
        expected = trec.evaluate({query: scores})[query]
        for ours, theirs in OFFICIAL.items():
            assert found[ours][query] == pytest.approx(expected[theirs], abs=1e-9)


def test_eval_and_gate_survive_a_query_with_nothing_but_spam(tmp_path: Path) -> None:
    """TREC's web tracks judge spam -2: a query that has only such judgements scores 0."""
    qrels = lines(tmp_path / "q.txt", [("q1", 0, "a", -2), ("q1", 0, "b", -3), ("q2", 0, "c", 1)], " ")
    ranking = lines(
        tmp_path / "r.trec", [("q1", "Q0", "a", 1, 2.0, "x"), ("q2", "Q0", "c", 1, 2.0, "x")], " "
    )
    found = evaluate(str(ranking), [str(qrels)], measures=["nDCG@10", "P@5", "Bpref", "Judged@10"])
    assert found.after["nDCG@10"] == {"q1": 0.0, "q2": 1.0}
    assert found.after["Judged@10"] == {"q1": 1.0, "q2": 1.0}
    gated = judge(Gate(qrels=(str(qrels),), min_ndcg=0.4), [("q1", ["a"]), ("q2", ["c"])], None)
    assert (gated.passed, gated.ndcg) == (True, 0.5)


@pytest.mark.parametrize("ids", [("a\ud800", "b\ud800"), ("a\0b", "a\0c")], ids=["surrogate", "nul"])
def test_ids_that_c_can_not_hold_are_told_apart(ids: tuple[str, str]) -> None:
    """Half a surrogate pair, as JSON may carry, and a NUL, at which C would cut the id."""
    relevant, other = ids
    found = Measures(["RR"], {relevant: {relevant: 1}}).per_query({relevant: [other, relevant]}, [relevant])
    assert found["RR"] == {relevant: 0.5}


@pytest.mark.parametrize("relevance", [2**31, 2**40, 2**62, 2**63, 10**30])
def test_a_relevance_beyond_any_scale_is_told(relevance: int) -> None:
    """A timestamp or an id in the wrong column, rather than a crash or a wrong value; the message names the record."""
    with pytest.raises(InputError, match=f"query 'q', document 'a': a relevance of {relevance} is more"):
        Measures(["nDCG@10"], {"q": {"a": relevance, "b": -(10**30)}})


def test_a_query_without_a_document_counts_as_ranked_in_vain() -> None:
    """Nothing was ranked for it, so nothing was found."""
    names = ["nDCG@10", "P@5", "Bpref", "Success@5", "Judged@10"]
    found = Measures(names, {"q": {"a": 1}}).per_query({"q": []}, ["q"])
    assert {values["q"] for values in found.values()} == {0.0}


@pytest.mark.parametrize(
    ("name", "message"), [("nDCG@0", "looks at no rank"), ("P@-1", "eval"), ("AP(rel=0)", "positive")]
)
def test_a_measure_that_can_not_be_computed_is_told(name: str, message: str) -> None:
    """A cutoff of nothing, or all counted as relevant: an error of the command, never the end of the process."""
    qrels: dict[str, Any] = {"q": {"a": 1}}
    with pytest.raises(JobError, match=message):
        Measures([name], qrels).per_query({"q": ["a"]}, ["q"])
