"""`spawnctl keys`: make, list and revoke API keys."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import resolve_id
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson

_KEYS = "/api/admin/keys"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    group.command()(create)
    group.command("list")(list_keys)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Argument(help="A name for the key.")],
    tier: Annotated[Tier, typer.Option(help="The limits of the key's sessions.")] = Tier.PRO,
    role: Annotated[Role, typer.Option(help="Whose sessions the key may see and end.")] = Role.USER,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed once, as the last line of stdout, and never stored."""
    with Api.from_settings(local.settings()) as api:
        key = api.post(_KEYS, {"name": name, "tier": tier, "role": role})
    if as_json:
        output.print_json(key)
        return
    console = output.stderr()
    console.print(
        f"Key {output.plain(key['name'])} ({output.short_id(key['key_id'])}), tier"
        f" {output.plain(key['tier'])}, role {output.plain(key['role'])}."
    )
    console.print("Keep it now: it can't be shown again. Use it as SPAWN_API_KEY or Bearer token.")
    print(key["key"])


def list_keys(
    show_all: Annotated[bool, typer.Option("--all", help="Revoked keys too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys that are valid, newest first, without their secrets."""
    with Api.from_settings(local.settings()) as api:
        response = api.get(_KEYS)
    if as_json:
        output.print_json(response)
        return
    console = output.stdout()
    more = ("USER",) if console.width >= output.WIDE else ()
    table = output.table("ID", "NAME", "TIER", "ROLE", "AGE", "STATE", *more)
    valid = [key for key in response["keys"] if key["revoked_at"] is None]
    revoked_keys = [key for key in response["keys"] if key["revoked_at"] is not None]
    for key in [*reversed(valid), *(reversed(revoked_keys) if show_all else ())]:
        revoked = key["revoked_at"] is not None
        cells: list[str | Text] = [
            output.short_id(key["key_id"]),
            output.truncate(key["name"], 24),
            output.plain(key["tier"]),
            output.plain(key["role"]),
            output.age(key["created_at"]),
            Text("revoked", "red") if revoked else Text("valid", "green"),
        ]
        if more:
            cells.append(output.plain(key["user_id"]))
        table.add_row(*cells)
    console.print(table)
    if revoked_keys and not show_all:
        output.stderr().print(f"{len(revoked_keys)} more are revoked: --all shows them.")


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="A key's id, or its first characters.")],
) -> None:
    """Revoke a key, at once and for good."""
    with Api.from_settings(local.settings()) as api:

        def list_ids() -> list[str]:
            return [row["key_id"] for row in api.get(_KEYS)["keys"]]

        key_id = resolve_id(key, "key", list_ids, "spawnctl keys list")
        api.delete(f"{_KEYS}/{key_id}")
    print(f"{key_id} is revoked")
