"""Tells how a run stands and what came of it: progress, what the rest would take, ``summary.json``, the exit code."""

from dataclasses import asdict, dataclass
from typing import Any

from batchrank.errors import BatchrankError, ExitCode
from batchrank.job.config import Job
from batchrank.job.secrets import secrets_of
from batchrank.ledger import state as clock
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.checkpoint import Checkpoint
from batchrank.pipeline.earlier import fingerprint, identity, input_fingerprint
from batchrank.pipeline.stations import Moving
from batchrank.pipeline.summary import Progress, Totals
from batchrank.version import versions


def snapshot(
    parts: Engine,
    totals: Totals,
    flow: Moving,
    before: Totals,
    *,
    trouble: str | None,
    share: float,
    read: int,
    elapsed: float,
    forecast: str | None,
) -> Progress:
    """How a run stands.

    Args:
        parts: what it sends with.
        totals: what it has written.
        flow: what moves its queries.
        before: what earlier processes of the run had written.
        trouble: what is wrong with its output, if anything is.
        share: the part of the input that was read.
        read: queries and bad records in it.
        elapsed: seconds since it began.
        forecast: that it won't be done in time.
    """
    share, left = _ahead(totals.items, before.items, share=share, read=read, elapsed=elapsed)
    counts, limiter, spend = parts.sender.counts, parts.limiter.stats(), parts.spend
    (rpm, tpm), price = parts.job.quota, parts.job.price
    return Progress(
        queries=totals.queries,
        failed=totals.failed,
        unfinished=flow.unfinished,
        documents=counts.documents,
        requests=counts.requests,
        in_flight=parts.fleet.busy,
        retries=sum(counts.retries.values()),
        reused=counts.reused_requests,
        tokens=spend.tokens,
        billed_tokens=counts.tokens,
        cost=spend.cost,
        currency=price.currency if price else "",
        rpm=rpm,
        tpm=tpm,
        quota_used=max(limiter.requests_used, limiter.tokens_used),
        scarcer="rpm" if limiter.requests_used >= limiter.tokens_used else "tpm",
        elapsed=elapsed,
        share=share,
        eta=left,
        throttled=counts.timeline.throttled,
        latency=tuple(counts.timeline.latency),
        latency_sum=counts.timeline.latency_sum,
        possible_tokens=spend.possible_tokens,
        possible_cost=spend.possible_cost,
        counted_tokens=spend.counted_tokens,
        counted_cost=spend.counted_cost,
        gate=flow.gate,
        forecast=forecast,
        trouble=parts.gateway.trouble() or trouble,
        replicas=parts.fleet.states(),
        keys=parts.limiter.states(),
    )


def _ahead(done: int, before: int, *, share: float, read: int, elapsed: float) -> tuple[float, float | None]:
    """The part of the input that is done with, and the seconds to go at the pace of this process so far."""
    share *= done / max(1, read)
    made = share * (done - before) / max(1, done)
    return share, elapsed * (1 - share) / made if made > 0.001 else None


_DRIFT = 0.02  # bills may differ so much from predictions without a notice: it hardly changes the cost
_NOT_TOKENS = 2.5
"""Billed over counted: English has about 4.3 characters a token and Chinese 4.5 bytes, while vocabularies differ from
one another by less than a half; so more than this is no count of tokens. Infinity, for one, counts characters."""
_TEMPLATE = 100
"""Tokens a document that a model's own prompt may add, which is several times a short document; more is no prompt."""
_NAMED = 5
"""Parts that a notice names."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Attributes:
        exit_code: 0 complete, 3 complete but some queries failed, else why the run stopped.
        reason: why it stopped early; None when it is complete.
        data: all there is to say, as plain data without secrets.
    """

    exit_code: ExitCode
    reason: BatchrankError | None
    data: dict[str, Any]


def report(
    job: Job,
    parts: Engine,
    totals: Totals,
    *,
    reason: BatchrankError | None,
    elapsed: float,
    notices: list[str],
    checkpoints: list[Checkpoint],
    inputs: list[list[Any]] | None,
) -> Report:
    """Sum up a run."""
    some = ExitCode.FAILED_QUERIES if totals.failed or totals.lost else ExitCode.COMPLETE
    code = reason.exit_code if reason else some
    said = [
        *parts.sender.notices,
        *parts.limiter.notices,
        None if reason is None else parts.gateway.trouble(),
    ]
    notices = [
        *notices,
        *filter(None, said),
        *_drift_notice(parts),
        *_verdict_notices(job, parts, totals),
        *_reuse_notices(parts),
    ]
    secrets = secrets_of(job)
    data = {
        "name": job.name,
        "complete": reason is None,
        "exit_code": code,
        "reason": None if reason is None else secrets.hide(str(reason)),
        "totals": totals.state() | {"extra_documents": round(totals.extra, 6)},
        "spend": _spend(parts),
        "process": _process(parts, elapsed),
        "notices": secrets.hide_all(notices),
        "verdict": _verdict(parts),
        "reuse": _reuse(parts),
        "parts": {name: digest for part in checkpoints for name, digest in part.digests.items()},
        "hashes": {
            "job": fingerprint(identity(job, parts.sharder.counter.name)),
            "input": input_fingerprint(inputs),
        },
        "versions": versions(),
        "job": job.public(),
    }
    return Report(code, reason, data)


def _spend(parts: Engine) -> dict[str, Any]:
    spend = parts.spend
    counts = parts.sender.counts
    price = spend.price
    return {
        "tokens": spend.tokens,
        "cost": spend.cost,
        "currency": price.currency if price else None,
        "possibly_billed_tokens": spend.possible_tokens,
        "possibly_billed_cost": spend.possible_cost,
        "requests": spend.requests,
        "searches": spend.searches,
        "per": spend.budget.per,
        "counted_tokens": spend.counted_tokens,
        "counted_cost": spend.counted_cost,
        "saved_tokens": counts.saved_tokens,
        "saved_cost": price.cost(counts.saved_tokens, searches=counts.saved_searches) if price else None,
        "predicted_tokens": spend.predicted_tokens,
        "billed_tokens": spend.billed_tokens,
        "drift": round(spend.drift, 6),
    }


def _process(parts: Engine, elapsed: float) -> dict[str, Any]:
    counts, limiter = parts.sender.counts, parts.limiter.stats()
    return {
        "started": clock.dated(clock.wall() - elapsed),
        "ended": clock.dated(clock.wall()),
        "seconds": round(elapsed, 3),
        "requests": counts.requests,
        "reused_requests": counts.reused_requests,
        "retries": dict(counts.retries),
        "malformed": counts.malformed,
        "ambiguous": counts.ambiguous,
        "splits": counts.splits,
        "documents_per_second": round(counts.documents / elapsed, 1) if elapsed else 0.0,
        "quota_used": round(max(limiter.requests_used, limiter.tokens_used), 4),
        "throttled": dict(limiter.throttled),
        "replicas": parts.fleet.states(),
        "keys": parts.limiter.states(),
        "timeline": counts.timeline.data(),
    }


def _drift_notice(parts: Engine) -> list[str]:
    spend = parts.spend
    if abs(spend.drift) <= _DRIFT or not parts.sharder.counter.exact:
        return []
    hidden = round(spend.hidden_tokens)
    if spend.drift + 1 >= _NOT_TOKENS and hidden > _TEMPLATE:
        return [
            f"the server's usage is {spend.drift + 1:.1f} times the tokens sent, so it counts something else, as "
            "characters or bytes; what it calls tokens is not what a price per token is for"
        ]
    if parts.sharder.counter.estimate:
        return [
            f"billed tokens differ from the estimated by {spend.drift:+.1%}, as the model has a vocabulary of its own; "
            "batchrank check tells how to count exactly"
        ]
    text = f"billed tokens differ from the predicted by {spend.drift:+.1%}"
    return [f"{text}; limits.overhead_tokens: {hidden} would explain it" if hidden > 0 else text]


def _verdict(parts: Engine) -> dict[str, Any]:
    components = parts.verdicts.components()
    return {
        "declared": parts.job.card.scores,
        "flips": [asdict(flip) for flip in parts.verdicts.flips()],
        "components": None if components is None else asdict(components),
    }


def _reuse(parts: Engine) -> dict[str, Any] | None:
    """What became of earlier answers, document by document; None where only whole requests are looked up."""
    recollector = parts.driver.recollector
    if recollector is None:
        return None
    return {
        "queries": parts.sender.counts.recalled,
        "audits": [asdict(finding) for finding in recollector.findings],
        "changed": recollector.changed,
        "set_aside": recollector.aside,
    }


def _reuse_notices(parts: Engine) -> list[str]:
    recollector = parts.driver.recollector
    if recollector is None or not recollector.aside:
        return []
    if recollector.changed:
        worst = max(finding.against for finding in recollector.findings)
        return [
            f"the model no longer ranks as it did: an old request that was asked again orders {worst:.1%} of the "
            "pairs of documents otherwise. From there to the end of its part, answers of earlier runs were left aside "
            "and everything was asked anew; later runs leave them aside too"
        ]
    return [
        f"{recollector.aside:,} queries got answers that contradict those of earlier runs; these were left aside, "
        "and the queries asked anew"
    ]


def _verdict_notices(job: Job, parts: Engine, totals: Totals) -> list[str]:
    notices = []
    if flips := parts.verdicts.flips():
        named = ", ".join(f"{flip.part:,}" for flip in flips[:_NAMED])
        more = f" and {len(flips) - _NAMED:,} more" if len(flips) > _NAMED else ""
        notices.append(
            f"scores were found to be comparable across requests ({flips[0].before}) in the first part of the input, "
            f"but not in part{'s' * (len(flips) > 1)} {named}{more} (counted from 0), where a probe showed that they "
            "aren't; these were merged accordingly. The server may have changed meanwhile"
        )
    if job.merge.method in ("raw", "rrf") and totals.halved and job.card.scores != "absolute":
        notices.append(
            f"merge.method {job.merge.method}: {totals.halved:,} lists that were to fit one request were halved, "
            "and nothing shows that the scores of the halves can be compared: their rankings may be WRONG; use "
            "merge.method hub, or set limits to what the server takes"
        )
    if job.merge.method == "raw" and totals.verdicts.get("relative"):
        notices.append(
            "merge.method raw sorts scores of different requests together, but this model's scores were found to be "
            "relative to their request: rankings of lists beyond one request are WRONG; use merge.method hub"
        )
    return notices
