"""Looks up in the ledger what need not be asked: answers, and rejections that still decide."""

from collections.abc import Callable, Container, Sequence

from batchrank.arrays import Positions
from batchrank.data import Query
from batchrank.ledger.entries import Known
from batchrank.ledger.ledger import Ledger
from batchrank.requests import Rejection
from batchrank.send.encoder import Encoder


class _Unseen:
    """Not looked up yet."""


_UNSEEN = _Unseen()


class Recall:
    """What the ledger knows; shared by all queries of a run.

    Attributes:
        allow: which queries may be asked about; None for all. What those were rejected for is asked about again.
        anew: whether rejections of earlier runs are asked about again.

    Args:
        asked: keys of the requests that are under way, whose answers are not known yet.
        too_large: whether a rejection means that a request was too large.
    """

    def __init__(
        self,
        ledger: Ledger,
        encoder: Encoder,
        asked: Container[bytes],
        too_large: Callable[[Rejection], bool],
    ) -> None:
        self.allow: Callable[[Query], bool] | None = None
        self.anew = False
        self._ledger = ledger
        self._encoder = encoder
        self._asked = asked
        self._too_large = too_large
        self._ahead: dict[bytes, Known | _Unseen | None] = {}

    async def ahead(self, keys: Sequence[bytes]) -> None:
        """Look up what is going to be asked, many requests at one time.

        What is found serves whoever asks first; until then nobody else has asked, so it stays true.

        Raises:
            LedgerError: the ledger can't be read.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in self._ahead and key not in self._asked]
        if wanted:
            self._ahead.update(dict.fromkeys(wanted, _UNSEEN))
            found = await self._ledger.find(wanted)
            for key in wanted:
                if key in self._ahead:  # nobody has asked meanwhile
                    self._ahead[key] = found.get(key)

    async def known(self, query: Query, documents: Positions, key: bytes) -> Known | None:
        """The answer to a request, or the rejection that still decides about it; None where it has to be asked."""
        ahead = self._ahead.pop(key, _UNSEEN)
        known = await self._ledger.get(key) if isinstance(ahead, _Unseen) else ahead
        if known is not None and isinstance(known.outcome, Rejection):
            return known if await self._stands(query, documents, known) else None
        return known

    async def _stands(self, query: Query, documents: Positions, known: Known) -> bool:
        """Whether a rejection still decides.

        1. Not where the user wants just that asked about again.
        2. One for size stands only as long as everything that was asked instead is known: asking again costs nothing,
           and the server's limit may have been raised.
        3. Any other does.
        """
        assert isinstance(known.outcome, Rejection)
        if (self.allow is not None and self.allow(query)) or (self.anew and known.earlier):
            return False
        return not self._too_large(known.outcome) or await self._halves_known(query, documents)

    async def _halves_known(self, query: Query, documents: Positions) -> bool:
        if len(documents) == 1:
            return False
        halves = {self._encoder.encode(query, half).key: half for half in (documents[::2], documents[1::2])}
        found = await self._ledger.find(list(halves))
        for key, half in halves.items():
            known = found.get(key)
            if known is None:
                return False
            too_large = isinstance(known.outcome, Rejection) and self._too_large(known.outcome)
            if too_large and not await self._halves_known(query, half):
                return False
        return True
