"""Which plots a report shows, from its facts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchrank.report.facts import Facts
from batchrank.report.plots import Draw, bars, figure, histogram, named, over_time, pairs


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
    add("rankings", "Requests a query", text, bars(edges, counts, "requests", "queries"))
