"""Fetching with care: bounded in bytes, fewer where connections break, and past a letter that can't be had."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from imaplib import IMAP4

from collectors._imap import Fetched, Folder

SMALL = 32 << 10  # bytes, so many of which are fetched together that their sizes need not be known
_AT_ONCE = 16 << 20  # bytes of letters fetched together
_STRIKES = 5  # tries of one letter, one after the other


class Care:
    """What is known of how a folder's letters can be fetched; ``most`` at once, none beyond ``largest`` bytes."""

    def __init__(self, most: int, largest: int) -> None:
        self._most, self._largest = most, largest
        self.portion = most  # fetched at once at present
        self._strikes: dict[int, int] = {}

    def fit(self, sizes: Sequence[int]) -> int:
        """How many of these letters are fetched at once, one at least."""
        count, total = 0, 0
        for size in sizes[: self.portion]:
            total += size if size <= self._largest else 0
            if count and total > _AT_ONCE:
                break
            count += 1
        return count

    def fetched(self, folder: Folder, sizes: Mapping[int, int]) -> dict[int, Fetched]:
        """The letters with these UIDs and sizes; without those that are gone, too large, or not given."""
        hopeless = self.hopeless(sizes)
        found = self._asked(
            folder, [uid for uid, size in sizes.items() if size <= self._largest and uid not in hopeless]
        )
        return {uid: one for uid, one in found.items() if one is not None}

    def withheld(self, uids: Collection[int]) -> set[int]:
        """Those of the letters that the server did not give when it was asked last."""
        return self._strikes.keys() & set(uids)

    def hopeless(self, uids: Collection[int]) -> set[int]:
        """Those that it did not give so often that it is not asked for them any more."""
        return {uid for uid in self.withheld(uids) if self._strikes[uid] >= _STRIKES}

    def forget(self, uids: Collection[int] | None = None) -> None:
        """Nothing more is to be known of these letters; of any where none are named."""
        for uid in [*self._strikes] if uids is None else uids:
            self._strikes.pop(uid, None)

    def _asked(self, folder: Folder, uids: Sequence[int]) -> dict[int, Fetched | None]:
        if not uids:
            return {}
        try:
            found = folder.fetched(uids, self._largest)
        except (IMAP4.abort, OSError):
            self._broke(uids)
            raise
        except IMAP4.error:
            if len(uids) == 1:
                self._strike(uids[0])
                return {}
            half = len(uids) // 2  # the server stumbles over one of them
            return {**self._asked(folder, uids[:half]), **self._asked(folder, uids[half:])}
        nothing = {uid for uid, one in found.items() if one is None}
        for uid in nothing | folder.present(set(uids) - found.keys()):
            self._strike(uid)
        self.forget(found.keys() - nothing)
        self.portion = min(self._most, 2 * self.portion)
        return {uid: found[uid] for uid in uids if uid in found}

    def _broke(self, uids: Sequence[int]) -> None:
        """A connection broke: fewer at the next try, so that it gets on in the end, and past the one to blame."""
        self.portion = max(1, len(uids) // 2)
        if len(uids) == 1:
            self._strike(uids[0])

    def _strike(self, uid: int) -> None:
        self._strikes[uid] = self._strikes.get(uid, 0) + 1
