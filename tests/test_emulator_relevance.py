"""The lexical scorer and what becomes of its relevance in an answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.emulator.model import absolute, jittered, noisy, relative
from batchrank.emulator.relevance import parts, relevance, relevances, stem, words

TEXT = st.text(max_size=300)


@given(TEXT, TEXT)
def test_relevance_is_a_function_of_the_two_texts(query: str, document: str) -> None:
    """Any texts have a finite relevance, the same in whatever company they are scored."""
    alone = relevance(query, document)
    relevances("something else", [document, query])
    assert np.isfinite(alone) and relevances(query, [query, document, "x"])[1] == alone


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("copy a directory", "copies directories", "removes a file"),
        ("copy a directory tree", "shutil.copytree(src, dst)\nDo it.", "shutil.move(src, dst)\nDo it."),
        ("parse json", "JSONDecoder reads documents", "a decoder reads documents"),
        ("median of numbers", "The median of numeric data.", "A number of other things in numbers."),
        (
            "walrus operator",
            "about the walrus operator in short",
            "an operator who once saw some big old walrus",
        ),
        ("walrus", "walrus " + "word " * 20, "walrus " + "word " * 900),
        ("walrus operator", "walrus operator", "walrus walrus walrus walrus"),
        ("排序模型", "文本排序模型", "天气很好"),
        ("café", "CAFE menu", "bar menu"),
    ],
)
def test_relevance_prefers_what_a_reader_would(query: str, better: str, worse: str) -> None:
    """Inflections, identifiers, rare words, nearness, shortness, coverage, Chinese and accents all count."""
    assert relevance(query, better) > relevance(query, worse) + 0.01


def test_ties_are_rare() -> None:
    """Even documents that share nothing with the query are told apart, by less than any match is worth."""
    values = relevances("walrus", [f"document number {i}" for i in range(2000)])
    assert len(set(values.tolist())) > 1990 and np.ptp(values) < 1e-3
    assert relevance("walrus", "a walrus") > values.max() + 1


def test_words_split_as_programmers_write() -> None:
    """Snake case, dots, camel case, digits and CJK runs come apart."""
    assert words("os.path_join(a)") == ["os", "path", "join", "a"]
    assert parts("HTTPServer2") == ["http", "server", "2"] and parts("copy2") == ["copy", "2"]
    assert words("naïve 排序模型") == ["naïve", "排序", "序模", "模型"]


@pytest.mark.parametrize(
    "family",
    [["copy", "copies", "copied", "copying"], ["file", "files"], ["run", "running"], ["match", "matches"]],
)
def test_inflections_share_a_stem(family: list[str]) -> None:
    """A word's regular forms have one stem."""
    assert len(set(map(stem, family))) == 1


@pytest.mark.parametrize("family", ["logistic", "minmax", "softmax", "ordinal", "warped"])
@given(
    logits=st.lists(st.floats(-6, 7).map(lambda x: round(x, 4)), min_size=1, max_size=50, unique=True),
    seed=st.integers(0, 99),
)
def test_every_family_keeps_the_order(family: str, logits: list[float], seed: int) -> None:
    """Relative scores lie in 0..1 and rise with relevance, whatever the request's own map is."""
    values = np.array(logits)
    scores = relative(values, family, np.random.default_rng(seed))  # type: ignore[arg-type]  # any of the names above
    assert (np.diff(scores[np.argsort(values)]) > 0).all() and scores.min() >= 0 and scores.max() <= 1
    assert (np.diff(absolute(values)[np.argsort(values)]) > 0).all()


def test_noise_and_jitter_have_the_size_told() -> None:
    """Noise spreads by its sigma; jitter is below a hundredth of the logit and leaves eight bits of it."""
    logits, rng = np.linspace(-6, 7, 20_000), np.random.default_rng(0)
    assert np.std(noisy(logits, 0.3, rng) - logits) == pytest.approx(0.3, rel=0.05)
    moved = jittered(logits, rng)
    assert 0 < np.abs(moved / logits - 1).max() < 0.01
    assert len(np.unique(moved)) < 2500
