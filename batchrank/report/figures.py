"""The report's plots: matplotlib draws them as SVG, whose colours the page's style decides, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batchrank.errors import MissingExtraError, install_line
from batchrank.records import Floats

_INK, _GRID = "#010203", "#010204"
SERIES = ("#010205", "#010206", "#010207")
_VARIABLES = {
    _INK: "var(--ink)",
    _GRID: "var(--grid)",
    SERIES[0]: "var(--one)",
    SERIES[1]: "var(--two)",
    SERIES[2]: "var(--three)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "grid.color": _GRID,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
}
_SIZE = (4.6, 2.5)
Draw = Callable[[Any], None]


def figure(name: str, draw: Draw) -> str:
    """One plot as an SVG element that fills the width it is given.

    Args:
        name: of the plot; no other one in the page has it.
        draw: puts the plot on matplotlib axes.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(f"report: matplotlib is needed: {install_line('report')}") from None
    style: Any = _STYLE | {"svg.hashsalt": name}
    with rc_context(style):
        made = Figure(figsize=_SIZE, layout="constrained")
        draw(made.add_subplot())
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        made.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _embedded(file.getvalue(), name)


def _embedded(svg: str, name: str) -> str:
    """The drawing without what only a file of its own needs, its colours those of the page, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'\sxmlns(?::xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def over_time(lines: Mapping[str, Floats], seconds: float, label: str, *, top: float | None = None) -> Draw:
    """Values by time, one line each; ``seconds`` between two values."""

    def draw(axes: Any) -> None:
        scale, unit = _unit(seconds * max(len(values) for values in lines.values()))
        for (name, values), colour in zip(lines.items(), SERIES, strict=False):
            times = np.arange(len(values)) * seconds / scale
            axes.plot(times, values, color=colour, label=name, drawstyle="steps-post")
        axes.set_xlabel(unit)
        axes.set_ylabel(label)
        axes.set_ylim(0, top)
        axes.margins(x=0)
        if len(lines) > 1:
            axes.figure.legend(loc="outside upper right", ncols=2)

    return draw


def _unit(seconds: float) -> tuple[float, str]:
    if seconds > 3 * 3600:
        return 3600, "hours"
    return (60, "minutes") if seconds > 300 else (1, "seconds")


def bars(
    edges: Sequence[float], counts: Sequence[float], xlabel: str, ylabel: str, *, log: bool = False
) -> Draw:
    """A histogram; one more edge than counts."""

    def draw(axes: Any) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SERIES[0], linewidth=0)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return draw


def histogram(values: Sequence[float], xlabel: str, ylabel: str, *, bins: int = 24) -> Draw:
    """How often which value comes."""
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=bins)
    return bars(edges.tolist(), counts.tolist(), xlabel, ylabel)


def named(values: Mapping[str, float], xlabel: str) -> Draw:
    """One bar a name, the longest on top."""

    def draw(axes: Any) -> None:
        items = sorted(values.items(), key=lambda item: item[1])
        names = [name[:28] for name, _ in items]
        axes.barh(range(len(items)), [value for _, value in items], color=SERIES[0], height=0.6)
        axes.set_yticks(range(len(items)), names)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)

    return draw


def pairs(before: Mapping[str, float], after: Mapping[str, float]) -> Draw:
    """Two bars a name: before and after."""

    def draw(axes: Any) -> None:
        at = np.arange(len(before))
        axes.bar(at - 0.2, list(before.values()), 0.38, color=SERIES[1], label="before")
        axes.bar(at + 0.2, list(after.values()), 0.38, color=SERIES[0], label="after")
        axes.set_xticks(at, list(before))
        axes.set_ylim(0, 1)
        axes.grid(axis="x", visible=False)
        axes.figure.legend(loc="outside upper right", ncols=2)

    return draw
