"""Opens image files below a folder that no path can leave, measures them, and counts the tokens that they take."""

import ctypes
import errno
import io
import math
import os
import platform
import stat
import struct
import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Content, Image, Kind, Video
from batchrank.models import Vision

__all__ = ["Content", "Image", "Video", "kind_of", "value_of"]


def kind_of(item: Content) -> Kind:
    """What an item is."""
    return "text" if isinstance(item, str) else item.kind


def value_of(item: Content) -> str:
    """What is sent of an item: the text, the address or the data URI; bytes must have been prepared before."""
    if isinstance(item, str):
        return item
    assert isinstance(item.value, str)
    return item.value


_OPENAT2 = 437
"""The system call's number, the same on all machines but alpha."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
"""Flags of the system call, from Linux's openat2.h."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""A pipe without a writer would block, a terminal would become the process's own."""
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
_ABSENT = (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL)
"""How kernels and sandboxes say that there is no such call; ``EPERM`` is what older ones of Docker's answer."""

Open = Callable[[int, Sequence[str]], int]


class NotRegularError(OSError):
    """Raised when what was opened is a folder, a pipe or a device."""


class _How(ctypes.Structure):
    """The kernel's ``struct open_how``."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, parts: Sequence[str]) -> int:
    """The descriptor of a regular file below an open folder.

    Args:
        root: the folder's descriptor.
        parts: the names on the way, none of them ``..``.

    Raises:
        NotRegularError: it is a folder, a pipe or a device.
        OSError: it can't be opened; ``ELOOP`` where a link is on the way.
    """
    found = _opener()(root, parts)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise NotRegularError(errno.EINVAL, "no regular file")
    except BaseException:
        os.close(found)
        raise
    return found


def by_kernel(root: int, parts: Sequence[str]) -> int:
    """Open in one go, by ``openat2``."""
    how = _How(_FLAGS, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    path = os.fsencode("/".join(parts))
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    found = call(
        ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(path), ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(found)


def step_by_step(root: int, parts: Sequence[str]) -> int:
    """Open each folder from the one before, and the file from the last."""
    at = root
    try:
        for part in parts[:-1]:
            try:
                inner = os.open(part, _FOLDER, dir_fd=at)
            except NotADirectoryError:
                if stat.S_ISLNK(os.stat(part, dir_fd=at, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                raise
            if at != root:
                os.close(at)
            at = inner
        return os.open(parts[-1], _FLAGS, dir_fd=at)
    finally:
        if at != root:
            os.close(at)


_known: list[Open] = []


def _opener() -> Open:
    """What opens here, found out once: the kernel's own way if it has one."""
    if not _known:
        _known.append(by_kernel if _has_openat2() else step_by_step)
    return _known[0]


def _has_openat2() -> bool:
    if not sys.platform.startswith("linux") or platform.machine() == "alpha":
        return False
    folder = os.open("/", _FOLDER)
    try:
        os.close(by_kernel(folder, ["."]))
    except (OSError, AttributeError):
        return False
    finally:
        os.close(folder)
    return True


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"icns", "icns"),
    (b"\x01\xda", "sgi"),
    (b"GIF8", "gif"),
    (b"%PDF", "pdf"),
    (b"<svg", "svg"),
    (b"<?xml", "svg"),
)
_BITMAP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_MEASURED = frozenset({"jpeg", "png", "bmp", "tiff", "webp"})


def image_format(data: bytes) -> str | None:
    """The format's name as in ``image/<name>``, None when the beginning is that of none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BITMAP_HEADERS:
        return "bmp"
    if data[:4] == b"\x28\x00\x00\x00" and data[12:14] == b"\x01\x00":  # a bitmap without its file's header
        return "dib"
    if data[4:8] == b"ftyp":
        return {b"avif": "avif", b"heic": "heic"}.get(data[8:12], "mp4")
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def pixels(data: bytes, name: str) -> tuple[int, int] | None:
    """Width and height by the header; None where it doesn't tell, or this format's headers aren't read."""
    if name not in _MEASURED:
        return None
    import imagesize  # type: ignore[import-untyped]  # it ships no types

    try:
        width, height = imagesize.get(io.BytesIO(data))
    except (ValueError, TypeError, IndexError, struct.error, OSError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


Counts = NDArray[np.int64]


def image_tokens(pixels: tuple[int, int] | None, vision: Vision) -> int:
    """Tokens of an image of this width and height; the most that any can have when they are unknown."""
    least, most = vision.image_tokens
    if pixels is None:
        return most
    width, height = pixels
    side = math.isqrt(vision.token_pixels)
    scale = max(1.0, math.sqrt(least * side * side / (width * height)))
    across, down = math.ceil(width * scale / side), math.ceil(height * scale / side)
    return max(least, min(most, across * down))


def video_tokens(vision: Vision, *, fps: float | None = None, seconds: float | None = None) -> int:
    """Most tokens of a video.

    Args:
        vision: the model's rule.
        fps: frames looked at in each second, None for 1, which is the most that can be asked for.
        seconds: how long it is; None when unknown, then it is as long as can be.
    """
    frames: float = vision.video_frames
    if seconds is not None:
        frames = min(frames, max(1, math.ceil(seconds * (1.0 if fps is None else fps))))
    return int(frames) * vision.frame_tokens


def tokens(item: Image | Video, vision: Vision, *, fps: float | None = None) -> int:
    """Most tokens of an image or a video of unknown length."""
    return image_tokens(item.pixels, vision) if isinstance(item, Image) else video_tokens(vision, fps=fps)


def counts(
    items: Sequence[Content],
    vision: Vision | None,
    texts: Callable[[Sequence[str]], Counts],
    *,
    fps: float | None = None,
) -> Counts:
    """Tokens of each text, image or video.

    Args:
        items: what is counted; texts only, where a model has no ``vision``.
        vision: the model's rule.
        texts: counts texts; it is called once, with all of them.
        fps: as for ``video_tokens``.
    """
    counted = texts([item if isinstance(item, str) else "" for item in items])
    if vision is None:
        return counted
    result = np.array(counted, dtype=np.int64)
    for at, item in enumerate(items):
        if not isinstance(item, str):
            result[at] = tokens(item, vision, fps=fps)
    return result
