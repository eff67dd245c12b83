"""What the facts' store says when it can't."""

from __future__ import annotations

from monitor.errors import UserError


class FactsError(Exception):
    """The engine refused. ``passing``: not for what it was asked, so that asking the same again may help."""

    def __init__(self, message: str, *, code: int, passing: bool) -> None:
        super().__init__(message)
        self.code, self.passing = code, passing


class FactsBusy(Exception):  # noqa: N818  # a state, not a fault
    """All readers are taken: ask again soon."""


class DirectoryInUse(UserError):  # noqa: N818  # a state, not a fault
    """Another process has the directory open; one at a time may. ``what`` names it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. Stop that process, or name another directory (service.data, or --data)")
