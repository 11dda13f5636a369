"""A process of the API: serves page and public API on a socket of its own, for the proxy.

The supervisor starts several, each with its number as the argument. They share nothing but the
store.
"""

from __future__ import annotations

import sys
from datetime import datetime

import uvloop

from orchestrator import bootstrap, config, observability
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.domain import errors
from orchestrator.entrypoints.api import public_app, serving
from orchestrator.entrypoints.api.context import Context
from orchestrator.entrypoints.api.hub import Hub
from orchestrator.loops.near_looks import taking_looks
from orchestrator.ports import topics
from orchestrator.services.deps import Deps
from orchestrator.services.people import keys
from orchestrator.slim import structlog

log = structlog.get_logger()


def main() -> None:
    """Serve until SIGTERM."""
    number = int(sys.argv[1])
    settings = config.load()
    observability.configure(settings.processes.log_level, f"api-{number}")
    deps, near_looks = taking_looks(bootstrap.build(settings, bootstrap.NoEngines()))
    state = StateFolder(settings.places.state_dir)
    _ensure_operator(deps, state)
    for template in deps.catalog.list():
        # Also among the bundles: a running app must be recoverable after its template changes.
        try:
            deps.bundles.put(deps.catalog.data(template.digest) or b"")
        except errors.StorageUnavailable as error:
            log.warning("template_not_kept", template=template.name, error=str(error))
    hub = Hub(settings.places.events_folder, f"api-{number}", [topics.SESSION])
    context = Context(
        settings=settings,
        deps=deps,
        hub=hub,
        started_at=started_at(deps, state),
        number=number,
    )
    path = settings.places.api_socket(number)
    path.parent.mkdir(mode=0o711, exist_ok=True)
    path.parent.chmod(0o711)  # the proxy's workers enter it
    server = serving.make_server(
        public_app.build(context),
        uds=str(path),
        ws="none",
        timeout_keep_alive=75,  # longer than the proxy keeps its connections
        proxy_headers=True,
        forwarded_allow_ips="*",  # whoever may use the socket, the proxy for example
    )
    uvloop.run(serving.serve([server], hub, [], drained=path))
    near_looks.stop()
    deps.store.close()


def started_at(deps: Deps, state: StateFolder) -> datetime:
    """When the supervisor started, by the application's time."""
    stamp = state.started_at()
    return deps.clock.now() if stamp is None else stamp - deps.clock.offset()


def _ensure_operator(deps: Deps, state: StateFolder) -> None:
    try:
        keys.ensure_operator(deps, state.operator_key(keys.make_secret()))
    except errors.Unauthorized as error:
        log.warning("operator_key_replaced", reason=str(error))
        state.delete_operator_key()
        keys.ensure_operator(deps, state.operator_key(keys.make_secret()))


if __name__ == "__main__":
    main()
