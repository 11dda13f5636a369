"""Bundle bytes in a folder, by content: ports.Bundles. Also packs folders, for the catalog."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256
from orchestrator.domain.sessions import bundles
from orchestrator.domain.sessions.bundles import Manifest, Member


class FolderBundles:
    """`<folder>/ab/cdef….tar.gz`, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> Sha256:
        digest = digest_of(data)
        path = self._path(digest)
        if path.exists():
            return digest
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data)
        except OSError as error:
            raise errors.Temporary(
                f"the bundle can't be kept: {error.strerror}", code="disk_full"
            ) from error
        return digest

    def get(self, digest: Sha256) -> bytes:
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError as missing:
            raise errors.NotFound("there is no such bundle any more") from missing

    def size(self, digest: Sha256) -> int:
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError as missing:
            raise errors.NotFound("there is no such bundle any more") from missing

    def discard(self, digest: Sha256) -> None:
        self._path(digest).unlink(missing_ok=True)

    def inspect(self, data: bytes) -> Manifest:
        return inspect(data)

    def _path(self, digest: Sha256) -> Path:
        return self._folder / digest[:2] / f"{digest[2:]}.tar.gz"


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
    return Sha256(hashlib.sha256(data).hexdigest())


def inspect(data: bytes) -> Manifest:
    """Check an untrusted archive in memory. The unpacked size is bounded while it is read, so that
    a small file can't become a large one. Raises InvalidInput (bundle_refused), TooLarge."""
    if len(data) > bundles.PACKED_MAX_BYTES:
        raise errors.TooLarge(
            f"a bundle has at most {bundles.PACKED_MAX_BYTES} bytes",
            limit_bytes=bundles.PACKED_MAX_BYTES,
        )
    try:
        return _inspect_tar(_gunzip(data))
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
        raise errors.InvalidInput(
            f"not a readable tar.gz: {error}", code="bundle_refused", field="bundle"
        ) from error


def pack(folder: Path) -> bytes:
    """A folder as a bundle: the same files give the same bytes, whenever and wherever."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                info.size, info.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    archive.addfile(info, file)
    return buffer.getvalue()


def as_zip(data: bytes) -> bytes:
    """A bundle as a zip file, for people."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                out.writestr(zipfile.ZipInfo(member.name), file.read(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _gunzip(data: bytes) -> bytes:
    # Headers and padding make a tar larger than its files; the files are bounded by check_members.
    most = bundles.UNPACKED_MAX_BYTES + bundles.FILES_MAX * 2 * tarfile.BLOCKSIZE + 2**20
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as zipped:
        raw = zipped.read(most + 1)
    if len(raw) > most:
        raise errors.InvalidInput(
            f"a bundle unpacks to at most {bundles.UNPACKED_MAX_BYTES} bytes",
            code="bundle_refused",
            field="bundle",
        )
    return raw


def _members(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The headers, one by one: there may be a hundred thousand of them, and one with a negative
    size leads back to an earlier one, round and round (CVE-2025-8194)."""
    infos: list[tarfile.TarInfo] = []
    for info in archive:
        if info.size < 0:
            raise tarfile.ReadError(f"the size of {info.name!r} is negative")
        infos.append(info)
        if len(infos) > bundles.FILES_MAX:
            break  # check_members refuses these
    return infos


def _inspect_tar(raw: bytes) -> Manifest:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
        infos = _members(archive)
        bundles.check_members(
            [
                Member(
                    path=info.name,
                    is_file=info.isreg(),
                    is_folder=info.isdir(),
                    size_bytes=info.size,
                )
                for info in infos
            ]
        )
        manifest = next(
            info for info in infos if os.path.normpath(info.name) == bundles.MANIFEST_NAME
        )
        file = archive.extractfile(manifest)
        return bundles.read_manifest(json.loads(file.read() if file is not None else b"null"))
