"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.config import env_file


class Group(BaseSettings):
    """Settings of one topic. Secrets are SecretStr, so that printing a group doesn't leak them."""

    model_config = SettingsConfigDict(
        env_prefix="SPAWN_",
        env_file_encoding=env_file.ENCODING,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        hide_input_in_errors=True,  # processes log these errors, and a wrong URL has its password
    )
