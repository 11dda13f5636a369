"""The small files in the state folder: the installation's identity and secrets (mode 0600).

All processes and spawnctl read them through this module.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import small_files
from orchestrator.adapters import durable
from orchestrator.domain import errors

_SECRET = "secret"  # noqa: S105 - a file's name
_OPERATOR_KEY = "operator.key"
_INSTANCE = "instance"
_IMAGE = "runtime-image"
# What the files contain. A secret may be somebody's own, if it is long enough.
_FORMS = {
    _SECRET: re.compile(r"[ -~]{32,}"),
    _OPERATOR_KEY: re.compile(r"[!-~]+"),
    _INSTANCE: re.compile(r"[0-9a-f]{10}"),
}
_IMAGE_FORM = re.compile(r"[!-~]+")
_RESTORE = "put it back from your backup, or delete it if this installation has no sessions yet"
_REMEDIES = {
    _SECRET: _RESTORE,
    _INSTANCE: _RESTORE,
    _OPERATOR_KEY: "delete it, and the next start makes another one",
}
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
        """Return the secret that signs tokens and cookies. Raises errors.InvalidInput if its file
        has none."""
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
        """Return the reference of the runtime image that was built last; "" if there is none, or
        the file has something else."""
        with errors.storage("read which runtime image was built last"):
            try:
                text = small_files.read_text(self.folder / _IMAGE).strip()
            except FileNotFoundError:
                return ""
        return text if _IMAGE_FORM.fullmatch(text) else ""

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
            text = small_files.read_text(path).strip()
        if not _FORMS[name].fullmatch(text):
            problem = "is not as SpawnAI wrote it" if text else "is empty"
            raise errors.InvalidInput(
                f"{path} {problem}, as after a loss of power: {_REMEDIES[name]}", field=name
            )
        return text
