"""The ledger: every paid answer, durable before it is used. SQLite, one process at a time."""

from batchrank.ledger.departures import Departures
from batchrank.ledger.entries import DOCUMENTS, Kind, Known, Spent, pack, unpack
from batchrank.ledger.group import Work
from batchrank.ledger.ledger import Ledger

__all__ = ["DOCUMENTS", "Departures", "Kind", "Known", "Ledger", "Spent", "Work", "pack", "unpack"]
