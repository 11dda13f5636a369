"""The application's time runs on evenly, whatever somebody does to the machine's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.system_clock import MachineClocks, SystemClock

HOUR_S, DAY_S = 3600.0, 86400.0
JUMPS = pytest.mark.parametrize("jump_s", [180.0, -2 * HOUR_S, 40 * DAY_S])


@dataclass
class Machine:
    """The clocks of a machine, as a test sets them. Whole seconds, so that sums are exact."""

    path: Path
    boot: str = "boot-1"
    since_boot_s: float = 1000.0
    wall_s: float = 1_800_000_000.0
    is_synchronised: bool = False

    def process(self) -> SystemClock:
        """The clock of a new process."""
        clocks = MachineClocks(
            boot=lambda: self.boot,
            since_boot_s=lambda: self.since_boot_s,
            wall_s=lambda: self.wall_s,
            is_synchronised=lambda: self.is_synchronised,
        )
        return SystemClock(self.path, clocks)

    def start(self) -> SystemClock:
        """Start SpawnAI: the clock of its daemon."""
        self.process().start()
        return self.process()

    def advance(self, seconds: float, daemon: SystemClock | None = None) -> None:
        """Let time pass. The daemon, if it runs, looks each minute."""
        for passed_s in [60.0] * int(seconds // 60) + [seconds % 60]:
            self.since_boot_s += passed_s
            self.wall_s += passed_s
            if daemon is not None:
                daemon.look()

    def reboot(self, off_s: float, wall_error_s: float = 0.0) -> None:
        """Switch the machine off for a time. Its clock comes back wrong by `wall_error_s`."""
        self.boot, self.since_boot_s = f"{self.boot}+", 20.0
        self.wall_s += off_s + wall_error_s


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "clock")


def time_of(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_it_starts_with_the_machines_clock(machine: Machine) -> None:
    clock = machine.start()
    assert clock.now() == time_of(machine.wall_s)
    assert clock.offset() == timedelta()


@JUMPS
def test_a_jump_moves_nothing(machine: Machine, jump_s: float) -> None:
    clock = machine.start()
    before = clock.now()
    machine.wall_s += jump_s
    machine.advance(5)
    assert clock.now() - before == timedelta(seconds=5)
    assert clock.now() + clock.offset() == time_of(machine.wall_s)


@JUMPS
def test_a_process_that_starts_after_a_jump_has_the_time_of_the_others(
    machine: Machine, jump_s: float
) -> None:
    clock = machine.start()
    machine.wall_s += jump_s
    assert machine.process().now() == clock.now()


def test_a_clock_that_is_set_right_again_leaves_no_offset(machine: Machine) -> None:
    clock = machine.start()
    machine.wall_s += 180
    clock.look()
    machine.wall_s -= 180
    clock.look()
    assert clock.offset() == timedelta()


def test_a_second_more_or_less_is_no_jump(machine: Machine) -> None:
    clock = machine.start()
    machine.wall_s -= 1
    assert clock.offset() == timedelta()


def test_the_offset_of_a_jump_does_not_flicker(machine: Machine) -> None:
    clock = machine.start()
    machine.wall_s += 180.01
    offset = clock.offset()
    machine.wall_s += 0.02
    assert clock.offset() == offset


@JUMPS
@pytest.mark.parametrize("is_synchronised", [False, True])
def test_a_start_is_no_reason_to_believe_that_time_has_passed(
    machine: Machine, jump_s: float, is_synchronised: bool
) -> None:
    clock = machine.start()
    machine.wall_s += jump_s
    machine.is_synchronised = is_synchronised
    machine.advance(2 * HOUR_S, clock)
    before = clock.now()
    after = machine.start().now()
    assert timedelta() <= after - before <= timedelta(minutes=10)


def test_after_a_jump_a_time_off_counts_as_before(machine: Machine) -> None:
    clock = machine.start()
    machine.wall_s += 40 * DAY_S
    machine.advance(60, clock)
    before = clock.now()
    machine.reboot(off_s=300)
    assert timedelta(minutes=5) <= machine.start().now() - before < timedelta(minutes=7)


def test_a_time_off_that_a_jump_disproves_never_counts(machine: Machine) -> None:
    before = machine.start().now()
    machine.reboot(off_s=60, wall_error_s=40 * DAY_S)
    daemon = machine.start()
    machine.wall_s -= 40 * DAY_S
    machine.advance(2 * HOUR_S, daemon)
    assert machine.start().now() - before < timedelta(hours=3)


def test_since_when_the_clocks_differ_is_known(machine: Machine) -> None:
    daemon = machine.start()
    assert daemon.jumped_at() is None
    machine.advance(60, daemon)
    machine.wall_s += 2 * HOUR_S
    daemon.look()
    jumped_at = machine.process().now()
    machine.advance(60, daemon)
    assert machine.process().jumped_at() == jumped_at
    assert machine.start().jumped_at() == jumped_at


def test_the_time_when_the_machine_was_off_for_minutes_counts(machine: Machine) -> None:
    machine.start()
    machine.reboot(off_s=300)
    assert machine.start().now() == time_of(machine.wall_s)


@pytest.mark.parametrize("off_s", [60.0, 40 * DAY_S])
def test_a_synchronised_clock_is_followed_however_long_the_machine_was_off(
    machine: Machine, off_s: float
) -> None:
    machine.start()
    machine.reboot(off_s=off_s)
    machine.is_synchronised = True
    assert machine.start().now() == time_of(machine.wall_s)


def test_forty_days_on_the_word_of_a_clock_that_nothing_confirms_do_not_count(
    machine: Machine,
) -> None:
    before = machine.start().now()
    machine.reboot(off_s=60, wall_error_s=40 * DAY_S)
    clock = machine.start()
    assert clock.now() - before < timedelta(minutes=2)
    assert clock.now() + clock.offset() == time_of(machine.wall_s)


def test_what_stays_for_an_hour_counts_from_the_next_start_on(machine: Machine) -> None:
    """The machine really was off for 40 days, and has no source of time."""
    machine.start()
    machine.reboot(off_s=40 * DAY_S)
    daemon = machine.start()
    machine.advance(2 * HOUR_S, daemon)
    assert machine.start().now() == time_of(machine.wall_s)


def test_what_stays_for_less_does_not(machine: Machine) -> None:
    machine.start()
    machine.reboot(off_s=40 * DAY_S)
    daemon = machine.start()
    machine.advance(HOUR_S / 2, daemon)
    assert machine.start().now() < time_of(machine.wall_s - 39 * DAY_S)


def test_each_long_time_off_needs_its_own_confirmation(machine: Machine) -> None:
    machine.start()
    machine.reboot(off_s=10 * DAY_S)
    machine.advance(2 * HOUR_S, machine.start())
    confirmed = time_of(machine.wall_s)
    machine.reboot(off_s=40 * DAY_S)
    clock = machine.start()
    assert timedelta() <= clock.now() - confirmed < timedelta(minutes=2)


def test_the_time_never_goes_back_at_a_start(machine: Machine) -> None:
    daemon = machine.start()
    machine.advance(60, daemon)
    before = daemon.now()
    machine.reboot(off_s=60, wall_error_s=-2 * HOUR_S)
    clock = machine.start()
    assert clock.now() >= before
    assert clock.now() + clock.offset() == time_of(machine.wall_s)


def test_a_torn_file_counts_as_none(machine: Machine) -> None:
    machine.start()
    machine.path.write_text('{"boot": "bo')
    assert machine.start().now() == time_of(machine.wall_s)


def test_a_daemon_that_outlives_its_supervisor_leaves_the_next_starts_time_alone(
    machine: Machine,
) -> None:
    daemon = machine.start()
    machine.wall_s += 300  # a start follows so little
    clock = machine.start()
    machine.advance(60, daemon)
    assert machine.process().now() == clock.now() == time_of(machine.wall_s)


def test_the_clocks_of_this_machine_agree(tmp_path: Path) -> None:
    clock = SystemClock(tmp_path / "clock")
    clock.start()
    clock.look()
    another_process = SystemClock(tmp_path / "clock")
    before = clock.now()
    assert timedelta() <= another_process.now() - before < timedelta(minutes=1)
    assert another_process.offset() == timedelta()
