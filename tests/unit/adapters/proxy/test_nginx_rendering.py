"""The rendered configuration of nginx, and the values that are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.proxy import nginx_config
from orchestrator.contract.heads import SET_BY_PROXY
from orchestrator.domain import errors
from orchestrator.domain.logged_requests import LoggedRequests

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden"
SETTINGS = nginx_config.NginxSettings(
    folder=Path("/var/lib/spawnai/nginx"),
    templates=ROOT / "proxy" / "nginx",
    pages=ROOT / "proxy" / "pages",
    page_files=ROOT / "orchestrator" / "entrypoints" / "api" / "web",
    apps_log=Path("/var/lib/spawnai/log/apps.log"),
    logged_requests=LoggedRequests.WRITES,
)


def render(settings: nginx_config.NginxSettings) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return nginx_config.render_base(settings, open_files=16384, temp_kinds=kinds)


def test_the_base_configuration_matches_the_reviewed_file() -> None:
    assert render(SETTINGS) == (GOLDEN / "nginx_base.conf").read_text()


def test_the_proxy_says_of_visitors_what_apps_are_promised() -> None:
    apps = render(SETTINGS).partition("# Apps, by name.")[2]
    for name in SET_BY_PROXY:
        assert f"proxy_set_header {name} $" in apps


def test_the_control_listener_is_on_loopback_wherever_the_public_one_is() -> None:
    text = render(replace(SETTINGS, listen_address="0.0.0.0", control_port=9))

    assert "listen 0.0.0.0:8080 default_server" in text
    assert "listen 127.0.0.1:9 default_server" in text
    assert "0.0.0.0:9" not in text


def test_forwarded_headers_are_trusted_only_from_trusted_proxies() -> None:
    assert "real_ip" not in render(SETTINGS)
    assert "set_real_ip_from 10.1.0.0/16;" in render(
        replace(SETTINGS, trusted_proxies=("10.1.0.0/16",))
    )


def test_the_user_of_workers_is_set_only_if_nginx_runs_as_root() -> None:
    text = render(replace(SETTINGS, worker_user="www-data"))

    assert ("user www-data;" in text) == (os.geteuid() == 0)
    assert "\nuser " not in render(SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"folder": Path("/tmp/a b")},
        {"apps_domain": "apps.localhost; include /etc/passwd"},
        {"api_addresses": ("127.0.0.1:1", "$host")},
        {"trusted_proxies": ("10.0.0.1", "10.0.0.2;")},
        {"control_port": 8080},
    ],
)
def test_a_setting_that_would_change_the_configurations_meaning_is_refused(
    change: dict[str, object],
) -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        replace(SETTINGS, **change)  # type: ignore[arg-type]  # fields of several types

    assert refused.value.detail["field"] in change
