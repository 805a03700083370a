"""Stage 3: a chunk -> its scores. Ledger, turn, HTTP, retry; every answer is durable before it is used."""

from batchrank.send.counts import Counts, Encoded, Errand, Meter
from batchrank.send.dispatch import Dispatcher
from batchrank.send.http import Http
from batchrank.send.places import Places
from batchrank.send.sender import Sender
from batchrank.send.spend import Spend

__all__ = [
    "Counts",
    "Dispatcher",
    "Encoded",
    "Errand",
    "Http",
    "Meter",
    "Places",
    "Sender",
    "Spend",
]
