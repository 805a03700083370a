"""The demo's questions and the names that answer them."""

import tomllib
from dataclasses import dataclass
from importlib import resources


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
