"""Which line of a job file each key stands on."""

import re
from collections.abc import Iterator

import yaml

_TABLE = re.compile(r"^\s*\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+(?:\s*\.\s*[A-Za-z0-9_\-\"']+)*)\s*=")


def key_lines(text: str, *, toml: bool) -> dict[tuple[str, ...], int]:
    """Map each key path to its line, counted from 1.

    Raises:
        ValueError: a YAML mapping names a key twice (the parser would keep the last silently).
        yaml.YAMLError: the text is not YAML.
    """
    if toml:
        return dict(_toml(text))
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_yaml(node, ())) if node is not None else {}


def _yaml(node: yaml.Node, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            for _ in _yaml(item, at):  # within a list a key has no path, but may stand there twice
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
        yield from _yaml(value, (*at, name))


def _toml(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            table = _parts(match[1])
            yield table, number
        elif match := _KEY.match(line):
            yield (*table, *_parts(match[1])), number


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
