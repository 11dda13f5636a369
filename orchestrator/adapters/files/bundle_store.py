"""Bundle bytes in a folder, by content: ports.Bundles. Also packs folders, for the catalog."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters import durable
from orchestrator.contract import archive
from orchestrator.contract.bundles import PACKED_MAX_BYTES, BundleInvalid
from orchestrator.contract.manifest import Manifest
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ENDING = ".tar.gz"
_ASIDE = ".aside"  # about to be deleted
_CHUNK_BYTES = 64 * 1024
_PACKED_CHUNK_BYTES = 2048  # it may unpack to a thousand times as much


class FolderBundles:
    """`<folder>/ab/cdef….tar.gz`, written whole or not at all.

    A file's time says when it was last wanted. `discard` trusts nobody's word about that: it puts
    the file aside, looks at its time again, and puts it back if it was wanted meanwhile. So bytes
    that are put, or touched, while a sweep runs are there afterwards.
    """

    def __init__(self, folder: Path, now_s: Callable[[], float] = time.time) -> None:
        """`now_s` returns the application's time, in seconds since 1970."""
        self._folder = folder
        self._now_s = now_s

    def put(self, data: bytes) -> Sha256:
        digest = digest_of(data)
        path = self._path(digest)
        with errors.storage("keep the bundle"):
            try:
                self._freshen(path)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                durable.replace_file(path, data)
                self._freshen(path)
        return digest

    def touch(self, digest: Sha256) -> None:
        with _reading():
            self._freshen(self._path(digest))

    def get(self, digest: Sha256) -> bytes:
        with _reading():
            return self._path(digest).read_bytes()

    def size(self, digest: Sha256) -> int:
        with _reading():
            return self._path(digest).stat().st_size

    def stale(self, before: datetime) -> Sequence[Sha256]:
        """As the port says. Also clears up after a process that died while it wrote or
        discarded."""
        digests = []
        with errors.storage("look through the bundles"):
            for path in sorted(self._folder.glob("??/*")):
                if path.suffix == _ASIDE:
                    path.replace(path.with_suffix(_ENDING))
                elif not path.name.endswith(_ENDING):
                    self._clear_draft(path, before)
                elif _is_older(path, before):
                    digests.append(Sha256(path.parent.name + path.name.removesuffix(_ENDING)))
        return digests

    def discard(self, digest: Sha256, before: datetime) -> bool:
        path = self._path(digest)
        aside = path.with_name(digest[2:] + _ASIDE)
        with errors.storage("delete a bundle"):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            if _is_older(aside, before):
                aside.unlink(missing_ok=True)
                return True
            aside.rename(path)
            return False

    def inspect(self, data: bytes) -> Manifest:
        return inspect(data)

    def _clear_draft(self, path: Path, before: datetime) -> None:
        """Delete a file that a process left half written. Its time is from the machine's clock,
        which may have been set: it must be old by both clocks."""
        machine_is_ahead = timedelta(seconds=time.time() - self._now_s())
        if _is_older(path, min(before, before + machine_is_ahead)):
            path.unlink(missing_ok=True)

    def _freshen(self, path: Path) -> None:
        now_s = self._now_s()
        os.utime(path, (now_s, now_s))

    def _path(self, digest: Sha256) -> Path:
        return self._folder / digest[:2] / f"{digest[2:]}{_ENDING}"


def _is_older(path: Path, before: datetime) -> bool:
    try:
        return path.lstat().st_mtime < before.timestamp()
    except FileNotFoundError:
        return False  # somebody was faster


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    with errors.storage("read the bundle"):
        try:
            yield
        except FileNotFoundError as missing:
            raise errors.NotFound("there is no such bundle any more") from missing


def digest_of(data: bytes) -> Sha256:
    """The name of a bundle: the SHA-256 of its bytes."""
    return Sha256(archive.sha256_hex(data))


def inspect(data: bytes) -> Manifest:
    """Check an untrusted archive in memory, by the rules that the agent has too.

    Raises errors.InvalidInput (bundle_refused), errors.TooLarge.
    """
    if len(data) > PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle is at most {PACKED_MAX_BYTES} bytes large", limit_bytes=PACKED_MAX_BYTES
        )
    with _refusals():
        return archive.inspect(data)


def pack(folder: Path) -> bytes:
    """A folder as a bundle: the same files give the same bytes, whenever and wherever.

    Raises errors.InvalidInput (bundle_refused).
    """
    with _refusals():
        return archive.pack(str(folder))


def zipped(data: bytes) -> Iterator[bytes]:
    """A bundle as a zip file, for people, in parts of some 64 KiB: a small one may hold 100 MiB."""
    sink = _Sink()
    with (
        tarfile.open(fileobj=io.BytesIO(data), mode="r|gz", bufsize=_PACKED_CHUNK_BYTES) as source,
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
    ):
        for member in source:
            file = source.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            with out.open(member.name, "w") as target:
                while chunk := file.read(_CHUNK_BYTES):
                    target.write(chunk)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        self._written += memoryview(data)
        return memoryview(data).nbytes

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except BundleInvalid as error:
        raise errors.InvalidInput(str(error), code="bundle_refused", field=error.field) from error
