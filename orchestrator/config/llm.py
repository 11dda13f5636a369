"""The settings of Claude, other providers and their budgets."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator

from orchestrator.config import credentials
from orchestrator.config.base import Group
from orchestrator.domain.llm import proxies


class LlmSettings(Group):
    """Claude and other providers, their budgets, and the demo's canned answers."""

    anthropic_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("ANTHROPIC_API_KEY", "SPAWN_ANTHROPIC_API_KEY"),
        description="Anthropic key for generation; without a key only templates can be started.",
    )
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com",
        validation_alias=AliasChoices("ANTHROPIC_BASE_URL", "SPAWN_ANTHROPIC_BASE_URL"),
        description="URL to which the gateway forwards calls.",
    )
    model: str = Field(default="claude-sonnet-5-5", description="Model that writes the apps.")
    max_tokens: int = Field(
        default=32_000,
        ge=1024,
        le=10_000_000,
        description="Most tokens of one answer; a big app takes about 20,000.",
    )
    models: str = Field(
        default="",
        description="Models that the gateway lets through, comma-separated; empty: SPAWN_MODEL.",
    )
    budget_session_usd: Decimal = Field(
        default=Decimal(5),
        ge=0,
        le=10**9,
        description="Most that one session may cost, USD; 0: no limit.",
    )
    budget_session_tokens: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="Most tokens of one session; 0: the USD budget alone limits it.",
    )
    budget_user_usd: Decimal = Field(
        default=Decimal(20),
        ge=0,
        le=10**9,
        description="Most that one user may cost per day (UTC), USD; 0: no limit.",
    )
    budget_user_tokens: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="Most tokens of one user per day (UTC); 0: no limit.",
    )
    budget_day_usd: Decimal = Field(
        default=Decimal(100),
        ge=0,
        le=10**9,
        description="Most that all users together may cost per day (UTC), USD; 0: no limit.",
    )
    budget_day_tokens: int = Field(
        default=0,
        ge=0,
        le=10**15,
        description="Most tokens of all users together per day (UTC); 0: no limit.",
    )
    provider_concurrency: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Most calls to providers at the same time; further calls wait in a queue.",
    )
    provider_queue_s: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="Longest wait in that queue, seconds; clients give up after minutes.",
    )
    provider_session_s: int = Field(
        default=3600,
        ge=60,
        le=3_600_000,
        description="Seconds for which calls of one session may hold a slot within an hour; the"
        " default is one slot all the time.",
    )
    provider_user_s: int = Field(
        default=10_800,
        ge=60,
        le=3_600_000,
        description="The same for all sessions of one user; the default is three slots.",
    )
    provider_retry_s: float = Field(
        default=20,
        gt=0,
        le=3600,
        description="How long a call is retried that no provider answers, seconds.",
    )
    provider_silence_s: float = Field(
        default=120,
        ge=10,
        le=3600,
        description="Longest wait for the next bytes of a stream, seconds. A model on a small"
        " machine may read a long prompt for minutes: then raise SPAWN_GENERATING_TIMEOUT_S too.",
    )
    provider_proxy_private: bool = Field(
        default=False,
        description="Use HTTP_PROXY also for providers on this machine and in private networks.",
    )
    share_between_users: bool = Field(
        default=False, description="Let users share answers and generations of equal requests."
    )
    fallback_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Second key, used if Anthropic fails or refuses the first; empty: none.",
    )
    fallback_base_url: str = Field(
        default="",
        description="Anthropic-compatible endpoint of the second key; empty: ANTHROPIC_BASE_URL.",
    )
    openai_base_url: str = Field(
        default="",
        description="OpenAI-compatible endpoint, up to /v1, tried last; empty: none.",
    )
    openai_api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key for that endpoint; may stay empty for a server of your own.",
    )
    openai_model: str = Field(
        default="",
        validate_default=True,
        description="Model of that endpoint; required if its URL is set.",
    )
    openai_limit_field: str = Field(
        default="max_completion_tokens",
        pattern="^max_(completion_)?tokens$",
        description="That endpoint's field for the limit of an answer; older servers: max_tokens.",
    )
    demo: bool = Field(
        default=False,
        description="Use canned answers; `spawnctl up --demo` sets this and ANTHROPIC_BASE_URL.",
    )
    demo_port: int = Field(
        default=8083,
        ge=1,
        le=65535,
        description="Port on loopback of the server of the demo's canned answers.",
    )

    @field_validator("anthropic_api_key", "fallback_api_key", "openai_api_key")
    @classmethod
    def _check_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        fault = credentials.find_key_fault(value.get_secret_value())
        if fault:
            raise ValueError(f"{_setting(info)} {fault}")
        return value

    @field_validator("anthropic_base_url", "fallback_base_url", "openai_base_url")
    @classmethod
    def _check_base_url(cls, value: str, info: ValidationInfo) -> str:
        fault = credentials.find_url_fault(value)
        if fault:
            raise ValueError(f"{_setting(info)} {fault}")
        return value

    @field_validator("openai_model")
    @classmethod
    def _check_openai_model(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("openai_base_url") and not value:
            raise ValueError("SPAWN_OPENAI_BASE_URL is set: name the model to use there")
        return value

    @property
    def can_generate(self) -> bool:
        """Whether any provider is configured."""
        keys = (self.anthropic_api_key, self.fallback_api_key)
        return any(key.get_secret_value() for key in keys) or bool(self.openai_base_url)

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses of the providers that are configured."""
        urls = (
            (self.anthropic_base_url, self.anthropic_api_key),
            (self.fallback_base_url or self.anthropic_base_url, self.fallback_api_key),
        )
        used = [url for url, key in urls if key.get_secret_value()]
        return tuple(dict.fromkeys([*used, *filter(None, [self.openai_base_url])]))

    def is_proxied(self, base_url: str) -> bool:
        """Whether the environment's proxy, if there is one, leads to this provider."""
        return self.provider_proxy_private or not proxies.is_private(base_url)

    def find_proxy_fault(self, environment: Mapping[str, str]) -> str | None:
        """What is wrong with the environment's proxy, if it leads to a provider."""
        if not any(map(self.is_proxied, self.base_urls)):
            return None
        return proxies.find_fault(environment)

    @property
    def allowed_models(self) -> tuple[str, ...]:
        """Models that the gateway lets through. SPAWN_MODEL is always one of them."""
        names = [name.strip() for name in self.models.split(",")]
        return tuple(dict.fromkeys([self.model, *(name for name in names if name)]))


def _setting(info: ValidationInfo) -> str:
    """The variable of a field."""
    name = (info.field_name or "").upper()
    return name if name.startswith("ANTHROPIC_") else f"SPAWN_{name}"
