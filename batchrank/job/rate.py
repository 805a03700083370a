"""Defines how fast a job may send, alone or beside others."""

import socket
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from batchrank.job.sections import Positive, Section


class Rate(Section):
    """How fast requests are sent; None takes the model card's quota.

    Attributes:
        share: the part of the quota that this process may use, a number or such as ``1/4``.
        account: jobs of one user on this host that say the same name share the quota, and each has what others leave.
    """

    rpm: Annotated[float, Field(gt=0)] | None = None
    tpm: Annotated[float, Field(gt=0)] | None = None
    share: float | str = 1.0
    account: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    concurrency: Literal["auto"] | Positive = "auto"

    @field_validator("share")
    @classmethod
    def _part(cls, value: float | str) -> float | str:
        try:
            part = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"{value!r} is no part of the quota; write a number such as 0.25, or 1/4"
            ) from None
        if not 0 < part <= 1:
            raise ValueError(
                f"{value} is no part of the quota; write a number above 0 and up to 1, or such as 1/4"
            )
        return value

    @model_validator(mode="after")
    def _shared_once(self) -> "Rate":
        if self.account is None:
            return self
        if self.part != 1:
            raise ValueError(
                "account and share exclude each other: jobs of one account divide the quota among themselves; remove "
                "rate.share"
            )
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError(
                "account needs Unix sockets, which this platform doesn't have; give each job a part, as rate.share: 1/4"
            )
        return self

    @property
    def part(self) -> Fraction:
        """The share as an exact fraction."""
        return Fraction(str(self.share))
