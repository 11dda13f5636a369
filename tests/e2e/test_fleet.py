"""Three hosts over SSH: sessions on all of them, and what happens when one is cut, killed, drained.

One installation and one fleet for all; each test leaves the hosts UP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import hosts
from tests.e2e.installation import Installation, installed, until
from tests.e2e.steady import RATE_PER_S, Steady, Visited
from tests.fakes.llm.messages_api import MessagesApi
from tests.fleet import Fleet, Vps, meanwhile

_APPS = ("kanban", "snake", "todo", "pomodoro", "markdown")
_TITLES = {
    "kanban": "Kanban",
    "snake": "Snake",
    "todo": "To-do",
    "pomodoro": "Pomodoro",
    "markdown": "Markdown",
}
_CUT_S = 10.0


@pytest.fixture(scope="module")
def pool(fleet: Fleet) -> Iterator[Installation]:
    """An installation whose only hosts are the fleet's."""
    with (
        MessagesApi() as model,
        installed(
            ready=False,
            SPAWN_LOCAL_HOST="false",
            SPAWN_WARM_TARGET="3",
            ANTHROPIC_API_KEY="not-a-key",
            ANTHROPIC_BASE_URL=model.url,
        ) as one,
    ):
        hosts.join(one, fleet, "--slots", "40", "--region", "here", "--label", "disk=ssd")
        yield one


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test ends its sessions, and finds all hosts UP."""
    yield
    one = request.getfixturevalue("pool")
    for found in one.admin("sessions?limit=1000")["sessions"]:
        one.call("DELETE", f"/api/sessions/{found['session_id']}", key=one.operator_key)
    for name in ("vps1", "vps2", "vps3"):
        hosts.await_state(one, name, "up")
    until(lambda: _claimed(one) == 0, 90, "all sessions to be gone")


def test_sessions_land_on_all_three_and_answer(pool: Installation) -> None:
    links = [pool.spawnctl("run", "--template", "kanban").stdout.strip() for _ in range(9)]
    for link in links:
        assert "Kanban" in pool.app(link).text
    assert set(_by_host(pool)) == {"vps1", "vps2", "vps3"}


def test_sixty_sessions_at_once_go_through_a_default_sshd(pool: Installation) -> None:
    made = _start(pool, 60)
    for found in _ready(pool, made):
        assert pool.app(found["url"]).status == 200
    links = [one["link"] for one in pool.admin("hosts")["hosts"] if one["link"]]
    # Each agent's long poll is a channel of its own; sshd's MaxSessions is 10.
    assert sum(link["channels"] for link in links) >= 60
    assert all(link["reconnects"] == 0 for link in links)
    assert "can't be reached" not in _log(pool, "daemon")


def test_a_region_and_labels_are_honoured_and_an_unknown_one_is_refused(
    pool: Installation, fleet: Fleet
) -> None:
    made = pool.create(template="kanban", region="here", labels={"disk": "ssd"})
    pool.wait_for(made["session_id"], "ready")
    refused = pool.call(
        "POST",
        "/api/sessions",
        {"template": "kanban", "region": "mars"},
        key=pool.operator_key,
    )
    assert (refused.status, refused.json["code"]) == (422, "placement_unknown")
    assert "here" in refused.json["detail"]


def test_a_sandbox_reaches_nothing_from_a_fleet_host(pool: Installation, fleet: Fleet) -> None:
    (ready,) = _ready(pool, _start(pool, 1))
    box = pool.admin(f"sessions/{ready['session_id']}")["sandbox"]
    here = fleet.named(box["host"])
    others = [one for one in fleet if one.name != here.name]
    inside = f"spawn-{box['sandbox_id']}"
    gateway = here.exec("ip", "-4", "-o", "addr", "show", "docker0").split()[3].split("/")[0]
    targets = {
        "the host's own sshd": (here.address, 22),
        "the host's Docker bridge": (gateway, 22),
        "another host's sshd": (others[0].address, 22),
        "an app on another host": (others[0].address, _a_port(pool, others[0].name)),
        "an app on the same host": (here.address, _a_port(pool, here.name)),
        "the metadata address": ("169.254.169.254", 80),
        "the internet": ("192.0.2.1", 443),
        "the proxy": (_gateway_of(here), pool.http_port),
    }
    for what, (address, port) in targets.items():
        assert _connects(here, inside, address, port) == "no", what
    assert _resolves(here, inside) == "no"
    # What could be reached if it weren't fenced: the same probes from the host itself.
    assert _connects(here, None, others[0].address, 22) == "yes"
    assert _connects(here, None, here.address, 22) == "yes"


def test_published_apps_are_reached_by_the_proxy_alone(pool: Installation, fleet: Fleet) -> None:
    (ready,) = _ready(pool, _start(pool, 1))
    box = pool.admin(f"sessions/{ready['session_id']}")["sandbox"]
    here = fleet.named(box["host"])
    stranger = next(one for one in fleet if one.name != here.name)
    assert _connects(stranger, None, here.address, box["port"]) == "no"
    assert pool.app(ready["url"]).status == 200


def test_a_host_that_dies_takes_no_link_with_it(pool: Installation, fleet: Fleet) -> None:
    ready = _ready(pool, _start(pool, 10))
    writing = [pool.create(f"A page about tide pool number {number}") for number in range(5)]
    for found in writing:
        pool.wait_for(found["session_id"], "generating")
    name = max(_by_host(pool).items(), key=lambda item: len(item[1]))[0]
    victim = fleet.named(name)
    slow = {found["session_id"] for found in writing} & set(_by_host(pool)[name])
    with meanwhile(victim.start):
        victim.stop()
        hosts.await_state(pool, name, "lost", within_s=40)
        for found in ready:
            until(lambda found=found: _shows(pool, found), 45, f"{found['url']} to answer again")
        for found in writing:
            done = pool.wait_for(found["session_id"], "ready", "failed", within_s=120)
            assert done["status"] == "ready", done
            assert done["attempt"] == (2 if found["session_id"] in slow else 1)
        assert slow, "none of them was being written on the host that died"
    hosts.await_state(pool, name, "up")
    until(lambda: _stale(pool, victim) == [], 30, f"{name} to be swept")


def test_a_network_cut_of_ten_seconds_costs_nothing(pool: Installation, fleet: Fleet) -> None:
    ready = _ready(pool, _start(pool, 6))
    before = _places(pool)
    victim = fleet.named(next(iter(_by_host(pool))))
    with _load(pool, ready) as load:
        with meanwhile(victim.heal):
            load.wait(RATE_PER_S)
            victim.cut()
            cut_at = time.monotonic()
            hosts.await_state(pool, victim.name, "suspect", within_s=10)
            more = _start(pool, 3)  # elsewhere, for there nobody can be told to start
            until(lambda: time.monotonic() - cut_at >= _CUT_S, 2 * _CUT_S, "the cut to last")
        hosts.await_state(pool, victim.name, "up", within_s=20)
        arrived = _ready(pool, more)
    assert {found: _places(pool)[found] for found in before} == before
    assert all(pool.status(found)["attempt"] == 1 for found in _places(pool))
    assert victim.name not in {_places(pool)[found["session_id"]][0] for found in arrived}
    for found in ready:
        assert _shows(pool, found)


def test_a_drained_host_is_empty_and_nobody_noticed(pool: Installation, fleet: Fleet) -> None:
    ready = _ready(pool, _start(pool, 9))
    name = max(_by_host(pool).items(), key=lambda item: len(item[1]))[0]
    with _load(pool, ready) as load:
        load.wait(20)
        with meanwhile(lambda: pool.spawnctl("hosts", "uncordon", name)):
            pool.spawnctl("hosts", "drain", name)
            assert hosts.host(pool, name)["used"] == 0
            assert name not in _by_host(pool)
            load.wait(40)
    assert load.wrong == []
    assert len(load.failed) * 200 < load.count, (load.count, load.failed)
    assert [pool.status(found["session_id"])["url"] for found in ready] == [
        found["url"] for found in ready
    ]
    assert fleet.named(name).containers() == []


def test_a_restarted_daemon_takes_its_links_up_again(pool: Installation, fleet: Fleet) -> None:
    ready = _ready(pool, _start(pool, 30))
    started = {one.name: one.started_at() for one in fleet}
    places = _places(pool)
    pool.kill_daemon()
    for found in ready:
        assert _shows(pool, found)  # apps don't need it
    until(lambda: _all_linked(pool), 30, "all links to be up again")
    assert _places(pool) == places
    for one in fleet:
        now = one.started_at()
        assert {box: now.get(box) for box in started[one.name] if box in now} == {
            box: at for box, at in started[one.name].items() if box in now
        }
        assert set(started[one.name]) - set(now) == set(), "containers are gone"
    (found,) = _ready(pool, _start(pool, 1))
    assert _shows(pool, found)


def test_a_docker_that_was_killed_is_suspect_at_once_and_comes_back(
    pool: Installation, fleet: Fleet
) -> None:
    ready = _ready(pool, _start(pool, 4))
    victim = fleet.named(next(iter(_by_host(pool))))
    with meanwhile(victim.start_dockerd):
        victim.kill_dockerd()
        hosts.await_state(pool, victim.name, "suspect", within_s=10)
        assert "Docker" in hosts.host(pool, victim.name)["reason"]
    hosts.await_state(pool, victim.name, "up")
    for found in ready:
        until(lambda found=found: _shows(pool, found), 60, f"{found['url']} to answer")


def test_a_full_disk_takes_a_host_out_of_placement_until_it_is_freed(
    pool: Installation, fleet: Fleet
) -> None:
    victim = fleet.named("vps3")
    with meanwhile(victim.free_disk):
        victim.fill_disk()
        until(lambda: hosts.host(pool, "vps3")["shortage"], 60, "the shortage to be seen")
        made = _ready(pool, _start(pool, 4))
        warm_before = {"vps3"}
        placed = {_places(pool)[found["session_id"]][0] for found in made}
        assert placed <= {"vps1", "vps2"} | warm_before
        assert all(pool.status(found["session_id"])["attempt"] == 1 for found in made)
    until(lambda: not hosts.host(pool, "vps3")["shortage"], 60, "the shortage to be over")


# --- what the tests ask ---------------------------------------------------------------------------


def _load(one: Installation, apps: Sequence[dict[str, Any]]) -> Steady:
    """Visitors to apps that were made from templates."""
    return Steady(one, [Visited(url=app["url"], words=[_TITLES[app["template"]]]) for app in apps])


def _start(one: Installation, count: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(10) as clients:
        return list(
            clients.map(
                lambda number: one.create(template=_APPS[number % len(_APPS)]), range(count)
            )
        )


def _ready(one: Installation, made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [one.wait_for(each["session_id"], "ready", "failed", within_s=180) for each in made]
    assert {each["status"] for each in found} == {"ready"}, [each["error"] for each in found]
    return found


def _shows(one: Installation, found: dict[str, Any]) -> bool:
    try:
        answer = one.app(found["url"])
    except OSError:
        return False
    return answer.status == 200 and _TITLES[found["template"]] in answer.text


def _live(one: Installation) -> list[dict[str, Any]]:
    found = one.admin("sessions?limit=1000")["sessions"]
    return [each for each in found if each["status"] not in {"destroyed", "failed"}]


def _by_host(one: Installation) -> dict[str, list[str]]:
    """Ids of live sessions, by the host that they are on."""
    found: dict[str, list[str]] = {}
    for each in _live(one):
        if each["host"]:
            found.setdefault(each["host"], []).append(each["session_id"])
    return found


def _places(one: Installation) -> dict[str, tuple[str, str]]:
    """Host and sandbox of each live session."""
    return {each["session_id"]: (each["host"], each["sandbox_id"]) for each in _live(one)}


def _claimed(one: Installation) -> int:
    pool = one.admin("pool")
    return int(pool["claimed"] + pool["stopping"] + pool["broken"])


def _stale(one: Installation, vps: Vps) -> list[str]:
    """Containers on a machine that the store knows nothing of."""
    known = {f"spawn-{box['sandbox_id']}" for box in hosts.host(one, vps.name)["sandboxes"]}
    return [each["Names"] for each in vps.containers() if each["Names"] not in known]


def _all_linked(one: Installation) -> bool:
    links = [each["link"] for each in one.admin("hosts")["hosts"]]
    return all(link is not None and link["up"] and link["docker"] for link in links)


def _a_port(one: Installation, name: str) -> int:
    """Of some sandbox on that host; of none, one that sandboxes may have."""
    boxes = hosts.host(one, name)["sandboxes"]
    return int(boxes[0]["port"]) if boxes else int(one.env["SPAWN_PORTS"].split("-")[0])


def _gateway_of(vps: Vps) -> str:
    """The machine that the proxy runs on, as the VPS sees it."""
    return vps.exec("ip", "route", "show", "default").split()[2]


_CONNECT = (
    "import socket, sys\n"
    "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close(); print('yes')\n"
    "except OSError: print('no')\n"
)
_RESOLVE = (
    "import socket\n"
    "try: socket.getaddrinfo('debian.org', 80); print('yes')\n"
    "except OSError: print('no')\n"
)


def _connects(vps: Vps, container: str | None, address: str, port: int) -> str:
    """Whether a TCP connection is made, from a container on a machine or from the machine."""
    if container is None:
        script = (
            f"timeout 2 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo yes || echo no"
        )
        return vps.exec("bash", "-c", script)
    return vps.exec("docker", "exec", container, "python3", "-c", _CONNECT, address, str(port))


def _resolves(vps: Vps, container: str) -> str:
    return vps.exec("docker", "exec", container, "python3", "-c", _RESOLVE)


def _log(one: Installation, name: str) -> str:
    return (one.state_dir / "log" / f"{name}.log").read_text(errors="replace")
