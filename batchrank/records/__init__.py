"""All data that flows between the stages. Every record is frozen.

Positions: a *document position* counts a query's candidates from 0 in first-stage order; it is what
arrays of documents hold. A *query position* counts the queries of the input from 0.
"""

from batchrank.records.arrays import Floats, Positions, taken
from batchrank.records.content import Content, Image, Kind, Video
from batchrank.records.merging import Chunk, Merged, Overlap, Scores, Verdict
from batchrank.records.queries import Candidate, Query, is_blank
from batchrank.records.rankings import Failure, QueryCost, Ranking
from batchrank.records.requests import Answer, Rejection, Request

__all__ = [
    "is_blank",
    "taken",
    "Answer",
    "Candidate",
    "Chunk",
    "Content",
    "Failure",
    "Floats",
    "Image",
    "Kind",
    "Merged",
    "Overlap",
    "Positions",
    "Query",
    "QueryCost",
    "Ranking",
    "Rejection",
    "Request",
    "Scores",
    "Verdict",
    "Video",
]
