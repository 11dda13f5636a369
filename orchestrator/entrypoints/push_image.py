"""ImagePush the runtime image to one host: `python -m orchestrator.entrypoints.push_image NAME`.

The daemon starts this process for a host that lacks the image. `spawnctl image push` does the same
by hand.
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
    """ImagePush the image. Returns 0 if the host has it afterwards, otherwise 1."""
    settings = config.load()
    observability.configure(settings.processes.log_level, "push")
    name = sys.argv[1]
    store = sql_store.open_store(settings.places.effective_database_url, pool_size=1)
    try:
        host = store.hosts.by_name(name)
        if host is None:
            log.warning("image_push_failed", host=name, reason="the host was removed")
            return 1
        started_at = time.monotonic()
        sent = image_push.push_image(_push_of(settings, host), bootstrap.sandbox_limits(settings))
    except errors.SpawnError as error:
        log.warning("image_push_failed", host=name, code=error.code, error=str(error))
        return 1
    finally:
        store.close()
    log.info("image_pushed", host=name, sent=sent, s=round(time.monotonic() - started_at))
    return 0


def _push_of(settings: Settings, host: Host) -> image_push.ImagePush:
    """Which image goes to the host, and how to reach it."""
    return image_push.ImagePush(
        image=settings.pool.runtime_image or StateFolder(settings.places.state_dir).image(),
        source_url=settings.places.docker_url,
        address=host.address,
        pinned=host.host_key,
        key=settings.places.ssh_key,
    )


if __name__ == "__main__":
    raise SystemExit(main())
