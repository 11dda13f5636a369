"""Doctor's warning about a proxy in front of ours whose visitors would count as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from orchestrator import bootstrap, config
from orchestrator.entrypoints.cli.checks.front_proxy import check_front_proxy
from orchestrator.entrypoints.cli.findings import Level


def level_of(folder: Path, **values: Any) -> Level:
    finding = check_front_proxy(config.make(state_dir=folder, **values))
    assert finding.level is Level.OK or "SPAWN_TRUSTED_PROXIES" in str(finding)
    return finding.level


@pytest.mark.parametrize(
    "values",
    [
        {"public_host": "spawn.example.com"},
        {"public_host": "spawn.example.com", "http_address": "::1"},
        {"cookie_secure": True, "http_address": "10.0.0.5"},
    ],
)
def test_visitors_who_would_count_as_one_are_a_warning(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    assert level_of(tmp_path, **values) is Level.WARNING
    assert level_of(tmp_path, **values, trusted_proxies="127.0.0.1, 10.1.0.0/16") is Level.OK


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"public_host": "127.0.0.1"},
        {"public_host": "spawn.example.com", "http_address": "0.0.0.0"},
        {"http_address": "localhost"},
    ],
)
def test_an_installation_without_a_proxy_in_front_is_well(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    assert level_of(tmp_path, **values) is Level.OK


def test_the_settings_reach_the_proxy(tmp_path: Path) -> None:
    settings = config.make(
        state_dir=tmp_path, trusted_proxies="127.0.0.1, fd00::/8", connections_per_app=7
    )
    proxy = bootstrap.nginx_settings(settings)
    assert proxy.trusted_proxies == ("127.0.0.1", "fd00::/8")
    assert proxy.limits.connections_per_app == 7


@pytest.mark.parametrize("wrong", ["proxy.example.com", "10.0.0.1/8", "127.0.0.1;"])
def test_what_is_no_address_is_refused_with_an_example(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"10\.1\.0\.0/16"):
        config.make(state_dir=tmp_path, trusted_proxies=wrong)
