"""The Docker engine of the only host is broken: apps go on, sessions wait until it is back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.chaos import http_lies
from tests.chaos.conftest import Scene, cells

Fault = Callable[[Scene], AbstractContextManager[None]]


def a_page(_method: str, _path: str) -> bytes:
    """Something else listens on the socket."""
    return http_lies.page()


def missing_fields(method: str, path: str) -> bytes | None:
    """JSON as Docker's, but without what we look for."""
    if path.endswith("/json") or "/json?" in path:
        return http_lies.answer([{}] if "/containers/json" in path else {})
    return http_lies.answer({}) if method != "GET" or path.endswith("/info") else None


def broken(_method: str, _path: str) -> bytes:
    return http_lies.answer({"message": "layer does not exist"}, "500 Internal Server Error")


class ForeignIds:
    """It says that it made containers that don't exist."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self, method: str, path: str) -> bytes | None:
        if method != "POST" or "/containers/create" not in path:
            return None
        self.told += 1
        return http_lies.answer({"Id": "f" * 64, "Warnings": []}, "201 Created")


UNREACHABLE: dict[str, Fault] = {
    "refuses": lambda scene: scene.docker.refusing(),
    "hangs": lambda scene: scene.docker.hanging(),
    "trickles": lambda scene: scene.docker.trickling(),
    "lies: a page": lambda scene: scene.docker.lying(a_page),
    "lies: missing fields": lambda scene: scene.docker.lying(missing_fields),
    "lies: errors": lambda scene: scene.docker.lying(broken),
}


SLOW = ("lies: missing fields", "lies: errors")


@pytest.mark.parametrize("fault", cells(UNREACHABLE, slow=SLOW))
def test_apps_go_on_and_newcomers_wait_while_docker(scene: Scene, fault: str) -> None:
    scene.check_that_newcomers_wait(UNREACHABLE[fault](scene), lambda _: scene.is_amiss("docker"))


def test_apps_go_on_and_newcomers_wait_while_docker_makes_nothing(scene: Scene) -> None:
    liar = ForeignIds()
    # The request takes the warm sandbox; the next one is what can't be made.
    scene.check_that_newcomers_wait(
        scene.docker.lying(liar), lambda asked: asked.done() and liar.told > 1
    )
