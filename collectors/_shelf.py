"""Where letters lie as files: a Maildir with its folders, or a plain folder into which a program drops them.

A Maildir has new/ and cur/, and letters come into it by rename, so each is whole. In a plain folder one may still be
under way. Names of files are others' work: they are taken apart by what all agree on, and by nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collectors._known import key

ALL = "*"
_INFO = ":2,"
_SEEN, _TRASHED, _DRAFT = "STD"
_UNDER_WAY = (".tmp", ".part", ".lock", ".swp", "~")
_MAILDIR = ("tmp", "new", "cur")


@dataclass(frozen=True, slots=True)
class Shelf:
    """One folder of files. ``box`` is the Maildir folder of which it is a part, the same as ``path`` for a plain one.

    ``label`` is what it is called below the root, for people and for keys.
    """

    path: Path
    box: Path
    label: str
    maildir: bool

    def key(self, name: str) -> str:
        """What the letter is known by: the same in new/ and cur/, whatever flags it gets."""
        return key(f"{self.label}/{_parted(name)[0] if self.maildir else name}")

    def where(self, name: str) -> str:
        """The place below the root."""
        return "/".join(part for part in (self.label, self.path.name if self.maildir else "", name) if part)

    def letters(self, descriptor: int, *, seen: bool) -> Iterator[str]:
        """Names of what may be letters; those in cur/ that somebody has read only if ``seen``."""
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or entry.is_dir(follow_symlinks=False):
                    continue
                if self.maildir:
                    flags = _parted(name)[1] if self.path.name == "cur" else ""
                    if _TRASHED in flags or _DRAFT in flags or (_SEEN in flags and not seen):
                        continue
                elif name.endswith(_UNDER_WAY):
                    continue
                yield name

    def put(self, name: str, folder: str) -> None:
        """Move a letter to where the ones lie that are done with; a name that is taken there gets a number.

        Raises:
            FileNotFoundError: it is gone already.
        """
        source = self.path / name
        if self.maildir:
            base, flags = _parted(name)
            flags = "".join(sorted({*flags, _SEEN}))
            box = self.box.parent / f".{folder}" if folder and self.label else self.box / f".{folder}"
            target = made(box) / "cur" if folder else self.box / "cur"
            names = (f"{base}{f'.{n}' if n else ''}{_INFO}{flags}" for n in range(1_000))
        else:
            target = self.path / (folder or "done")
            target.mkdir(mode=0o700, exist_ok=True)
            names = (f"{name}{f'.{n}' if n else ''}" for n in range(1_000))
        # Rename would put one letter over another. Nobody but us brings letters there, so a look before it is enough.
        free = next((path for path in (target / name for name in names) if not os.path.lexists(path)), None)
        if free is None:
            raise FileExistsError(17, "so many of that name lie there", str(target))
        source.rename(free)


def shelves(root: Path, folders: tuple[str, ...], beside: str) -> list[Shelf]:
    """All folders of files to read, without the one ``beside`` that holds what is done with."""
    if not is_maildir(root):
        return [Shelf(root, root, "", maildir=False)]
    boxes = [(root, "")]
    boxes += sorted((path, path.name) for path in root.iterdir() if _wanted(path, folders, beside))
    return [Shelf(box / part, box, label, maildir=True) for box, label in boxes for part in ("new", "cur")]


def is_maildir(path: Path) -> bool:
    """Whether there is a Maildir rather than a plain folder."""
    return all((path / part).is_dir() for part in ("new", "cur"))


def made(box: Path) -> Path:
    """A Maildir++ folder that is there."""
    if not is_maildir(box):
        for part in _MAILDIR:
            (box / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        (box / "maildirfolder").touch(mode=0o600)
    return box


def _wanted(path: Path, folders: tuple[str, ...], beside: str) -> bool:
    named = path.name[1:] if path.name.startswith(".") else ""
    return bool(named) and named != beside and (named in folders or ALL in folders) and is_maildir(path)


def _parted(name: str) -> tuple[str, str]:
    """The name that stays, and the flags that it has for now."""
    base, _, flags = name.partition(_INFO)
    return base, flags
