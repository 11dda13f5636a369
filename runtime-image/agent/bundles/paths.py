"""Which file names an app may have. Pure; used for bundles and for what the model writes."""

from __future__ import annotations

from collections.abc import Iterable

from agent.layout import MAX_FILES, MAX_PATH_CHARS, MAX_UNPACKED_BYTES


class UnsafePath(ValueError):
    """A name that could leave the app's folder, or that no file system wants."""


def safe_relative(name: str) -> str:
    """Return `name` without `./` and doubled slashes, or raise UnsafePath.

    The folder itself comes back as the empty string.
    """
    if not name.isprintable() or "\\" in name:
        raise UnsafePath(f"{name!r}: control characters and backslashes are not allowed in paths")
    if name.startswith("/"):
        raise UnsafePath(f"{name!r}: only paths relative to the app's folder are allowed")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafePath(f"{name!r}: '..' is not allowed in paths")
    clean = "/".join(parts)
    if len(clean) > MAX_PATH_CHARS:
        raise UnsafePath(f"{name[:40]!r}...: longer than {MAX_PATH_CHARS} characters")
    return clean


class FileTree:
    """The files of an app as they become known, held against the limits one by one."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._folders: set[str] = set()
        self._total_bytes = 0

    def add(self, path: str, size_bytes: int) -> None:
        """Count a file (clean path); raise UnsafePath if it is one too many or at odds with one."""
        if path in self.files:
            raise UnsafePath(f"{path!r} is there twice")
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        if path in self._folders or not self.files.isdisjoint(parents):
            raise UnsafePath(f"{path!r}: something is a file and a folder")
        self.files.add(path)
        self._folders.update(parents)
        self._total_bytes += size_bytes
        if len(self.files) > MAX_FILES:
            raise UnsafePath(f"more than {MAX_FILES} files")
        if self._total_bytes > MAX_UNPACKED_BYTES:
            raise UnsafePath(f"more than {MAX_UNPACKED_BYTES} bytes")


def check_tree(files: Iterable[tuple[str, int]]) -> None:
    """Raise UnsafePath if the files (clean path, bytes) are too many, too large or at odds."""
    tree = FileTree()
    for path, size_bytes in files:
        tree.add(path, size_bytes)
