"""The names of the page and of the apps: a warning if apps could set the page's cookies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.entrypoints.cli.checks import names
from orchestrator.entrypoints.cli.commands import doctor, up
from orchestrator.entrypoints.cli.findings import Level

ADVICE = "SPAWN_APPS_DOMAIN"


def settings(folder: Path, page: str, apps: str, **values: Any) -> Settings:
    return config.make(
        state_dir=folder,
        docker_url="unix:///nowhere.sock",
        public_host=page,
        apps_domain=apps,
        **values,
    )


@pytest.mark.parametrize(
    ("page", "apps", "domain"),
    [
        ("example.test", "apps.example.test", "example.test"),
        ("example.test", "example.test", "example.test"),
        ("spawn.example.test", "apps.example.test", "example.test"),
    ],
)
@pytest.mark.parametrize("cookie_secure", [False, True])
def test_a_common_domain_is_a_warning_in_doctor_and_at_up(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    page: str,
    apps: str,
    domain: str,
    cookie_secure: bool,
) -> None:
    loaded = settings(tmp_path, page, apps, cookie_secure=cookie_secure)
    (finding,) = (check for check in doctor.run_checks(loaded) if check.name == names.NAME)
    assert finding.level is Level.WARNING
    assert f"cookies for {domain}" in finding.detail
    assert ADVICE in finding.fix
    assert ("SPAWN_COOKIE_SECURE" in finding.fix) != cookie_secure
    up.print_banner(loaded)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "WARNING" in line)
    assert finding.detail in line
    assert ADVICE in line


@pytest.mark.parametrize(
    ("page", "apps"), [("localhost", "apps.localhost"), ("example.test", "example-apps.test")]
)
def test_separate_domains_are_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str, apps: str
) -> None:
    loaded = settings(tmp_path, page, apps)
    assert names.check_names(loaded).level is Level.OK
    up.print_banner(loaded)
    assert "WARNING" not in capsys.readouterr().out
