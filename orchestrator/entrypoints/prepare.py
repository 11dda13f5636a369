"""Prepare a start: create the state folder, the secrets, the tables and the proxy's configuration.

The supervisor runs it to its end before it starts the other processes. It is a process of its own,
so that its imports don't stay in the supervisor's memory.
"""

from __future__ import annotations

import shutil
import sys

from orchestrator import bootstrap, config
from orchestrator.adapters.files.state_folder import StateFolder
from orchestrator.adapters.proxy import nginx
from orchestrator.adapters.sql_store import upgrade
from orchestrator.adapters.ssh import connection
from orchestrator.domain import errors
from orchestrator.entrypoints.leadership.other_leader import Search
from orchestrator.entrypoints.liveness import exits
from orchestrator.services.people import keys


def main() -> int:
    """Returns the exit status: 0, 1, exits.STANDBY if another control plane has our database, or
    exits.UNUSABLE if somebody has to correct the settings or a file."""
    settings = config.load()
    state = StateFolder(settings.places.state_dir)
    try:
        state.prepare()
        state.secret()
        with errors.storage("make our SSH key"):
            connection.ensure_key(settings.places.ssh_key, f"spawnai-{state.instance()}")
        state.operator_key(keys.make_secret())
        with errors.storage("prepare the state folder"):
            settings.places.redis_socket.parent.mkdir(exist_ok=True)
            shutil.rmtree(settings.places.events_folder, ignore_errors=True)  # of an earlier start
            (settings.places.state_dir / "warnings").unlink(missing_ok=True)  # of an earlier start
        bootstrap.make_clock(settings).start()
        url = settings.places.effective_database_url
        search = Search(url=url, installation=state.instance(), state_dir=state.folder)
        other = search.look_at_start()
        if other is not None:
            print(other.describe(), file=sys.stderr)
            return exits.STANDBY
        upgrade.migrate(url, state.instance())
        with errors.storage("write the proxy's files"):
            nginx.write_base(bootstrap.nginx_settings(settings))
    except errors.SpawnError as error:
        print(f"{error} ({error.code})", file=sys.stderr)
        return exits.UNUSABLE if isinstance(error, errors.Permanent) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
