"""`spawnctl image`: the runtime image of the sandboxes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import docker.errors
import typer
from rich.text import Text

from orchestrator import config
from orchestrator.adapters import docker_client
from orchestrator.adapters.state_folder import StateFolder
from orchestrator.config import Settings
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem

_BUILD = config.PROJECT_ROOT / "runtime-image" / "build.sh"
_BUILD_WITHIN_S = 1800  # debootstrap, apt, pip and npm over a slow line


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Build and show the runtime image of the sandboxes.", no_args_is_help=True
    )
    group.command()(build)
    group.command()(show)
    app.add_typer(group, name="image")


def build(
    base: Annotated[
        str | None, typer.Option(help="Debian 12 image to build on; else one is found or made.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build the runtime image unless it is there, and use it from the next sandbox on."""
    settings = local.settings()
    state = StateFolder(settings.state_dir)
    state.prepare()  # before the long part: it may refuse
    tag = run_build(_BUILD, settings.docker_url, base)
    state.set_image(tag)
    if settings.runtime_image and settings.runtime_image != tag:
        output.stderr().print(
            f"SPAWN_RUNTIME_IMAGE={settings.runtime_image} is set and goes before it: unset it",
            style="yellow",
        )
    if as_json:
        output.as_json({"image": tag})
    else:
        print(tag)


def show(as_json: AsJson = False) -> None:
    """Show which image the next sandbox gets, and whether the engine has it."""
    settings = local.settings()
    image, source = chosen(settings)
    present = _present(settings, image) if image else False
    if as_json:
        output.as_json({"image": image or None, "from": source, "present": present})
        return
    said = Text("present", "green") if present else Text("missing: spawnctl image build", "red")
    output.stdout().print(
        output.facts([("image", image or "-"), ("from", source), ("engine", said)])
    )


def chosen(settings: Settings) -> tuple[str, str]:
    """Reference of the image that the next sandbox gets, "" for none, and who chose it."""
    if settings.runtime_image:
        return settings.runtime_image, "SPAWN_RUNTIME_IMAGE"
    image = StateFolder(settings.state_dir).image()
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


def _not_built(message: str) -> Problem:
    return Problem(Exit.FAILED, "image_not_built", message, "See what is missing: spawnctl doctor")


def _present(settings: Settings, image: str) -> bool:
    with docker_client.translated(f"look for image {image}", settings.docker_url):
        api = docker_client.connect(settings.docker_url)
        try:
            api.inspect_image(image)
        except docker.errors.ImageNotFound:
            return False
        finally:
            api.close()
    return True
