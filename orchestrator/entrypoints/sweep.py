"""Clean up after a stop: remove our containers, networks and firewall rules from the hosts.

The supervisor runs it after the other processes have stopped. It covers every host that answers.
Sessions stay in the store: the next start brings their apps back from their bundles.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestrator import bootstrap, config
from orchestrator.adapters.hosts.fleet import SshFleet
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.entrypoints import leader_engines
from orchestrator.services.deps import Deps
from orchestrator.services.pool import reconcile

_LINKS_TIMEOUT_S = 8.0
_POLL_S = 0.05


def main() -> int:
    settings = config.load()
    fleet = leader_engines.make_fleet(settings)
    engines = leader_engines.make_engines(settings, fleet)
    deps = bootstrap.build(settings, engines)
    try:
        hosts = [host for host in deps.store.hosts.list() if host.state is not HostState.LOST]
        with fleet:
            fleet.set_hosts(hosts)
            linked = _wait_for_links(fleet, hosts)
            failures = _sweep(deps, linked)
    except errors.SpawnError as error:
        print(f"the sandboxes could not be removed: {error}", file=sys.stderr)
        return 1
    finally:
        engines.close()
        deps.store.close()
    for name, failure in failures.items():
        print(f"{name}: the sandboxes could not all be removed: {failure}", file=sys.stderr)
    for host in hosts:
        if host not in linked:
            print(f"{host.name} did not answer: it is cleaned when it returns", file=sys.stderr)
    return 1 if failures else 0


def _sweep(deps: Deps, hosts: Sequence[Host]) -> Mapping[str, str]:
    """Clean the hosts side by side, so that a slow one keeps no other. Returns the failures, by the
    hosts' names."""
    counts: list[int] = []
    failures: dict[str, str] = {}

    def sweep_host(host: Host) -> None:
        try:
            counts.append(reconcile.remove_all_containers(deps, host))
        except errors.SpawnError as error:
            failures[host.name] = str(error)

    with ThreadPoolExecutor(max(1, len(hosts))) as threads:
        list(threads.map(sweep_host, hosts))
    print(f"removed {sum(counts)} sandboxes", file=sys.stderr)
    return failures


def _wait_for_links(fleet: SshFleet, hosts: Sequence[Host]) -> Sequence[Host]:
    """The hosts whose link is up. Waits until all are up, or until the timeout."""
    deadline = time.monotonic() + _LINKS_TIMEOUT_S
    while True:
        linked = [
            host for host in hosts if (link := fleet.link_state(host)) is not None and link.up
        ]
        if len(linked) == len(hosts) or time.monotonic() > deadline:
            return linked
        time.sleep(_POLL_S)


if __name__ == "__main__":
    raise SystemExit(main())
