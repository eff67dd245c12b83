"""One reader at a time: a lock of the machine that ends with the process, however that ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from monitor.ports import PluginError


def usual_folder() -> Path:
    """Where locks lie if nothing else is said: one folder for all processes of this user on this machine."""
    return Path(tempfile.gettempdir()) / f"mailvane-{os.geteuid()}"


class Turn:
    """The right to read what ``names`` name, for whoever holds it."""

    def __init__(self, folder: Path, *names: str) -> None:
        digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
        self._path = folder / f"{digest[:32]}.lock"
        self._descriptor: int | None = None

    def taken(self) -> bool:
        """Whether it is ours, taken now if nobody has it.

        Raises:
            PluginError: the lock can't be made.
        """
        if self._descriptor is not None:
            if self._there(self._descriptor):
                return True
            self.release()  # somebody has tidied up, and another process may have made it anew
        try:
            self._descriptor = self._locked()
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise PluginError(f"{self._path.parent} can't hold our lock ({why}): set lock_dir", retry=True) from error
        return self._descriptor is not None

    def release(self) -> None:
        """Leave it to others."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _locked(self) -> int | None:
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if folder == usual_folder() and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid()):
            raise PluginError(f"{folder} is somebody else's: remove it, or set lock_dir", retry=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False
