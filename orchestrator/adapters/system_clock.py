"""ports.Clock: the application's time. It runs on evenly when the machine's clock is set.

It counts from an epoch by CLOCK_BOOTTIME, which nobody can set and which goes on while the machine
sleeps. The epoch is decided once per start of SpawnAI, while none of its processes runs. It stands
in a file of the state folder, where each process reads it. So a process that starts after a jump
has the same time as the others. ADR 0032 has the reasons.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.domain import errors
from orchestrator.slim import structlog

TOLERANCE_S = 2.0  # clocks that differ by less are equal: a leap second is no jump
_FOLLOWED_MAX_S = 600.0  # a start follows a clock that is ahead by this much, whatever it is
_CONFIRMED_AFTER_S = 3600.0  # a clock that has run evenly for this long is believed
_SAVE_EVERY_S = 10.0
_TIMEX_BYTES = 512  # more than struct timex has; all zero, adjtimex() only reads
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised

_libc = ctypes.CDLL(None, use_errno=True)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """How the application's time is counted in one boot of the machine. Seconds since 1970."""

    boot: str  # the id of the boot
    epoch_s: float  # the application's time at that boot
    seen_s: float  # the application's time when this was noted
    offset_s: float  # the machine's clock minus the application's time, then
    offset_since_s: float  # since when they have differed by that much
    owed_s: float  # for how long the machine was off, if nothing has confirmed it yet


def _is_synchronised() -> bool:
    """Whether the kernel says that somebody keeps the machine's clock right, such as an NTP
    client."""
    state: int = _libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR


@dataclass(frozen=True, kw_only=True)
class MachineClocks:
    """The clocks of this machine. Tests have their own."""

    boot: Callable[[], str] = lambda: (
        Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    )
    since_boot_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    wall_s: Callable[[], float] = time.time
    is_synchronised: Callable[[], bool] = _is_synchronised


class SystemClock:
    """Returns timezone-aware UTC. Threads may share it."""

    def __init__(self, path: Path, machine: MachineClocks | None = None) -> None:
        """`path`: the file of the timeline."""
        self._path = path
        self._machine = machine or MachineClocks()
        self._timeline: Timeline | None = None
        self._saved_s = 0.0  # the application's time when this process saved last

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    def offset(self) -> timedelta:
        return timedelta(seconds=_difference_s(self._machine.wall_s() - self._now_s()))

    def jumped_at(self) -> datetime | None:
        saved = self._read()
        if saved is None or not saved.offset_s:
            return None
        return datetime.fromtimestamp(saved.offset_since_s, UTC)

    def start(self) -> None:
        """Decide the epoch for this start of SpawnAI: before any other process runs.

        Raises errors.StorageUnavailable.
        """
        self._timeline = self._begin(self._read())
        self._save(self._timeline)

    def look(self) -> None:
        """Compare the clocks, log a jump, and note the time for the next start.

        Only the daemon calls it. Raises errors.StorageUnavailable: the next look tries again.
        """
        before = self._current()
        after = look(before, now_s=self._now_s(), wall_s=self._machine.wall_s())
        jump_s = after.offset_s - before.offset_s
        if jump_s:
            self._timeline = after
            log.warning("clock_jumped", seconds=jump_s, ahead_s=after.offset_s)
        is_due = jump_s or after.seen_s - self._saved_s >= _SAVE_EVERY_S
        if is_due and self._is_still_counted_so(after):
            self._save(after)

    def _now_s(self) -> float:
        return self._current().epoch_s + self._machine.since_boot_s()

    def _current(self) -> Timeline:
        if self._timeline is None:
            saved = self._read()
            if saved is None or saved.boot != self._machine.boot():
                saved = self._begin(saved)  # `start` was not called: no other process shares it
            self._timeline = saved
        return self._timeline

    def _is_still_counted_so(self, timeline: Timeline) -> bool:
        """False if SpawnAI was started again: this process is about to end, and the file is the
        new one's."""
        saved = self._read()
        return saved is None or (saved.boot, saved.epoch_s) == (timeline.boot, timeline.epoch_s)

    def _begin(self, last: Timeline | None) -> Timeline:
        machine = self._machine
        return begin(
            last,
            boot=machine.boot(),
            since_boot_s=machine.since_boot_s(),
            wall_s=machine.wall_s(),
            is_trusted=machine.is_synchronised(),
        )

    def _read(self) -> Timeline | None:
        """The timeline that was saved last. None if there is none, or if a power cut tore it."""
        with errors.storage("read the clock's file"):
            try:
                return Timeline(**json.loads(self._path.read_text("utf-8")))
            except (FileNotFoundError, ValueError, TypeError):
                return None

    def _save(self, timeline: Timeline) -> None:
        draft = self._path.with_suffix(".new")
        with errors.storage("note the time"):
            draft.write_text(json.dumps(asdict(timeline)), "utf-8")
            draft.replace(self._path)
        self._saved_s = timeline.seen_s


def begin(
    last: Timeline | None, *, boot: str, since_boot_s: float, wall_s: float, is_trusted: bool
) -> Timeline:
    """The timeline of a start, from the one before it. The application's time never goes back.

    What counts is the time that has passed, not what the machine's clock shows. While the machine
    was off, only that clock knows how much that was. A long time counts only on the word of a clock
    that something confirms: if it is wrong, all that is kept for a while would be deleted.
    """
    if last is None:
        return _timeline(boot, wall_s, since_boot_s=since_boot_s, wall_s=wall_s)
    went_on = last.boot == boot
    now_s = went_on_s = last.epoch_s + since_boot_s if went_on else last.seen_s
    owed_s = last.owed_s
    if is_trusted or last.seen_s - last.offset_since_s >= _CONFIRMED_AFTER_S:
        now_s += min(owed_s, max(0.0, wall_s - went_on_s))
        owed_s = 0.0
    off_s = 0.0 if went_on else max(0.0, wall_s - (last.seen_s + last.offset_s))
    if is_trusted or off_s <= _FOLLOWED_MAX_S:
        now_s += off_s
    else:
        owed_s += off_s
    if 0 < wall_s - now_s <= _FOLLOWED_MAX_S:
        now_s = wall_s
    timeline = _timeline(boot, now_s, since_boot_s=since_boot_s, wall_s=wall_s, owed_s=owed_s)
    if now_s == went_on_s and abs(timeline.offset_s - last.offset_s) < TOLERANCE_S:
        return replace(timeline, offset_since_s=last.offset_since_s)
    return timeline


def _timeline(
    boot: str, now_s: float, *, since_boot_s: float, wall_s: float, owed_s: float = 0.0
) -> Timeline:
    return Timeline(
        boot=boot,
        epoch_s=now_s - since_boot_s,
        seen_s=now_s,
        offset_s=_difference_s(wall_s - now_s),
        offset_since_s=now_s,
        owed_s=owed_s,
    )


def look(timeline: Timeline, *, now_s: float, wall_s: float) -> Timeline:
    """The timeline after a comparison of the application's time with the machine's clock."""
    offset_s = _difference_s(wall_s - now_s)
    if abs(offset_s - timeline.offset_s) < TOLERANCE_S:
        return replace(timeline, seen_s=now_s)
    # A clock that jumps was wrong, or is now: nothing that it told counts.
    return replace(timeline, seen_s=now_s, offset_s=offset_s, offset_since_s=now_s, owed_s=0.0)


def _difference_s(difference_s: float) -> float:
    """In whole seconds, so that a difference that stays the same has the same value each time."""
    return 0.0 if abs(difference_s) < TOLERANCE_S else float(round(difference_s))
