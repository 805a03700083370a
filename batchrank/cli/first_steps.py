"""The commands for a first job: ``init``, ``check``, ``schema``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.options import JobFile, Json, Set
from batchrank.cli.terminal import load, say, say_json
from batchrank.job.schema import job_schema

_SAMPLE = 1000


def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a quoted glob or a folder.")],
    job: Annotated[Path, typer.Option("--job", "-o", metavar="FILE", help="The job file to write.")] = Path(
        "job.yaml"
    ),
    model: Annotated[str, typer.Option(help="A model that batchrank models lists.")] = "qwen3-rerank",
    force: Annotated[bool, typer.Option("--force", help="Replace the job file.")] = False,
) -> None:
    """Look at a dataset and write a commented job file for it, which runs as it is.

    Without the model's API key in the environment the job runs on the built-in emulator, at no cost.
    """
    from batchrank.planning.init import facts, write_job

    found = write_job(data, job, model=model, force=force)
    for line in facts(found):
        say(line)
    say()
    say(f"wrote {job}; next: batchrank check {job}")


def check(
    job: JobFile,
    overrides: Set = None,
    limit: Annotated[int, typer.Option(min=1, help="Records of the input to look at.")] = _SAMPLE,
    everything: Annotated[bool, typer.Option("--all", help="Look at the whole input.")] = False,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Also send one request without documents, which is not billed."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find what would keep a job from running: key, endpoint, output, ledger, data. Spends nothing.

    Exit codes: 0 ready; otherwise the first fault's, as `batchrank run` would end: 2 job or key, 3 some queries would
    fail, 4 input unusable, 1 output or ledger unusable or the key refused, 75 the endpoint can't be reached.
    """
    from batchrank.planning.check import check_job

    code, findings = 0, []
    for finding in check_job(load(job, overrides), limit=None if everything else limit, ask=ask):
        code = code or finding.exit_code
        findings.append(asdict(finding))
        if not as_json:
            say(f"{finding.state:<5} {finding.name:<8} {finding.text}")
    if as_json:
        say_json({"exit_code": code, "findings": findings})
    elif not code:
        say(f"ready: batchrank run {job}")
    raise typer.Exit(code)


def schema() -> None:
    """Print the JSON Schema of the job file, by which editors complete and check it."""
    say_json(job_schema())
