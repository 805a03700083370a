"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.logs import LogFormat

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
