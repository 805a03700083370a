"""Made-up rankings, written."""

from pathlib import Path
from typing import Any

import numpy as np

from batchrank.data import Query
from batchrank.job.sections import Output
from batchrank.outcomes import Agreement, Merged, QueryCost, Ranking
from batchrank.write.writer import Part, Writer

FORMATS = {
    "parquet": ["queries-{}.parquet", "ranking-{}.parquet"],
    "jsonl": ["ranking-{}.jsonl"],
    "trec": ["queries-{}.jsonl", "ranking-{}.trec"],
    "rank_llm": ["queries-{}.jsonl", "ranking-{}.jsonl"],
    "msmarco": ["queries-{}.jsonl", "ranking-{}.tsv"],
}


def ranking(number: int, documents: int = 10, *, blank: int = 2) -> Ranking:
    """A ranking of so many documents, the last ``blank`` of which were never sent."""
    scores = np.linspace(1, 0, documents - blank)
    ids = [f"d{i}" for i in range(documents)]
    query = Query(f"q{number}", "text", ids, ["a"] * documents, np.arange(documents, 0.0, -1))
    order = np.arange(documents - blank)[::-1]
    agreement = Agreement(75, 100)
    merged = Merged(order, scores, scores * 2, 3, "hub", "relative", (0.125, 0.5), agreement=agreement)
    return Ranking.of(
        query, merged, QueryCost(2, 3, documents + 1, 100 + number, None, reused=4, oldest=1_795_575_600)
    )


def write(
    folder: Path, format: Any, count: int, *, each: int | None = None, top_n: int | None = None
) -> tuple[Part, ...]:
    """Write so many rankings, in parts of so many each."""
    writer = Writer(Output(path=str(folder), format=format, top_n=top_n))
    parts: list[Part | None] = []
    for number in range(count):
        writer.write(ranking(number))
        parts.append(writer.end() if each and not (number + 1) % each else None)
    return tuple(part for part in [*parts, writer.close()] if part is not None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
