"""The ledger: every paid answer, durable before it is used. SQLite, one process at a time."""

from batchrank.ledger.departures import Departures
from batchrank.ledger.entries import DOCUMENTS, Kind, Known, Searches, Spent, pack, unpack
from batchrank.ledger.group import Work
from batchrank.ledger.ledger import Ledger, Per

__all__ = [
    "DOCUMENTS",
    "Departures",
    "Kind",
    "Known",
    "Ledger",
    "Per",
    "Searches",
    "Spent",
    "Work",
    "pack",
    "unpack",
]
