"""Kills jobs with SIGKILL, many times, and prints what it cost: ``python benchmarks/crash.py --kills 200``.

Fails where a promise is broken; ``tests/crash_harness.py`` lists them.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crash_harness import CONCURRENCY, FAULTS, Figures, crash


def table(figures: Figures, seconds: float) -> str:
    """The figures as Markdown."""
    kills = sum(figures.kills.values())
    rows = [
        ("kills", f"{kills}: " + ", ".join(f"{name} {n}" for name, n in sorted(figures.kills.items()))),
        ("jobs run to their end", f"{figures.jobs}, all byte-identical to the uninterrupted run"),
        ("requests a job needs", f"{figures.answers / figures.jobs:.0f}"),
        ("requests sent in all", f"{figures.requests:,} for {figures.answers:,} answers"),
        ("acknowledged answers asked again", "0"),
        (
            "in flight at a kill",
            f"{statistics.mean(figures.in_flight):.1f} on average, {max(figures.in_flight)} at most, of {CONCURRENCY}",
        ),
        (
            "of these asked again afterwards",
            f"{sum(figures.repeated)} in all, {statistics.mean(figures.repeated or [0]):.1f} a kill",
        ),
        ("unusable answers, perhaps billed", f"{figures.unusable:,} (faults)"),
        ("ambiguous attempts, counted and shown", f"{figures.ambiguous:,} (kills and faults)"),
        ("payments not accounted for", "0"),
        ("faults", ", ".join(f"{name} {share:.0%}" for name, share in FAULTS.items())),
        ("time", f"{seconds:.0f} s"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--queries", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(
            crash(Path(folder), kills=options.kills, queries=options.queries, seed=options.seed)
        )
    print(table(figures, time.monotonic() - started))


if __name__ == "__main__":
    main()
