"""What an object still holds, wherever it keeps it: for tests of what it has to forget."""

from __future__ import annotations

import gc
import types
from collections.abc import Collection

_SHARED = (type, types.ModuleType, types.CodeType)


def remembers(holder: object, text: str, *, beside: Collection[object] = ()) -> bool:
    """Whether `text` can be reached from `holder`, by any way that doesn't lead through one of the
    objects `beside` it."""
    seen = {id(other) for other in beside}
    waiting = [holder]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, str):
            if thing == text:
                return True
            continue
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            waiting.extend((thing.__closure__, thing.__defaults__))  # its globals are everybody's
            continue
        if isinstance(thing, dict):
            waiting.extend(thing)  # the collector doesn't follow keys that are strings
        waiting.extend(gc.get_referents(thing))
    return False
