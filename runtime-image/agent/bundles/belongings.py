"""What an app made at run time, such as its database, on its way into the next version's folder.

Called by `workshop.py`. A version is its source; what its users left in it should outlive a change.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection

from agent.bundles.archive import files_below


def carry_over(present: str, sources: Collection[str], following: str) -> None:
    """Copy the files below `present` that are none of its `sources` and not there in `following`.

    A file that ends or can't be read meanwhile is left out: the app goes on working with them.
    Raises OSError if there is no room.
    """
    for path in files_below(present):
        target = os.path.join(following, path)
        if path in sources or os.path.lexists(target):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            shutil.copyfile(os.path.join(present, path), target, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            continue
