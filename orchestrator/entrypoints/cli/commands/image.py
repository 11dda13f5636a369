"""`spawnctl image`: the runtime image of the sandboxes, here and on hosts."""

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
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands import pushing
from orchestrator.entrypoints.cli.commands.hosts import targets
from orchestrator.entrypoints.cli.commands.hosts.paths import ALL
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem

_BUILD = config.PROJECT_ROOT / "runtime-image" / "build.sh"
_BUILD_WITHIN_S = 1800  # debootstrap, apt, pip and npm over a slow line


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
        str | None, typer.Option(help="Debian 12 image to build on; else one is found or made.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the runtime image unless it is there, and use it from the next sandbox on."""
    settings = local.settings()
    state = StateFolder(settings.places.state_dir)
    state.prepare()  # before the long part: it may refuse
    tag = run_build(_BUILD, settings.places.docker_url, base)
    state.set_image(tag)
    configured = settings.pool.runtime_image
    if configured and configured != tag:
        output.stderr().print(
            f"SPAWN_RUNTIME_IMAGE={configured} is set and goes before it: unset it",
            style="yellow",
        )
    if as_json:
        output.as_json({"image": tag})
    else:
        print(tag)


def show(as_json: AsJson = False) -> None:
    """Show which image the next sandbox gets, and which engines have it."""
    settings = local.settings()
    image, source = chosen(settings)
    present = _present(settings, image) if image else False
    hosts = _hosts(settings)
    if as_json:
        has = {name: bool(image) and there == image for name, there in hosts.items()}
        output.as_json({"image": image or None, "from": source, "present": present, "hosts": has})
        return
    said = Text("present", "green") if present else Text("missing: spawnctl image build", "red")
    rows: list[tuple[str, str | Text]] = [
        ("image", image or "-"),
        ("from", source),
        ("engine", said),
    ]
    rows += [(output.plain(name), _there(there, image)) for name, there in hosts.items()]
    output.stdout().print(output.facts(rows))


def push(
    hosts: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Hosts; all if none is named.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send the runtime image to hosts now, three at a time.

    The daemon does that by itself; this shows how it goes. Who has it is left alone.
    """
    settings = local.settings()
    entries = (
        [targets.find(settings, name) for name in dict.fromkeys(hosts)]
        if hosts
        else targets.remote(settings)
    )
    done = pushing.push_all(settings, [_target(one) for one in entries])
    if as_json:
        output.as_json({"hosts": [{"name": one.name, "sent": one.sent} for one in done]})
        return
    for one in done:
        print(f"{one.name} {'has it now' if one.sent else 'had it'}")
    if not done:
        output.stderr().print("The pool has no hosts that are reached by SSH.")


def chosen(settings: Settings) -> tuple[str, str]:
    """Reference of the image that the next sandbox gets, "" for none, and who chose it."""
    if settings.pool.runtime_image:
        return settings.pool.runtime_image, "SPAWN_RUNTIME_IMAGE"
    image = StateFolder(settings.places.state_dir).image()
    return image, "last build" if image else "nothing was built yet"


def run_build(script: Path, docker_url: str, base: str | None) -> str:
    """Run build.sh, which runs base.sh when it needs to; its last line of stdout is the tag.
    Raises Problem."""
    argv = [str(script), *(["--base", base] if base else [])]
    environment = {**os.environ, "DOCKER_HOST": docker_url}
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_BUILD_WITHIN_S,
            check=False,
        )
    except OSError as error:
        raise _not_built(f"{script} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _not_built(f"the image was not built within {_BUILD_WITHIN_S // 60} min") from error
    said = done.stdout.split("\n")
    tag = next((line.strip() for line in reversed(said) if line.strip()), "")
    if done.returncode != 0 or not tag:
        raise _not_built(f"{script.name} ended with {done.returncode}; what it said stands above")
    return tag


def _target(entry: Entry) -> pushing.Target:
    address = targets.address_of(entry)
    return pushing.Target(name=entry.name, address=address, pinned=entry.host_key)


def _hosts(settings: Settings) -> Mapping[str, str]:
    """The image that each host over SSH was last seen with; none while the API is away."""
    try:
        with Api.of(settings) as api:
            found = api.get(ALL)["hosts"]
    except Problem:
        return {}
    return {one["name"]: one["image"] for one in found if one["address"].startswith("ssh:")}


def _there(there: str, image: str) -> Text:
    if there == image:
        return Text("present", "green")
    return Text(f"has {there or 'none'}; the new one is on its way", "yellow")


def _not_built(message: str) -> Problem:
    return Problem(Exit.FAILED, "image_not_built", message, "See what is missing: spawnctl doctor")


def _present(settings: Settings, image: str) -> bool:
    with client.translated(f"look for image {image}", settings.places.docker_url):
        api = client.connect(settings.places.docker_url)
        try:
            api.inspect_image(image)
        except docker.errors.ImageNotFound:
            return False
        finally:
            api.close()
    return True
