"""`spawnctl image`: the runtime image of the sandboxes, on this machine and on hosts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestrator import config
from orchestrator.adapters.docker import client
from orchestrator.adapters.docker.sdk import docker
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts.inventory import Entry
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import HOSTS, Api
from orchestrator.entrypoints.cli.commands import image_push
from orchestrator.entrypoints.cli.commands.hosts import targets
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem

_BUILD = config.PROJECT_ROOT / "runtime-image" / "build.sh"
_BUILD_TIMEOUT_S = 1800  # debootstrap, apt, pip and npm over a slow line


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Build the runtime image of the sandboxes, show it, send it to hosts.",
        no_args_is_help=True,
    )
    group.command()(build)
    group.command()(show)
    group.command()(push)
    app.add_typer(group, name="image")


def build(
    base: Annotated[
        str | None,
        typer.Option(help="Debian 12 image to build on. Without it, one is found or made."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the runtime image unless it exists, and use it for every new sandbox."""
    settings = local.settings()
    state = StateFolder(settings.places.state_dir)
    state.prepare()  # may refuse the folder: do that before the long build
    tag = run_build(_BUILD, settings.places.docker_url, base)
    state.set_image(tag)
    configured = settings.pool.runtime_image
    if configured and configured != tag:
        output.stderr().print(
            f"SPAWN_RUNTIME_IMAGE={configured} is set and goes before it: unset it",
            style="yellow",
        )
    if as_json:
        output.print_json({"image": tag})
    else:
        print(tag)


def show(as_json: AsJson = False) -> None:
    """Show the image of new sandboxes, and which engines have it."""
    settings = local.settings()
    image, source = current_image(settings)
    present = _is_on_engine(settings, image) if image else False
    host_images = _host_images(settings)
    if as_json:
        hosts = {name: bool(image) and current == image for name, current in host_images.items()}
        output.print_json(
            {"image": image or None, "from": source, "present": present, "hosts": hosts}
        )
        return
    engine = Text("present", "green") if present else Text("missing: spawnctl image build", "red")
    rows: list[tuple[str, str | Text]] = [
        ("image", image or "-"),
        ("from", source),
        ("engine", engine),
    ]
    rows += [
        (output.plain(name), _host_state(current, image)) for name, current in host_images.items()
    ]
    output.stdout().print(output.facts(rows))


def push(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Names of hosts. Without one: all hosts."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send the runtime image to hosts now, three at a time.

    The daemon does that by itself; this command shows the progress. Hosts that have the image are
    skipped.
    """
    settings = local.settings()
    entries = (
        [targets.find_host(settings, name) for name in dict.fromkeys(hosts)]
        if hosts
        else targets.list_remote_hosts(settings)
    )
    outcomes = image_push.push_to_hosts(settings, [_target(entry) for entry in entries])
    if as_json:
        output.print_json(
            {"hosts": [{"name": outcome.name, "sent": outcome.sent} for outcome in outcomes]}
        )
        return
    for outcome in outcomes:
        print(f"{outcome.name} {'has it now' if outcome.sent else 'had it'}")
    if not outcomes:
        output.stderr().print("The pool has no hosts that are reached by SSH.")


def current_image(settings: Settings) -> tuple[str, str]:
    """The reference of the image of new sandboxes, "" for none, and what chose it."""
    if settings.pool.runtime_image:
        return settings.pool.runtime_image, "SPAWN_RUNTIME_IMAGE"
    image = StateFolder(settings.places.state_dir).image()
    return image, "last build" if image else "nothing was built yet"


def run_build(script: Path, docker_url: str, base: str | None) -> str:
    """Run build.sh, which runs base.sh if it needs to. Returns the tag: the last line of stdout.
    Raises Problem (image_not_built)."""
    argv = [str(script), *(["--base", base] if base else [])]
    environment = {**os.environ, "DOCKER_HOST": docker_url}
    try:
        result = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise _not_built(f"{script} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        minutes = _BUILD_TIMEOUT_S // 60
        raise _not_built(f"the image was not built within {minutes} min") from error
    lines = [line.strip() for line in result.stdout.split("\n") if line.strip()]
    if result.returncode != 0 or not lines:
        raise _not_built(f"{script.name} ended with {result.returncode}; what it said stands above")
    return lines[-1]


def _target(entry: Entry) -> image_push.Target:
    address = targets.address_of(entry)
    return image_push.Target(name=entry.name, address=address, pinned=entry.host_key)


def _host_images(settings: Settings) -> Mapping[str, str]:
    """The image of each host over SSH, as the control plane last saw it; {} if the API is away."""
    try:
        with Api.from_settings(settings) as api:
            hosts = api.get(HOSTS)["hosts"]
    except Problem:
        return {}
    return {host["name"]: host["image"] for host in hosts if host["address"].startswith("ssh:")}


def _host_state(host_image: str, image: str) -> Text:
    if host_image == image:
        return Text("present", "green")
    return Text(f"has {host_image or 'none'}; the new one is on its way", "yellow")


def _not_built(message: str) -> Problem:
    return Problem(Exit.FAILED, "image_not_built", message, "See what is missing: spawnctl doctor")


def _is_on_engine(settings: Settings, image: str) -> bool:
    with client.translate_errors(f"look for image {image}", settings.places.docker_url):
        api = client.connect(settings.places.docker_url)
        try:
            api.inspect_image(image)
        except docker.errors.ImageNotFound:
            return False
        finally:
            api.close()
    return True
