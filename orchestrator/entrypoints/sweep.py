"""One-off after the processes stopped: no container, network or rule of ours stays behind.

Run by the supervisor. Sessions stay in the store; their apps come back from their bundles.
"""

from __future__ import annotations

import sys

from orchestrator import bootstrap, config
from orchestrator.adapters.docker_engine import LocalEngines
from orchestrator.domain import errors
from orchestrator.services import pool


def main() -> int:
    settings = config.load()
    engines = LocalEngines(bootstrap.sandbox_limits(settings))
    deps = bootstrap.build(settings, engines)
    try:
        count = pool.empty(deps)
    except errors.SpawnError as error:
        print(f"the sandboxes could not be removed: {error}", file=sys.stderr)
        return 1
    finally:
        engines.close()
        deps.store.close()
    print(f"removed {count} sandboxes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
