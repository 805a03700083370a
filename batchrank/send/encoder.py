"""Makes requests of queries and documents: the body that is sent, and the key that the ledger knows it by."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from batchrank.arrays import Positions
from batchrank.content import Content
from batchrank.data import Query
from batchrank.requests import Request
from batchrank.send.counts import Encoded
from batchrank.wire import Codec

_HARMLESS: tuple[str, list[str]] = ("copy a file", ["Copy a file from one folder to another."])
"""What the endpoint is asked to see whether it works."""


class Encoder:
    """Encodes requests; all of a run ask the same model in the same way. Safe to use in another thread.

    Args:
        codec: the wire format.
        scope: what a request's key depends on besides its body: endpoint and wire format.
        model: the model's name as the endpoint knows it.
        instruct: the ranking instruction, None for the model's own.
        fps: frames of each second of a video, None for the model's own choice.
    """

    def __init__(
        self, codec: Codec, *, scope: str, model: str, instruct: str | None, fps: float | None
    ) -> None:
        self._codec = codec
        self._scope = hashlib.sha256(scope.encode())
        self._model = model
        self._instruct = instruct
        self._fps = fps

    def encode(self, query: Query, documents: Positions) -> Encoded:
        """The request of these documents; takes a while where they are many.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        body = self._body(query.text, _taken(query.documents, documents))
        digest = self._scope.copy()
        digest.update(body)
        return Encoded(body, digest.digest()[:16])

    def of_query(self, query: Query) -> Query:
        """The same query with one document that nothing has a reason to fail with."""
        return replace(query, doc_ids=["harmless"], documents=_HARMLESS[1], first_stage_scores=None)

    def harmless(self) -> bytes:
        """The body of a request that no endpoint has a reason to fail."""
        return self._body(*_HARMLESS)

    def _body(self, query: Content, documents: Sequence[Content]) -> bytes:
        return self._codec.body(Request(self._model, query, documents, self._instruct, self._fps))


def _taken(documents: Sequence[Content], positions: Positions) -> Sequence[Content]:
    """Those at ascending positions; all of them need no copy."""
    if len(positions) == len(documents):
        return documents
    return list(map(documents.__getitem__, positions.tolist()))
