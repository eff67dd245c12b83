"""When what failed may be tried again: soon at first, then less and less often, and never all at the same moment."""

from __future__ import annotations

import random
import time

_FIRST = 0.2  # seconds
_CAREFUL = 60.0  # seconds after a refused login: some servers lock an account for guesses


class Pace:
    """Back-off with jitter. ``longest``: seconds between two tries."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = 0.0
        self._until = 0.0
        self._failure: Exception | None = None

    def ready(self) -> None:
        """Return if a try may be made now; raises what the last one failed by where not."""
        if self._failure and time.monotonic() < self._until:
            raise self._failure.with_traceback(None)

    def failed(self, failure: Exception, *, careful: bool = False) -> None:
        """A try failed: the next one comes after a pause; a long one where it is to be ``careful``."""
        self._pause = min(self._longest, max(2 * self._pause, _CAREFUL if careful else _FIRST))
        # Between half of the pause and the whole: those whom one fault has stopped don't come back together.
        self._until = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        self._failure = failure

    def went(self) -> None:
        """Something was got done."""
        self._pause, self._failure = 0.0, None
