"""Draws how each query's value differs between two rankings: what a mean hides, a few queries that lost a lot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchrank.errors import JobError, MissingExtraError, OutputError, install_line
from batchrank.quality.measures import Values

_NAMED = 40
"""Queries up to which each bar has its name."""
_LETTERS = 30
"""Of a name, so that a long one leaves room for the bars."""
_BETTER, _WORSE = "#2a6f97", "#c1762f"
_WIDTH, _HEIGHT = 8.0, 2.6
"""Inches, of one run's bars."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "batchrank",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(path: Path, measure: str, compared: Mapping[str, tuple[Values, Values]]) -> None:
    """Write a picture: for each comparison the queries' differences as bars, the largest gain first.

    Args:
        path: the file; its suffix tells the format, such as .svg, .png or .pdf.
        measure: what the values are.
        compared: by a title, the values by query before and after.

    Raises:
        JobError: the format is unknown.
        MissingExtraError: matplotlib isn't installed.
        OutputError: the file can't be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(f"eval --plot: matplotlib is needed: {install_line('report')}") from None
    style: Any = _STYLE
    with rc_context(style):
        made = Figure(figsize=(_WIDTH, _HEIGHT * len(compared)), layout="constrained")
        all_axes = made.subplots(len(compared), 1, sharey=True, squeeze=False)[:, 0]
        for axes, (title, (before, after)) in zip(all_axes, compared.items(), strict=True):
            _bars(axes, title, measure, before, after)
        kind = path.suffix.lower().lstrip(".")
        if kind not in made.canvas.get_supported_filetypes():
            raise JobError(
                f"eval --plot {path}: no picture ends in {path.suffix!r}; name a .svg, .png or .pdf"
            )
        try:
            made.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        except OSError as error:
            raise OutputError(f"eval --plot {path}: can't be written: {error.strerror or error}") from None


def _bars(axes: Any, title: str, measure: str, before: Values, after: Values) -> None:
    queries = sorted(after, key=lambda query: (before[query] - after[query], query))
    values = np.array([after[query] - before[query] for query in queries])
    places = np.arange(len(queries))
    axes.bar(places, values, width=1.0 if len(queries) > _NAMED else 0.8, color=_colours(values))
    axes.axhline(0, linewidth=0.8, color="black")
    axes.set_title(
        f"{title}: {int((values > 0).sum()):,} better, {int((values < 0).sum()):,} worse, "
        f"{int((values == 0).sum()):,} the same",
        loc="left", fontsize=9,
    )  # fmt: skip
    axes.set_ylabel(f"difference in {measure}")
    axes.margins(x=0.01)
    if len(queries) <= _NAMED:
        axes.set_xticks(places, [query[:_LETTERS] for query in queries], rotation=60, ha="right", fontsize=7)
    else:
        axes.set_xlabel("queries, the largest gain first")


def _colours(values: Any) -> list[str]:
    return [_BETTER if value > 0 else _WORSE for value in values]
