"""Programs in forks, and the keys that forks must not inherit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.memory import memory_of

KEY = "sk-" + "only-one-process-has-it"

ASIDE = """
import os, sys
from orchestrator.entrypoints import provider_keys
keys = provider_keys.set_aside()
print(os.environ["ANTHROPIC_API_KEY"], os.getpid(), os.get_inheritable(keys), flush=True)
sys.stdin.readline()
print(provider_keys.read(keys)["ANTHROPIC_API_KEY"])
"""

PROGRAM = """
import atexit, sys
from pathlib import Path

from orchestrator.domain import errors
def main():
    atexit.register(print, "ended well")
    print(*sys.argv[1:], Path("/proc/self/cmdline").read_bytes().split(bytes(1))[:4])
    if sys.argv[1] == "fails":
        raise SystemExit(7)
    if sys.argv[1] == "waits":
        try:
            raise OSError("the driver's own words")
        except OSError as error:
            raise errors.Temporary("the database is away", code="database_unavailable") from error
"""

SUPERVISOR = """
import sys
from orchestrator.entrypoints import forks

def run(argument):
    try:
        with open("log", "ab") as log:
            process = forks.start("program", [argument], log.fileno(), lambda: None)
        return process.wait()
    except forks.Forked as fork:
        raise SystemExit(fork.run())

forks.preload()
print(run("works"), run("fails"), run("waits"))
"""


def test_a_key_that_is_set_aside_is_in_no_memory_and_can_be_read() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ASIDE],
        env={"ANTHROPIC_API_KEY": KEY, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        shown, pid, is_inherited = process.stdout.readline().split()
        assert (shown, int(pid), is_inherited) == ("withheld", process.pid, "False")
        assert KEY.encode() not in memory_of(process.pid)
        assert process.communicate("go on\n", timeout=20)[0].strip() == KEY


def test_a_fork_ends_as_a_program_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    result = subprocess.run(
        [sys.executable, "-c", SUPERVISOR],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("0 7 1\n", "")
    name = [b"python", b"-m", b"program"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:5] == [
        f"works {[*name, b'works']}",
        "ended well",
        f"fails {[*name, b'fails']}",
        "ended well",
        f"waits {[*name, b'waits']}",
    ]
    line, end = lines[5:]  # one line about the error, without a traceback
    assert "process_gave_up" in line
    assert "the database is away" in line
    assert end == "ended well"


def test_the_templates_are_read_once_for_all_forks() -> None:
    code = (
        "from orchestrator import bootstrap; from orchestrator.entrypoints import forks;"
        " forks.preload(); count = bootstrap.read_catalog.cache_info; read = count().misses;"
        " print(read, len(bootstrap.read_catalog().list()), count().misses)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout == "1 10 1\n"


def test_what_forks_share_starts_no_thread() -> None:
    code = (
        "import threading; from orchestrator.entrypoints import forks; forks.preload();"
        " print(threading.active_count())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout == "1\n"
