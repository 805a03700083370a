"""Notes in the ledger what each run did and what came of it, whatever its end, for ``batchrank runs``."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from batchrank.errors import BatchrankError, ExitCode, LedgerError
from batchrank.job.secrets import secrets_of
from batchrank.ledger import state
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.report import Report
from batchrank.pipeline.summary import Totals

log = logging.getLogger(__name__)


async def noted(parts: Engine, totals: Callable[[], Totals], run: Callable[[], Awaitable[Report]]) -> Report:
    """Let a run go to its end, and note it in its ledger; a run without a file of answers is not noted.

    Args:
        parts: what it sends with.
        totals: tells the sums so far.
        run: what is to be run.

    Raises:
        LedgerError: the ledger can't be written before the run begins; what it ends with is raised as it is.
    """
    ledger = parts.ledger
    if ledger.path is None:
        return await run()
    began, spent = state.wall(), (parts.spend.tokens, parts.spend.cost or 0.0)
    line = {"started": state.dated(began)} | _told(parts)
    name = await ledger.perform(partial(state.begin_line, line=line))

    async def end(facts: dict[str, Any]) -> None:
        done = {"ended": state.dated(state.wall()), "seconds": round(state.wall() - began, 3)}
        known = line | done | facts | _counted(parts, totals(), spent)
        try:
            await ledger.perform(partial(state.save, name=name, value=known))
        except LedgerError as error:
            log.warning("the run's line in the ledger's history can't be written: %s", error)

    try:
        result = await run()
    except Exception as error:
        code = error.exit_code if isinstance(error, BatchrankError) else ExitCode.FAILED
        await end({"exit_code": code, "reason": secrets_of(parts.job).hide(str(error))})
        raise
    await end({"exit_code": result.exit_code, "reason": result.data["reason"]} | _judged(result.data))
    return result


def _told(parts: Engine) -> dict[str, Any]:
    """What is known from the start; all keys of a line, so that every line has them."""
    job = parts.job
    return {
        "job": job.name,
        "output": "-" if job.destination is None else str(job.destination.absolute()),
        "model": job.card.name,
        "ended": None,
        "seconds": None,
        "exit_code": None,
        "reason": None,
        "currency": None if job.price is None else job.price.currency,
        "gate": None,
        "ndcg": None,
        "ndcg_depth": None,
        "rbo": None,
    }


def _counted(parts: Engine, totals: Totals, before: tuple[int, float]) -> dict[str, Any]:
    """What this process did; of a run that several processes made, each has its own part of the bill."""
    counts, spend = parts.sender.counts, parts.spend
    return {
        "queries": totals.queries,
        "failed": totals.failed,
        "documents": totals.documents,
        "requests": counts.requests,
        "asked": counts.documents,
        "reused": max(totals.reused, totals.one_pass - counts.documents),
        "tokens": spend.tokens - before[0],
        "cost": None if spend.cost is None else round(spend.cost - before[1], 6),
    }


def _judged(data: dict[str, Any]) -> dict[str, Any]:
    """What the gate found, where the job has one."""
    if (gate := data.get("gate")) is None:
        return {}
    return {
        "gate": "passed" if gate["passed"] else "failed",
        "ndcg": gate["ndcg"],
        "ndcg_depth": gate["depth"],
        "rbo": gate["rbo"],
    }
