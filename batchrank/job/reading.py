"""Describes which column of the input holds what, and which of its queries are drawn."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Columns(BaseModel):
    """Which column or key holds what, where the names don't tell; columns without names have numbers, from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    query_id: str | None = None
    query: str | None = None
    candidates: str | None = None
    doc_id: str | None = None
    text: str | None = None
    score: str | None = None
    image: str | None = None
    video: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value


_PERCENT = re.compile(r"\d+(\.\d+)?%")


class Sample(BaseModel):
    """Which queries are drawn; the same ones for the same seed, wherever they stand in the input.

    Attributes:
        queries: how many, or such as ``5%`` of them.
        seed: another one draws others.
        by: so that each file, or each class of lists by their number of documents, has its share; None leaves that to
            chance. Only with a number of queries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: Annotated[int, Field(ge=1)] | str
    seed: Annotated[int, Field(ge=0)] = 0
    by: Literal["file", "documents"] | None = None

    @field_validator("queries", mode="before")
    @classmethod
    def _part(cls, value: Any) -> Any:
        text = str(value).replace(" ", "")
        if text.isdecimal():
            return int(text)
        if not _PERCENT.fullmatch(text) or not 0 < Fraction(text[:-1]) <= 100:
            raise ValueError(f"{value!r} is no number of queries; write a whole number, or a part such as 5%")
        return text

    @property
    def share(self) -> Fraction | None:
        """The part of the queries; None where a number of them is drawn."""
        return Fraction(self.queries[:-1]) / 100 if isinstance(self.queries, str) else None
