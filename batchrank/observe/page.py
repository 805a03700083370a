"""Makes the report's page of its facts: one HTML file that needs no network and runs no script."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batchrank.bars import duration
from batchrank.errors import MissingExtraError, escaped, install_line
from batchrank.observe.facts import Facts
from batchrank.observe.plots import plots
from batchrank.send.stats import quantile
from batchrank.version import __version__

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: names of its columns, and its rows; columns from ``numbers`` on are numbers."""

    head: Row
    rows: Sequence[Row]
    numbers: int = 1


def render(facts: Facts) -> str:
    """The report as HTML. Whatever comes from the data is escaped by the template engine.

    Raises:
        MissingExtraError: jinja2 or matplotlib isn't installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError(f"report: jinja2 is needed: {install_line('report')}") from None
    environment = Environment(
        loader=PackageLoader("batchrank.observe"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_seen,
    )  # fmt: skip
    summary = facts.summary
    return environment.get_template("report.html.j2").render(
        summary=summary,
        state=_state(summary),
        when=_time(summary["process"].get("ended") or ""),
        tiles=list(_tiles(summary)),
        asked=Table(("", ""), list(_asked(summary)), 2),
        spent=_spent(facts),
        bills=Table(("", ""), list(_bills(summary))),
        failures=_failures(facts),
        dead_letters=_dead_letters(facts),
        slowest=_slowest(summary),
        moved=facts.moved,
        quality=_quality(facts),
        plots=plots(facts),
        notes=[
            *_rerun(summary),
            *summary["notices"],
            *facts.notes,
            *(facts.evaluation.notes if facts.evaluation else ()),
        ],
        version=__version__,
    )


def _seen(value: Any) -> Any:
    """What data say as what it is: neither a change of direction nor a control character steers the page."""
    return escaped(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _state(summary: dict[str, Any]) -> tuple[str, str]:
    """A word for the page's mark, and a sentence."""
    if not summary["complete"]:
        return "stopped", f"stopped early: {summary['reason']}"
    failed, gate = summary["totals"]["failed"], summary.get("gate")
    some = f", but {failed:,} {'query' if failed == 1 else 'queries'} failed" if failed else ""
    if gate is not None and not gate["passed"]:
        if when := gate.get("accepted"):
            return "partly", f"complete{some}; did not pass its gate, accepted on {when[:10]}"
        return "stopped", f"complete{some}; did NOT pass its gate"
    passed = "" if gate is None else "; passed its gate"
    return "partly" if failed else "complete", f"complete{some}{passed}"


def _rerun(summary: dict[str, Any]) -> Iterator[str]:
    if "rerun" in summary:
        yield "the job was run again since, which asked nothing: bill and times are those of the run that asked"


def _tiles(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    totals, spend, process = summary["totals"], summary["spend"], summary["process"]
    yield "queries ranked", f"{totals['queries']:,}"
    yield "documents ranked", f"{totals['documents']:,}"
    yield "spent", _money(spend["cost"], spend["currency"]) or f"{spend['tokens']:,} tokens"
    yield "time, last process", duration(process["seconds"])
    yield "documents a second", f"{process['documents_per_second']:,.0f}"
    latency = (process.get("timeline") or {}).get("latency", {}).get("counts", ())
    half, most = quantile(latency, 0.5), quantile(latency, 0.95)
    if half is not None and most is not None:
        yield "latency at most, p50 / p95", f"{_short(half)} / {_short(most)}"
    top = summary["job"]["merge"]["top_k"]
    share = totals["certified"] / totals["queries"] if totals["queries"] else 0.0
    yield f"exact to depth {top}", f"{share:.0%}"


def _short(seconds: float) -> str:
    """A latency in few digits."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _asked(summary: dict[str, Any]) -> Iterator[Row]:
    job = summary["job"]
    model = job["model"]
    yield "job", str(summary["name"])
    if started := summary["process"].get("started"):
        yield "last process", f"{_time(started)} to {_time(summary['process']['ended'])}"
    yield "input", ", ".join(job["input"]["path"])
    yield "model", model if isinstance(model, str) else ", ".join(f"{k}: {v}" for k, v in model.items())
    own = job["endpoint"]
    yield (
        "endpoint",
        ", ".join(own.get("urls") or ())
        or str(own["url"] or f"the model's own, region {own['region'] or 'default'}"),
    )
    yield "instruct", job["instruct"] or "the model's own"
    yield "merge", f"{job['merge']['method']}, exact to depth {job['merge']['top_k']}"
    scores = summary["verdict"]["declared"]
    found = ", ".join(f"{name} {count:,}" for name, count in summary["totals"]["verdicts"].items())
    yield "scores across requests", f"declared {scores}" + (f"; found: {found} (queries)" if found else "")
    budget = job["budget"]
    caps = [f"{budget[name]:g} ({name})" for name in ("max_cost", "max_tokens") if budget[name] is not None]
    yield "budget", f"{', '.join(caps)} per {budget.get('per', 'run')}" if caps else "no cap"
    yield "output", f"{job['output']['path']} ({job['output']['format']})"
    yield "batchrank", summary["versions"]["batchrank"]


def _spent(facts: Facts) -> Table | None:
    """What the run took against what was to be expected."""
    totals, spend = facts.summary["totals"], facts.summary["spend"]
    plan = facts.plan
    planned = (
        "planned" if plan is None or plan.exact else "estimated" if plan.estimated else "planned at most"
    )
    head: Row = ("", "this run", "one pass", planned, "difference")
    bill = facts.plan.methods[facts.summary["job"]["merge"]["method"]] if facts.plan else None
    rows = [
        _against("requests", totals["requests"], totals["chunks"], bill.requests if bill else None),
        _against("documents sent", totals["sent"], totals["one_pass"], bill.documents if bill else None),
        _against("tokens", totals["tokens"], None, bill.tokens if bill else None),
    ]
    if spend["cost"] is not None:
        unit = spend["currency"]
        cost = bill.cost if bill else None
        rows.append(
            (f"cost, {unit}", f"{spend['cost']:,.4f}", "", "" if cost is None else f"{cost:,.4f}",
             _difference(spend["cost"], cost))
        )  # fmt: skip
    return Table(head, rows)


def _against(name: str, value: float, one_pass: float | None, planned: float | None) -> Row:
    return (
        name, f"{value:,}", "" if one_pass is None else f"{one_pass:,}",
        "" if planned is None else f"{planned:,}", _difference(value, planned),
    )  # fmt: skip


def _difference(value: float, planned: float | None) -> str:
    return f"{value / planned - 1:+.1%}" if planned else ""


def _bills(summary: dict[str, Any]) -> Iterator[Row]:
    spend, process = summary["spend"], summary["process"]
    if spend["predicted_tokens"]:
        yield "tokens predicted, where they were counted", f"{spend['predicted_tokens']:,}"
        yield "tokens billed for the same requests", f"{spend['billed_tokens']:,}"
        yield "drift", f"{spend['drift']:+.2%}"
    else:
        yield "drift", "unknown (not counted)"
    yield "saved by answers of earlier runs, tokens", f"{spend['saved_tokens']:,}"
    yield "possibly billed without a result, tokens", f"{spend['possibly_billed_tokens']:,}"
    yield "requests sent by the last process", f"{process['requests']:,}"
    yield "answers taken from the ledger", f"{process['reused_requests']:,}"
    totals = summary["totals"]
    yield "documents not asked about, as earlier runs were", f"{totals.get('reused', 0):,}"
    if totals.get("compared"):
        agreed = f"{totals['agreed'] / totals['compared']:.2%} of {totals['compared']:,}"
        yield "pairs of documents that two answers order alike", agreed
    if reuse := summary.get("reuse"):
        changed = "the model has CHANGED" if reuse["changed"] else "the model ranks as it did"
        yield (
            "old requests asked again",
            f"{len(reuse['audits']):,}" + (f": {changed}" if reuse["audits"] else ""),
        )


def _failures(facts: Facts) -> Table:
    process = facts.summary["process"]
    rows: list[Row] = [
        (f"repeated: {code}", f"{count:,}") for code, count in sorted(process["retries"].items())
    ]
    for one in process.get("replicas") or ():
        if one["failures"]:
            ended = f"; is out: {one['out']}" if one["out"] else ""
            name = f"failed at {one['name']}, of {one['requests']:,} requests, taken out {one['outs']:,} times{ended}"
            rows.append((name, f"{one['failures']:,}"))
    for one in process.get("keys") or ():
        if one["failures"]:
            ended = f"; is out: {one['out']}" if one["out"] else ""
            name = f"the key in {one['name']} was refused, of {one['requests']:,} requests{ended}"
            rows.append((name, f"{one['failures']:,}"))
    rows += [(f"throttled (429): {kind}", f"{n:,}") for kind, n in process["throttled"].items() if n]
    for name, text in (
        ("malformed", "unusable answers"), ("ambiguous", "sent, no answer received"), ("splits", "requests halved")
    ):  # fmt: skip
        if process[name]:
            rows.append((text, f"{process[name]:,}"))
    rows += [(f"not ranked: {cause}", f"{count:,}") for cause, count in sorted(facts.failed.items())]
    return Table(("what", "times"), rows)


def _dead_letters(facts: Facts) -> Table:
    rows = [
        (
            str(letter["query_id"]) if letter["query_id"] is not None else "",
            str(letter["cause"]),
            str(letter["message"]),
            f"{letter['file']}, {_place(letter)}",
        )
        for letter in facts.dead_letters
    ]
    return Table(("query", "cause", "why", "where"), rows, 4)


def _place(letter: Any) -> str:
    known = {"query_id", "cause", "message", "attempts", "file"}
    return ", ".join(f"{name} {value}" for name, value in letter.items() if name not in known)


def _slowest(summary: dict[str, Any]) -> Table:
    entries = (summary["process"].get("timeline") or {}).get("slowest", [])
    rows = [
        (str(e["query_id"]), f"{e['seconds']:,.2f}", f"{e['requests']:,}", f"{e['documents']:,}")
        for e in entries
    ]
    return Table(("query", "seconds", "requests", "documents sent"), rows)


def _quality(facts: Facts) -> Table | None:
    if facts.evaluation is None:
        return None
    rows = [
        (
            c.measure, "" if c.before is None else f"{c.before:.4f}", f"{c.after:.4f}",
            "" if c.difference is None else f"{c.difference:+.4f}",
            "" if c.p_value is None else f"{c.p_value:.3g}",
            "" if c.better is None else f"{c.better:,}", "" if c.worse is None else f"{c.worse:,}",
        )
        for c in facts.evaluation.comparisons
    ]  # fmt: skip
    return Table(("measure", "before", "after", "difference", "p", "better", "worse"), rows)


def _time(text: str) -> str:
    """A time of the summary, for people."""
    return text.replace("+00:00", " UTC").replace("T", " ", 1)


def _money(cost: float | None, currency: str | None) -> str:
    return "" if cost is None else f"{cost:,.4f} {currency}"
