"""Bundles as bytes (tar.gz): check one, unpack it into a folder, pack a folder into one.

A bundle comes from a model, a user or another sandbox. The control plane (`inspect`) and the agent
(`unpack`) read it by the same function, so they accept the same bundles. It streams: each member is
checked before its contents are used, and what is unpacked is counted while it is read, so that a
small archive can't fill the memory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from orchestrator.contract.bundles import (
    FILES_MAX,
    MANIFEST_NAME,
    PACKED_MAX_BYTES,
    UNPACKED_MAX_BYTES,
    BundleInvalid,
    FileTree,
    safe_relative,
    shown,
    too_large_packed,
    too_large_unpacked,
)
from orchestrator.contract.manifest import (
    MANIFEST_MAX_BYTES,
    Manifest,
    check_entry,
    read_manifest,
)
from orchestrator.contract.trees import open_plain, remove_tree, walk_files

# Room for tar's own headers and padding on top of the contents.
_STREAM_MAX_BYTES = UNPACKED_MAX_BYTES + FILES_MAX * 4 * tarfile.BLOCKSIZE
_READ_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS  # zlib's name for "with gzip's header and checksum"
# A header that only describes the next one: it holds a long path and little else.
_EXTENDED_TYPES = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)
_EXTENDED_MAX_BYTES = 64 * 1024
_EXTENDED_TOTAL_MAX_BYTES = 2 * 1024**2  # of all of them: FILES_MAX of the longest paths
_UNREADABLE = (
    tarfile.TarError,
    zlib.error,
    EOFError,
    ValueError,
    RecursionError,  # headers that announce each other without end
)
"""All that gzip and tarfile raise on hostile bytes."""


def sha256_hex(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()


def inspect(packed: bytes) -> Manifest:
    """Check a bundle without writing any of it; return its manifest. Raises BundleInvalid."""

    def ignore_folder(path: str) -> None:
        pass

    def ignore_file(path: str, source: BinaryIO) -> None:
        pass

    return _read(packed, ignore_folder, ignore_file)


def unpack(packed: bytes, folder: str) -> Manifest:
    """Replace `folder` by the bundle's contents; return its manifest. Raises BundleInvalid.

    Everything is written next to `folder` and moved at the end: after BundleInvalid the old
    contents are still there.
    """
    incoming = folder + ".incoming"
    remove_tree(incoming)

    def make_folder(path: str) -> None:
        os.makedirs(os.path.join(incoming, path), exist_ok=True)

    def write_file(path: str, source: BinaryIO) -> None:
        # Neither mode nor time of the archive: the time is the ETag of static files, and two
        # versions of an app packed with the same time must not look alike to a browser's cache.
        target = os.path.join(incoming, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as sink:
            shutil.copyfileobj(source, sink)

    try:
        os.makedirs(incoming)
        manifest = _read(packed, make_folder, write_file)
        remove_tree(folder)
        os.rename(incoming, folder)
    except OSError as error:
        raise BundleInvalid(f"the bundle can't be unpacked: {error.strerror}") from error
    finally:
        remove_tree(incoming)
    return manifest


def pack(folder: str) -> bytes:
    """Pack the regular files below `folder`; the same files always give the same bytes.

    Raises BundleInvalid if a name or a limit is broken, or if a file can't be read.
    """
    tree = FileTree()
    output = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=output, mode="wb", mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _paths_to_pack(folder):
            try:
                with open_plain(os.path.join(folder, path)) as source:
                    member = tarfile.TarInfo(path)
                    member.size = os.fstat(source.fileno()).st_size
                    member.mode = 0o644
                    tree.add_file(safe_relative(path), member.size)
                    archive.addfile(member, source)
            except OSError as error:
                raise BundleInvalid(f"{shown(path)} can't be read: {error.strerror}") from error
    packed = output.getvalue()
    if len(packed) > PACKED_MAX_BYTES:
        raise too_large_packed()
    return packed


def _paths_to_pack(folder: str) -> list[str]:
    """The paths of all files in order, at most one more than a bundle holds."""

    def refuse(path: str, reason: str) -> None:
        raise BundleInvalid(f"{shown(path or '.')}: {reason}")

    files = itertools.islice(walk_files(folder, refuse), FILES_MAX + 1)
    return sorted(path for path, _ in files)


def _read(
    packed: bytes,
    make_folder: Callable[[str], None],
    write_file: Callable[[str, BinaryIO], None],
) -> Manifest:
    """Check the whole bundle and hand out its members one by one."""
    if len(packed) > PACKED_MAX_BYTES:
        raise too_large_packed()
    tree = FileTree()
    manifest: Manifest | None = None
    try:
        for path, source in _members(packed, tree):
            if source is None:
                make_folder(path)
            elif path == MANIFEST_NAME:
                raw = source.read(MANIFEST_MAX_BYTES + 1)
                manifest = read_manifest(raw)
                write_file(path, io.BytesIO(raw))
            else:
                write_file(path, source)
    except BundleInvalid:
        raise
    except _UNREADABLE as error:
        raise BundleInvalid(f"not a readable tar.gz: {error}") from error
    if manifest is None:
        raise BundleInvalid(f"there is no {MANIFEST_NAME} in the app's folder")
    check_entry(manifest, tree.files)
    return manifest


def _members(packed: bytes, tree: FileTree) -> Iterator[tuple[str, BinaryIO | None]]:
    """Clean path and contents of each member; None for a folder."""
    stream = _Unzipped(packed)
    with _Archive.open(
        fileobj=cast(BinaryIO, stream),
        mode="r|",
        bufsize=_READ_BYTES,
        tarinfo=_Header,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for member in archive:
            archive.members.clear()  # it remembers all, with all that their headers said
            if not member.name:
                raise BundleInvalid("a member has no name, or is the absolute path '/'")
            path = safe_relative(member.name)
            _check_size(member)  # a pax header can have changed it
            if member.isdir():
                tree.add_folder(path)
                yield path, None
                continue
            # A sparse file is "regular" and a few bytes of archive, but any size on disk.
            if not member.isreg() or member.issparse():
                raise _not_plain(member.name)
            tree.add_file(path, member.size)
            yield path, cast(BinaryIO, archive.extractfile(member))
        # To the end: only there are gzip's checksum and length compared.
        while stream.read(_READ_BYTES):
            pass


class _Unzipped(io.RawIOBase):
    """Reads one gzip stream, and refuses to hand out more than a limit: it can hide a thousandfold.

    gzip allows several streams one after the other, and zeros at the end. Millions of them cost
    seconds and hold next to nothing, and no program that packs an app writes them.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = memoryview(packed)
        self._position = 0
        self._unzip = zlib.decompressobj(_GZIP)
        self._left = _STREAM_MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, at least one before the end."""
        wanted = min(size, self._left + 1) if size >= 0 else self._left + 1
        chunk = b""
        while not chunk and wanted and not self._unzip.eof:
            chunk = self._unzip.decompress(self._next_input(), wanted)
        self._left -= len(chunk)
        if self._left < 0:
            raise too_large_unpacked()
        is_over = self._unzip.eof and not chunk
        if is_over and (self._unzip.unused_data or self._position < len(self._packed)):
            raise BundleInvalid("more bytes follow the end of the archive")
        return chunk

    def _next_input(self) -> bytes | memoryview:
        if self._unzip.unconsumed_tail:
            return self._unzip.unconsumed_tail
        part = self._packed[self._position : self._position + _READ_BYTES]
        if not part:
            raise EOFError("it ends too early")
        self._position += len(part)
        return part


class _Archive(tarfile.TarFile):
    """Counts the bytes of headers that only describe others."""

    extended_bytes = 0
    members: list[tarfile.TarInfo]  # a public name of tarfile's, which its stubs leave out


class _Header(tarfile.TarInfo):
    """Refuses a header before tarfile acts on it: some make it read or remember without bounds.

    `_proc_member` is the entry point that tarfile's source offers to subclasses.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        _check_size(self)
        if self.type in _EXTENDED_TYPES:
            _check_extended(self.size, archive)
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _not_plain(self.name)
        header: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # see above
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        """A sparse file whose map, of any length, is in its contents."""
        raise _not_plain(self.name)


def _check_extended(size: int, archive: tarfile.TarFile) -> None:
    """Each is parsed line by line, which costs far more time than the file that it describes."""
    if size > _EXTENDED_MAX_BYTES:
        raise BundleInvalid(f"a header is larger than {_EXTENDED_MAX_BYTES} bytes")
    assert isinstance(archive, _Archive)
    archive.extended_bytes += size
    if archive.extended_bytes > _EXTENDED_TOTAL_MAX_BYTES:
        raise BundleInvalid(f"the headers are larger than {_EXTENDED_TOTAL_MAX_BYTES} bytes")


def _check_size(member: tarfile.TarInfo) -> None:
    # A negative size leads back to an earlier header, round and round (CVE-2025-8194).
    if member.size < 0:
        raise BundleInvalid(f"the size of {shown(member.name)} is negative")


def _not_plain(name: str) -> BundleInvalid:
    return BundleInvalid(f"{shown(name)}: only plain files and folders are allowed")
