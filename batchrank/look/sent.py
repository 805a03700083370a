"""Tells what was sent of a document's text: whether it was cut, before it was sent or by the API, or split."""

from dataclasses import dataclass

import numpy as np

from batchrank.data import Query
from batchrank.job.config import Job
from batchrank.pipeline.prepare import Prepared
from batchrank.shard.long import too_long
from batchrank.tokens import counter


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent of a document.

    Attributes:
        characters: characters of the text that was sent, of all passages together; None for an image or a video.
        cut_to: the same, where the text was cut before it was sent, as the API would refuse it; None where it wasn't.
        tokens: tokens after which the API cuts a text.
        cut: whether the API cuts it; None where tokens are only bounded, and it may.
        passages: how many passages it was split into, 1 for a whole text.
    """

    characters: int | None
    cut_to: int | None
    tokens: int
    cut: bool | None
    passages: int


def sent(prepared: Prepared, position: int, job: Job | None, read: Query | None) -> Sent | None:
    """What was sent of the document at a position of the first stage; ``read`` is the query as it was read."""
    if job is None:
        return None
    query = prepared.query
    places = [position]
    if prepared.passages is not None:
        places = np.flatnonzero(prepared.passages.owners == position).tolist()
    texts = [text for text in (query.documents[place] for place in places) if isinstance(text, str)]
    count = counter(job.tokenizer)
    long = np.isin(places, too_long(query, count, job.card.item_tokens)).any()
    size = sum(map(len, texts)) if texts else None
    original = None if read is None else read.documents[position]
    shorter = size is not None and len(places) == 1 and isinstance(original, str) and len(original) > size
    return Sent(
        characters=size,
        cut_to=size if shorter else None,
        tokens=job.card.item_tokens,
        cut=bool(long) if count.exact or not long else None,
        passages=len(places),
    )
