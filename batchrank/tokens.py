"""Counts the tokens of texts: exactly, by a vocabulary, or as a proven upper bound, by their length in bytes.

A byte-level BPE token stands for at least one byte, so the UTF-8 length bounds the count from above. The Qwen
tokenizer first brings a text into Unicode's normal form C, which can make it longer (U+0958 has 3 bytes
before and 6 after), so the bound is the larger length of the two forms.

Special tokens such as ``<|im_end|>`` are counted as ordinary text: more tokens, so never too few. A lone
surrogate, which no UTF-8 text can hold, is counted as U+FFFD, which has as many bytes.
"""

import importlib.util
import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from batchrank.errors import JobError, MissingExtraError, install_line
from batchrank.models import is_file

if TYPE_CHECKING:
    from gigatoken import Tokenizer

Counts = NDArray[np.int64]

_SURROGATES = re.compile("[\ud800-\udfff]")
_MATRIX_CELLS = 4_000_000
"""Token ids held at a time, 4 bytes each: the tokenizer pads all texts of a call to its longest one."""


class Counter(Protocol):
    """Counts the tokens of texts.

    Attributes:
        exact: whether the counts are by a vocabulary, as opposed to an upper bound.
        estimate: whether the vocabulary is another model's, because the model's own isn't known or isn't here.
        bytes_bound: whether ``BytesCounter`` is a proven upper bound of these counts.
        name: what a report calls it.
    """

    @property
    def exact(self) -> bool: ...  # noqa: D102 - see the class
    @property
    def estimate(self) -> bool: ...  # noqa: D102
    @property
    def bytes_bound(self) -> bool: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102

    def count(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text."""


class BytesCounter:
    """The UTF-8 length in bytes (the longer of the text's and its normal form C's): needs no vocabulary."""

    exact = False
    estimate = False
    bytes_bound = True
    name = "bytes"

    def count(self, texts: Sequence[str]) -> Counts:
        """An upper bound of the tokens of each text."""
        if all(map(str.isascii, texts)):
            return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        lengths = (len(text) if text.isascii() else _bytes(text) for text in texts)
        return np.fromiter(lengths, dtype=np.int64, count=len(texts))


class VocabularyCounter:
    """Exact counts by a tokenizer's vocabulary.

    The tokenizer releases the GIL, and may be used by several threads. It is never asked to start threads of
    its own: those would not survive a fork.

    Args:
        name: what a report calls it.
        load: makes a gigatoken tokenizer without special tokens; called when first needed, as it takes a while.
        normalize: whether texts are brought into normal form C first, which a file of ranks can't say itself.
        bytes_bound: whether the vocabulary is a byte-level one that needs no other normalization.
        estimate: whether it is another model's.
    """

    exact = True

    def __init__(
        self,
        name: str,
        load: "Callable[[], Tokenizer]",
        *,
        normalize: bool,
        bytes_bound: bool,
        estimate: bool = False,
    ) -> None:
        self.name = name
        self.bytes_bound = bytes_bound
        self.estimate = estimate
        self._load = load
        self._loading = threading.Lock()
        self._loaded: Tokenizer | None = None
        self._normalize = normalize

    def count(self, texts: Sequence[str]) -> Counts:
        """Tokens of each text."""
        clean = list(texts)
        if not all(map(str.isascii, clean)):
            clean = [text if text.isascii() else self._clean(text) for text in clean]
        widths = BytesCounter().count(clean)
        if widths.size * widths.max(initial=0) <= _MATRIX_CELLS:
            return self._lengths(clean)
        counts = np.empty(len(clean), dtype=np.int64)
        for rows in _groups(widths):
            counts[rows] = self._lengths([clean[row] for row in rows.tolist()])
        return counts

    def _lengths(self, texts: list[str]) -> Counts:
        from gigatoken import BytesSource

        tokenizer = self._loaded or self._tokenizer()
        # Given texts it would first import awkward arrays, which takes longer than all else that a run imports.
        source = BytesSource(list(map(str.encode, texts)))
        lengths: Counts = tokenizer.encode_batch_padded(source, pad_id=0, parallel=False)[1]
        return lengths

    def _tokenizer(self) -> "Tokenizer":
        with self._loading:
            self._loaded = self._loaded or self._load()
        return self._loaded

    def _clean(self, text: str) -> str:
        if self._normalize:
            text = unicodedata.normalize("NFC", text)
        return _SURROGATES.sub("\ufffd", text)


def counter(name: str, model: str | None = "qwen") -> Counter:
    """The counter that a job names.

    Args:
        name: ``qwen``; ``bytes``; ``auto`` for the model's own; or the path of a Hugging Face ``tokenizer.json`` or a
            ``*.tiktoken`` file.
        model: the model's own, as its card names it: ``qwen``, such a path, or a repository of Hugging Face's, which is
            taken from the cache there and never fetched. Where it isn't known or isn't here, ``auto`` estimates by the
            Qwen vocabulary if that is installed; else it counts bytes.

    Raises:
        MissingExtraError: ``qwen`` without its vocabulary.
        JobError: the file can't be read or understood.
    """
    if name == "bytes":
        return BytesCounter()
    if name not in ("auto", "qwen"):
        return _file_counter(Path(name))
    if name == "auto" and model not in (None, "qwen") and (own := _own_counter(str(model))) is not None:
        return own
    vocabulary = _qwen_vocabulary()
    if vocabulary is not None:
        return _qwen_counter(vocabulary, estimate=name == "auto" and model != "qwen")
    if name == "auto":
        return BytesCounter()
    raise MissingExtraError(
        f"tokenizer: qwen needs the Qwen vocabulary, which is not installed: {install_line('qwen')} "
        "(or set tokenizer: bytes, which counts an upper bound)"
    )


def exact_counts(model: str | None) -> str:
    """How tokens would be counted exactly, for the user.

    Args:
        model: the model's own tokenizer, as its card names it.
    """
    if model == "qwen":
        return f"to count exactly: {install_line('qwen')}"
    if model is None or is_file(model):
        return "to count exactly, name the model's own tokenizer.json in tokenizer, or tokenizer: qwen if it is a Qwen"
    return f"to count exactly: hf download {model} tokenizer.json (with {install_line('remote')})"


def _own_counter(model: str) -> Counter | None:
    """The counter of a model's own tokenizer; None where it isn't here, or is of a kind that can't be read."""
    if is_file(model):
        return _file_counter(Path(model))
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    path = try_to_load_from_cache(model, "tokenizer.json")
    if not isinstance(path, str):
        return None
    try:
        return _file_counter(Path(path), name=model)
    except JobError:
        return None


def _bytes(text: str) -> int:
    own = len(text.encode("utf-8", "surrogatepass"))
    if unicodedata.is_normalized("NFC", text):
        return own
    return max(own, len(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")))


def _groups(widths: Counts) -> list[NDArray[np.intp]]:
    """Rows, shortest first, in groups whose padded matrix stays small; a huge text is a group of its own."""
    order = np.argsort(widths, kind="stable")
    groups, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * widths[order[end]] > _MATRIX_CELLS:
            groups.append(order[start:end])
            start = end
    return groups


def _qwen_vocabulary() -> Path | None:
    """The vocabulary in the ``dashscope`` package, which isn't imported: that takes seconds."""
    spec = importlib.util.find_spec("dashscope")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "resources" / "qwen.tiktoken"
        if path.is_file():
            return path
    return None


@cache
def _qwen_counter(path: Path, *, estimate: bool) -> Counter:
    load = partial(_ranks, path, qwen=True)
    return VocabularyCounter("qwen", load, normalize=True, bytes_bound=True, estimate=estimate)


def _file_counter(path: Path, name: str | None = None) -> Counter:
    try:
        if path.suffix == ".tiktoken":
            return _tiktoken_counter(path)
        config = orjson.loads(path.read_bytes())
        return _hugging_face_counter(name or path.name, config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise JobError(
            f"tokenizer: can't use {path}: {reason}. Name a Hugging Face tokenizer.json or a *.tiktoken "
            "file, or one of auto, qwen, bytes"
        ) from error


def _tiktoken_counter(path: Path) -> Counter:
    """A file of ranks lacks the pattern that splits words: it is told by the file's name."""
    qwen = path.name.startswith("qwen")
    tokenizer = _ranks(path, qwen=qwen)
    return VocabularyCounter(path.name, lambda: tokenizer, normalize=qwen, bytes_bound=True)


def _ranks(path: Path, *, qwen: bool) -> "Tokenizer":
    from gigatoken import Tokenizer

    return Tokenizer.from_tiktoken(str(path), pretokenizer="qwen2" if qwen else None, special_tokens={})


def _hugging_face_counter(name: str, config: dict[str, Any]) -> Counter:
    from gigatoken import Tokenizer

    config["added_tokens"] = [token for token in config.get("added_tokens") or () if not token.get("special")]
    config["post_processor"] = None  # adds special tokens, which ``overhead_tokens`` accounts for
    tokenizer = Tokenizer.from_json(orjson.dumps(config))
    steps = [config.get("pre_tokenizer") or {}]
    steps += steps[0].get("pretokenizers", [])
    byte_level = any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space") for step in steps)
    normalizer = (config.get("normalizer") or {"type": "NFC"})["type"]
    bounded = byte_level and normalizer == "NFC"
    return VocabularyCounter(name, lambda: tokenizer, normalize=False, bytes_bound=bounded)
