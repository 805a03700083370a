"""``check --all`` ends with the code that ``run`` ends with, whatever is wrong with the job or its input."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from images import png
from jobs import make_job, rows, run, write_jsonl

from batchrank import tokens
from batchrank.errors import BatchrankError, ExitCode
from batchrank.planning.check import check_job, ending
from batchrank.write.switch import Claim

pytestmark = pytest.mark.anyio

LONG = "word " * 5_000
VL = "qwen3-vl-rerank"
Case = tuple[dict[str, Any], list[Any], ExitCode]


def lists(*documents: Any, **keys: Any) -> list[dict[str, Any]]:
    """Two queries of these documents."""
    candidates = [
        {"id": f"d{i}", **({"text": d} if isinstance(d, str) else d)} for i, d in enumerate(documents)
    ]
    return [{"query_id": f"q{i}", "query": "copy a tree", "candidates": candidates} | keys for i in range(2)]


BLANK = {"query_id": "x", "query": " ", "candidates": ["a"]}
TWICE = {
    "query_id": "x",
    "query": "a query",
    "candidates": [{"id": "d", "text": "a"}, {"id": "d", "text": "b"}],
}
SPACED = rows(1, 2)[0] | {"query_id": "an id"}
GOOD = rows(2, 12)
OTHERS = rows(4, 3)[2:]
"""With other ids."""
IMAGE: dict[str, Any] = {"image": "there.png"}
OK, USAGE, FAILED, INPUT = ExitCode.COMPLETE, ExitCode.USAGE, ExitCode.FAILED_QUERIES, ExitCode.INPUT
BROKEN = ExitCode.FAILED


def long_documents(what: str, **keys: Any) -> dict[str, Any]:
    return {"limits": {"long_documents": what}, "tokenizer": "qwen"} | keys


CASES: dict[str, Case] = {
    "good": ({}, GOOD, OK),
    "one bad record": ({}, [*GOOD, BLANK], FAILED),
    "a broken line": ({}, [*GOOD, b"{"], FAILED),
    "more bad records than the job allows": ({"failures": {"max_queries": 1}}, [*GOOD, BLANK, b"{"], BROKEN),
    "as many bad records as it allows": ({"failures": {"max_queries": 2}}, [*GOOD, BLANK, b"{"], FAILED),
    "nothing but bad records": ({}, [BLANK], INPUT),
    "nothing but broken lines": ({}, [b"{", b"{"], INPUT),
    "empty": ({}, [], INPUT),
    "no such file": ({"input": {"path": "none.jsonl"}}, GOOD, INPUT),
    "no file fits": ({"input": {"path": "none-*.jsonl"}}, GOOD, INPUT),
    "unknown columns": ({}, [{"a": 1, "b": 2}], INPUT),
    "columns that are not there": ({"input": {"columns": {"query": "question"}}}, GOOD, INPUT),
    "limited to what is good": ({"input": {"limit": 2}}, [*GOOD, BLANK], OK),
    "a query twice": ({}, [*GOOD, GOOD[0]], FAILED),
    "a document twice": ({}, [*GOOD, TWICE], FAILED),
    "nothing but a document twice": ({}, [TWICE], INPUT),
    "blank documents": ({}, lists("", "a text"), OK),
    "nothing but blank documents": ({}, lists("", " "), INPUT),
    "pairs out of order": (
        {},
        [{"query_id": q, "query": q, "doc_id": d, "text": "a"} for d in "ab" for q in ("one", "two")],
        INPUT,
    ),
    "pairs out of order, sorted": (
        {"input": {"sort": True}},
        [{"query_id": q, "query": q, "doc_id": d, "text": "a"} for d in "ab" for q in ("one", "two")],
        OK,
    ),
    "an id with a space": ({"output": {"format": "trec"}}, [*GOOD, SPACED], FAILED),
    "nothing but ids with spaces": ({"output": {"format": "trec"}}, [SPACED], INPUT),
    "an id with a space where it may": ({}, [*GOOD, SPACED], OK),
    "long, cut": (long_documents("truncate"), lists(LONG, "short"), OK),
    "long, split": (long_documents("split"), lists(LONG, "short"), OK),
    "long, an error": (long_documents("error"), lists(LONG, "short"), INPUT),
    "some long, an error": (long_documents("error"), [*lists(LONG, "short"), *OTHERS, BLANK], FAILED),
    "none long, an error": (long_documents("error"), GOOD, OK),
    "long, an error, in bytes": (long_documents("error", tokenizer="bytes"), GOOD, USAGE),
    "long, split, in bytes": (long_documents("split", tokenizer="bytes"), GOOD, USAGE),
    "long, cut, in bytes": (long_documents("truncate", tokenizer="bytes"), lists(LONG, "short"), OK),
    "overlap beyond a passage": (
        {"limits": {"long_documents": "split", "passage_overlap": 9_999}, "tokenizer": "qwen"},
        GOOD,
        USAGE,
    ),
    "too large for a request": (
        {"limits": {"request_tokens": 160, "item_tokens": 159, "headroom": 0}},
        [*lists("a " * 300), *OTHERS],
        FAILED,
    ),
    "images": ({"model": VL, "image_root": "images"}, lists(IMAGE, "a text"), OK),
    "images, no image_root": ({"model": VL}, lists(IMAGE), INPUT),
    "some images, no image_root": ({"model": VL}, lists(IMAGE, "a text"), OK),
    "images that are not there": ({"model": VL, "image_root": "images"}, lists({"image": "none.png"}), INPUT),
    "image_root that is not there": ({"model": VL, "image_root": "none"}, lists(IMAGE), USAGE),
    "image_root that is not there nor needed": ({"image_root": "none"}, GOOD, USAGE),
    "images for a model of texts": ({"image_root": "images"}, lists(IMAGE), INPUT),
    "some images for a model of texts": ({"image_root": "images"}, [*lists(IMAGE), *OTHERS], FAILED),
    "images over a wire of texts": (
        {"model": VL, "image_root": "images", "endpoint": {"wire": "cohere"}},
        lists(IMAGE, "a text"),
        USAGE,
    ),
    "texts over a wire of texts": ({"model": VL, "endpoint": {"wire": "cohere"}}, GOOD, OK),
    "instruct": ({"instruct": "Find an answer."}, GOOD, OK),
    "instruct on a wire without": ({"instruct": "Find an answer.", "endpoint": {"wire": "cohere"}}, GOOD, USAGE),
    "an unknown key": ({"modle": "x"}, GOOD, USAGE),
    "an unknown model": ({"model": "x"}, GOOD, USAGE),
    "no key": ({"endpoint": {"url": "http://127.0.0.1:9/x", "api_key_env": "NONE_SUCH_KEY"}}, GOOD, USAGE),
    "no key and no input": (
        {"endpoint": {"url": "http://127.0.0.1:9/x", "api_key_env": "NONE_SUCH_KEY"}, "input": {"path": "none"}},
        GOOD,
        USAGE,
    ),
    "no such authority": (
        {"endpoint": {"url": "https://127.0.0.1:9/x", "auth": "none", "ca_file": "none.pem"}},
        GOOD,
        USAGE,
    ),
    "no such tokenizer": ({"tokenizer": "none.json"}, GOOD, USAGE),
    "a cap on a cost that nobody knows": (
        {"budget": {"max_cost": 1}, "model": "vllm"},
        GOOD,
        USAGE,
    ),
    "a body without room": ({"endpoint": {"body": {"x": "y" * 900}}, "limits": {"body_bytes": 1_500}}, GOOD, USAGE),
    "output is a file": ({"output": {"path": "in.jsonl"}}, GOOD, BROKEN),
    "output below a file": ({"output": {"path": "in.jsonl/out"}}, GOOD, BROKEN),
    "output below a file and no input": (
        {"output": {"path": "in.jsonl/out"}, "input": {"path": "none.jsonl"}},
        GOOD,
        INPUT,
    ),
    "output is the input": ({"output": {"path": "."}, "input": {"path": "."}}, GOOD, USAGE),
    "judgements that are not there": ({"gate": {"qrels": "none.txt", "min_ndcg": 0.5}}, GOOD, INPUT),
    "a baseline that is not there": ({"gate": {"against": "none"}}, GOOD, ExitCode.GATE),
    "a baseline that is not there, and a bad record": ({"gate": {"against": "none"}}, [*GOOD, BLANK], ExitCode.GATE),
    "a baseline that is not there, and no input": ({"gate": {"against": "none"}}, [], INPUT),
    "the first run of a gate": ({"gate": {}}, GOOD, OK),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "there.png").write_bytes(png(20, 20))
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def codes(folder: Path, data: list[Any], keys: dict[str, Any]) -> tuple[int, int]:
    """What ``check --all`` and ``run`` end with, the job file's own faults included."""
    write_jsonl(folder / "in.jsonl", data)
    try:
        job = make_job(folder, folder / "in.jsonl", **keys)
    except BatchrankError as error:
        return error.exit_code, error.exit_code
    before = files(folder)
    found = await anyio.to_thread.run_sync(lambda: list(check_job(job, limit=None, ask=False)))
    assert files(folder) == before
    try:
        code = (await run(job)).exit_code
    except BatchrankError as error:
        code = error.exit_code
    return ending(found), code


@pytest.mark.parametrize("name", CASES)
async def test_check_ends_as_run_does(folder: Path, name: str) -> None:
    """Bad jobs, bad inputs and both at once."""
    keys, data, expected = CASES[name]
    assert await codes(folder, data, keys) == (expected, expected)


@pytest.mark.parametrize(
    ("keys", "data", "missing"),
    [
        ({"tokenizer": "qwen"}, GOOD, "dashscope"),
        ({"input": {"sort": True}}, GOOD, "duckdb"),
        ({"gate": {"qrels": "qrels.txt", "min_ndcg": 0.5}}, GOOD, "ir_measures"),
    ],
)
async def test_a_missing_extra_is_told_before_it_is_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], data: list[Any], missing: str
) -> None:
    """Whatever needs it: counting, sorting, the gate."""
    (folder / "qrels.txt").write_text("q0 0 d0-1 1\n")
    monkeypatch.setattr(tokens, "_qwen_vocabulary", lambda: None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert await codes(folder, data, keys) == (USAGE, USAGE)


@pytest.mark.parametrize(
    ("texts", "expected"), [(["a", "b"], OK), (["a"], OK), (["x"], INPUT)], ids=["all", "some", "none"]
)
async def test_a_corpus_that_lacks_documents(folder: Path, texts: list[str], expected: ExitCode) -> None:
    """A missing document costs a document, and a query only where it was the last."""
    (folder / "run.trec").write_text("q Q0 a 1 2.0 x\nq Q0 b 2 1.0 x\n")
    write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": "a text"} for name in texts])
    write_jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "a query"}])
    source = {"path": "run.trec", "corpus": "corpus.jsonl", "queries": "queries.jsonl"}
    assert await codes(folder, [], {"input": source}) == (expected, expected)


def _another_file(folder: Path) -> None:
    (folder / "kept.sqlite").write_text("no ledger " * 1000)


def _a_folder(folder: Path) -> None:
    (folder / "kept.sqlite").mkdir()


def _lost(folder: Path) -> None:
    (folder / "kept.sqlite").unlink()


def _emptied(folder: Path) -> None:
    (folder / "kept.sqlite").write_bytes(b"")


def _unfinished(folder: Path) -> None:
    (folder / "out" / "summary.json").unlink()


def _unfinished_elsewhere(folder: Path) -> None:
    _unfinished(folder)
    (folder / "kept.sqlite").rename(folder / "other.sqlite")
    (folder / "out" / ".batchrank.lock").write_text('{"job": "x", "ledger": "y", "ledger_id": "z"}')


@pytest.mark.parametrize(
    ("before", "what", "expected"),
    [
        (False, _another_file, BROKEN),
        (False, _a_folder, BROKEN),
        (True, _lost, BROKEN),
        (True, _emptied, BROKEN),
        (True, _unfinished, OK),
        (True, _unfinished_elsewhere, BROKEN),
    ],
)
async def test_a_ledger_that_cannot_be_gone_on_with(
    folder: Path, before: bool, what: Callable[[Path], None], expected: ExitCode
) -> None:
    """No ledger, a lost or an emptied one, or an output that another one's run left unfinished."""
    keys = {"ledger": "kept.sqlite"}
    write_jsonl(folder / "in.jsonl", GOOD)
    if before:
        await run(make_job(folder, folder / "in.jsonl", **keys))
    what(folder)
    assert await codes(folder, GOOD, keys) == (expected, expected)


async def test_a_folder_that_another_process_writes_to(folder: Path) -> None:
    """The check doesn't wait, and takes nothing away from the other one."""
    claim = Claim(folder / "out")
    assert await codes(folder, GOOD, {"ledger": "kept.sqlite"}) == (BROKEN, BROKEN)
    claim.close()
    assert await codes(folder, GOOD, {"ledger": "kept.sqlite"}) == (OK, OK)


async def test_a_stopped_run_that_can_go_on(folder: Path) -> None:
    """What an earlier run left is no fault: the same code as that of the run that goes on."""
    assert await codes(folder, [*GOOD, BLANK], {}) == (FAILED, FAILED)
    assert await codes(folder, [*GOOD, BLANK], {}) == (FAILED, FAILED)
    assert await codes(folder, GOOD, {}) == (OK, OK)
    assert await codes(folder, [BLANK], {}) == (INPUT, INPUT)
