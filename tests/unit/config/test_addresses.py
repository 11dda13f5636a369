"""The names and addresses that follow from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator import config
from orchestrator.config.addresses import Addresses

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def addresses(**values: Any) -> Addresses:
    return config.make(state_dir=Path("/nowhere"), **values).addresses


def test_by_default_the_page_has_the_names_of_loopback_alone() -> None:
    assert addresses().page_hosts == LOOPBACK


def test_the_page_has_its_public_name_our_address_and_what_the_operator_adds() -> None:
    with_all = addresses(
        public_host="Spawn.Example.com",
        http_address="10.0.0.5",
        extra_hosts="spawn.internal, fd00::7,,localhost",
    )
    assert with_all.page_hosts == (
        "spawn.example.com",
        *LOOPBACK,
        "10.0.0.5",
        "spawn.internal",
        "[fd00::7]",
    )


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_every_address_is_no_name(address: str) -> None:
    assert addresses(http_address=address).page_hosts == LOOPBACK


@pytest.mark.parametrize(
    ("address", "probed"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("10.0.0.5", "10.0.0.5"),
    ],
)
def test_we_reach_the_proxy_where_it_listens(address: str, probed: str) -> None:
    assert addresses(http_address=address).probe_address == probed


@pytest.mark.parametrize("name", ["public_host", "apps_domain", "extra_hosts", "http_address"])
def test_a_name_that_no_browser_can_send_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="without scheme and port"):
        addresses(**{name: "http://spawn.example.com"})


@pytest.mark.parametrize("ports", [{"control_port": 8080}, {"http_port": 8082}])
def test_the_two_ports_of_the_proxy_differ(ports: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"control_port\n.*must differ from SPAWN_HTTP_PORT"):
        addresses(**ports)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_apps_have_no_names_below_an_ip_address(address: str) -> None:
    with pytest.raises(ValidationError, match=r"apps_domain\n.*not an IP address"):
        addresses(apps_domain=address)


def test_page_and_apps_may_share_a_name() -> None:
    shared = addresses(apps_domain="localhost")
    assert shared.apps_domain in shared.page_hosts
    assert shared.app_url("a" * 16) == f"http://{'a' * 16}.localhost:8080/"
