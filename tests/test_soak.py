"""Hours of everything at once: the quota holds, and it is used."""

import pytest
from limiter_soak import Soak
from limiter_traffic import virtually

HOUR = 3600.0
REQUESTS = [
    *((6.0, 2 * HOUR, ratio) for ratio in (0.1, 1, 10)),
    *((60.0, 2 * HOUR, ratio) for ratio in (0.1, 1, 10)),
    (600.0, HOUR, 3),
    (6000.0, 0.4 * HOUR, 10),
]
"""Requests a minute, for how long, and what is billed of the prediction."""
TOKENS = [(240_000.0, 0.5 * HOUR, 10), (6_000_000.0, 0.5 * HOUR, 0.1), (1_000_000.0, 0.5 * HOUR, 2)]
"""Tokens a minute likewise; a request takes a fortieth of a second's. benchmarks/soak.py has longer ones."""


@pytest.mark.slow
@pytest.mark.parametrize(("rpm", "seconds", "ratio"), REQUESTS)
def test_the_quota_of_requests_holds_for_hours(rpm: float, seconds: float, ratio: float) -> None:
    """Storms, restarts and refusals: no second and no minute is over quota, and 95% is used when nothing is wrong."""
    check(Soak(rpm, tpm=rpm * 2000, tokens=1000, ratio=ratio, seconds=seconds))


@pytest.mark.slow
@pytest.mark.parametrize(("tpm", "seconds", "ratio"), TOKENS)
def test_the_quota_of_tokens_holds_for_hours(tpm: float, seconds: float, ratio: float) -> None:
    """The same for tokens, though bills are a tenth to ten times the prediction; over by less than one request."""
    check(Soak(1e5, tpm=tpm, tokens=tpm / 60 / 40, ratio=ratio, seconds=seconds))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.1, 1, 10])
@pytest.mark.parametrize("rpm", [6.0, 60.0, 600.0])
def test_large_requests_keep_to_the_quota_of_tokens(rpm: float, ratio: float) -> None:
    """Requests of a large part of a second's tokens, or of many seconds': what whole ones fill is used."""
    soak = Soak(rpm, tpm=rpm * 500, tokens=1000, ratio=ratio, seconds=2 * HOUR)
    check(soak, least=0.65)


def check(soak: Soak, least: float = 0.95) -> None:
    virtually(soak.run())
    assert soak.restarts > 1 and soak.refused
    assert soak.over() == []
    assert soak.used() >= least
