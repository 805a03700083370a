"""Images and videos, mixed with text, through the whole pipeline."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import png

import batchrank
from batchrank import Candidate, Endpoint, Failure, Job, Query
from batchrank.data import Content, Image, Kind, Video
from batchrank.emulator.app import Emulator
from batchrank.emulator.endpoints import Medium, path
from batchrank.emulator.model import described
from batchrank.emulator.relevance import relevance
from batchrank.emulator.settings import Settings
from batchrank.io.images import kind_of
from batchrank.io.media import Media, Shares
from batchrank.models import card
from batchrank.outcomes import Ranking
from batchrank.shard.chunks import Sharder
from batchrank.shard.sizes import Limits
from batchrank.tokens import BytesCounter

VL = card("qwen3-vl-rerank")
WORDS = [
    "red",
    "blue",
    "cat",
    "dog",
    "house",
    "tree",
    "river",
    "boat",
    "bridge",
    "night",
    "snow",
    "road",
    "market",
    "train",
]


def name(seed: int) -> str:
    return "-".join(WORDS[(seed * k + k * k) % len(WORDS)] for k in (3, 5, 7)) + f"-{seed}"


def item(kind: Kind, seed: int) -> Content:
    if kind == "image":
        return Image(f"https://example.com/{name(seed)}.jpg")
    return Video(f"https://example.com/{name(seed)}.mp4") if kind == "video" else name(seed).replace("-", " ")


def job(folder: Path, emulator: Emulator, model: str = "qwen3-vl-rerank", **keys: object) -> Job:
    (folder / "key").write_text("any")
    endpoint = Endpoint(
        url=emulator.url + path("dashscope-native"), wire="dashscope-native", api_key_file=str(folder / "key")
    )
    return Job.model_validate(
        {"model": model, "endpoint": endpoint.model_dump(), "merge": {"top_k": 10}} | keys
    )


def truth(query: str, documents: list[Content]) -> list[str]:
    def text(content: Content) -> str:
        if isinstance(content, str):
            return content
        assert isinstance(content.value, str)
        return described(Medium(content.kind, content.value))

    return [f"d{i}" for i in np.argsort([-relevance(query, text(d)) for d in documents], kind="stable")]


async def ranked(queries: list[Query], job: Job, failures: list[Failure] | None = None) -> list[Ranking]:
    heard = [] if failures is None else failures
    return [ranking async for ranking in batchrank.rerank(queries, job, on_failure=heard.append)]


@pytest.mark.anyio
async def test_three_hundred_images_are_sharded_and_merged_right(tmp_path: Path) -> None:
    """Forty images a request: the top ten is the API's own, certified."""
    documents = [item("image", i) for i in range(300)]
    query = Query.of("q", "a red boat at night", [Candidate(f"d{i}", d) for i, d in enumerate(documents)])
    async with Emulator(Settings(scores="relative")) as emulator:
        (ranking,) = await ranked([query], job(tmp_path, emulator))
        assert emulator.counts.statuses.keys() == {200}
    assert list(ranking.doc_ids[:10]) == truth("a red boat at night", documents)[:10]
    assert ranking.merge.certified >= 10
    assert ranking.cost.chunks == 8


@pytest.mark.anyio
async def test_gte_with_long_documents_is_sharded_and_merged_right(tmp_path: Path) -> None:
    """Seven documents of 4,000 tokens fill a request of 30,000."""
    texts = [f"{name(i).replace('-', ' ')} " + "lorem ipsum dolor sit amet " * 700 for i in range(60)]
    query = Query.of("q", "a red boat at night", [Candidate(f"d{i}", t) for i, t in enumerate(texts)])
    async with Emulator(Settings(scores="relative")) as emulator:
        (ranking,) = await ranked([query], job(tmp_path, emulator, "gte-rerank-v2"))
        assert emulator.counts.statuses.keys() == {200}
    assert list(ranking.doc_ids[:10]) == truth("a red boat at night", list(texts))[:10]
    assert ranking.merge.certified >= 10


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_thousand_mixed_queries_keep_every_limit(tmp_path: Path) -> None:
    """Text, image and video documents, text and image queries: no request is rejected."""
    rng = np.random.default_rng(0)
    queries = []
    for q in range(1_000):
        kinds = rng.choice(["text", "image", "video"], size=int(rng.integers(1, 60)), p=[0.6, 0.35, 0.05])
        documents = [Candidate(f"d{i}", item(kind, q * 100 + i)) for i, kind in enumerate(kinds)]
        text: Content = item("image", q) if q % 5 == 0 else "a red boat at night"
        queries.append(Query.of(f"q{q}", text, documents))
    async with Emulator(Settings(scores="relative", rpm=float("inf"), tpm=float("inf"))) as emulator:
        found = await ranked(queries, job(tmp_path, emulator, rate={"rpm": 1e6, "tpm": 1e12}))
        assert emulator.counts.statuses.keys() == {200}
    assert [ranking.query_id for ranking in found] == [query.id for query in queries]


@pytest.mark.anyio
async def test_one_unreadable_image_fails_that_document_only(tmp_path: Path) -> None:
    """The API's 415 is traced to it by halving: it is ranked last and told, the rest is ranked."""
    documents = [item("image", i) for i in range(30)]
    query = Query.of("q", "a red boat", [Candidate(f"d{i}", d) for i, d in enumerate(documents)])
    failures: list[Failure] = []
    async with Emulator(Settings(poison={name(17): "415-download"}, scores="absolute")) as emulator:
        (ranking,) = await ranked([query], job(tmp_path, emulator), failures)
    assert ranking.doc_ids[-1] == "d17" and np.isnan(ranking.scores[-1])
    assert not np.isnan(ranking.scores[:-1]).any()
    assert [(f.cause, "'d17'" in f.message) for f in failures] == [("document-refused", True)]


@pytest.mark.anyio
async def test_local_images_only_from_the_image_root(tmp_path: Path) -> None:
    """A data set can't read this machine's files: what lies outside is told, ranked last and never read."""
    root = tmp_path / "images"
    root.mkdir()
    (root / "in.png").write_bytes(png(64, 64))
    (tmp_path / "out.png").write_bytes(png(64, 64))
    (root / "link.png").symlink_to(tmp_path / "out.png")
    values = ["in.png", "../out.png", "link.png", str(tmp_path / "out.png"), "/etc/passwd", "missing.png"]
    query = Query.of("q", "a boat", [Candidate(f"d{i}", Image(v)) for i, v in enumerate(values)])
    failures: list[Failure] = []
    async with Emulator(Settings(), keep=True) as emulator:
        (ranking,) = await ranked([query], job(tmp_path, emulator, image_root=str(root)), failures)
        sent = b"".join(request.body for request in emulator.received)
    assert ranking.doc_ids[0] == "d0" and np.isnan(ranking.scores[1:]).all()
    assert sent.count(b"data:image/png;base64,") == 1
    assert {f.cause for f in failures} == {"bad-image"} and len(failures) == 5


@pytest.mark.anyio
async def test_a_text_model_takes_no_images(tmp_path: Path) -> None:
    """It is told before anything is sent."""
    query = Query.of("q", "a boat", [Candidate("d0", item("image", 0))])
    failures: list[Failure] = []
    async with Emulator(Settings()) as emulator:
        assert await ranked([query], job(tmp_path, emulator, "gte-rerank-v2"), failures) == []
        assert emulator.requests == 0
    assert "gte-rerank-v2 takes texts only" in failures[0].message


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["text", "image", "video"]), min_size=1, max_size=250),
    st.integers(1, 120),
    st.integers(1, 60),
    st.integers(1, 9),
)
def test_mixed_limits_hold_for_any_mix(kinds: list[Kind], texts: int, images: int, videos: int) -> None:
    """Each kind's count over its limit adds up to at most 1 in every chunk, and every document is in one."""
    shares = Shares({"text": texts, "image": images, "video": videos})
    assert VL.vision is not None
    limits = Limits(max(texts, images, videos), 10**9, VL.item_tokens, 2**24)
    sharder = Sharder(limits, BytesCounter(), media=Media(VL.vision, shares))
    documents = [item(kind, i) for i, kind in enumerate(kinds)]
    chunks = sharder.shards(Query.of("q", "x", [Candidate(None, d) for d in documents])).chunks
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(kinds)))
    for chunk in chunks:
        assert shares.fits(kind_of(documents[i]) for i in chunk.tolist())


@pytest.mark.anyio
async def test_long_documents_by_their_best_passage(tmp_path: Path) -> None:
    """split: the answer at a long document's end counts; truncate: it is cut off."""
    filler = "lorem ipsum dolor sit amet consectetur " * 40
    texts = [filler + "a red boat at night", "a blue house", filler, "a boat"]
    query = Query.of("q", "a red boat at night", [Candidate(f"d{i}", t) for i, t in enumerate(texts)])
    limits = {"item_tokens": 100, "passage_overlap": 20}
    async with Emulator(Settings(scores="absolute", item_tokens=100)) as emulator:
        split = job(tmp_path, emulator, "gte-rerank-v2", limits=limits | {"long_documents": "split"})
        (by_passage,) = await ranked([query], split)
        (cut,) = await ranked([query], job(tmp_path, emulator, "gte-rerank-v2", limits=limits))
        failures: list[Failure] = []
        error = job(tmp_path, emulator, "gte-rerank-v2", limits=limits | {"long_documents": "error"})
        assert await ranked([query], error, failures) == []
    assert by_passage.doc_ids[0] == "d0" and cut.doc_ids[0] == "d3"
    assert sorted(by_passage.doc_ids) == ["d0", "d1", "d2", "d3"]
    assert failures[0].cause == "too-long" and "'d0' (and 1 more)" in failures[0].message


@pytest.mark.anyio
async def test_bodies_beyond_a_mebibyte_are_sent(tmp_path: Path) -> None:
    """A few large images make a large request; it goes out without stalling the event loop."""
    root = tmp_path / "images"
    root.mkdir()
    (root / "large.png").write_bytes(png(640, 480, padding=1_500_000))
    query = Query.of("q", "a boat", [Candidate("d0", Image("large.png")), Candidate("d1", "a boat")])
    async with Emulator(Settings()) as emulator:
        (ranking,) = await ranked([query], job(tmp_path, emulator, image_root=str(root)))
        assert emulator.counts.statuses == {200: 1}
    assert not np.isnan(ranking.scores).any()
