"""Stage 3: turns a chunk into its scores; every answer is durable before it is used.

What one request passes through, from the outside in: ``sender`` (ledger, halving), ``client`` (retries),
``exchange`` (turn, reservation, one attempt), ``http``. ``outage`` and ``probe`` tell an endpoint that is down from
a bad request.
"""

from batchrank.send.account import Before, Budget
from batchrank.send.counts import Counts, Encoded, Errand, Meter
from batchrank.send.dispatch import Dispatcher
from batchrank.send.encoder import Encoder
from batchrank.send.http import Http
from batchrank.send.places import Places
from batchrank.send.quantity import Taken
from batchrank.send.sender import Sender
from batchrank.send.spend import Spend
from batchrank.send.together import together

__all__ = [
    "Before",
    "Budget",
    "Counts",
    "Dispatcher",
    "Encoded",
    "Encoder",
    "Errand",
    "Http",
    "Meter",
    "Places",
    "Sender",
    "Spend",
    "Taken",
    "together",
]
