"""How good merged rankings are, and what they cost, in the simulated world of the merge tests.

    python benchmarks/merge.py                      # the tables, as Markdown on stdout
    python benchmarks/merge.py --plot benchmarks/merge.svg
    python benchmarks/merge.py -n 2000 -k 10 --seeds 10

Effectiveness is measured against the true order: nDCG@10, recall@100, Kendall's tau. ``documents`` and ``requests``
count all that was sent; CPU is the merge's own, without the simulated API.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import astuple, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from merge_measures import kendall, ndcg, recall
from merge_world import Api, Shards, contiguous, drive, stratified, truth, whole

from batchrank.merge.answers import Method, Step
from batchrank.merge.start import start
from batchrank.outcomes import Merged, Overlap, Scores, Verdict

RELATIVE = ("minmax", "softmax", "logistic", "ordinal", "warped")
NOISES = (0.0, 0.1, 0.3)


@dataclass(frozen=True)
class Way:
    """One line of the table: a method, and how the list is cut."""

    name: str
    method: str
    cut: Callable[[int, int, int], Shards]


WAYS = (
    Way("one unlimited request", "hub", lambda n, w, seed: contiguous(n, n)),
    Way("raw scores, contiguous chunks", "raw", lambda n, w, seed: contiguous(n, w)),
    Way("raw scores, stratified chunks", "raw", lambda n, w, seed: stratified(n, w, seed)),
    Way("reciprocal rank fusion", "rrf", lambda n, w, seed: stratified(n, w, seed)),
    Way("**hub** (the default)", "hub", lambda n, w, seed: stratified(n, w, seed)),
    Way("**full**", "full", lambda n, w, seed: stratified(n, w, seed)),
)


@dataclass(frozen=True)
class Row:
    """What one merged query scored and cost; means of many."""

    ndcg: float
    recall: float
    tau: float
    exact: float
    certified: float
    documents: float
    requests: float
    rounds: float
    cpu_ms: float
    stretch_ms: float

    @classmethod
    def mean(cls, rows: Iterable["Row"]) -> "Row":
        """The mean, but the longest stretch of all."""
        table = np.array([astuple(row) for row in rows])
        values: list[float] = [*table[:, :-1].mean(axis=0).tolist(), float(table[:, -1].max())]
        return cls(*values)


@dataclass
class Clock:
    """Times each uninterrupted stretch of a generator, in CPU milliseconds."""

    stretches: list[float] = field(default_factory=list)

    def watch(self, method: Method) -> Method:
        """Pass a method's steps through."""
        reply: Sequence[Scores] | Verdict | None = None
        while True:
            begun = time.process_time()
            try:
                step: Step = next(method) if reply is None else method.send(reply)
            except StopIteration as stop:
                self.stretches.append((time.process_time() - begun) * 1_000)
                merged: Merged = stop.value
                return merged
            self.stretches.append((time.process_time() - begun) * 1_000)
            reply = yield step


def relative(probe: Overlap | None) -> Verdict:
    """The verdict of all runs here: the cost of finding it is a probe of one query."""
    return "relative"


def measure(way: Way, family: str, noise: float, seed: int, n: int, w: int, k: int) -> Row:
    """Merge one query and judge it."""
    relevance, clock = truth(n, seed), Clock()
    shards = way.cut(n, w, seed)
    begun = time.process_time()
    method = start(way.method, shards, top_k=k)
    setup = (time.process_time() - begun) * 1_000
    outcome = drive(clock.watch(method), whole(Api(relevance, family, seed, noise)), relative)
    rank = np.empty(n, dtype=np.intp)
    rank[np.argsort(-relevance, kind="stable")] = np.arange(n)
    ranks = rank[outcome.merged.order]
    return Row(
        ndcg(ranks, 10),
        recall(ranks, 100),
        kendall(ranks),
        float((ranks[:k] == np.arange(k)).all()),
        float(outcome.merged.certified >= k),
        outcome.documents / n,
        outcome.requests,
        outcome.rounds,
        setup + sum(clock.stretches),
        max(clock.stretches),
    )


def averaged(way: Way, families: Iterable[str], noise: float, args: argparse.Namespace) -> Row:
    """The mean over families and seeds."""
    cases = [(family, seed) for family in families for seed in range(args.seeds)]
    return Row.mean(measure(way, family, noise, seed, args.n, args.w, args.k) for family, seed in cases)


def table(title: str, first: str, rows: Iterable[tuple[str, Row]]) -> Generator[str, None, None]:
    """One Markdown table."""
    yield f"\n{title}\n"
    yield (
        f"| {first} | nDCG@10 | recall@100 | tau | top k exact | certified | documents (x n) | requests | rounds "
        "| CPU, ms |"
    )
    yield "|---|" + "---|" * 9
    for name, row in rows:
        yield (
            f"| {name} | {row.ndcg:.3f} | {row.recall:.3f} | {row.tau:.4f} | {row.exact:.0%} | {row.certified:.0%} "
            f"| {row.documents:.3f} | {row.requests:.1f} | {row.rounds:.1f} | {row.cpu_ms:.0f} |"
        )


def report(args: argparse.Namespace) -> None:
    """Print all tables."""
    print(f"n = {args.n:,}, w = {args.w} documents per request, k = {args.k}, {args.seeds} seeds.")
    hub, stretches = WAYS[4], dict.fromkeys((way.name for way in WAYS), 0.0)
    for noise in NOISES:
        rows = [(way.name, averaged(way, RELATIVE, noise, args)) for way in WAYS]
        stretches |= {name: max(stretches[name], row.stretch_ms) for name, row in rows}
        say = "without noise" if not noise else f"with noise, sigma {noise}"
        print(*table(f"Mean over all request-relative score families, {say}:", "method", rows), sep="\n")
    families = [
        (f"{family}, sigma {noise}" if noise else family, averaged(hub, [family], noise, args))
        for family in (*RELATIVE, "identity")
        for noise in NOISES
    ]
    print(
        *table("The hub by score family (identity: absolute scores, no probe):", "scores", families), sep="\n"
    )
    print(*budgets(args), sep="\n")
    longest = ", ".join(f"{name.replace('*', '')} {ms:.0f} ms" for name, ms in stretches.items())
    print(f"\nLongest stretch of CPU between two steps of one merge: {longest}.")
    print(
        f"Longest stall of an event loop while a thread beside it merges with the hub: {stall(args):.0f} ms."
    )


def stall(args: argparse.Namespace) -> float:
    """Merge in a worker thread, as the pipeline does; the longest the event loop was late meanwhile, milliseconds."""

    async def beat() -> float:
        late, case = 0.0, ("ordinal", 0.0, 0, args.n, args.w, args.k)
        merges = [asyncio.to_thread(measure, WAYS[4], *case) for _ in range(5)]
        tasks = [asyncio.create_task(merge) for merge in merges]
        while not all(task.done() for task in tasks):
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - begun - 0.001)
        return late * 1_000

    return asyncio.run(beat())


def budgets(args: argparse.Namespace) -> Generator[str, None, None]:
    """Documents that the hub sends, for several list lengths and cutoffs."""
    yield "\nDocuments the hub sends (x n), mean over families and seeds, no noise:\n"
    yield "| n | k = 10 | k = 100 |"
    yield "|---|---|---|"
    for n in (600, 1_000, 2_000, 5_000, 10_000):
        cells = []
        for k in (10, 100):
            fit = argparse.Namespace(n=n, w=args.w, k=k, seeds=args.seeds)
            cells.append(f"{averaged(WAYS[4], RELATIVE, 0.0, fit).documents:.3f}")
        yield f"| {n:,} | " + " | ".join(cells) + " |"


def plot(path: Path, args: argparse.Namespace) -> None:
    """Draw why raw scores mislead, and what the methods get."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "batchrank", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = import_module("matplotlib.pyplot").subplots(1, 2, figsize=(10, 4))
    _plot_scores(left)
    _plot_methods(right, args)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _plot_scores(axes: Any) -> None:
    """The scores of four requests against the true rank."""
    n, relevance = 2_000, truth(2_000, 0)
    rank = np.argsort(np.argsort(-relevance, kind="stable"), kind="stable")
    api = Api(relevance, "logistic")
    for number, chunk in enumerate(stratified(n, 500).chunks):
        scores, inside = api(chunk), np.argsort(rank[chunk])
        axes.plot(rank[chunk][inside] + 1, scores[inside], label=f"request {number + 1}", lw=1.5)
    axes.set(
        xscale="log",
        xlabel="true rank",
        ylabel="score as answered",
        title="Each request has a scale of its own",
    )
    axes.legend(frameon=False)


def _plot_methods(axes: Any, args: argparse.Namespace) -> None:
    """Effectiveness of each method, no noise."""
    ways = WAYS[1:]
    rows = [averaged(way, RELATIVE, 0.0, args) for way in ways]
    places = np.arange(len(ways))
    for offset, name in enumerate(("ndcg", "recall", "tau")):
        label = {"ndcg": "nDCG@10", "recall": "recall@100", "tau": "Kendall's tau"}[name]
        axes.barh(places + 0.27 * (offset - 1), [getattr(row, name) for row in rows], 0.25, label=label)
    names = [
        f"{way.name.replace('*', '')}\n{row.documents:.2f} n documents"
        for way, row in zip(ways, rows, strict=True)
    ]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title=f"{args.n:,} documents, {args.w} per request, k = {args.k}")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=3)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=10_000, help="documents per query")
    parser.add_argument("-w", type=int, default=500, help="documents per request")
    parser.add_argument("-k", type=int, default=100, help="the depth that must be exact")
    parser.add_argument("--seeds", type=int, default=3, help="queries per family and noise")
    parser.add_argument("--plot", type=Path, help="draw a picture instead (needs matplotlib)")
    args = parser.parse_args()
    if args.plot:
        plot(args.plot, args)
    else:
        report(args)


if __name__ == "__main__":
    main()
