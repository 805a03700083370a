"""What each stage takes of a request while nothing else runs: what bounds ``overhead.py``.

    python benchmarks/stages.py [--quick]

One list after another goes through all stages in one thread; the time of each stage is summed up. HTTP is the bare
loop of ``overhead.py``: its CPU for a request, decoding of JSON included. The ledger's line is one request's three
entries, each kind in a transaction of its own.
"""

import asyncio
import hashlib
import os
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import common
import numpy as np
import orjson
import pyarrow.parquet as pq

from batchrank.data import Answer, Query, Request
from batchrank.job.config import Job
from batchrank.job.load import load_job
from batchrank.ledger.ledger import Ledger
from batchrank.merge.answers import Round
from batchrank.merge.start import start
from batchrank.outcomes import Merged, QueryCost, Ranking, Scores
from batchrank.pipeline.assemble import sharder
from batchrank.pipeline.prepare import Prepared, Preparer
from batchrank.read.reader import read
from batchrank.wire import CODECS
from batchrank.write.writer import Writer

SHAPES = {"500 x 250 B": (500, 250), "100 x 1 kB": (100, 1000)}
WARM = 50


def main() -> None:
    """Measure both shapes of request."""
    options = common.arguments(__doc__)
    os.environ["BENCH_KEY"] = "none"
    print(common.machine())
    lists = 80 if options.quick else 1_500
    columns: list[dict[str, float]] = []
    with common.folder() as folder, common.serving() as server:
        for number, (documents, size) in enumerate(SHAPES.values()):
            data = common.write_queries(folder / f"{number}.parquet", lists, documents, size)
            limits = {"documents": documents}
            job = load_job(common.job(folder, f"out-{number}", server.url, data, limits=limits))
            taken = _stages(job, documents)
            taken["ledger: lookup, sent, answer"] = asyncio.run(
                _ledger(folder / f"{number}.sqlite", documents)
            )
            taken["HTTP and JSON: the bare loop"] = _http(server, folder, data, documents)
            columns.append({**taken, "sum": sum(taken.values()), "pyarrow decoding alone": _decoding(data)})
    common.table(
        ["microseconds a request", *SHAPES], [[name, *(c[name] for c in columns)] for name in columns[0]]
    )


def _stages(job: Job, documents: int) -> dict[str, float]:
    """Seconds of each stage, in microseconds a list."""
    assert job.input is not None and job.output is not None
    taken: Counter[str] = Counter()
    preparer, codec, writer = Preparer(job, sharder(job)), CODECS["dashscope"], Writer(job.output)
    results = [{"index": i, "relevance_score": 1 - i / documents} for i in range(documents)]
    data = orjson.loads(orjson.dumps({"results": results, "usage": {"total_tokens": 1000}, "id": "x"}))
    queries = read(job.input)
    for number in count():
        clock = [time.perf_counter()]
        query = next(queries, None)
        clock.append(time.perf_counter())
        if not isinstance(query, Query):
            break
        ready = preparer.prepare(query)
        clock.append(time.perf_counter())
        body = codec.body(Request("qwen3-rerank", query.text, query.documents))
        clock.append(time.perf_counter())
        hashlib.sha256(body).digest()
        clock.append(time.perf_counter())
        answer = codec.answer(data, documents)
        clock.append(time.perf_counter())
        ranking = Ranking.of(query, _merged(ready, answer), QueryCost(1, 1, documents, 1000, None))
        clock.append(time.perf_counter())
        writer.write(ranking)
        clock.append(time.perf_counter())
        if number >= WARM:
            names = ("read Parquet", "shard", "body", "key", "scores", "merge and rank", "write Parquet")
            taken.update(dict(zip(names, np.diff(clock).tolist(), strict=True)))
    writer.close()
    return {name: seconds / (number - WARM) * 1e6 for name, seconds in taken.items()}


def _decoding(data: Path) -> float:
    """Microseconds that it takes pyarrow to decode a list: a part of reading Parquet."""
    with pq.ParquetFile(data, pre_buffer=False, buffer_size=2**20) as file:
        began = time.perf_counter()
        rows = sum(len(batch) for batch in file.iter_batches(8))
        return (time.perf_counter() - began) / rows * 1e6


def _merged(ready: Prepared, answer: Answer) -> Merged:
    method: Any = start("hub", ready.shards, top_k=100, probe=False)
    step = method.send(None)
    assert isinstance(step, Round)
    try:
        method.send([Scores(step.chunks[0].documents, answer.values, 0)])
    except StopIteration as end:
        merged: Merged = end.value
        return merged
    raise AssertionError("one chunk takes one round")


async def _ledger(path: Path, documents: int, requests: int = 300) -> float:
    """Microseconds of a request's entries."""
    ledger, answer = Ledger(path), Answer(np.linspace(1, 0, documents), 1000, "x")
    serving = asyncio.create_task(ledger.serve())
    await ledger.begin(1)
    began = time.perf_counter()
    for number in range(requests):
        key = number.to_bytes(16, "big")
        await ledger.find([key])
        await ledger.sent(key, 1000, documents)
        await ledger.put(key, answer, 1000)
    seconds = time.perf_counter() - began
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    ledger.close()
    return float(seconds / requests * 1e6)


def _http(server: common.Server, folder: Path, data: Path, chunk: int) -> float:
    server.set(scores="fixed")
    log = folder / "bare.log"
    program = Path(__file__).with_name("overhead.py")
    used = common.measured([sys.executable, str(program), "bare", server.url, str(data), str(chunk)], log=log)
    assert used.code == 0, log.read_text()
    requests: int = server.counts()["requests"]
    return float(log.read_text()) / requests * 1e6


if __name__ == "__main__":
    main()
