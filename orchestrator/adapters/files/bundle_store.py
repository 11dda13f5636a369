"""Bundle bytes in a folder, by content: ports.Bundles. Also packs folders, for the catalog."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.contract import archive
from orchestrator.contract.bundles import PACKED_MAX_BYTES, BundleInvalid
from orchestrator.contract.manifest import Manifest
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256


class FolderBundles:
    """`<folder>/ab/cdef….tar.gz`, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> Sha256:
        digest = digest_of(data)
        path = self._path(digest)
        with errors.storage("keep the bundle"):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_whole(path, data)
        return digest

    def get(self, digest: Sha256) -> bytes:
        with _reading():
            return self._path(digest).read_bytes()

    def size(self, digest: Sha256) -> int:
        with _reading():
            return self._path(digest).stat().st_size

    def discard(self, digest: Sha256) -> None:
        with errors.storage("delete a bundle"):
            self._path(digest).unlink(missing_ok=True)

    def inspect(self, data: bytes) -> Manifest:
        return inspect(data)

    def _path(self, digest: Sha256) -> Path:
        return self._folder / digest[:2] / f"{digest[2:]}.tar.gz"


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    with errors.storage("read the bundle"):
        try:
            yield
        except FileNotFoundError as missing:
            raise errors.NotFound("there is no such bundle any more") from missing


def _write_whole(path: Path, data: bytes) -> None:
    draft = tempfile.NamedTemporaryFile(dir=path.parent, delete=False)  # noqa: SIM115 - see finally
    try:
        with draft:
            draft.write(data)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).replace(path)
    finally:
        Path(draft.name).unlink(missing_ok=True)


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


def as_zip(data: bytes) -> bytes:
    """A bundle as a zip file, for people."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for member in source:
            file = source.extractfile(member) if member.isfile() else None
            if file is not None:
                out.writestr(zipfile.ZipInfo(member.name), file.read(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except BundleInvalid as error:
        raise errors.InvalidInput(str(error), code="bundle_refused", field=error.field) from error
