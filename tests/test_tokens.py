import importlib.util
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import make_job, rows, write_jsonl

from batchrank.cli.plan import show_plan
from batchrank.errors import JobError, MissingExtraError
from batchrank.job.load import load_job
from batchrank.planning.check import check_job
from batchrank.tokens import BytesCounter, Counter, _groups, _hugging_face_counter, counter

anything = st.text(st.characters(), max_size=60)  # lone surrogates too
awkward = st.sampled_from(
    ["<|im_end|>", "<|endoftext|>", "\u0958", "\ufdfa", "\U0001d160", "e\u0301", "\r\n", "\0"]
)
texts = st.lists(st.lists(anything | awkward, max_size=4).map("".join), max_size=12)


def byte_level(**changes: Any) -> bytes:
    """A tokenizer.json of 256 bytes and the merges of "abc"."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {b: chr(b) for b in printable}
    shown |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in shown)}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    special = {"id": 258, "content": "<|im_end|>", "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    config = {
        "version": "1.0",
        "added_tokens": [special | flags],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, step | changes.pop("step", {})]},
        "post_processor": step,
        "decoder": step,
        "model": {
            "type": "BPE",
            "vocab": {shown[b]: b for b in range(256)} | {"ab": 256, "abc": 257},
            "merges": [["a", "b"], ["ab", "c"]],
        },
    }
    return orjson.dumps(config | changes)


def test_known_counts() -> None:
    """The Qwen counts are those that the vendor's own tokenizer gives."""
    default_instruct = "Given a web search query, retrieve relevant passages that answer the query."
    known = {"What is a rerank model?": 7, "什么是文本排序模型": 4, default_instruct: 14, "": 0}
    assert counter("qwen").count(list(known)).tolist() == list(known.values())
    assert counter("qwen").exact


def test_bytes_are_counted_without_a_vocabulary() -> None:
    """A text's bound is its length in UTF-8; of no texts there are no counts."""
    assert counter("bytes").count(["abc", "é", "什么", "\U0001f600", ""]).tolist() == [3, 2, 6, 4, 0]
    assert counter("bytes").count([]).shape == counter("qwen").count([]).shape == (0,)
    assert not counter("bytes").exact


@settings(max_examples=200)
@given(texts)
def test_bytes_bound_the_exact_count(batch: list[str]) -> None:
    """No text has more tokens than bytes: any Unicode, special tokens and lone surrogates included."""
    exact, bound = counter("qwen").count(batch), BytesCounter().count(batch)
    assert exact.dtype == bound.dtype == np.int64
    assert (exact <= bound).all()
    assert all((count > 0) == bool(text) for count, text in zip(exact, batch, strict=True))


def test_a_special_token_is_ordinary_text() -> None:
    """The text of a special token costs what its characters cost, not one token."""
    assert counter("qwen").count(["<|im_end|>"]).tolist() == [6]


def test_texts_are_counted_in_normal_form() -> None:
    """Composed and decomposed forms of a text count alike, as the model's tokenizer normalizes."""
    composed = "Résumé für Ångström"
    decomposed = unicodedata.normalize("NFD", composed)
    first, second = counter("qwen").count([composed, decomposed])
    assert first == second
    assert BytesCounter().count([decomposed])[0] > BytesCounter().count([composed])[0]


@given(st.lists(st.integers(0, 10_000_000), max_size=50))
def test_padded_matrices_stay_small(widths: list[int]) -> None:
    """Texts are encoded in groups of bounded rows times width, each once; a huge one stands alone."""
    groups = _groups(np.array(widths, dtype=np.int64))
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(widths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(widths[row] for row in group) <= 4_000_000


def test_counts_do_not_depend_on_the_company() -> None:
    """A huge text beside many short ones changes no count."""
    short = [f"document {i} about 什么" * (1 + i % 7) for i in range(500)]
    alone = counter("qwen").count(short)
    together = counter("qwen").count([*short[:250], "word " * 800_000, *short[250:]])
    assert np.delete(together, 250).tolist() == alone.tolist()
    assert together[250] == pytest.approx(800_000, rel=0.01)


def test_threads_may_share_a_counter() -> None:
    """Concurrent counts of the same texts agree."""
    batch = [f"a question about number {i} and 什么是文本排序模型 {i * 7919}" for i in range(2000)]
    expected = counter("qwen").count(batch).tolist()
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(counter("qwen").count, [batch] * 8))
    assert all(result.tolist() == expected for result in results)


def test_auto_takes_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto is qwen with the extra and bytes without; qwen without it names the install line."""
    assert counter("auto").name == "qwen"
    monkeypatch.setitem(sys.modules, "dashscope", None)  # as if it weren't installed
    assert counter("auto").name == "bytes"
    with pytest.raises(MissingExtraError, match=r"pip install 'batchrank\[qwen\]'"):
        counter("qwen")


def test_a_tokenizer_json_is_read(tmp_path: Path) -> None:
    """A Hugging Face file counts exactly, its special tokens as ordinary text."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(byte_level())
    ours = counter(str(path))
    assert ours.exact and ours.bytes_bound
    assert ours.count(["abc", "abcab", "", "什", "<|im_end|>", "\ud800"]).tolist() == [1, 2, 0, 3, 10, 3]


@given(texts)
@settings(max_examples=50)
def test_a_normalizing_file_keeps_the_bound(batch: list[str]) -> None:
    """A byte-level file that normalizes to form C is bounded by bytes too."""
    ours = _from_json(normalizer={"type": "NFC"})
    assert ours.bytes_bound
    assert (ours.count(batch) <= BytesCounter().count(batch)).all()


def test_a_file_that_adds_to_the_text_has_no_bound() -> None:
    """A tokenizer that puts a space in front claims no bound by bytes."""
    assert not _from_json(step={"add_prefix_space": True}).bytes_bound


def _from_json(**changes: Any) -> Counter:
    return _hugging_face_counter("tokenizer.json", orjson.loads(byte_level(**changes)))


def test_a_tiktoken_file_is_told_by_its_name(tmp_path: Path) -> None:
    """A copy of the vocabulary under a name that begins with qwen counts as the installed one does."""
    spec = importlib.util.find_spec("dashscope")
    assert spec is not None and spec.origin is not None
    path = tmp_path / "qwen3.tiktoken"
    path.symlink_to(Path(spec.origin).parent / "resources" / "qwen.tiktoken")
    batch = ["什么是文本排序模型", "re\u0301sume\u0301", "<|im_end|>"]
    assert counter(str(path)).count(batch).tolist() == counter("qwen").count(batch).tolist()


@pytest.mark.parametrize(
    "name, content",
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[1]"),
        ("tokenizer.json", b"not json"),
        ("tokenizer.json", None),
        ("qwen.tiktoken", b"garbage\n"),
        ("mine.tiktoken", b"YQ== 0\n"),
    ],
)
def test_an_unusable_file_is_a_job_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A missing, broken or ambiguous file is named, with what may stand there instead."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=r"tokenizer: can't use .*auto, qwen, bytes") as error:
        counter(str(path))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_another_models_vocabulary_is_an_estimate_and_called_so() -> None:
    """What the user names is taken at their word; only ``auto`` may have to estimate."""
    own, other = counter("auto", "qwen"), counter("auto", None)
    assert (own.estimate, other.estimate, counter("qwen", None).estimate) == (False, True, False)
    assert own.count(["什么"]).tolist() == other.count(["什么"]).tolist()


def test_a_card_that_names_a_repository_is_counted_by_what_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Hub's own client lays it out; nothing is fetched, and what can't be read is an estimate."""
    import huggingface_hub

    cache = tmp_path / "models--voyageai--rerank-2.5"
    found = cache / "snapshots" / ("a" * 40) / "tokenizer.json"
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        partial(huggingface_hub.try_to_load_from_cache, cache_dir=tmp_path),
    )
    assert counter("auto", "voyageai/rerank-2.5").estimate
    found.parent.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    found.write_bytes(byte_level())
    own = counter("auto", "voyageai/rerank-2.5")
    assert (own.name, own.exact, own.estimate) == ("voyageai/rerank-2.5", True, False)
    found.write_text('{"model": {"type": "Nobody"}}')
    assert counter("auto", "voyageai/rerank-2.5").estimate


def test_a_job_may_name_its_models_own_file(tmp_path: Path) -> None:
    """In ``model``, relative to the job file, as ``tokenizer`` is."""
    (tmp_path / "own.json").write_bytes(byte_level())
    path = tmp_path / "job.yaml"
    path.write_text(
        "{input: {path: x}, model: {base: rerank-v3.5, tokenizer: own.json}, output: {path: out}}"
    )
    job = load_job(path, environ={})
    found = counter(job.tokenizer, job.card.tokenizer)
    assert (found.name, found.estimate) == ("own.json", False)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("qwen3-rerank", "counted exactly (qwen)"),
        (
            "rerank-v3.5",
            "estimated by the vocabulary of Qwen, as that of rerank-v3.5 isn't here; to count exactly,",
        ),
        ("rerank-2.5", "hf download voyageai/rerank-2.5 tokenizer.json"),
    ],
)
def test_check_and_plan_say_which_it_is(
    tmp_path: Path, model: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other vendor's tokens are said to be exact."""
    job = make_job(tmp_path, write_jsonl(tmp_path / "in.jsonl", rows(2, 4)), model=model, tokenizer="auto")
    (finding,) = [one for one in check_job(job, limit=None, ask=False) if one.name == "tokens"]
    assert said in finding.text
    show_plan(job, as_json=False)
    kind = "exact" if model == "qwen3-rerank" else "estimated"
    assert f"in one pass ({kind})" in capsys.readouterr().out
