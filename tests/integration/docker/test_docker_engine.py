"""DockerEngine against a real Docker engine."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.docker.engine import DockerEngine, DockerEngines
from orchestrator.adapters.docker.flags import SandboxLimits, container_name, create_body
from orchestrator.domain import errors, ids
from orchestrator.ports import SandboxSpec
from tests.fakes import samples
from tests.integration.docker import support
from tests.integration.docker.support import Bench, docker_cli, inspect

MIB = 1024**2


@pytest.fixture(scope="module")
def prepared() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


@pytest.fixture
def bench(prepared: Bench) -> Iterator[Bench]:
    yield prepared
    support.clear(prepared.engine)


def create_only(bench: Bench, spec: SandboxSpec) -> str:
    """What a maker leaves that died, or has not yet come, between create and start."""
    name = container_name(spec.sandbox_id)
    labels = create_body(bench.limits, spec)["Labels"].items()
    return docker_cli(
        *("create", "--name", name),
        *(f"--label={key}={value}" for key, value in labels),
        spec.image,
    )


def test_a_started_sandbox_has_every_fence(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    found = inspect(container_name(spec.sandbox_id))
    assert found is not None
    fences, config = found["HostConfig"], found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Hostname"] == "sandbox"
    assert config["OpenStdin"]
    assert config["StdinOnce"]
    assert not config["Tty"]
    assert config["Labels"] == {
        "ai.spawn.instance": bench.limits.instance,
        "ai.spawn.sandbox": spec.sandbox_id,
    }
    assert fences["ReadonlyRootfs"]
    assert fences["CapDrop"] == ["ALL"]
    assert not fences["CapAdd"]
    assert fences["SecurityOpt"] == ["no-new-privileges:true"]
    assert not fences["Privileged"]
    assert fences["Init"]
    assert fences["IpcMode"] == "private"
    assert not fences["PidMode"]
    assert not fences["Links"]
    assert not fences["Devices"]
    assert fences["Memory"] == fences["MemorySwap"] == 1024 * MIB
    assert fences["NanoCpus"] == 500_000_000
    assert fences["PidsLimit"] == 256
    assert fences["Dns"] == ["127.0.0.1"]
    assert fences["RestartPolicy"]["Name"] == "no"
    assert fences["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "5m", "max-file": "2"},
    }
    assert {limit["Name"]: limit["Hard"] for limit in fences["Ulimits"]} == {
        "nofile": 4096,
        "nproc": 65536,
        "core": 0,
    }
    assert fences["NetworkMode"] == bench.limits.network
    assert list(found["NetworkSettings"]["Networks"]) == [bench.limits.network]
    assert found["NetworkSettings"]["Ports"] == {
        "3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(spec.port)}]
    }
    (mount,) = found["Mounts"]
    assert (mount["Source"], mount["Destination"]) == (str(bench.agent_folder), "/run/spawn")
    assert not mount["RW"]


def test_the_kernel_enforces_the_fences_inside(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    name = container_name(spec.sandbox_id)
    status = docker_cli("exec", name, "cat", "/proc/self/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["10001"] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    mounts = {
        line.split()[1]: (line.split()[2], set(line.split()[3].split(",")))
        for line in docker_cli("exec", name, "cat", "/proc/mounts").splitlines()
    }
    assert "ro" in mounts["/"][1]
    assert "ro" in mounts["/run/spawn"][1]
    for folder, mode in (("/tmp", "1777"), ("/app", "700")):
        kind, options = mounts[folder]
        assert kind == "tmpfs"
        assert {"rw", "nosuid", "nodev", "noexec", "uid=10001"} <= options
        assert docker_cli("exec", name, "stat", "-c", "%a %u", folder) == f"{mode} 10001"


def test_the_identity_arrives_on_standard_input_and_is_nowhere_else(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    token = json.loads(spec.identity)["token"]
    assert support.answer(spec) == spec.identity
    name = container_name(spec.sandbox_id)
    assert token not in json.dumps(inspect(name))
    assert token not in docker_cli("top", name, "-eo", "pid,args")
    assert token not in docker_cli("exec", name, "cat", "/proc/1/environ", "/proc/1/cmdline")
    assert token not in bench.engine.logs(spec.sandbox_id, 100)


def test_standard_input_ends_after_the_identity(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    support.eventually(
        "the agent sees the end of its input",
        lambda: bench.engine.logs(spec.sandbox_id, 10) == "input closed\n",
    )


def test_starting_again_adopts_the_running_container(bench: Bench) -> None:
    spec = bench.spec()
    first = bench.start(spec)
    assert bench.start(spec) == first
    assert bench.start(spec, replace_stale=True) == first
    assert support.answer(spec) == spec.identity


def test_a_container_that_is_only_created_is_left_to_its_maker(bench: Bench) -> None:
    spec = bench.spec()
    created = create_only(bench, spec)
    with pytest.raises(errors.SandboxRefused) as refused:
        bench.start(spec)
    assert refused.value.code == "start_in_progress"
    assert inspect(created) is not None


def test_a_stale_created_container_is_replaced_when_asked(bench: Bench) -> None:
    spec = bench.spec()
    stale = create_only(bench, spec)
    assert bench.start(spec, replace_stale=True) != stale
    assert inspect(stale) is None
    assert support.answer(spec) == spec.identity


def test_a_container_that_has_exited_is_replaced(bench: Bench) -> None:
    spec = bench.spec()
    first = bench.start(spec)
    docker_cli("kill", first)
    support.eventually("it stopped", lambda: not next(iter(bench.engine.containers())).running)
    assert bench.start(spec) != first
    assert support.answer(spec) == spec.identity


def test_a_port_of_another_sandbox_is_port_taken_and_leaves_no_container(bench: Bench) -> None:
    first = bench.spec()
    bench.start(first)
    second = bench.spec(port=first.port)
    with pytest.raises(errors.SandboxRefused) as refused:
        bench.start(second)
    assert refused.value.code == "port_taken"
    assert [found.sandbox_id for found in bench.engine.containers()] == [first.sandbox_id]


def test_a_port_of_another_program_is_port_taken_and_leaves_no_container(bench: Bench) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(errors.SandboxRefused) as refused,
    ):
        bench.start(bench.spec(port=listener.getsockname()[1]))
    assert refused.value.code == "port_taken"
    assert bench.engine.containers() == []


def test_an_unknown_image_is_image_missing(bench: Bench) -> None:
    image = "spawnai/no-such-image:test"
    with pytest.raises(errors.SandboxRefused) as refused:
        bench.start(bench.spec(image=image))
    assert refused.value.code == "image_missing"
    assert not bench.engine.image_present(image)
    assert bench.engine.image_present(bench.image)


def test_a_missing_agent_folder_is_refused_and_named(bench: Bench) -> None:
    folder = str(bench.agent_folder / "nowhere")
    with pytest.raises(errors.SandboxRefused, match=folder) as refused:
        bench.start(bench.spec(agent_folder=folder))
    assert refused.value.code == "create_failed"
    assert bench.engine.containers() == []


def test_an_engine_that_is_away_is_unavailable_and_found_again_when_it_is_back() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "docker.sock"
        engine = DockerEngine(f"unix://{path}", SandboxLimits(instance="test-away"))
        with pytest.raises(errors.EngineUnavailable, match=str(path)):
            engine.containers()
        path.symlink_to(support.DOCKER_URL.removeprefix("unix://"))
        assert engine.containers() == []
        path.unlink()
        engine.close()
        with pytest.raises(errors.EngineUnavailable):
            engine.describe()


def test_an_engine_that_hangs_up_in_the_middle_is_unavailable() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "docker.sock"
        listener.bind(str(path))
        listener.listen()
        engine = DockerEngine(f"unix://{path}", SandboxLimits(instance="test-away"))
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(engine.describe)
            peer, _ = listener.accept()
            peer.close()
            with pytest.raises(errors.EngineUnavailable):
                asked.result(timeout=20)


def test_removing_returns_when_the_container_is_gone_and_may_be_repeated(bench: Bench) -> None:
    spec = bench.spec()
    container_id = bench.start(spec)
    bench.engine.remove(spec.sandbox_id)
    assert inspect(container_id) is None
    bench.engine.remove(spec.sandbox_id)
    bench.engine.remove(ids.new_sandbox_id())
    bench.start(bench.spec(port=spec.port))


def test_several_may_remove_the_same_sandbox_at_once(bench: Bench) -> None:
    spec = bench.spec()
    container_id = bench.start(spec)

    def remove_and_look(_turn: int) -> object:
        bench.engine.remove(spec.sandbox_id)
        return inspect(container_id)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(remove_and_look, range(4))) == [None] * 4


def test_several_threads_start_sandboxes_at_once(bench: Bench) -> None:
    specs = [bench.spec() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        started = list(pool.map(bench.start, specs))
    assert [support.answer(spec) for spec in specs] == [spec.identity for spec in specs]
    assert {found.id for found in bench.engine.containers()} == set(started)


def test_containers_are_those_of_this_instance_and_tell_how_they_ended(bench: Bench) -> None:
    running, ended = bench.spec(), bench.spec()
    running_id, ended_id = bench.start(running), bench.start(ended)
    docker_cli("kill", ended_id)
    support.eventually(
        "it stopped", lambda: not all(found.running for found in bench.engine.containers())
    )
    found = {container.sandbox_id: container for container in bench.engine.containers()}
    assert found.keys() == {running.sandbox_id, ended.sandbox_id}
    assert found[running.sandbox_id].id == running_id
    assert found[running.sandbox_id].running
    assert not found[ended.sandbox_id].running
    assert "137" in found[ended.sandbox_id].exit_note
    other = DockerEngine(support.DOCKER_URL, SandboxLimits(instance="test-other"))
    assert other.containers() == []
    other.close()


def test_twenty_starts_leave_no_file_descriptor_open(bench: Bench) -> None:
    def start_and_remove() -> int:
        spec = bench.spec()
        bench.start(spec)
        bench.engine.remove(spec.sandbox_id)
        return len(list(Path("/proc/self/fd").iterdir()))

    before = start_and_remove()
    assert [start_and_remove() for _ in range(20)] == [before] * 20


def test_logs_are_the_last_lines_and_empty_without_a_container(bench: Bench) -> None:
    spec = bench.spec(identity="first\nsecond")
    bench.start(spec)
    support.eventually("it logs", lambda: bench.engine.logs(spec.sandbox_id, 1) == "more input\n")
    assert bench.engine.logs(ids.new_sandbox_id(), 5) == ""


def test_the_engine_describes_itself(bench: Bench) -> None:
    described = bench.engine.describe()
    assert described["version"] == docker_cli("version", "--format", "{{.Server.Version}}")
    assert described["storage_driver"] == docker_cli("info", "--format", "{{.Driver}}")
    assert described["cgroup_version"] in {1, 2}
    assert described["memory_bytes"] > 0
    assert described["cpus"] > 0
    assert any("seccomp" in option for option in described["security_options"])


def test_the_network_lets_nothing_out_and_stays_while_a_sandbox_is_left() -> None:
    with support.new_bench() as bench:
        assert bench.engine.prepare() == []
        (network,) = json.loads(docker_cli("network", "inspect", bench.limits.network))
        assert not network["EnableIPv6"]
        assert network["Options"] == {
            "com.docker.network.bridge.name": bench.limits.bridge,
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        }
        spec = bench.spec()
        bench.start(spec)
        bench.engine.dismantle()
        docker_cli("network", "inspect", bench.limits.network)
        bench.engine.remove(spec.sandbox_id)
        bench.engine.dismantle()
        names = docker_cli("network", "ls", "--format", "{{.Name}}").splitlines()
        assert bench.limits.network not in names
        bench.engine.dismantle()


def test_a_network_that_somebody_made_differently_is_told() -> None:
    limits = SandboxLimits(instance=f"test-{os.urandom(4).hex()}")
    engine = DockerEngine(support.DOCKER_URL, limits)
    docker_cli("network", "create", limits.network)
    try:
        assert any(f"docker network rm {limits.network}" in text for text in engine.prepare())
    finally:
        engine.dismantle()
        engine.close()


def test_each_host_has_one_engine_that_is_kept() -> None:
    engines = DockerEngines(SandboxLimits(instance="test-kept"))
    one, two = samples.host(), samples.host()
    first = engines.of(one)
    assert engines.of(replace(one, cordoned=True)) is first
    assert engines.of(two) is not first
    engines.close()
    assert engines.of(one) is not first
