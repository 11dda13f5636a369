"""Bundles on disk, and what is refused of an archive that somebody hostile made."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.files import bundle_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256
from orchestrator.domain.sessions import bundles as bundle

MIB = 1024**2
MANIFEST = json.dumps({"kind": "static", "title": "Hello"}).encode()
SOUND = {"spawn.json": MANIFEST, "index.html": b"<h1>hello</h1>"}


def packed(
    files: dict[str, bytes], change: Callable[[tarfile.TarFile], None] = lambda _: None
) -> bytes:
    """A tar.gz of these files, and of what `change` adds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        change(archive)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)

    return add


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def refusal(data: bytes) -> str:
    with pytest.raises(errors.InvalidInput) as caught:
        bundle_store.inspect(data)
    assert caught.value.code == "bundle_refused"
    return str(caught.value)


@pytest.fixture
def bundles(tmp_path: Path) -> FolderBundles:
    return FolderBundles(tmp_path / "bundles")


# On disk


def test_what_is_kept_comes_back_unchanged(bundles: FolderBundles) -> None:
    data = packed(SOUND)
    digest = bundles.put(data)
    assert digest == bundle_store.digest_of(data)
    assert bundles.get(digest) == data
    assert bundles.size(digest) == len(data)


def test_the_same_bytes_are_kept_once_and_nothing_lies_beside_them(
    bundles: FolderBundles, tmp_path: Path
) -> None:
    for data in (b"one", b"two", b"one"):
        bundles.put(data)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in files) == [b"one", b"two"]


def test_what_was_discarded_or_never_kept_is_not_found(bundles: FolderBundles) -> None:
    digest = bundles.put(b"one")
    bundles.discard(digest)
    bundles.discard(digest)
    for missing in (digest, Sha256("0" * 64)):
        with pytest.raises(errors.NotFound):
            bundles.get(missing)
        with pytest.raises(errors.NotFound):
            bundles.size(missing)


def test_a_dangling_name_is_replaced_and_not_followed(
    bundles: FolderBundles, tmp_path: Path
) -> None:
    digest = bundles.put(b"one")
    bundles.discard(digest)
    place = tmp_path / "bundles" / digest[:2] / f"{digest[2:]}.tar.gz"
    place.symlink_to(tmp_path / "elsewhere")
    bundles.put(b"one")
    assert bundles.get(digest) == b"one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_to_is_a_temporary_trouble(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file where the folder should be")
    with pytest.raises(errors.Temporary) as caught:
        FolderBundles(tmp_path / "bundles").put(b"one")
    assert caught.value.code == "disk_full"


# Sound archives


def test_a_sound_archive_is_read_to_its_manifest() -> None:
    manifest = bundle_store.inspect(packed(SOUND))
    assert (manifest.kind, manifest.title, manifest.start) == ("static", "Hello", ())


def test_folders_and_a_leading_dot_are_fine() -> None:
    files = {f"./{name}": content for name, content in SOUND.items()}
    bundle_store.inspect(packed(files, special("./css", tarfile.DIRTYPE)))


def test_a_folder_packs_to_a_bundle_that_passes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "__pycache__").mkdir(parents=True)
        (tmp_path / name / "__pycache__" / "x.pyc").write_bytes(b"x")
        (tmp_path / name / "deep").mkdir()
        (tmp_path / name / "deep" / "x.js").write_text("1")
        (tmp_path / name / "spawn.json").write_bytes(MANIFEST)
    (tmp_path / "b" / "deep" / "x.js").chmod(0o777)
    one, two = bundle_store.pack(tmp_path / "a"), bundle_store.pack(tmp_path / "b")
    assert one == two, "mode or time of a file changed the bytes"
    assert bundle_store.inspect(one).kind == "static"
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        assert archive.getnames() == ["deep/x.js", "spawn.json"]


def test_people_get_the_same_files_as_a_zip() -> None:
    data = packed(SOUND, special("css", tarfile.DIRTYPE))
    with zipfile.ZipFile(io.BytesIO(bundle_store.as_zip(data))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == SOUND


# Hostile archives

TRICKS = {
    "symbolic link": special("link", tarfile.SYMTYPE, "/etc/passwd"),
    "symbolic link inside": special("link", tarfile.SYMTYPE, "index.html"),
    "hard link": special("link", tarfile.LNKTYPE, "spawn.json"),
    "character device": special("null", tarfile.CHRTYPE),
    "block device": special("disk", tarfile.BLKTYPE),
    "pipe": special("pipe", tarfile.FIFOTYPE),
    "unknown type": special("what", b"Z"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_neither_file_nor_folder_is_refused(trick: str) -> None:
    assert "neither a file nor a folder" in refusal(packed(SOUND, TRICKS[trick]))


@pytest.mark.parametrize("path", ["../x", "/etc/cron.d/x", "a/../../x", "a\\..\\x", ".."])
def test_paths_that_lead_outside_are_refused(path: str) -> None:
    assert "points outside" in refusal(packed({**SOUND, path: b"x"}))
    assert "points outside" in refusal(packed(SOUND, special(path, tarfile.DIRTYPE)))


def test_a_path_that_a_pax_header_smuggles_in_is_refused() -> None:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("harmless.txt")
        info.pax_headers = {"path": "../../etc/passwd"}
        archive.addfile(info)

    assert "points outside" in refusal(packed(SOUND, add))


def test_a_second_manifest_is_refused() -> None:
    other = json.dumps({"kind": "python", "start": ["python", "x.py"]}).encode()
    assert "occurs twice" in refusal(packed({**SOUND, "./spawn.json": other}))


def test_a_small_file_that_becomes_a_large_one_is_refused() -> None:
    bomb = gzip.compress(bytes(bundle.UNPACKED_MAX_BYTES + 4 * MIB), compresslevel=1)
    assert len(bomb) < MIB
    assert "unpacks to at most" in refusal(bomb)


def test_files_that_are_too_much_together_are_refused() -> None:
    half = bytes(bundle.UNPACKED_MAX_BYTES // 2)
    assert "unpacks to at most" in refusal(packed({**SOUND, "a": half, "b": half}))


def test_a_size_that_is_only_claimed_is_refused() -> None:
    assert "not a readable" in refusal(gzip.compress(header("spawn.json", 2**40)))


def test_too_many_files_are_refused() -> None:
    files = {f"{number}.txt": b"" for number in range(bundle.FILES_MAX)}
    assert "at most 2000 files" in refusal(packed({**SOUND, **files}))


def way_back(blocks: int) -> bytes:
    """A header whose negative size leads to the header that many blocks before it."""
    raw = bytearray(header("x", 0))
    raw[124:136] = (256**12 - (blocks + 1) * tarfile.BLOCKSIZE).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def test_a_negative_size_is_refused_before_it_leads_round_and_round() -> None:
    manifest = header("spawn.json", len(MANIFEST)) + MANIFEST.ljust(tarfile.BLOCKSIZE, b"\0")
    endless = manifest + header("y", 0) + way_back(1) + bytes(1024)
    assert "negative" in refusal(gzip.compress(endless))


def test_reading_ends_where_there_are_too_many_headers() -> None:
    headers = b"".join(header(f"{number}", 0) for number in range(2100))
    broken = gzip.compress(headers + header("", 2**40), compresslevel=1)
    assert "at most 2000 files" in refusal(broken), "it was read to its end"


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_that_announce_each_other_without_end_are_refused(kind: bytes) -> None:
    body = b"20 path=aaaaaaaaaaa\n" if kind == tarfile.XHDTYPE else b"aaaaaaaaaaaaaaaaaaaa"
    nested = (header("x", len(body), kind) + body.ljust(tarfile.BLOCKSIZE, b"\0")) * 3000
    assert "not a readable" in refusal(gzip.compress(nested, compresslevel=1))


@pytest.mark.parametrize("manifest", [b"[" * 200_000, b'{"kind":' * 100_000])
def test_a_manifest_that_is_nested_without_end_is_refused(manifest: bytes) -> None:
    assert "not a readable" in refusal(packed({"spawn.json": manifest}))


def test_an_archive_that_is_too_large_is_not_even_opened() -> None:
    with pytest.raises(errors.TooLarge) as caught:
        bundle_store.inspect(bytes(bundle.PACKED_MAX_BYTES + 1))
    assert caught.value.detail["limit_bytes"] == bundle.PACKED_MAX_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        gzip.compress(b""),
        gzip.compress(b"no tar"),
        packed(SOUND)[:-20],
        packed(SOUND)[:40],
        packed(SOUND) + b"and more",
        packed(SOUND)[:-8] + bytes(8),
        bytes(4096),
    ],
    ids=range(9),
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    assert "not a readable tar.gz" in refusal(data)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"null", b"[]", b'"static"', b"\xff\xfe\x00", b'{"kind": "ruby"}', b"9" * 5000],
    ids=range(8),
)
def test_a_manifest_that_cannot_be_read_is_refused(manifest: bytes) -> None:
    refusal(packed({"spawn.json": manifest}))


def test_a_manifest_that_is_a_folder_is_refused() -> None:
    refusal(packed({}, special("spawn.json", tarfile.DIRTYPE)))


@given(st.binary(max_size=600), st.integers(0, 3000))
def test_whatever_the_bytes_are_the_answer_is_a_refusal_or_a_manifest(
    noise: bytes, at: int
) -> None:
    """Noise written over a sound archive, under a gzip header that is right."""
    raw = bytearray(gzip.decompress(packed(SOUND)))
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(errors.InvalidInput):
        manifest = bundle_store.inspect(gzip.compress(bytes(raw), compresslevel=1))
        assert manifest.kind in bundle.KINDS
