"""Copies the files that an app made at run time, such as its database, to its next version.

Called by `workshop.py`. A version is only source; the data of its users must survive a change.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection

from orchestrator.contract.trees import open_plain, walk_files

FILES_MAX = 20_000


def carry_over(
    folder: str, sources: Collection[str], next_folder: str, *, most: int = FILES_MAX
) -> None:
    """Copy each file below `folder` that isn't among `sources` and that `next_folder` lacks.

    A file that vanishes or can't be read is left out: the app goes on working meanwhile. Raises
    OSError if there is no room, or if the app made more than `most` files.
    """
    copied = 0
    for path, _ in walk_files(folder):
        target = os.path.join(next_folder, path)
        if path in sources or os.path.lexists(target):
            continue
        copied += 1
        if copied > most:
            raise OSError(errno.EMFILE, f"the app made more than {most} files")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            source = open_plain(os.path.join(folder, path))
        except OSError:
            continue
        with source, open(target, "xb") as sink:
            shutil.copyfileobj(source, sink)
