"""batchrank and its peers on one task, each by its own documented way, against the same server.

    python benchmarks/peers.py [--quick] [--python312 PATH] [--skip NAME ...]

The task: 1,000 requests of 100 documents of 0.9 kB, 16 in flight, an answer after 50 ms; ideal: 1,000 / 16 x 50 ms.
The second task: 200 such requests at a quota of 20 requests in any second, told to each peer in its own terms.
Every peer lives in a throw-away virtual environment; one that can't be installed here is left out with a line that
says so. Wall and CPU are taken inside each process around the work, without imports and without loading the texts;
batchrank's include reading Parquet, exact token counts, the ledger on disk and writing Parquet.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from competitors import FLIGHT, NEWER, PEERS

LATENCY = 0.05
QUOTA = 20
PATIENCE = 120
"""Seconds after which a peer is given up: in the table its wall is infinite, and ``answered`` tells how far it came."""


def inside(name: str, url: str, data: str, rps: float | None) -> None:
    """Do the work in this process; print what it took."""

    def load() -> list[Any]:
        with Path(data).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    work = PEERS[name][0](load, url, rps)
    before, started, ended_well = _cpu(), time.monotonic(), ""
    try:
        asyncio.run(work()) if PEERS[name][1] else __import__("uvloop").run(work())
    except Exception as error:
        ended_well = f"{type(error).__name__}: {error}"[:200]
    wall, cpu = time.monotonic() - started, _cpu() - before
    print(json.dumps({"wall": wall, "cpu": cpu, "error": ended_well}))


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    """Measure all peers."""
    import common

    options = common.arguments(
        __doc__,
        python312={"default": "python3.12", "help": "an interpreter for peers that need Python 3.12"},
        environments={"type": Path, "default": None, "help": "keep the virtual environments here"},
        skip={"nargs": "*", "default": [], "help": "peers to leave out"},
        only={"nargs": "*", "default": None, "help": "peers to measure"},
    )
    print(common.machine())
    count, repeat = (64, 1) if options.quick else (1000, options.repeat or 3)
    names = [n for n in options.only or PEERS if n not in options.skip]
    with common.folder() as folder, common.serving() as server:
        parquet = common.write_queries(folder / "data.parquet", count, 100, 900)
        lines, few = folder / "data.jsonl", folder / "few.jsonl"
        _jsonl(parquet, lines)
        less = common.write_queries(folder / "few.parquet", count // 5, 100, 900)
        _jsonl(less, few)
        environments = options.environments or folder
        pythons = {name: _python(environments, name, options.python312) for name in names}
        taken: dict[str, list[list[float]]] = {name: [] for name in names}
        for turn in range(repeat):
            for name in names:
                server.set(latency=LATENCY, rps=None, scores="text")
                job = common.job(folder, f"job-{turn}", server.url, parquet)
                taken[name].append(_once(server, pythons[name], name, lines, job, None))
        ideal = count / FLIGHT * LATENCY
        _print_task(common, taken, ideal)
        rows = []
        for name in names:
            server.set(latency=LATENCY, rps=QUOTA, scores="text")
            job = common.job(folder, "job-quota", server.url, less)
            wall, cpu, refused, duplicates, accepted = _once(server, pythons[name], name, few, job, QUOTA)
            rows.append([name, wall, cpu, int(accepted), int(refused), int(duplicates)])
        print(
            f"\nQuota of {QUOTA} requests in any second, {count // 5} requests (ideal {count / 5 / QUOTA:.1f} s):"
        )
        common.table(["", "wall s", "CPU s", "answered", "429s", "asked twice"], rows)


def _print_task(common: Any, taken: dict[str, list[list[float]]], ideal: float) -> None:
    medians = {
        name: [common.middle(column) for column in zip(*runs, strict=True)] for name, runs in taken.items()
    }
    cpu = medians.get("bare aiohttp loop", [1.0, 1.0])[1]
    rows = [
        [name, m[0], m[0] / ideal, m[1], m[1] / cpu, int(m[4]), int(m[2]), int(m[3])]
        for name, m in medians.items()
    ]  # fmt: skip
    print(f"\nideal: {ideal:.2f} s")
    common.table(
        ["", "wall s", "x ideal", "CPU s", "x bare loop", "answered", "429s", "asked twice"],
        sorted(rows, key=lambda row: float(row[1])),
    )


def _once(
    server: Any, python: str | None, name: str, data: Path, job: Path, rps: float | None
) -> list[float]:
    if python is None:
        return [float("nan")] * 2 + [0.0] * 3
    command = [python, __file__, "inside", name, server.url, str(data), str(rps or 0)]
    environ = os.environ | {"BENCH_JOB": str(job), "BENCH_KEY": "none", "RAY_DEDUP_LOGS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"{name}: given up after {PATIENCE} s", file=sys.stderr)
        counts = server.counts()
        return [float("inf"), float("nan"), counts["refused"], counts["duplicates"], counts["requests"]]
    counts = server.counts()
    try:
        took = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        print(f"{name}: failed: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return [float("nan")] * 2 + [0.0] * 3
    if took["error"]:
        print(f"{name}: ended with {took['error']}", file=sys.stderr)
    return [took["wall"], took["cpu"], counts["refused"], counts["duplicates"], counts["requests"]]


def _python(folder: Path, name: str, newer: str) -> str | None:
    """The interpreter of a peer's own environment; None, with a line, where there can be none."""
    needs = PEERS[name][1]
    if not needs:
        return sys.executable
    environment = folder / name.replace(" ", "-")
    python = environment / "bin" / "python"
    if python.exists():
        return str(python)
    try:
        base = newer if name in NEWER and sys.version_info < (3, 12) else sys.executable
        subprocess.run([base, "-m", "venv", str(environment)], check=True, capture_output=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *needs], check=True, capture_output=True, timeout=900
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", b"") or b""
        print(
            f"{name}: left out, it can't be installed here: {error} {detail.decode()[-300:]}", file=sys.stderr
        )
        return None
    return str(python)


def _jsonl(parquet: Path, path: Path) -> None:
    import pyarrow.parquet as pq

    with path.open("w", encoding="utf-8") as out:
        for row in pq.read_table(parquet).to_pylist():
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        inside(sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5]) or None)
    else:
        main()
