"""One host of two is broken: apps on the other one go on, and newcomers get theirs there."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos import leftovers
from tests.chaos.faults import Part
from tests.chaos.people import Neighbour, User, make_user, settle_neighbour
from tests.e2e import hosts
from tests.e2e.installation import Installation, installed
from tests.fakes.llm.messages_api import MessagesApi
from tests.fleet import Fleet, Vps

pytestmark = pytest.mark.chaos
_BASHRC = "/root/.bashrc"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An installation with two hosts. The second one is reached through a part that can break."""

    spawn: Installation
    model: MessagesApi
    good: Vps
    bad: Vps
    sshd: Part  # of the bad one
    victim: User
    neighbour: Neighbour  # on the good one
    processes: Counter[str]  # at rest

    def sandboxes(self) -> set[str]:
        """The sandboxes that have a container, on both; by name what else is there: a probe."""
        containers = [*self.good.containers(), *self.bad.containers()]
        return {sandbox_of(container) or container["Names"] for container in containers}


def sandbox_of(container: dict[str, Any]) -> str | None:
    labels = dict(pair.split("=", 1) for pair in container["Labels"].split(","))
    return labels.get("ai.spawn.sandbox")


Fault = Callable[[Pair], AbstractContextManager[object]]


@pytest.fixture(scope="module")
def stage(fleet: Fleet) -> Iterator[Pair]:
    good, bad = fleet.named("vps1"), fleet.named("vps2")
    sshd = Part((bad.address, 22))
    with (
        MessagesApi() as model,
        sshd.running(),
        installed(
            ready=False,
            SPAWN_LOCAL_HOST="false",
            SPAWN_WARM_TARGET="1",
            ANTHROPIC_API_KEY="not-a-key",
            ANTHROPIC_BASE_URL=model.url,
        ) as spawn,
    ):
        key = spawn.spawnctl("hosts", "key").stdout.strip().splitlines()[-1]
        for vps in (good, bad):
            vps.authorize(key)
        hosts.add(spawn, good, "--slots", "8", "--region", "good")
        spawn.spawnctl(
            *("hosts", "add", f"ssh://root@127.0.0.1:{sshd.port}", "--name", bad.name),
            *("--publish-address", bad.address, "--fingerprint", bad.fingerprint, "--no-wait"),
            *("--slots", "8", "--region", "bad"),
        )
        for vps in (good, bad):
            hosts.wait_for_state(spawn, vps.name, "up")
        yield Pair(
            spawn=spawn,
            model=model,
            good=good,
            bad=bad,
            sshd=sshd,
            victim=make_user(spawn, "victim"),
            neighbour=settle_neighbour(spawn, model, region="good"),
            processes=leftovers.count_processes(spawn),
        )


@pytest.fixture
def pair(stage: Pair) -> Iterator[Pair]:
    """Both hosts are up before the test, and have to be afterwards, with nothing left on them."""
    spawn, neighbour = stage.spawn, stage.neighbour
    try:
        yield stage
    finally:
        stage.bad.mend()
        leftovers.end_others(spawn, neighbour.session_id)
    for vps in (stage.good, stage.bad):
        hosts.wait_for_state(spawn, vps.name, "up")
    leftovers.await_rest(spawn, [neighbour.session_id], stage.processes, containers=stage.sandboxes)
    neighbour.check_app()


@contextlib.contextmanager
def cut(pair: Pair) -> Iterator[None]:
    """Every packet from and to the machine is dropped."""
    pair.bad.cut()
    try:
        yield
    finally:
        pair.bad.heal()


@contextlib.contextmanager
def stopped_engine(pair: Pair) -> Iterator[None]:
    """Its Docker takes connections and answers nothing."""
    pair.bad.exec("pkill", "-STOP", "-x", "dockerd")
    try:
        yield
    finally:
        pair.bad.exec("pkill", "-CONT", "-x", "dockerd")


@contextlib.contextmanager
def killed_engine(pair: Pair) -> Iterator[None]:
    pair.bad.kill_dockerd()
    try:
        yield
    finally:
        pair.bad.start_dockerd()


DOWN: dict[str, Fault] = {
    "refuses": lambda pair: pair.sshd.refusing(),
    "hangs": lambda pair: pair.sshd.hanging(),
    "hangs: cut off": cut,
    "hangs: its engine": stopped_engine,
    "refuses: its engine": killed_engine,
    "lies: another server": lambda pair: pair.sshd.babbling(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


@pytest.mark.parametrize("fault", DOWN)
def test_others_notice_nothing_while_a_host(pair: Pair, fault: str) -> None:
    session_id = pair.victim.get_app(region="bad")
    with DOWN[fault](pair):
        hosts.wait_for_state(pair.spawn, pair.bad.name, "suspect", "lost")
        pair.neighbour.check_newcomer()
    hosts.wait_for_state(pair.spawn, pair.bad.name, "up")
    pair.victim.await_app(session_id)
    pair.victim.end(session_id)


@contextlib.contextmanager
def greeting(pair: Pair) -> Iterator[None]:
    """Its shell greets whoever comes, and its commands lie about themselves."""
    lies = "\n".join(
        f"{name}() {{ echo {name} says hello; }}; export -f {name}"
        for name in ("id", "df", "uname")
    )
    pair.bad.exec(
        "sh", "-c", f"cat >{_BASHRC}", stdin=f"echo 1000 Welcome to 10.0.0.1/99\n{lies}\n"
    )
    pair.sshd.cut()  # what connects now reads this
    try:
        yield
    finally:
        pair.bad.exec("rm", "-f", _BASHRC)
        pair.sshd.cut()


SLOW: dict[str, Fault] = {
    "trickles": lambda pair: pair.sshd.trickling(),
    "lies": greeting,
}


@pytest.mark.parametrize("fault", SLOW)
def test_others_notice_nothing_while_a_host_still_answers_but(pair: Pair, fault: str) -> None:
    with SLOW[fault](pair):
        pair.neighbour.check_newcomer()
