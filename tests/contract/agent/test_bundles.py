"""Which bundles are accepted. The control plane and the agent give the same verdict on each."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import tarfile
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.files import bundle_store
from orchestrator.contract import archive
from orchestrator.contract.bundles import (
    FILES_MAX,
    FOLDERS_DEEP_MAX,
    PACKED_MAX_BYTES,
    BundleInvalid,
    safe_relative,
)
from orchestrator.contract.manifest import AppKind, Manifest
from orchestrator.domain import errors
from tests.contract.agent.archives import (
    ACCEPTED,
    MANIFEST,
    REFUSED,
    SOUND,
    packed,
    zipped,
)

# Of an inspection, besides the packed bytes. Measured: 1.5 MiB; 2.8 million calls and returns, in
# 0.35 s of processor time.
WORK_MAX_BYTES = 4 * 1024**2
WORK_MAX_CALLS = 3_500_000

Reader = Callable[[bytes], Manifest]


def read_as_control_plane(data: bytes, _: Path) -> Manifest:
    return bundle_store.inspect(data)


def read_as_agent(data: bytes, folder: Path) -> Manifest:
    return archive.unpack(data, str(folder / "src"))


both_sides = pytest.mark.parametrize(
    "read", [read_as_control_plane, read_as_agent], ids=["control plane", "agent"]
)


@both_sides
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_sound_bundle_is_accepted_by_both_sides(
    read: Callable[[bytes, Path], Manifest], name: str, tmp_path: Path
) -> None:
    assert read(ACCEPTED[name], tmp_path).kind is AppKind.STATIC


@both_sides
@pytest.mark.parametrize("name", REFUSED)
def test_a_bundle_that_breaks_a_rule_is_refused_by_both_sides_for_the_same_reason(
    read: Callable[[bytes, Path], Manifest], name: str, tmp_path: Path
) -> None:
    bundle, field, message = REFUSED[name]
    data = bundle if isinstance(bundle, bytes) else bundle()
    with pytest.raises((BundleInvalid, errors.InvalidInput), match=message) as caught:
        read(data, tmp_path)
    assert len(str(caught.value)) < 300
    error = caught.value
    if isinstance(error, errors.InvalidInput):
        assert (error.code, error.detail["field"]) == ("bundle_refused", field)
    else:
        assert error.field == field
    assert not list(tmp_path.iterdir()), "something was left behind"


@both_sides
def test_an_archive_that_is_too_large_is_not_even_opened(
    read: Callable[[bytes, Path], Manifest], tmp_path: Path
) -> None:
    with pytest.raises((BundleInvalid, errors.TooLarge), match=f"at most {PACKED_MAX_BYTES} bytes"):
        read(bytes(PACKED_MAX_BYTES + 1), tmp_path)


@given(st.binary(max_size=600), st.integers(0, 3000))
def test_whatever_the_bytes_are_the_answer_is_a_refusal_or_a_manifest(
    noise: bytes, at: int
) -> None:
    """Noise is written over a sound archive, under a gzip header that is right."""
    raw = bytearray(gzip.decompress(ACCEPTED["static"]))
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(BundleInvalid):
        assert archive.inspect(zipped(bytes(raw))).kind in AppKind


@given(st.text("./ab\\\0", max_size=12))
def test_a_path_that_is_taken_stays_below_its_folder(name: str) -> None:
    with contextlib.suppress(BundleInvalid):
        clean = safe_relative(name)
        assert (
            os.path.normpath(f"/folder/{clean}/x") == "/folder" + f"/{clean}" * bool(clean) + "/x"
        )


# The agent's folder


def test_a_packed_folder_unpacks_to_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "spawn.json").write_bytes(MANIFEST)
    (source / "index.html").write_text("hello")
    (source / "deep" / "er" / "data.bin").write_bytes(bytes(range(256)))
    manifest = archive.unpack(archive.pack(str(source)), str(tmp_path / "target"))

    assert manifest == Manifest(kind=AppKind.STATIC, start=(), title="Hello")
    assert (tmp_path / "target" / "spawn.json").read_bytes() == MANIFEST
    unpacked = tmp_path / "target" / "deep" / "er" / "data.bin"
    assert unpacked.read_bytes() == bytes(range(256))


def test_a_refused_bundle_leaves_the_old_app_alone(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    archive.unpack(packed(SOUND), str(folder))
    with pytest.raises(BundleInvalid):
        archive.unpack(packed({**SOUND, "../evil": b""}), str(folder))

    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "spawn.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_a_new_bundle_replaces_all_files_of_the_old_one(tmp_path: Path) -> None:
    archive.unpack(packed({**SOUND, "old.html": b""}), str(tmp_path / "src"))
    archive.unpack(packed(SOUND), str(tmp_path / "src"))

    assert not (tmp_path / "src" / "old.html").exists()


def test_a_folder_that_can_not_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BundleInvalid, match="can't be unpacked: Not a directory"):
        archive.unpack(packed(SOUND), str(tmp_path / "file" / "src"))


def test_the_same_files_pack_to_the_same_bytes_without_caches_and_links(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for cache in ("__pycache__", "node_modules", ".git"):
            (tmp_path / name / cache).mkdir(parents=True)
            (tmp_path / name / cache / name).write_text(name)
        (tmp_path / name / "deep").mkdir()
        (tmp_path / name / "deep" / "x.js").write_text("1")
        (tmp_path / name / "main.py").write_text("print()")
        (tmp_path / name / "link").symlink_to("/etc/passwd")
    (tmp_path / "two" / "main.py").chmod(0o777)
    os.utime(tmp_path / "two" / "main.py", (0, 0))
    one, two = (archive.pack(str(tmp_path / name)) for name in ("one", "two"))

    assert one == two
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert tar.getnames() == ["deep/x.js", "main.py"]


@pytest.mark.parametrize("name", ["a\nb", b"a\xff", "x" * 241])
def test_a_name_that_no_bundle_may_hold_is_not_packed(tmp_path: Path, name: str | bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_text("x")
    with pytest.raises(BundleInvalid):
        archive.pack(str(tmp_path))


def test_a_file_that_can_not_be_read_is_named() -> None:
    """A command of the model can leave such a file behind."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as cleanup:
        locked = Path(folder) / "a.txt"
        locked.write_text("x")
        locked.chmod(0)
        if os.geteuid() == 0:  # root may read everything
            Path(folder).chmod(0o755)
            cleanup.callback(os.seteuid, 0)
            os.seteuid(65534)
        with pytest.raises(BundleInvalid, match=r"'a\.txt' can't be read: Permission denied"):
            archive.pack(folder)


def with_members(count: int, **headers: str) -> bytes:
    """Files whose headers say more than tar needs."""

    def add(tar: tarfile.TarFile) -> None:
        for number in range(count):
            member = tarfile.TarInfo(f"p{number}")
            member.pax_headers = headers
            tar.addfile(member)

    return packed(SOUND, add)


def with_files(path_of: Callable[[int], str]) -> bytes:
    paths = [f"{path_of(number)}{number}" for number in range(FILES_MAX - 2)]
    return packed({**SOUND, **dict.fromkeys(paths, b"")})


def scattered(number: int) -> str:
    """A path through folders that few others share."""
    return "".join(f"{(number * 7 + at) % 10}/" for at in range(FOLDERS_DEEP_MAX))


def full_manifest() -> bytes:
    return b'{"kind": "static", "x": [' + b",".join([b"[]"] * 21_000) + b"]}"


def with_empty_blocks() -> bytes:
    """A gzip stream that begins with millions of blocks without contents."""
    contents = gzip.decompress(packed(SOUND))
    squeezed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    end = zlib.crc32(contents).to_bytes(4, "little") + len(contents).to_bytes(4, "little")
    body = squeezed.compress(contents) + squeezed.flush()
    head = b"\x1f\x8b\x08" + bytes(7)
    return head + b"\0\0\0\xff\xff" * (19 * 1024**2 // 5) + body + end


HEAVIEST: dict[str, Callable[[], bytes]] = {
    "many files": lambda: with_files(lambda _: ""),
    "deep files": lambda: with_files(lambda _: "d/" * FOLDERS_DEEP_MAX),
    "scattered files": lambda: with_files(scattered),
    "a full manifest": lambda: packed({**SOUND, "spawn.json": full_manifest()}),
    "long headers": lambda: with_members(34, comment="x" * 60_000),
    "many headers": lambda: with_members(60, **{f"k{key}": "v" for key in range(2_900)}),
    "empty blocks": with_empty_blocks,
    "large files": lambda: packed(
        {**SOUND, **{f"{number}": bytes(10 * 1024**2 - 1024) for number in range(9)}}
    ),
}


@pytest.mark.parametrize(
    "rest",
    [b"\0", bytes(1024**2), b"x", gzip.compress(b""), gzip.compress(b"") * 1000],
    ids=["a zero", "zeros", "a letter", "an empty stream", "empty streams"],
)
def test_nothing_may_follow_the_archive(rest: bytes) -> None:
    archive.inspect(packed(SOUND))
    with pytest.raises(BundleInvalid, match="more bytes follow the end"):
        archive.inspect(packed(SOUND) + rest)


def test_an_archive_in_several_streams_is_refused() -> None:
    contents = gzip.decompress(packed(SOUND))
    streams = b"".join(gzip.compress(contents[at : at + 1]) for at in range(len(contents)))
    with pytest.raises(BundleInvalid):
        archive.inspect(streams)


def test_an_archive_that_ends_too_early_is_refused_wherever_it_is_cut() -> None:
    data = packed(SOUND)
    for end in range(len(data)):
        with pytest.raises(BundleInvalid):
            archive.inspect(data[:end])


@pytest.mark.parametrize("name", HEAVIEST)
def test_the_heaviest_archive_takes_a_bounded_amount_of_work_and_memory(name: str) -> None:
    data = HEAVIEST[name]()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    tracemalloc.start()
    try:
        archive.inspect(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        archive.inspect(data)
    finally:
        sys.setprofile(before)
    assert peak_bytes < WORK_MAX_BYTES
    assert calls < WORK_MAX_CALLS
