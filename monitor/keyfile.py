"""The file of the keyring: made, opened and rewritten, in plain or wrapped; whole or not there, whatever dies."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from monitor import shred, wrapping
from monitor.errors import UserError
from monitor.files import drafted, sync_folder
from monitor.wrapping import WrappingKey

MAGIC = b"mailvane keyring 1\n"
HEAD = 4096  # magic, then the index key at 64, zeros to the first bucket
KEY = 32
BUCKETS = 1 << 20
SIZE = HEAD + BUCKETS * KEY
_BLOCK = 1 << 20


def index_key(memory: mmap.mmap) -> bytes:
    """The key from which all others are derived, but for those of the buckets."""
    return memory[64 : 64 + KEY]


def opened(path: Path, keys: Sequence[WrappingKey]) -> tuple[mmap.mmap, str]:
    """The keyring in a file that is there, and the name of the key that wraps it; empty where it rests in plain.

    In plain the file is mapped; wrapped, it is opened into memory of ours.

    Raises:
        UserError: the file is no whole keyring, others may read it, or none of the keys opens it.
    """
    with _regular(path) as file:
        for flaw in guarded(path):
            raise UserError(flaw)
        length, begin = os.fstat(file.fileno()).st_size, file.read(len(wrapping.MAGIC))
        file.seek(0)
        if begin.startswith(MAGIC) and length == SIZE:
            return mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ), ""
        if begin != wrapping.MAGIC or length != wrapping.size(SIZE):
            raise UserError(f"{path} is no whole keyring: restore it from its backup")
        memory = wrapping.anonymous(SIZE)
        with contextlib.ExitStack() as unless_whole:
            unless_whole.callback(memory.close)
            key = wrapping.unwrapped(file, keys, memory)
            if memory[: len(MAGIC)] != MAGIC:
                raise UserError(f"{path} holds something else than a keyring")
            unless_whole.pop_all()
        return memory, key.name


def make(path: Path, key: WrappingKey | None) -> None:
    """Write a whole new keyring, and give it its name only if nobody was quicker."""
    head = (MAGIC.ljust(64, b"\0") + os.urandom(KEY)).ljust(HEAD, b"\0")
    draft = _draft(path, (head, *(os.urandom(_BLOCK) for _ in range(BUCKETS * KEY // _BLOCK))), key)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    sync_folder(path.parent)


def put(memory: mmap.mmap, path: Path, key: WrappingKey | None) -> None:
    """Write the keyring in the memory into the new file ``path``, wrapped by the key, or in plain."""
    _draft(path, parts(memory), key).rename(path)
    sync_folder(path.parent)


def rewrap(path: Path, keys: Sequence[WrappingKey], key: WrappingKey | None) -> bool:
    """Have the keyring in ``path``, which is in plain or opens by one of ``keys``, rest by ``key``, or in plain.

    Whether there was anything to do. Whoever dies meanwhile leaves the old file or the new. Nobody may have it open:
    what had rested there is overwritten.

    Raises:
        UserError: it can't be opened, or what was written can't be read again; then all is as it was.
    """
    path = path.resolve()
    shred.strays(path)
    before, wrapped_by = opened(path, keys)
    with contextlib.closing(before):
        if wrapped_by == (key.name if key else ""):
            return False
        draft = _draft(path, parts(before), key)
        try:
            _compare(before, draft, key)
        except BaseException:
            shred.remove(draft)
            raise
    shred.supplant(draft, path)
    return True


def parts(memory: mmap.mmap) -> Iterator[bytes]:
    """All of it, piece by piece."""
    return (memory[at : at + _BLOCK] for at in range(0, SIZE, _BLOCK))


def mark(path: Path) -> Path:
    """The file beside the keyring that says with which one the facts were written."""
    return path.with_name(f"{path.name}.id")


def canary(path: Path) -> Path:
    """The file beside the keyring by which a changed one is known."""
    return path.with_name(f"{path.name}.canary")


def guarded(path: Path) -> Iterator[str]:
    """What is wrong with who may read the keyring in ``path``, or put another in its place; each with the remedy."""
    file, folder = path.stat(), path.resolve().parent
    if file.st_mode & 0o077:
        yield f"others may read the keyring {path}: chmod 600"
    if file.st_uid != os.geteuid():
        yield f"the keyring {path} belongs to user {file.st_uid}: chown it to the user that runs Mailvane"
    around = folder.stat()
    if around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX:
        yield f"others may put another keyring into {folder}: chmod go-w"
    if around.st_uid not in (os.geteuid(), 0):
        yield f"the directory of the keyring, {folder}, belongs to user {around.st_uid}: chown it"


def _compare(before: mmap.mmap, draft: Path, key: WrappingKey | None) -> None:
    after, _ = opened(draft, [key] if key else [])
    with contextlib.closing(after):
        if any(old != new for old, new in zip(parts(before), parts(after), strict=True)):
            raise UserError(f"{draft} is not what was written: is the disk failing?")


def _draft(path: Path, content: Iterable[bytes], key: WrappingKey | None) -> Path:
    return drafted(path, key.wrapped(content) if key else content)


def _regular(path: Path) -> BinaryIO:
    """The open file; one that is no file is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"the keyring {path} can't be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is no file")
    return os.fdopen(descriptor, "rb")
