"""Wire formats: request -> body, body -> scores. A codec is pure: it knows JSON, not HTTP.

Adding a wire format is one file with a class that satisfies ``Codec``, and one row in ``CODECS``.
"""

from typing import Protocol

from batchrank.records import Answer, Request
from batchrank.wire.dashscope import DashScope


class Codec(Protocol):
    """One wire format, both directions."""

    def body(self, request: Request) -> bytes:
        """The request's JSON body; the same request always gives the same bytes."""

    def answer(self, data: object, documents: int) -> Answer:
        """The scores in a decoded answer to a request of so many documents.

        Raises:
            MalformedAnswerError: the answer does not score each document exactly once.
        """


CODECS: dict[str, Codec] = {"dashscope": DashScope()}
