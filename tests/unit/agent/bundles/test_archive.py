"""Bundles: what is refused before anything is written, and what comes back unchanged."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from agent.bundles.archive import BundleInvalid, pack, unpack
from agent.bundles.manifest import AppKind
from agent.layout import MAX_FILES, MAX_PACKED_BYTES, MAX_UNPACKED_BYTES

STATIC = {"spawn.json": json.dumps({"kind": "static"}).encode(), "index.html": b"hello"}


def packed(
    files: dict[str, bytes], change: Callable[[tarfile.TarFile], None] = lambda archive: None
) -> bytes:
    """A bundle of these files, with something added to it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        change(archive)
    return output.getvalue()


def special(name: str, kind: bytes, linkname: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = linkname
        archive.addfile(member)

    return add


def test_a_packed_folder_unpacks_to_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "spawn.json").write_text('{"kind": "static"}')
    (source / "index.html").write_text("hello")
    (source / "deep" / "er" / "data.bin").write_bytes(bytes(range(256)))
    manifest = unpack(pack(str(source)), str(tmp_path / "target"))

    assert manifest.kind is AppKind.STATIC
    unpacked = tmp_path / "target" / "deep" / "er" / "data.bin"
    assert unpacked.read_bytes() == bytes(range(256))


def test_the_same_files_pack_to_the_same_bytes_and_leave_caches_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "__pycache__").mkdir(parents=True)
        (tmp_path / name / "main.py").write_text("print()")
        (tmp_path / name / "__pycache__" / f"{name}.pyc").write_text(name)
        (tmp_path / name / "link").symlink_to("/etc/passwd")

    assert pack(str(tmp_path / "one")) == pack(str(tmp_path / "two"))


def test_a_refused_bundle_leaves_the_old_app_alone(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    unpack(packed(STATIC), str(folder))
    with pytest.raises(BundleInvalid):
        unpack(packed({**STATIC, "../evil": b""}), str(folder))

    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "spawn.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_a_new_bundle_replaces_all_files_of_the_old_one(tmp_path: Path) -> None:
    unpack(packed({**STATIC, "old.html": b""}), str(tmp_path / "src"))
    unpack(packed(STATIC), str(tmp_path / "src"))

    assert not (tmp_path / "src" / "old.html").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "'..'"),
        ("a/../../evil", "'..'"),
        ("/etc/evil", "relative"),
        ("a\\b", "backslash"),
        ("a\nb", "control"),
        ("x" * 300, "longer"),
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(BundleInvalid, match=reason):
        unpack(packed({**STATIC, name: b"x"}), str(tmp_path / "src"))


@pytest.mark.parametrize(
    "change",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("index2.html", tarfile.LNKTYPE, "index.html"),
        special("device", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
)
def test_anything_but_plain_files_and_folders_is_refused(
    tmp_path: Path, change: Callable[[tarfile.TarFile], None]
) -> None:
    with pytest.raises(BundleInvalid, match="only plain files"):
        unpack(packed(STATIC, change), str(tmp_path / "src"))


def test_a_sparse_file_can_not_grow_beyond_its_archive(tmp_path: Path) -> None:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("huge")
        member.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(10**12),
        }
        archive.addfile(member)

    with pytest.raises(BundleInvalid, match="only plain files"):
        unpack(packed(STATIC, add), str(tmp_path / "src"))


def test_a_small_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    bomb = packed({**STATIC, "zeros": bytes(MAX_UNPACKED_BYTES + 1)})
    assert len(bomb) < MAX_PACKED_BYTES
    with pytest.raises(BundleInvalid, match="more than"):
        unpack(bomb, str(tmp_path / "src"))


def test_a_bomb_hidden_in_a_tar_header_is_refused(tmp_path: Path) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type = tarfile.GNUTYPE_LONGNAME
    name.size = 200 * 1024 * 1024
    bomb = gzip.compress(name.tobuf(format=tarfile.GNU_FORMAT) + bytes(name.size), 1)
    assert len(bomb) < MAX_PACKED_BYTES
    with pytest.raises(BundleInvalid, match="larger than"):
        unpack(bomb, str(tmp_path / "src"))


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="more than"):
        unpack(
            packed({**STATIC, **{f"f{number}": b"" for number in range(MAX_FILES)}}),
            str(tmp_path / "src"),
        )


@pytest.mark.parametrize(
    "garbage",
    [b"", b"not gzip", gzip.compress(b"no tar"), packed(STATIC)[:-30]],
    ids=["empty", "no gzip", "no tar", "cut off"],  # not the bytes: gzip's hold the time
)
def test_what_is_no_archive_is_refused(tmp_path: Path, garbage: bytes) -> None:
    with pytest.raises(BundleInvalid):
        unpack(garbage, str(tmp_path / "src"))


def test_a_bundle_without_manifest_or_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match=r"no spawn\.json"):
        unpack(packed({"index.html": b""}), str(tmp_path / "src"))
    with pytest.raises(BundleInvalid, match=r"index\.html"):
        unpack(packed({"spawn.json": STATIC["spawn.json"]}), str(tmp_path / "src"))
