"""The pipeline against a bare aiohttp loop that sends the same bodies to the same server.

    python benchmarks/overhead.py [--quick]

The pipeline is ``batchrank run``, from Parquet to Parquet, with its ledger on disk. The bare loop has its documents in
memory, encodes each body with orjson, posts it, reads and decodes the answer, and does nothing else. Both have 32
requests in flight on uvloop. Each pair of runs stands next to each other in time, and what counts is the ratio of
the two; rates are those that the server saw between 20% and 98% of all requests, so without start-up and end.

Cases:
1. 500 documents of 250 bytes a request; exact counts where they matter (``tokenizer: qwen``).
2. The same with a budget that never binds, so that every document's tokens are counted exactly.
3. 100 documents of 1 kB a request.
4. Lists of 1,500, merged by the hub; for information, as the bare loop does not send the hub.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import common
import orjson

FLIGHT = 32


async def bare(url: str, data: str, chunk: int) -> None:
    """Send each list of a Parquet file in requests of so many documents."""
    import aiohttp
    import pyarrow.parquet as pq

    # Read whole beforehand: reading is not what the bare loop is to show.
    rows = pq.read_table(data).to_pylist()
    work = [
        (row["query"], [c["text"] for c in row["candidates"][i : i + chunk]])
        for row in rows
        for i in range(0, len(row["candidates"]), chunk)
    ]
    del rows
    items = iter(work)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for query, documents in items:
                body = orjson.dumps({"model": "qwen3-rerank", "query": query, "documents": documents})
                async with session.post(
                    url, data=body, headers={"Content-Type": "application/json"}
                ) as response:
                    answer = orjson.loads(await response.read())
                    assert len(answer["results"]) == len(documents)

        started = os.times()
        await asyncio.gather(*(worker() for _ in range(FLIGHT)))
        ended = os.times()
        print(ended.user + ended.system - started.user - started.system)


async def wire(url: str, body: bytes, count: int) -> None:
    """Write the same ready-made request again and again, and skip the answers: how fast the server is."""
    host, port = url.split("/")[2].split(":")
    head = f"POST {common.PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
        for _ in range(count // FLIGHT):
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.split(b"Content-Length: ")[1].split(b"\r\n")[0]))

    await asyncio.gather(*(worker() for _ in range(FLIGHT)))


class Case:
    """One shape of work."""

    def __init__(
        self, name: str, queries: int, candidates: int, size: int, chunk: int, **sections: Any
    ) -> None:
        self.name, self.queries, self.candidates, self.size, self.chunk = (
            name,
            queries,
            candidates,
            size,
            chunk,
        )
        self.sections = sections


def cases(quick: bool) -> list[Case]:
    """The shapes of work."""
    n = 60 if quick else 2_500
    limit = {"limits": {"documents": 100}}
    budget = {"budget": {"max_tokens": 10**14}}
    return [
        Case("500 x 250 B", n, 500, 250, 500),
        Case("500 x 250 B, all tokens counted", n, 500, 250, 500, **budget),
        Case("100 x 1 kB", n * 6 // 5, 100, 1000, 100, **limit),
        Case("1,500 x 250 B, hub", n // 4, 1500, 250, 500),
    ]


def main() -> None:
    """Measure all cases."""
    options = common.arguments(__doc__, only={"type": int, "default": None, "help": "one case, from 1"})
    print(common.machine())
    repeat = options.repeat or (1 if options.quick else 3)
    chosen = cases(options.quick)
    if options.only:
        chosen = [chosen[options.only - 1]]
    rows, server_rows = [], []
    with common.folder() as folder, common.serving() as server:
        for number, case in enumerate(chosen):
            data = common.write_queries(
                folder / f"{number}.parquet", case.queries, case.candidates, case.size
            )
            server_rows.append([case.name, *_server_rate(server, data, case)])
            place = folder / str(number)
            place.mkdir()
            rows.append(_measure(server, place, data, case, repeat))
            data.unlink()
            shutil.rmtree(place)
    common.table(
        [
            "work",
            "documents/s",
            "bare loop",
            "ratio",
            "requests/s",
            "CPU s / 1,000 requests",
            "bare loop's",
            "wall s",
        ],
        rows,
    )
    common.table(["work", "server alone: requests/s", "its CPU s / 1,000 requests"], server_rows)


def _server_rate(server: common.Server, data: Path, case: Case) -> tuple[float, float]:
    import pyarrow.parquet as pq

    row = next(pq.ParquetFile(data).iter_batches(1)).to_pylist()[0]
    texts = [c["text"] for c in row["candidates"][: case.chunk]]
    body = orjson.dumps({"model": "qwen3-rerank", "query": row["query"], "documents": texts})
    server.set(scores="fixed")
    import uvloop

    count = max(case.queries, 64)
    uvloop.run(wire(server.url, body, count))
    counts = server.counts()
    return common.steady(counts["arrivals"]), counts["cpu"] / counts["requests"] * 1000


def _measure(server: common.Server, folder: Path, data: Path, case: Case, repeat: int) -> list[object]:
    ours, theirs, ratios, cpus, bare_cpus, walls = [], [], [], [], [], []
    hub = case.candidates > case.chunk
    for turn in range(repeat):
        server.set(scores="relative" if hub else "fixed")
        log = folder / "bare.log"
        used = common.measured(
            [sys.executable, __file__, "bare", server.url, str(data), str(case.chunk)], log=log
        )
        assert used.code == 0, log.read_text()
        counts = server.counts()
        theirs.append(common.steady(counts["arrivals"]))
        bare_cpus.append(float(log.read_text()) / counts["requests"] * 1000)

        server.set(scores="relative" if hub else "fixed")
        name = f"out-{turn}"
        job = common.job(
            folder, name, server.url, data, **(case.sections | {"rate": {"concurrency": FLIGHT}})
        )
        used = common.batchrank(job, "--quiet")
        counts = server.counts()
        ours.append(common.steady(counts["arrivals"]))
        cpus.append(used.cpu / counts["requests"] * 1000)
        walls.append(used.wall)
        ratios.append(ours[-1] / theirs[-1])
    per = common.middle(ours) * case.chunk
    return [
        case.name, per, common.middle(theirs) * case.chunk, common.spread(ratios), common.middle(ours),
        common.middle(cpus), common.middle(bare_cpus), common.middle(walls),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        import uvloop

        uvloop.run(bare(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main()
