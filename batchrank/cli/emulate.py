"""The demo: its files, its run, and what reranking changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.table import Table
from rich.text import Text

from batchrank.cli.run import execute
from batchrank.cli.terminal import console, load
from batchrank.cli.terminal import shown as plain
from batchrank.data_ import write_demo
from batchrank.pipeline.run import Run

_CUTOFF = 10
_WIDTH = 120
JOB = """\
# The demo's job. Change it and run it again: batchrank run demo/job.yaml
input:
  path: candidates.jsonl       # one question a line, each with 1,500 candidates from a term-overlap first stage
model: qwen3-rerank            # at most 500 documents and 120,000 tokens a request: every list takes several
endpoint:
  url: emulator                # the API on loopback, inside this process; remove the line to use the real one
merge:
  method: hub                  # hub | full | rrf | raw
  top_k: 10                    # the depth that must be exact
output:
  path: out
  format: jsonl
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One question: its best answer, and where a right one stood before and after reranking."""

    question: str
    best: str
    right: bool
    before: int | None
    after: int | None


def demonstrate(folder: Path, overrides: Sequence[str], *, quiet: bool) -> int:
    """Make the demo's files, run its job, print the table; the run's exit code."""
    write_demo(folder)
    path = folder / "job.yaml"
    if not path.exists():
        path.write_text(JOB, encoding="utf-8")
    job = load(path, overrides)
    run = Run(job)
    report = execute(run, quiet=quiet)
    if (
        report.reason is None
        and run.folder is not None
        and job.output is not None
        and job.output.format == "jsonl"
    ):
        _print(_read(folder, run.folder), path)
    return report.exit_code


def _read(folder: Path, out: Path) -> list[Shown]:
    answers: dict[str, set[str]] = {}
    for line in (folder / "qrels.txt").read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, _ = line.split()
        answers.setdefault(query_id, set()).add(doc_id)
    questions = {}
    for row in (folder / "candidates.jsonl").read_bytes().splitlines():
        data = orjson.loads(row)
        questions[data["query_id"]] = data["query"]
    shown = []
    for part in sorted(out.glob("ranking-*.jsonl")):
        for row in part.read_bytes().splitlines():
            data = orjson.loads(row)
            ranking, right = data["ranking"], answers.get(data["query_id"], set())
            found = [entry for entry in ranking if entry["doc_id"] in right]
            shown.append(
                Shown(
                    questions[data["query_id"]],
                    ranking[0]["doc_id"],
                    ranking[0]["doc_id"] in right,
                    min((entry["first_stage_rank"] for entry in found), default=None),
                    min((entry["rank"] for entry in found), default=None),
                )
            )
    return shown


def _print(shown: Sequence[Shown], path: Path) -> None:
    terminal = console(width=_WIDTH)
    table = Table(
        box=None, pad_edge=False, title_justify="left", title="Rank of a right answer, and the best answer"
    )
    table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("best answer", no_wrap=True, max_width=36)
    table.add_column("question")
    for row in shown:
        style = "green" if row.right else ""
        table.add_row(
            _rank(row.before),
            _rank(row.after),
            Text(plain(row.best), style),
            Text(plain(row.question), no_wrap=True, overflow="ellipsis"),
        )
    terminal.print(table)
    terminal.print()
    before, after = (_mrr([getattr(row, name) for row in shown]) for name in ("before", "after"))
    terminal.print(
        f"MRR@{_CUTOFF}: {before:.3f} before, {after:.3f} after reranking, over {len(shown)} questions"
    )
    terminal.print(
        f"To change the job and run it again: edit {path}, then batchrank run {path}", soft_wrap=True
    )


def _rank(rank: int | None) -> str:
    return "-" if rank is None else str(rank)


def _mrr(ranks: Sequence[int | None]) -> float:
    return sum(1 / rank for rank in ranks if rank is not None and rank <= _CUTOFF) / len(ranks)
