"""`spawnctl keys`: API keys, made, listed and revoked."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from orchestrator.domain.people.access import Role
from orchestrator.domain.sessions.session import Tier
from orchestrator.entrypoints.cli import local, names, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.output import AsJson


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    group.command()(create)
    group.command("list")(list_them)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Argument(help="What you will know it by.")],
    tier: Annotated[Tier, typer.Option(help="How much its sessions may have.")] = Tier.PRO,
    role: Annotated[Role, typer.Option(help="Whose sessions it may see and end.")] = Role.USER,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed once, on the last line of stdout, and kept nowhere."""
    with Api.of(local.settings()) as api:
        made = api.post("/api/admin/keys", {"name": name, "tier": tier, "role": role})
    if as_json:
        output.as_json(made)
        return
    console = output.stderr()
    console.print(
        f"Key {output.plain(made['name'])} ({output.short(made['key_id'])}), tier"
        f" {output.plain(made['tier'])}, role {output.plain(made['role'])}."
    )
    console.print("Keep it now: it can't be shown again. Use it as SPAWN_API_KEY or Bearer token.")
    print(made["key"])


def list_them(as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    with Api.of(local.settings()) as api:
        found = api.get("/api/admin/keys")
    if as_json:
        output.as_json(found)
        return
    console = output.stdout()
    more = ("USER",) if console.width >= output.WIDE else ()
    made = output.table("ID", "NAME", "TIER", "ROLE", "AGE", "STATE", *more)
    for key in found["keys"]:
        revoked = key["revoked_at"] is not None
        cells: list[str | Text] = [
            output.short(key["key_id"]),
            output.cut(key["name"], 24),
            output.plain(key["tier"]),
            output.plain(key["role"]),
            output.since(key["created_at"]),
            Text("revoked", "red") if revoked else Text("valid", "green"),
        ]
        if more:
            cells.append(output.plain(key["user_id"]))
        made.add_row(*cells)
    console.print(made)


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="A key's id, or its beginning.")],
) -> None:
    """Make a key invalid, at once and for good."""
    with Api.of(local.settings()) as api:

        def known() -> list[str]:
            return [one["key_id"] for one in api.get("/api/admin/keys")["keys"]]

        key_id = names.resolve(key, "key", known, "spawnctl keys list")
        api.delete(f"/api/admin/keys/{key_id}")
    print(f"{key_id} is revoked")
