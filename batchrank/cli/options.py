"""Holds the options that several commands share and the examples that ``--help`` shows, so that all agree."""

from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.terminal import LogFormat

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "batchrank run nightly.yaml",
        "batchrank run nightly.yaml --set rate.rpm=600 --set budget.max_cost=20",
        "batchrank run nightly.yaml --only-failed",
    ),
    "demo": ("batchrank demo", "batchrank demo demo --set merge.method=raw"),
    "init": (
        "batchrank init candidates.jsonl",
        "batchrank init 'export/*.parquet' --job nightly.yaml --model gte-rerank-v2",
    ),
    "check": ("batchrank check nightly.yaml", "batchrank check nightly.yaml --all --ask"),
    "schema": ("batchrank schema > job.schema.json",),
    "manual": ("batchrank manual", "batchrank manual merge", "batchrank manual keys | less"),
    "plan": ("batchrank plan nightly.yaml", "batchrank plan nightly.yaml --json"),
    "models": ("batchrank models",),
    "ledger": ("batchrank ledger nightly.yaml", "batchrank ledger nightly.yaml --compact --max-age 30d"),
    "emulate": (
        "batchrank emulate --port 8080 --scores relative",
        "batchrank emulate --faults 500=0.05",
    ),
    "status": ("batchrank status out/nightly", "batchrank status out/nightly --json"),
    "report": (
        "batchrank report out/nightly",
        "batchrank report out/nightly --qrels qrels.txt --output report.html",
    ),
    "bench": ("batchrank bench models.yaml", "batchrank bench models.yaml --table"),
    "eval": (
        "batchrank eval out/nightly --qrels qrels.txt",
        "batchrank eval out/nightly --qrels qrels.txt --json",
    ),
}


def epilog(command: str) -> str | None:
    """The examples of a command as the end of its help, each on a line of its own."""
    lines = EXAMPLES.get(command)
    return None if lines is None else "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file, .yaml or .toml.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the job: --set rate.rpm=60. Repeatable."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every failed attempt.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="json: stderr carries one JSON object a line, and nothing else."),
]
