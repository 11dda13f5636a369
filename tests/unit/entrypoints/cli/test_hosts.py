"""How hosts are shown, what a cloud-init holds, and what is refused before anybody connects."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from orchestrator import config
from orchestrator.domain import errors
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli.arguments import parse_labels
from orchestrator.entrypoints.cli.checks.pool import check_host
from orchestrator.entrypoints.cli.commands.hosts import inspection, joining, setup, targets
from orchestrator.entrypoints.cli.findings import Level
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import hosts
from orchestrator.entrypoints.cli.views.pool import summary
from tests.fakes.cli import answers

HOST = {**answers.REMOTE, "sandboxes": [{**answers.SANDBOX, "image": "i:1"}]}


def rendered(part: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(width: int = 80, **changes: Any) -> str:
    """The line of a host."""
    table = hosts.hosts_table([{**answers.REMOTE, **changes}], wide=width > 100)
    text = rendered(table, width)
    assert max(map(len, text.splitlines())) <= width
    return text.splitlines()[2]


def test_a_list_of_hosts_fits_80_columns_and_has_addresses_and_labels_where_it_is_wide() -> None:
    assert row().split()[:7] == ["paris-1", "up", "eu", "4/32", "2", "28", "8.2"]
    assert "ssh://root@203.0.113.7:2222" in row(160)
    assert "disk=ssd gpu" in row(160)


@pytest.mark.parametrize(
    ("link", "text"),
    [
        (None, " - "),
        ({"up": False, "docker": False, "channels": 0, "rtt_ms": None, "reconnects": 3}, "down"),
        ({"up": True, "docker": False, "channels": 0, "rtt_ms": 1.0, "reconnects": 3}, "no Docker"),
        ({"up": True, "docker": True, "channels": 0, "rtt_ms": None, "reconnects": 0}, " up "),
    ],
)
def test_a_link_is_said_in_a_word(link: Any, text: str) -> None:
    assert text in row(link=link)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"cordoned": True}, "cordoned"),
        ({"draining": True, "drain": "move"}, "draining"),
        ({"draining": True, "drain": "wait"}, "draining, its sessions may end"),
        ({"draining": True, "drain": "leave"}, "leaving"),
        ({"shortage": "disk: 0.5 GiB free"}, "disk: 0.5 GiB free"),
        ({"cordoned": True, "reason": "no\x1b[2J answer"}, "cordoned; no answer"),
    ],
)
def test_a_host_that_takes_nothing_says_why_and_has_no_free_slots(
    changes: dict[str, Any], note: str
) -> None:
    host = {**answers.REMOTE, **changes}
    assert hosts.note(host) == note
    assert row(**{**changes, "state": "suspect"}).split()[5] == "-"


def test_the_story_of_a_host_has_its_link_and_its_sandboxes() -> None:
    text = "".join(rendered(part, 80) for part in hosts.details(HOST))
    assert "8.2 ms, 5 channels open, 1 reconnect" in text
    assert "sbx_cccccccc  claimed" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_pool_that_is_short_of_free_slots_says_so() -> None:
    short = {**answers.POOL, "free_slots": 1, "free_slots_short": 1}
    text = dict(summary(short))["slots"]
    assert "1 fewer than the 2 that are to stay free" in str(text)


def test_many_hosts_are_counted_by_state() -> None:
    many = [{**answers.REMOTE, "state": "lost" if n == 0 else "up"} for n in range(40)]
    text = dict(summary({**answers.POOL, "hosts": many}))["hosts"]
    assert str(text) == "39 up, 1 lost"


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, Level.OK),
        ({"cordoned": True}, Level.OK),
        ({"state": "joining", "reason": "the image is on its way"}, Level.WARNING),
        ({"shortage": "disk: 0.5 GiB free"}, Level.WARNING),
        ({"changes_cpus": None}, Level.OK),
        ({"changes_cpus": False}, Level.WARNING),
        ({"state": "suspect"}, Level.PROBLEM),
        ({"state": "lost"}, Level.PROBLEM),
    ],
)
def test_doctor_has_a_line_for_each_host(changes: dict[str, Any], level: Level) -> None:
    finding = check_host({**answers.REMOTE, **changes})
    assert finding.level is level
    assert (level is Level.OK) == (finding.fix == "")


def test_labels_are_words_with_or_without_a_value() -> None:
    assert parse_labels(["gpu", "disk=ssd", "disk=ssd"]) == {"disk": "ssd", "gpu": ""}
    for wrong in (["=x"], ["a b=c"], ["disk=ssd", "disk=hdd"], ["a=b=c"]):
        with pytest.raises(errors.InvalidInput):
            parse_labels(wrong)


def test_a_machines_name_names_its_host_and_a_number_does_not() -> None:
    def name_of(host: str) -> str:
        return joining._default_name(HostAddress(user="root", host=host))

    assert name_of("Paris-1.example.org") == "paris-1"
    for nameless in ("203.0.113.7", "2001:db8::7"):
        with pytest.raises(Problem) as caught:
            name_of(nameless)
        assert caught.value.code == "name_needed"


def test_apps_are_published_on_the_machines_own_address_unless_another_is_given() -> None:
    address = HostAddress(user="root", host="203.0.113.7")
    assert inspection.choose_publish_address("", address) == "203.0.113.7"
    assert inspection.choose_publish_address("10.0.0.5", address) == "10.0.0.5"
    with pytest.raises(errors.InvalidInput):
        inspection.choose_publish_address("0.0.0.0", address)
    with pytest.raises(Problem) as caught:
        inspection.choose_publish_address("", HostAddress(user="root", host="::1"))
    assert caught.value.code == "publish_address_needed"


def test_a_cloud_init_runs_the_script_that_a_dry_run_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o711)
    monkeypatch.setenv("SPAWN_STATE_DIR", str(tmp_path))
    setup.bootstrap("ssh://root@203.0.113.7", dry_run=True)
    script = capsys.readouterr().out
    user_data = yaml.safe_load(setup.render_cloud_init(config.make(state_dir=tmp_path), "paris-1"))
    (file,) = user_data["write_files"]
    assert file["content"] == script
    assert user_data["runcmd"] == [[file["path"]]]
    assert user_data["hostname"] == "paris-1"
    key = (tmp_path / "ssh" / "id_ed25519").read_text()
    assert "PRIVATE" in key
    assert "PRIVATE" not in script
    assert "hostname" not in yaml.safe_load(
        setup.render_cloud_init(config.make(state_dir=tmp_path), "")
    )


def test_an_unknown_host_is_refused_with_the_names_of_the_hosts_in_the_inventory(
    tmp_path: Path,
) -> None:
    (tmp_path / "inventory.json").write_text('{"hosts": []}')
    with pytest.raises(Problem) as caught:
        targets.find_in_inventory(config.make(state_dir=tmp_path), "paris-1")
    assert caught.value.code == "host_unknown"
