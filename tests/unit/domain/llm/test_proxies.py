"""Which providers the environment's proxy is for."""

from __future__ import annotations

import pytest

from orchestrator.domain.llm import proxies


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000", "http://127.8.9.1", "http://[::1]:1", "http://localhost:1"),
        *("http://LOCALHOST./v1", "http://a.localhost", "http://10.1.2.3", "http://192.168.1.2"),
        *("http://172.16.0.1", "http://[fd00::1]", "http://[fe80::1%25eth0]", "http://ollama:1"),
        *("http://gpu.local", "http://gpu.lan", "http://llm.svc.internal", "http://0.0.0.0:1"),
        "http://169.254.1.1",
    ],
)
def test_a_provider_in_our_network_is_private(url: str) -> None:
    assert proxies.is_private(url)


@pytest.mark.parametrize(
    "url", ["https://api.anthropic.com", "https://8.8.8.8/v1", "https://localhost.example"]
)
def test_a_provider_in_the_internet_is_not(url: str) -> None:
    assert not proxies.is_private(url)


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY has the scheme socks5"),
        ({"HTTPS_PROXY": "http://a b:1"}, "HTTPS_PROXY is not a URL"),
        ({"https_proxy": "http://x:port"}, "https_proxy is not a URL"),
        ({"http_proxy": "http://:3128"}, "http_proxy is not a URL"),
        ({"HTTP_PROXY": "http://[::1"}, "HTTP_PROXY is not a URL"),
        ({"HTTPS_PROXY": "http://x:1", "NO_PROXY": "127.0.0.0/8"}, None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({}, None),
    ],
)
def test_a_bad_proxy_is_named(environment: dict[str, str], fault: str | None) -> None:
    answer = proxies.find_fault(environment)
    assert answer == fault if fault is None else (answer or "").startswith(fault)
