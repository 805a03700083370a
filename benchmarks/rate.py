"""How much of a quota a run uses, and how often it is refused.

    python benchmarks/rate.py [--quick] [--repeat 3]

The server refuses what would pass the quota in any sliding second. ``batchrank run`` is told the same quota, and
sets its concurrency by itself. Used: accepted requests (or tokens) as a share of what the quota allows, from 10 s
after the first arrival to a second before the last; refused: 429s as a share of all requests in that time. Where the
quota is cut in half midway, without telling the client, the second half counts from 10 s after the cut. Repeated, the
medians are told, and the lowest and highest use; all scenarios take their turns before any is repeated.

Cases:
1. Requests bind: 90 a second (5,400 a minute), answers after 20 ms, 200 ms, 2 s.
2. Tokens bind: a request takes about 1/170 of a second's tokens; 20 ms, 200 ms, 2 s.
3. Requests bind, and the quota is cut in half midway.

With ``--processes 4``, or ``--ray``, so many processes rank, or four actors of a Ray cluster of this machine.

    python benchmarks/rate.py --account [--quick] [--repeat 3]

Instead, three jobs that are started by themselves share one account (``rate.account``), 90 requests a second, answers
after 200 ms. At a third of the time the one that keeps the quota is killed, and started again at once. Used: before the
kill, from 10 s after the last job's first request (with ``--quick`` a quarter of the time); after it, from 10 s after
the kill. Pause: the longest time without a request. Most: in any second of all, by arrival.
"""

import itertools
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import orjson

RPS = 90.0
TPS = 1_000_000.0
SETTLED = 10.0
_PART = 5_000
"""Documents of a part: 250 requests of 20."""


@dataclass(frozen=True)
class Scenario:
    """One line of the table."""

    name: str
    latency: float
    rps: float | None = None
    tps: float | None = None
    halved: bool = False


SCENARIOS = (
    Scenario("requests bind", 0.02, rps=RPS),
    Scenario("requests bind", 0.2, rps=RPS),
    Scenario("requests bind", 2.0, rps=RPS),
    Scenario("tokens bind", 0.02, tps=TPS),
    Scenario("tokens bind", 0.2, tps=TPS),
    Scenario("tokens bind", 2.0, tps=TPS),
    Scenario("cut in half midway", 0.2, rps=RPS, halved=True),
)


def main() -> None:
    """Run all scenarios."""
    options = common.arguments(
        __doc__,
        only={"type": int, "default": None, "help": "one scenario, from 1"},
        account={"action": "store_true", "help": "three jobs that share an account"},
        processes={"type": int, "default": 1, "help": "processes that rank"},
        ray={"action": "store_true", "help": "rank with four actors of a Ray cluster of this machine"},
    )
    engine: dict[str, Any] = {"processes": options.processes}
    if options.ray:
        engine = {"ray": {"address": "local", "workers": 4, "cpus": 0.25}}
    print(common.machine())
    if options.account:
        return _account(options.quick, options.repeat or 1)
    seconds = 6.0 if options.quick else 45.0
    scenarios = [SCENARIOS[options.only - 1]] if options.only else SCENARIOS
    found: list[list[_Found]] = [[] for _ in scenarios]
    with common.folder() as folder, common.serving() as server:
        data = common.write_queries(folder / "data.parquet", int(2.4 * RPS * seconds), 20, 260)
        for turn in range(options.repeat or 1):
            for number, scenario in enumerate(scenarios):
                name = f"out-{number}-{turn}"
                found[number].append(_measure(server, folder, data, scenario, seconds, name, engine))
    rows = [_row(scenario, measured) for scenario, measured in zip(scenarios, found, strict=True)]
    common.table(
        [
            "scenario", "answers after", "quota", "used", "refused", "429s", "most in flight",
            "most in a second",
        ],
        rows,
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    used: float
    refused: float
    refusals: int
    in_flight: int
    most: int


def _row(scenario: Scenario, found: list[_Found]) -> list[object]:
    used = [one.used for one in found]
    spread = f" ({min(used):.1%}-{max(used):.1%})" if len(used) > 1 else ""
    quota = f"{scenario.rps:.0f} requests/s" if scenario.rps else f"{TPS:,.0f} tokens/s"
    return [
        scenario.name, f"{scenario.latency:g} s", quota, f"{common.middle(used):.1%}{spread}",
        f"{common.middle([one.refused for one in found]):.2%}",
        int(common.middle([one.refusals for one in found])), int(common.middle([one.in_flight for one in found])),
        max(one.most for one in found),
    ]  # fmt: skip


def _measure(
    server: common.Server,
    folder: Path,
    data: Path,
    scenario: Scenario,
    seconds: float,
    name: str,
    engine: dict[str, Any],
) -> _Found:
    server.set(latency=scenario.latency, rps=scenario.rps, tps=scenario.tps)
    rate = {
        "rpm": (scenario.rps or 1e6) * 60,
        "tpm": (scenario.tps or 1e12) * 60,
    }
    # Several processes have a part each at any time, and take the next one without waiting for the others.
    job = common.job(
        folder, name, server.url, data,
        tokenizer="bytes", rate=rate, engine=engine, output={"part_documents": _PART},
    )  # fmt: skip
    cut: list[float] = []
    timer = threading.Timer(seconds / 2, lambda: _halve(server, scenario, cut))
    with (folder / "rate.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "batchrank", "run", str(job), "--quiet"], stderr=log, env=_environment()
        )
        while process.poll() is None and not server.counts()["arrivals"]:
            time.sleep(0.05)  # a cluster takes a while to start
        if scenario.halved:
            timer.start()
        try:
            process.wait(seconds + 1)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    timer.cancel()
    assert process.returncode in (0, 143), (folder / "rate.log").read_text()
    counts = server.counts()
    arrivals, refusals = counts["arrivals"], counts["refusals"]
    start, end = (cut[0] if cut else arrivals[0]) + min(SETTLED, seconds / 4), arrivals[0] + seconds - 1
    accepted = sum(start <= t < end for t in arrivals)
    refused = sum(start <= t < end for t in refusals)
    rps = scenario.rps and scenario.rps / (2 if cut else 1)
    per = counts["tokens"] / counts["requests"]
    used = accepted / (rps * (end - start)) if rps else accepted * per / ((scenario.tps or 1) * (end - start))
    share = refused / max(1, refused + accepted)
    return _Found(used, share, len(refusals), counts["most_in_flight"], _most(arrivals))


def _account(quick: bool, repeat: int) -> None:
    seconds = 12.0 if quick else 60.0
    rows = []
    with common.folder() as folder, common.serving() as server:
        data = common.write_queries(folder / "data.parquet", int(1.2 * RPS * seconds), 20, 260)
        rows = [_shared(server, folder, data, seconds, turn) for turn in range(repeat)]
    common.table(["used before the kill", "after it", "refused", "pause", "most in a second", "shares"], rows)


def _shared(server: common.Server, folder: Path, data: Path, seconds: float, turn: int) -> list[object]:
    server.set(latency=0.2, rps=RPS)
    rate, settle = {"rpm": RPS * 60, "tpm": 1e15, "account": uuid.uuid4().hex}, min(SETTLED, seconds / 4)
    jobs = [
        common.job(folder, f"shared-{turn}-{number}", server.url, data, tokenizer="bytes", rate=rate)
        for number in range(3)
    ]
    running = [_start(jobs[0])]
    while not server.counts()["arrivals"]:
        time.sleep(0.05)
    running += [_start(job) for job in jobs[1:]]
    began = time.monotonic()
    time.sleep(seconds / 3 + settle)
    running[0].kill()
    running[0].wait()
    killed = time.monotonic()
    running[0] = _start(jobs[0])
    time.sleep(seconds * 2 / 3)
    counts = server.counts()
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 143)
    arrivals = sorted(counts["arrivals"])
    ends = arrivals[-1]

    def used(start: float, end: float) -> str:
        return f"{sum(start <= at < end for at in arrivals) / (RPS * (end - start)):.1%}"

    pause = max(after - before for before, after in itertools.pairwise(arrivals))
    requests = [
        orjson.loads((job.with_suffix("") / "status.json").read_bytes())["progress"]["requests"]
        for job in jobs
    ]
    return [
        used(began + settle, killed), used(killed + settle, ends - 1),
        f"{counts['refused'] / len(arrivals):.2%}", f"{pause:.1f} s", _most(arrivals),
        ", ".join(f"{count:,}" for count in requests),
    ]  # fmt: skip


def _most(arrivals: list[float]) -> int:
    """The most in any second."""
    window: deque[float] = deque()
    most = 0
    for at in arrivals:
        window.append(at)
        while at - window[0] >= 1:
            window.popleft()
        most = max(most, len(window))
    return most


def _start(job: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "batchrank", "run", str(job), "--quiet"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=_environment())


def _halve(server: common.Server, scenario: Scenario, cut: list[float]) -> None:
    server.set(keep=True, rps=(scenario.rps or 0) / 2)
    cut.append(time.monotonic())


def _environment() -> dict[str, Any]:
    import os

    return os.environ | {"BENCH_KEY": "none"}


if __name__ == "__main__":
    main()
