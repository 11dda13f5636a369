"""Doctor's look at the Docker engine: version, limits, storage, image, firewall.

Changes nothing but what the running control plane has set itself: its network and egress rules are
set again if they have gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.adapters.docker import client, egress
from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool import docker_facts
from orchestrator.entrypoints.cli.checks import docker_facts as checks_docker
from orchestrator.entrypoints.cli.checks import machine
from orchestrator.entrypoints.cli.findings import Finding, ok, problem
from orchestrator.ports import CommandOutcome

_START = "Start it: sudo systemctl start docker (without systemd: make up). Or set SPAWN_DOCKER_URL"
_BUILD = "spawnctl image build"
_INSTANCE = "instance"  # in the state folder; without it, what runs here isn't of this installation


def engine(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Everything about the engine. `running`: whether our control plane answers."""
    try:
        with client.translated("ask for its state", settings.places.docker_url):
            api = client.connect(settings.places.docker_url)
            try:
                info = api.info()
                image = _image(api, settings)
            finally:
                api.close()
    except errors.SpawnError as error:
        yield problem("Docker", str(error), _fix_for(str(error)))
        return
    facts = docker_facts.of_info(info)
    yield from checks_docker.engine(facts, settings.sandbox.sandbox_runtime)
    root = Path(facts.root)
    if root.exists():
        yield from machine.room("Docker's disk", root)
    yield image
    yield from _firewall(settings, running=running)


def _image(api: docker.APIClient, settings: Settings) -> Finding:
    name = "runtime image"
    reference = settings.pool.runtime_image or StateFolder(settings.places.state_dir).image()
    if not reference:
        return problem(name, "none was built yet", _BUILD)
    try:
        api.inspect_image(reference)
    except docker.errors.ImageNotFound:
        return problem(name, f"{reference} is not on this engine", _BUILD)
    return ok(name, reference)


def _firewall(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether sandboxes are kept in. Where our control plane doesn't run there are no rules yet to
    look at: then whether they could be set."""
    if not running or not (settings.places.state_dir / _INSTANCE).exists():
        yield _iptables(egress.run_here(("iptables", "-w", "5", "-S", "INPUT")))
        return
    limits = SandboxLimits(instance=StateFolder(settings.places.state_dir).instance())
    docker_engine = DockerEngine(settings.places.docker_url, limits)
    try:
        warnings = docker_engine.prepare()
    except errors.SpawnError as error:
        yield problem("egress rules", str(error), _START)
        return
    finally:
        docker_engine.close()
    for said in warnings:
        detail, _, fix = said.partition(" As root")
        yield problem("egress rules", detail, f"As root{fix}" if fix else said)
    if not warnings:
        yield ok("egress rules", "in force: sandboxes reach nothing")


def _iptables(outcome: CommandOutcome) -> Finding:
    name = "iptables"
    if outcome.code == 0:
        return ok(name, "usable: the rules that keep sandboxes in can be set")
    said = " ".join(outcome.output.split())[:200]
    if outcome.code == 127:
        return problem(name, "is not installed", "sudo apt-get install iptables")
    return problem(
        name,
        f"this user can't set the rules that keep sandboxes in ({said})",
        "Run spawnctl up as root, or set the rules that its warning names as root yourself",
    )


def _fix_for(message: str) -> str:
    if "Permission denied" in message:
        return "Join the group docker and log in again: sudo usermod -aG docker $USER"
    return _START
