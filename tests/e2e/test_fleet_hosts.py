"""An operator and three machines: joining, refusals, new images, leaving, direct access."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import hosts
from tests.e2e.installation import Installation, installed, runtime_image, until
from tests.fleet import Fleet, Vps, undo_at_end

_SSHD = "/etc/ssh/sshd_config.d/test.conf"


@pytest.fixture(scope="module")
def pool(fleet: Fleet) -> Iterator[Installation]:
    """Two of the machines are hosts. Tests may do anything to the third, vps3."""
    settings = {"SPAWN_LOCAL_HOST": "false", "SPAWN_WARM_TARGET": "2", "SPAWN_RUNTIME_IMAGE": ""}
    with installed(ready=False, **settings) as pool:
        (pool.state_dir / "runtime-image").write_text(runtime_image())  # as a build leaves it
        key = _public_key(pool)
        for vps in fleet:
            vps.authorize(key)
        for name in ("vps1", "vps2"):
            hosts.add(pool, fleet.named(name), "--slots", "10", "--region", name)
        for name in ("vps1", "vps2"):
            hosts.wait_for_state(pool, name, "up")
        yield pool


def refusal(pool: Installation, *arguments: str) -> str:
    """Run `hosts add`, which must fail and add nothing. Returns its output."""
    before = _names(pool)
    result = pool.spawnctl("hosts", "add", *arguments, "--no-wait", check=False)
    assert result.returncode != 0, result.stdout
    assert _names(pool) == before
    return result.stdout + result.stderr


def test_a_machine_that_does_not_answer_is_refused(pool: Installation) -> None:
    message = refusal(
        pool, "ssh://root@127.0.0.1:9", "--name", "nobody", "--fingerprint", "SHA256:x"
    )
    assert "nothing listens" in message


def test_a_wrong_fingerprint_is_refused(pool: Installation, fleet: Fleet) -> None:
    vps = fleet.named("vps3")
    message = refusal(
        pool, f"ssh://root@{vps.address}", "--name", "v3", "--fingerprint", "SHA256:wrong"
    )
    assert "fingerprint_mismatch" in message
    assert vps.fingerprint in message


def test_a_refused_key_names_the_line_to_add(pool: Installation, fleet: Fleet) -> None:
    vps = fleet.named("vps3")
    keys = vps.exec("cat", "/root/.ssh/authorized_keys")
    with undo_at_end(lambda: _write(vps, "/root/.ssh/authorized_keys", keys)):
        _write(vps, "/root/.ssh/authorized_keys", "")
        message = refusal(pool, *_arguments_for(vps))
    assert "login_refused" in message
    assert "authorized_keys" in message


def test_an_sshd_that_forbids_forwarding_is_refused_with_the_line_that_allows_it(
    pool: Installation, fleet: Fleet
) -> None:
    vps = fleet.named("vps3")
    with undo_at_end(lambda: _configure_sshd(vps, "")):
        _configure_sshd(vps, "AllowStreamLocalForwarding no\n")
        message = refusal(pool, *_arguments_for(vps))
    assert "AllowStreamLocalForwarding yes" in message


def test_a_machine_without_docker_is_refused(pool: Installation, fleet: Fleet) -> None:
    vps = fleet.named("vps3")
    with undo_at_end(vps.start_dockerd):
        vps.kill_dockerd()
        message = refusal(pool, *_arguments_for(vps))
    assert "Docker" in message


def test_a_publish_address_that_the_proxy_cannot_reach_is_refused(
    pool: Installation, fleet: Fleet
) -> None:
    vps = fleet.named("vps3")
    message = refusal(
        pool,
        *(f"ssh://root@{vps.address}", "--name", "v3", "--fingerprint", vps.fingerprint),
        *("--publish-address", "192.0.2.7"),
    )
    assert "192.0.2.7" in message


def test_a_name_is_taken_once_and_a_machine_joins_once(pool: Installation, fleet: Fleet) -> None:
    free, taken = fleet.named("vps3"), fleet.named("vps1")
    message = refusal(
        pool,
        *(f"ssh://root@{free.address}", "--name", "vps1", "--fingerprint", free.fingerprint),
    )
    assert "host_exists" in message
    port_two = f"ssh://root@{taken.address}:2022"
    with undo_at_end(lambda: _configure_sshd(taken, "")):
        _configure_sshd(taken, "Port 22\nPort 2022\n")
        message = refusal(pool, port_two, "--name", "twin", "--fingerprint", taken.fingerprint)
    assert "vps1" in message
    hosts.wait_for_state(pool, "vps1", "up")


def test_a_changed_host_key_is_refused_audited_and_reported(
    pool: Installation, fleet: Fleet
) -> None:
    vps = fleet.named("vps2")
    keep = "cp -a /etc/ssh/ssh_host_ed25519_key* /root/ && "
    put_back = "cp -a /root/ssh_host_ed25519_key* /etc/ssh/"
    new = "rm /etc/ssh/ssh_host_ed25519_key* && ssh-keygen -qN '' -t ed25519 -f /etc/ssh/"
    with undo_at_end(lambda: (vps.stop_sshd(), vps.exec("sh", "-c", put_back), vps.start_sshd())):
        vps.stop_sshd()
        vps.exec("sh", "-c", f"{keep}{new}ssh_host_ed25519_key")
        vps.start_sshd()
        until(lambda: "another host key" in hosts.get(pool, "vps2")["reason"], 40, "the refusal")
        entries = pool.admin("audit?limit=50")["entries"]
        assert "host_key_changed" in {entry["action"] for entry in entries}
    hosts.wait_for_state(pool, "vps2", "up")


def test_doctor_finds_nothing_wrong_with_a_host(pool: Installation) -> None:
    result = pool.spawnctl("hosts", "doctor", "vps1", "--json", check=False)
    checks = json.loads(result.stdout)["hosts"]["vps1"]
    assert len(checks) > 8
    problems = [check for check in checks if check["level"] == "problem"]
    assert problems == []
    assert result.returncode == 0


def test_bootstrap_prepares_a_bare_machine_and_can_be_repeated(
    pool: Installation, fleet: Fleet
) -> None:
    vps = fleet.named("vps3")
    target = (f"ssh://root@{vps.address}", "--fingerprint", vps.fingerprint)
    plan = pool.spawnctl("hosts", "bootstrap", *target, "--dry-run").stdout
    assert "br_netfilter" in plan
    pool.spawnctl("hosts", "bootstrap", *target)
    repeated = pool.spawnctl("hosts", "bootstrap", *target)
    assert repeated.returncode == 0


def test_an_operator_reaches_a_host_directly_with_everything_down(
    pool: Installation, fleet: Fleet
) -> None:
    session = pool.create(template="kanban", region="vps1")
    ready = pool.wait_for(session["session_id"], "ready")
    pool.spawnctl("down", "--keep-apps")
    with undo_at_end(lambda: pool.spawnctl("up", "--detach")):
        listed = json.loads(pool.spawnctl("hosts", "direct", "vps1", "ps", "--json").stdout)
        sandbox_ids = [sandbox["sandbox_id"] for sandbox in listed["sandboxes"]]
        assert sandbox_ids
        fleet.named("vps1").exec("docker", "rename", f"spawn-{sandbox_ids[0]}", "renamed-by-hand")
        assert (
            "listening" in pool.spawnctl("hosts", "direct", "vps1", "logs", sandbox_ids[0]).stdout
        )
        for sandbox_id in sandbox_ids:
            pool.spawnctl("hosts", "direct", "vps1", "rm", sandbox_id)
        assert fleet.named("vps1").containers() == []
    until(lambda: pool.call_app(ready["url"]).status == 200, 60, "the app to be back")


def test_a_command_runs_on_a_host_and_returns_its_exit_code(pool: Installation) -> None:
    result = pool.spawnctl(
        "hosts", "exec", "vps1", "--", "sh", "-c", "hostname; exit 3", check=False
    )
    assert (result.stdout.strip(), result.returncode) == ("vps1", 3)


def test_a_new_image_replaces_warm_sandboxes_and_never_a_claimed_one(
    pool: Installation, fleet: Fleet, tmp_path: Path
) -> None:
    session = pool.create(template="kanban")
    ready = pool.wait_for(session["session_id"], "ready")
    claimed = pool.admin(f"sessions/{session['session_id']}")["sandbox"]["sandbox_id"]
    old = runtime_image()
    new = _another_image(old)
    try:
        (pool.state_dir / "runtime-image").write_text(new)
        until(lambda: _warm_images(pool) == {new}, 180, "all warm sandboxes to be of the new image")
        assert pool.call_app(ready["url"]).status == 200
        current = pool.admin(f"sessions/{session['session_id']}")["sandbox"]["sandbox_id"]
        assert current == claimed
    finally:
        (pool.state_dir / "runtime-image").write_text(old)
        until(lambda: _warm_images(pool) == {old}, 180, "the old image to be back")
        subprocess.run(["docker", "rmi", new], capture_output=True, check=False)


def test_a_removed_host_keeps_nothing_of_ours(pool: Installation, fleet: Fleet) -> None:
    vps = fleet.named("vps2")
    session = pool.create(template="kanban", region="vps2")
    pool.wait_for(session["session_id"], "ready")
    refused = pool.spawnctl("hosts", "remove", "vps2", check=False)
    assert "host_in_use" in refused.stderr
    pool.call("DELETE", f"/api/sessions/{session['session_id']}", key=pool.operator_key)
    pool.spawnctl("hosts", "remove", "vps2", "--force")
    until(lambda: "vps2" not in _names(pool), 60, "vps2 to be forgotten")
    assert vps.containers() == []
    networks = vps.exec("docker", "network", "ls", "--format", "{{.Name}}").split()
    assert [name for name in networks if name.startswith("spawnai-")] == []
    assert "spn" not in vps.exec("iptables", "-t", "mangle", "-S")


def _arguments_for(vps: Vps) -> tuple[str, ...]:
    return (f"ssh://root@{vps.address}", "--name", "v3", "--fingerprint", vps.fingerprint)


def _public_key(pool: Installation) -> str:
    return pool.spawnctl("hosts", "key").stdout.strip().splitlines()[-1]


def _names(pool: Installation) -> set[str]:
    return {host["name"] for host in pool.admin("hosts")["hosts"]}


def _write(vps: Vps, path: str, text: str) -> None:
    vps.exec("sh", "-c", f"cat >{path}", stdin=text + "\n")


def _configure_sshd(vps: Vps, text: str) -> None:
    """Write a configuration file for sshd, and restart sshd with it."""
    vps.stop_sshd()
    vps.exec("sh", "-c", f"cat >{_SSHD}", stdin=text)
    vps.start_sshd()


def _warm_images(pool: Installation) -> set[str]:
    """The images of all warm sandboxes; empty until there are enough of them."""
    counts = pool.admin("pool")
    if counts["warm"] < counts["warm_target"]:
        return set()
    images = set()
    for name in _names(pool):
        for sandbox in hosts.get(pool, name)["sandboxes"]:
            if sandbox["state"] == "warm":
                images.add(sandbox["image"])
    return images


def _another_image(old: str) -> str:
    """The same image with one more label, so that it has another hash."""
    new = "spawnai/runtime:" + "f" * 16
    dockerfile = f"FROM {old}\nLABEL ai.spawn.runtime={'f' * 64}\n"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", new, "-"],
        input=dockerfile,
        text=True,
        capture_output=True,
        check=True,
        env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    return new
