"""The steps that set up a host, and their script. No test changes this machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.domain.pool import host_setup
from orchestrator.domain.pool.host_setup import SetupStep, SetupTarget

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXcUZY3bW4XG0yDHbHbkKHgnsTOMbeNWPlsLfLeSpVw spawnai-x"
ROOT = SetupTarget(user="root", public_key=KEY, agent_folder="/run/spawnai-x")
DEBIAN = SetupTarget(user="debian", public_key=KEY, agent_folder="/run/spawnai-x")


def sh(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", *arguments], input=script, capture_output=True, text=True, timeout=30, check=False
    )


def prologue_for(user_id: int) -> str:
    """The prologue of the script, as if we were this user."""
    prologue = host_setup.render_script([])
    assert prologue.count('"$(id -u)"') == 1
    return prologue.replace('"$(id -u)"', str(user_id))


def run(steps: list[SetupStep], *, user_id: int = 0) -> subprocess.CompletedProcess[str]:
    return sh(
        prologue_for(user_id)
        + host_setup.render_script(steps).removeprefix(host_setup.render_script([]))
    )


def step(title: str, check: str, apply: str, *, required: bool = True) -> SetupStep:
    return SetupStep(title=title, check=check, apply=apply, required=required)


@pytest.mark.parametrize("target", [ROOT, DEBIAN], ids=lambda target: target.user)
def test_a_plain_shell_understands_every_script(target: SetupTarget) -> None:
    steps = host_setup.steps(target)
    for text in (script for step in steps for script in (step.check, step.apply)):
        assert sh(text, "-n").stderr == ""
    assert sh(host_setup.render_script(steps), "-n").stderr == ""


def test_a_user_who_is_not_root_gets_into_the_group_of_docker() -> None:
    titles = [step.title for step in host_setup.steps(ROOT)]
    more = [step.title for step in host_setup.steps(DEBIAN) if step.title not in titles]
    assert more == ["debian may use Docker", "Our key lets us in as debian"]


def test_no_file_of_an_operator_is_overwritten() -> None:
    """Every file is either ours by its name, only written where there is none, or appended to."""
    for step in host_setup.steps(DEBIAN):
        for path in re.findall(r"[^>]>([^\s&>;]+)", step.apply):
            is_ours = "spawnai" in path or path == "/dev/null"
            assert is_ours or f"[ ! -e {path} ] ||" in step.check, (step.title, path)


def test_sshd_is_never_reloaded_with_settings_it_would_not_start_with() -> None:
    (sshd,) = [step for step in host_setup.steps(ROOT) if step.title.startswith("sshd")]
    tested, reloaded = sshd.apply.index("sshd -t;"), sshd.apply.index("reload-or-restart")
    assert tested < reloaded
    assert f"rm -f {host_setup.SSHD_DROP_IN}" in sshd.apply[:reloaded]


def test_the_script_applies_what_is_missing_and_leaves_the_rest(tmp_path: Path) -> None:
    existing, missing = tmp_path / "existing", tmp_path / "missing"
    existing.write_text("as it was")
    steps = [
        step("one", f"[ -e {existing} ]", f"echo new >{existing}"),
        step("two", f"[ -e {missing} ]", f"echo new >{missing}"),
    ]
    first, second = run(steps), run(steps)
    assert first.stdout == "already  one\ndone     two\n"
    assert second.stdout == "already  one\nalready  two\n"
    assert existing.read_text() == "as it was"
    assert (first.returncode, second.returncode) == (0, 0)


def test_the_script_stops_where_a_required_step_fails(tmp_path: Path) -> None:
    later = step("later", "false", f"touch {tmp_path}/later")
    for broken in (
        step("fails", "false", "echo reason >&2; false; true"),
        step("seems to work", "false", "true"),
    ):
        result = run([broken, later])
        assert result.returncode == 1
        assert f"failed   {broken.title}\n" in result.stderr
        assert not (tmp_path / "later").exists()


def test_an_optional_step_may_fail() -> None:
    steps = [step("hint", "false", "false", required=False), step("next", "true", "false")]
    result = run(steps)
    assert (result.returncode, result.stdout) == (0, "already  next\n")
    assert "failed   hint" in result.stderr


def test_a_step_can_not_read_the_rest_of_a_script_that_is_piped_in() -> None:
    result = run([step("greedy", "cat; false", "cat"), step("next", "true", "false")])
    assert "failed   greedy" in result.stderr
    greedy = step("greedy", "cat", "cat")
    assert run([greedy, step("next", "true", "false")]).stdout.endswith("already  next\n")


def test_the_script_needs_root() -> None:
    result = run([step("one", "true", "true")], user_id=1000)
    assert (result.returncode, result.stdout) == (1, "")
    assert "as root" in result.stderr


def test_the_key_is_appended_once_also_after_a_line_without_an_end(tmp_path: Path) -> None:
    """The step for authorized_keys, with the home of its user in another folder."""
    (key,) = [step for step in host_setup.steps(ROOT) if step.title.startswith("Our key")]
    home = '"$(getent passwd root | cut -d: -f6)/.ssh/authorized_keys"'
    keys = tmp_path / ".ssh" / "authorized_keys"

    def moved(text: str) -> str:
        assert home in text
        # The owner of files is left out: any user may run the test.
        text = text.replace(home, f'"{keys}"').replace("-o root ", "")
        return text.replace('chown root "$keys"', ":")

    moved_key = step("key", moved(key.check), moved(key.apply))
    assert run([moved_key]).stdout == "done     key\n"
    assert keys.read_text() == KEY + "\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    keys.write_text("ssh-rsa AAAA somebody")
    assert run([moved_key]).stdout == "done     key\n"
    assert keys.read_text() == f"ssh-rsa AAAA somebody\n{KEY}\n"
    assert run([moved_key]).stdout == "already  key\n"
