"""Bundles on disk, and archives as the control plane sees them."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
import tracemalloc
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.files import bundle_store
from orchestrator.adapters.files.bundle_store import FolderBundles
from orchestrator.contract.bundles import PACKED_MAX_BYTES
from orchestrator.domain import errors
from orchestrator.domain.ids import Sha256

TOMORROW = datetime.now(UTC) + timedelta(days=1)
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
MANIFEST = json.dumps({"kind": "static", "title": "Hello"}).encode()
SOUND = {"spawn.json": MANIFEST, "index.html": b"<h1>hello</h1>"}


def packed(files: dict[str, bytes], folder: str = "") -> bytes:
    """A tar.gz of these files, and of an empty folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if folder:
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    return buffer.getvalue()


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
    assert bundles.discard(digest, TOMORROW)
    assert not bundles.discard(digest, TOMORROW)
    for missing in (digest, Sha256("0" * 64)):
        with pytest.raises(errors.NotFound):
            bundles.get(missing)
        with pytest.raises(errors.NotFound):
            bundles.size(missing)
        with pytest.raises(errors.NotFound):
            bundles.touch(missing)


def test_a_dangling_name_is_replaced_and_not_followed(
    bundles: FolderBundles, tmp_path: Path
) -> None:
    digest = bundles.put(b"one")
    bundles.discard(digest, TOMORROW)
    place = tmp_path / "bundles" / digest[:2] / f"{digest[2:]}.tar.gz"
    place.symlink_to(tmp_path / "elsewhere")
    bundles.put(b"one")
    assert bundles.get(digest) == b"one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_to_is_a_temporary_trouble(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file where the folder should be")
    with pytest.raises(errors.Temporary) as caught:
        FolderBundles(tmp_path / "bundles").put(b"one")
    assert caught.value.code == "storage_unavailable"


def test_what_is_wanted_again_is_not_stale(bundles: FolderBundles, tmp_path: Path) -> None:
    kept, touched, stale = (bundles.put(data) for data in (b"one", b"two", b"three"))
    for path in tmp_path.rglob("*.tar.gz"):
        os.utime(path, (0, 0))
    assert set(bundles.stale(YESTERDAY)) == {kept, touched, stale}
    bundles.put(b"one")
    bundles.touch(touched)
    assert bundles.stale(YESTERDAY) == [stale]
    assert [bundles.discard(digest, YESTERDAY) for digest in (kept, touched, stale)] == [
        False,
        False,
        True,
    ]
    assert (bundles.get(kept), bundles.get(touched)) == (b"one", b"two")


def test_what_a_dead_process_left_is_cleared_up_and_nothing_is_lost(
    bundles: FolderBundles, tmp_path: Path
) -> None:
    digest = bundles.put(b"one")
    place = tmp_path / "bundles" / digest[:2] / f"{digest[2:]}.tar.gz"
    place.rename(place.with_name(f"{digest[2:]}.aside"))
    draft = place.with_name("tmphalf")
    draft.write_bytes(b"o")
    os.utime(draft, (0, 0))
    assert bundles.stale(YESTERDAY) == []
    assert bundles.get(digest) == b"one"
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.parametrize("jump_s", [-7200, 0, 40 * 86400])
def test_what_is_being_written_is_kept_when_the_clock_is_set(tmp_path: Path, jump_s: int) -> None:
    """The kernel stamps what is being written by the machine's clock."""
    now_s = time.time() - jump_s
    bundles = FolderBundles(tmp_path, lambda: now_s)
    draft = tmp_path / "ab" / "tmphalf"
    draft.parent.mkdir()
    draft.write_bytes(b"o")
    bundles.stale(datetime.fromtimestamp(now_s - 3600, UTC))
    assert draft.exists()


def test_a_folder_that_fails_is_a_temporary_trouble(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file where the folder should be")
    bundles = FolderBundles(tmp_path / "bundles")
    for call in (bundles.get, bundles.size, bundles.touch):
        with pytest.raises(errors.Temporary):
            call(Sha256("0" * 64))


# Sound archives


def test_a_sound_archive_is_read_to_its_manifest() -> None:
    manifest = bundle_store.inspect(packed(SOUND))
    assert (manifest.kind, manifest.title, manifest.start) == ("static", "Hello", ())


def test_a_folder_packs_to_a_bundle_that_passes(tmp_path: Path) -> None:
    for name, content in SOUND.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_bytes(b"x")
    data = bundle_store.pack(tmp_path)
    assert bundle_store.inspect(data).kind == "static"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["index.html", "spawn.json"]


def test_people_get_the_same_files_as_a_zip() -> None:
    data = packed(SOUND, folder="css")
    with zipfile.ZipFile(io.BytesIO(b"".join(bundle_store.zipped(data)))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == SOUND


def test_the_zip_of_a_large_app_comes_in_small_parts() -> None:
    files = {f"{number}.bin": random.Random(number).randbytes(3 * 1024**2) for number in range(5)}
    data = packed({**SOUND, **files, "zeros.bin": bytes(40 * 1024**2)})
    tracemalloc.start()
    try:
        parts = max(len(part) for part in bundle_store.zipped(data))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parts < 256 * 1024
    assert peak_bytes < 3 * 1024**2, "the archive itself is there already"


# Refused archives. tests/contract/agent/test_bundles.py has all rules.


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"hello", "bundle"),
        (packed({**SOUND, "../x": b""}), "bundle"),
        (packed({**SOUND, "spawn.json": b"{"}), "manifest"),
        (packed({**SOUND, "spawn.json": b'{"kind": "ruby"}'}), "kind"),
    ],
    ids=range(4),
)
def test_a_bundle_that_breaks_a_rule_is_invalid_input_that_names_the_field(
    data: bytes, field: str
) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        bundle_store.inspect(data)
    assert (caught.value.code, caught.value.detail["field"]) == ("bundle_refused", field)


def test_a_folder_that_is_no_bundle_is_refused_when_it_is_packed(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("x")
    with pytest.raises(errors.InvalidInput) as caught:
        bundle_store.pack(tmp_path)
    assert caught.value.code == "bundle_refused"


def test_an_archive_that_is_too_large_is_not_even_opened() -> None:
    with pytest.raises(errors.TooLarge) as caught:
        bundle_store.inspect(bytes(PACKED_MAX_BYTES + 1))
    assert caught.value.detail["limit_bytes"] == PACKED_MAX_BYTES
