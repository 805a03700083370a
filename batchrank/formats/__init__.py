"""File formats: records of the input, and parts of the output. The table is in ``table``."""

from batchrank.formats.base import Gauge, Item, OutputFormat, PartWriter, Segment, Source, Unrecognised
from batchrank.formats.table import INPUTS, OUTPUTS, TEXT_SUFFIXES

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "TEXT_SUFFIXES",
    "Gauge",
    "Item",
    "OutputFormat",
    "PartWriter",
    "Segment",
    "Source",
    "Unrecognised",
]
