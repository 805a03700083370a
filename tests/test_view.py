"""Looking at rankings: every format, unfinished runs, texts from wherever they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from jobs import make_job, rankings, rows, run, write_jsonl
from rich.console import Console
from test_cli import batchrank

from batchrank.cli.view import view
from batchrank.errors import InputError
from batchrank.job.config import Job
from batchrank.ledger.ledger import Ledger
from batchrank.look.explain import explain
from batchrank.look.rankings import Rankings
from batchrank.look.source import Origin
from batchrank.look.view import Views

pytestmark = pytest.mark.anyio
FORMATS = ["jsonl", "parquet", "trec", "rank_llm", "mteb", "msmarco"]


async def finished(folder: Path, data: list[Any], *overrides: str, **sections: Any) -> Job:
    job = make_job(folder, write_jsonl(folder / "in.jsonl", data), *overrides, **sections)
    await run(job)
    return job


@pytest.mark.parametrize("format", FORMATS)
async def test_every_format_shows_the_same(tmp_path: Path, format: str) -> None:
    """Ranks before and after and texts; the scores that the format holds. Another program's reading is that of JSON."""
    data = rows(5, 24)
    data[2]["query_id"] = "q1"  # a failure, so that positions in input and output differ
    data[3]["query_id"] = 'q"3'
    job = await finished(tmp_path, data)
    known = {row["query_id"]: row for row in rankings(job)}
    other = await finished(tmp_path, data, out="other", output={"format": format})
    assert other.output is not None
    views = Views(Path(other.output.path))
    assert [one.query_id for one in views.first(9)] == list(known) == ["q0", "q1", 'q"3', "q4"]
    texts = {one["id"]: one["text"] for row in data for one in row["candidates"]}
    for name, row in known.items():
        found = views.one(name)
        assert found.certified == row["merge"]["certified"]
        told = [(d.rank, d.doc_id, d.before, d.text) for d in found.documents]
        assert told == [
            (e["rank"], e["doc_id"], e["first_stage_rank"], texts[e["doc_id"]]) for e in row["ranking"]
        ]
        if format in ("jsonl", "parquet"):
            assert [d.score for d in found.documents] == [e["score"] for e in row["ranking"]]
        else:
            scores = [d.score for d in found.documents if d.score is not None]
            assert len(scores) == (0 if format == "msmarco" else 24)
            assert scores == sorted(scores, reverse=True)
    assert views.notes == []


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_many_parts_are_searched(tmp_path: Path, format: str) -> None:
    """The last query's ranking stands in the last part, of which nothing else is read."""
    data = rows(12, 24)
    job = make_job(
        tmp_path, write_jsonl(tmp_path / "in.jsonl", data), output={"format": format, "part_documents": 48}
    )
    await run(job)
    folder = tmp_path / "out"
    found = Rankings(folder)
    assert len(found.folder.parts()) > 3
    assert list(found.ids()) == [f"q{n}" for n in range(12)]
    for name in ("q0", "q7", "q11"):
        rows_ = found.required(name).rows
        assert [row.rank for row in rows_] == list(range(1, 25)) and rows_[0].doc_id.startswith(
            f"d{name[1:]}-"
        )


async def test_an_unknown_query_is_told_with_those_that_are_alike(tmp_path: Path) -> None:
    """So is why a query failed."""
    data = [*rows(3, 4), {"query_id": "blank", "query": " ", "candidates": ["a"]}]
    await finished(tmp_path, data)
    views = Views(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"query 'q7': no ranking of it in .*did you mean 'q2', 'q1', 'q0'\\?"
    ):
        views.one("q7")
    with pytest.raises(InputError, match=r"its queries begin with 'q0', 'q1', 'q2'"):
        views.one("something else")
    with pytest.raises(InputError, match=r"query 'blank' has no ranking: empty-query"):
        views.one("blank")
    with pytest.raises(InputError, match="name the output folder"):
        Views(tmp_path)
    with pytest.raises(InputError, match=r"document 'd0-9'.*did you mean 'd0-[0-3]'"):
        explain_at(tmp_path / "out", "q0", "d0-9")


def explain_at(folder: Path, query: str, doc: str, **options: Any) -> Any:
    """Explain without an event loop around it."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(explain, folder, query, doc, **options).result()


async def test_a_run_that_was_cut_short_shows_what_it_published(tmp_path: Path) -> None:
    """With its job file, as it has no summary yet; the explanation rests on the ledger alike."""
    data = rows(8, 24)
    job = make_job(
        tmp_path,
        write_jsonl(tmp_path / "in.jsonl", data),
        budget={"max_requests": 12, "per": "run"},
        output={"part_documents": 24},
    )
    await run(job)
    folder = tmp_path / "out"
    (folder / "summary.json").unlink(missing_ok=True)
    views = Views(folder)
    (found,) = views.first(1)
    assert found.query is None and "has not ended" in views.notes[0] and "name the job file" in views.notes[1]
    assert Views(folder, Origin(job)).one("q0").query == data[0]["query"]
    told = explain_at(folder, "q0", found.documents[1].doc_id, known=Origin(job))
    assert told.replayed and {order.proof for order in told.orders} == {"request"}


async def test_a_moved_folder_still_has_its_texts_and_proofs(tmp_path: Path) -> None:
    """Paths count from where the job ran; where only the output was moved, the job file tells the rest."""
    (tmp_path / "a").mkdir()
    job = await finished(tmp_path / "a", rows(2, 24))
    folder = tmp_path / "b"
    shutil.copytree(tmp_path / "a" / "out", folder)
    name = rankings(job)[1]["ranking"][3]["doc_id"]
    told = explain_at(folder, "q1", name)
    assert told.replayed and told.query
    shutil.rmtree(tmp_path / "a")
    lost = explain_at(folder, "q1", name)
    assert not lost.replayed and lost.rank == told.rank and "name the job file" in lost.notes[0]
    assert [order.proof for order in lost.orders] == ["unknown", "unknown"]


async def test_without_a_ledger_it_tells_what_the_output_tells(tmp_path: Path) -> None:
    """Rank, score and how deep it is proven; and says why no more."""
    job = await finished(tmp_path, rows(2, 24))
    (tmp_path / "out" / "ledger.sqlite").unlink()
    row = rankings(job)[0]["ranking"][2]
    told = explain_at(tmp_path / "out", "q0", row["doc_id"])
    assert (told.rank, told.score, told.certified > 0) == (3, row["score"], True)
    assert not told.replayed and "there is no ledger" in told.notes[0]


async def test_a_document_that_the_output_leaves_out_is_explained_too(tmp_path: Path) -> None:
    """With output.top_n the ledger still tells where it would stand."""
    data = rows(1, 24)
    whole = await finished(tmp_path, data)
    name = rankings(whole)[0]["ranking"][15]["doc_id"]
    await finished(tmp_path, data, out="short", output={"top_n": 3})
    told = explain_at(tmp_path / "short", "q0", name)
    assert told.replayed and told.rank == 16 and [order.proof for order in told.orders]
    assert [d.rank for d in Views(tmp_path / "short").one("q0").documents] == [1, 2, 3]


async def test_a_ledger_in_use_is_told(tmp_path: Path) -> None:
    """While a run goes on: what has been published is told all the same."""
    job = await finished(tmp_path, rows(2, 24))
    ledger = Ledger(tmp_path / "out" / "ledger.sqlite")
    try:
        await ledger.load("runs")
        told = explain_at(tmp_path / "out", "q0", rankings(job)[0]["ranking"][2]["doc_id"])
    finally:
        ledger.close()
    assert told.rank == 3 and not told.replayed and "is using this ledger" in told.notes[0]


async def test_what_was_dropped_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    """Without the hub's answer the query can't be ranked again; what the chunks tell stands all the same."""
    import sqlite3
    from contextlib import closing

    job = await finished(tmp_path, rows(1, 24))
    with closing(sqlite3.connect(tmp_path / "out" / "ledger.sqlite")) as db:
        db.execute("DELETE FROM answers WHERE purpose = 2")
        db.commit()
    told = explain_at(tmp_path / "out", "q0", rankings(job)[0]["ranking"][0]["doc_id"])
    assert not told.replayed and "the ledger lacks an answer" in told.notes[0]
    assert [one.purpose for one in told.requests] and any(one.rank for one in told.requests)


async def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    """No other ranking than the one that was written is explained."""
    data = rows(1, 24)
    job = await finished(tmp_path, data)
    name = rankings(job)[0]["ranking"][0]["doc_id"]
    del data[0]["candidates"][5]
    write_jsonl(tmp_path / "in.jsonl", data)
    told = explain_at(tmp_path / "out", "q0", name)
    assert not told.replayed and told.notes[0] == "changed since the run: the input"
    views = Views(tmp_path / "out")
    assert len(views.one("q0").documents) == 24 and "the input has changed" in views.notes[0]


async def test_passages_are_explained_as_their_documents(tmp_path: Path) -> None:
    """A document stands where its best passage does."""
    data = rows(1, 24)
    for number, candidate in enumerate(data[0]["candidates"]):
        candidate["text"] = " ".join([candidate["text"]] * (1 + 12 * (number % 3 == 0)))
    limits = {"documents": 10, "item_tokens": 60, "long_documents": "split", "passage_overlap": 5}
    job = await finished(tmp_path, data, limits=limits, tokenizer="qwen")
    ranking = rankings(job)[0]["ranking"]
    for at in (0, 3, 11):
        told = explain_at(tmp_path / "out", "q0", ranking[at]["doc_id"])
        assert told.replayed, told.notes
        assert told.sent is not None and (told.sent.passages > 1) == (int(told.doc_id[3:]) % 3 == 0)
        assert all(order.proof in ("request", "chain") or at >= told.certified - 1 for order in told.orders)


def test_a_terminal_gets_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arrows, texts cut to the width, and what fell out of the top; nothing of the data steers the terminal."""
    import anyio

    data = rows(2, 24)
    data[0]["candidates"][0]["text"] += " \x1b[31m"
    data[0]["query"] += " \x1b[31m"
    anyio.run(finished, tmp_path, data)
    for width in (80, 200):
        monkeypatch.setattr(
            "batchrank.cli.view.console", lambda width=width: Console(force_terminal=True, width=width)
        )
        view(str(tmp_path / "out"), "q0", top=10, only_moved=False, texts=True, as_json=False)
        shown = capsys.readouterr().out
        assert (
            "↑" in shown and "↓" in shown and "Out of the top 10: d0-" in shown and "\x1b[31m\\" not in shown
        )
        assert "\\x1b[31m" in shown
        view(str(tmp_path / "out"), None, top=10, only_moved=False, texts=True, as_json=False)
        assert "batchrank view" in capsys.readouterr().out


def test_a_pipe_gets_a_line_a_document(tmp_path: Path) -> None:
    """JSON, with the whole text; what moved, alone, where that is asked for."""
    import anyio

    data = rows(2, 24)
    anyio.run(finished, tmp_path, data)
    done = batchrank("view", "out", "q1", "--top", "24", "--only-moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert lines and all(line["move"] == line["before"] - line["rank"] != 0 for line in lines)
    assert {line["query"] for line in lines} == {data[1]["query"]}
    assert {line["text"] for line in lines} <= {c["text"] for c in data[1]["candidates"]}
    done = batchrank("view", "out", cwd=tmp_path)
    assert [orjson.loads(line)["query_id"] for line in done.stdout.splitlines()] == ["q0", "q1"]
    done = batchrank("explain", "out", "q1", lines[0]["doc_id"], "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["replayed"] is True
