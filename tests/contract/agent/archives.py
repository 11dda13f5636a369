"""Archives for the tests of bundles: sound ones, and one for each rule that can be broken."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable

from orchestrator.contract.bundles import (
    FILES_MAX,
    UNPACKED_MAX_BYTES,
)
from orchestrator.contract.manifest import MANIFEST_MAX_BYTES

Change = Callable[[tarfile.TarFile], None]

MIB = 1024**2
MANIFEST = json.dumps({"kind": "static", "title": "Hello"}).encode()
SOUND = {"spawn.json": MANIFEST, "index.html": b"<h1>hello</h1>"}


def nothing(_: tarfile.TarFile) -> None:
    pass


def packed(files: dict[str, bytes], change: Change = nothing) -> bytes:
    """A tar.gz of these files, and of what `change` adds."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        change(tar)
    return output.getvalue()


def special(name: str, kind: bytes, target: str = "") -> Change:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return add


def with_pax_headers(name: str, **headers: str) -> Change:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.pax_headers = {key.replace("_", "."): value for key, value in headers.items()}
        tar.addfile(member)

    return add


def many_long_headers() -> bytes:
    def add(tar: tarfile.TarFile) -> None:
        for number in range(40):
            member = tarfile.TarInfo(f"x{number}")
            member.pax_headers = {"comment": "x" * 60_000}
            tar.addfile(member)

    return packed(SOUND, add)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def block(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def way_back(blocks: int) -> bytes:
    """A header whose negative size leads to the header that many blocks before it."""
    raw = bytearray(header("x", 0))
    raw[124:136] = (256**12 - (blocks + 1) * tarfile.BLOCKSIZE).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def zipped(*blocks: bytes) -> bytes:
    return gzip.compress(b"".join(blocks), compresslevel=1)


def nested_headers(kind: bytes, body: bytes) -> bytes:
    """Headers that announce each other."""
    return zipped((header("x", len(body), kind) + block(body)) * 3000)


def sparse_map_in_contents() -> bytes:
    """GNU sparse format 1.0: the map is in the contents, and tarfile would read all of it."""
    records = b"".join(
        b"%d %s\n" % (len(record) + 4, record)
        for record in (
            b"GNU.sparse.major=1",
            b"GNU.sparse.minor=0",
            b"GNU.sparse.name=x",
            b"GNU.sparse.realsize=9",
        )
    )
    pax = header("pax", len(records), tarfile.XHDTYPE) + block(records)
    contents = b"9999999\n" + b"0\n" * 1000
    return zipped(pax, header("x", len(contents)), block(contents), bytes(1024))


def many(count: int) -> dict[str, bytes]:
    return {f"{number}.txt": b"" for number in range(count)}


def folders(count: int) -> Change:
    def add(tar: tarfile.TarFile) -> None:
        for number in range(count):
            special(f"folder-{number}", tarfile.DIRTYPE)(tar)

    return add


def all_of(*changes: Change) -> Change:
    def add(tar: tarfile.TarFile) -> None:
        for change in changes:
            change(tar)

    return add


def manifest(**fields: object) -> bytes:
    return packed({**SOUND, "spawn.json": json.dumps(fields).encode()})


ACCEPTED: dict[str, bytes] = {
    "static": packed(SOUND),
    "folders and leading dots": packed(
        {f"./{name}": content for name, content in SOUND.items()},
        all_of(special(".", tarfile.DIRTYPE), special("./css/", tarfile.DIRTYPE)),
    ),
    "a folder after its file": packed({**SOUND, "a/b": b""}, special("a", tarfile.DIRTYPE)),
    "blanks, accents, dots": packed({**SOUND, "a b/naïve..txt": b"", ".../..a": b""}),
    "2000 files": packed({**SOUND, **many(FILES_MAX - 2)}),
    "2000 files and folders": packed({**SOUND, **many(998)}, folders(1000)),
    "long path": packed({**SOUND, "/".join(["x" * 59] * 4): b""}),
    "no title": manifest(kind="static"),
    "no end marker": zipped(
        *(header(name, len(text)) + block(text) for name, text in SOUND.items())
    ),
}
REFUSED: dict[str, tuple[bytes | Callable[[], bytes], str, str]] = {
    # name: bundle (large ones are made when they are needed), field, what the message says
    "symbolic link": (
        packed(SOUND, special("link", tarfile.SYMTYPE, "/etc/passwd")), "bundle", "only plain"
    ),
    "symbolic link inside": (
        packed(SOUND, special("link", tarfile.SYMTYPE, "index.html")), "bundle", "only plain"
    ),
    "hard link": (
        packed(SOUND, special("link", tarfile.LNKTYPE, "spawn.json")), "bundle", "only plain"
    ),
    "character device": (packed(SOUND, special("null", tarfile.CHRTYPE)), "bundle", "only plain"),
    "block device": (packed(SOUND, special("disk", tarfile.BLKTYPE)), "bundle", "only plain"),
    "pipe": (packed(SOUND, special("pipe", tarfile.FIFOTYPE)), "bundle", "only plain"),
    "folders too deep": (packed({**SOUND, "d/" * 33 + "x": b""}), "bundle", "more than 32 folders"),
    "many long headers": (many_long_headers, "bundle", "the headers are larger than"),
    "unknown type": (packed(SOUND, special("odd", b"Z")), "bundle", "only plain"),
    "old sparse file": (
        packed(SOUND, special("huge", tarfile.GNUTYPE_SPARSE)), "bundle", "only plain"
    ),
    "sparse file": (
        packed(
            SOUND,
            with_pax_headers(
                "huge",
                GNU_sparse_major="0",
                GNU_sparse_minor="1",
                GNU_sparse_map="0,0",
                GNU_sparse_size=str(10**12),
            ),
        ),
        "bundle",
        "only plain",
    ),
    "sparse file with its map in the contents": (
        sparse_map_in_contents(), "bundle", "only plain"
    ),
    "broken sparse map": (
        packed(SOUND, with_pax_headers("huge", GNU_sparse_map="a,b")), "bundle", "not a readable"
    ),
    "dot dot": (packed({**SOUND, "../x": b""}), "bundle", "'..'"),
    "dot dot inside": (packed({**SOUND, "a/../../x": b""}), "bundle", "'..'"),
    "dot dot that stays inside": (packed({**SOUND, "a/../x": b""}), "bundle", "'..'"),
    "folder outside": (packed(SOUND, special("../x", tarfile.DIRTYPE)), "bundle", "'..'"),
    "path in a pax header": (
        packed(SOUND, with_pax_headers("fine", path="../../etc/passwd")), "bundle", "'..'"
    ),
    "absolute path": (packed({**SOUND, "/etc/cron.d/x": b""}), "bundle", "relative"),
    "the root": (packed(SOUND, special("/", tarfile.DIRTYPE)), "bundle", "absolute"),
    "backslash": (packed({**SOUND, "a\\..\\x": b""}), "bundle", "backslashes"),
    "line end in a name": (packed({**SOUND, "a\nb": b""}), "bundle", "control characters"),
    "no text in a name": (packed({**SOUND, "a\udcff": b""}), "bundle", "control characters"),
    "path of 241 characters": (
        packed({**SOUND, "/".join(["x" * 120] * 2): b""}), "bundle", "longer than 240"
    ),
    "path of a megabyte": (
        packed(SOUND, with_pax_headers("x", path="x" * MIB)), "bundle", "header is larger"
    ),
    "name of more than 255 bytes": (
        packed({**SOUND, "界" * 100: b""}), "bundle", "longer than 255 bytes"
    ),
    "second manifest": (packed({**SOUND, "./spawn.json": b"{}"}), "bundle", "twice"),
    "file twice": (packed({**SOUND, "a/b": b"", "a//b": b""}), "bundle", "twice"),
    "folder twice": (
        packed(
            SOUND, all_of(special("a", tarfile.DIRTYPE), special("a/", tarfile.DIRTYPE))
        ),
        "bundle",
        "twice",
    ),
    "file in a file": (packed({**SOUND, "a": b"", "a/b": b""}), "bundle", "also a file"),
    "file over a folder": (packed({**SOUND, "a/b": b"", "a": b""}), "bundle", "both a file"),
    "folder over a file": (
        packed(SOUND, special("index.html", tarfile.DIRTYPE)), "bundle", "twice"
    ),
    "folder in a file": (
        packed(SOUND, special("index.html/x", tarfile.DIRTYPE)), "bundle", "also a file"
    ),
    "2001 files": (packed({**SOUND, **many(FILES_MAX - 1)}), "bundle", "at most 2000"),
    "2001 files and folders": (
        packed({**SOUND, **many(999)}, folders(1000)), "bundle", "at most 2000"
    ),
    "too many headers and a broken one": (
        zipped(*(header(f"{number}", 0) for number in range(2100)), header("", 2**40)),
        "bundle",
        "at most 2000",
    ),
    "files too large together": (
        lambda: packed({**SOUND, **dict.fromkeys("ab", bytes(UNPACKED_MAX_BYTES // 2))}),
        "bundle",
        "unpacks to at most",
    ),
    "bomb": (lambda: zipped(bytes(UNPACKED_MAX_BYTES + 5 * MIB)), "bundle", "unpacks to at most"),
    "bomb after the end of the archive": (
        lambda: zipped(gzip.decompress(packed(SOUND)), bytes(UNPACKED_MAX_BYTES + 5 * MIB)),
        "bundle",
        "unpacks to at most",
    ),
    "bomb in a header": (
        zipped(header("././@LongLink", 200 * MIB, tarfile.GNUTYPE_LONGNAME), bytes(1024)),
        "bundle",
        "header is larger",
    ),
    "size that is only claimed": (
        zipped(header("a", 2**20), b"x" * 1000), "bundle", "not a readable"
    ),
    "size of a terabyte": (zipped(header("a", 2**40)), "bundle", "unpacks to at most"),
    "negative size": (
        zipped(header("spawn.json", len(MANIFEST)), block(MANIFEST), way_back(3), bytes(1024)),
        "bundle",
        "negative",
    ),
    "negative size in a pax header": (
        packed(SOUND, with_pax_headers("x", size="-512")), "bundle", "negative"
    ),
    "headers without end, GNU": (
        nested_headers(tarfile.GNUTYPE_LONGNAME, b"a" * 20), "bundle", "not a readable"
    ),
    "headers without end, pax": (
        nested_headers(tarfile.XHDTYPE, b"20 path=aaaaaaaaaaa\n"), "bundle", "not a readable"
    ),
    "empty": (b"", "bundle", "not a readable"),
    "no gzip": (b"hello", "bundle", "not a readable"),
    "zeros": (bytes(4096), "bundle", "not a readable"),
    "gzip of nothing": (gzip.compress(b""), "bundle", "not a readable"),
    "gzip of no tar": (gzip.compress(b"no tar"), "bundle", "not a readable"),
    "cut off": (packed(SOUND)[:-20], "bundle", "not a readable"),
    "cut off early": (packed(SOUND)[:40], "bundle", "not a readable"),
    "more after the end": (packed(SOUND) + b"and more", "bundle", "more bytes follow"),
    "wrong checksum": (packed(SOUND)[:-8] + bytes(8), "bundle", "not a readable"),
    "no manifest": (packed({"index.html": b""}), "bundle", "no spawn.json"),
    "no members": (packed({}), "bundle", "no spawn.json"),
    "manifest in a folder": (packed({"a/spawn.json": MANIFEST}), "bundle", "no spawn.json"),
    "manifest of another name": (packed({"SPAWN.JSON": MANIFEST}), "bundle", "no spawn.json"),
    "manifest that is a folder": (
        packed({}, special("spawn.json", tarfile.DIRTYPE)), "bundle", "no spawn.json"
    ),
    "huge manifest": (
        packed({**SOUND, "spawn.json": MANIFEST + b" " * MANIFEST_MAX_BYTES}),
        "manifest",
        "larger than 65536 bytes",
    ),
    "manifest nested without end": (
        packed({"spawn.json": b"[" * MANIFEST_MAX_BYTES}), "manifest", "not JSON"
    ),
    "manifest with a long number": (packed({"spawn.json": b"9" * 5000}), "manifest", "not JSON"),
    "manifest that is no JSON": (packed({"spawn.json": b"{"}), "manifest", "not JSON"),
    "manifest that is no text": (packed({"spawn.json": b"\xff\xfe\0"}), "manifest", "not JSON"),
    "manifest that is no object": (packed({"spawn.json": b"null"}), "manifest", "JSON object"),
    "unknown kind": (manifest(kind="ruby"), "kind", "one of static"),
    "title that is no text": (manifest(kind="static", title=7), "title", "text"),
    "start that is no list": (manifest(kind="static", start="rm"), "start", "list"),
    "static without a page": (packed({"spawn.json": MANIFEST}), "bundle", "index.html"),
    "start without its script": (
        manifest(kind="python", start=["python", "main.py"]), "start", "no such file"
    ),
}  # fmt: skip
