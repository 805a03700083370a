"""What requests are known by: their keys, their question, and the content of their documents."""

from typing import Any

import numpy as np

from batchrank.data import Candidate, Content, Image, Query, Video
from batchrank.models import Template
from batchrank.send.encoder import Encoder
from batchrank.wire import tailored


def encoder(wire: str = "dashscope-native", template: Template | None = None, **options: Any) -> Encoder:
    given = {"scope": "somebody", "model": "m", "instruct": None, "fps": None} | options
    return Encoder(tailored(wire, template, {}), **given)


def query(text: str = "q", documents: tuple[str, ...] = ("a", "b")) -> Query:
    return Query.of("id", text, [Candidate(None, document) for document in documents])


def test_the_question_is_all_but_the_documents() -> None:
    """Other documents: the same question; another query, model, instruct, prompt, wire or endpoint: another one."""
    asked = encoder().question(query())
    assert asked == encoder().question(query(documents=("c",))) and -(2**63) <= asked < 2**63
    prompt = Template(document="Document: {document}")
    others = [
        encoder().question(query("other")),
        encoder(model="n").question(query()),
        encoder(instruct="Rank.").question(query()),
        encoder(fps=0.5).question(query()),
        encoder(scope="somebody else").question(query()),
        encoder("cohere").question(query()),
        encoder("cohere", prompt).question(query()),
    ]
    assert len({asked, 0, *others}) == 2 + len(others)


def test_a_document_is_known_by_its_content() -> None:
    """Eight bytes each, in order, by which a ledger knows it for ever; its kind counts too, and broken UTF-8 is a text.

    The first digest is that of ``printf a | b2sum -l 64``.
    """
    assert Encoder.contents(["a"]).hex() == "40f89e395b66422f"
    address = "http://example.com/1"
    items: list[Content] = ["a", "b", "a", "\ud800", address, Image(address), Video(address)]
    found = np.frombuffer(Encoder.contents(items), dtype="<u8")
    assert len(found) == 7 and len(set(found.tolist())) == 6 and found[0] == found[2]
    texts = [item for item in items if isinstance(item, str)]
    assert Encoder.contents(texts) == found[:5].tobytes()
    assert Encoder.contents([Image(address, (5, 5))]) == found[5:6].tobytes()
    assert Encoder.contents([]) == b""


def test_a_salt_makes_another_request_of_the_same_body() -> None:
    """So a known one can be asked anew; without a salt the key is what it was."""
    one, other = (encoder().encode(query(), np.arange(2), salt=salt) for salt in (b"", b"audit"))
    assert one.body == other.body and one.key != other.key
    assert one.key == encoder().encode(query(), np.arange(2)).key


def test_the_key_of_an_older_batchrank_is_told_where_it_may_be_known() -> None:
    """It is the key that the old scope gives."""
    known = encoder(scope="http://host\ndashscope\n").encode(query(), np.arange(2))
    now = encoder(old_scope="http://host\ndashscope\n").encode(query(), np.arange(2))
    assert known.old_key is None
    assert now.old_key == known.key != now.key
    assert encoder(old_scope="x").encode(query(), np.arange(2), salt=b"s").old_key is None
