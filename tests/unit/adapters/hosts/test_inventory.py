"""The inventory: the hosts in a file that can be read when everything else is down."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from orchestrator.adapters.hosts import inventory
from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.domain import errors
from tests.fakes import samples


def test_hosts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    inventory.write(path, [samples.host()])
    remote_host = samples.host(
        name="paris-1",
        docker_url="ssh://root@10.0.0.5:2222",
        host_key="ssh-ed25519 AAAAC3Nz",
        publish_address="10.0.0.5",
        region="eu",
    )
    inventory.write(path, [remote_host])
    assert inventory.read(path) == [
        Entry(
            name="paris-1",
            docker_url="ssh://root@10.0.0.5:2222",
            host_key="ssh-ed25519 AAAAC3Nz",
            publish_address="10.0.0.5",
            region="eu",
            slots=4,
        )
    ]
    inventory.write(path, [])
    assert inventory.read(path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["hosts.json"], "no draft is left"


def test_an_inventory_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    inventory.write(path, [samples.host(name="paris-1")])
    content = json.loads(path.read_text())
    del content["hosts"][0]["slots"]
    path.write_text(json.dumps(content))
    (entry,) = inventory.read(path)
    assert (entry.name, entry.slots) == ("paris-1", 0)


def test_only_the_owner_can_read_the_inventory_even_after_a_writer_died(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    draft = path.with_suffix(".new")
    draft.write_text("half of a")
    draft.chmod(0o644)
    inventory.write(path, [samples.host()])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(inventory.read(path)) == 1


def test_a_missing_inventory_is_an_error_that_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="the daemon writes it") as caught:
        inventory.read(tmp_path / "hosts.json")
    assert caught.value.code == "no_inventory"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"hosts": 5}', '{"hosts": [5]}', '{"hosts": [{"name": "a"}]}', "null"],
)
def test_a_damaged_inventory_is_another_error_than_a_missing_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(text, "utf-8")
    with pytest.raises(errors.InvalidInput, match="is damaged"):
        inventory.read(path)
