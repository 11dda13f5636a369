"""DockerEngine against a real Docker engine."""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.docker.engine import DockerEngine, DockerEngines
from orchestrator.adapters.docker.flags import SandboxLimits, container_name, create_body
from orchestrator.domain import errors, ids
from orchestrator.domain.ids import SandboxId
from orchestrator.ports import SandboxSpec
from tests.cgroups import READ_CPU_LIMIT, cpus_of
from tests.fakes import samples
from tests.fakes.terms import TermThatEnds
from tests.integration.docker import support
from tests.integration.docker.support import DOCKER_URL, Bench, docker_cli, inspect

MIB = 1024**2
DOCKER_EXEC = ("docker", "exec", "--interactive")
INOTIFY_INIT1 = {"x86_64": 294, "aarch64": 26}[platform.machine()]  # the system call's number


@pytest.fixture(scope="module")
def prepared() -> Iterator[Bench]:
    with support.new_bench() as bench:
        yield bench


@pytest.fixture
def bench(prepared: Bench) -> Iterator[Bench]:
    yield prepared
    support.remove_all(prepared.engine)


def count_descriptors() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def create_only(bench: Bench, spec: SandboxSpec) -> str:
    """Create without a start: like a process that died between the two, or is still at work."""
    name = container_name(spec.sandbox_id)
    labels = create_body(bench.limits, spec, user=1)["Labels"].items()
    return docker_cli(
        *("create", "--name", name),
        *(f"--label={key}={value}" for key, value in labels),
        spec.image,
    )


def test_the_engine_of_a_host_that_left_the_pool_is_closed_and_forgotten() -> None:
    hosts = [samples.host(docker_url=DOCKER_URL) for _ in range(2)]
    with contextlib.closing(DockerEngines(SandboxLimits(instance="leaving"))) as engines:
        engines.for_host(hosts[0]).describe()
        before = count_descriptors()
        leaving = engines.for_host(hosts[1])
        leaving.describe()
        assert count_descriptors() > before
        engines.keep(hosts[:1])
        assert count_descriptors() == before
        assert engines.for_host(hosts[1]) is not leaving


def test_an_engine_can_be_closed_while_it_is_being_connected_to() -> None:
    """Its host may have left because it hangs."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/docker.sock"
        listener.bind(path)
        listener.listen()
        engine = DockerEngine(f"unix://{path}", SandboxLimits(instance="leaving"))
        with ThreadPoolExecutor(2) as pool:
            call = pool.submit(engine.describe)
            peer, _ = listener.accept()
            closing = pool.submit(engine.close)
            wait([call, closing], return_when=FIRST_COMPLETED)
            assert not call.done()
            peer.close()
            listener.close()
            with pytest.raises(errors.EngineUnavailable):
                call.result()


def test_a_started_sandbox_has_every_restriction(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    details = inspect(container_name(spec.sandbox_id))
    assert details is not None
    host_config, config = details["HostConfig"], details["Config"]
    user = 2_100_000_000 + spec.port
    assert config["User"] == f"{user}:{user}"
    assert config["Hostname"] == "sandbox"
    assert config["OpenStdin"]
    assert config["StdinOnce"]
    assert not config["Tty"]
    assert config["Labels"] == {
        "ai.spawn.instance": bench.limits.instance,
        "ai.spawn.sandbox": spec.sandbox_id,
    }
    assert host_config["ReadonlyRootfs"]
    assert host_config["CapDrop"] == ["ALL"]
    assert not host_config["CapAdd"]
    assert host_config["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host_config["Privileged"]
    assert host_config["Init"]
    assert host_config["IpcMode"] == "private"
    assert not host_config["PidMode"]
    assert not host_config["Links"]
    assert not host_config["Devices"]
    assert host_config["Memory"] == host_config["MemorySwap"] == 1024 * MIB
    assert host_config["CpuQuota"] / host_config["CpuPeriod"] == 0.5
    assert host_config["CpuShares"] == 512
    assert host_config["PidsLimit"] == 256
    assert host_config["Dns"] == ["127.0.0.1"]
    assert host_config["RestartPolicy"]["Name"] == "no"
    assert host_config["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "5m", "max-file": "2"},
    }
    assert {limit["Name"]: limit["Hard"] for limit in host_config["Ulimits"]} == {
        "nofile": 4096,
        "core": 0,
    }
    assert host_config["NetworkMode"] == bench.limits.network
    assert list(details["NetworkSettings"]["Networks"]) == [bench.limits.network]
    assert details["NetworkSettings"]["Ports"] == {
        "3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(spec.port)}]
    }
    (mount,) = details["Mounts"]
    assert (mount["Source"], mount["Destination"]) == (str(bench.agent_folder), "/run/spawn")
    assert not mount["RW"]


def cpu_limit(spec: SandboxSpec) -> float:
    name = container_name(spec.sandbox_id)
    return cpus_of(docker_cli("exec", name, *READ_CPU_LIMIT))


def other_limits(spec: SandboxSpec) -> str:
    """Its limits of processes and memory and its weight, as the kernel has them."""
    name = container_name(spec.sandbox_id)
    command = (
        "cd /sys/fs/cgroup; cat pids.max memory.max memory.swap.max cpu.weight pids/pids.max"
        " memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.shares"
        " 2>/dev/null || true"
    )
    limits = docker_cli("exec", name, "sh", "-c", command)
    assert "256" in limits.split()
    return limits


def test_a_sandbox_that_runs_gets_another_cpu_limit_and_keeps_all_others(bench: Bench) -> None:
    spec = bench.spec(cpus=1.5)
    container_id = bench.start(spec)
    before = inspect(container_name(spec.sandbox_id))
    assert before is not None
    assert cpu_limit(spec) == 1.5
    others = other_limits(spec)
    for cpus in (0.5, 2.0, 0.5):
        bench.engine.limit_cpus(container_id, cpus)
        assert cpu_limit(spec) == cpus
        assert other_limits(spec) == others
    after = inspect(container_name(spec.sandbox_id))
    assert after is not None
    assert after["State"]["Pid"] == before["State"]["Pid"]
    assert after["HostConfig"] == {**before["HostConfig"], "CpuQuota": 100_000}


def test_a_container_that_is_gone_gets_no_limit(bench: Bench) -> None:
    spec = bench.spec()
    container_id = bench.start(spec)
    bench.engine.remove(spec.sandbox_id)
    with pytest.raises(errors.NotFound):
        bench.engine.limit_cpus(container_id, 1)


def test_a_limit_that_docker_refuses_leaves_the_old_one(bench: Bench) -> None:
    spec = bench.spec(cpus=1.5)
    container_id = bench.start(spec)
    with pytest.raises(errors.SandboxRefused) as refused:
        bench.engine.limit_cpus(container_id, 0.000_1)  # the kernel's least is a millisecond
    assert refused.value.code == "cpu_limit_refused"
    assert cpu_limit(spec) == 1.5


def test_the_kernel_enforces_the_restrictions_inside(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    name = container_name(spec.sandbox_id)
    status = docker_cli("exec", name, "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = str(2_100_000_000 + spec.port)
    assert fields["Uid"].split() == fields["Gid"].split() == [user] * 4
    assert fields["Groups"].split() == [user]
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    mounts = {
        line.split()[1]: (line.split()[2], set(line.split()[3].split(",")))
        for line in docker_cli("exec", name, "cat", "/proc/mounts").splitlines()
    }
    assert "ro" in mounts["/"][1]
    assert "ro" in mounts["/run/spawn"][1]
    for folder, mode in (("/tmp", "1777"), ("/app", "700")):
        kind, options = mounts[folder]
        assert kind == "tmpfs"
        assert {"rw", "nosuid", "nodev", "noexec", f"uid={user}"} <= options
        assert docker_cli("exec", name, "stat", "-c", "%a %u", folder) == f"{mode} {user}"


def test_what_the_kernel_counts_per_user_is_not_taken_from_a_neighbour(bench: Bench) -> None:
    greedy, neighbour = bench.spec(), bench.spec()
    bench.start(greedy)
    bench.start(neighbour)
    take_all = f"$n++ while syscall({INOTIFY_INIT1}, 0) >= 0; $| = 1; print $n + 0, qq(\\n);"
    hold = [*DOCKER_EXEC, container_name(greedy.sandbox_id), "perl", "-e", f"{take_all} <STDIN>"]
    with subprocess.Popen(
        hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=support.ENVIRONMENT
    ) as holder:
        assert holder.stdout is not None
        taken = int(holder.stdout.readline())
        name = container_name(neighbour.sandbox_id)
        left = int(docker_cli("exec", name, "perl", "-e", take_all))
        holder.communicate()
    assert left == taken > 0


def test_the_identity_arrives_on_standard_input_and_appears_nowhere_else(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    token = json.loads(spec.identity)["token"]
    assert support.wait_for_body(spec) == spec.identity
    name = container_name(spec.sandbox_id)
    assert token not in json.dumps(inspect(name))
    assert token not in docker_cli("top", name, "-eo", "pid,args")
    assert token not in docker_cli("exec", name, "cat", "/proc/1/environ", "/proc/1/cmdline")
    assert token not in support.printed_by(spec.sandbox_id)


def test_standard_input_ends_after_the_identity(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    support.eventually(
        "the agent sees the end of its input",
        lambda: support.printed_by(spec.sandbox_id) == "input closed\n",
    )


def test_starting_again_adopts_the_running_container(bench: Bench) -> None:
    spec = bench.spec()
    first_id = bench.start(spec)
    assert bench.start(spec) == first_id
    assert support.wait_for_body(spec) == spec.identity


def test_a_container_that_was_never_started_is_replaced(bench: Bench) -> None:
    spec = bench.spec()
    stale_id = create_only(bench, spec)
    assert bench.start(spec) != stale_id
    assert inspect(stale_id) is None
    assert support.wait_for_body(spec) == spec.identity


def test_a_container_that_has_exited_is_replaced(bench: Bench) -> None:
    spec = bench.spec()
    first_id = bench.start(spec)
    docker_cli("kill", first_id)
    support.eventually("it stopped", lambda: not next(iter(bench.engine.containers())).running)
    assert bench.start(spec) != first_id
    assert support.wait_for_body(spec) == spec.identity


def test_a_port_of_another_sandbox_raises_port_taken_and_leaves_no_container(bench: Bench) -> None:
    first = bench.spec()
    bench.start(first)
    second = bench.spec(port=first.port)
    with pytest.raises(errors.SandboxRefused) as refused:
        bench.start(second)
    assert refused.value.code == "port_taken"
    assert [container.sandbox_id for container in bench.engine.containers()] == [first.sandbox_id]


def test_a_port_of_another_program_raises_port_taken_and_leaves_no_container(bench: Bench) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(errors.SandboxRefused) as refused,
    ):
        bench.start(bench.spec(port=listener.getsockname()[1]))
    assert refused.value.code == "port_taken"
    assert bench.engine.containers() == []


def test_an_unknown_image_raises_image_missing(bench: Bench) -> None:
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


class Folders:
    """Agent folders of sandboxes, without sockets."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    def offer(self, sandbox_id: SandboxId) -> None:
        (self.parent / sandbox_id).mkdir()

    def withdraw(self, sandbox_id: SandboxId) -> None:
        (self.parent / sandbox_id).rmdir()


def test_a_sandbox_gets_its_agent_folder_before_it_starts_and_loses_it_at_its_end(
    bench: Bench,
) -> None:
    engine = DockerEngine(DOCKER_URL, bench.limits, sockets=Folders(bench.agent_folder))
    spec = bench.spec()
    spec = replace(spec, agent_folder=str(bench.agent_folder / spec.sandbox_id))
    with contextlib.closing(engine):
        engine.start(spec)
        assert Path(spec.agent_folder).exists()
        engine.remove(spec.sandbox_id)
        assert not Path(spec.agent_folder).exists()


def test_a_stopped_engine_is_unavailable_and_usable_again_after_its_return() -> None:
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
            future = pool.submit(engine.describe)
            peer, _ = listener.accept()
            peer.close()
            with pytest.raises(errors.EngineUnavailable):
                future.result(timeout=20)


def test_removing_returns_when_the_container_is_gone_and_may_be_repeated(bench: Bench) -> None:
    spec = bench.spec()
    container_id = bench.start(spec)
    bench.engine.remove(spec.sandbox_id)
    assert inspect(container_id) is None
    bench.engine.remove(spec.sandbox_id)
    bench.engine.remove(ids.new_sandbox_id())
    bench.start(bench.spec(port=spec.port))


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_container_that_somebody_renamed_is_removed_too(bench: Bench, state: str) -> None:
    spec, neighbour = bench.spec(), bench.spec()
    container_id, neighbour_id = bench.start(spec), bench.start(neighbour)
    docker_cli("rename", container_id, f"by-hand-{spec.sandbox_id}")
    if state == "exited":
        docker_cli("kill", container_id)
    bench.engine.remove(spec.sandbox_id)
    assert inspect(container_id) is None
    assert [container.id for container in bench.engine.containers()] == [neighbour_id]


def test_several_may_remove_the_same_sandbox_at_once(bench: Bench) -> None:
    spec = bench.spec()
    container_id = bench.start(spec)

    def remove_and_inspect(_turn: int) -> object:
        bench.engine.remove(spec.sandbox_id)
        return inspect(container_id)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(remove_and_inspect, range(4))) == [None] * 4


def test_several_threads_start_sandboxes_at_once(bench: Bench) -> None:
    specs = [bench.spec() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        started_ids = list(pool.map(bench.start, specs))
    assert [support.wait_for_body(spec) for spec in specs] == [spec.identity for spec in specs]
    assert {container.id for container in bench.engine.containers()} == set(started_ids)


def test_containers_lists_only_this_instance_and_how_each_container_ended(bench: Bench) -> None:
    running, ended = bench.spec(), bench.spec()
    running_id, ended_id = bench.start(running), bench.start(ended)
    docker_cli("kill", ended_id)
    support.eventually(
        "it stopped", lambda: not all(container.running for container in bench.engine.containers())
    )
    containers = {container.sandbox_id: container for container in bench.engine.containers()}
    assert containers.keys() == {running.sandbox_id, ended.sandbox_id}
    assert containers[running.sandbox_id].id == running_id
    assert containers[running.sandbox_id].running
    assert not containers[ended.sandbox_id].running
    assert "137" in containers[ended.sandbox_id].exit_note
    other_engine = DockerEngine(support.DOCKER_URL, SandboxLimits(instance="test-other"))
    assert other_engine.containers() == []
    other_engine.close()


def test_twenty_starts_leave_no_file_descriptor_open(bench: Bench) -> None:
    def start_and_remove() -> int:
        spec = bench.spec()
        bench.start(spec)
        bench.engine.remove(spec.sandbox_id)
        return len(list(Path("/proc/self/fd").iterdir()))

    before = start_and_remove()
    assert [start_and_remove() for _ in range(20)] == [before] * 20


def test_an_engine_of_an_earlier_leader_does_nothing(bench: Bench) -> None:
    spec = bench.spec()
    bench.start(spec)
    term = TermThatEnds()
    term.is_over = True
    engine = DockerEngine(support.DOCKER_URL, bench.limits, check_term=term.check)
    for act in (lambda: engine.remove(spec.sandbox_id), lambda: engine.start(bench.spec())):
        with pytest.raises(errors.TermOver):
            act()
    with pytest.raises(errors.TermOver):
        engine.prepare()
    (container,) = bench.engine.containers()
    assert container.sandbox_id == spec.sandbox_id
    assert container.running


def test_a_term_that_ends_between_create_and_start_leaves_no_container(bench: Bench) -> None:
    term = TermThatEnds()
    engine = DockerEngine(support.DOCKER_URL, bench.limits, check_term=term.check)
    engine.containers()
    term.checks_left = 3  # the call, the connection, the creation
    with pytest.raises(errors.TermOver):
        engine.start(bench.spec())
    assert list(bench.engine.containers()) == []
    engine.close()
