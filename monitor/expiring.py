"""Keyrings in backups that are kept no longer than promised: an erased person could be found again by an old one.

The rest of such a backup stays, and is restored with the present keyring.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from monitor import manifest, shred
from monitor.errors import UserError
from monitor.files import write
from monitor.manifest import KEYRING, Manifest


def expire(folder: Path, now: datetime, older: timedelta | None = None) -> list[Path]:
    """Remove keyrings that have expired, or are ``older`` than that, from the backups in ``folder``, or that it is.

    Nobody else may work there. Those that were removed, oldest first; a backup whose manifest is damaged is left alone.
    """
    gone = []
    for backup in [folder] if (folder / manifest.NAME).is_file() else manifest.whole(folder):
        with suppress(UserError):
            told = manifest.load(backup)
            if told.keyring and _due(told, now, older):
                bare = msgspec.structs.replace(
                    told, format=manifest.FORMAT, keyring=None, keyring_until=_end(told, now)
                )
                write(backup / manifest.NAME, bare.encoded())
                told = bare
                gone.append(backup / KEYRING)
            # Also where a call before this one died when the manifest was written.
            if told.keyring is None and (backup / KEYRING).exists():
                shred.remove(backup / KEYRING)
    return gone


def shredded(backup: Path) -> None:
    """Remove a whole backup."""
    if (backup / KEYRING).exists():
        shred.remove(backup / KEYRING)
    shutil.rmtree(backup)


def _due(told: Manifest, now: datetime, older: timedelta | None) -> bool:
    return told.expired(now) or (older is not None and now - datetime.fromisoformat(told.made_at) >= older)


def _end(told: Manifest, now: datetime) -> str:
    """When it expired: as was said, or now."""
    return told.until.isoformat() if told.until and told.until <= now else now.isoformat()
