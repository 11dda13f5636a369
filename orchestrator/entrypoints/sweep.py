"""One-off after the processes stopped: no container, network or rule of ours stays behind.

Run by the supervisor, on every host that answers. Sessions stay in the store; their apps come back
from their bundles.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from orchestrator import bootstrap, config
from orchestrator.adapters.hosts.fleet import SshFleet
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host, HostState
from orchestrator.entrypoints import leader_engines
from orchestrator.services.pool import reconcile

_LINKS_WITHIN_S = 8.0
_LOOK_S = 0.05


def main() -> int:
    settings = config.load()
    fleet = leader_engines.fleet(settings)
    docker = leader_engines.docker(settings, fleet)
    deps = bootstrap.build(settings, docker)
    try:
        hosts = [one for one in deps.store.hosts.list() if one.state is not HostState.LOST]
        with fleet:
            fleet.keep(hosts)
            answering = _await(fleet, hosts)
            count = sum(reconcile.empty(deps, one) for one in answering)
    except errors.SpawnError as error:
        print(f"the sandboxes could not be removed: {error}", file=sys.stderr)
        return 1
    finally:
        docker.close()
        deps.store.close()
    print(f"removed {count} sandboxes", file=sys.stderr)
    for one in hosts:
        if one not in answering:
            print(f"{one.name} did not answer: it is swept when it returns", file=sys.stderr)
    return 0


def _await(fleet: SshFleet, hosts: Sequence[Host]) -> Sequence[Host]:
    """Those that answer, once all do or the time is up."""
    ends = time.monotonic() + _LINKS_WITHIN_S
    while True:
        found = [one for one in hosts if (reach := fleet.reach(one)) is not None and reach.up]
        if len(found) == len(hosts) or time.monotonic() > ends:
            return found
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    raise SystemExit(main())
