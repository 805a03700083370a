"""Reads a job file into plain data and the line of each key, in messages that repeat nothing of its secrets."""

import codecs
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from batchrank.errors import JobError

_MOST_BYTES = 2**20
"""No job file is as large; a dataset given in its place is."""
_DEEPEST = 50
"""Levels of nesting: a job has five, what goes into a request's body a few more."""
_MOST_NODES = 50_000
"""Keys and values once every alias stands for what it means: as many as the largest file has of its own."""
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
Lines = dict[tuple[str, ...], int]


def read_document(path: Path, what: str = "job") -> tuple[dict[str, Any], Lines]:
    """The keys of a job file, and on which line each stands.

    Args:
        path: the file.
        what: what it is called; a benchmark's file is read as a job's is.

    Raises:
        JobError: there is no such file, it can't be read, or isn't a mapping of keys.
    """
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise JobError(f"{path}: a {what} file ends in .yaml, .yml or .toml")
    text = _text(path, what)
    try:
        data, lines = _toml(text) if path.suffix == ".toml" else _yaml(text)
    except yaml.MarkedYAMLError as error:
        raise JobError(f"{path}{_said(error)}") from None
    except RecursionError:
        raise JobError(f"{path}: is nested too deeply; a {what} has a few levels") from None
    except yaml.reader.ReaderError as error:
        raise JobError(f"{path}{_unreadable(error, text)}") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, ValueError) as error:
        raise JobError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise JobError(f"{path}: a {what} file is a mapping of keys; this one holds {type(data).__name__}")
    return data, lines


def value_of(text: str) -> Any:
    """What a text means as YAML; the text itself where it is none, or more than a value.

    Raises:
        ValueError: it is nested too deeply, or grows too large by its aliases.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _measure(node)
        return _constructed(node)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except yaml.YAMLError:
        return text


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise JobError(f"{path}: no such {what} file") from None
    except OSError as error:
        raise JobError(f"{path}: can't be read: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise JobError(
            f"{path}: is larger than {_MOST_BYTES:,} bytes, which no {what} file is; name the {what}'s own"
        )
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise JobError(
            f"{path}: can't be read: byte {error.start:,} is no {error.encoding}; save it as UTF-8"
        ) from None


def _toml(text: str) -> tuple[Any, Lines]:
    data = tomllib.loads(text)
    _measure_value(data)
    return data, dict(_toml_lines(text))


def _yaml(text: str) -> tuple[Any, Lines]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return None, {}
    _measure(node)
    lines = dict(_yaml_lines(node, ()))
    return _constructed(node), lines


class _Loader(yaml.SafeLoader):
    """Takes the key ``on`` for what it looks like, and not for true, as YAML 1.1 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """What a mapping means."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def yaml_of(text: str) -> Any:
    """What a text in YAML means, with keys as a job has them.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 a safe loader


def _constructed(node: yaml.Node) -> Any:
    """What a node means, without parsing its text again, which takes most of the time."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure(node: yaml.Node) -> None:
    """See that a node isn't too deep, nor too large with its aliases; each node is looked at once.

    Raises:
        ValueError: it is.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        line = node.start_mark.line + 1
        if depth > _DEEPEST:
            raise ValueError(f"line {line}: is nested more than {_DEEPEST} levels deep")
        if (known := sizes.get(id(node))) is not None:
            if not known:
                raise ValueError(f"line {line}: an alias stands within the value that it repeats")
            return known
        sizes[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = total = 1 + sum(size(part, depth + 1) for part in inner)
        if total > _MOST_NODES:
            raise ValueError(
                f"line {line}: holds more than {_MOST_NODES:,} values, those that aliases repeat included"
            )
        return total

    size(node, 1)


def _measure_value(value: Any, depth: int = 1) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _measure_value(inner, depth + 1)


def _said(error: yaml.MarkedYAMLError) -> str:
    """What the parser says and where, without the line itself."""
    mark = error.problem_mark or error.context_mark
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = ", ".join(filter(None, (error.context, error.problem)))
    if "'\\t'" in problem:
        problem += "; indent with spaces, not with tabs"
    elif "mapping values are not allowed" in problem:
        problem += "; put a value that holds ': ' in quotes"
    return f"{where}: {problem}"


def _unreadable(error: yaml.reader.ReaderError, text: str) -> str:
    """Which character can't stand in YAML, and where."""
    before = text[: error.position]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    character = f"U+{ord(text[error.position]):04X}"
    return f", line {line}, column {column}: the character {character} can't stand there; remove it"


_TABLE = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+(?:\s*\.\s*[A-Za-z0-9_\-\"']+)*)\s*=")


def _yaml_lines(node: yaml.Node, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each key path with its line, counted from 1.

    Raises:
        ValueError: a mapping names a key twice (the parser would keep the last silently).
    """
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            for _ in _yaml_lines(item, at):  # within a list a key has no path, but may stand there twice
                pass
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            raise ValueError(
                f"line {line}: {'.'.join((*at, name))}: the key stands here a second time; keep one"
            )
        seen.add(name)
        yield (*at, name), line
        yield from _yaml_lines(value, (*at, name))


def _toml_lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            table = _parts(match[1])
            yield table, number
        elif match := _KEY.match(line):
            yield (*table, *_parts(match[1])), number


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
