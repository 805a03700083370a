"""How long a command takes to start and end, next to what Python and typer alone take in the same minute.

    python benchmarks/start.py [--quick] [--repeat N]

Each command is a process of its own. They are run in turns, so that each one's neighbours are those it is compared
with, and a ratio is the median of those of the turns. CPU is that of the process and of all its threads; wall is what
a user waits, which on a busy machine is more. Modules are compiled beforehand, as where a package is installed, even if
the environment says that Python shall write none of that (``PYTHONDONTWRITEBYTECODE``).

``run`` ranks one query of three documents on a server in another process, with a ledger, from JSON lines to JSON lines.
"""

import os
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import common
import orjson

_COMPLETION = "import sys; sys.argv[0] = 'batchrank'; from batchrank.__main__ import main; main()"
_ASKED = {"_BATCHRANK_COMPLETE": "complete_bash", "COMP_WORDS": "batchrank mo", "COMP_CWORD": "1"}


def commands(folder: Path, server: common.Server) -> dict[str, list[str]]:
    """What is measured: the arguments of Python, by what the table calls it."""
    data = folder / "in.jsonl"
    texts = ["how a list is sorted", "what a set is", "why a dict keeps its order"]
    data.write_bytes(orjson.dumps({"query_id": "q", "query": "sort a list", "candidates": texts}) + b"\n")
    job = common.job(folder, "out", server.url, data, output={"format": "jsonl"}, tokenizer="bytes")
    batchrank = ["-m", "batchrank"]
    return {
        "`python -c pass`": ["-c", "pass"],
        "`python -c 'import typer'`": ["-c", "import typer"],
        "`--help`": [*batchrank, "--help"],
        "`--version`": [*batchrank, "--version"],
        "completion of a command's name": ["-c", _COMPLETION],
        "`models`": [*batchrank, "models"],
        "`schema`": [*batchrank, "schema"],
        "`run`, one query": [*batchrank, "run", str(job), "--quiet"],
        "`status`": [*batchrank, "status", str(folder / "out")],
    }


def measured(name: str, arguments: list[str], folder: Path) -> common.Used:
    """Run one of them.

    Raises:
        RuntimeError: it did not end well.
    """
    if "run" in arguments:
        shutil.rmtree(folder / "out", ignore_errors=True)
    os.environ.update(_ASKED if "completion" in name else {})
    used = common.measured([sys.executable, *arguments], log=folder / "log", cwd=folder)
    for variable in _ASKED:
        os.environ.pop(variable, None)
    if used.code:
        raise RuntimeError((folder / "log").read_text())
    return used


def main() -> None:
    """Measure all commands."""
    options = common.arguments(__doc__)
    print(common.machine())
    repeat = options.repeat or (1 if options.quick else 9)
    with common.folder() as folder, common.serving() as server:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        server.set(scores="fixed")
        found: dict[str, list[common.Used]] = defaultdict(list)
        for turn in range(repeat + 1):
            for name, arguments in commands(folder, server).items():
                used = measured(name, arguments, folder)
                if turn:  # the first one compiles
                    found[name].append(used)
    python, typer = list(found.values())[:2]
    rows: list[list[object]] = []
    for name, uses in found.items():
        over = [
            common.middle([use.cpu / other.cpu for use, other in zip(uses, others, strict=True)])
            for others in (python, typer)
        ]
        cpu, wall = (common.middle([getattr(use, what) for use in uses]) * 1000 for what in ("cpu", "wall"))
        rows.append([name, round(cpu), round(wall), *over])
    common.table(["command", "CPU, ms", "wall, ms", "x `pass`", "x `import typer`"], rows)


if __name__ == "__main__":
    main()
