"""Explains the command line: the options that commands share, the examples that ``--help`` shows, and the manuals.

``batchrank manual`` prints them, so that they can be read where only the package is installed. A manual is the
README.md of the folder that it explains; its topic is the folder's name. One topic is made rather than written:
``keys``, the table of all keys of a job, so that it can't differ from what a job accepts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from batchrank.cli.terminal import LogFormat, console, say

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "batchrank run nightly.yaml",
        "batchrank run nightly.yaml --set rate.rpm=600 --set budget.max_cost=20",
        "batchrank run nightly.yaml --until 06:00",
        "batchrank run nightly.yaml --only-failed",
    ),
    "demo": ("batchrank demo", "batchrank demo demo --set merge.method=raw"),
    "init": (
        "batchrank init candidates.jsonl",
        "batchrank init 'export/*.parquet' --job nightly.yaml --model gte-rerank-v2",
        "batchrank init candidates.jsonl --force --set budget.max_cost=5 --column query=query",
    ),
    "check": ("batchrank check nightly.yaml", "batchrank check nightly.yaml --all --ask"),
    "rerank": (
        "batchrank rerank 'copy a directory tree' docs.txt --emulated",
        "batchrank rerank 'copy a directory tree' docs.txt --top 3 --json --emulated",
    ),
    "schema": ("batchrank schema > job.schema.json", "batchrank schema --bench > bench.schema.json"),
    "manual": ("batchrank manual", "batchrank manual merge", "batchrank manual keys | less"),
    "plan": ("batchrank plan nightly.yaml", "batchrank plan nightly.yaml --json"),
    "models": ("batchrank models", "batchrank models qwen3-rerank", "batchrank models --json"),
    "ledger": ("batchrank ledger nightly.yaml", "batchrank ledger nightly.yaml --compact --max-age 30d"),
    "emulate": (
        "batchrank emulate --port 8080 --scores relative",
        "batchrank emulate --faults 500=0.05",
    ),
    "status": (
        "batchrank status out/nightly",
        "batchrank status out/nightly --follow",
        "batchrank status out/nightly --json",
    ),
    "runs": ("batchrank runs out/nightly", "batchrank runs nightly.yaml --last 7 --json"),
    "view": (
        "batchrank view out/nightly",
        "batchrank view out/nightly q1 --top 20 --only-moved",
        "batchrank view nightly.yaml q1 --json",
    ),
    "explain": (
        "batchrank explain out/nightly q1 d1-3",
        "batchrank explain out/nightly q1 d1-3 --against d1-7",
        "batchrank explain nightly.yaml q1 d1-3 --json",
    ),
    "report": (
        "batchrank report out/nightly",
        "batchrank report out/nightly --qrels qrels.txt --output report.html",
    ),
    "diff": (
        "batchrank diff out/monday out/nightly",
        "batchrank diff bm25.trec out/nightly --depth 100 --top 20",
        "batchrank diff out/monday out/nightly --json",
    ),
    "gate": ("batchrank gate show out/nightly", "batchrank gate accept out/nightly"),
    "bench": (
        "batchrank bench models.yaml --plan",
        "batchrank bench models.yaml",
        "batchrank bench models.yaml --table",
    ),
    "eval": (
        "batchrank eval out/nightly --qrels qrels.txt",
        "batchrank eval bm25.trec out/monday out/nightly --qrels qrels.txt --plot queries.svg",
        "batchrank eval out/nightly --qrels qrels.txt --json",
    ),
}


class Command(TyperCommand):
    """A command that says what to do about arguments that it doesn't take: most often a shell made them of a glob."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does it, with what to do where there are too many arguments."""
        given, ctx.allow_extra_args = list(args), True
        parsed = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            taken = any(parameter.param_type_name == "argument" for parameter in self.params)
            most = "one" if taken else "none"
            told = f"Got unexpected extra arguments ({' '.join(ctx.args)}); {self.name} takes {most}"
            if taken or "--set" in given:
                told += ". The shell replaces a glob that isn't quoted by names of files: write '*.jsonl'"
            ctx.fail(told)
        return parsed


def epilog(command: str) -> str | None:
    """The examples of a command as the end of its help, each on a line of its own."""
    lines = EXAMPLES.get(command)
    return None if lines is None else "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def complete_model(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    from batchrank.models import cards

    return [name for name in cards() if name.startswith(incomplete)]


def complete_key(incomplete: str) -> list[tuple[str, str]]:
    """Keys of a job that begin so, with what each is for; a model's name where that is the value."""
    from batchrank.job.schema import KEYS

    if incomplete.startswith("model="):
        return [(f"model={name}", "") for name in complete_model(incomplete.removeprefix("model="))]
    leaves = (key for key in KEYS if not any(other.startswith(f"{key}.") for other in KEYS))
    return [(f"{key}=", KEYS[key]) for key in leaves if key.startswith(incomplete)]


def complete_fault(incomplete: str) -> list[str]:
    """Faults of the emulator that begin so."""
    from batchrank.emulator.settings import FAULTS

    return [f"{name}=" for name in sorted(FAULTS) if name.startswith(incomplete)]


def complete_role(incomplete: str) -> list[str]:
    """Roles of columns that begin so."""
    from batchrank.job.sections import Columns

    return [f"{role}=" for role in Columns.model_fields if role.startswith(incomplete)]


JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file, .yaml or .toml.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the job: --set rate.rpm=60. Repeatable.",
        autocompletion=complete_key,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="A model that batchrank models lists; default: qwen3-rerank.", autocompletion=complete_model
    ),
]
Url = Annotated[str | None, typer.Option(help="The endpoint's full address; default: the model's own.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every failed attempt.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="Draw no bars; in a pipe there are none anyway.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="On a Ray cluster (auto, local): the same as engine.ray."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="json: stderr carries one JSON object a line, and nothing else."),
]


_PACKAGE = Path(__file__).parents[1]
_KEYS = "keys"
_KEYS_TITLE = "All keys of a job, with their defaults"
_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}
_MOST_NAMES = 9
"""Names of a key's values that are listed; more than that, as of models, have a command that lists them."""


def manual(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="Without it, the topics are listed.")
    ] = None,
) -> None:
    """Print a manual: how jobs are written, what is read and written, how lists are merged, what failures do.

    On a terminal it is laid out; in a pipe it is Markdown as it stands in the repository.
    """
    found = manuals()
    if topic is None:
        titles = {name: _title(path) for name, path in found.items()} | {_KEYS: _KEYS_TITLE}
        for name, title in titles.items():
            say(f"{name:<{max(map(len, titles))}}  {title}")
        say()
        say("batchrank manual TOPIC prints one.")
    elif topic == _KEYS:
        _print(f"# {_KEYS_TITLE}\n\n{key_table()}")
    elif topic in found:
        _print(found[topic].read_text(encoding="utf-8"))
    else:
        raise typer.BadParameter(
            f"there is no manual of {topic!r}; the topics are {', '.join([*found, _KEYS])}"
        )


def manuals() -> dict[str, Path]:
    """The manuals by topic, that of job files first.

    ``configs`` stands inside an installed package, and beside the package in a clone.
    """
    paths = [_PACKAGE.parent / "configs" / "README.md", *sorted(_PACKAGE.glob("*/README.md"))]
    found = {path.parent.name: path for path in paths if path.is_file()}
    return {"configs": found["configs"], **found}


def key_table() -> str:
    """All keys of a job as a table in Markdown, made from the schema that job files are checked by."""
    from batchrank.job.schema import job_schema

    schema = job_schema()
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, node, required in _keys(schema, schema["$defs"], "", frozenset(schema["required"])):
        section = _section(name, node, schema["$defs"]) is not None
        kind = "section" if section else _kind(node)
        default = "required" if required else _default(node)
        meaning = node["description"].replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _keys(
    schema: dict[str, Any], definitions: dict[str, Any], at: str, required: frozenset[str]
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each key's dotted name, its schema, and whether every job must have it; a section comes before its keys."""
    for name, node in schema["properties"].items():
        yield at + name, node, name in required
        if (inner := _section(at + name, node, definitions)) is not None:
            needed = frozenset(inner.get("required", ())) if name in required else frozenset[str]()
            yield from _keys(inner, definitions, f"{at}{name}.", needed)


def _section(name: str, node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a section; None for a key with a value of its own, even where a mapping is one way to write it."""
    from batchrank.job.load import SHORT

    options = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    if (len(options) != 1 and name not in SHORT) or "$ref" not in options[-1]:
        return None
    found: dict[str, Any] = definitions[options[-1]["$ref"].rsplit("/", 1)[1]]
    return found if "properties" in found else None


def _kind(node: dict[str, Any]) -> str:
    """What a key's value may be, in words."""
    if "anyOf" in node:
        kinds = [_kind(option) for option in node["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        names = node["enum"]
        return ", ".join(f"`{name}`" for name in names) if len(names) <= _MOST_NAMES else "name"
    return _KINDS.get(node.get("type", ""), "mapping")


def _default(node: dict[str, Any]) -> str:
    default = node.get("default")
    if default is None or default == []:
        return ""
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines).removeprefix("# ").strip()


def _print(text: str) -> None:
    terminal = console()
    if not terminal.is_terminal:
        for line in text.splitlines():
            say(line)
        return
    from rich.markdown import Markdown

    terminal.print(Markdown(text, hyperlinks=False))
