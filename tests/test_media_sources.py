"""A job's values to images and videos: what is sent, what is refused, and that no other file is ever read."""

import base64
import os
import re
import threading
from pathlib import Path
from typing import Any

import images
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrank.data import Image, Video
from batchrank.errors import JobError, QueryError
from batchrank.io import images as beneath
from batchrank.io.media import Sources
from batchrank.models import card

CARD = card("qwen3-vl-rerank")
PNG = images.png(640, 480)
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
SENT = Image(URI, (640, 480))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(PNG)
    (folder / "deep" / "b.txt").write_bytes(PNG)
    (folder / "text.png").write_text("hello")
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "inside").symlink_to(folder / "a.png")
    (folder / "outside").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")
    return folder


def why(make: Any, value: Any) -> str:
    with pytest.raises(QueryError) as caught:
        make(value)
    return f"{caught.value.cause}: {caught.value}"


@pytest.mark.parametrize(
    ("value", "content"),
    [
        *[("plain", "plain"), ({"text": "plain"}, "plain"), ({"image": PNG}, SENT), ({"image": URI}, SENT)],
        ({"image": "https://a.example/b.jpg"}, Image("https://a.example/b.jpg")),
        ({"image": "HTTP://a.example/no-ending?x=1"}, Image("HTTP://a.example/no-ending?x=1")),
        ({"video": "https://a.example/b.MOV"}, Video("https://a.example/b.MOV")),
        ({"image": {"bytes": PNG, "path": "ignored"}}, SENT),
        ({"text": None, "image": memoryview(PNG), "video": None}, SENT),
    ],
)
def test_documents_of_every_kind(value: Any, content: Any) -> None:
    """Texts, addresses, data URIs, bytes and the structures that data sets keep images in."""
    assert Sources(CARD).document(value) == content


@pytest.mark.parametrize(
    "value", ["a.png", "deep/b.txt", "deep//./b.txt", "./a.png", {"bytes": None, "path": "a.png"}]
)
def test_files_below_image_root_are_sent_as_data(root: Path, value: Any) -> None:
    """The format is told by content, not by name."""
    assert Sources(CARD, str(root)).image(value) == SENT


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("../secret.png", "without '..'"),
        ("deep/../../secret.png", "without '..'"),
        ("deep/../a.png", "without '..'"),
        ("/etc/passwd", "must lead from image_root"),
        ("a\0.png", "must lead from image_root"),
        *[
            (path, "leads through a symbolic link")
            for path in ("outside", "inside", "up/secret.png", "up/images/a.png")
        ],
        ("a.png/x", "Not a directory"),
        (".", "no regular file"),
        ("missing.png", "No such file"),
        ("deep", "directory|regular"),
        ("pipe", "no regular file"),
        ("a" * 5000, "too long"),
        ("text.png", "its content is not an image; qwen3-vl-rerank takes jpeg, png"),
        ("file:///etc/passwd", "only http, https and data"),
        ("ftp://a/b.png", "only http, https and data"),
    ],
)
def test_nothing_else_is_read(root: Path, value: str, said: str) -> None:
    """A data set can't reach a file outside ``image_root``, by any path or link."""
    with pytest.raises(QueryError, match=said):
        Sources(CARD, str(root)).image(value)


@given(
    parts=st.lists(
        st.sampled_from(["..", ".", "up", "deep", "images", "outside", "secret.png", "/", "a.png"])
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_leads_outside(root: Path, parts: list[str]) -> None:
    """Whatever names are joined, either an image from inside comes back or an error."""
    (root.parent / "secret.png").write_bytes(images.png(1, 1))
    try:
        image = Sources(CARD, str(root)).image("/".join(parts) or ".")
    except QueryError:
        return
    assert image == SENT


@pytest.fixture(params=["by the kernel", "step by step"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open, whatever this kernel has."""
    if request.param == "by the kernel" and not beneath._has_openat2():
        pytest.skip("this kernel has no openat2")
    way = beneath.by_kernel if request.param == "by the kernel" else beneath.step_by_step
    monkeypatch.setattr(beneath, "_known", [way])


@pytest.mark.usefixtures("opener")
def test_both_ways_to_open_refuse_the_same(root: Path) -> None:
    """Links at any step, inside or outside; folders; a pipe, which never blocks; and what isn't there."""
    sources = Sources(CARD, str(root))
    assert sources.image("a.png") == sources.image("deep/b.txt") == SENT
    for path in ("inside", "outside", "device", "up/secret.png", "up/images/a.png"):
        assert "leads through a symbolic link" in why(sources.image, path)
    for path in ("pipe", "deep", "."):
        assert "no regular file" in why(sources.image, path)
    assert "No such file" in why(sources.image, "deep/none/a.png")
    assert "Not a directory" in why(sources.image, "a.png/a.png")


@pytest.mark.usefixtures("opener")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_swap_between_check_and_open_gains_nothing(root: Path, kind: str) -> None:
    """A folder or a file that turns into a link and back, as fast as it can: never is anything from outside read."""
    outside = root.parent / "elsewhere"
    outside.mkdir()
    (outside / "b.txt").write_bytes(images.png(1, 1))
    at = root / "deep" if kind == "folder" else root / "deep" / "b.txt"
    link = root / "link"
    link.symlink_to(outside if kind == "folder" else outside / "b.txt")
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            at.rename(root / "real")
            link.rename(at)
            at.rename(link)
            (root / "real").rename(at)

    flipping = threading.Thread(target=flip)
    flipping.start()
    sources = Sources(CARD, str(root))
    seen: set[str] = set()
    try:
        for tries in range(200_000):
            if tries >= 3000 and seen >= {"read", "link"}:
                break
            try:
                image = sources.image("deep/b.txt")
            except QueryError as error:
                seen.add("link" if "symbolic link" in str(error) else "gone")
            else:
                assert image == SENT
                seen.add("read")
    finally:
        done.set()
        flipping.join()
    assert seen >= {"read", "link"}


def test_the_folder_that_was_named_is_the_one_that_is_read(root: Path) -> None:
    """image_root is opened once: what takes its name later is another folder."""
    sources = Sources(CARD, str(root))
    root.rename(root.parent / "moved")
    root.mkdir()
    (root / "a.png").write_bytes(images.png(1, 1))
    assert sources.image("a.png") == SENT


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_a_device_is_not_read() -> None:
    """However it came to lie there, and although it would never end."""
    assert "no regular file" in why(Sources(CARD, "/dev").image, "zero")


def test_without_image_root_no_file_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the message says which key would allow it; a root that isn't there is the job's error."""
    monkeypatch.chdir(root)
    assert "set image_root" in why(Sources(CARD).image, "a.png")
    with pytest.raises(JobError, match="image_root"):
        Sources(CARD, str(root / "missing"))


BIG = images.png(10, 10, padding=5 * 2**20)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"image": BIG}, "bad-image: .*bytes are more than the 5242880"),
        ({"image": "data:image/png;base64," + base64.b64encode(BIG).decode()}, "bad-image: .*more than the"),
        ({"image": "data:image/png;base64,a"}, "isn't base64"),
        ({"image": "data:text/plain,hello"}, "write data:image/"),
        ({"image": b"GIF89a"}, "its content is gif"),
        ({"image": b""}, "is not an image"),
        ({"image": "https://a.example/b.gif"}, "a .gif is no image that qwen3-vl-rerank takes"),
        ({"image": "https://a.example/b.mp4"}, "a .mp4 is no image"),
        ({"image": "https://"}, "only http"),
        ({"image": 7}, "is int"),
        ({"image": {}}, "is NoneType"),
        ({"image": " "}, "is blank"),
        ({"video": "films/a.mp4"}, "bad-video: .*must be an http"),
        ({"video": URI}, "bad-video: .*must be an http"),
        ({"video": "https://a.example/b.webm"}, "a .webm is no video"),
        ({"video": "https://a.example/b c.mp4"}, "must be an http"),
        ({"text": 7}, "text is int"),
        ({"audio": "x"}, "one of text, image, video is required; given: audio"),
        ({"text": "a", "image": URI}, "given: text, image"),
        ({}, "given: none"),
        (7, "int is neither"),
    ],
)
def test_what_cannot_be_sent_is_said_before_it_is(value: Any, said: str) -> None:
    """Size, format, address and structure are checked here, not by a paid request."""
    assert re.search(said, why(Sources(CARD).document, value))


def test_messages_stay_short() -> None:
    """A data URI of megabytes doesn't end up in a message."""
    assert len(why(Sources(CARD).image, "data:image/png;base64," + "A" * 9_000_000)) < 300


def test_models_and_queries_take_what_the_card_says() -> None:
    """No images for a text model, no video as a query."""
    assert "takes texts only" in why(Sources(card("qwen3-rerank")).document, {"image": PNG})
    assert Sources(card("qwen3-rerank")).document({"text": "d"}) == "d"
    assert "takes no video as a query" in why(Sources(CARD).query, {"video": "https://a.example/b.mp4"})
    assert Sources(CARD).query({"image": PNG}) == SENT
