"""Changes of a running app: from POST to the first answer of the new version, in turn with a bare
`docker run`, which is what starting the app anew would take.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench import model, sessions
from bench.bare import Bare
from bench.groups.generation import KINDS
from bench.measure import Section, latency
from bench.sessions import Made
from tests.e2e.installation import Installation, installed, until

RUNS = 8


def measure() -> Section:
    """A row for changes by message, and one for restores."""
    bare, changes, restores = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        model.serving(Path(folder)) as served,
        installed(**served.settings) as spawn,
    ):
        docker = Bare(spawn=spawn)
        app = sessions.make(spawn, prompt=KINDS["static"], fresh=True)
        for number in range(RUNS):
            bare.append(docker.start())
            changes.append(_change(spawn, app, f"mark {number}"))
            restores.append(_restore(spawn, app, f"mark {number}"))
        sessions.end(spawn, app)
    return Section(
        rows=[
            latency("bare `docker run`, to first 200", bare, bare=bare),
            latency(
                "change of a static app, POST to the new version's first 200; the model answers at"
                " once",
                changes,
                bare=bare,
            ),
            latency("restore of its version 1, the same", restores, bare=bare),
        ]
    )


def _change(spawn: Installation, app: Made, mark: str) -> float:
    """Seconds until the app has this mark."""
    path = f"/api/sessions/{app.session_id}/messages"
    return _until(spawn, app, path, {"text": mark}, mark, is_there=True)


def _restore(spawn: Installation, app: Made, mark: str) -> float:
    """Seconds until the app doesn't have this mark any more."""
    path = f"/api/sessions/{app.session_id}/versions/1/restore"
    return _until(spawn, app, path, None, mark, is_there=False)


def _until(
    spawn: Installation,
    app: Made,
    path: str,
    body: dict[str, str] | None,
    mark: str,
    *,
    is_there: bool,
) -> float:
    started_at = time.perf_counter()
    response = spawn.call_patiently("POST", path, body, key=spawn.operator_key)
    assert response.status == 202, response.text
    sessions.await_200(
        spawn.http_port, app.host, lambda answer: (mark.encode() in answer) is is_there
    )
    duration_s = time.perf_counter() - started_at
    until(lambda: spawn.status(app.session_id)["ready"], 30, "the end of the change")
    return duration_s
