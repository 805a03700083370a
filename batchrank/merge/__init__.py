"""Scores of many requests -> one ranking. A merge method is a plain generator of rounds."""

from batchrank.merge.methods import METHODS, start
from batchrank.merge.rounds import Consult, Method, Round, Shards, Step

__all__ = ["METHODS", "Consult", "Method", "Round", "Shards", "Step", "start"]
