"""The names and addresses that follow from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator import config
from orchestrator.config.groups import Addresses

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
