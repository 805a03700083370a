"""Draws the report's plots from its facts: SVG by matplotlib, whose colours the page's style decides."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchrank.data import Floats
from batchrank.errors import MissingExtraError, install_line
from batchrank.observe.facts import Facts

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
"""Inches: two plots stand side by side on a page."""
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


def over_time(lines: Mapping[str, Floats], seconds: float, label: str) -> Draw:
    """Values by time, one line each; ``seconds`` between two values."""

    def draw(axes: Any) -> None:
        scale, unit = _unit(seconds * max(len(values) for values in lines.values()))
        for (name, values), colour in zip(lines.items(), SERIES, strict=False):
            edges = (
                np.arange(len(values) + 1) * seconds / scale
            )  # with its end, without which one value is no line
            axes.plot(edges, [*values, *values[-1:]], color=colour, label=name, drawstyle="steps-post")
        axes.set_xlabel(unit)
        axes.set_ylabel(label)
        axes.set_ylim(0, None)
        axes.margins(x=0)
        if len(lines) > 1:
            axes.figure.legend(loc="outside upper right", ncols=2)

    return draw


def _unit(seconds: float) -> tuple[float, str]:
    if seconds > 3 * 3600:
        return 3600, "hours"
    return (60, "minutes") if seconds > 300 else (1, "seconds")


def bars(
    edges: Sequence[float],
    counts: Sequence[float],
    xlabel: str,
    ylabel: str,
    *,
    log: bool = False,
    whole: bool = False,
) -> Draw:
    """A histogram; one more edge than counts, and ``whole`` where only whole numbers come."""

    def draw(axes: Any) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SERIES[0], linewidth=0)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        axes.yaxis.get_major_locator().set_params(integer=True)
        if whole:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return draw


def histogram(values: Sequence[float], xlabel: str, ylabel: str, *, bins: int = 24) -> Draw:
    """How often which value comes; few whole numbers have a bar each."""
    found = np.asarray(values, dtype=np.float64)
    whole = found.size > 0 and bool((found == np.round(found)).all())
    if whole and np.ptp(found) < bins:
        counts, edges = np.histogram(found, bins=np.arange(found.min() - 0.5, found.max() + 1))
    else:
        counts, edges = np.histogram(found, bins=bins)
    return bars(edges.tolist(), counts.tolist(), xlabel, ylabel, whole=whole)


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


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with what it says.

    Attributes:
        title: what it shows.
        text: how to read it.
        svg: the drawing.
    """

    title: str
    text: str
    svg: str


def plots(facts: Facts) -> dict[str, list[Plot]]:
    """The plots by the section they belong to; those without data are left out."""
    made: dict[str, list[Plot]] = {"time": [], "answers": [], "rankings": [], "quality": []}

    def add(section: str, title: str, text: str, draw: Draw) -> None:
        number = sum(map(len, made.values()))
        made[section].append(Plot(title, text, figure(f"plot{number}", draw)))

    process = facts.summary["process"]
    timeline = process.get("timeline") or {}
    if any((timeline.get("series") or {}).get("sent", ())):
        _over_time(add, timeline)
        _answers(add, timeline)
    failures = {**process["retries"]}
    if failures:
        text = "Attempts that were repeated, by the API's error code."
        add("answers", "Retries by kind", text, named(failures, "attempts"))
    _rankings(add, facts)
    evaluation = facts.evaluation
    if evaluation is not None and all(c.before is not None for c in evaluation.comparisons):
        before = {c.measure: c.before or 0.0 for c in evaluation.comparisons}
        after = {c.measure: c.after for c in evaluation.comparisons}
        add(
            "quality",
            "Before and after",
            "The first stage's order, and the reranked one.",
            pairs(before, after),
        )
    return made


def _over_time(add: Any, timeline: dict[str, Any]) -> None:
    seconds = timeline["seconds"]
    series = {name: np.asarray(values, dtype=np.float64) for name, values in timeline["series"].items()}
    text = f"Documents in answered requests, each point {seconds:g} s."
    draw = over_time({"documents/s": series["documents"] / seconds}, seconds, "documents/s")
    add("time", "Throughput", text, draw)
    text = "The part of the scarcer quota (requests or tokens) that was used; 1 is all of it."
    add("time", "Quota use", text, over_time({"quota": series["quota"]}, seconds, "part of the quota"))
    text = "The most requests that were in flight."
    add("time", "In flight", text, over_time({"in flight": series["in_flight"]}, seconds, "requests"))
    if series["throttled"].any() or series["failed"].any():
        lines = {"throttled (429)": series["throttled"], "failed": series["failed"]}
        text = "Attempts that gave no answer, by when they ended."
        add("time", "Refusals and failures", text, over_time(lines, seconds, "attempts"))


def _answers(add: Any, timeline: dict[str, Any]) -> None:
    bounds, counts = timeline["latency"]["bounds"], timeline["latency"]["counts"]
    known = np.flatnonzero(counts)
    if len(known):
        first, last = int(known[0]), int(known[-1]) + 1
        edges = [bounds[0] / 2**0.5, *bounds, bounds[-1] * 2][first : last + 1]
        draw = bars(edges, counts[first:last], "seconds", "answers", log=True)
        add("answers", "Latency", "Seconds from a request to its answer.", draw)
    fill = timeline["fill"]
    if any(fill):
        edges = np.linspace(0, 100, len(fill) + 1).tolist()
        text = "How near each request came to the nearest of its limits, documents or tokens."
        add("answers", "Chunk fill", text, bars(edges, fill, "% of the limit", "requests"))


def _rankings(add: Any, facts: Facts) -> None:
    queries = facts.queries
    if not queries.certified:
        return
    text = "The rank to which each query's order is proven to be the model's own."
    draw = histogram([depth for depth in queries.certified if depth is not None], "rank", "queries")
    add("rankings", "Certified depth", text, draw)
    drift = [value for value in queries.drift if value is not None]
    if drift:
        text = "How much a document's score differed between two requests: the median of each query."
        add("rankings", "Score drift", text, histogram(drift, "difference on the output scale", "queries"))
    text = "Requests that each query took, repairs and hubs included."
    top = max(queries.requests) + 1
    counts = np.bincount(queries.requests, minlength=top).tolist()
    edges = (np.arange(top + 1) - 0.5).tolist()
    add("rankings", "Requests a query", text, bars(edges, counts, "requests", "queries", whole=True))
