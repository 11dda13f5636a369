"""Bundles: unpack one into the app's folder, pack the app's folder into one. For `job.py`.

A bundle comes from a model, a user or another sandbox: every member is checked before anything of
it is written, and the unpacked size is counted while it streams, so that a small archive can't
fill the memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from agent.bundles.manifest import Manifest, ManifestInvalid, check_entry, read_manifest
from agent.bundles.paths import FileTree, UnsafePath, check_tree, safe_relative
from agent.layout import MANIFEST_NAME, MAX_FILES, MAX_PACKED_BYTES, MAX_UNPACKED_BYTES

# Room for tar's own headers and padding on top of the contents.
STREAM_LIMIT_BYTES = MAX_UNPACKED_BYTES + MAX_FILES * 4 * tarfile.BLOCKSIZE
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", ".git"})


class BundleInvalid(ValueError):
    """The bundle breaks a rule of the contract; the message says which."""


def sha256_hex(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()


def unpack(packed: bytes, folder: str) -> Manifest:
    """Replace `folder` by the bundle's contents and return its manifest.

    Everything is written next to `folder` and moved at the end: after BundleInvalid the old
    contents are still there.
    """
    if len(packed) > MAX_PACKED_BYTES:
        raise BundleInvalid(f"packed larger than {MAX_PACKED_BYTES} bytes")
    incoming = folder + ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    os.makedirs(incoming)
    try:
        files = _write_members(packed, incoming)
        manifest = _manifest_of(incoming)
        check_entry(manifest, files)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(incoming, folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BundleInvalid(f"not a readable tar.gz: {error}") from error
    except (UnsafePath, ManifestInvalid) as error:
        raise BundleInvalid(str(error)) from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return manifest


def pack(folder: str) -> bytes:
    """Pack the regular files below `folder`; the same files always give the same bytes.

    Raises BundleInvalid if the result breaks a limit.
    """
    found = sorted(files_below(folder))
    try:
        check_tree((path, os.path.getsize(os.path.join(folder, path))) for path in found)
    except UnsafePath as error:
        raise BundleInvalid(str(error)) from error
    output = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=output, mode="wb", mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in found:
            with open(os.path.join(folder, path), "rb") as source:
                member = tarfile.TarInfo(path)
                member.size = os.fstat(source.fileno()).st_size
                member.mode = 0o644
                archive.addfile(member, source)
    packed = output.getvalue()
    if len(packed) > MAX_PACKED_BYTES:
        raise BundleInvalid(f"packed larger than {MAX_PACKED_BYTES} bytes")
    return packed


class _Counting(io.RawIOBase):
    """A reader that refuses to hand out more than a limit: gzip can hide a thousandfold."""

    def __init__(self, source: gzip.GzipFile) -> None:
        self._source = source
        self._left = STREAM_LIMIT_BYTES

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(chunk)
        if self._left < 0:
            raise UnsafePath(f"unpacked larger than {MAX_UNPACKED_BYTES} bytes")
        return chunk


def _write_members(packed: bytes, folder: str) -> set[str]:
    tree = FileTree()
    folders = 0
    stream = _Counting(gzip.GzipFile(fileobj=io.BytesIO(packed)))
    with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as archive:
        for member in archive:
            path = safe_relative(member.name)
            if member.isdir() and folders < MAX_FILES:
                folders += 1
                os.makedirs(os.path.join(folder, path), exist_ok=True)
                continue
            # A sparse file is "regular" and a few bytes of archive, but any size on disk.
            if not member.isreg() or member.issparse() or not path:
                raise UnsafePath(f"{member.name!r}: only plain files and folders are allowed")
            tree.add(path, member.size)
            _write_member(archive, member, os.path.join(folder, path))
    return tree.files


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    # Neither mode nor time of the archive: the time is the ETag of static files, and two
    # versions of an app packed with the same time must not look alike to a browser's cache.
    source = archive.extractfile(member)
    if source is None:
        raise UnsafePath(f"{member.name!r} has no contents")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "xb") as sink:
        shutil.copyfileobj(source, sink)


def _manifest_of(folder: str) -> Manifest:
    try:
        with open(os.path.join(folder, MANIFEST_NAME), "rb") as source:
            return read_manifest(source.read())
    except FileNotFoundError as error:
        raise ManifestInvalid(f"there is no {MANIFEST_NAME} in the folder") from error


def files_below(folder: str) -> Iterator[str]:
    """Relative paths of the regular files, but for what no bundle holds."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)
