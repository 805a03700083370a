"""Tells what the ledger's rows hold, packs scores, and makes the digests by which damage is noticed."""

import zlib
from typing import Any

import numpy as np

from batchrank.data import Floats

DAY = 86_400
"""Seconds."""
ANSWER = (
    "key, run, known, day, at, tokens, predicted, searches, question, purpose, request_id, scores, contents, "
    "server"
)
"""The columns that an answer's digest covers."""
ROWS = {
    "rejections": "key, status, code, message, request_id, run, question, server",
    "attempts": "key, kind, status, code, message, request_id, predicted, run, documents, day, server",
    "sent": "key, predicted, run, documents, day, server",
    "state": "name, value",
    "paid": (
        "run, day, answers, tokens, predicted, documents, searches, expected, unnamed, "
        "ratio, hidden, search_ratio, search_hidden"
    ),
    "servers": "id, url, key_name",
}
"""The same for the other tables: all but the run that used it last, which decides nothing that is paid."""


def checksum(*values: object) -> int:
    """The digest of a row's values."""
    return zlib.crc32(repr(values).encode())


def server_checksum(*values: object) -> int:
    """The digest of a row that ends with its server: that of the rest where nobody knows it, as before schema 5."""
    return zlib.crc32(repr(values if values[-1] is not None else values[:-1]).encode())


def answer_checksum(*values: Any) -> int:
    """The digest of an answer's values, in the order of ``ANSWER``; without its server where nobody knows it.

    Raises:
        TypeError: its scores or contents are no bytes.
    """
    *facts, scores, contents, server = values
    if server is not None:
        facts.append(server)
    lengths = len(scores), None if contents is None else len(contents)
    return zlib.crc32(repr((facts, lengths)).encode(), zlib.crc32(contents or b"", zlib.crc32(scores)))


def pack(values: Floats) -> bytes:
    """Scores as bytes: single precision where that loses nothing, else double; the first byte tells."""
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    if np.array_equal(single.astype(np.float64), values):
        return b"4" + single.tobytes()
    return b"8" + values.astype("<f8").tobytes()


def unpack(data: bytes) -> Floats:
    """The scores that ``pack`` stored, to the last bit."""
    return np.frombuffer(data, dtype="<f4" if data[:1] == b"4" else "<f8", offset=1).astype(np.float64)
