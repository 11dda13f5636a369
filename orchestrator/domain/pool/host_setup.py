"""What makes a bare machine fit to be a host: steps, as data. Pure.

One source for `spawnctl hosts bootstrap`, which runs them over SSH, for its --dry-run, which prints
them as a script, and for the cloud-init of a new machine, which runs that script. Every step may be
repeated; what an operator has set up is left as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

SSHD_DROP_IN = "/etc/ssh/sshd_config.d/00-spawnai.conf"
_SSHD_SETTINGS = (
    # Before every other drop-in: sshd takes the first value that it meets.
    "AllowStreamLocalForwarding yes",
    "DisableForwarding no",
    "MaxSessions 10",
    "MaxStartups 30:30:100",
)
_MODULE = "/etc/modules-load.d/spawnai.conf"
_SYSCTL = "/etc/sysctl.d/60-spawnai.conf"
_DAEMON = "/etc/docker/daemon.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to have. Both scripts are POSIX shell, and run as root."""

    title: str  # for people: what is so afterwards
    check: str  # exits with 0 when it is so already
    apply: str  # makes it so; what it prints is shown when it fails
    required: bool = True  # False: a failure is told, and is no reason to stop


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """For whom a machine is set up."""

    user: str  # that we log in as
    public_key: str  # our line for authorized_keys
    agent_folder: str  # where links put the agent socket


def steps(wanted: Wanted) -> Sequence[Step]:
    """All of them, in the order in which they build on each other."""
    return (
        _docker_settings(),  # before Docker, so that its first start is with them
        _packages(),
        _docker_runs(),
        *([] if wanted.user == "root" else [_docker_group(wanted.user)]),
        _bridged(),
        _folder(wanted),
        _key(wanted),
        _sshd(wanted.user),
        _clock(),
    )


def script(found: Sequence[Step]) -> str:
    """The steps as one script, for root, that says what it does and stops where a required one
    fails."""
    parts = [
        f"step {shlex.quote(one.title)} {'required' if one.required else 'optional'}"
        f" 3<<'CHECK' 4<<'APPLY'\n{one.check}\nCHECK\n{one.apply}\nAPPLY\n"
        for one in found
    ]
    return "\n".join([_PROLOGUE, *parts])


# An ordinary user's PATH, and a bare cron-like one, lack the folders of dockerd and iptables.
PATH = "export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Standard input is closed to what it runs: the script itself may come by it.
_PROLOGUE = f"""#!/bin/sh
# Makes this machine fit to be a host of SpawnAI. Safe to repeat; for root.
set -eu
{PATH}
[ "$(id -u)" = 0 ] || {{ echo 'Run this as root.' >&2; exit 1; }}
step() {{
    check=$(cat <&3) apply=$(cat <&4)
    if sh -ec "$check" </dev/null >/dev/null 2>&1; then
        echo "already  $1"
    elif sh -ec "$apply" </dev/null && sh -ec "$check" </dev/null >/dev/null; then
        echo "done     $1"
    else
        echo "failed   $1" >&2
        [ "$2" = optional ] || exit 1
    fi
}}
"""


def _docker_settings() -> Step:
    """Only where an operator has none: neither a file, nor flags, which mustn't say the same as a
    file. Live restore, with which a restart of Docker leaves apps running, excludes swarm mode."""
    return Step(
        title="Docker bounds its logs, and its restarts leave apps running",
        check=f"""[ ! -e {_DAEMON} ] || exit 0
for pid in $(pidof dockerd); do
    ! tr '\\0' '\\n' <"/proc/$pid/cmdline" | grep -qe --live-restore -e --log- || exit 0
done
[ "$(docker info --format '{{{{.Swarm.LocalNodeState}}}}' 2>/dev/null)" = active ]""",
        apply=f"""install -d -m 0755 /etc/docker
cat >{_DAEMON} <<'JSON'
{{
  "live-restore": true,
  "log-driver": "json-file",
  "log-opts": {{"max-size": "10m", "max-file": "3"}}
}}
JSON
# A running engine takes up live-restore at once, and the logs at its next start.
if pidof dockerd >/dev/null; then kill -HUP $(pidof dockerd); fi""",
    )


def _packages() -> Step:
    return Step(
        title="Docker and iptables are installed",
        check="command -v dockerd && command -v docker && command -v iptables",
        apply="""if ! command -v apt-get >/dev/null; then
    echo 'This is neither Debian nor Ubuntu: install Docker 20.10 or newer and iptables.' >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
missing=iptables
command -v dockerd >/dev/null || missing="$missing docker.io"
# In Debian 13 and later the command is a package of its own.
command -v docker >/dev/null || ! apt-cache show docker-cli >/dev/null 2>&1 \\
    || missing="$missing docker-cli"
apt-get update -qq
apt-get install -qq -y --no-install-recommends $missing""",
    )


def _docker_runs() -> Step:
    return Step(
        title="Docker runs, and starts with the machine",
        check="docker info",
        apply="""if [ -d /run/systemd/system ]; then systemctl enable --now docker
else service docker start; fi
for _ in $(seq 30); do
    if docker info >/dev/null 2>&1; then exit 0; fi
    sleep 1
done
docker info""",
    )


def _docker_group(user: str) -> Step:
    return Step(
        title=f"{user} may use Docker",
        check=f"id -nG {user} | tr ' ' '\\n' | grep -qx docker",
        apply=f"usermod -aG docker {user}",
    )


def _bridged() -> Step:
    return Step(
        title="Traffic between sandboxes passes the firewall, after a reboot too",
        check=f"[ -e {_MODULE} ] && [ -e {_SYSCTL} ]\n"
        '[ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables)" = 1 ]',
        apply=f"""install -d -m 0755 {_MODULE.rpartition("/")[0]} {_SYSCTL.rpartition("/")[0]}
echo br_netfilter >{_MODULE}
printf '%s\\n' 'net.bridge.bridge-nf-call-iptables = 1' \\
    'net.bridge.bridge-nf-call-ip6tables = 1' >{_SYSCTL}
[ -d /proc/sys/net/bridge ] || modprobe br_netfilter
sysctl -q -p {_SYSCTL}""",
    )


def _folder(wanted: Wanted) -> Step:
    """Below /run, which is empty after each start."""
    folder, name = wanted.agent_folder, wanted.agent_folder.rpartition("/")[2]
    return Step(
        title=f"{folder} is there, after a reboot too",
        check=f"[ -e /etc/tmpfiles.d/{name}.conf ] && [ -d {folder} ]",
        apply=f"""install -d -m 0755 /etc/tmpfiles.d
echo 'd {folder} 0755 {wanted.user} - -' >/etc/tmpfiles.d/{name}.conf
install -d -m 0755 -o {wanted.user} {folder}""",
    )


def _key(wanted: Wanted) -> Step:
    line = shlex.quote(wanted.public_key)
    data = shlex.quote(wanted.public_key.split()[1])
    keys = f'"$(getent passwd {wanted.user} | cut -d: -f6)/.ssh/authorized_keys"'
    return Step(
        title=f"Our key lets us in as {wanted.user}",
        check=f"grep -qF {data} {keys}",
        apply=f"""keys={keys}
install -d -m 0700 -o {wanted.user} "$(dirname "$keys")"
touch "$keys"
chown {wanted.user} "$keys"
chmod 0600 "$keys"
# Its last line may lack its end.
[ -z "$(tail -c 1 "$keys")" ] || echo >>"$keys"
echo {line} >>"$keys\"""",
    )


def _sshd(user: str) -> Step:
    settings = "\n".join(_SSHD_SETTINGS)
    return Step(
        title="sshd forwards sockets, and bears our connections",
        check=f"""effective=$(sshd -T -C user={user},host=localhost,addr=127.0.0.1)
echo "$effective" | grep -qix 'allowstreamlocalforwarding \\(yes\\|all\\)'
echo "$effective" | grep -qix 'disableforwarding no'
[ "$(echo "$effective" | sed -n 's/^maxsessions //p')" -ge 4 ]
[ "$(echo "$effective" | sed -n 's/^maxstartups \\([0-9]*\\).*/\\1/p')" -ge 10 ]""",
        apply=f"""if ! grep -qi '^Include /etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then
    echo 'Put this line first in /etc/ssh/sshd_config: Include /etc/ssh/sshd_config.d/*.conf' >&2
    exit 1
fi
install -d -m 0755 {SSHD_DROP_IN.rpartition("/")[0]}
cat >{SSHD_DROP_IN} <<'SSHD'
{settings}
SSHD
# Never reload what sshd wouldn't start with.
if ! sshd -t; then rm -f {SSHD_DROP_IN}; exit 1; fi
if [ -d /run/systemd/system ]; then systemctl reload-or-restart ssh
elif [ -s /run/sshd.pid ]; then kill -HUP "$(cat /run/sshd.pid)"; fi
echo 'In force now; a line before the Include in /etc/ssh/sshd_config goes before ours:'
sshd -T -C user={user},host=localhost,addr=127.0.0.1 \\
    | grep -i -e '^allowstreamlocal' -e '^disableforw' -e '^maxs'""",
    )


def _clock() -> Step:
    """A hint: in a container the clock is its host's, and not every image has systemd."""
    return Step(
        title="The clock is kept right",
        required=False,
        check="pidof chronyd || pidof ntpd || pidof systemd-timesyncd"
        ' || [ "$(timedatectl show -p NTPSynchronized --value)" = yes ]',
        apply="""export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends systemd-timesyncd
timedatectl set-ntp true""",
    )
