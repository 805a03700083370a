"""Defines the section of a job that says which column or key of the input holds what."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


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
