"""How many tokens an image or a video is, by the open model's rule; the hosted API documents none.

An image is brought to a multiple of so many pixels a side (32 x 32 a token), enlarged to the least number of tokens and
shrunk to the most. Counts here are upper bounds of that, as far as sizes are known.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from batchrank.content import Content, Image, Video
from batchrank.models import Vision

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
