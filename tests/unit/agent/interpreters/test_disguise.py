"""What an interpreter that has waited shows to its program: the same as one that was started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

INTERPRETERS = Path(__file__).parents[4] / "runtime-image" / "interpreters"
DEADLINE_S = 60.0
BEFORE = "import fastapi\n"
LOOK = """
import __main__, gc, os, signal, sys, threading
own = {name: type(value).__name__ for name, value in vars(__main__).items()}
print(own, __name__, __file__, __spec__ and __spec__.name, __builtins__)
print(sys.argv, sys.orig_argv[1:], sys.path, sys.flags, sys.warnoptions, sys._xoptions, sys.prefix)
print(os.getcwd(), os.environ, sorted(os.listdir("/proc/self/fd")), os.getsid(0) == os.getpid())
print([(each, signal.getsignal(each)) for each in signal.valid_signals()])
print(gc.get_threshold(), gc.isenabled(), threading.active_count(), sys.getrecursionlimit())
print(sys.excepthook is sys.__excepthook__, repr(sys.stdin.read()), sys.stdout.encoding)
print([name for name in sys.path_importer_cache if "interpreters" in name])
"""
RAISE = """
def fail():
    raise ValueError("wrong")
fail()
"""
LATE_THREAD = """
import threading
threading.Thread(target=lambda: print("late", threading.main_thread().join())).start()
1 / 0
"""


@dataclass(frozen=True)
class End:
    """How a program ended, and what it printed."""

    status: int
    output: str


def run(argv: Sequence[str], folder: Path, order: str = "") -> End:
    process = subprocess.run(
        argv,
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8"},
        input=order,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return End(process.returncode, process.stdout)


def run_in_waiting(launch: Sequence[str], command: Sequence[str], folder: Path) -> End:
    order = json.dumps({"command": command, "folder": str(folder)})
    return run(launch, folder, order + "\n")


def python(command: Sequence[str], folder: Path) -> End:
    return run_in_waiting(["python", str(INTERPRETERS / "python.py")], command, folder)


@pytest.mark.parametrize(
    "command",
    [
        ("python", "main.py"),
        ("python", "main.py", "--port", "3001", "ä"),
        ("python3", "-u", "main.py"),
        ("python", "inner/main.py"),
        ("python", "-m", "main", "one"),
        ("python", "-m", "inner"),
        ("python", "-X", "dev", "main.py"),
        ("python", "-m"),
        ("python", "missing.py"),
    ],
)
def test_a_program_finds_what_a_plain_start_would_show_it(
    tmp_path: Path, command: Sequence[str]
) -> None:
    (tmp_path / "inner").mkdir()
    for path in ("main.py", "inner/main.py", "inner/__main__.py"):
        (tmp_path / path).write_text(BEFORE + LOOK)

    plain = run(command, tmp_path)

    assert python(command, tmp_path) == plain
    assert run(command, tmp_path) == plain, "the look itself isn't stable"


@pytest.mark.parametrize(
    "end",
    [
        RAISE,
        "import sys; sys.exit(7)",
        "import sys; sys.exit('bye')",
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import sys; sys.excepthook = lambda *error: print('mine', error[0]); 1 / 0",
        LATE_THREAD,
        "import atexit; atexit.register(print, 'end')",
        "this is no Python",
        "print('\\0')",
    ],
)
def test_a_program_ends_as_after_a_plain_start(tmp_path: Path, end: str) -> None:
    (tmp_path / "main.py").write_text(BEFORE + end)
    command = ("python", "main.py")

    assert python(command, tmp_path) == run(command, tmp_path)


@pytest.mark.parametrize("path", ["calendar.py", "uuid/__init__.py", "inner/jinja2.py"])
def test_a_module_of_the_app_is_not_hidden_by_one_that_was_loaded_before(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("mine = True")
    name = path.removeprefix("inner/").partition(".")[0].partition("/")[0]
    source = f"import sys\nsys.path.insert(0, 'inner')\nimport {name} as module\nprint(module.mine)"
    (tmp_path / "main.py").write_text("# with fastapi\n" + source)

    assert python(("python", "main.py"), tmp_path) == End(0, "True\n")


def test_an_app_that_uses_none_of_the_modules_is_started_without_them(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import sys\nprint('fast' + 'api' in sys.modules)")

    assert python(("python", "main.py"), tmp_path) == End(0, "False\n")


def test_what_is_started_in_its_place_gets_the_signals_of_a_plain_start(tmp_path: Path) -> None:
    command = ("python", "-c", "print([row for row in open('/proc/self/status') if 'SigI' in row])")

    assert python(command, tmp_path) == run(command, tmp_path)


def test_a_python_without_an_order_ends_in_silence(tmp_path: Path) -> None:
    assert run(["python", str(INTERPRETERS / "python.py")], tmp_path) == End(0, "")


NODE_LOOK = """
console.log(process.argv, process.execArgv, process._preload_modules, process.cwd(), process.env);
console.log(typeof require === "undefined" || [require.main === module, module.id, module.paths,
  Object.keys(require.cache).filter((path) => !path.includes("node_modules"))]);
console.log(new Error("here").stack);
"""
NODE_CHILDREN = """
const { Worker, isMainThread } = require("node:worker_threads");
const { fork } = require("node:child_process");
if (process.argv[2] !== "child") {
  const source = `require("node:child_process").fork("main.js", ["child"])`;
  new Worker(source, { eval: true })
    .on("exit", () => fork("main.js", ["child"]));
} else console.log("child", process.argv, process.execArgv);
"""


def node(command: Sequence[str], folder: Path) -> End:
    launch = ["node", "--require", str(INTERPRETERS / "node.js"), "app"]
    return run_in_waiting(launch, command, folder)


@pytest.mark.parametrize(
    "command", [("node", "main.js", "one", "ä"), ("node", "./main"), ("node", "main.mjs")]
)
@pytest.mark.parametrize(
    "source", [NODE_LOOK, "throw new Error('wrong')", "process.exit(4)", "this is no script"]
)
def test_a_script_finds_what_a_plain_start_would_show_it(
    tmp_path: Path, command: Sequence[str], source: str
) -> None:
    for name in ("main.js", "main.mjs"):
        (tmp_path / name).write_text(source)

    assert node(command, tmp_path) == run(command, tmp_path)


def test_no_thread_or_fork_of_a_script_waits_for_an_order(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text(NODE_CHILDREN)
    command = ("node", "main.js")

    end = node(command, tmp_path)

    assert end == run(command, tmp_path)
    assert end.output.count("child") == 4


def test_a_node_without_an_order_ends_in_silence(tmp_path: Path) -> None:
    launch = ["node", "--require", str(INTERPRETERS / "node.js"), "app"]
    assert run(launch, tmp_path) == End(0, "")
