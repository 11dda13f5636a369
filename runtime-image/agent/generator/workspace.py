"""The files of the app that is being made, as the model's tools see them. Used by `toolbox.py`.

Every refusal tells the model what to do instead. A command of the model may replace a file by a
link or a device at any time, so each access looks at the file again.
"""

from __future__ import annotations

import os
import stat

from orchestrator.contract.bundles import MANIFEST_NAME, BundleInvalid, safe_relative
from orchestrator.contract.manifest import read_manifest
from orchestrator.contract.trees import open_plain, walk_files
from orchestrator.contract.wire import Limits

LISTED_FILES = 300
READ_CHARS = 60_000


class ToolError(Exception):
    """A tool call that wasn't carried out. The model gets the message."""


class Workspace:
    """One folder. The model's commands change it as well."""

    def __init__(self, folder: str, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    @property
    def fingerprint(self) -> frozenset[tuple[str, int, int]]:
        """Changes when a file is written, created or deleted."""
        return frozenset(
            (path, details.st_size, details.st_mtime_ns)
            for path, details in walk_files(self._folder)
        )

    @property
    def empty(self) -> bool:
        return next(walk_files(self._folder), None) is None

    def listing(self) -> str:
        """All paths and sizes, for the model."""
        files = sorted((path, details.st_size) for path, details in walk_files(self._folder))
        if not files:
            return "There are no files yet."
        lines = [f"{path} ({size} bytes)" for path, size in files[:LISTED_FILES]]
        more = len(files) - LISTED_FILES
        return "\n".join([*lines, *([f"... and {more} more"] if more > 0 else [])])

    def read(self, path: str) -> str:
        target, size = self._existing(path)
        if size > self._limits.file_bytes:
            raise ToolError(
                f"{path} has {size} bytes, too much to read at once. Look at a part of it with run,"
                f" such as `sed -n 1,100p {path}`."
            )
        try:
            with open_plain(target) as source:
                raw = source.read(size + 1)
        except OSError as error:
            raise ToolError(f"{path} can't be read: {error.strerror}.") from error
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{path} is not UTF-8 text. Look at it with run and python.") from error
        return text if len(text) <= READ_CHARS else f"{text[:READ_CHARS]}\n[... cut ...]"

    def write(self, path: str, content: str) -> None:
        clean = self._clean(path)
        raw = content.encode("utf-8", "replace")
        self._check_size(clean, len(raw))
        if clean == MANIFEST_NAME:
            _check_manifest(raw)
        target = os.path.join(self._folder, clean)
        self._check_parents(clean)
        if os.path.isdir(target) and not os.path.islink(target):
            raise ToolError(f"{clean} is a folder. Choose another name.")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.lexists(target):
                os.unlink(target)  # never through a link, never into a device
            with open(target, "xb") as sink:
                sink.write(raw)
        except OSError as error:
            raise ToolError(f"{clean} can't be written: {error.strerror}.") from error

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece that occurs exactly once."""
        if not old:
            raise ToolError("old_text is empty. Use write_file to write a whole file.")
        text = self.read(path)
        count = text.count(old)
        if count == 0:
            raise ToolError(
                f"old_text is not in {path}. Blanks and line ends count too: read_file shows the"
                " file."
            )
        if count > 1:
            raise ToolError(
                f"old_text is in {path} {count} times. Include more of the lines around it, so that"
                " it occurs once."
            )
        self.write(path, text.replace(old, new))

    def delete(self, path: str) -> None:
        target, _ = self._existing(path)
        try:
            os.unlink(target)
        except OSError as error:
            raise ToolError(f"{path} can't be deleted: {error.strerror}.") from error

    def _existing(self, path: str) -> tuple[str, int]:
        """Where a plain file is, and its size in bytes."""
        clean = self._clean(path)
        self._check_parents(clean)
        target = os.path.join(self._folder, clean)
        try:
            details = os.lstat(target)
        except OSError as error:
            raise ToolError(f"There is no file {clean}. list_files shows all files.") from error
        if stat.S_ISDIR(details.st_mode):
            raise ToolError(f"{clean} is a folder. list_files shows the files in it.")
        if not stat.S_ISREG(details.st_mode):
            raise ToolError(f"{clean} is a link or a device, not a plain file. Leave it alone.")
        return target, details.st_size

    def _clean(self, path: str) -> str:
        try:
            clean = safe_relative(path)
        except BundleInvalid as error:
            raise ToolError(f"{error}. Name a file in the app's folder, such as app.py.") from error
        if not clean:
            raise ToolError("The path names no file. Name one, such as index.html.")
        return clean

    def _check_parents(self, clean: str) -> None:
        folder = self._folder
        for part in clean.split("/")[:-1]:
            folder = os.path.join(folder, part)
            if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
                shown = os.path.relpath(folder, self._folder)
                raise ToolError(f"{shown} is not a folder, so {clean} can't be in it.")

    def _check_size(self, clean: str, size: int) -> None:
        limits = self._limits
        if size > limits.file_bytes:
            raise ToolError(
                f"{clean} would have {size} bytes; a file may have {limits.file_bytes}. Write less,"
                " or have the app make it when it starts."
            )
        others = [details.st_size for path, details in walk_files(self._folder) if path != clean]
        if len(others) >= limits.files:
            raise ToolError(f"The app may have {limits.files} files. Delete or join some first.")
        if sum(others) + size > limits.total_bytes:
            raise ToolError(f"All files together may have {limits.total_bytes} bytes. Write less.")


def _check_manifest(raw: bytes) -> None:
    try:
        read_manifest(raw)
    except BundleInvalid as error:
        raise ToolError(f"{error}. It was not written; correct it and write it again.") from error
