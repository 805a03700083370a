"""batchrank against a straight pipeline that does the same sending: what a request costs beyond what it must.

    python benchmarks/straight.py [--quick] [--requests N] [--repeat N] [--only CASE]

Three programs send the same requests, 32 in flight, to the same server, in turns, each in a process of its own:

1. The bare loop of ``overhead.py``: documents in memory, no ledger, no output. Its CPU is that of the loop alone.
2. The straight pipeline of ``yardstick.py``: from Parquet to Parquet, with exact counts and a ledger, and nothing else.
3. ``batchrank run`` on a job that asks for the same.

CPU a request is that of the whole process, all threads and the kernel's work for it included, but without what a start
takes: it is the CPU of a run less that of a run an eighth as long, over the requests that the longer one has more. The
server is another process and isn't counted. Requests a second are those that the server saw between 20% and 98% of all.
Ratios are those of neighbouring runs, and their medians.

Cases: 500 documents of 250 bytes and 100 of 1 kB, both with tokens counted where bytes don't prove that a request fits
(all that batchrank does by default), and with every document counted (as it does under a cap).

A last table tells what each thread took. batchrank's, whose worker threads take turns, is told by what they were given
to do, in a run of its own with a hook around ``anyio.to_thread.run_sync``.
"""

import atexit
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import orjson
import pyarrow.parquet as pq

HERE = Path(__file__)
FLIGHT = 32
_START = 8
"""A run's start is told from its requests by a run that has so many times fewer of them."""
_LEAST = 0.002
"""Milliseconds a request below which work in a thread is summed up as ``other``."""


class Case(NamedTuple):
    """One shape of request; ``every``: whether every document's tokens are counted."""

    name: str
    documents: int
    size: int
    every: bool


CASES = (
    Case("500 x 250 B", 500, 250, False),
    Case("500 x 250 B, every token counted", 500, 250, True),
    Case("100 x 1 kB", 100, 1000, False),
    Case("100 x 1 kB, every token counted", 100, 1000, True),
)


class Sent(NamedTuple):
    """What one program took: CPU milliseconds a request, requests a second, and the same CPU by thread."""

    cpu: float
    rate: float
    threads: dict[str, float]


class Bench:
    """The programs on one case; ``data`` are the input of a run and of a short one, each with its queries."""

    def __init__(
        self, server: common.Server, folder: Path, case: Case, data: tuple[tuple[Path, int], tuple[Path, int]]
    ) -> None:
        self._server, self._folder, self._case, self._data = server, folder, case, data
        self._log = folder / "log"

    def bare(self) -> Sent:
        """The bare loop, which tells its CPU itself."""
        (path, _), _ = self._data
        program = [str(HERE.with_name("overhead.py")), "bare", self._server.url, str(path)]
        self._run([sys.executable, *program, str(self._case.documents)])
        counts = self._server.counts()
        cpu = float(self._log.read_text()) / counts["requests"] * 1000
        return Sent(cpu, common.steady(counts["arrivals"]), {})

    def straight(self) -> Sent:
        """The straight pipeline."""

        def once(path: Path) -> tuple[float, dict[str, float]]:
            program = [str(HERE.with_name("yardstick.py")), self._server.url, str(path)]
            out = self._out("straight")
            used = self._run([sys.executable, *program, str(out), *(["all"] if self._case.every else [])])
            return used.cpu, orjson.loads(self._log.read_text())

        return self._compared(once)

    def batchrank(self) -> Sent:
        """The product as a user runs it."""
        return self._compared(lambda path: (self._run(self._command(path)).cpu, {}))

    def hooked(self) -> Sent:
        """The product with a hook that tells what its threads took."""

        def once(path: Path) -> tuple[float, dict[str, float]]:
            report = self._folder / "threads.json"
            command = [sys.executable, str(HERE), "hooked", str(report), *self._command(path)[3:]]
            return self._run(command).cpu, orjson.loads(report.read_bytes())

        return self._compared(once)

    def alike(self) -> None:
        """See that both pipelines have written the same rankings in their last runs."""
        names = ["query_id", "doc_id", "rank", "score", "first_stage_rank", "first_stage_score"]
        folders = self._folder / "straight", self._folder / "batchrank"
        # Column by column, as the schemas differ in what may be null.
        columns = [
            pq.read_table(folder / "ranking-00000.parquet", columns=names).columns for folder in folders
        ]
        assert columns[0] == columns[1], "the two pipelines have ranked differently"

    def _compared(self, once: Callable[[Path], tuple[float, dict[str, float]]]) -> Sent:
        """What a request takes in a run beyond what a short run takes."""
        (path, many), (short, few) = self._data
        cpu, threads = once(path)
        rate = common.steady(self._server.counts()["arrivals"])
        started, before = once(short)
        each = 1000 / (many - few)
        return Sent(
            (cpu - started) * each,
            rate,
            {name: (taken - before.get(name, 0.0)) * each for name, taken in threads.items()},
        )

    def _command(self, path: Path) -> list[str]:
        self._out("batchrank")
        sections: dict[str, Any] = {"limits": {"documents": self._case.documents}}
        if self._case.every:  # with a cap, even one that never binds, every count has to be exact
            sections["budget"] = {"max_tokens": 10**14}
        rate = {"concurrency": FLIGHT}
        job = common.job(self._folder, "batchrank", self._server.url, path, rate=rate, **sections)
        return [sys.executable, "-m", "batchrank", "run", str(job), "--quiet"]

    def _run(self, command: list[str]) -> common.Used:
        self._server.set(scores="fixed")
        used = common.measured(command, log=self._log)
        assert used.code == 0, self._log.read_text()
        return used

    def _out(self, name: str) -> Path:
        """A folder for output that isn't there yet."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
        return self._folder / name


def main() -> None:
    """Measure all cases."""
    options = common.arguments(
        __doc__,
        requests={"type": int, "default": None, "help": "requests of 500 documents a run (2,500)"},
        only={"type": int, "default": None, "help": "one case, from 1"},
    )
    print(common.machine())
    repeat = options.repeat or (1 if options.quick else 3)
    requests = options.requests or (80 if options.quick else 2_500)
    rows: list[list[object]] = []
    threads: list[list[object]] = []
    for case in [CASES[options.only - 1]] if options.only else CASES:
        with common.folder() as folder, common.serving() as server:
            many = requests if case.documents == 500 else 2 * requests  # so that both take as long
            sizes = (many, many // _START)
            long, short = (
                (common.write_queries(folder / f"{count}.parquet", count, case.documents, case.size), count)
                for count in sizes
            )
            bench = Bench(server, folder, case, (long, short))
            taken: dict[str, list[Sent]] = defaultdict(list)
            for _ in range(repeat):
                for what in (bench.bare, bench.straight, bench.batchrank):
                    taken[what.__name__].append(what())
                bench.alike()
            rows.append(_row(case, taken))
            threads += _threads(case, "straight", taken["straight"][-1])
            threads += _threads(case, "batchrank", bench.hooked())
    common.table(
        [
            "work",
            "bare loop: CPU ms a request",
            "straight",
            "batchrank",
            "batchrank / straight",
            "bare loop: requests/s",
            "straight / bare",
            "batchrank / bare",
        ],
        rows,
    )
    common.table(["work", "pipeline", "thread, or what it was given to do", "CPU ms a request"], threads)


def _row(case: Case, taken: dict[str, list[Sent]]) -> list[object]:
    bare, straight, ours = taken["bare"], taken["straight"], taken["batchrank"]

    def over(ones: list[Sent], others: list[Sent], what: str) -> str:
        pairs = zip(ones, others, strict=True)
        return common.spread([getattr(one, what) / getattr(other, what) for one, other in pairs])

    cpus = [common.middle([one.cpu for one in some]) for some in (bare, straight, ours)]
    rate = common.middle([one.rate for one in bare])
    faster = over(straight, bare, "rate"), over(ours, bare, "rate")
    return [case.name, *cpus, over(ours, straight, "cpu"), rate, *faster]


def _threads(case: Case, name: str, sent: Sent) -> list[list[object]]:
    """A row each for what took long enough, and one for the rest of the process."""
    shown = {what: cpu for what, cpu in sent.threads.items() if cpu >= _LEAST}
    rest = sent.cpu - sum(shown.values())
    largest = sorted(shown.items(), key=lambda one: -one[1])
    return [[case.name, name, what, cpu] for what, cpu in [*largest, ("other", rest)]]


def hooked(report: Path, arguments: list[str]) -> None:
    """Run batchrank's command line in this process, and write the CPU seconds of what its threads were given to do.

    Threads of its own are told by their names, once they have ended.
    """
    import anyio.to_thread

    taken: defaultdict[str, float] = defaultdict(float)
    run_sync, run = anyio.to_thread.run_sync, threading.Thread.run

    async def counted(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        def timed() -> Any:
            began = time.thread_time()
            try:
                return work(*args)
            finally:
                function = getattr(work, "func", work)  # of a partial
                taken[f"worker: {getattr(function, '__qualname__', function)}"] += time.thread_time() - began

        return await run_sync(timed, **options)

    def named(thread: threading.Thread) -> None:
        run(thread)
        taken[f"thread: {thread.name}"] += time.thread_time()

    def end() -> None:
        report.write_bytes(orjson.dumps(taken | {"event loop": time.thread_time()}))

    setattr(anyio.to_thread, "run_sync", counted)  # noqa: B010 it is a function, which mypy lets nobody replace
    setattr(threading.Thread, "run", named)  # noqa: B010
    atexit.register(end)
    sys.argv = ["batchrank", *arguments]
    from batchrank.__main__ import main as command

    command()


if __name__ == "__main__":
    if sys.argv[1:2] == ["hooked"]:
        hooked(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
