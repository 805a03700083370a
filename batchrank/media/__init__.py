"""Images and videos: from a job's data to what is sent, with their sizes, tokens and shares of a request."""

from batchrank.media.content import Content, Image, Video, kind_of, value_of
from batchrank.media.mixed import Shares
from batchrank.media.sources import Sources
from batchrank.media.tokens import counts, image_tokens, tokens, video_tokens

__all__ = [
    "Content",
    "Image",
    "Shares",
    "Sources",
    "Video",
    "counts",
    "image_tokens",
    "kind_of",
    "tokens",
    "value_of",
    "video_tokens",
]
