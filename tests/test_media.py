"""Images and videos before they are sent: formats, sizes, tokens, and their shares of a request."""

import math
from fractions import Fraction

import images
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.data import Content, Image, Kind, Video
from batchrank.io.images import counts, image_format, image_tokens, pixels, tokens, value_of, video_tokens
from batchrank.io.media import Shares
from batchrank.models import card
from batchrank.tokens import BytesCounter

CARD = card("qwen3-vl-rerank")
VISION = CARD.vision
assert VISION is not None
LEAST, MOST = VISION.image_tokens


@pytest.mark.parametrize("name", ["png", "jpeg", "bmp", "webp", "tiff", "dib", "sgi"])
@pytest.mark.parametrize("size", [(1, 1), (1970, 356), (9000, 7000)])
def test_formats_and_sizes_are_told_by_content(name: str, size: tuple[int, int]) -> None:
    """Width and height stand in the header; where it isn't read, nothing is claimed."""
    data: bytes = getattr(images, name)(*size)
    assert image_format(data) == name
    assert pixels(data, name) == (None if name in ("dib", "sgi") else size)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *[(images.ico(), "ico"), (images.icns(), "icns"), (b"GIF89a", "gif"), (b"%PDF-1.7", "pdf")],
        *[(b"<svg/>", "svg"), (b"\0\0\0\x20ftypavif", "avif"), (b"\0\0\0\x20ftypisom", "mp4")],
        *[(b"", None), (b"BMW is a car", None), (b"\x89PN", None), (b"hello", None)],
    ],
)
def test_other_contents_are_named_or_not_known(data: bytes, name: str | None) -> None:
    """What can't be sent is named where it is well known; a text is no image."""
    assert image_format(data) == name


@given(st.sampled_from(["png", "jpeg", "bmp", "webp", "tiff"]), st.binary(max_size=200), st.data())
def test_broken_headers_never_break_us(name: str, noise: bytes, data: st.DataObject) -> None:
    """A header cut anywhere and continued by noise gives a size or none, never an exception."""
    whole: bytes = getattr(images, name)(640, 480)
    size = pixels(whole[: data.draw(st.integers(0, len(whole)))] + noise, name)
    assert size is None or min(size) > 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *[((1, 1), LEAST), ((64, 64), 4), ((65, 64), 6), ((320, 320), 100), ((1970, 356), 62 * 12)],
        *[((100_000, 100_000), MOST), (None, MOST), ((10, 100), 7)],
    ],
)
def test_an_image_is_a_token_for_each_square_of_32_pixels(
    size: tuple[int, int] | None, expected: int
) -> None:
    """At least 4, at most 1,800, whatever the image claims to be; the most where it claims nothing."""
    assert VISION is not None
    assert image_tokens(size, VISION) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_token_counts_bound_the_open_model_s(width: int, height: int) -> None:
    """Rounded to multiples of 32 and scaled into its range as the open model does it, no image has more tokens."""
    assert VISION is not None
    if max(width, height) / min(width, height) > 200:  # refused by the model
        return
    across, down = max(1, round(width / 32)) * 32, max(1, round(height / 32)) * 32
    if across * down > MOST * 1024:
        scale = math.sqrt(width * height / (MOST * 1024))
        across, down = (max(1, math.floor(side / scale / 32)) * 32 for side in (width, height))
    elif across * down < LEAST * 1024:
        scale = math.sqrt(LEAST * 1024 / (width * height))
        across, down = (math.ceil(side * scale / 32) * 32 for side in (width, height))
    assert across * down // 1024 <= image_tokens((width, height), VISION) <= MOST


def test_videos_count_by_frames() -> None:
    """64 frames of 768 tokens unless the video is known to have fewer."""
    assert VISION is not None
    assert video_tokens(VISION) == tokens(Video("https://a/b"), VISION, fps=0.1) == 64 * 768
    assert video_tokens(VISION, fps=0.5, seconds=10) == 5 * 768
    assert video_tokens(VISION, fps=0, seconds=10) == video_tokens(VISION, seconds=0.5) == 768
    assert video_tokens(VISION, seconds=1e9) == 64 * 768
    assert tokens(Image("data:", (64, 64)), VISION) == 4


def test_a_mixture_is_counted_item_by_item() -> None:
    """Texts by the tokenizer, the rest by the pixel rule; what is sent of an item is its value."""
    items: list[Content] = ["four", Image("data:x", (64, 64)), Video("https://a/b"), ""]
    assert counts(items, VISION, BytesCounter().count).tolist() == [4, 4, 64 * 768, 0]
    assert counts(["ab", "c"], None, BytesCounter().count).tolist() == [2, 1]
    assert [value_of(item) for item in items] == ["four", "data:x", "https://a/b", ""]


KINDS: st.SearchStrategy[Kind] = st.sampled_from(["text", "image", "video"])


@given(st.lists(KINDS, max_size=120))
def test_shares_are_the_fractions_of_the_limits(kinds: list[Kind]) -> None:
    """Documents of any mix fit one request exactly when count over limit adds up to at most 1."""
    shares = Shares(CARD.counts)
    fractions = sum(Fraction(kinds.count(kind), most) for kind, most in CARD.counts.items())
    assert shares.fits(kinds) == (fractions <= 1)


@given(
    st.fixed_dictionaries({"text": st.integers(1, 1000)}, optional={"image": st.integers(1, 100)}),
    st.data(),
)
def test_shares_are_exact_for_any_limits(limits: dict[Kind, int], data: st.DataObject) -> None:
    """In whole numbers, so that exactly the limit of a kind fits, and one more doesn't, whatever the limits."""
    shares = Shares(limits)
    kind = data.draw(st.sampled_from(sorted(limits)))
    assert shares.fits([kind] * limits[kind]) and not shares.fits([kind] * (limits[kind] + 1))
    assert shares.of([kind] * limits[kind]).sum() == shares.budget


def test_a_kind_that_is_not_taken_has_no_share() -> None:
    """Whoever shards must have refused it before."""
    with pytest.raises(KeyError):
        Shares({"text": 500}).fits(["image"])
