"""Images and videos read from files: in both formats, both shapes, and through a whole job."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import png
from jobs import failed, make_job, rankings, run, write_jsonl

from batchrank.data import Content, Image, Query, Video
from batchrank.errors import InputError
from batchrank.job.sections import Columns, Input
from batchrank.outcomes import Failure
from batchrank.read.reader import read

URL = "https://example.com/a.jpg"
CLIP = "https://example.com/a.mp4"
Record = dict[str, Any]

# All names in every record, as a table has them; nulls and blanks are as nothing.
DOCUMENTS: list[Record] = [
    {"id": "t", "title": "Boats", "text": "a red boat", "image": None, "video": None, "score": 4.0},
    {"id": "i", "title": "described", "text": None, "image": URL, "video": "", "score": 3.0},
    {"id": "v", "title": None, "text": " ", "image": "", "video": CLIP, "score": 2.0},
    {"id": "n", "title": None, "text": None, "image": None, "video": None, "score": 1.0},
]
CONTENT: list[Content] = ["Boats\na red boat", Image(URL), Video(CLIP), ""]


def written(folder: Path, kind: str, records: list[Record]) -> Path:
    path = folder / f"data.{kind}"
    if kind == "jsonl":
        return write_jsonl(path, records)
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def got(path: Path, **columns: str) -> list[Query | Failure]:
    return list(read(Input(path=(str(path),), columns=Columns(**columns))))


def only(path: Path, **columns: str) -> Query:
    (query,) = got(path, **columns)
    assert isinstance(query, Query), query
    return query


def wrong(path: Path, **columns: str) -> Failure:
    (failure,) = got(path, **columns)
    assert isinstance(failure, Failure), failure
    return failure


both = pytest.mark.parametrize("kind", ["jsonl", "parquet"])


@both
@pytest.mark.parametrize("pairs", [False, True])
def test_texts_images_and_videos_in_one_list(tmp_path: Path, kind: str, pairs: bool) -> None:
    """The same mixed data is the same query in JSON lines and Parquet, one row a query or one row a pair."""
    asked: Record = {"query_id": "q", "query": "boats"}
    listed = [asked | {"candidates": DOCUMENTS}]
    each = [asked | {"doc_id" if k == "id" else k: v for k, v in d.items()} for d in DOCUMENTS]
    query = only(written(tmp_path, kind, each if pairs else listed))
    assert (query.text, list(query.documents), list(query.doc_ids)) == (
        "boats",
        CONTENT,
        ["t", "i", "v", "n"],
    )
    assert query.first_stage_scores is not None and query.first_stage_scores.tolist() == [4, 3, 2, 1]
    assert query.sendable.tolist() == [0, 1, 2]


@both
def test_images_alone(tmp_path: Path, kind: str) -> None:
    """No name for a text is needed."""
    listed = {"query_id": "q", "query": "boats", "candidates": [{"id": "i", "image_url": URL}]}
    assert list(only(written(tmp_path, kind, [listed])).documents) == [Image(URL)]
    pair = {"query_id": "q", "query": "boats", "docid": "i", "image_path": "a/b.png"}
    assert list(only(written(tmp_path, kind, [pair])).documents) == [Image("a/b.png")]


def test_strings_and_objects_in_one_list(tmp_path: Path) -> None:
    """The API's own form, with and without ids; records beside it may be plain texts."""
    mixed: list[Any] = ["a boat", {"image": URL}, {"id": "v", "video": CLIP}, {"text": "b"}, None]
    rows: list[Record] = [
        {"query_id": "q", "query": {"text": "boats"}, "documents": mixed},
        {"query_id": "p", "query": {"image": URL}, "documents": ["a", "b"]},
    ]
    first, second = got(written(tmp_path, "jsonl", rows))
    assert isinstance(first, Query) and isinstance(second, Query)
    assert list(first.documents) == ["a boat", Image(URL), Video(CLIP), "b", ""]
    assert list(first.doc_ids) == ["0", "1", "v", "3", "4"]
    assert (second.text, list(second.documents)) == (Image(URL), ["a", "b"])


def test_names_that_the_job_gives_need_not_be_in_every_object(tmp_path: Path) -> None:
    """A JSON object has only what it needs."""
    row = {"query_id": "q", "query": "x", "candidates": [{"pic": URL}, {"body": "b"}, {"clip": CLIP}]}
    found = only(written(tmp_path, "jsonl", [row]), image="pic", video="clip", text="body")
    assert list(found.documents) == [Image(URL), "b", Video(CLIP)]


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_binary_column(tmp_path: Path, type_: Any, pairs: bool) -> None:
    """Its values are images, as they are."""
    values = pa.array([png(8, 8), None, png(9, 9)], pa.binary()).cast(type_)
    documents = {"text": pa.array([None, "a", None], pa.string()), "image": values}
    if pairs:
        table = pa.table({"query_id": ["q"] * 3, "query": ["x"] * 3, **documents})
    else:
        structs = pa.StructArray.from_arrays(list(documents.values()), names=list(documents))
        lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), structs)
        table = pa.table({"query_id": ["q"], "query": ["x"], "candidates": lists})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(only(tmp_path / "a.parquet").documents) == [Image(png(8, 8)), "a", Image(png(9, 9))]


@pytest.mark.parametrize("pairs", [False, True])
def test_image_columns_of_data_sets(tmp_path: Path, pairs: bool) -> None:
    """A struct of bytes and path: the bytes, or else the path."""
    images = [{"bytes": png(8, 8), "path": "x.png"}, {"bytes": None, "path": "y.png"}]
    asked: Record = {"query_id": "q", "query": "x"}
    rows = [asked | {"image": i} for i in images]
    listed = [asked | {"candidates": [{"image": i} for i in images]}]
    found = only(written(tmp_path, "parquet", rows if pairs else listed))
    assert list(found.documents) == [Image(png(8, 8)), Image("y.png")]


@both
@pytest.mark.parametrize("beside", [False, True])
def test_a_query_that_is_an_image(tmp_path: Path, kind: str, beside: bool) -> None:
    """In an object, or in a column ``query_image``, where the text is null."""
    asked: list[Record] = [{"query": {"text": None, "image": URL}}, {"query": {"text": "x", "image": None}}]
    if beside:
        asked = [{"query": None, "query_image": URL}, {"query": "x", "query_image": None}]
    rows = [{"query_id": f"q{i}", **a, "candidates": [{"text": "a"}]} for i, a in enumerate(asked)]
    assert [q.text for q in got(written(tmp_path, kind, rows)) if isinstance(q, Query)] == [Image(URL), "x"]


def test_pairs_whose_query_is_an_image_of_bytes(tmp_path: Path) -> None:
    """Rows of the same image and id are one query."""
    image = {"bytes": png(8, 8), "path": None}
    rows = [{"query_id": q, "query_image": image, "text": f"{q}{i}"} for q in "ab" for i in range(3)]
    first, second = got(written(tmp_path, "parquet", rows))
    assert isinstance(first, Query) and isinstance(second, Query)
    assert first.text == second.text == Image(png(8, 8))
    assert list(second.documents) == ["b0", "b1", "b2"]


@both
def test_two_contents_of_one_document(tmp_path: Path, kind: str) -> None:
    """It can't be guessed which is meant: the file, the row, the query and the candidate are named."""
    good, bad = {"text": "a", "image": None}, {"text": "a", "image": URL}
    row = {"query_id": "q", "query": "x", "candidates": [good, bad]}
    path = written(tmp_path, kind, [row])
    failure = wrong(path)
    assert (failure.query_id, failure.cause, failure.place.number) == ("q", "text-and-media", 1)
    assert failure.place.file.endswith(f"data.{kind}")
    assert (
        "candidate 2 of the list: a document is a text, an image or a video, not several" in failure.message
    )
    assert list(only(path, text="text").documents) == ["a", "a"]
    pairs = [{"query_id": "q", "query": "x"} | d for d in (good, bad)]
    failure = wrong(written(tmp_path, kind, pairs))
    assert failure.query_id == "q" and "this one has text and image" in failure.message
    assert "2" in f"{failure.place}{failure.message.partition(':')[0]}"


@both
def test_a_query_of_text_and_image(tmp_path: Path, kind: str) -> None:
    """It is one of them."""
    row = {"query_id": "q", "query": "x", "query_image": URL, "candidates": [{"text": "a"}]}
    path = written(tmp_path, kind, [row])
    assert "a query is a text or an image, not both" in wrong(path).message
    assert only(path, query="query").text == "x"
    assert only(path, query="query_image").text == Image(URL)


@both
def test_two_names_for_the_image(tmp_path: Path, kind: str) -> None:
    """The key that settles it is named."""
    row = {"query_id": "q", "query": "x", "candidates": [{"image": URL, "image_path": "b.png"}]}
    path = written(tmp_path, kind, [row])
    with pytest.raises(
        InputError, match=r"image and image_path could each be the image; set input\.columns\.image"
    ):
        got(path)
    assert list(only(path, image="image_path").documents) == [Image("b.png")]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"image": 5}, "the document's image is a number"),
        ({"image": {"url": URL}}, "the document's image is an object of url"),
        ({"image": {"bytes": "iVBO"}}, "the bytes of the document's image are a string"),
        ({"video": ["a"]}, "the document's video is a list"),
    ],
)
def test_what_is_no_image(tmp_path: Path, document: Record, says: str) -> None:
    """The message tells what may be written instead."""
    row = {"query_id": "q", "query": "x", "candidates": [document]}
    failure = wrong(written(tmp_path, "jsonl", [row]))
    assert failure.cause == "wrong-type" and f"candidate 1 of the list: {says}" in failure.message


def test_a_column_that_can_hold_no_image(tmp_path: Path) -> None:
    """It is told once, for the file."""
    with pytest.raises(InputError, match=r"the document's image \(image\) is of type int64"):
        got(written(tmp_path, "parquet", [{"query_id": "q", "query": "x", "image": 1}]))


@both
def test_only_blanks(tmp_path: Path, kind: str) -> None:
    """A query without any text, image or video fails; one image is enough."""
    nothing = {"text": None, "image": ""}
    asked: Record = {"query_id": "q", "query": "x"}
    assert wrong(written(tmp_path, kind, [asked | {"candidates": [nothing]}])).cause == "all-documents-blank"
    some = [nothing, {"text": None, "image": URL}]
    assert len(only(written(tmp_path, kind, [asked | {"candidates": some}]))) == 2


@pytest.mark.anyio
@both
async def test_a_whole_job(tmp_path: Path, kind: str) -> None:
    """Local files below ``image_root``, addresses, videos and texts are ranked; a missing file is told and last."""
    root = tmp_path / "images"
    root.mkdir()
    for i in range(6):
        (root / f"{i}.png").write_bytes(png(32 + i, 32))
    values: list[Record] = [{"image": f"{i}.png"} for i in range(6)]
    values += [{"image": URL}, {"video": CLIP}, {"text": "a red boat"}, {"text": None}, {"image": "gone.png"}]
    nulls = {"text": None, "image": None, "video": None}
    documents = [{"id": f"d{i}"} | nulls | v for i, v in enumerate(values)]
    asked: list[Record] = [{"text": "a red boat", "image": None}, {"text": None, "image": "0.png"}]
    rows = [{"query_id": f"q{i}", "query": q, "candidates": documents} for i, q in enumerate(asked)]
    job = make_job(tmp_path, written(tmp_path, kind, rows), model="qwen3-vl-rerank", image_root=str(root))
    await run(job)
    found = rankings(job)
    assert [row["query_id"] for row in found] == ["q0", "q1"]
    for row in found:
        ranked = [d["doc_id"] for d in row["ranking"]]
        assert sorted(ranked[:9]) == [f"d{i}" for i in range(9)]
        assert sorted(ranked[9:]) == ["d10", "d9"]
    assert {(f["query_id"], "'d10'" in f["message"]) for f in failed(job)} == {("q0", True), ("q1", True)}
    assert orjson.dumps(found).count(b"base64") == 0
