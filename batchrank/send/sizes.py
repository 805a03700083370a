"""Which request sizes the API accepts: when it finds most too large, a limit is set wrong."""

from batchrank.errors import RunStoppedError
from batchrank.records import Rejection

_ENOUGH = 5


class Sizes:
    """Compares the requests found too large with those accepted."""

    def __init__(self) -> None:
        self._accepted = 0
        self._rejected = 0
        self._largest: tuple[int, int] = (0, 0)
        self._smallest: tuple[int, int] | None = None

    def accepted(self, documents: int, tokens: int) -> None:
        """Learn that a request of this size was answered."""
        self._accepted += 1
        self._largest = max(self._largest, (documents, tokens))

    def rejected(self, documents: int, tokens: int, why: Rejection) -> None:
        """Learn that a request of this size was found too large.

        Raises:
            RunStoppedError: most requests are, so that halving them one by one would waste the run.
        """
        self._rejected += 1
        self._smallest = min(self._smallest or (documents, tokens), (documents, tokens))
        if self._rejected < _ENOUGH or self._rejected <= self._accepted:
            return
        accepted = (
            f"the largest accepted had {self._largest[0]} documents and {self._largest[1]} tokens"
            if self._accepted
            else "none was accepted"
        )
        raise RunStoppedError(
            f"the API finds most requests too large: {self._rejected} of {self._rejected + self._accepted}; "
            f"the smallest of them had {self._smallest[0]} documents and {self._smallest[1]} tokens, "
            f"{accepted}. It says: {why}. "
            "Set limits.documents, limits.request_tokens or limits.body_bytes to what the API allows"
        )
