"""Hours of traffic with storms, restarts, refusals and bills that nobody predicted: ``python benchmarks/soak.py``.

In virtual time, against the limiter; ``tests/limiter_soak.py`` tells what happens. Fails where a second or a minute
is over quota by more than one request.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import common
from limiter_soak import Soak
from limiter_traffic import virtually

RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=2.0, help="virtual hours of each")
    options = parser.parse_args()
    seconds = options.hours * 3600
    rows = [
        _run(binds, Soak(rpm, tpm, tokens, ratio, seconds))
        for ratio in RATIOS
        for binds, rpm, tpm, tokens in (
            *(("requests", rpm, rpm * 2000, 1000.0) for rpm in (6.0, 60.0, 600.0, 6000.0)),
            *(("tokens", 1e5, tpm, tpm / 60 / 40) for tpm in (240_000.0, 6_000_000.0)),
        )
    ]
    common.table(
        ["binds", "a minute", "billed/predicted", "sent", "refused", "restarts", "used when well"], rows
    )


def _run(binds: str, soak: Soak) -> list[object]:
    virtually(soak.run())
    assert not soak.over(), soak.over()
    quota = soak.rpm if binds == "requests" else soak.tpm
    return [
        binds, f"{quota:,.0f}", f"{soak.ratio:g}", f"{len(soak.sent):,}", f"{soak.refused:,}", soak.restarts,
        f"{soak.used():.1%}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
