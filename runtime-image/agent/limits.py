"""What one assignment may use up: all limits of the generator in one place, as data. Pure.

Home may send others with an assignment (`limits`); what it leaves out is as here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one assignment that calls the model."""

    turns: int = 60  # answers of the model
    output_tokens: int = 200_000  # over all turns
    seconds: float = 540.0  # from start to finish; below home's deadline for generating (600 s)
    repairs: int = 3  # bad healths that go back to the model; one more is the end
    files: int = 500
    file_bytes: int = 1024 * 1024  # one file that the model writes or reads
    total_bytes: int = 20 * 1024 * 1024  # all files of the app
    run_seconds: float = 60.0  # one command; the model may ask for less

    def as_json(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def limits_from(given: Mapping[str, object]) -> Limits:
    """The defaults with what `given` says otherwise. Unknown names are ignored.

    Raises ValueError for what is no positive number.
    """
    chosen: dict[str, float] = {}
    for field in fields(Limits):
        value = given.get(field.name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"limits.{field.name} is not a positive number")
        chosen[field.name] = float(value) if isinstance(field.default, float) else int(value)
    return Limits(**chosen)  # type: ignore[arg-type]  # each value has the type of its default
