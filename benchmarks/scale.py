"""Several processes, and machines of a Ray cluster, against one process.

    python benchmarks/scale.py [--quick] [--repeat 3] [--processes 1 2 3] [--ray]

``batchrank run`` from Parquet to Parquet, ledger on disk, against the bare server of ``overhead.py``, 32 requests in
flight. Runs of one round stand next to each other, and what counts is the ratio to one process in the same round. CPU
is told for the process that sends (the one that was started, without its start), for the one that reads, and for those
that rank (with their starts, about a second each); the server's own is not in it, and takes a part of the same machine.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
from overhead import FLIGHT, Case, cases

_SHAPES = (0, 3)
"""Which of ``overhead.py``'s shapes: one request a list, and lists that take a hub."""
_PART = 25_000
"""Documents of a part: each process has several, and none waits for the others at the end."""


def child(path: str) -> None:
    """Run a job in this process, and print the CPU seconds of this one and of each kind of child."""
    import os
    import resource

    import anyio
    import uvloop  # noqa: F401 what a run uses

    from batchrank.cluster.processes import LocalProcess
    from batchrank.job.load import load_job
    from batchrank.launch import run
    from batchrank.pipeline.workers import settle_process

    settle_process()
    used: dict[str, float] = {}

    def end(process: LocalProcess) -> None:
        role = str(process.child.args[-2])  # type: ignore[index]
        _, _, usage = os.wait4(process.child.pid, 0)
        process.child.returncode = 0
        used[role] = used.get(role, 0.0) + usage.ru_utime + usage.ru_stime

    import aiohttp  # noqa: F401 so that it doesn't count as sending

    import batchrank.cluster.run  # noqa: F401

    start = resource.getrusage(resource.RUSAGE_SELF)
    LocalProcess.end = end  # type: ignore[method-assign,assignment]
    report = anyio.run(run, load_job(path), backend_options={"use_uvloop": True})
    assert report.exit_code == 0, report.reason
    mine = resource.getrusage(resource.RUSAGE_SELF)
    own = mine.ru_utime + mine.ru_stime - start.ru_utime - start.ru_stime
    print(json.dumps({"account": own} | used))


def measure(
    server: common.Server, folder: Path, data: Path, case: Case, engine: dict[str, Any]
) -> dict[str, float]:
    """One run: requests a second, and CPU milliseconds a request of each kind of process."""
    server.set(scores="relative" if case.candidates > case.chunk else "fixed")
    name = "out-" + "-".join(map(str, engine.values())).translate({ord(c): None for c in "{}':, "})
    sections = case.sections | {"rate": {"concurrency": FLIGHT}, "engine": engine}
    sections["output"] = {"part_documents": _PART}
    job = common.job(folder, name, server.url, data, **sections)
    command = [sys.executable, __file__, "child", str(job), "--fresh"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr
    counts = server.counts()
    used: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found = {name: 1000 * seconds / counts["requests"] for name, seconds in used.items()}
    (folder / name / "ledger.sqlite").unlink()
    return found | {"rate": common.steady(counts["arrivals"])}


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"BENCH_KEY": "none"}


def main() -> None:
    """Measure and print."""
    options = common.arguments(
        __doc__,
        processes={"type": int, "nargs": "+", "default": [1, 2, 3], "help": "processes that rank"},
        ray={"action": "store_true", "help": "also two actors of a Ray cluster of this machine"},
    )
    print(common.machine())
    engines: list[tuple[str, dict[str, Any]]] = [
        (f"{n} process{'es' * (n > 1)}", {"processes": n}) for n in options.processes
    ]
    if options.ray:
        engines.append(("Ray, 2 actors", {"ray": {"address": "local", "workers": 2, "cpus": 0.5}}))
    rows = []
    with common.folder() as folder, common.serving() as server:
        for number in _SHAPES:
            case = cases(options.quick)[number]
            data = common.write_queries(
                folder / f"{number}.parquet", case.queries, case.candidates, case.size
            )
            found: dict[str, list[dict[str, float]]] = {name: [] for name, _ in engines}
            for turn in range(options.repeat or (1 if options.quick else 3)):
                for name, engine in engines:
                    place = folder / f"{number}-{turn}"
                    place.mkdir(exist_ok=True)
                    found[name].append(measure(server, place, data, case, engine))
            first = found[engines[0][0]]
            for name, runs in found.items():
                ratios = [run["rate"] / one["rate"] for run, one in zip(runs, first, strict=True)]
                rows.append(
                    [case.name, name, common.middle([run["rate"] for run in runs]), common.spread(ratios)]
                    + [_cpu(runs, role) for role in ("account", "reader", "ranker")]
                )
            data.unlink()
    common.table(
        [
            "work", "ranked by", "requests/s", "against one process", "CPU ms a request: the process started",
            "the one that reads", "those that rank",
        ],
        rows,
    )  # fmt: skip


def _cpu(runs: list[dict[str, float]], role: str) -> object:
    values = [run[role] for run in runs if role in run]
    return common.middle(values) if values else "-"


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2])
    else:
        main()
