"""What the API does with a request once it is let in: check limits, count tokens, score."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchrank.emulator.answer import Answer
from batchrank.emulator.endpoints import Asked
from batchrank.emulator.faults import rng_for
from batchrank.emulator.rejections import REJECTIONS, RejectedError
from batchrank.emulator.relevance import relevances
from batchrank.emulator.scores import absolute, jittered, noisy, relative
from batchrank.emulator.settings import Settings
from batchrank.models import Card
from batchrank.records import Floats
from batchrank.tokens import Counter, counter

_INVALID = REJECTIONS["400-parameter"]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request within the limits.

    Attributes:
        asked: the request.
        query: the query as cut to the item limit.
        documents: the documents as cut to the item limit.
        tokens: what it is billed.
        echo: whether the answer carries the documents.
    """

    asked: Asked
    query: str
    documents: list[str]
    tokens: int
    echo: bool


class Model:
    """The models served, by their cards and the emulator's switches."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counter: Counter = counter(settings.tokenizer)

    def card(self, name: str) -> Card:
        """The card of a model that is served, or the refusal of one that isn't."""
        if name not in self._settings.cards:
            raise RejectedError(REJECTIONS["404-model"].saying(f"The model {name} does not exist."))
        return self._settings.cards[name]

    def accept(self, asked: Asked, body_bytes: int) -> Work:
        """Check a request against the limits of its model and count its tokens.

        Raises:
            RejectedError: a limit is passed, or an item is empty.
        """
        card, own = self.card(asked.model), self._settings
        if body_bytes > (own.body_bytes or card.body_bytes):
            raise RejectedError(REJECTIONS["413"])
        self._check_items(asked, own.documents or card.documents)
        counts = self._counter.count([asked.query, asked.instruct, *asked.documents])
        most = own.item_tokens or card.item_tokens
        query, *documents = _cut([asked.query, *asked.documents], np.delete(counts, 1), most)
        capped = np.minimum(counts, most)
        each = int(capped[0]) + own.overhead_tokens + (int(capped[1]) if own.bill_instruct else 0)
        tokens = each * len(documents) + int(capped[2:].sum())
        limit = own.request_tokens or card.request_tokens
        if tokens > limit:
            message = f"Range of input length should be [1, {limit}], got {tokens}: input"
            raise RejectedError(REJECTIONS["400-too-large"].saying(message))
        echo = asked.return_documents and "return_documents" in card.parameters
        return Work(asked, query, documents, tokens, echo)

    def _check_items(self, asked: Asked, most: int) -> None:
        if not 1 <= len(asked.documents) <= most:
            text = f"batch size of documents is invalid, it should not be empty or larger than {most}."
            raise RejectedError(_INVALID.saying(f"{text}: input.documents"))
        if not asked.query.strip():
            raise RejectedError(_INVALID.saying("text input should not be empty.: input.query"))
        if not all(map(str.strip, asked.documents)):
            raise RejectedError(_INVALID.saying("text input should not be empty.: input.documents"))
        longest = self._settings.item_characters
        if max(map(len, asked.documents)) > longest:
            raise RejectedError(
                _INVALID.saying(f"Range of input length should be [1, {longest}]: input.documents")
            )

    def answer(self, work: Work, content: bytes) -> Answer:
        """Score a request; noise and relative scores follow from the digest of its content."""
        scores = self._scores(relevances(work.query, work.documents), content)
        order = np.argsort(-scores, kind="stable")[: work.asked.top_n].tolist()
        results: list[dict[str, Any]] = [{"index": i, "relevance_score": float(scores[i])} for i in order]
        if work.echo:
            results = [{"document": {"text": work.asked.documents[r["index"]]}, **r} for r in results]
        return Answer(results, {"total_tokens": work.tokens})

    def _scores(self, logits: Floats, content: bytes) -> Floats:
        own = self._settings
        if own.scores == "absolute" and not own.sigma and not own.jitter:
            return absolute(logits)
        rng = np.random.default_rng(rng_for(own.seed, content, "scores").getrandbits(64))
        logits = noisy(logits, own.sigma, rng)
        logits = jittered(logits, rng) if own.jitter else logits
        return absolute(logits) if own.scores == "absolute" else relative(logits, own.family, rng)


def _cut(texts: list[str], counts: NDArray[np.int64], most: int) -> list[str]:
    """Cut each text that is over so many tokens, in proportion to its characters."""
    if counts.max() <= most:
        return texts
    return [
        text[: max(1, len(text) * most // count)] if count > most else text
        for text, count in zip(texts, counts.tolist(), strict=True)
    ]
