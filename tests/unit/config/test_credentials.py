"""Keys and addresses that were copied with something that nobody sees."""

from __future__ import annotations

import pydantic
import pytest

from orchestrator import config
from orchestrator.config import credentials

KEYS = {
    "anthropic_api_key": "ANTHROPIC_API_KEY",
    "fallback_api_key": "SPAWN_FALLBACK_API_KEY",
    "openai_api_key": "SPAWN_OPENAI_API_KEY",
}
FAULTS = {
    "sk-secret\u00a0": "U+00A0 (no-break space) as character 10 of 10",
    "sk-\u200bsecret": "U+200B (zero width space) as character 4 of 10",
    "\ufeffsk-secret": "U+FEFF (zero width no-break space) as character 1 of 10",
    "sk-secret\r": "U+000D (carriage return) as character 10 of 10",
    "sk-secret\n": "U+000A (line feed) as character 10 of 10",
    "\u201csk-secret\u201d": "U+201C (left double quotation mark) as character 1 of 11",
    '"sk-secret"': "U+0022 (quotation mark) as character 1 of 11",
    "sk-secret ": "U+0020 (space) as character 10 of 10",
    "sk-secret\x7f": "U+007F (a control character) as character 10 of 10",
}


@pytest.mark.parametrize(("field", "setting"), KEYS.items())
@pytest.mark.parametrize(("key", "fault"), FAULTS.items(), ids=ascii)
def test_a_key_with_a_character_that_no_key_has_is_refused_by_name(
    field: str, setting: str, key: str, fault: str
) -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        config.make(**{field: key})
    assert f"{setting} has {fault}" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_keys_as_providers_give_them_are_taken() -> None:
    settings = config.make(anthropic_api_key="sk-ant-api03-aZ_9-x", openai_api_key="")
    assert settings.llm.anthropic_api_key.get_secret_value() == "sk-ant-api03-aZ_9-x"


@pytest.mark.parametrize(
    "url",
    ["api.anthropic.com", "ftp://x", "https://", "http://[::1", "http://x:99999", "http://x\u200b"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert credentials.find_url_fault(url)
    with pytest.raises(pydantic.ValidationError, match="SPAWN_FALLBACK_BASE_URL"):
        config.make(fallback_base_url=url)


@pytest.mark.parametrize("url", ["", "https://api.anthropic.com", "http://[::1]:8080/v1"])
def test_an_address_is_taken(url: str) -> None:
    assert credentials.find_url_fault(url) is None
