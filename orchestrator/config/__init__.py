"""All settings, in groups by topic. Each gives its unit and the reason for its default.

They come from the environment (`SPAWN_…`), then from `$SPAWN_STATE_DIR/spawn.env`. Bootstrap and
the entry points load them. `spawnctl config` prints every value and where it comes from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from orchestrator.config import env_file as env_files
from orchestrator.config.addresses import Addresses
from orchestrator.config.base import Group
from orchestrator.config.groups import (
    PeopleSettings,
    PoolSettings,
    ProcessSettings,
    SandboxSettings,
    SessionSettings,
    StorageSettings,
)
from orchestrator.config.llm import LlmSettings
from orchestrator.config.places import Places, default_state_dir

# Our own processes, tests and benchmarks have names of theirs.
_SETTING = re.compile(r"SPAWN_(?!KEYS_DESCRIPTOR$|TEST_|BENCH_)")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseModel):
    """Everything that can be set, by topic."""

    model_config = ConfigDict(frozen=True)

    places: Places
    addresses: Addresses
    pool: PoolSettings
    sandbox: SandboxSettings
    sessions: SessionSettings
    storage: StorageSettings
    llm: LlmSettings
    people: PeopleSettings
    processes: ProcessSettings


GROUPS: Mapping[str, type[Group]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting, in order: its group, its name, and its field."""
    for group_name, group in GROUPS.items():
        for name, info in group.model_fields.items():
            yield group_name, name, info


def variables(field: str, info: FieldInfo) -> Sequence[str]:
    """The environment variables that set a field, first choice first."""
    if isinstance(info.validation_alias, AliasChoices):
        return [str(choice).upper() for choice in info.validation_alias.choices]
    return [f"SPAWN_{field.upper()}"]


def unknown_variables(env_file: Path) -> list[str]:
    """The names in the environment and in `env_file` that look like settings, and that nothing
    reads. Sorted."""
    names = {name.upper() for name in (*os.environ, *read_file(env_file))}
    known = {variable for _, field, info in fields() for variable in variables(field, info)}
    return sorted(name for name in names - known if _SETTING.match(name))


def read_file(env_file: Path) -> dict[str, str]:
    """The variables that the file sets; {} if there is no file."""
    values = dotenv_values(env_file) if env_file.is_file() else {}
    return {name: value for name, value in values.items() if value is not None}


def load() -> Settings:
    """The settings of this process. Raises pydantic.ValidationError naming all wrong values, and
    errors.InvalidInput (invalid_settings) for a spawn.env that is no text."""
    state_dir = Path(os.environ.get("SPAWN_STATE_DIR") or default_state_dir())
    env_files.check(state_dir / "spawn.env")
    return make(env_file=state_dir / "spawn.env", state_dir=state_dir)


def make(*, env_file: Path | None = None, **values: Any) -> Settings:
    """Settings with some values given by name, without their group.

    All others come from the environment and from `env_file`. Raises pydantic.ValidationError, which
    names all wrong values, and TypeError for an unknown name.
    """
    groups: dict[str, Group] = {}
    wrong: list[InitErrorDetails] = []
    for name, group in GROUPS.items():
        own = {field: values.pop(field) for field in group.model_fields if field in values}
        try:
            groups[name] = group(_env_file=env_file, **own)  # type: ignore[call-arg]  # pydantic-settings' own argument
        except ValidationError as error:
            wrong += error.errors()  # type: ignore[arg-type]  # the same keys, and a few more
    if values:
        raise TypeError(f"no such settings: {', '.join(values)}")
    if wrong:
        raise ValidationError.from_exception_data("Settings", wrong, hide_input=True)
    return Settings(**groups)  # type: ignore[arg-type]  # each is of the class that GROUPS names
