"""`spawnctl hosts key|doctor|add`: from a machine to a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from orchestrator.adapters.ssh.connection import HostKey
from orchestrator.config import Settings
from orchestrator.domain import duration, errors
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.client import Api
from orchestrator.entrypoints.cli.commands import pushing
from orchestrator.entrypoints.cli.commands.hosts import surveys, targets, trust, waits
from orchestrator.entrypoints.cli.commands.hosts.paths import ALL
from orchestrator.entrypoints.cli.commands.hosts.trust import (
    AddressArgument,
    FingerprintOption,
    YesOption,
)
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level, ok
from orchestrator.entrypoints.cli.labels import parse as parse_labels
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views import findings

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `hosts add` was asked for, checked as far as that goes without the machine."""

    name: str
    address: HostAddress
    publish_address: str
    slots: int | None
    region: str
    labels: Mapping[str, str]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(key)
    group.command()(doctor)
    group.command()(add)


def key(as_json: AsJson = False) -> None:
    """Print the public key that lets SpawnAI into a host, and where to put it.

    The key is the last line of stdout: spawnctl hosts key | ssh root@ADDRESS "cat >>
    .ssh/authorized_keys"
    """
    line = trust.public_key(local.settings())
    if as_json:
        output.as_json({"public_key": line})
        return
    output.stderr().print("Append it to ~/.ssh/authorized_keys of the user to log in as:")
    print(line)


def doctor(
    which: Annotated[
        str,
        typer.Argument(metavar="[NAME|ADDRESS]", help="A host, or any machine; else all hosts."),
    ] = "",
    publish_address: Annotated[str, typer.Option(help="For a machine that is no host yet.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check a machine, in the pool or not, and say how to mend what is wrong.

    Changes nothing there. Exit code 7 when something is wrong.
    """
    settings = local.settings()
    found = dict(_examined(settings, which, publish_address))
    wrong = any(one.level is Level.PROBLEM for checks in found.values() for one in checks)
    if as_json:
        hosts = {name: findings.plain(checks) for name, checks in found.items()}
        output.as_json({"ok": not wrong, "hosts": hosts})
    else:
        for name, checks in found.items():
            if len(found) > 1:
                output.stdout().print(f"\n{output.plain(name)}", style="bold")
            findings.show(checks)
    if wrong:
        raise typer.Exit(Exit.PROBLEMS)


def add(
    address: AddressArgument,
    name: Annotated[str, typer.Option(help="What you will know it by, e.g. paris-1.")] = "",
    slots: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Sandboxes at once; from memory and CPUs.")
    ] = None,
    region: Annotated[str, typer.Option(help="For run --region, e.g. eu.")] = "",
    publish_address: Annotated[
        str, typer.Option(help="Its IPv4 address that the proxy reaches; else ADDRESS's.")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For run --label; repeatable.")
    ] = None,
    fingerprint: FingerprintOption = "",
    yes: YesOption = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is up.")] = True,
    timeout: Annotated[str, typer.Option(help="Wait at most so long.")] = "10m",
) -> None:
    """Put a machine into the pool, once it was found fit.

    Checks it as `hosts doctor` does, and refuses it with every problem and its fix; nothing is
    half-added. SSH logs in with the key that `hosts key` prints.
    """
    settings, within_s = local.settings(), duration.parse(timeout)
    asked = _asked(address, name, slots, region, publish_address, label or [])
    with Api.of(settings) as api:
        _refuse_twins(api.get(ALL)["hosts"], asked)
        shown = surveys.host_key(asked.address)
        trust.confirm(shown, asked.address, fingerprint, yes=yes)
        body = _body(settings, asked, shown)
        if wait:
            pushing.push_all(settings, [_target(asked, shown)])
        api.post(ALL, body)
        if wait:
            _await_up(api, asked.name, within_s)
    print(f"{asked.name} is {'up' if wait else 'joining'}, with {body['slots']} slots")


# --- doctor ---------------------------------------------------------------------------------------


def _examined(
    settings: Settings, which: str, publish_address: str
) -> Sequence[tuple[str, Sequence[Finding]]]:
    """Findings by name or address."""
    if which.startswith("ssh:"):
        return [(which, _stranger(settings, host_fields.parse_address(which), publish_address))]
    entries = [targets.find(settings, which)] if which else targets.remote(settings)
    if not entries:
        raise Problem(
            Exit.NOT_FOUND,
            "no_hosts",
            "the pool has no hosts that are reached by SSH",
            "Check a machine before it joins: spawnctl hosts doctor ssh://root@ADDRESS",
            "Check this one: spawnctl doctor",
        )
    found = []
    for entry in entries:
        address = targets.address_of(entry)
        looked = surveys.look(settings, address, entry.host_key, entry.publish_address)
        found.append((entry.name, looked.findings))
    return found


def _stranger(settings: Settings, address: HostAddress, publish_address: str) -> Sequence[Finding]:
    """A machine that is no host yet: its key is taken as it is, which gives away nothing."""
    publish = surveys.publish_address(publish_address, address)
    try:
        shown = surveys.host_key(address)
    except errors.LinkDown as error:
        return [surveys.failed(error, address)]
    looked = surveys.look(settings, address, shown.line, publish)
    return [ok("host key", f"{shown.fingerprint}, not compared yet"), *looked.findings]


# --- add ------------------------------------------------------------------------------------------


def _asked(
    address: str, name: str, slots: int | None, region: str, publish: str, labels: Sequence[str]
) -> Asked:
    """Raises InvalidInput, Problem."""
    where = host_fields.parse_address(address)
    if region:
        host_fields.checked_labels({"region": region})
    return Asked(
        name=host_fields.checked_name(name or _name_of(where)),
        address=where,
        publish_address=surveys.publish_address(publish, where),
        slots=slots,
        region=region,
        labels=parse_labels(labels),
    )


def _name_of(address: HostAddress) -> str:
    """The first part of a machine's name names the host. Raises Problem for a mere number."""
    first = address.host.partition(".")[0].lower()
    if first.isdigit() or ":" in address.host:
        raise Problem(
            Exit.USAGE, "name_needed", f"{address} needs a name", "For example: --name paris-1"
        )
    return first


def _refuse_twins(known: Sequence[Json], asked: Asked) -> None:
    """Before anybody is asked anything: the API would refuse these too. Raises Problem."""
    for one in known:
        if one["name"] == asked.name:
            what = f"there is a host named {asked.name} already"
        elif one["address"] == str(asked.address):
            what = f"{asked.address} is in the pool already, as {one['name']}"
        else:
            continue
        raise Problem(
            Exit.CONFLICT,
            "host_exists",
            what,
            f"See it: spawnctl hosts show {one['name']}",
            "Or choose another --name." if one["name"] == asked.name else "",
        )


def _body(settings: Settings, asked: Asked, shown: HostKey) -> Json:
    """What the API gets for a machine that is fit. Raises Problem with every reason if it isn't."""
    looked = surveys.look(settings, asked.address, shown.line, asked.publish_address)
    if looked.survey is None or looked.problems:
        raise _unfit(asked, looked.findings)
    said = [one for one in looked.findings if one.level is not Level.OK]
    if said:
        output.stderr().print(findings.report(said))
    facts = looked.survey.facts
    memory = facts.memory_bytes or 0
    return {
        "name": asked.name,
        "address": str(asked.address),
        "host_key": shown.line,
        "publish_address": asked.publish_address,
        "machine_id": facts.machine_id,
        "slots": asked.slots or host_fields.default_slots(memory_bytes=memory, cpus=facts.cpus),
        "region": asked.region,
        "labels": dict(asked.labels),
    }


def _unfit(asked: Asked, found: Sequence[Finding]) -> Problem:
    """The first problem gives its code; all of them, and the warnings, are shown before it."""
    problems = [one for one in found if one.level is Level.PROBLEM]
    first = problems[0]
    output.stderr().print(findings.report([one for one in found if one.level is not Level.OK]))
    others = f"; and {output.count(len(problems) - 1, 'more problem')}" if problems[1:] else ""
    return Problem(
        Exit.PROBLEMS,
        first.code,
        f"{asked.name} was not added: {first.name}: {first.detail}{others}",
        *(one.fix for one in problems),
        f"Look again: spawnctl hosts doctor {asked.address}",
    )


def _target(asked: Asked, shown: HostKey) -> pushing.Target:
    return pushing.Target(name=asked.name, address=asked.address, pinned=shown.line)


def _await_up(api: Api, name: str, within_s: float) -> None:
    waits.until(
        api,
        waits.Awaited(
            name=name,
            what="to be up",
            there=lambda found: found is not None and found["state"] == "up",
            say=lambda found: f"{found['name']} is {found['state']}: {found['reason']}",
            within_s=within_s,
            goes_on="it goes on joining",
        ),
    )
