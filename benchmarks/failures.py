"""What bad documents cost: one document that always fails in 2% of the lists, against the same job without any.

    python benchmarks/failures.py [--quick]

The job runs in this process against the emulator, at the model's own quota, with all defaults. *Extra* is against the
run without a bad document; *possibly billed* are the tokens of failed attempts that a server may have charged for, as a
share of all tokens.
"""

import asyncio
from pathlib import Path
from typing import Any

import common
import orjson

from batchrank.emulator.app import Emulator
from batchrank.emulator.settings import Settings
from batchrank.job.load import load_job
from batchrank.launch import run

FAULTS = ["", "500", "score-null", "403", "413", "400-inspection"]


def write(path: Path, queries: int, candidates: int) -> None:
    """Lists with falling first-stage scores; one document in every fiftieth list says *unlucky*."""
    with path.open("wb") as file:
        for q in range(queries):
            texts = [f"document {d} of query {q} about files and folders" for d in range(candidates)]
            if q % 50 == 49:
                texts[q * 7 % candidates] += " unlucky"
            documents = [{"id": f"{q}-{d}", "text": text} for d, text in enumerate(texts)]
            file.write(
                orjson.dumps({"query_id": f"q{q}", "query": f"copy {q}", "candidates": documents}) + b"\n"
            )


async def measure(folder: Path, data: Path, fault: str) -> dict[str, Any]:
    """Run the job once; its summary, and how many requests came in."""
    poison = {"unlucky": fault} if fault else {}
    async with Emulator(Settings(poison=poison, latency=0.2, tokenizer="bytes")) as emulator:
        (folder / "key").write_text("sk-none")
        path = folder / f"{fault or 'good'}.yaml"
        job = {
            "input": {"path": str(data)}, "model": "qwen3-rerank", "tokenizer": "bytes",
            "endpoint": {"url": emulator.url + common.PATH, "api_key_file": "key"},
            "output": {"path": f"out-{fault or 'good'}", "format": "jsonl"},
        }  # fmt: skip
        path.write_bytes(orjson.dumps(job))
        report = await run(load_job(path, environ={}))
        return report.data | {"came": emulator.requests}


def main() -> None:
    """One job for each kind of failure."""
    options = common.arguments(__doc__)
    print(common.machine())
    queries, faults = (100, ["", "500"]) if options.quick else (1_000, FAULTS)
    rows: list[list[Any]] = []
    with common.folder() as folder:
        write(folder / "in.jsonl", queries, 20)
        base: dict[str, Any] = {}
        for fault in faults:
            found = asyncio.run(measure(folder, folder / "in.jsonl", fault))
            base = base or found
            totals, spend = found["totals"], found["spend"]
            rows.append([
                fault or "none", found["exit_code"], totals["queries"], totals["refused"],
                f"{found['process']['seconds'] - base['process']['seconds']:.1f}",
                found["came"] - base["came"], f"{spend['possibly_billed_tokens'] / max(1, spend['tokens']):.1%}",
            ])  # fmt: skip
    names = ["failure", "exit code", "queries ranked", "documents lost", "extra seconds", "extra requests"]
    common.table([*names, "possibly billed"], rows)


if __name__ == "__main__":
    main()
