"""Texts that an API would refuse for their length: cut before they are sent, and counted."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jobs import failed, make_job, rankings, run, write_jsonl
from sharding import Thirds, query

from batchrank.errors import JobError
from batchrank.models import UNLIMITED, Template, card
from batchrank.shard.long import Cutter
from batchrank.tokens import BytesCounter

ANYIO = pytest.mark.anyio
PROMPT = Template(query="<{instruct}> {query} ?", document="« {document} » ?")


def cutter(
    characters: int, *, in_bytes: bool = False, item_tokens: int = UNLIMITED, template: Template | None = None
) -> Cutter:
    return Cutter(
        characters=characters,
        in_bytes=in_bytes,
        item_tokens=item_tokens,
        counter=Thirds(),
        template=template,
        instruct="find",
    )


texts = (
    st.text(st.characters(), max_size=60)
    | st.text("ab \n", max_size=80)
    | st.sampled_from(["什么" * 20, "🙂" * 30])
)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=8), texts, st.integers(30, 60), st.booleans(), st.booleans())
@example(["\ud800" * 30], "q", 31, True, False)
def test_what_is_sent_is_short_enough_and_a_beginning(
    documents: list[str], text: str, characters: int, in_bytes: bool, prompted: bool
) -> None:
    """With its prompt each text is within the limit; it is as given or begins as given; the same every time."""
    template = PROMPT if prompted else None
    q = query(documents, text=text)
    cut = cutter(characters, in_bytes=in_bytes, item_tokens=15, template=template).cut(q)
    prompt = template or Template()
    for around, whole, sent in [
        (prompt.around_query("find"), text, str(cut.query.text)),
        *(
            (prompt.around_document("find"), d, str(s))
            for d, s in zip(documents, cut.query.documents, strict=True)
        ),
    ]:
        full = around[0] + sent + around[1]
        assert len(full.encode("utf-8", "surrogatepass") if in_bytes else full) <= characters
        assert sent == whole or (sent and whole.lstrip().startswith(sent)) or not whole.strip()
        if prompted:
            assert Thirds().count([*around, sent]).sum() <= 15
    assert list(cut.documents) == [i for i, d in enumerate(documents) if cut.query.documents[i] != d]
    again = cutter(characters, in_bytes=in_bytes, item_tokens=15, template=template).cut(
        query(documents, text=text)
    )
    assert list(again.query.documents) == list(cut.query.documents) and again.query.text == cut.query.text


def test_short_texts_are_left_alone() -> None:
    """The very same query comes back, and without limits nothing is even looked at."""
    q = query(["a" * 10, "b"])
    assert cutter(10).cut(q).query is q
    assert cutter(UNLIMITED).cut(q).query is q


def test_as_much_is_kept_as_there_is_room_for() -> None:
    """To the last character, of one, two, three or four bytes."""
    for character, size in {"a": 1, "é": 2, "什": 3, "🙂": 4}.items():
        (sent,) = cutter(21, in_bytes=True).cut(query([character * 30])).query.documents
        assert sent == character * (21 // size)
        (sent,) = cutter(21).cut(query([character * 30])).query.documents
        assert sent == character * 21


def test_a_beginning_that_is_blank_is_not_what_is_kept() -> None:
    """It would be refused as an empty document, and the whole request with it."""
    cut = cutter(10).cut(query([" " * 50 + "word"]))
    assert cut.query.documents == ["word"]


def test_a_prompt_that_leaves_no_room_is_told() -> None:
    """Before anything is read."""
    with pytest.raises(JobError, match=r"endpoint\.template: the prompt around a document leaves no room"):
        cutter(1000, item_tokens=20, template=Template(document="x" * 90 + "{document}"))


def test_the_cards_tell_what_is_refused() -> None:
    """DashScope's 300,000 are of an unstated unit; Infinity's OpenAPI says 122,880 characters."""
    own = {
        name: card(name).item_characters
        for name in ("qwen3-rerank", "gte-rerank-v2", "qwen3-vl-rerank", "infinity")
    }
    assert own == {
        "qwen3-rerank": 300_000,
        "gte-rerank-v2": 300_000,
        "qwen3-vl-rerank": 300_000,
        "infinity": 122_880,
    }


def rows(*documents: str, text: str = "copy a tree") -> list[dict[str, Any]]:
    return [
        {
            "query_id": "q1",
            "query": text,
            "candidates": [{"id": f"d{i}", "text": d} for i, d in enumerate(documents)],
        }
    ]


@ANYIO
async def test_a_document_the_api_would_refuse_is_ranked(tmp_path: Path) -> None:
    """One of 400,000 characters, and one of 300,000 bytes in fewer characters: both are ranked, and counted."""
    long, bytes_only = "copy a tree " * 34_000, "树" * 110_000
    data = write_jsonl(tmp_path / "in.jsonl", rows("a short one", long, bytes_only))
    job = make_job(tmp_path, data)
    report = await run(job)
    assert report.exit_code == 0 and not failed(job)
    assert len(long) > 300_000 > len(bytes_only) and report.data["totals"]["truncated"] == 2
    (ranking,) = rankings(job)
    assert None not in [entry["score"] for entry in ranking["ranking"]]


@ANYIO
async def test_a_query_the_api_would_refuse_is_ranked_too(tmp_path: Path) -> None:
    """Its text is cut likewise, and counted."""
    data = write_jsonl(tmp_path / "in.jsonl", rows("one", "two", text="copy a tree " * 40))
    job = make_job(tmp_path, data, limits={"documents": 10, "item_characters": 100})
    report = await run(job)
    assert report.exit_code == 0 and report.data["totals"]["truncated"] == 1


@ANYIO
@pytest.mark.parametrize(
    ("documents", "what"), [(["x" * 200], "document 'd0'"), (["x"], "the query's own text")]
)
async def test_with_error_such_a_query_fails(tmp_path: Path, documents: list[str], what: str) -> None:
    """limits.long_documents: error means that nothing is cut."""
    data = write_jsonl(
        tmp_path / "in.jsonl", rows(*documents, text="x" * 110 if what.startswith("the") else "x")
    )
    limits = {"documents": 10, "item_characters": 100, "long_documents": "error"}
    job = make_job(tmp_path, data, limits=limits, tokenizer="qwen")
    report = await run(job)
    assert report.exit_code == 4
    assert report.data["totals"]["causes"] == {"too-long": 1} and what in str(report.reason)


@ANYIO
async def test_splitting_comes_first(tmp_path: Path) -> None:
    """What passages hold is not lost to the limit on characters; only a passage beyond it is cut."""
    data = write_jsonl(tmp_path / "in.jsonl", rows("The quick brown fox. " * 100, "short", "x" * 3000))
    limits = {"documents": 50, "item_characters": 600, "item_tokens": 100, "passage_overlap": 10}
    job = make_job(tmp_path, data, limits=limits | {"long_documents": "split"}, tokenizer="qwen")
    report = await run(job)
    assert report.exit_code == 0 and report.data["totals"]["truncated"] <= 1
    whole = await run(make_job(tmp_path, data, out="whole", limits=limits, tokenizer="qwen"))
    assert whole.data["totals"]["truncated"] == 2


def test_characters_are_bytes_only_where_the_card_says_so() -> None:
    """A limit of the job's is in characters, as it says."""
    text = "什" * 90
    assert cutter(100).cut(query([text])).documents == ()
    assert cutter(100, in_bytes=True).cut(query([text])).documents == [0]
    assert int(BytesCounter().count([text])[0]) == 270
