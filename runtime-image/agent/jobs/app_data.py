"""Copies the files that an app made at run time, such as its database, to its next version.

Called by `workshop.py`. A version is only source; the data of its users must survive a change.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection

from orchestrator.contract.archive import files_below


def carry_over(folder: str, sources: Collection[str], next_folder: str) -> None:
    """Copy each file below `folder` that isn't among `sources` and that `next_folder` lacks.

    A file that vanishes or can't be read is left out: the app goes on working meanwhile. Raises
    OSError if there is no room.
    """
    for path in files_below(folder):
        target = os.path.join(next_folder, path)
        if path in sources or os.path.lexists(target):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            shutil.copyfile(os.path.join(folder, path), target, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            continue
