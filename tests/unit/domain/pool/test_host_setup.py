"""The steps that make a machine fit, and the script of them. Nothing here changes this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.domain.pool import host_setup
from orchestrator.domain.pool.host_setup import Step, Wanted

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXcUZY3bW4XG0yDHbHbkKHgnsTOMbeNWPlsLfLeSpVw spawnai-x"
ROOT = Wanted(user="root", public_key=KEY, agent_folder="/run/spawnai-x")
DEBIAN = Wanted(user="debian", public_key=KEY, agent_folder="/run/spawnai-x")


def sh(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", *arguments], input=script, capture_output=True, text=True, timeout=30, check=False
    )


def prologue_for(user_id: int) -> str:
    """The script's own machinery, told that we are this user."""
    whole = host_setup.script([])
    assert whole.count('"$(id -u)"') == 1
    return whole.replace('"$(id -u)"', str(user_id))


def run(steps: list[Step], *, user_id: int = 0) -> subprocess.CompletedProcess[str]:
    return sh(prologue_for(user_id) + host_setup.script(steps).removeprefix(host_setup.script([])))


def step(title: str, check: str, apply: str, *, required: bool = True) -> Step:
    return Step(title=title, check=check, apply=apply, required=required)


@pytest.mark.parametrize("wanted", [ROOT, DEBIAN], ids=lambda one: one.user)
def test_every_script_is_one_that_a_plain_shell_understands(wanted: Wanted) -> None:
    steps = host_setup.steps(wanted)
    for text in (one for each in steps for one in (each.check, each.apply)):
        assert sh(text, "-n").stderr == ""
    assert sh(host_setup.script(steps), "-n").stderr == ""


def test_a_user_who_is_not_root_gets_into_the_group_of_docker() -> None:
    titles = [one.title for one in host_setup.steps(ROOT)]
    more = [one.title for one in host_setup.steps(DEBIAN) if one.title not in titles]
    assert more == ["debian may use Docker", "Our key lets us in as debian"]


def test_nothing_that_an_operator_wrote_is_written_over() -> None:
    """Every file is either ours by its name, only written where there is none, or appended to."""
    for one in host_setup.steps(DEBIAN):
        for path in re.findall(r"[^>]>([^\s&>;]+)", one.apply):
            ours = "spawnai" in path or path == "/dev/null"
            assert ours or f"[ ! -e {path} ] ||" in one.check, (one.title, path)


def test_sshd_is_never_reloaded_with_what_it_would_not_start_with() -> None:
    (sshd,) = [one for one in host_setup.steps(ROOT) if one.title.startswith("sshd")]
    tested, reloaded = sshd.apply.index("sshd -t;"), sshd.apply.index("reload-or-restart")
    assert tested < reloaded
    assert f"rm -f {host_setup.SSHD_DROP_IN}" in sshd.apply[:reloaded]


def test_the_script_does_what_is_missing_and_leaves_what_is_there(tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.write_text("as it was")
    steps = [
        step("one", f"[ -e {there} ]", f"echo new >{there}"),
        step("two", f"[ -e {missing} ]", f"echo new >{missing}"),
    ]
    first, second = run(steps), run(steps)
    assert first.stdout == "already  one\ndone     two\n"
    assert second.stdout == "already  one\nalready  two\n"
    assert there.read_text() == "as it was"
    assert (first.returncode, second.returncode) == (0, 0)


def test_the_script_stops_where_a_required_step_fails(tmp_path: Path) -> None:
    later = step("later", "false", f"touch {tmp_path}/later")
    for broken in (
        step("fails", "false", "echo why >&2; false; true"),
        step("seems to work", "false", "true"),
    ):
        done = run([broken, later])
        assert done.returncode == 1
        assert f"failed   {broken.title}\n" in done.stderr
        assert not (tmp_path / "later").exists()


def test_a_step_that_is_only_good_to_have_may_fail() -> None:
    steps = [step("hint", "false", "false", required=False), step("next", "true", "false")]
    done = run(steps)
    assert (done.returncode, done.stdout) == (0, "already  next\n")
    assert "failed   hint" in done.stderr


def test_what_a_step_runs_can_not_eat_the_rest_of_a_script_that_comes_by_a_pipe() -> None:
    done = run([step("greedy", "cat; false", "cat"), step("next", "true", "false")])
    assert "failed   greedy" in done.stderr
    greedy = step("greedy", "cat", "cat")
    assert run([greedy, step("next", "true", "false")]).stdout.endswith("already  next\n")


def test_the_script_wants_root() -> None:
    done = run([step("one", "true", "true")], user_id=1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert "as root" in done.stderr


def test_the_key_is_appended_once_also_after_a_line_without_an_end(tmp_path: Path) -> None:
    """The step for authorized_keys, with the home of its user put elsewhere."""
    (key,) = [one for one in host_setup.steps(ROOT) if one.title.startswith("Our key")]
    home = '"$(getent passwd root | cut -d: -f6)/.ssh/authorized_keys"'
    keys = tmp_path / ".ssh" / "authorized_keys"

    def moved(text: str) -> str:
        assert home in text
        # Whom files belong to is left out: the test may be anybody's.
        text = text.replace(home, f'"{keys}"').replace("-o root ", "")
        return text.replace('chown root "$keys"', ":")

    here = step("key", moved(key.check), moved(key.apply))
    assert run([here]).stdout == "done     key\n"
    assert keys.read_text() == KEY + "\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    keys.write_text("ssh-rsa AAAA somebody")
    assert run([here]).stdout == "done     key\n"
    assert keys.read_text() == f"ssh-rsa AAAA somebody\n{KEY}\n"
    assert run([here]).stdout == "already  key\n"
