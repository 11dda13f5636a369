"""Doctor's checks: what each finds, and that each problem comes with its fix."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.domain.pool import docker_facts
from orchestrator.entrypoints import children
from orchestrator.entrypoints.cli.checks import control_plane, engine, machine
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands import doctor
from orchestrator.entrypoints.cli.findings import Finding, Level


def settings(tmp_path: Path, **values: object) -> Settings:
    return config.make(**{"state_dir": tmp_path, "docker_url": "unix:///nowhere.sock", **values})  # type: ignore[arg-type]


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.name: finding.level for finding in findings}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_port_that_somebody_else_has_is_a_problem_that_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        loaded = settings(tmp_path, http_port=number, control_port=free_port())
        findings = list(machine.check_ports(loaded, running=False))
        while_running = list(machine.check_ports(loaded, running=True))
    assert [finding.level for finding in findings] == [Level.PROBLEM, Level.OK]
    assert "SPAWN_HTTP_PORT" in findings[0].fix
    assert str(number) in findings[0].fix
    assert [finding.level for finding in while_running] == [Level.OK] * 2


def test_an_address_that_this_machine_has_not_is_a_problem(tmp_path: Path) -> None:
    loaded = settings(tmp_path, http_address="192.0.2.1", http_port=free_port())
    first = next(iter(machine.check_ports(loaded, running=False)))
    assert first.level is Level.PROBLEM
    assert "SPAWN_HTTP_ADDRESS" in first.fix


@pytest.mark.parametrize("name", ["secret", "operator.key", "spawn.env"])
def test_a_secret_that_others_can_read_is_a_problem(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("x")
    path.chmod(0o600)
    tmp_path.chmod(0o711)
    assert name not in levels(list(machine.check_state_folder(settings(tmp_path))))
    path.chmod(0o644)
    findings = {finding.name: finding for finding in machine.check_state_folder(settings(tmp_path))}
    assert findings[name].level is Level.PROBLEM
    assert findings[name].fix == f"chmod 600 {path}"


def test_a_state_folder_that_others_can_list_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    findings = machine.check_state_folder(settings(tmp_path))
    assert next(iter(findings)).level is Level.PROBLEM


def test_a_path_too_long_for_a_socket_is_a_problem(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    findings = [
        finding
        for finding in machine.check_state_folder(settings(deep))
        if "too long" in finding.detail
    ]
    assert [finding.level for finding in findings] == [Level.PROBLEM]


def test_another_redis_makes_redis_server_unnecessary(tmp_path: Path) -> None:
    elsewhere = settings(tmp_path, redis_url="redis://cache:6379/0")
    assert [finding.name for finding in machine.check_programs(elsewhere)] == ["nginx"]
    names = [finding.name for finding in machine.check_programs(settings(tmp_path))]
    assert names == ["nginx", "redis-server"]
    assert children.find_program("sh").startswith("/")


def test_an_engine_that_does_not_answer_is_one_problem_with_its_remedy(tmp_path: Path) -> None:
    findings = list(engine.check_engine(settings(tmp_path), running=False))
    assert [finding.level for finding in findings] == [Level.PROBLEM]
    assert "SPAWN_DOCKER_URL" in findings[0].fix


@pytest.mark.parametrize(
    ("text", "version"),
    [("20.10.24+dfsg1", (20, 10)), ("29.1.3", (29, 1)), ("19.03.15", (19, 3)), ("dev", ())],
)
def test_versions_of_docker_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert docker_facts.parse_version(text) == version


@pytest.mark.parametrize("scheme", ["socks5", "ftp"])
def test_a_proxy_that_can_not_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:secret@proxy:1")
    with Api("http://127.0.0.1:9", key="") as api:
        public = settings(tmp_path, anthropic_api_key="k")
        finding = control_plane.check_claude_key(api, public, running=False)
        assert (finding.level, "ALL_PROXY" in finding.detail) == (Level.PROBLEM, True)
        assert "secret" not in repr(finding)
        private = settings(
            tmp_path, anthropic_api_key="k", anthropic_base_url="http://127.0.0.1:8000"
        )
        finding = control_plane.check_claude_key(api, private, running=False)
        assert finding.level is Level.OK


def test_every_problem_and_warning_of_a_bare_machine_says_what_to_do(tmp_path: Path) -> None:
    loaded = settings(tmp_path / "none", http_port=free_port(), control_port=free_port())
    findings = list(doctor.run_checks(loaded))
    without_fix = [
        finding for finding in findings if finding.level is not Level.OK and not finding.fix
    ]
    assert without_fix == []
    assert levels(findings)["control plane"] is Level.WARNING
    assert levels(findings)["Claude key"] is Level.WARNING
    assert not (tmp_path / "none").exists()
