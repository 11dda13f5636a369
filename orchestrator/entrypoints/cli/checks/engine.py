"""Checks this machine's Docker engine: version, limits, storage, image, firewall. Used by doctor.

It starts a container for a moment. It changes one thing only: if the control plane runs and its
network or egress rules are missing, they are set again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.adapters.docker import client, egress
from orchestrator.adapters.docker.engine import DockerEngine
from orchestrator.adapters.docker.flags import SandboxLimits
from orchestrator.adapters.docker.sdk import docker
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool.docker_facts import parse_info
from orchestrator.entrypoints.cli import local
from orchestrator.entrypoints.cli.checks import machine
from orchestrator.entrypoints.cli.checks.docker_facts import check_docker_facts
from orchestrator.entrypoints.cli.checks.firewall import check_firewall
from orchestrator.entrypoints.cli.findings import Finding, Level, ok, problem

_START = "Start it: sudo systemctl start docker (without systemd: make up). Or set SPAWN_DOCKER_URL"
_BUILD = "spawnctl image build"
_INSTANCE = "instance"  # a file in the state folder; this installation never ran if it is missing
_OUTPUT_MAX = 200  # characters of a command's output


def check_engine(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Everything about the engine. `running`: whether our control plane answers."""
    try:
        with client.translate_errors("ask for its state", settings.places.docker_url):
            api = client.connect(settings.places.docker_url)
            try:
                info = api.info()
                image = _image(api, settings)
            finally:
                api.close()
    except errors.SpawnError as error:
        yield problem("Docker", str(error), _fix(str(error)))
        return
    facts = parse_info(info)
    yield from check_docker_facts(facts, settings.sandbox.sandbox_runtime)
    root = Path(facts.root)
    if root.exists():
        yield from machine.check_disk("Docker's disk", root)
    yield image
    if image.level is Level.OK:
        yield from _sight(settings, image.detail)
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


def _sight(settings: Settings, image: str) -> Iterator[Finding]:
    """Whether the engine sees our files: a container looks for one. Nothing if we may make none."""
    name = "Docker's files"
    places = settings.places
    folder = local.existing_parent(places.agent_folder)
    mark = folder / f"mark-{secrets.token_hex(8)}"
    engine = DockerEngine(places.docker_url, SandboxLimits(instance="doctor"))
    try:
        mark.touch()
    except OSError:
        return  # `check_state_folder` says so
    try:
        is_seen = engine.sees(image, str(folder), mark.name)
    except errors.SpawnError as error:
        yield problem(name, str(error), "See what Docker says: journalctl -u docker")
        return
    finally:
        mark.unlink(missing_ok=True)
        engine.close()
    if is_seen:
        yield ok(name, f"are ours: it sees {folder}")
    else:
        yield problem(
            name,
            f"are others than ours: it doesn't see {folder}, so no sandbox would find its agent"
            " socket. It comes from a snap, runs in a container or virtual machine, or on another"
            " machine",
            f"Look at SPAWN_DOCKER_URL or DOCKER_HOST (now {places.docker_url}). With a snap:"
            " sudo snap remove docker && sudo apt-get install docker.io. Or set SPAWN_STATE_DIR to"
            " a folder that this Docker sees",
            "folder_unseen",
        )


def _firewall(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether the egress rules are in force. If our control plane doesn't run there are no rules
    yet: then whether this user could set them."""
    if not running or not (settings.places.state_dir / _INSTANCE).exists():
        outcome = egress.run_locally(("iptables", "-w", "5", "-t", "mangle", "-S", "PREROUTING"))
        text = " ".join(outcome.output.split())[:_OUTPUT_MAX] or f"exit code {outcome.code}"
        yield from check_firewall(text if outcome.code else "", _tables())
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
    for text in warnings:
        detail, _, fix = text.partition(" As root")
        yield problem("egress rules", detail, f"As root{fix}" if fix else text)
    if not warnings:
        yield ok("egress rules", "in force: sandboxes reach nothing")


def _tables() -> Mapping[str, int]:
    """How many rules each kind of iptables has."""
    outputs = {
        kind: egress.run_locally((f"iptables-{kind}-save",)).output for kind in ("legacy", "nft")
    }
    return {
        kind: sum(line.startswith("-A") for line in output.splitlines())
        for kind, output in outputs.items()
    }


def _fix(error_text: str) -> str:
    if "Permission denied" in error_text:
        return "Join the group docker and log in again: sudo usermod -aG docker $USER"
    return _START
