"""Tells at a cap what going on would take, and what to do.

It goes by documents, not by queries, because lists differ in length; and what was spent on lists that aren't ranked yet
is no longer to be spent. As long as hardly any list is ranked, nobody knows how much a merge sends beyond one pass, so
what is told then is the least.
"""

import math
from dataclasses import dataclass
from typing import Self

from batchrank.job.sections import Budget
from batchrank.models import Price
from batchrank.pipeline.assemble import Engine
from batchrank.pipeline.stations import Moving
from batchrank.pipeline.summary import Totals

_EVIDENCE = 0.1
"""Ranked documents, as a part of those under way, that tell what merging takes."""


@dataclass(frozen=True, slots=True)
class Done:
    """How far a run has come.

    Attributes:
        share: the part of the input that was read, in ``read`` queries and bad records; 0 when its size is unknown.
        ranked: documents of ranked lists, those of earlier processes of the run included.
        tokens: tokens of the requests behind them, whenever they were asked and paid.
        admitted: queries and bad records that were begun, earlier ones included.
        open: lists that were begun and aren't ranked.
        open_documents: documents in them.
        per_item: documents of a list, on average.
        sent: documents in requests that this process had answered, ``billed`` tokens for them, ``answered`` requests.
        spent: tokens this run has taken, and ``possible`` ones that may have been billed without a result.
        saved: tokens it was saved by whole answers of earlier runs.
        cost: what the tokens spent cost; None without a price.
    """

    share: float
    read: int
    ranked: int
    tokens: int
    admitted: int
    open: int
    open_documents: int
    per_item: float
    sent: int
    billed: int
    answered: int
    spent: int
    possible: int
    saved: int
    cost: float | None

    @classmethod
    def of(cls, parts: Engine, flow: Moving, before: Totals, *, read: int, share: float) -> Self:
        """How far a run has come.

        Args:
            parts: what it sends with.
            flow: what it moved.
            before: what earlier processes of it had ranked.
            read: queries and bad records that were read.
            share: the part of the input that they are.
        """
        counts, finished = parts.sender.counts, flow.completed
        possible = parts.spend.possible_tokens
        return cls(
            share=share,
            read=read,
            ranked=before.documents + finished.ranked,
            tokens=before.tokens + finished.tokens,
            admitted=before.queries + before.failed + flow.admitted,
            open=flow.admitted - finished.items,
            open_documents=flow.admitted_documents - finished.documents,
            per_item=flow.admitted_documents / max(1, flow.admitted),
            sent=counts.documents,
            billed=counts.tokens,
            answered=sum(counts.timeline.latency),
            spent=parts.spend.tokens - possible,
            possible=possible,
            saved=counts.saved_tokens - counts.spared_tokens,
            cost=parts.spend.cost,
        )

    @property
    def certain(self) -> bool:
        """Whether enough was ranked to know what merging the rest takes: the first list may be a short one."""
        return self.tokens > 0 and self.ranked > _EVIDENCE * self.open_documents

    @property
    def rest(self) -> int | None:
        """Tokens to go, None when nothing tells. Answers of earlier runs are expected to save what they did so far."""
        if not self.read or not self.share:
            return None
        if self.certain:
            each, ahead = self.tokens / self.ranked, self.spent + self.saved - self.tokens
        elif self.sent:
            each, ahead = self.billed / self.sent, self.spent
        else:
            return None
        unread = max(0.0, self.read / self.share - self.admitted) * self.per_item
        begun = max(0.0, each * self.open_documents - max(0, ahead))
        paid = self.spent / (self.spent + self.saved) if self.spent + self.saved else 1.0
        least = (
            self.open * self.billed / max(1, self.answered)
        )  # each of them asks once more, or it would be ranked
        return round(max(begun * paid, least) + each * unread * paid)


_TOMORROW = "run the job again after midnight UTC, and it goes on"


def outlook(done: Done, price: Price | None, budget: Budget, cap: str) -> str:
    """What going on would take, and what to do, for the user.

    Args:
        done: how far the run has come.
        price: the price; None where it isn't known.
        budget: the caps.
        cap: the key of the one that was reached.
    """
    return f"{_rest_of(done, price)}; {_next_step(done, price, budget, cap)}"


def _next_step(done: Done, price: Price | None, budget: Budget, cap: str) -> str:
    """What to do at a cap; a job with a cap for each day is told how many days it still takes."""
    if budget.per != "day":
        return f"raise {cap}, and run the job again: it goes on where it stopped"
    rest = done.rest
    if not rest:
        return _TOMORROW
    days = [0.0 if budget.max_tokens is None else rest / budget.max_tokens]
    if budget.max_cost is not None and price is not None:
        days.append(_more(done, price, rest) / budget.max_cost)
    left = math.ceil(max(days))
    return f"{_TOMORROW}; at this cap it takes about {left:,} more day{'s' * (left > 1)}"


def _rest_of(done: Done, price: Price | None) -> str:
    rest = done.rest
    if rest is None:
        return "too little is done, or the input's size is unknown, so what the rest would take can't be told"
    about = "about" if done.certain else "at least about"
    total = done.spent + done.possible + rest
    if price is None or done.cost is None:
        return (
            f"the rest of the input would take {about} {rest:,} tokens more: {about} {total:,} tokens in all"
        )
    more = _more(done, price, rest)
    return (
        f"the rest of the input would take {about} {more:,.4f} {price.currency} more ({rest:,} tokens): "
        f"{about} {done.cost + more:,.4f} {price.currency} ({total:,} tokens) in all"
    )


def _more(done: Done, price: Price, rest: int) -> float:
    """What the rest will cost; where searches are billed, as much for each token as what is done did."""
    return (
        price.cost(rest)
        if price.search is None
        else (done.cost or 0.0) * rest / max(done.spent + done.possible, 1)
    )
