"""Three hosts over SSH: sessions on all of them, and a host that is cut off, killed or drained.

All tests share one installation and one fleet. Each test leaves the hosts UP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cgroups import READ_CPU_LIMIT, cpus_of
from tests.e2e import hosts
from tests.e2e.installation import Installation, installed, until
from tests.e2e.steady import RATE_PER_S, SteadyLoad, VisitedApp
from tests.fakes.llm.messages_api import MessagesApi
from tests.fleet import Fleet, Vps, undo_at_end

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
def model() -> Iterator[MessagesApi]:
    with MessagesApi() as model:
        yield model


@pytest.fixture(scope="module")
def pool(fleet: Fleet, model: MessagesApi) -> Iterator[Installation]:
    """An installation whose only hosts are the fleet's."""
    with installed(
        ready=False,
        SPAWN_LOCAL_HOST="false",
        SPAWN_WARM_TARGET="3",
        ANTHROPIC_API_KEY="not-a-key",
        ANTHROPIC_BASE_URL=model.url,
    ) as pool:
        hosts.add_fleet(pool, fleet, "--slots", "40", "--region", "here", "--label", "disk=ssd")
        yield pool


@pytest.fixture(autouse=True)
def clean_pool(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, end its sessions and wait until all hosts are UP."""
    yield
    pool = request.getfixturevalue("pool")
    for session in pool.admin("sessions?limit=1000")["sessions"]:
        pool.call("DELETE", f"/api/sessions/{session['session_id']}", key=pool.operator_key)
    for name in ("vps1", "vps2", "vps3"):
        hosts.wait_for_state(pool, name, "up")
    until(lambda: _count_in_use(pool) == 0, 90, "all sessions to be gone")


def test_sessions_land_on_all_three_and_answer(pool: Installation) -> None:
    links = [pool.spawnctl("run", "--template", "kanban").stdout.strip() for _ in range(9)]
    for link in links:
        assert "Kanban" in pool.call_app(link).text
    assert set(_by_host(pool)) == {"vps1", "vps2", "vps3"}


def test_sixty_sessions_at_once_go_through_a_default_sshd(pool: Installation) -> None:
    sessions = _start(pool, 60)
    for status in _wait_until_ready(pool, sessions):
        assert pool.call_app(status["url"]).status == 200
    links = [host["link"] for host in pool.admin("hosts")["hosts"] if host["link"]]
    # The long poll of each agent takes a channel. sshd's default for MaxSessions is 10.
    assert sum(link["channels"] for link in links) >= 60
    assert all(link["reconnects"] == 0 for link in links)
    assert "can't be reached" not in _log(pool, "daemon")


def test_a_region_and_labels_are_honoured_and_an_unknown_one_is_refused(
    pool: Installation, fleet: Fleet
) -> None:
    session = pool.create(template="kanban", region="here", labels={"disk": "ssd"})
    pool.wait_for(session["session_id"], "ready")
    refused = pool.call(
        "POST",
        "/api/sessions",
        {"template": "kanban", "region": "mars"},
        key=pool.operator_key,
    )
    assert (refused.status, refused.json["code"]) == (409, "placement_unknown")
    assert "here" in refused.json["detail"]


def test_a_sandbox_reaches_nothing_from_a_fleet_host(pool: Installation, fleet: Fleet) -> None:
    (ready,) = _wait_until_ready(pool, _start(pool, 1))
    sandbox = pool.admin(f"sessions/{ready['session_id']}")["sandbox"]
    home = fleet.named(sandbox["host"])
    others = [vps for vps in fleet if vps.name != home.name]
    container = f"spawn-{sandbox['sandbox_id']}"
    gateway = home.exec("ip", "-4", "-o", "addr", "show", "docker0").split()[3].split("/")[0]
    targets = {
        "the host's own sshd": (home.address, 22),
        "the host's Docker bridge": (gateway, 22),
        "another host's sshd": (others[0].address, 22),
        "an app on another host": (others[0].address, _sandbox_port(pool, others[0].name)),
        "an app on the same host": (home.address, _sandbox_port(pool, home.name)),
        "the metadata address": ("169.254.169.254", 80),
        "the internet": ("192.0.2.1", 443),
        "the proxy": (_gateway_of(home), pool.http_port),
    }
    for target, (address, port) in targets.items():
        assert _connects(home, container, address, port) == "no", target
    assert _resolves(home, container) == "no"
    # Without the fence these could be reached: the same probes work from the host itself.
    assert _connects(home, None, others[0].address, 22) == "yes"
    assert _connects(home, None, home.address, 22) == "yes"


def test_an_app_on_a_host_over_ssh_gets_its_share_of_cpus_once_it_is_ready(
    pool: Installation, fleet: Fleet
) -> None:
    def limit_of(ready: dict[str, Any]) -> float:
        sandbox = pool.admin(f"sessions/{ready['session_id']}")["sandbox"]
        home = fleet.named(sandbox["host"])
        container = f"spawn-{sandbox['sandbox_id']}"
        return cpus_of(home.exec("docker", "exec", container, *READ_CPU_LIMIT))

    def answers() -> set[bool | None]:
        return {host["changes_cpus"] for host in pool.admin("hosts")["hosts"]}

    until(lambda: True in answers(), 90, "a warm sandbox to be raised")
    assert False not in answers()
    apps = _wait_until_ready(pool, _start(pool, 3))
    until(lambda: {limit_of(app) for app in apps} == {0.5}, 60, "each app to have half a CPU")


def test_only_the_proxy_reaches_published_apps(pool: Installation, fleet: Fleet) -> None:
    (ready,) = _wait_until_ready(pool, _start(pool, 1))
    sandbox = pool.admin(f"sessions/{ready['session_id']}")["sandbox"]
    home = fleet.named(sandbox["host"])
    other = next(vps for vps in fleet if vps.name != home.name)
    assert _connects(other, None, home.address, sandbox["port"]) == "no"
    assert pool.call_app(ready["url"]).status == 200


def test_all_links_survive_the_death_of_a_host(
    pool: Installation, fleet: Fleet, model: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = _wait_until_ready(pool, _start(pool, 10))
    monkeypatch.setattr(model, "drip_s", 0.1)  # some 140 times in each first answer
    generating = [pool.create(f"A page about tide pool number {number}") for number in range(5)]
    for session in generating:
        pool.wait_for(session["session_id"], "generating")
    name = max(_by_host(pool).items(), key=lambda item: len(item[1]))[0]
    victim = fleet.named(name)
    lost = {session["session_id"] for session in generating} & set(_by_host(pool)[name])
    with undo_at_end(victim.start):
        victim.stop()
        monkeypatch.setattr(model, "drip_s", 0.0)
        hosts.wait_for_state(pool, name, "lost", within_s=40)
        for app in ready:
            until(lambda app=app: _is_served(pool, app), 45, f"{app['url']} to answer again")
        for session in generating:
            status = pool.wait_for(session["session_id"], "ready", "failed", within_s=120)
            assert status["status"] == "ready", status
            assert status["attempt"] == (2 if session["session_id"] in lost else 1)
        assert lost, "no session was being generated on the host that died"
    hosts.wait_for_state(pool, name, "up")
    until(lambda: _unknown_containers(pool, victim) == [], 30, f"{name} to be cleaned")


def test_a_network_cut_of_ten_seconds_costs_nothing(pool: Installation, fleet: Fleet) -> None:
    ready = _wait_until_ready(pool, _start(pool, 6))
    before = _placements(pool)
    victim = fleet.named(next(iter(_by_host(pool))))
    with _load(pool, ready) as load:
        with undo_at_end(victim.heal):
            load.wait(RATE_PER_S)
            victim.cut()
            cut_at = time.monotonic()
            hosts.wait_for_state(pool, victim.name, "suspect", within_s=10)
            more = _start(pool, 3)  # on other hosts: the victim can't be told to start any
            until(lambda: time.monotonic() - cut_at >= _CUT_S, 2 * _CUT_S, "the cut to last")
        hosts.wait_for_state(pool, victim.name, "up", within_s=20)
        new = _wait_until_ready(pool, more)
    assert {session_id: _placements(pool)[session_id] for session_id in before} == before
    assert all(pool.status(session_id)["attempt"] == 1 for session_id in _placements(pool))
    assert victim.name not in {_placements(pool)[app["session_id"]][0] for app in new}
    for app in ready:
        assert _is_served(pool, app)


def test_a_drain_empties_a_host_and_no_visitor_notices(pool: Installation, fleet: Fleet) -> None:
    ready = _wait_until_ready(pool, _start(pool, 9))
    name = max(_by_host(pool).items(), key=lambda item: len(item[1]))[0]
    with _load(pool, ready) as load:
        load.wait(20)
        with undo_at_end(lambda: pool.spawnctl("hosts", "uncordon", name)):
            pool.spawnctl("hosts", "drain", name)
            assert hosts.get(pool, name)["used"] == 0
            assert name not in _by_host(pool)
            load.wait(40)
    assert load.wrong == []
    assert len(load.failed) * 200 < load.count, (load.count, load.failed)
    assert [pool.status(app["session_id"])["url"] for app in ready] == [app["url"] for app in ready]
    assert fleet.named(name).containers() == []


def test_a_restarted_daemon_restores_its_links(pool: Installation, fleet: Fleet) -> None:
    ready = _wait_until_ready(pool, _start(pool, 30))
    started_before = {vps.name: vps.started_at() for vps in fleet}
    placements = _placements(pool)
    pool.kill_daemon()
    for app in ready:
        assert _is_served(pool, app)  # apps don't need the daemon
    until(lambda: _all_linked(pool), 30, "all links to be up again")
    assert _placements(pool) == placements
    for vps in fleet:
        before, after = started_before[vps.name], vps.started_at()
        assert {name: after.get(name) for name in before if name in after} == {
            name: time for name, time in before.items() if name in after
        }
        assert set(before) - set(after) == set(), "containers are gone"
    (app,) = _wait_until_ready(pool, _start(pool, 1))
    assert _is_served(pool, app)


def test_a_host_with_a_killed_docker_is_suspect_at_once_and_recovers(
    pool: Installation, fleet: Fleet
) -> None:
    ready = _wait_until_ready(pool, _start(pool, 4))
    victim = fleet.named(next(iter(_by_host(pool))))
    with undo_at_end(victim.start_dockerd):
        victim.kill_dockerd()
        hosts.wait_for_state(pool, victim.name, "suspect", within_s=10)
        assert "Docker" in hosts.get(pool, victim.name)["reason"]
    hosts.wait_for_state(pool, victim.name, "up")
    for app in ready:
        until(lambda app=app: _is_served(pool, app), 60, f"{app['url']} to answer")


def test_a_full_disk_takes_a_host_out_of_placement_until_it_is_freed(
    pool: Installation, fleet: Fleet
) -> None:
    victim = fleet.named("vps3")
    with undo_at_end(victim.free_disk):
        victim.fill_disk()
        until(lambda: hosts.get(pool, "vps3")["shortage"], 60, "the shortage to be seen")
        ready = _wait_until_ready(pool, _start(pool, 4))
        warm_before = {"vps3"}
        placed = {_placements(pool)[app["session_id"]][0] for app in ready}
        assert placed <= {"vps1", "vps2"} | warm_before
        assert all(pool.status(app["session_id"])["attempt"] == 1 for app in ready)
    until(lambda: not hosts.get(pool, "vps3")["shortage"], 60, "the shortage to be over")


# --- helpers --------------------------------------------------------------------------------------


def _load(pool: Installation, apps: Sequence[dict[str, Any]]) -> SteadyLoad:
    """A steady load on apps that were made from templates."""
    return SteadyLoad(
        pool, [VisitedApp(url=app["url"], texts=[_TITLES[app["template"]]]) for app in apps]
    )


def _start(pool: Installation, count: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(10) as clients:
        return list(
            clients.map(
                lambda number: pool.create(template=_APPS[number % len(_APPS)]), range(count)
            )
        )


def _wait_until_ready(
    pool: Installation, sessions: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Wait until all sessions are READY, and return their statuses."""
    statuses = [
        pool.wait_for(session["session_id"], "ready", "failed", within_s=180)
        for session in sessions
    ]
    errors = [status["error"] for status in statuses]
    assert {status["status"] for status in statuses} == {"ready"}, errors
    return statuses


def _is_served(pool: Installation, app: dict[str, Any]) -> bool:
    try:
        response = pool.call_app(app["url"])
    except OSError:
        return False
    return response.status == 200 and _TITLES[app["template"]] in response.text


def _live(pool: Installation) -> list[dict[str, Any]]:
    sessions = pool.admin("sessions?limit=1000")["sessions"]
    return [session for session in sessions if session["status"] not in {"destroyed", "failed"}]


def _by_host(pool: Installation) -> dict[str, list[str]]:
    """The ids of live sessions by host."""
    session_ids: dict[str, list[str]] = {}
    for session in _live(pool):
        if session["host"]:
            session_ids.setdefault(session["host"], []).append(session["session_id"])
    return session_ids


def _placements(pool: Installation) -> dict[str, tuple[str, str]]:
    """The host and the sandbox of each live session."""
    return {
        session["session_id"]: (session["host"], session["sandbox_id"]) for session in _live(pool)
    }


def _count_in_use(pool: Installation) -> int:
    counts = pool.admin("pool")
    return int(counts["claimed"] + counts["stopping"] + counts["broken"])


def _unknown_containers(pool: Installation, vps: Vps) -> list[str]:
    """The names of containers on a machine that the store doesn't know."""
    sandboxes = hosts.get(pool, vps.name)["sandboxes"]
    known_names = {f"spawn-{sandbox['sandbox_id']}" for sandbox in sandboxes}
    names = [container["Names"] for container in vps.containers()]
    return [name for name in names if name not in known_names]


def _all_linked(pool: Installation) -> bool:
    links = [host["link"] for host in pool.admin("hosts")["hosts"]]
    return all(link is not None and link["up"] and link["docker"] for link in links)


def _sandbox_port(pool: Installation, name: str) -> int:
    """The port of a sandbox on that host. If it has none, the first port of the range."""
    sandboxes = hosts.get(pool, name)["sandboxes"]
    return int(sandboxes[0]["port"]) if sandboxes else int(pool.env["SPAWN_PORTS"].split("-")[0])


def _gateway_of(vps: Vps) -> str:
    """The address of the machine that runs the proxy, as the VPS sees it."""
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
    """Try a TCP connection from a container, or from the machine itself. Returns "yes" or "no"."""
    if container is None:
        script = (
            f"timeout 2 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo yes || echo no"
        )
        return vps.exec("bash", "-c", script)
    return vps.exec("docker", "exec", container, "python3", "-c", _CONNECT, address, str(port))


def _resolves(vps: Vps, container: str) -> str:
    return vps.exec("docker", "exec", container, "python3", "-c", _RESOLVE)


def _log(pool: Installation, name: str) -> str:
    return (pool.state_dir / "log" / f"{name}.log").read_text(errors="replace")
