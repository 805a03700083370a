"""Kills, harms and suspends jobs, many times, and prints what came of it.

``python benchmarks/crash.py --kills 200``, with ``--processes 3`` or ``--ray``; or, in any combination,
``--damage 150 --suspended 20 --lost 50``.
Fails where a promise is broken; ``tests/crash_harness.py`` and ``tests/crash_damage.py`` list them.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crash_damage import harm
from crash_harness import CONCURRENCY, FAULTS, Figures, Harness, crash


def table(figures: Figures, seconds: float) -> str:
    """The figures as Markdown."""
    kills, in_flight = sum(figures.kills.values()), figures.in_flight or [0]
    rows = [
        ("kills", f"{kills}: " + ", ".join(f"{name} {n}" for name, n in sorted(figures.kills.items()))),
        ("jobs run to their end", f"{figures.jobs}, all byte-identical to the uninterrupted run"),
        ("requests a job needs", f"{figures.answers / figures.jobs:.0f}"),
        ("requests sent in all", f"{figures.requests:,} for {figures.answers:,} answers"),
        ("acknowledged answers asked again", "0"),
        (
            "in flight at a kill",
            f"{statistics.mean(in_flight):.1f} on average, {max(in_flight)} at most, of {CONCURRENCY}",
        ),
        (
            "of these asked again afterwards",
            f"{sum(figures.repeated)} in all, {statistics.mean(figures.repeated or [0]):.1f} a kill",
        ),
        ("unusable answers, possibly billed", f"{figures.unusable:,} (faults)"),
        ("ambiguous attempts, counted and shown", f"{figures.ambiguous:,} (kills and faults)"),
        ("payments not accounted for", "0"),
        ("faults", ", ".join(f"{name} {share:.0%}" for name, share in FAULTS.items())),
        ("time", f"{seconds:.0f} s, {seconds / kills:.1f} s a kill"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


MODES = {
    "damage": ("damaged", "jobs killed, a bit flipped in one of the files left, run on under a cap"),
    "suspended": ("suspended", "jobs suspended for longer than endpoint.timeout"),
    "lost": ("lost", "jobs killed, one of the files left removed, run on"),
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, help="200 unless another kind is asked for")
    for name, (_, text) in MODES.items():
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--processes", type=int, default=1, help="kill any of the processes of such jobs")
    parser.add_argument(
        "--ray",
        action="store_true",
        help="kill actors, nodes and the started process of jobs on a Ray cluster",
    )
    parser.add_argument("--queries", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--format", default="jsonl", help="what harmed jobs write; parquet has files of queries too"
    )
    options = parser.parse_args()
    asked = {name: getattr(options, name) for name in MODES if getattr(options, name)}
    if kills := (200 if options.kills is None and not asked else options.kills):
        with tempfile.TemporaryDirectory() as folder, harness(options) as make:
            started = time.monotonic()
            figures = asyncio.run(
                crash(Path(folder), kills=kills, make=make, queries=options.queries, seed=options.seed)
            )
            seconds = time.monotonic() - started
        print(table(figures, seconds))
    broken = sum(print_harm(name, count, options) for name, count in asked.items())
    sys.exit(1 if broken else 0)


@contextmanager
def harness(options: argparse.Namespace) -> Iterator[Callable[..., Harness]]:
    """What kills jobs, on a cluster of this machine if it is to."""
    if not options.ray:
        yield partial(Harness, processes=options.processes)
        return
    from crash_ray import OnRay
    from ray_nodes import Nodes

    with Nodes() as nodes:
        yield partial(OnRay, nodes=nodes)


def print_harm(name: str, count: int, options: argparse.Namespace) -> int:
    """Run one kind of harm and print its table; how many promises were broken."""
    how, text = MODES[name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            harm(
                Path(folder), how, count=count,
                queries=options.queries, seed=options.seed, format=options.format,
            )
        )  # fmt: skip
    print(f"\n{count} {text}: {time.monotonic() - started:.0f} s\n\n{found.table()}", flush=True)
    return len(found.broken)


if __name__ == "__main__":
    main()
