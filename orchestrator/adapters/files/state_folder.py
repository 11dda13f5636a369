"""The state folder's small files: who this installation is, and its secrets (mode 0600)."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from orchestrator.domain import errors

_SECRET = "secret"  # noqa: S105 - a file's name
_OPERATOR_KEY = "operator.key"
_INSTANCE = "instance"
_IMAGE = "runtime-image"


class StateFolder:
    """Makes what is missing, once; two processes that start together agree on what they made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder: others may pass through it to the proxy's files, and see nothing.

        Raises errors.InvalidInput when they couldn't: nginx's workers then run as another user.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        closed = [parent for parent in self.folder.parents if not parent.stat().st_mode & 0o001]
        if os.geteuid() == 0 and closed:
            raise errors.InvalidInput(
                f"{closed[-1]} is closed to other users, and the proxy's workers are others: set"
                " SPAWN_STATE_DIR to a folder outside of it, such as /var/lib/spawnai",
                field="SPAWN_STATE_DIR",
            )

    def secret(self) -> bytes:
        """Signs tokens and cookies."""
        return self._once(_SECRET, secrets.token_hex(32)).encode()

    def instance(self) -> str:
        """10 hex characters that tell our containers from those of another installation."""
        return self._once(_INSTANCE, secrets.token_hex(5))

    def operator_key(self, fresh: str) -> str:
        """The key that spawnctl uses on this machine; `fresh` becomes it when there is none."""
        return self._once(_OPERATOR_KEY, fresh)

    def forget_operator_key(self) -> None:
        """It was revoked; the next one asked for is a new one."""
        (self.folder / _OPERATOR_KEY).unlink(missing_ok=True)

    def image(self) -> str:
        """Reference of the runtime image that was built last; "" when none was."""
        try:
            return (self.folder / _IMAGE).read_text().strip()
        except FileNotFoundError:
            return ""

    def set_image(self, reference: str) -> None:
        """From the next sandbox on."""
        draft = self.folder / f"{_IMAGE}.new"
        draft.write_text(reference + "\n")
        draft.replace(self.folder / _IMAGE)

    def _once(self, name: str, value: str) -> str:
        path = self.folder / name
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as draft:
                draft.write(value)
            try:
                os.link(draft.name, path)  # atomic, and refuses when another was faster
            except FileExistsError:
                pass
            finally:
                Path(draft.name).unlink()
        return path.read_text().strip()
