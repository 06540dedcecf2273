"""Members of tar archives, plain or gzipped, read at random and without unpacking.

The first use of an archive goes through it once and notes where each member lies; for gzip also how to begin in
the middle (the library indexed_gzip). Notes are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import threading
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import SqueezeError
from ..files import cache_folder
from .examples import SourceFailure

ENDINGS = (".tar", ".tar.gz", ".tgz")
SPACING = 16 * 2**20  # bytes of the unpacked archive between two places where reading can begin


class Archive:
    """One archive. fs, path: as fsspec names it."""

    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path = fs, path
        self._packed = not path.endswith(".tar")
        self._lock = threading.Lock()
        self._members: dict[str, tuple[int, int]] | None = None
        self._reader: Any = None

    def read(self, name: str) -> bytes:
        """A member's bytes. name: its path in the data set; archives may leave out the first folders of it.

        Raises `FileNotFoundError`, and `SourceFailure` for an archive that is broken.
        """
        with self._lock:
            if self._members is None:
                self._members = self._noted()
            offset, size = self._find(name)
            if self._packed:
                self._reader.seek(offset)
                return self._reader.read(size)
        return self.fs.cat_file(self.path, start=offset, end=offset + size)

    def _find(self, name: str) -> tuple[int, int]:
        assert self._members is not None
        parts = PurePosixPath(name).parts
        for first in range(len(parts)):
            place = self._members.get("/".join(parts[first:]))
            if place is not None:
                return place
        raise FileNotFoundError(f"{self.path} holds no {name}")

    def _noted(self) -> dict[str, tuple[int, int]]:
        """Where the members lie: from the notes, or by going through the archive."""
        key = hashlib.sha256(f"{self.path}\0{self.fs.ukey(self.path)}".encode()).hexdigest()[:24]
        notes = cache_folder() / "archives" / f"{key}.json"
        places = notes.with_suffix(".gzidx")
        try:
            members = json.loads(notes.read_text(encoding="utf-8"))
            if self._packed:
                self._reader = self._unpacking()
                self._reader.import_index(str(places))
            return {name: (offset, size) for name, (offset, size) in members.items()}
        except (OSError, ValueError):
            pass  # no notes, or half of them
        print(f"squeeze: looking through {self.path}, once", file=sys.stderr)
        members = self._looked_through()
        try:
            self._note(members, notes, places)
        except OSError as error:  # a cache that cannot be written: known for this run alone
            print(f"squeeze: what lies in {self.path} is not noted for the next run ({error})", file=sys.stderr)
        return members

    def _note(self, members: dict[str, tuple[int, int]], notes: Path, places: Path) -> None:
        notes.parent.mkdir(parents=True, exist_ok=True)
        if self._packed:
            temporary = places.with_suffix(f".{os.getpid()}")
            self._reader.build_full_index()
            self._reader.export_index(str(temporary))
            temporary.replace(places)
        temporary = notes.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(members), encoding="utf-8")
        temporary.replace(notes)

    def _looked_through(self) -> dict[str, tuple[int, int]]:
        self._reader = self._unpacking() if self._packed else None  # stays open, to be read from
        opened = nullcontext(self._reader) if self._packed else self.fs.open(self.path, "rb")
        try:
            with opened as file, tarfile.open(fileobj=file, mode="r:") as archive:
                return {
                    str(PurePosixPath(member.name)): (member.offset_data, member.size)
                    for member in archive
                    if member.isfile()
                }
        except (tarfile.TarError, EOFError, ValueError, _gzip_error()) as error:
            raise SourceFailure(f'The archive "{self.path}" is broken ({error}). Get the file again.') from error

    def _unpacking(self) -> Any:
        try:
            from indexed_gzip import IndexedGzipFile
        except ImportError as error:
            raise SqueezeError(
                f'Reading "{self.path}" unopened needs the package indexed_gzip. Install it: pip install '
                "indexed_gzip; or unpack the archive."
            ) from error
        return IndexedGzipFile(fileobj=self.fs.open(self.path, "rb"), spacing=SPACING, auto_build=True)


def _gzip_error() -> type[Exception]:
    try:
        from indexed_gzip import ZranError
    except ImportError:
        return EOFError
    return ZranError
