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


def check_tree(files: Iterable[tuple[str, int]]) -> None:
    """Raise UnsafePath if the files (clean path, bytes) are too many, too large or at odds."""
    seen: set[str] = set()
    total = 0
    for path, size_bytes in files:
        if path in seen:
            raise UnsafePath(f"{path!r} is there twice")
        seen.add(path)
        total += size_bytes
        if len(seen) > MAX_FILES:
            raise UnsafePath(f"more than {MAX_FILES} files")
        if total > MAX_UNPACKED_BYTES:
            raise UnsafePath(f"more than {MAX_UNPACKED_BYTES} bytes")
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise UnsafePath(f"{'/'.join(parts[:depth])!r} is a file and a folder")
