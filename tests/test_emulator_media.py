"""The emulator with images and videos: limits of mixed requests, what is refused, what is relevant, what is billed."""

import base64
from typing import Any

import pytest
from emulator_client import NATIVE, Client, serving

from batchrank.models import card

pytestmark = pytest.mark.anyio

CARD = card("qwen3-vl-rerank")
TEXT = {"text": "a bicycle"}
BIKE = {"image": "https://example.com/photos/red-bicycle.jpg"}
CAT = {"image": "https://example.com/photos/sleeping%20cat.jpg"}
FILM = {"video": "https://example.com/films/bicycle.mp4"}
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG and more").decode()


async def ask(
    client: Client,
    documents: list[Any],
    query: Any = "red bicycle",
    model: str = CARD.name,
    **parameters: Any,
) -> tuple[int, Any]:
    content = {"query": query, "documents": documents}
    status, data, _ = await client.post({"model": model, "input": content, "parameters": parameters}, NATIVE)
    return status, data


@pytest.mark.parametrize(
    ("texts", "images", "videos", "status"),
    [
        *[
            (100, 0, 0, 200),
            (101, 0, 0, 400),
            (0, 40, 0, 200),
            (0, 41, 0, 400),
            (0, 0, 4, 200),
            (0, 0, 5, 400),
        ],
        *[
            (50, 20, 0, 200),
            (51, 20, 0, 400),
            (25, 10, 2, 200),
            (25, 10, 3, 400),
            (0, 0, 0, 400),
            (1, 0, 4, 400),
        ],
    ],
)
async def test_kinds_share_one_request(texts: int, images: int, videos: int, status: int) -> None:
    """Each kind's count over its limit adds up to at most 1."""
    async with serving(request_tokens=10**7) as client:
        assert (await ask(client, [TEXT] * texts + [BIKE] * images + [FILM] * videos))[0] == status


async def test_documented_example_is_answered_with_its_documents() -> None:
    """Documents come back as they were sent, whatever they are; a plain string is a text."""
    async with serving() as client:
        documents = [TEXT, BIKE, CAT, "a plain string", FILM]
        status, data = await ask(client, documents, return_documents=True, fps=1.0)
    assert status == 200
    results = data["output"]["results"]
    assert {r["index"]: r["document"] for r in results} == dict(
        enumerate([TEXT, BIKE, CAT, {"text": "a plain string"}, FILM])
    )
    assert results[0]["index"] == 1, "the image whose address says what is asked for"


async def test_an_image_finds_itself() -> None:
    """A query by image is most like the same image, by address or by content, and the rerun agrees."""
    async with serving() as client:
        for value in (BIKE["image"], PIXEL):
            documents = [CAT, TEXT, {"image": value}]
            first, again = [(await ask(client, documents, {"image": value}))[1] for _ in range(2)]
            assert first["output"] == again["output"]
            assert first["output"]["results"][0]["index"] == 2


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"image": PIXEL}, 200, None),
        ({"image": "/etc/passwd"}, 400, "InvalidParameter"),
        ({"image": ""}, 400, "InvalidParameter"),
        ({"image": "data:image/png;base64,@@@"}, 415, "UnsupportedFileFormat"),
        ({"image": "data:image/svg;base64,AAAA"}, 415, "UnsupportedFileFormat"),
        ({"image": "data:image/png;base64," + "A" * 7_000_000}, 400, "InvalidParameter"),
        ({"video": PIXEL}, 400, "InvalidParameter"),
        ({"audio": "https://example.com/a.mp3"}, 400, "InvalidParameter"),
        ({"text": "a", "image": BIKE["image"]}, 400, "InvalidParameter"),
        ({"text": 1}, 400, "InvalidParameter"),
    ],
)
async def test_what_is_no_document_is_refused(document: Any, status: int, code: str | None) -> None:
    """Local paths, broken data URIs, foreign formats, videos that are no address."""
    async with serving() as client:
        found, data = await ask(client, [TEXT, document])
    assert (found, data.get("code")) == (status, code)


@pytest.mark.parametrize("fps", [-0.1, 1.5, "1", True])
async def test_fps_is_a_number_in_its_range(fps: Any) -> None:
    """Outside 0..1, or no number at all: refused."""
    async with serving() as client:
        assert (await ask(client, [FILM], fps=fps))[0] == 400
        assert (await ask(client, [FILM], fps=0.5))[0] == 200


async def test_queries_and_models_take_what_their_card_says() -> None:
    """No query by video; nothing but plain strings for a text model."""
    async with serving() as client:
        assert (await ask(client, [TEXT], FILM))[0] == 400
        assert (await ask(client, [BIKE], "q", "gte-rerank-v2"))[0] == 400
        assert (await ask(client, [TEXT], "q", "gte-rerank-v2"))[0] == 400
        assert (await ask(client, ["a bicycle"], {"text": "q"}, "gte-rerank-v2"))[0] == 400
        assert (await ask(client, ["a bicycle"], "q", "gte-rerank-v2"))[0] == 200


async def test_images_and_videos_are_billed_within_the_open_model_s_rule() -> None:
    """An image takes 4 to 1800 tokens, a video fewer with fewer frames and never more than an item may."""
    assert CARD.vision is not None

    async def billed(document: Any, **parameters: Any) -> int:
        data = (await ask(client, [document], "q", **parameters))[1]
        return int(data["usage"]["total_tokens"]) - 1

    async with serving() as client:
        assert 4 <= await billed(BIKE) <= 1800 and await billed(BIKE) != await billed(CAT)
        assert 0 < await billed(FILM, fps=0.01) < await billed(FILM, fps=1) <= CARD.item_tokens


async def test_one_unreadable_image_sinks_its_request() -> None:
    """A poisoned address is refused as a download that failed, wherever it stands."""
    async with serving(poison={"sleeping": "415-download"}) as client:
        status, data = await ask(client, [TEXT, CAT])
        assert (status, data["code"]) == (415, "InputDownloadFailed")
        assert (await ask(client, [TEXT, BIKE]))[0] == 200
