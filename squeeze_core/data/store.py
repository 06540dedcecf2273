"""Where a data set's files are: in a folder, at an address on the network, or in archives there, unopened.

A name such as "images/split1/a.png" is read from the file of that name, or else out of the archive
"images/split1.tar" (.tar.gz, .tgz): at random, so the order of training is the same however the files lie.
"""

from __future__ import annotations

import threading
import time
import unicodedata
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import SqueezeError
from .archives import ENDINGS, Archive
from .examples import SourceFailure

TRIES = 5
WAIT = 2.0  # seconds before the second try, doubled each time


class Store:
    """A data set's files by name.

    location: a folder, or an address that fsspec reads: hf://datasets/owner/name, https://..., s3://...
    what: the data set, for messages. Raises `SqueezeError` when there is no such place.
    """

    def __init__(self, location: str | Path, what: str) -> None:
        self.location = str(location)
        self.remote = "://" in self.location
        self._fs, self._root = self._opened(what)
        self._listed: dict[str, dict[str, str]] = {}
        self._archives: dict[str, Archive] = {}
        self._lock = threading.Lock()

    def where(self, name: str) -> str:
        """A file's name for messages."""
        return f"{self.location.rstrip('/')}/{name}"

    def names(self, folder: str = "") -> dict[str, str]:
        """What lies in a folder: names, each "file" or "directory"; nothing where there is no such folder."""
        if folder not in self._listed:
            try:
                found = self._again(lambda: self._fs.ls(self._path(folder), detail=True))
            except (FileNotFoundError, NotADirectoryError):
                found = []
            self._listed[folder] = {PurePosixPath(each["name"]).name: each["type"] for each in found}
        return self._listed[folder]

    def has(self, name: str) -> bool:
        """Whether there is such a file, outside archives."""
        folder, _, last = name.rpartition("/")
        return self.names(folder).get(last) == "file"

    def has_folder(self, name: str) -> bool:
        """Whether there is such a folder, or an archive in its place."""
        folder, _, last = name.rpartition("/")
        return self.names(folder).get(last) == "directory" or self._archive_of(name) is not None

    def holds(self, name: str) -> bool:
        """Whether something of that name, or an archive in its place, lies at the top."""
        return name in self.names() or self._archive_of(name) is not None

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises `OSError` when it is not there, `SourceFailure` when nothing answers.

        Accents are written in one sign or in two: where the name as given is not there, the other way is tried.
        """
        forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
        missing: OSError | None = None
        for form in forms:
            try:
                return self._read(form)
            except FileNotFoundError as error:
                missing = missing or error
        assert missing is not None
        raise missing

    def _read(self, name: str) -> bytes:
        parents = [str(parent) for parent in PurePosixPath(name).parents if str(parent) != "."]
        for parent in reversed(parents):
            archive = self._archive_of(parent)
            if archive is not None:
                return self._again(partial(archive.read, name))
        return self._again(lambda: self._fs.cat_file(self._path(name)))

    def _archive_of(self, folder: str) -> Archive | None:
        """The archive that stands for a folder which is not there itself."""
        parent, _, last = folder.rpartition("/")
        names = self.names(parent)
        if names.get(last) == "directory":
            return None
        for ending in ENDINGS:
            if names.get(last + ending) == "file":
                path = self._path(folder + ending)
                with self._lock:
                    return self._archives.setdefault(path, Archive(self._fs, path))
        return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _opened(self, what: str) -> tuple[Any, str]:
        import fsspec

        if not self.remote:
            folder = Path(self.location).expanduser()
            if not folder.is_dir():
                raise SqueezeError(f'There is no folder "{folder}" for {what}. Give the folder of the data set.')
            return fsspec.filesystem("file"), folder.absolute().as_posix()
        try:
            fs, root = fsspec.core.url_to_fs(self.location)
        except (ImportError, ValueError, OSError) as error:
            raise SqueezeError(
                f'"{self.location}" for {what} cannot be opened ({error}). Give a folder, or an address such as '
                "hf://datasets/owner/name."
            ) from error
        return fs, root.rstrip("/")

    def _again(self, read: Any) -> Any:
        """Try some times, if it is the network that fails. What is not there is not asked for again."""
        for attempt in range(TRIES):
            try:
                return read()
            except (FileNotFoundError, NotADirectoryError, SqueezeError):
                raise
            except Exception as error:  # every protocol has errors of its own
                if not self.remote:
                    raise
                if attempt + 1 == TRIES:
                    raise SourceFailure(
                        f'"{self.location}" does not answer ({error}), {TRIES} times in a row. Go on with --resume '
                        "when it does."
                    ) from error
                time.sleep(WAIT * 2**attempt)
