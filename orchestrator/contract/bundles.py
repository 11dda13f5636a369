"""Which files a bundle may hold: the limits, and the rules for their names. Pure.

Used by `manifest.py` and `archive.py`, and by the generator for the files that the model writes.
"""

from __future__ import annotations

PACKED_MAX_BYTES = 20 * 1024**2
UNPACKED_MAX_BYTES = 100 * 1024**2
FILES_MAX = 2_000
"""Of regular files and listed folders together."""
PATH_MAX_CHARS = 240
FOLDERS_DEEP_MAX = 32
"""Of the folders in each other that a path names."""
NAME_MAX_BYTES = 255
"""Of one file or folder. Linux file systems take no longer name (NAME_MAX)."""
MANIFEST_NAME = "spawn.json"
_SHOWN_CHARS = 60
_ROOT = ""


class BundleInvalid(ValueError):
    """A bundle, or a file of one, breaks a rule. The message says what to change.

    `field` is the field of the manifest that is wrong; `manifest` or `bundle` if it is more than
    one field.
    """

    def __init__(self, message: str, *, field: str = "bundle") -> None:
        super().__init__(message)
        self.field = field


def safe_relative(name: str) -> str:
    """Return `name` without `./` and doubled slashes. Raises BundleInvalid.

    The folder itself comes back as the empty string.
    """
    if not name.isprintable() or "\\" in name:
        raise BundleInvalid(
            f"{shown(name)}: control characters and backslashes are not allowed in paths"
        )
    if name.startswith("/"):
        raise BundleInvalid(
            f"{shown(name)}: only paths relative to the app's folder are allowed, none outside"
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BundleInvalid(f"{shown(name)}: '..' is not allowed in paths")
    clean = "/".join(parts)
    if len(clean) > PATH_MAX_CHARS:
        raise BundleInvalid(f"{shown(name)}: longer than {PATH_MAX_CHARS} characters")
    if len(parts) > FOLDERS_DEEP_MAX + 1:
        raise BundleInvalid(f"{shown(name)}: more than {FOLDERS_DEEP_MAX} folders in each other")
    if any(len(part.encode()) > NAME_MAX_BYTES for part in parts):
        raise BundleInvalid(f"{shown(name)}: a name in it is longer than {NAME_MAX_BYTES} bytes")
    return clean


def shown(name: str) -> str:
    """A name for a message. It is cut, because an archive can name megabytes."""
    return repr(name) if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]!r}..."


class FileTree:
    """The files and folders of one bundle. Checks each against the limits when it is added."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._listed_folders: set[str] = set()
        self._folders: set[str] = {_ROOT}  # also those that only the path of a file names
        self._total_bytes = 0

    def add_file(self, path: str, size_bytes: int) -> None:
        """Count a file (clean path). Raises BundleInvalid."""
        self._check_new(path)
        if path in self._folders:
            raise BundleInvalid(f"{shown(path)} is both a file and a folder")
        self.files.add(path)
        self._add_parents(path)
        self._total_bytes += size_bytes
        if self._total_bytes > UNPACKED_MAX_BYTES:
            raise too_large_unpacked()
        self._check_count()

    def add_folder(self, path: str) -> None:
        """Count a folder that is listed by itself (clean path). Raises BundleInvalid."""
        self._check_new(path)
        self._listed_folders.add(path)
        self._folders.add(path)
        self._add_parents(path)
        self._check_count()

    def _check_new(self, path: str) -> None:
        # Of two entries with one name, another program might take the other one.
        if path in self.files or path in self._listed_folders:
            raise BundleInvalid(f"{shown(path or '.')} is in the bundle twice")

    def _add_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        while parent not in self._folders:  # what is above a known folder is known too
            if parent in self.files:
                raise BundleInvalid(f"a folder above {shown(path)} is also a file")
            self._folders.add(parent)
            parent = parent.rpartition("/")[0]

    def _check_count(self) -> None:
        if len(self.files) + len(self._listed_folders) > FILES_MAX:
            raise BundleInvalid(f"a bundle holds at most {FILES_MAX} files and folders")


def too_large_packed() -> BundleInvalid:
    return BundleInvalid(f"a bundle is at most {PACKED_MAX_BYTES} bytes large")


def too_large_unpacked() -> BundleInvalid:
    return BundleInvalid(f"a bundle unpacks to at most {UNPACKED_MAX_BYTES} bytes")
