"""Defines the commands that run the emulator: ``emulate`` serves it, ``demo`` ranks against it and shows the gain.

The command line imports this whatever the command, so what takes long to import is imported by the function that
needs it. The options of ``emulate`` are the emulator's settings, whose module is one that takes no time.
"""

import inspect
import signal
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchrank.cli.help import complete_fault
from batchrank.cli.jobs import execute
from batchrank.cli.terminal import console, load, say
from batchrank.cli.terminal import shown as plain
from batchrank.emulator.settings import FAULTS, Settings, switches
from batchrank.errors import JobError

if TYPE_CHECKING:
    from batchrank.emulator.app import Emulator
    from batchrank.io.address import Where


_CUTOFF = 10
"""The cutoff of MRR that MS MARCO uses; answers further down count as not found."""
_WIDTH = 120
"""Columns of the table, also in a pipe, which has no width."""
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


def demonstrate(folder: Path, overrides: Sequence[str], *, quiet: bool, bars: bool = True) -> int:
    """Make the demo's files, run its job, print the table; the run's exit code."""
    from batchrank.demo import write_demo
    from batchrank.pipeline.run import Run

    write_demo(folder)
    path = folder / "job.yaml"
    if not path.exists():
        path.write_text(JOB, encoding="utf-8")
    job = load(path, overrides)
    run = Run(job)
    report = execute(run, quiet=quiet, bars=bars)
    if (
        report.reason is None
        and run.outputs.target is not None
        and job.output is not None
        and job.output.format == "jsonl"
    ):
        _print(_read(folder, run.outputs.target), path)
    return report.exit_code


def _read(folder: Path, out: "Where") -> list[Shown]:
    import orjson

    from batchrank.write.folder import OutputFolder, records

    answers: dict[str, set[str]] = {}
    for line in (folder / "qrels.txt").read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, _ = line.split()
        answers.setdefault(query_id, set()).add(doc_id)
    questions = {}
    for row in (folder / "candidates.jsonl").read_bytes().splitlines():
        data = orjson.loads(row)
        questions[data["query_id"]] = data["query"]
    shown = []
    for part in OutputFolder(out).parts():
        for data in records(part):
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
    from rich.table import Table
    from rich.text import Text

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


_NOT_OPTIONS = {"cards"}


def emulate(**options: Any) -> None:
    """Serve the rerank APIs on loopback until interrupted: documented limits, errors and quotas, faults on demand.

    Point a job at it with endpoint.url: http://127.0.0.1:PORT/compatible-api/v1/reranks and any API key.
    """
    import anyio

    from batchrank.emulator.app import run_forever

    host, port = options.pop("host"), options.pop("port")
    settings = Settings(**{name: _value(name, value) for name, value in options.items() if value is not None})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the loop turns into an orderly end
    try:
        anyio.run(lambda: run_forever(settings, host, port, ready=_announce))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _announce(emulator: "Emulator") -> None:
    say(f"listening at {emulator.url}/compatible-api/v1/reranks")
    sys.stdout.flush()


def _value(name: str, value: Any) -> Any:
    """An option's value as the settings want it: name=value pairs become a mapping."""
    kind = _KINDS[name]
    if _is_mapping(kind):
        return dict(_pair(name, item, typing.get_args(kind)) for item in value)
    return tuple(value) if isinstance(value, list) else value


def _pair(name: str, item: str, kinds: tuple[type, ...]) -> tuple[Any, Any]:
    key, equals, value = item.rpartition("=")
    if not equals:
        raise JobError(f"--{name}: {item!r} is not a name=value pair")
    try:
        return kinds[0](key), kinds[1](value)
    except ValueError:
        raise JobError(f"--{name}: {item!r}: {value!r} is not a number") from None


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is Mapping


def _option(name: str, kind: Any, default: Any, text: str) -> inspect.Parameter:
    if _is_mapping(kind) or typing.get_origin(kind) is tuple:
        annotation: Any = list[str] | None
        default = None
    elif isinstance(kind, types.UnionType):
        annotation = kind
    else:
        annotation = kind
    if name == "faults":
        text += f" (repeatable, name=probability); names: {', '.join(sorted(FAULTS))}"
    elif _is_mapping(kind):
        text += " (repeatable, key=value)"
    complete = complete_fault if name == "faults" else None
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, autocompletion=complete)
    if kind is bool:
        option = typer.Option(f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}", help=text)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


_KINDS = {switch.name: switch.kind for switch in switches()}


def _signature() -> inspect.Signature:
    parameters = [
        _option("host", str, "127.0.0.1", "the address to listen on"),
        _option("port", int, 8080, "the port to listen on; 0 takes a free one"),
    ]
    parameters += [_option(*switch) for switch in switches() if switch.name not in _NOT_OPTIONS]
    return inspect.Signature(parameters)


emulate.__signature__ = _signature()  # type: ignore[attr-defined]  # typer reads the options from here
