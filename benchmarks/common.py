"""What the benchmarks share: the server's process, made-up data, measured processes, tables."""

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PATH = "/compatible-api/v1/reranks"


class Server:
    """The server's process, seen from a benchmark."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.url = self.base + PATH

    def set(self, **settings: Any) -> None:
        """Change settings; counts start over unless ``keep=True``."""
        request = urllib.request.Request(self.base + "/set", orjson.dumps(settings), method="POST")
        urllib.request.urlopen(request).read()

    def counts(self) -> dict[str, Any]:
        """What the server saw."""
        counts: dict[str, Any] = orjson.loads(urllib.request.urlopen(self.base + "/counts").read())
        return counts


@contextmanager
def serving() -> Iterator[Server]:
    """A server of its own for the length of the block."""
    with subprocess.Popen([sys.executable, str(HERE / "server.py")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.terminate()


@dataclass(frozen=True)
class Used:
    """What a process took: seconds of wall and CPU, peak resident memory in MB."""

    wall: float
    cpu: float
    rss: float
    code: int


def measured(command: Sequence[str], *, log: Path | None = None, cwd: Path | None = None) -> Used:
    """Run a command to its end.

    Its peak memory starts at this process's own, as Linux counts; so that is reset to what is resident now.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    started = time.monotonic()
    with (log or Path(os.devnull)).open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=os.environ | {"BENCH_KEY": "none"}
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return Used(time.monotonic() - started, cpu, usage.ru_maxrss / 1024, process.returncode)


def batchrank(job: Path, *more: str, log: Path | None = None) -> Used:
    """Run a job as a user does.

    Raises:
        RuntimeError: it did not end well.
    """
    used = measured(
        [sys.executable, "-m", "batchrank", "run", str(job), *more], log=log or job.with_suffix(".log")
    )
    if used.code:
        raise RuntimeError((log or job.with_suffix(".log")).read_text())
    return used


def job(folder: Path, name: str, url: str, data: Path, **sections: Any) -> Path:
    """A job file on the server, without a quota unless ``sections`` set one."""
    content: dict[str, Any] = {
        "input": {"path": str(data)},
        "model": "qwen3-rerank",
        "endpoint": {"url": url, "api_key_env": "BENCH_KEY"},
        "tokenizer": "qwen",
        "rate": {"rpm": 1e9, "tpm": 1e15},
        "output": {"path": str(folder / name)},
    }
    for key, value in sections.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / f"{name}.yaml"
    path.write_bytes(orjson.dumps(content))
    return path


@cache
def prose() -> str:
    """A million characters of English about Python, ASCII only, on one line."""
    from batchrank.demo import corpus

    text = " ".join(str(document.text) for document in corpus())
    return " ".join(text.encode("ascii", "ignore").decode().split())


def documents(rng: random.Random, count: int, size: int) -> list[str]:
    """Distinct texts of so many characters; the first 8 are the score that the server may give."""
    text = prose()
    starts = [rng.randrange(len(text) - size) for _ in range(count)]
    return [f"{rng.random():.6f} {text[start : start + size - 9]}" for start in starts]


SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        (
            "candidates",
            pa.list_(pa.struct([("doc_id", pa.string()), ("text", pa.string()), ("score", pa.float64())])),
        ),
    ]
)


def write_queries(
    path: Path, queries: int, candidates: int, size: int, *, seed: int = 1, group: int = 20
) -> Path:
    """Queries with candidates of so many bytes as Parquet, written a row group at a time."""
    rng = random.Random(seed)
    scores = [float(candidates - i) for i in range(candidates)]
    with pq.ParquetWriter(path, SCHEMA, use_dictionary=False) as writer:
        for first in range(0, queries, group):
            rows = [_row(rng, q, candidates, size, scores) for q in range(first, min(first + group, queries))]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return path


def _row(rng: random.Random, number: int, candidates: int, size: int, scores: list[float]) -> dict[str, Any]:
    texts = documents(rng, candidates, size)
    return {
        "query_id": f"q{number:07d}",
        "query": f"how to sort a list {number:07d}",
        "candidates": [
            {"doc_id": f"d{number:07d}-{i:06d}", "text": t, "score": s}
            for i, (t, s) in enumerate(zip(texts, scores, strict=True))
        ],
    }


def steady(arrivals: Sequence[float], first: float = 0.2, last: float = 0.98) -> float:
    """Requests a second between two fractions of all that came: start-up and end are left out."""
    low, high = int(len(arrivals) * first), int(len(arrivals) * last) - 1
    return (high - low) / (arrivals[high] - arrivals[low])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("\n| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |", flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{middle(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def machine() -> str:
    """What was measured on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    names = ("batchrank", "aiohttp", "uvloop", "pyarrow", "orjson", "gigatoken")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}; load before: {load}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def arguments(doc: str | None, **extra: Any) -> argparse.Namespace:
    """The options that all benchmarks have, and more: name -> keyword arguments of ``add_argument``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it works, measures nothing"
    )
    parser.add_argument("--repeat", type=int, default=None, help="repeats of each measurement")
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    return parser.parse_args()


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="batchrank-bench-") as path:
        yield Path(path)
