"""One push of the runtime image to one host: `python -m orchestrator.entrypoints.push_image NAME`.

Started by the daemon for a host that lacks the image; `spawnctl image push` does the same by hand.
"""

from __future__ import annotations

import sys
import time

from orchestrator import bootstrap, config, observability
from orchestrator.adapters import sql_store
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.hosts import image_push
from orchestrator.config import Settings
from orchestrator.domain import errors
from orchestrator.domain.pool.host import Host
from orchestrator.slim import structlog

log = structlog.get_logger()


def main() -> int:
    """0 when the host has the image afterwards."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "push")
    name = sys.argv[1]
    store = sql_store.open_store(settings.places.effective_database_url, pool_size=1)
    try:
        host = store.hosts.by_name(name)
        if host is None:
            log.warning("there is no such host any more", host=name)
            return 1
        began = time.monotonic()
        sent = image_push.push(of(settings, host), bootstrap.sandbox_limits(settings))
    except errors.SpawnError as error:
        log.warning("an image push failed", host=name, code=error.code, error=str(error))
        return 1
    finally:
        store.close()
    log.info("the runtime image is there", host=name, sent=sent, s=round(time.monotonic() - began))
    return 0


def of(settings: Settings, host: Host) -> image_push.Push:
    """What has to go to a host."""
    return image_push.Push(
        image=settings.pool.runtime_image or StateFolder(settings.places.state_dir).image(),
        source_url=settings.places.docker_url,
        address=host.address,
        pinned=host.host_key,
        key=settings.places.ssh_key,
    )


if __name__ == "__main__":
    raise SystemExit(main())
