"""Makes the demo's data: docstrings of the standard library as documents, questions about them, and a first stage."""

import importlib
import inspect
import pkgutil
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from types import ModuleType

import orjson

from batchrank.data import Candidate

MAX_CHARACTERS = 1200
"""Characters after which a docstring is cut."""

_FOUND = 1500
"""Documents that the first stage finds: more than one request to the API may hold."""
_MIN_CHARACTERS = 24
"""Shorter docstrings say too little to be found by a question."""
_SKIPPED = frozenset(
    [
        # 1. Importing them does something: opens a browser, prints, takes over the prompt.
        *("antigravity", "this", "rlcompleter"),
        # 2. Graphical; they may lack their library.
        *("idlelib", "tkinter", "turtle", "turtledemo"),
        # 3. Not meant to be used, or gone from later versions.
        *(
            "asynchat",
            "asyncore",
            "distutils",
            "encodings",
            "ensurepip",
            "imp",
            "lib2to3",
            "msilib",
            "pydoc_data",
        ),
        *("smtpd", "test"),
        # 4. What stands behind os, os.path and re: its public names are there.
        *("genericpath", "nt", "ntpath", "nturl2path", "posix", "posixpath"),
        *("sre_compile", "sre_constants", "sre_parse"),
    ]
)


@cache
def corpus() -> tuple[Candidate, ...]:
    """Docstrings of the standard library's public functions, classes and methods, sorted by name.

    A document's id is a dotted name such as ``shutil.copytree``; its text is that name with its parameters on one line,
    then the docstring. Of equal docstrings the shortest name stays.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = {name: thing for module in _modules() for name, thing in _public(module)}
        texts = {name: text for name in named if (text := _docstring(named[name]))}
        kept: dict[str, str] = {}
        for name in sorted(texts, key=lambda name: (name.count("."), name)):
            kept.setdefault(texts[name], name)
        return tuple(
            Candidate(id=name, text=f"{name}{_parameters(named[name])}\n{text}"[:MAX_CHARACTERS])
            for text, name in sorted(kept.items(), key=lambda item: item[1])
        )


def _modules() -> Iterator[ModuleType]:
    for name in sorted(sys.stdlib_module_names):
        if not name.startswith("_") and name not in _SKIPPED:
            yield from _with_submodules(name)
    yield importlib.import_module("os.path")


def _with_submodules(name: str) -> Iterator[ModuleType]:
    try:
        module = importlib.import_module(name)
    except Exception:  # absent on this platform, or built without its library
        return
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_") and found.name not in ("test", "tests"):
            yield from _with_submodules(f"{name}.{found.name}")


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The module's own public names with what they name, classes followed by their methods."""
    path = "os.path" if module is sys.modules["os.path"] else module.__name__
    prefix = "" if path == "builtins" else f"{path}."
    listed = getattr(module, "__all__", None)
    for name in sorted(dir(module) if listed is None else set(listed)):
        thing = getattr(module, name, None)
        if name.startswith("_") or not (listed or _is_own(thing, module)):
            continue
        if inspect.isroutine(thing):
            yield prefix + name, thing
        elif inspect.isclass(thing):
            yield prefix + name, thing
            for member, value in sorted(_members(thing).items()):
                if not member.startswith("_") and _is_method(value):
                    yield f"{prefix}{name}.{member}", value


def _members(cls: type) -> dict[str, object]:
    """What a class has itself or from private bases: where a method is defined differs between versions."""
    hidden = [
        base for base in cls.__mro__[1:] if base.__name__.startswith("_") or "._" in f".{base.__module__}"
    ]
    return {name: value for base in (*reversed(hidden), cls) for name, value in vars(base).items()}


def _is_own(thing: object, module: ModuleType) -> bool:
    """Whether a module without ``__all__`` defines the thing, itself or in a private or C module behind it."""
    home = str(getattr(thing, "__module__", None) or "").split(".")[0]
    return home.lstrip("_") == module.__name__.split(".")[0] or home.startswith("_")


def _is_method(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, classmethod | staticmethod)


def _docstring(thing: object) -> str:
    text = getattr(thing, "__doc__", None)
    if not isinstance(text, str):
        return ""
    text = inspect.cleandoc(text).strip()
    return text if len(text) >= _MIN_CHARACTERS else ""


def _parameters(thing: object) -> str:
    """The names of what can be passed, without defaults: those may print differently on every run."""
    function = thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing
    try:
        names = inspect.signature(function).parameters  # type: ignore[arg-type]  # what isn't callable is caught
    except Exception:  # it evaluates what C modules declare, which may name what this build lacks
        return ""
    return f"({', '.join(name for name in names if name not in ('self', 'cls'))})"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the standard library.

    Attributes:
        id: its id, unique.
        text: what a programmer would type.
        answers: dotted names, each of which answers it.
    """

    id: str
    text: str
    answers: tuple[str, ...]


def questions() -> list[Question]:
    """All questions of the demo, in order."""
    data = tomllib.loads(resources.files("batchrank").joinpath("demo.toml").read_text(encoding="utf-8"))
    return [Question(id=q["id"], text=q["text"], answers=tuple(q["answers"])) for q in data["question"]]


_WORD = re.compile(r"[a-z0-9]+")


def first_stage(question: str, documents: Sequence[Candidate]) -> list[Candidate]:
    """The documents that share the most distinct words with the question, best first, with that count as score.

    Ties keep the corpus's order. Common words count as much as rare ones: it is meant to find, not to rank.
    """
    wanted = _words(question)
    overlap = [len(wanted & _words(document.text)) for document in documents]
    best = sorted(range(len(documents)), key=lambda i: -overlap[i])[:_FOUND]
    return [Candidate(documents[i].id, documents[i].text, float(overlap[i])) for i in best]


@lru_cache(maxsize=16384)
def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def write_demo(folder: Path) -> None:
    """Write ``candidates.jsonl`` and ``qrels.txt`` (TREC) into a folder, which is made if need be.

    A line of candidates is one question with its first stage's 1,500 documents, best first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = corpus()
    known = {document.id for document in documents}
    with (folder / "candidates.jsonl").open("wb") as lines, (folder / "qrels.txt").open("w") as qrels:
        for question in questions():
            found = first_stage(question.text, documents)
            candidates = [{"id": c.id, "text": c.text, "score": c.score} for c in found]
            row = {"query_id": question.id, "query": question.text, "candidates": candidates}
            lines.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            qrels.writelines(f"{question.id} 0 {name} 1\n" for name in question.answers if name in known)
