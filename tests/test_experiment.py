"""``batchrank eval`` of several runs: each against the first, p-values corrected for their number."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import batchrank

from batchrank.errors import InputError, JobError
from batchrank.quality.chart import draw
from batchrank.quality.experiment import experiment
from batchrank.quality.judgements import evaluate
from batchrank.quality.measures import holm


def test_holm_gives_the_values_of_r() -> None:
    """Those of R's p.adjust(p, "holm"), in the order of the tests."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.5, 0.9]) == [1, 1] and holm([0.03]) == [0.03] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=100)
def test_holm_rejects_what_the_procedure_rejects(values: list[float]) -> None:
    """Step by step: the smallest against 0.05 / m, the next against 0.05 / (m - 1), until one fails."""
    rejected = set()
    for left, index in zip(range(len(values), 0, -1), np.argsort(values, kind="stable"), strict=True):
        if values[index] * left >= 0.05:
            break
        rejected.add(int(index))
    assert {i for i, p in enumerate(holm(values)) if p < 0.05} == rejected


def runs(folder: Path, places: dict[str, list[int]]) -> list[str]:
    """Runs that rank the relevant document of each query at a place, or not at all (0), and their qrels."""
    count = len(next(iter(places.values())))
    (folder / "qrels.txt").write_text("".join(f"q{q} 0 good 1\n" for q in range(count)))
    for name, ranks in places.items():
        lines = [
            f"q{q} Q0 {'good' if i == place else f'd{i}'} {i} {-i} {name}\n"
            for q, place in enumerate(ranks)
            if place
            for i in range(1, 12)
        ]
        (folder / name).write_text("".join(lines))
    return [str(folder / name) for name in places]


PLACES = {"one": [5, 4, 3, 6, 9, 2, 8, 7], "two": [1, 1, 1, 1, 1, 1, 1, 1], "three": [5, 4, 3, 6, 8, 2, 9, 7]}


def test_each_is_judged_as_alone_and_tested_against_the_first(tmp_path: Path) -> None:
    """The values of one run by itself, and the p of the two by themselves; only the correction knows of the others."""
    paths, qrels = runs(tmp_path, PLACES), [str(tmp_path / "qrels.txt")]
    found = experiment(paths, qrels, measures=["RR", "nDCG@10"])
    for run in found.runs:
        alone = evaluate(run.path, qrels, measures=["RR", "nDCG@10"], before=paths[0])
        assert run.values == alone.after
        if run.path != paths[0]:
            assert list(run.comparisons) == list(alone.comparisons)
    assert found.runs[0].corrected == {} and found.runs[0].comparisons[0].p_value is None
    two, three = found.runs[1:]
    p = [one.comparisons[0].p_value for one in (two, three)]
    assert p == [2 / 2**8, 1.0]  # of all 256 swaps only none and all are as large
    assert (two.corrected["RR"], three.corrected["RR"]) == (2 * 2 / 2**8, 1.0)


def test_ranked_only_keeps_what_all_rank(tmp_path: Path) -> None:
    """A paired test needs the same queries; otherwise a run scores 0 where it ranks nothing, and the note says so."""
    paths = runs(tmp_path, {"one": [1, 1, 0, 2], "two": [0, 1, 1, 1]})
    qrels = [str(tmp_path / "qrels.txt")]
    strict = experiment(paths, qrels, measures=["RR"])
    assert [run.comparisons[0].after for run in strict.runs] == [2.5 / 4, 0.75]
    assert len(strict.notes) == 2 and all("score 0" in note for note in strict.notes)
    some = experiment(paths, qrels, measures=["RR"], ranked_only=True)
    assert (list(some.queries), [run.comparisons[0].after for run in some.runs]) == (["q1", "q3"], [0.75, 1])
    assert "2 of 4 judged queries are ranked by all runs" in some.notes[-1]
    apart = runs(tmp_path, {"one": [1, 0], "two": [0, 1]})
    with pytest.raises(InputError, match="ranked by all runs"):
        experiment(apart, qrels, ranked_only=True)


def test_the_command_shows_a_table_json_and_a_picture(tmp_path: Path) -> None:
    """A line for each measure and run; one run alone is shown as ever."""
    runs(tmp_path, PLACES)
    words = ("--qrels", "qrels.txt", "-m", "RR")
    shown = batchrank("eval", "one", "two", "three", *words, "--plot", "q.svg", cwd=tmp_path).stdout.decode()
    table = [line.split() for line in shown.splitlines()[2:]]
    assert table[0][:2] == ["RR", "one"] and table[1][0] == "two" and table[1][-3:] == ["8", "0", "0"]
    picture = (tmp_path / "q.svg").read_text()
    assert "two: 8 better, 0 worse, 0 the same" in picture and "three: 1 better, 1 worse" in picture
    data = json.loads(batchrank("eval", "one", "two", *words, "--json", "-q", cwd=tmp_path).stdout)
    assert [run["run"] for run in data["runs"]] == ["one", "two"]
    assert data["runs"][1]["measures"]["RR"]["p_holm"] == data["runs"][1]["measures"]["RR"]["p_value"]
    assert data["runs"][1]["per_query"]["q0"] == {"RR": 1}
    alone = json.loads(batchrank("eval", "one", *words, "--json", cwd=tmp_path).stdout)
    assert set(alone) == {"queries", "measures", "notes"} and alone["measures"]["RR"]["before"] is None
    pair = batchrank("eval", "two", "--before", "one", *words, "--plot", "p.png", cwd=tmp_path)
    assert pair.returncode == 0 and (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("one", "two", "--before", "three"), 2, b"compared with the first"),
        (("one", "none"), 4, b"none: no such file"),
        (("one", "--plot", "q.svg"), 2, b"nothing to compare with"),
        (("one", "two", "--plot", "q.docx"), 2, b"name a .svg, .png or .pdf"),
        (("one", "two", "--plot", "no/q.svg"), 1, b"can't be written"),
    ],
)
def test_what_can_not_be_shown_is_told(
    tmp_path: Path, words: tuple[str, ...], code: int, said: bytes
) -> None:
    """With the code of its kind."""
    runs(tmp_path, PLACES)
    done = batchrank("eval", *words, "--qrels", "qrels.txt", cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_picture_of_many_queries_names_none(tmp_path: Path) -> None:
    """They would be a black bar; a few are named, long names in part."""
    many = {f"query-{i}": i / 100 for i in range(100)}
    draw(tmp_path / "many.svg", "RR", {"x": (dict.fromkeys(many, 0.5), many)})
    text = (tmp_path / "many.svg").read_text()
    assert "query-7" not in text and "49 better, 50 worse, 1 the same" in text
    few = {"n" * 90: 1.0}
    draw(tmp_path / "few.svg", "RR", {"x": (dict.fromkeys(few, 0.5), few)})
    assert (
        "n" * 30 in (tmp_path / "few.svg").read_text() and "n" * 31 not in (tmp_path / "few.svg").read_text()
    )
    with pytest.raises(JobError, match=r"no picture ends in"):
        draw(tmp_path / "few", "RR", {"x": (few, few)})
