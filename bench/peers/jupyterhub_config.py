"""The configuration of the hub that bench/peers/jupyterhub.py runs. JupyterHub reads it."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - JupyterHub provides it

c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['BENCH_PORT']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{os.environ['BENCH_HUB_PORT']}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['BENCH_API_PORT']}"
c.ConfigurableHTTPProxy.command = [os.environ["BENCH_PROXY"]]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [
    {"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "servers"]}
]
c.JupyterHub.log_level = "WARN"
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = os.environ["BENCH_IMAGE"]
c.DockerSpawner.pull_policy = "skip"
c.DockerSpawner.remove = True
c.DockerSpawner.port = 3000
c.DockerSpawner.cmd = ["-c", os.environ["BENCH_APP"]]
c.DockerSpawner.extra_create_kwargs = {
    "entrypoint": ["python3"],
    "user": "2100021000:2100021000",
}
c.DockerSpawner.extra_host_config = {
    "read_only": True,
    "init": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "1g",
    "memswap_limit": "1g",
    "cpu_period": 200_000,
    "cpu_quota": 100_000,
    "pids_limit": 256,
    "tmpfs": {"/tmp": "size=64m", "/app": "size=256m"},
}
