"""The API's documentation in a real browser: it comes from us alone, under the page's own rules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, expect

from orchestrator import config
from orchestrator.entrypoints.api import public_app
from orchestrator.entrypoints.api.context import Context
from tests.e2e.visit import load_with_retries
from tests.fakes.hub import deaf_hub
from tests.fakes.samples import NOW
from tests.integration.proxy.world import running_world
from tests.unit.services.conftest import catalog, world
from tests.unit.services.world import World

__all__ = ["catalog", "world"]


@pytest.fixture
def url(world: World, tmp_path: Path) -> Iterator[str]:
    """The real public app over the fakes, behind a real proxy on a free port."""
    context = Context(
        settings=config.make(state_dir=tmp_path),
        deps=world.deps,
        hub=deaf_hub(),
        started_at=NOW,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            public_app.build(context), port=0, log_level="warning", ws="none", lifespan="off"
        )
    )
    listener = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    with running_world(api_addresses=(f"127.0.0.1:{listener.getsockname()[1]}",)) as proxied:
        yield f"http://localhost:{proxied.settings.listen_port}"
    server.should_exit = True
    thread.join(timeout=10)
    context.threads.shutdown()


def test_the_operations_are_shown_and_no_request_leaves_the_origin(
    browser: Browser, url: str
) -> None:
    page = browser.new_context().new_page()
    urls: set[str] = set()
    complaints: list[str] = []
    page.on("request", lambda request: urls.add(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    load_with_retries(lambda: page.goto(f"{url}/docs"))
    operation = page.locator("#operations-sessions-create_api_sessions_post")
    expect(operation).to_be_visible()
    expect(page.get_by_role("heading", name="SpawnAI")).to_be_visible()

    operation.get_by_role("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("textarea").fill('{"template": "no-such"}')
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text("template_unknown")

    assert f"{url}/static/swagger/swagger-ui-bundle.js" in urls
    assert [other for other in urls if not other.startswith((f"{url}/", "data:"))] == []
    assert [line for line in complaints if "status of 422" not in line] == []
    page.context.close()


def test_the_documentation_has_the_same_rules_as_the_page(browser: Browser, url: str) -> None:
    page = browser.new_context().new_page()
    answers = [page.request.get(url + path) for path in ("/", "/docs", "/openapi.json")]
    policies = {answer.headers["content-security-policy"] for answer in answers}
    assert len(policies) == 1
    assert "unsafe" not in policies.pop()
    assert "<script>" not in answers[1].text()
    page.context.close()
