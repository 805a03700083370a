"""How long a query's way through batchrank is: the files that it enters, the calls that it makes, the frames it awaits.

    python benchmarks/way.py [--quick] [--repeat N] [--functions]

A profile hook in every thread notes each call of a Python function that stands in ``batchrank/``, while jobs run from
Parquet to Parquet against the benchmarks' server, which is another process. What one query costs is told by what one
more costs: a job of n + 1 queries is compared with a job of n, the first n of which are the same, function by function.
So what is done once a run (imports, opening, closing) cancels out; a run before has warmed up what is done once a
process. Requests go one at a time, so that no query shares a commit or a wake-up with another: what many would share
under load, each pays alone here. n starts where the first queries, which are sampled, have passed.

- A call is a function's start. That a coroutine or a generator goes on is none, nor are functions written in C, or by
  ``dataclass``, which have no file. Comprehensions are calls where the interpreter makes them some (before 3.12).
- A call crosses a file if its caller's frame is in another file of batchrank.
- A file is entered if any of its functions is called for the query.
- Frames are batchrank's coroutines on the stack when aiohttp is asked to send a request: below the one called ``rank``,
  which ranks a query, and those of the whole task.

Figures are medians over several queries; the number of calls depends on a query's scores, so its least and most are
given too. ``--functions`` tells the calls of each function instead of each file's.
"""

import inspect
import os
import sys
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any, NamedTuple

import anyio
import common

import batchrank
from batchrank import load_job, run

ROOT = str(Path(batchrank.__file__).parent) + os.sep
_FIRST = 9
"""Queries in the smallest job: all of the first eight are sampled, whose tokens are counted just to compare."""
_RANKS = "rank"
"""The coroutine from which frames are counted."""
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "one chunk": (100, {}),
    "three chunks and a hub": (1_500, {"limits": {"documents": 500}, "merge": {"method": "hub"}}),
}
"""What a query is -> its candidates, and the sections of its job."""


class Seen(NamedTuple):
    """What was called, how often, and how often from another file; and the longest stack of a request."""

    calls: Counter[CodeType]
    crossing: Counter[CodeType]
    stack: list[str]


class Hook:
    """Notes calls while ``on``; in all threads that are started after it was installed."""

    def __init__(self) -> None:
        self.on = False
        self._calls: list[tuple[CodeType, bool]] = []  # appending is atomic, counting isn't
        self._stacks: list[list[str]] = []
        self._starts: dict[CodeType, bytes] = {}

    def install(self) -> None:
        """Have all calls told."""
        threading.setprofile(self._told)
        sys.setprofile(self._told)

    def taken(self) -> Seen:
        """What was noted since the last time."""
        calls, self._calls, stacks, self._stacks = self._calls, [], self._stacks, []
        crossing = Counter(code for code, crosses in calls if crosses)
        return Seen(Counter(code for code, _ in calls), crossing, max(stacks, key=len))

    def _told(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not self.on:
            return
        code = frame.f_code
        if code.co_filename.startswith(ROOT):
            if self._starting(frame):
                caller = frame.f_back.f_code.co_filename if frame.f_back else ""
                self._calls.append((code, caller != code.co_filename and caller.startswith(ROOT)))
        elif code.co_qualname == "ClientSession._request" and self._starting(frame):
            self._stacks.append(_coroutines(frame))

    def _starting(self, frame: FrameType) -> bool:
        """Whether a function starts, as opposed to a coroutine or generator that goes on: its RESUME has argument 0."""
        code = frame.f_code
        instructions = self._starts.get(code) or self._starts.setdefault(code, code.co_code)
        return instructions[frame.f_lasti + 1] == 0


def _coroutines(frame: FrameType | None) -> list[str]:
    """The coroutines of batchrank that wait for a frame, the nearest last."""
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_flags & inspect.CO_COROUTINE and code.co_filename.startswith(ROOT):
            found.append(code.co_qualname)
        frame = frame.f_back
    return found[::-1]


def main() -> None:
    """Measure both kinds of query."""
    options = common.arguments(
        __doc__, functions={"action": "store_true", "help": "tell calls by function, not by file"}
    )
    os.environ["BENCH_KEY"] = "none"
    print(common.machine())
    repeat = options.repeat or (2 if options.quick else 9)
    hook = Hook()
    hook.install()
    rows: list[list[object]] = []
    what = "function" if options.functions else "file"
    told: dict[str, dict[str, float]] = {}
    stacks: dict[str, list[str]] = {}
    with common.folder() as folder, common.serving() as server:
        server.set(scores="relative")
        for number, (name, (candidates, sections)) in enumerate(CASES.items()):
            place = folder / str(number)
            place.mkdir()
            _run(hook, server, place, _FIRST, candidates, sections)
            seen = [
                _run(hook, server, place, _FIRST + more, candidates, sections) for more in range(repeat + 1)
            ]
            pairs = list(pairwise(seen))
            calls = [_more(after.calls, before.calls) for before, after in pairs]
            crossing = [_more(after.crossing, before.crossing).total() for before, after in pairs]
            totals = [one.total() for one in calls]
            told[name] = _told(calls, by_function=options.functions)
            stacks[name] = seen[-1].stack
            entered = [len({code.co_filename for code in one if one[code] > 0}) for one in calls]
            rows.append(
                [
                    name,
                    int(median(entered)),
                    f"{median(totals):,.0f} ({min(totals):,}-{max(totals):,})",
                    int(median(crossing)),
                    _below(stacks[name]),
                    len(stacks[name]),
                ]
            )
    header = ["query", "files", "calls", "calls across files", "frames below rank", "frames of the task"]
    common.table(header, rows)
    for name, stack in stacks.items():
        print(f"\n{name}: {' > '.join(stack)}")
    common.table(
        [what, *(f"{name}: calls" for name in told)],
        [
            [one, *(some.get(one, 0.0) for some in told.values())]
            for one in sorted(set().union(*told.values()))
        ],
    )


def _run(
    hook: Hook,
    server: common.Server,
    folder: Path,
    queries: int,
    candidates: int,
    sections: dict[str, Any],
) -> Seen:
    """Rank so many queries, always the same ones first, in a job of its own."""
    name = f"job-{len(list(folder.iterdir()))}"
    data = common.write_queries(folder / f"{name}.parquet", queries, candidates, 250, group=1)
    job = load_job(common.job(folder, name, server.url, data, rate={"concurrency": 1}, **sections))

    async def execute() -> None:
        report = await run(job)
        assert report.exit_code == 0, report.reason

    hook.on = True
    try:
        anyio.run(execute, backend_options={"use_uvloop": True})
    finally:
        hook.on = False
    return hook.taken()


def _more(after: Counter[CodeType], before: Counter[CodeType]) -> Counter[CodeType]:
    """What was called more often; less often too, as what hangs on timing evens out in the sum."""
    more = Counter(after)
    more.subtract(before)
    return more


def _told(calls: list[Counter[CodeType]], *, by_function: bool) -> dict[str, float]:
    """The calls into each file, or of each function, that any query enters: the median over queries."""
    found: list[Counter[str]] = []
    for one in calls:
        found.append(Counter())
        for code, count in one.items():
            file = code.co_filename.removeprefix(ROOT)
            found[-1][f"{file}: {code.co_qualname}" if by_function else file] += count
    names = {name for one in found for name, count in one.items() if count > 0}
    return {name: median(one[name] for one in found) for name in names}


def _below(stack: list[str]) -> int:
    """Frames below the coroutine that ranks a query; all of them where none is called so."""
    ranks = (at for at, name in enumerate(stack) if name.rpartition(".")[2] == _RANKS)
    return len(stack) - 1 - next(ranks, -1)


if __name__ == "__main__":
    main()
