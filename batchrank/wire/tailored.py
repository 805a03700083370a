"""Makes a wire format say what a job adds to it: the model's own prompt around texts, and further fields."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrank.content import Content
from batchrank.errors import JobError
from batchrank.models import Template
from batchrank.requests import Answer, Request

if TYPE_CHECKING:
    from batchrank.wire import Codec


@dataclass(frozen=True, slots=True)
class Tailored:
    """A codec as a job wants it.

    Attributes:
        codec: the wire format.
        template: the prompt around query and documents, None for none.
        extra: fields that go with every request.
    """

    codec: "Codec"
    template: Template | None = None
    extra: Mapping[str, Any] | None = None

    def body(self, request: Request) -> bytes:
        """Encode a request; where the instruct is part of the prompt it is not sent beside it.

        Raises:
            JobError: the request asks for what the format can't say, or for a prompt around an image or a video.
        """
        if self.template is not None:
            request = _prompted(request, self.template)
        return self.codec.body(replace(request, extra=self.extra))

    def answer(self, data: object, documents: int) -> Answer:
        """Decode an answer to a request of so many documents."""
        return self.codec.answer(data, documents)


def _prompted(request: Request, template: Template) -> Request:
    before_query, after_query = template.around_query(request.instruct)
    before, after = template.around_document(request.instruct)
    return replace(
        request,
        query=before_query + _text(request.query) + after_query,
        documents=[before + _text(document) + after for document in request.documents],
        instruct=None if template.instructs else request.instruct,
    )


def _text(item: Content) -> str:
    if not isinstance(item, str):
        raise JobError("endpoint.template: a prompt goes around texts only, not around images or videos")
    return item
