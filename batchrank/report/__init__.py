"""One self-contained HTML file that tells how a run went."""

from batchrank.report.facts import Facts, gather
from batchrank.report.page import render

__all__ = ["Facts", "gather", "render"]
