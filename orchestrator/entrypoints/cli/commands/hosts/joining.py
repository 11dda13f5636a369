"""`spawnctl hosts key|doctor|add`: checks a machine, and adds it to the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from orchestrator.adapters.ssh.connection import HostKey
from orchestrator.config import Settings
from orchestrator.domain import duration, errors
from orchestrator.domain.pool import host_fields
from orchestrator.domain.pool.host_fields import HostAddress
from orchestrator.entrypoints.cli import local, output
from orchestrator.entrypoints.cli.arguments import parse_labels
from orchestrator.entrypoints.cli.client import HOSTS, Api, Json
from orchestrator.entrypoints.cli.commands import image_push
from orchestrator.entrypoints.cli.commands.hosts import inspection, targets, trust
from orchestrator.entrypoints.cli.commands.hosts.trust import (
    AddressArgument,
    FingerprintOption,
    YesOption,
)
from orchestrator.entrypoints.cli.commands.hosts.waits import Goal, wait_for
from orchestrator.entrypoints.cli.exits import Exit
from orchestrator.entrypoints.cli.findings import Finding, Level, ok
from orchestrator.entrypoints.cli.output import AsJson
from orchestrator.entrypoints.cli.problems import Problem
from orchestrator.entrypoints.cli.views.findings import findings_table, print_findings, to_json


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `hosts add`, checked as far as possible without the machine."""

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
    line = trust.ensure_public_key(local.settings())
    if as_json:
        output.print_json({"public_key": line})
        return
    output.stderr().print("Append it to ~/.ssh/authorized_keys of the user to log in as:")
    print(line)


def doctor(
    machine: Annotated[
        str,
        typer.Argument(
            metavar="[NAME|ADDRESS]", help="A host, or any machine. Without it: all hosts."
        ),
    ] = "",
    publish_address: Annotated[
        str, typer.Option(help="For a machine that is not in the pool yet.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check a machine, in the pool or not, and say how to fix what is wrong.

    Changes nothing on it. Ends with exit code 7 if there is a problem.
    """
    settings = local.settings()
    reports = _check_machines(settings, machine, publish_address)
    has_problems = any(
        finding.level is Level.PROBLEM for findings in reports.values() for finding in findings
    )
    if as_json:
        hosts = {name: to_json(findings) for name, findings in reports.items()}
        output.print_json({"ok": not has_problems, "hosts": hosts})
    else:
        for name, findings in reports.items():
            if len(reports) > 1:
                output.stdout().print(f"\n{output.plain(name)}", style="bold")
            print_findings(findings)
    if has_problems:
        raise typer.Exit(Exit.PROBLEMS)


def add(
    address: AddressArgument,
    name: Annotated[str, typer.Option(help="A name for the host, e.g. paris-1.")] = "",
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Sandboxes at once. Without it, memory and CPUs decide.",
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="For run --region, e.g. eu.")] = "",
    publish_address: Annotated[
        str,
        typer.Option(help="Its IPv4 address that the proxy reaches. Without it: ADDRESS's."),
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For run --label; repeatable.")
    ] = None,
    fingerprint: FingerprintOption = "",
    yes: YesOption = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is up.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait at most, e.g. 20m.")] = "10m",
) -> None:
    """Add a machine to the pool after checking it.

    Runs the checks of `hosts doctor`. If there is a problem, prints every problem with its fix and
    adds nothing. Logs in over SSH with the key that `hosts key` prints.
    """
    settings, timeout_s = local.settings(), duration.parse(timeout)
    request = _parse_request(address, name, slots, region, publish_address, label or [])
    with Api.from_settings(settings) as api:
        _refuse_duplicate(api.get(HOSTS)["hosts"], request)
        host_key = inspection.fetch_host_key(request.address)
        trust.confirm_host_key(host_key, request.address, fingerprint, yes=yes)
        body = _body(settings, request, host_key)
        if wait:
            image_push.push_to_hosts(settings, [_target(request, host_key)])
        api.post(HOSTS, body)
        if wait:
            _wait_until_up(api, request.name, timeout_s)
    print(f"{request.name} is {'up' if wait else 'joining'}, with {body['slots']} slots")


# --- doctor ---------------------------------------------------------------------------------------


def _check_machines(
    settings: Settings, machine: str, publish_address: str
) -> Mapping[str, Sequence[Finding]]:
    """Findings by the machine's name or address."""
    if machine.startswith("ssh:"):
        address = host_fields.parse_address(machine)
        return {machine: _check_new_machine(settings, address, publish_address)}
    entries = (
        [targets.find_host(settings, machine)] if machine else targets.list_remote_hosts(settings)
    )
    if not entries:
        raise Problem(
            Exit.NOT_FOUND,
            "no_hosts",
            "the pool has no hosts that are reached by SSH",
            "Check a machine before it joins: spawnctl hosts doctor ssh://root@ADDRESS",
            "Check this one: spawnctl doctor",
        )
    return {
        entry.name: inspection.inspect_machine(
            settings,
            targets.address_of(entry),
            entry.host_key,
            entry.publish_address,
            entry.slots or None,
        ).findings
        for entry in entries
    }


def _check_new_machine(
    settings: Settings, address: HostAddress, publish_address: str
) -> Sequence[Finding]:
    """Check a machine that is no host yet. Accepts any host key: the checks send it no secret."""
    publish_address = inspection.choose_publish_address(publish_address, address)
    try:
        host_key = inspection.fetch_host_key(address)
    except errors.LinkDown as error:
        return [inspection.connection_failed(error, address)]
    result = inspection.inspect_machine(settings, address, host_key.line, publish_address)
    return [ok("host key", f"{host_key.fingerprint}, not compared yet"), *result.findings]


# --- add ------------------------------------------------------------------------------------------


def _parse_request(
    address: str, name: str, slots: int | None, region: str, publish: str, labels: Sequence[str]
) -> Request:
    """Raises InvalidInput, Problem."""
    host_address = host_fields.parse_address(address)
    if region:
        host_fields.checked_labels({"region": region})
    return Request(
        name=host_fields.checked_name(name or _default_name(host_address)),
        address=host_address,
        publish_address=inspection.choose_publish_address(publish, host_address),
        slots=slots,
        region=region,
        labels=parse_labels(labels),
    )


def _default_name(address: HostAddress) -> str:
    """The first part of the machine's domain name. Raises Problem if the address is a number."""
    first_part = address.host.partition(".")[0].lower()
    if first_part.isdigit() or ":" in address.host:
        raise Problem(
            Exit.USAGE, "name_needed", f"{address} needs a name", "For example: --name paris-1"
        )
    return first_part


def _refuse_duplicate(hosts: Sequence[Json], request: Request) -> None:
    """Refuse a name or an address that the pool has. The API would refuse it too, but only after
    the operator has confirmed the host key. Raises Problem (host_exists)."""
    for host in hosts:
        same_name = host["name"] == request.name
        if same_name:
            message = f"there is a host named {request.name} already"
        elif host["address"] == str(request.address):
            message = f"{request.address} is in the pool already, as {host['name']}"
        else:
            continue
        raise Problem(
            Exit.CONFLICT,
            "host_exists",
            message,
            f"See it: spawnctl hosts show {host['name']}",
            "Or choose another --name." if same_name else "",
        )


def _body(settings: Settings, request: Request, host_key: HostKey) -> Json:
    """Check the machine, and build the body for the API. Raises Problem with every reason if the
    machine has problems."""
    result = inspection.inspect_machine(
        settings, request.address, host_key.line, request.publish_address, request.slots
    )
    if result.survey is None or result.problems:
        raise _unfit(request, result.findings)
    warnings = [finding for finding in result.findings if finding.level is not Level.OK]
    if warnings:
        output.stderr().print(findings_table(warnings))
    facts = result.survey.facts
    memory = facts.memory_bytes or 0
    return {
        "name": request.name,
        "address": str(request.address),
        "host_key": host_key.line,
        "publish_address": request.publish_address,
        "machine_id": facts.machine_id,
        "slots": request.slots or host_fields.default_slots(memory_bytes=memory, cpus=facts.cpus),
        "region": request.region,
        "labels": dict(request.labels),
    }


def _unfit(request: Request, findings: Sequence[Finding]) -> Problem:
    """Prints all problems and warnings. The problem that is raised has the first one's code."""
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    first = problems[0]
    not_ok = [finding for finding in findings if finding.level is not Level.OK]
    output.stderr().print(findings_table(not_ok))
    others = f"; and {output.count(len(problems) - 1, 'more problem')}" if problems[1:] else ""
    return Problem(
        Exit.PROBLEMS,
        first.code,
        f"{request.name} was not added: {first.name}: {first.detail}{others}",
        *(problem.fix for problem in problems),
        f"Look again: spawnctl hosts doctor {request.address}",
    )


def _target(request: Request, host_key: HostKey) -> image_push.Target:
    return image_push.Target(name=request.name, address=request.address, pinned=host_key.line)


def _wait_until_up(api: Api, name: str, timeout_s: float) -> None:
    wait_for(
        api,
        Goal(
            name=name,
            text="to be up",
            is_reached=lambda host: host is not None and host["state"] == "up",
            describe=lambda host: f"{host['name']} is {host['state']}: {host['reason']}",
            timeout_s=timeout_s,
            goes_on="it goes on joining",
        ),
    )
