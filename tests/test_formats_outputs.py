"""The outputs of the field: rank_llm, mteb's predictions, MS MARCO."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from batchrank.data import Image, Query
from batchrank.errors import OutputError
from batchrank.job.sections import Output
from batchrank.outcomes import Merged, QueryCost, Ranking
from batchrank.write.writer import Writer

SCORES = np.array([2.5, 1.5, 1.5, 0.25])
IDS = ["b", "z", "a", "c", "blank"]


def ranking(query_id: str, ids: list[str]) -> Ranking:
    """Four scored documents, two of them tied, and a fifth that was never sent."""
    query = Query(query_id, "text", ids, ["A", "Z", "\ud800 is alone", Image("https://x/y.png"), ""])
    merged = Merged(np.arange(4), SCORES, SCORES, 2, "single")
    return Ranking.of(query, merged, QueryCost(1, 1, 4, 10, None), texts=True)


def write(folder: Path, format: str, *rankings: Ranking, top_n: int | None = None) -> list[str]:
    output = Output.model_validate({"path": str(folder), "format": format, "top_n": top_n})
    writer = Writer(output)
    try:
        writer.sweep()
        for one in rankings:
            writer.write(one)
        writer.close()
    finally:
        writer.abort()
    return sorted(path.name for path in folder.iterdir())


def test_an_ms_marco_run_has_three_columns(tmp_path: Path) -> None:
    """Query, document and rank from 1, with tabs between."""
    names = write(tmp_path, "msmarco", ranking("q", IDS), ranking("r", IDS), top_n=2)
    assert names == ["queries-00000.jsonl", "ranking-00000.tsv"]
    assert (tmp_path / "ranking-00000.tsv").read_text() == "q\tb\t1\nq\tz\t2\nr\tb\t1\nr\tz\t2\n"


def test_rank_llm_lines_have_its_names(tmp_path: Path) -> None:
    """``query`` of ``text`` and ``qid``; candidates of ``docid``, ``score`` (strictly falling) and ``doc``."""
    write(tmp_path, "rank_llm", ranking("q", IDS))
    record = orjson.loads((tmp_path / "ranking-00000.jsonl").read_bytes())
    assert record["query"] == {"text": "text", "qid": "q"}
    assert [c["docid"] for c in record["candidates"]] == IDS
    assert [c["doc"]["text"] for c in record["candidates"]] == ["A", "Z", "? is alone", "", ""]
    scores = [c["score"] for c in record["candidates"]]
    assert scores == sorted(set(scores), reverse=True)


def test_predictions_are_one_object_that_mteb_sorts_into_the_same_order(tmp_path: Path) -> None:
    """One file whatever its size, below ``default`` and ``test``; mteb sorts by score: it gets the order given."""
    names = write(tmp_path, "mteb", *(ranking(f'q"{i}', IDS) for i in range(5)))
    assert names == ["queries-00000.jsonl", "ranking-00000.json"]
    data = orjson.loads((tmp_path / "ranking-00000.json").read_bytes())
    assert data["mteb_model_meta"]["model_name"] == "batchrank"
    found = data["default"]["test"]
    assert list(found) == [f'q"{i}' for i in range(5)]
    for scores in found.values():
        assert sorted(scores, key=scores.__getitem__, reverse=True) == IDS
        assert len({np.float32(value) for value in scores.values()}) == len(IDS)


@pytest.mark.parametrize("ids", [["a b"], ["a\tb"], [""]])
def test_ms_marco_refuses_ids_that_part_its_columns(tmp_path: Path, ids: list[str]) -> None:
    """No reader could tell the columns apart; the message says what to choose instead."""
    with pytest.raises(OutputError, match=r"white space.*output\.format: parquet or jsonl"):
        write(tmp_path, "msmarco", ranking("q", [*ids, *IDS[1:]]))


def test_another_formats_parts_are_swept(tmp_path: Path) -> None:
    """A job whose format was changed leaves no parts of the old one."""
    for format in ("msmarco", "mteb", "rank_llm", "trec"):
        names = write(tmp_path, format, ranking("q", IDS))
        assert len(names) == 2
