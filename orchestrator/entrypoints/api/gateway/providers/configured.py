"""Makes the providers that the settings name. Called by `app.py`."""

from __future__ import annotations

from orchestrator.config import Settings
from orchestrator.entrypoints.api.gateway.clients import Clients
from orchestrator.entrypoints.api.gateway.providers.anthropic import Anthropic
from orchestrator.entrypoints.api.gateway.providers.openai import OpenAi
from orchestrator.entrypoints.api.gateway.providers.provider import Provider


def configured_providers(settings: Settings, clients: Clients) -> list[Provider]:
    """The providers that have a key or an address in the settings, in the order of their use."""
    llm = settings.llm
    providers: list[Provider] = []
    anthropic_like = (
        (
            "canned" if llm.demo else "anthropic",
            "ANTHROPIC_API_KEY",
            llm.anthropic_base_url,
            llm.anthropic_api_key,
        ),
        (
            "fallback",
            "SPAWN_FALLBACK_API_KEY",
            llm.fallback_base_url or llm.anthropic_base_url,
            llm.fallback_api_key,
        ),
    )
    for name, setting, base_url, secret in anthropic_like:
        key = secret.get_secret_value()
        if key:
            providers.append(
                Anthropic(
                    clients.client_for(base_url),
                    name=name,
                    setting=setting,
                    base_url=base_url,
                    key=key,
                    silence_s=llm.provider_silence_s,
                )
            )
    if llm.openai_base_url:
        providers.append(
            OpenAi(
                clients.client_for(llm.openai_base_url),
                base_url=llm.openai_base_url,
                key=llm.openai_api_key.get_secret_value(),
                model=llm.openai_model,
                limit_field=llm.openai_limit_field,
                silence_s=llm.provider_silence_s,
            )
        )
    return providers
