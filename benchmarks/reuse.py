"""What reuse of earlier answers, document by document, asks and proves, in the simulated world of the merge tests.

    python benchmarks/reuse.py [--quick] [--only nights noise]      # the tables, as Markdown on stdout
    python benchmarks/reuse.py --plot benchmarks/reuse.svg

A *night* ranks one list by what earlier nights told and by what it asks. ``asked`` counts documents sent, as a share of
the list; *exact* is measured against the true order, *certified* against the answers, both to depth k.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from merge import WAYS, measure
from merge_measures import kendall, ndcg
from merge_nights import Night, World
from merge_world import contiguous, stratified, truth
from nightly import through_emulator

from batchrank.data import Floats
from batchrank.merge.answers import Pool
from batchrank.merge.reuse import Memory

CASES = ((400, 10), (400, 100), (2_000, 10), (2_000, 100), (10_000, 100))
FAMILIES = ("logistic", "minmax", "ordinal")
NOISY = ("logistic", "minmax", "warped")
"""Families whose scores tell more than ranks, as averaging needs."""
NIGHTLY = 0.02
"""The share of a list that is new each night, where nothing else is said."""
SHOWN = (1, 10, 30)
"""The nights that the table shows, night 0 being the one that asks everything."""
CHANGES = ((0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (1.0, 0.0), (0.0, 0.1), (0.0, 0.3), (0.3, 0.1))
"""Standard deviations of what is added to every relevance overnight, and of noise."""
Cases = Sequence[tuple[int, int]]
Table = tuple[str, str, list[str]]
"""A title, a head and rows, whose cells are joined by `` | ``."""


def begun(n: int, k: int, family: str, seed: int, *, new: float = NIGHTLY, noise: float = 0.0) -> World:
    """A world after its first night, with tonight's list."""
    world = World(n, family, seed, noise=noise)
    world.night(k)
    world.replace(new)
    return world


def again(world: World, k: int, **options: Any) -> Night:
    """The same night once more, in the same chunks, as if it had not been."""
    world.kept, world.run = world.kept[: len(world.kept) - len(world.fresh)], world.run - 1
    return world.night(k, **options)


def judged(world: World, k: int, **options: Any) -> list[float]:
    """A night: documents asked, asked anew, their ratio, requests, exact, certified, tau."""
    night = world.night(k, **options)
    anew = again(world, k, **options, reuse=False).documents
    certified = night.certified >= min(k, world.n)
    ratio = night.documents / anew
    return [night.documents, anew, ratio, night.requests, night.exact, certified, kendall(night.ranks)]


JUDGED = "cost against anew | requests | exact | certified | tau"


def told(values: Floats) -> str:
    """The last five of what was judged."""
    ratio, requests, exact, certified, tau = values[2:]
    return f"{ratio:.3f} | {requests:.1f} | {exact:.0%} | {certified:.0%} | {tau:.4f}"


@cache
def second(n: int, k: int, new: float, seeds: int) -> Floats:
    """Second nights: a row for each family and seed."""
    worlds = (begun(n, k, family, seed, new=new) for family, seed in product(FAMILIES, range(seeds)))
    return np.array([judged(world, k) for world in worlds], dtype=float)


def one_night(seeds: int, cases: Cases) -> Table:
    """One night, by what is new."""
    lines = []
    for (n, k), new in product(cases, (0.005, 0.02, 0.1)):
        of = second(n, k, new, seeds)
        asked, anew, *_ = mean = of.mean(axis=0)
        lines.append(
            f"{n:,} | {k} | {new:.1%} | {asked / n:.3f} | {of[:, 0].max() / n:.3f} | {anew / n:.3f} | "
        )
        lines[-1] += told(mean)
    head = f"n | k | new | asked (x n) | most | anew (x n) | {JUDGED}"
    return (
        f"One night, first-stage order shuffled, mean of {', '.join(FAMILIES)} x {seeds} seeds",
        head,
        lines,
    )


@cache
def nights(n: int, k: int, family: str, seed: int, count: int) -> tuple[Floats, Floats]:
    """Nights in a row: share asked, requests, exact, certified, tau of each; pieces, answers, pairs x n at last."""
    world = World(n, family, seed)
    world.night(k)
    found = []
    for number in range(1, count + 1):
        world.replace(NIGHTLY)
        memory = (
            Memory.of(Pool(stratified(n, world.limit)), world.earlier(), np.empty(0, dtype=np.intp))
            if number == count
            else None
        )
        night = world.night(k)
        tau = kendall(night.ranks) if number in SHOWN else np.nan
        found.append((night.share, night.requests, night.exact, night.certified >= k, tau))
    assert memory is not None
    known = len(memory.pieces), len(memory.answers), sum(map(len, memory.answers)) / n
    return np.array(found, dtype=float), np.array(known)


def many_nights(seeds: int, cases: Cases, count: int) -> Table:
    """Nights in a row, nothing ever refreshed."""
    lines, dates = [], [number for number in SHOWN if number <= count]
    at = " / ".join(map(str, dates))
    for n, k in cases:
        of = [nights(n, k, family, seed, count) for family, seed in product(FAMILIES, range(seeds))]
        every = np.stack([found for found, _ in of])
        shown = every[:, [number - 1 for number in dates]].mean(axis=0)
        pieces, answers, pairs = np.mean([known for _, known in of], axis=0)
        asked, tau = (" / ".join(f"{x:.{d}f}" for x in shown[:, i]) for i, d in ((0, 3), (4, 4)))
        _, requests, exact, certified, _ = every.mean(axis=(0, 1))
        lines.append(f"{n:,} | {k} | {asked} | {every[:, :, 0].max():.3f} | {requests:.1f} | {exact:.1%} | ")
        lines[-1] += f"{certified:.1%} | {tau} | {pieces:.0f} | {answers:.0f} | {pairs:.2f}"
    head = (
        f"n | k | asked (x n), night {at} | most in any | requests | exact | certified | tau, night {at} | "
    )
    title = f"{count} nights in a row, {NIGHTLY:.0%} new each, mean of {', '.join(FAMILIES)} x {seeds} seeds"
    return title, head + "pieces at last | answers known | pairs known (x n)", lines


def deeper(seeds: int, before: int, after: int) -> Table:
    """More candidates of the same question."""
    lines = []
    for k in (10, 100):
        of = []
        for family, seed in product(FAMILIES, range(seeds)):
            world = World(after, family, seed)
            everything, world.tonight = world.tonight, world.tonight[:before]
            world.night(k)
            world.tonight = everything
            of.append(judged(world, k))
        asked, anew, *_ = mean = np.mean(of, axis=0)
        lines.append(f"{k} | {asked:,.0f} | {anew:,.0f} | {told(mean)}")
    return f"{before:,} candidates before, {after:,} now", f"k | asked | anew | {JUDGED}", lines


def absolute(seeds: int, cases: Cases) -> Table:
    """Scores that mean the same in every request."""
    ways = {"absolute": "declared", "unknown": "found by a probe (a run's first query)"}
    lines = []
    for (n, k), (declared, how) in product(cases, ways.items()):
        of = []
        for seed in range(seeds):
            world = World(n, "identity", seed)
            world.night(k, declared=declared)
            world.replace(NIGHTLY)
            of.append(judged(world, k, declared=declared))
        asked, anew, *_ = mean = np.mean(of, axis=0)
        lines.append(f"{n:,} | {k} | {how} | {asked:,.0f} | {asked / n:.4f} | {anew / n:.3f} | {told(mean)}")
    head = f"n | k | scores | asked | asked (x n) | anew (x n) | {JUDGED}"
    return f"Absolute scores, {NIGHTLY:.0%} new", head, lines


def change(n: int, k: int, moved: float, noise: float, seed: int) -> list[float]:
    """How far the order moved, who notices, and what comes of it where nothing is audited."""
    world = begun(n, k, "logistic", seed, noise=noise)
    before = world.relevance
    world.relevance = before + moved * np.random.default_rng(seed).normal(size=len(before))
    rank = np.argsort(np.argsort(-world.relevance[world.tonight], kind="stable"), kind="stable")
    tau = kendall(rank[np.argsort(-before[world.tonight], kind="stable")])
    found = world.night(k, audit=True).noticed
    seen = [any(step.finding.changed for step in found if step.audit is audit) for audit in (True, False)]
    night = again(world, k)
    alone = any(step.finding.changed for step in night.noticed)
    wrong = not alone and bool((night.ranks[: night.certified] != np.arange(night.certified)).any())
    anew = again(world, k, reuse=False)
    return [tau, *seen, alone, wrong, night.share, ndcg(night.ranks, 10), ndcg(anew.ranks, 10)]


def changed(seeds: int, cases: Cases) -> Table:
    """A model that ranks otherwise than the night before, or contradicts itself."""
    lines = []
    for (n, k), (moved, noise) in product(cases, CHANGES):
        of = np.array([change(n, k, moved, noise, seed) for seed in range(seeds)])
        noticed = " | ".join(f"{count:.0f}" for count in of[:, 1:5].sum(axis=0))
        tau, *_, asked, reuse, anew = of.mean(axis=0)
        lines.append(f"{n:,} | {k} | {moved:g} | {noise:g} | {tau:.3f} | {noticed} | ")
        lines[-1] += f"{asked:.3f} | {reuse:.3f} | {anew:.3f}"
    head = "n | k | moved by | noise | tau, old to new | an audit notices | else its hub | a hub without audits | "
    title = f"A model that changed, and noise without any change, of {seeds} lists; no audit in the last five columns"
    return title, head + "false certificates | asked (x n) | nDCG@10 | nDCG@10, all asked anew", lines


def effect(n: int, k: int, noise: float, count: int, family: str, seed: int) -> list[float]:
    """nDCG@10 of ways to rank a second night, of reuse on a later one, of the first night as in ``merge.py``."""
    world = World(n, family, seed, noise=noise)
    world.relevance = truth(n, seed)
    world.night(k)
    world.replace(NIGHTLY)
    found = [ndcg(world.night(k).ranks, 10), ndcg(again(world, k, reuse=False).ranks, 10)]
    found.append(ndcg(again(world, k, reuse=False, shards=contiguous(n, n)).ranks, 10))
    again(world, k)
    for _ in range(count - 1):
        world.replace(NIGHTLY)
        late = world.night(k)
    return [*found, ndcg(late.ranks, 10), measure(WAYS[4], family, noise, seed, n, world.limit, k).ndcg]


def noisy(seeds: int, cases: Cases, count: int) -> Table:
    """nDCG@10 under noise."""
    lines = []
    for (n, k), noise in product(cases, (0.1, 0.3)):
        of = np.array([[effect(n, k, noise, count, f, seed) for seed in range(seeds)] for f in NOISY])
        # Families share a seed's list, so that only seeds are independent.
        gain = (of[:, :, 0] - of[:, :, 1]).mean(axis=0)
        reuse, hub, alone, late, papers = of.mean(axis=(0, 1))
        lines.append(
            f"{n:,} | {k} | {noise:g} | {reuse:.3f} | {hub:.3f} | {alone:.3f} | {gain.mean():+.4f} ± "
        )
        lines[-1] += f"{gain.std(ddof=1) / math.sqrt(seeds):.4f} | {late:.3f} | {papers:.3f}"
    head = "n | k | sigma | reuse | hub | one unlimited request | reuse - hub, ± standard error | "
    title = f"nDCG@10 of a second night under noise, mean of {', '.join(NOISY)} x {seeds} seeds"
    return title, head + f"reuse, night {count} | hub, first night", lines


def plot(path: Path, seeds: int, count: int) -> None:
    """Draw what is asked by what is new, and by night."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    matplotlib.rcParams.update({"svg.hashsalt": "batchrank", "font.size": 9, "svg.fonttype": "none"})
    figure, (left, right) = import_module("matplotlib.pyplot").subplots(1, 2, figsize=(10, 4))
    shares = np.array((0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1))
    for n, k in CASES:
        style: dict[str, Any] = {
            "color": {400: "C0", 2_000: "C1", 10_000: "C2"}[n],
            "ls": "-" if k == 100 else "--",
        }
        asked = [second(n, k, share, seeds)[:, 0].mean() / n for share in shares.tolist()]
        left.plot(100 * shares, 100 * np.array(asked), label=f"n = {n:,}, k = {k}", **style)
        every = [nights(n, k, family, seed, count)[0] for family, seed in product(FAMILIES, range(seeds))]
        right.plot(range(1, count + 1), 100 * np.mean(every, axis=0)[:, 0], **style)
    left.plot([0, 10], [0, 10], color="grey", lw=1, ls=":", label="new documents alone")
    right.axhline(100 * NIGHTLY, color="grey", lw=1, ls=":")
    left.set(title="One night", xlabel="% of documents new", xlim=(0, 10))
    right.set(title=f"{count} nights in a row, {NIGHTLY:.0%} new each", xlabel="night", xlim=(0, count))
    for axes in (left, right):
        axes.set(ylim=(0, 40), ylabel="% of documents asked")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="lower center", ncol=3)
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Print the tables, or draw the picture."""
    only: dict[str, Any] = {"nargs": "*", "help": "night, nights, depth, absolute, changed, noise, emulator"}
    drawn: dict[str, Any] = {"type": Path, "help": "draw a picture instead (needs matplotlib)"}
    options = common.arguments(__doc__, only=only, plot=drawn)
    quick = options.quick
    seeds, count, cases = (2, 2, CASES[:1]) if quick else (options.repeat or 5, 30, CASES)
    if options.plot:
        plot(options.plot, min(seeds, 3), count)
        return
    print(common.machine())
    makers: dict[str, Callable[[], Table]] = {
        "night": lambda: one_night(seeds, cases),
        "nights": lambda: many_nights(min(seeds, 3), cases, count),
        "depth": lambda: deeper(seeds, 100, 200 if quick else 1_000),
        "absolute": lambda: absolute(seeds, cases),
        "changed": lambda: changed(2 if quick else 50, cases[::2]),
        "noise": lambda: noisy(2 if quick else 30, [(600, 10)] if quick else [(1_000, 10), *CASES[3:]], 10),
        "emulator": lambda: through_emulator(2 if quick else 60, 400),
    }
    for name in options.only or makers:
        title, head, lines = makers[name]()
        print(f"\n{title}:")
        common.table(head.split(" | "), [line.split(" | ") for line in lines])


if __name__ == "__main__":
    main()
