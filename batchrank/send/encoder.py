"""Makes requests of queries and documents, and the keys by which the ledger knows what was asked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from batchrank.data import Content, Positions, Query, Request
from batchrank.ledger.entries import About
from batchrank.send.admission import Priority
from batchrank.send.fleet import Replica
from batchrank.wire import Codec

_DIGEST = 8
"""Bytes of the digest of a question or of a document's content. Of a list of 10,000 documents two differ in content and
not in digest less than once in 10**11 lists."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """One request: made of a query's documents, looked up in the ledger, and sent where that lacks it.

    Attributes:
        key: what the ledger knows it by.
        body: what is sent.
        documents: how many it holds.
        predicted: the tokens it is expected to cost, set right before it is sent; a count if ``exact``, else perhaps
            an upper bound.
        priority: query, round and chunk; the smallest goes first.
        purpose: why it is sent: a ``probe`` only tells whether the endpoint works.
        old_key: what a ledger of an older batchrank may know it by; None where there is no such ledger.
        about: what its answer will be about, where that is to serve document by document.
        met: servers that it failed at so far, ``replica`` the last that it was sent to.
        only: the one server that it is for; None for any.
        by: the number in the ledger of that replica and the key that it was asked with last; None before.
    """

    key: bytes
    body: bytes
    documents: int
    predicted: int = 0
    exact: bool = False
    priority: Priority = (-1, 0, 0)
    purpose: Literal["scores", "probe"] = "scores"
    old_key: bytes | None = None
    about: About | None = None
    met: list[Replica] = field(default_factory=list)
    replica: Replica | None = None
    only: Replica | None = None
    by: int | None = None


_HARMLESS: tuple[str, list[str]] = ("copy a file", ["Copy a file from one folder to another."])
"""What the endpoint is asked to see whether it works."""


class Encoder:
    """Encodes requests; all of a run ask the same model in the same way. Safe to use in another thread.

    Args:
        codec: the wire format.
        scope: what a request's key depends on besides its body: who answers, and the wire format.
        old_scope: the same as an older batchrank had it, where the ledger holds answers from then.
        model: the model's name as the endpoint knows it.
        instruct: the ranking instruction, None for the model's own.
        fps: frames of each second of a video, None for the model's own choice.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        scope: str,
        model: str,
        instruct: str | None,
        fps: float | None,
        old_scope: str | None = None,
    ) -> None:
        self._codec = codec
        self._scope = hashlib.sha256(scope.encode())
        self._old_scope = None if old_scope is None else hashlib.sha256(old_scope.encode())
        self._question = hashlib.blake2b(scope.encode(), digest_size=_DIGEST)
        self._model = model
        self._instruct = instruct
        self._fps = fps

    def encode(self, query: Query, documents: Positions, *, salt: bytes = b"") -> Outgoing:
        """The request of these documents; takes a while where they are many.

        Args:
            query: what is asked.
            documents: positions of the documents.
            salt: makes another key of it, so that what is known is asked again.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        texts = query.documents  # all of them, in their order, need no copy
        if len(documents) < len(texts) or (documents[1:] < documents[:-1]).any():
            texts = list(map(texts.__getitem__, documents.tolist()))
        body = self._body(query.text, texts)
        old = None if self._old_scope is None or salt else _key(self._old_scope, body)
        return Outgoing(_key(self._scope, salt, body), body, len(documents), old_key=old)

    def question(self, query: Query) -> int:
        """The digest, as a signed 64-bit number other than 0, of all that is asked but the documents.

        Raises:
            JobError: the wire can't say what the query holds.
        """
        digest = self._question.copy()
        digest.update(self._body(query.text, _HARMLESS[1]))
        return int.from_bytes(digest.digest(), "big", signed=True) or 1

    @staticmethod
    def contents(documents: Sequence[Content]) -> bytes:
        """The digests of documents' contents, eight bytes each, in order."""
        if not set(map(type, documents)) <= {str}:
            return b"".join(map(_content, documents))
        texts = cast(Sequence[str], documents)
        try:
            encoded = list(map(str.encode, texts))
        except UnicodeEncodeError:  # a lone surrogate
            encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        # It is done for every document that is sent: a copy takes two thirds of the time of a digest that is set up.
        copy, found = hashlib.blake2b(digest_size=_DIGEST).copy, []
        for text in encoded:
            digest = copy()
            digest.update(text)
            found.append(digest.digest())
        return b"".join(found)

    def of_query(self, query: Query) -> Query:
        """The same query with one document that nothing has a reason to fail with."""
        return replace(query, doc_ids=["harmless"], documents=_HARMLESS[1], first_stage_scores=None)

    def harmless(self) -> bytes:
        """The body of a request that no endpoint has a reason to fail."""
        return self._body(*_HARMLESS)

    def _body(self, query: Content, documents: Sequence[Content]) -> bytes:
        return self._codec.body(Request(self._model, query, documents, self._instruct, self._fps))


def _key(scope: "hashlib._Hash", *parts: bytes) -> bytes:
    digest = scope.copy()
    for part in parts:
        digest.update(part)
    return digest.digest()[:16]


def _content(item: Content) -> bytes:
    """The digest of one document; an image is another one than a text that is its address."""
    value = item if isinstance(item, str) else item.value
    kind = b"" if isinstance(item, str) else item.kind.encode()
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST, person=kind).digest()
