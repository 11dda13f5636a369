"""The small files in the state folder: the installation's identity and secrets (mode 0600).

All processes and spawnctl read them through this module.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.adapters import durable
from orchestrator.domain import errors

_SECRET = "secret"  # noqa: S105 - a file's name
_OPERATOR_KEY = "operator.key"
_INSTANCE = "instance"
_IMAGE = "runtime-image"
SUPERVISOR_LOCK = "supervisor.lock"  # written once, at the start


class StateFolder:
    """Creates what is missing, once. Two processes that start together get the same values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Create the folder. Other users may pass through it to the proxy's files, but not list it.

        nginx's workers need that: when we run as root, they run as another user. Raises
        errors.InvalidInput when a parent folder is closed to other users.
        """
        with errors.storage("make the state folder"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)
            closed = [parent for parent in self.folder.parents if not parent.stat().st_mode & 0o001]
        if os.geteuid() == 0 and closed:
            raise errors.InvalidInput(
                f"{closed[-1]} is closed to other users, and the proxy's workers run as another"
                " user: set SPAWN_STATE_DIR to a folder outside of it, such as /var/lib/spawnai",
                field="SPAWN_STATE_DIR",
            )

    def secret(self) -> bytes:
        """Return the secret that signs tokens and cookies."""
        return self._read_or_create(_SECRET, secrets.token_hex(32)).encode()

    def instance(self) -> str:
        """Return 10 hex characters that tell our containers from another installation's."""
        return self._read_or_create(_INSTANCE, secrets.token_hex(5))

    def operator_key(self, fresh: str) -> str:
        """Return the key that spawnctl uses on this machine. If there is none, store `fresh`."""
        return self._read_or_create(_OPERATOR_KEY, fresh)

    def started_at(self) -> datetime | None:
        """When the supervisor of this folder started, by the machine's clock. None if there never
        was one."""
        try:
            stamp_s = (self.folder / SUPERVISOR_LOCK).stat().st_mtime
        except OSError:
            return None
        return datetime.fromtimestamp(stamp_s, UTC)

    def delete_operator_key(self) -> None:
        """Delete the revoked key, so that the next call of `operator_key` stores a new one."""
        with errors.storage("delete the operator's key"):
            (self.folder / _OPERATOR_KEY).unlink(missing_ok=True)

    def image(self) -> str:
        """Return the reference of the runtime image that was built last; "" if there is none."""
        with errors.storage("read which runtime image was built last"):
            try:
                return (self.folder / _IMAGE).read_text().strip()
            except FileNotFoundError:
                return ""

    def set_image(self, reference: str) -> None:
        """Use this runtime image from the next sandbox on."""
        with errors.storage("note the runtime image"):
            durable.replace_file(self.folder / _IMAGE, f"{reference}\n".encode())

    def free_bytes(self) -> int:
        """The bytes that its disk has free for our user."""
        with errors.storage("measure the disk of the state folder"):
            stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def write_warnings(self, warnings: Sequence[str]) -> None:
        """Write the file that the banner of `spawnctl up` reads. That it exists tells the
        supervisor that the fences were checked."""
        draft = self.folder / "warnings.new"
        with errors.storage("write the warnings"):
            draft.write_text("".join(f"{warning}\n" for warning in warnings), "utf-8")
            draft.replace(self.folder / "warnings")

    def _read_or_create(self, name: str, value: str) -> str:
        path = self.folder / name
        with errors.storage(f"read or create the file {name}"):
            if not path.exists():
                durable.create_file(path, value.encode())
            text = path.read_text().strip()
        if not text:
            raise errors.InvalidInput(
                f"{path} is empty, as after a loss of power: put it back from your backup, or"
                " delete it if this installation has no sessions yet",
                field=name,
            )
        return text
