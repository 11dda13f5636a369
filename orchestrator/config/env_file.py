"""The file spawn.env, before its lines are read: whether it is text at all."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator import small_files
from orchestrator.domain import errors

ENCODING = "utf-8-sig"  # editors of other systems put a mark before the first line
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def check(path: Path) -> None:
    """Raises errors.InvalidInput (invalid_settings) if the file is there, but is no readable text.

    The error names its first bad line, and quotes nothing: the file has secrets.
    """
    try:
        data = small_files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unusable(f"{path} can't be read ({error.strerror})") from error
    try:
        text = data.decode(ENCODING)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unusable(f"line {line} of {path} is no text in UTF-8") from error
    bad = _CONTROL.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise _unusable(f"line {line} of {path} has the control character {ord(bad[0]):#04x}")


def _unusable(reason: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{reason}: write lines NAME=VALUE there that our user may read, or remove the file",
        code="invalid_settings",
        field="spawn.env",
    )
