"""A Python that has loaded what most apps import, and waits to become one of them.

The agent starts it as a process of the app (`agent/apps/interpreters.py`): its user, limits,
environment, process group and output are the app's already. One line of JSON on standard input says
which command it is to be. Then it is what that command would have been, but for its command line in
/proc and one frame at the bottom of its stack. A command for which this isn't sure is executed in
its place: that is the plain start.
"""

import sys

LOADED_AT_START = frozenset(sys.modules)
OUR_FOLDER = sys.path.pop(0)

import builtins  # noqa: E402  # what is imported from here on, a plain start hasn't
import functools  # noqa: E402
import gc  # noqa: E402
import importlib  # noqa: E402
import importlib.machinery  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import runpy  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import NoReturn  # noqa: E402

PRELOADED = (
    "asyncio",
    "email.message",
    "http.server",
    "logging.config",
    "sqlite3",
    "uuid",
    "h11",
    "click",
    "anyio._backends._asyncio",
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.auto",
    "pydantic_core.core_schema",
    "pydantic.main",
    "starlette.applications",
    "starlette.staticfiles",
    "jinja2.ext",
    "jinja2.debug",
    "opentelemetry.trace",
    "opentelemetry.metrics",
    "starlette.templating",
    "fastapi.applications",
    "fastapi.staticfiles",
    "fastapi.templating",
    "fastapi.middleware.cors",
    "pydantic.v1",
    "werkzeug.serving",
    "flask",
    "encodings.idna",
)
"""In the order in which they are loaded: what others need comes before, so that no part is long."""
USERS = re.compile(
    rb"\b(?:fastapi|flask|gunicorn|httpx2|jinja2|pydantic|starlette|uvicorn|websockets|werkzeug)\b"
)
"""Words of a source that gains from them. All others start as fast without, and stay smaller."""
PAUSE_PER_PART = 3
PAUSE_LEAST_S = 0.05
PAUSE_OF_BUSY_S = 1.0
IDLE_TO_GO_ON = 0.3
"""Nobody waits for a part: rest thrice its time after it, and while others need the processors."""
SCRIPTS_FOLDER = "/opt/python/bin"
SCRIPTS = ("uvicorn", "flask", "gunicorn")
ORDER_MAX_BYTES = 64 * 1024
SOURCES_MAX = 500
SOURCE_MAX_BYTES = 1024 * 1024


def load_modules() -> None:
    """Load them part by part, until there is an order."""
    gc.disable()  # imports make hardly any garbage
    for name in PRELOADED:
        began_at_s = time.monotonic()
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112  # the app that needs it will say so
            continue
        if has_order(PAUSE_PER_PART * (time.monotonic() - began_at_s)):
            break
    gc.enable()


def has_order(pause_s: float) -> bool:
    """Wait until the pause is over and the host has time for us, or until there is an order."""
    pause_s = max(pause_s, PAUSE_LEAST_S)
    while True:
        idle, total = host_times()
        if select.select([0], [], [], pause_s)[0]:
            return True
        idle_now, total_now = host_times()
        if idle_now - idle >= IDLE_TO_GO_ON * (total_now - total):
            return False
        pause_s = PAUSE_OF_BUSY_S * (0.5 + os.urandom(1)[0] / 256)


def host_times() -> tuple[int, int]:
    """How long all processors of the host were idle, and altogether; see proc(5)."""
    try:
        with open("/proc/stat") as source:
            times = [int(word) for word in source.readline().split()[1:9]]
    except (OSError, ValueError):
        times = []
    return sum(times[3:5]), sum(times)


def wait_for_order() -> tuple[list[str], str]:
    """The command, and its folder. Ends the process if none comes."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, ORDER_MAX_BYTES)
        if not chunk:
            os._exit(0)
        line += chunk
    order = json.loads(line)
    return order["command"], order["folder"]


def become(command: list[str], folder: str) -> Callable[[], object]:
    """Make of this process what a plain start makes of it; return what runs the program."""
    os.chdir(folder)
    try:
        program = prepare(command, folder)
    except Exception:  # noqa: BLE001  # Python itself says best what is wrong
        program = None
    if program is None:
        start_plainly(command)
    sys.path_importer_cache.pop(os.path.join(OUR_FOLDER, "python.py"), None)
    return program


def prepare(command: list[str], folder: str) -> Callable[[], object] | None:
    """None if only a plain start does the same."""
    starter, *words = command
    if starter not in SCRIPTS and words[:1] == ["-u"]:  # the environment says the same
        words = words[1:]
    if not words or not is_safe(command, folder):
        return None
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__dict__.update(__annotations__={}, __builtins__=builtins)
    sys.orig_argv[:] = command
    sys.executable = os.path.join(SCRIPTS_FOLDER, starter)
    if starter in SCRIPTS:
        path = sys.executable
        with open(path) as source:
            sys.executable = source.readline().removeprefix("#!").strip()
        sys.orig_argv[:] = [sys.executable, path, *words]
        return script(main, path, words)
    if words[0] == "-m" and len(words) > 1:
        return module(words[1], words[2:])
    return script(main, words[0], words[1:]) if words[0].endswith(".py") else None


def script(main: types.ModuleType, path: str, words: list[str]) -> Callable[[], object]:
    """`python PATH WORDS`."""
    absolute = os.path.join(os.getcwd(), path.removeprefix("./"))
    with open(path, "rb") as source:
        code = compile(source.read(), absolute, "exec", dont_inherit=True)
    loader = importlib.machinery.SourceFileLoader("__main__", absolute)
    main.__dict__.update(__file__=absolute, __cached__=None, __loader__=loader)
    sys.argv[:] = [path, *words]
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    return functools.partial(exec, code, main.__dict__)


def module(name: str, words: list[str]) -> Callable[[], object]:
    """`python -m NAME WORDS`."""
    sys.argv[:] = ["-m", *words]
    sys.path.insert(0, os.getcwd())
    # The interpreter's own way to run one.
    return functools.partial(runpy._run_module_as_main, name)  # type: ignore[attr-defined]  # noqa: SLF001


def is_safe(command: list[str], folder: str) -> bool:
    """Whether the app uses modules that we have loaded, and has none of its own by their names."""
    gains = USERS.search(" ".join(command).encode()) is not None
    loaded = {name.partition(".")[0] for name in sys.modules.keys() - LOADED_AT_START}
    for count, path in enumerate(sources(folder)):
        parts = path.removeprefix(folder).split("/")
        if count == SOURCES_MAX or loaded & {parts[-1].partition(".")[0], *parts[-2:-1]}:
            return False
        if not gains:
            with open(path, "rb") as source:
                gains = USERS.search(source.read(SOURCE_MAX_BYTES)) is not None
    return gains


def sources(folder: str) -> Iterator[str]:
    """All files below the folder that Python could import."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".py", ".pyc")):
                yield os.path.join(parent, name)


def start_plainly(command: list[str]) -> NoReturn:
    """Become the command by exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  # the agent has checked the command
    finally:
        os._exit(127)


if __name__ == "__main__":
    load_modules()
    program = become(*wait_for_order())
    try:
        program()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # the interpreter's own end, without our frame
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
