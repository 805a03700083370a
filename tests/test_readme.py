"""What README.md and the manuals show works as it stands there."""

import ast
import asyncio
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import playground
import pytest
import yaml

import batchrank
from batchrank.bench.matrix import load_bench
from batchrank.cli.app import app
from batchrank.errors import ExitCode
from batchrank.job.document import yaml_of
from batchrank.job.load import load_job
from batchrank.job.schema import job_schema, key_names

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "configs" / "README.md",
        ROOT / "benchmarks" / "README.md",
        *sorted(ROOT.glob("batchrank/*/README.md")),
    )
}
PAGE_ONE = PAGES["README.md"]
COMMANDS = {
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
}
SCHEMA = jsonschema.Draft202012Validator(job_schema())
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_LINES_OF_PAGE_ONE = 170
_RAY = (pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore"))


def blocks(language: str) -> list[Any]:
    """The blocks of a language on all pages, each a parameter that is called by its page and number."""
    return [
        pytest.param(match[2], id=f"{page}-{number}", marks=_RAY if "import ray" in match[2] else ())
        for page, text in PAGES.items()
        for number, match in enumerate(m for m in _FENCE.finditer(text) if m[1] == language)
    ]


def inline_code() -> Iterator[tuple[str, str]]:
    """What stands between backticks outside blocks, with its page."""
    for page, text in PAGES.items():
        for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
            yield page, code


def commands() -> list[Any]:
    """Every command line of batchrank in a block or between backticks that says more than the command's name."""
    found = {
        line.strip(): page
        for page, text in PAGES.items()
        for _, body in (m.groups() for m in _FENCE.finditer(text) if m[1] in ("sh", "console"))
        for line in body.splitlines()
        if line.startswith("batchrank ")
    }
    found |= {code: page for page, code in inline_code() if re.match(r"batchrank [a-z]+ (?!--help)", code)}
    return [
        pytest.param(line, id=f"{page}: {line.partition('#')[0].strip()}") for line, page in found.items()
    ]


def test_page_one_is_short_and_its_test_command_is_one_line() -> None:
    """It can be read in one sitting; CI takes the line with the tests from it."""
    lines = PAGE_ONE.splitlines()
    assert len(lines) <= _LINES_OF_PAGE_ONE
    assert [line for line in lines if ".venv/bin/pytest" in line] == [
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    ]


def test_every_language_of_a_block_is_tested() -> None:
    """A block in another one would go unseen; one without any is what a program prints, or a picture."""
    languages = {match[1] for text in PAGES.values() for match in _FENCE.finditer(text)}
    assert languages <= {"", "sh", "yaml", "json", "python"}
    assert sum(text.count("```") for text in PAGES.values()) == 2 * sum(
        len(_FENCE.findall(text)) for text in PAGES.values()
    )


@pytest.mark.parametrize("code", blocks("python"))
def test_a_python_block_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script; one that awaits outside of a function as a notebook's cell, and one without asyncio as both."""
    monkeypatch.chdir(tmp_path)
    playground.make(tmp_path)
    compiled = compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    cell = bool(compiled.co_flags & inspect.CO_COROUTINE)
    if not cell:
        _script(code)
    if cell or "asyncio" not in code:
        asyncio.run(_notebook(code))
    if "print" in code:
        assert capsys.readouterr().out
    if "import ray" in code:
        pytest.importorskip("ray").shutdown()


def _script(code: str) -> None:
    exec(compile(code, "script", "exec"), {"__name__": "__main__"})


async def _notebook(code: str) -> None:
    """Run a cell as IPython does: within an event loop that goes on, and awaiting what it awaits."""
    cell = compile(code, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(cell, {"__name__": "__main__"})
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("text", blocks("json"))
def test_a_json_block_is_an_input_that_is_understood(text: str, tmp_path: Path) -> None:
    """Each record gives a ranking; names that aren't the usual ones are told as the page tells them."""
    columns = None
    if '"hits"' in text:
        (told,) = [b.values[0] for b in blocks("yaml") if "candidates: hits" in b.values[0]]
        columns = yaml.safe_load(told)["input"]["columns"]
    job = batchrank.Job(model="qwen3-rerank", endpoint=batchrank.Endpoint(url="emulator"), tokenizer="bytes")
    (ranking,) = batchrank.rerank_sync([json.loads(text)], job, columns=columns, progress=False)
    assert ranking.query_id == "q1" and ranking.doc_ids[0] in ("d1", "0")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_yaml_block_is_a_job(text: str, tmp_path: Path) -> None:
    """A whole one or some keys of one, to a run and to an editor alike; or a benchmark, whose jobs all load."""
    data = yaml_of(text)
    path = tmp_path / "job.yaml"
    if "datasets" in data:
        path.write_text(text)
        for cell in load_bench(path)[1]:
            cell.job()
        return
    _load(data, path)


def test_jobs_between_backticks_are_jobs(tmp_path: Path) -> None:
    """Such as ``input: {path: scifact}``: some keys of a job, of keys that exist."""
    keys = {name.partition(".")[0] for name in key_names()}
    found = [
        code
        for _, code in inline_code()
        if (match := re.match(r"([a-z_]+(?:\.[a-z_]+)*): \S", code)) and match[1].partition(".")[0] in keys
    ]
    assert len(found) > 10
    for code in found:
        name, _, value = code.partition(": ")
        data: Any = yaml.safe_load(value)
        for part in reversed(name.split(".")):
            data = {part: data}
        _load(data, tmp_path / "job.yaml")


def _load(data: dict[str, Any], path: Path) -> None:
    base: dict[str, Any] = {"input": {"path": "a.jsonl"}, "model": "qwen3-rerank", "output": {"path": "out"}}
    whole = base | data
    for name in ("input", "output"):
        whole[name] = base[name] | whole[name] if isinstance(whole[name], dict) else whole[name]
    SCHEMA.validate(whole)
    path.write_text(json.dumps(whole))
    load_job(path, environ={})


def test_keys_between_backticks_exist() -> None:
    """Every ``section.key`` that a page names is one."""
    known = set(key_names())
    sections = {name.partition(".")[0] for name in known if "." in name}
    named = {
        (page, code)
        for page, code in inline_code()
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code) and code.partition(".")[0] in sections
    }
    assert {code for _, code in named} <= known
    assert len(named) > 30


@pytest.mark.parametrize("line", commands())
def test_a_command_line_parses(line: str) -> None:
    """The command and its options exist, nothing is lacking, every value is of its kind."""
    words = re.split(r" (?:\|\|?|>|&&) ", line)[0]
    context = playground.parsed(words)
    assert context.params or words.split()[1] in ("schema", "models")


def test_commands_between_backticks_exist() -> None:
    """Every ``batchrank X`` is a command, and page one names them all."""
    named = {
        (page, match[1]) for page, code in inline_code() if (match := re.match(r"batchrank ([a-z]+)\b", code))
    }
    assert {name for _, name in named} <= COMMANDS
    assert {name for page, name in named if page == "README.md"} == COMMANDS


def test_options_between_backticks_exist() -> None:
    """Every ``--option`` that stands alone is one of a command of ours."""
    known = {option for name in COMMANDS for option in playground.options(name)} | {
        "--version",
        "--install-completion",
    }
    named = {
        code.split()[0]
        for page, code in inline_code()
        if code.startswith("--") and page != "benchmarks/README.md"
    }
    assert named and named <= known


def test_the_first_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, as page one shows it; without a key it is the emulator's."""
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    playground.make(tmp_path)
    first = PAGE_ONE.split("## First job")[1].split("```sh\n")[1].split("```")[0].splitlines()
    assert [shlex.split(line)[1] for line in first] == ["init", "check", "plan", "run"]
    for line in first:
        playground.run(line, monkeypatch)
    assert list(tmp_path.glob("out/*/summary.json"))


def test_the_benchmark_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the files that the demo leaves, as it stands in the manual."""
    monkeypatch.chdir(tmp_path)
    playground.make(tmp_path)
    (text,) = [b.values[0] for b in blocks("yaml") if "datasets" in b.values[0]]
    (tmp_path / "models.yaml").write_text(text)
    shown = playground.run("batchrank bench models.yaml", monkeypatch)
    assert shown.count("| docs |") == 4 and "failed" not in shown
    assert (tmp_path / "bench" / "table.md").exists()


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    """Each code once, in order, and no other one."""
    table = PAGE_ONE.split("| code |")[1].split("\n\n")[0]
    told = [
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, flags=re.MULTILINE)
        for code in row.split(",")
    ]
    assert told == list(ExitCode)


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file that is there, and to a heading of it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", PAGES[page])):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), link


def test_every_manual_is_linked_from_page_one() -> None:
    """Nothing is hidden."""
    linked = set(re.findall(r"\]\(([^)#\s]+)", PAGE_ONE))
    assert set(PAGES) - {"README.md"} <= linked
