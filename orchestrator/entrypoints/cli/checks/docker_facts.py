"""Checks the facts of a Docker engine: this machine's or a host's. Pure. Used by `engine` and
`host`."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.domain.pool.docker_facts import FIT_DRIVERS, DockerFacts
from orchestrator.entrypoints.cli.findings import Finding, ok, problem, warning


def check_docker_facts(facts: DockerFacts, runtime: str) -> Iterator[Finding]:
    """Version, storage driver, limits and runtime. `runtime`: the OCI runtime that sandboxes are to
    use, "" for Docker's own."""
    yield _version(facts)
    yield _storage(facts)
    yield _limits(facts)
    if runtime and runtime not in facts.runtimes:
        yield problem(
            "sandbox runtime",
            f"Docker has no runtime {runtime}",
            f"Add {runtime} to /etc/docker/daemon.json, or unset SPAWN_SANDBOX_RUNTIME",
            "runtime_missing",
        )


def _version(facts: DockerFacts) -> Finding:
    if facts.is_too_old:
        return problem(
            "Docker",
            f"version {facts.version} is too old",
            "Install Docker 20.10 or newer",
            "docker_too_old",
        )
    firewall = f"; it sets its firewall rules with {facts.firewall}" if facts.firewall else ""
    return ok("Docker", f"version {facts.version} answers{firewall}")


def _storage(facts: DockerFacts) -> Finding:
    if facts.driver in FIT_DRIVERS:
        return ok("storage driver", facts.driver)
    return warning(
        "storage driver",
        f"{facts.driver} copies whole images: starts are slow and take much disk",
        'Set {"storage-driver": "overlay2"} in /etc/docker/daemon.json and restart Docker',
    )


def _limits(facts: DockerFacts) -> Finding:
    """Whether the kernel enforces the limits of sandboxes."""
    if facts.limits_missing:
        missing = " and ".join(facts.limits_missing)
        return problem(
            "cgroups",
            f"version {facts.cgroup_version}, without {missing} limits: one app could take all",
            "Add cgroup_enable=memory to the kernel's command line and reboot; for rootless Docker"
            " delegate the controllers to its user",
            "limits_missing",
        )
    return ok("cgroups", f"version {facts.cgroup_version}; memory, CPU and process limits work")
