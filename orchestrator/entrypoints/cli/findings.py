"""What a check finds, as data. Made by the modules in `checks`, printed by `views.findings`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"  # as it should be
    WARNING = "warning"  # works, but could be better
    PROBLEM = "problem"  # sessions fail, or sandboxes aren't isolated


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of a report."""

    name: str  # what was checked
    level: Level
    detail: str  # what was found
    fix: str = ""  # the exact thing to do; never empty for a problem
    code: str = ""  # stable, for programs; "" if no program has needed one yet


def ok(name: str, detail: str) -> Finding:
    return Finding(name=name, level=Level.OK, detail=detail)


def warning(name: str, detail: str, fix: str) -> Finding:
    return Finding(name=name, level=Level.WARNING, detail=detail, fix=fix)


def problem(name: str, detail: str, fix: str, code: str = "") -> Finding:
    return Finding(name=name, level=Level.PROBLEM, detail=detail, fix=fix, code=code)
