"""The steps that turn a bare machine into a host, as data. Pure.

`spawnctl hosts bootstrap` runs them over SSH. Its --dry-run prints them as one script, and the
cloud-init of a new machine runs that script. Every step may be repeated. None changes what an
operator has set up.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

SSHD_DROP_IN = "/etc/ssh/sshd_config.d/00-spawnai.conf"
_SSHD_SETTINGS = (
    # The name sorts before every other drop-in: sshd takes the first value that it reads.
    "AllowStreamLocalForwarding yes",
    "DisableForwarding no",
    "MaxSessions 10",
    "MaxStartups 30:30:100",
)
_MODULE = "/etc/modules-load.d/spawnai.conf"
_SYSCTL = "/etc/sysctl.d/60-spawnai.conf"
_DAEMON = "/etc/docker/daemon.json"


@dataclass(frozen=True, kw_only=True)
class SetupStep:
    """One property that the machine needs. Both scripts are POSIX shell and run as root."""

    title: str  # for people: the property
    check: str  # exits with 0 if the machine has it
    apply: str  # gives it to the machine; its output is shown if it fails
    required: bool = True  # False: if it fails, say so and go on


@dataclass(frozen=True, kw_only=True)
class SetupTarget:
    """What the machine is set up for."""

    user: str  # the one we log in as
    public_key: str  # our line for authorized_keys
    agent_folder: str  # where the link puts the agent socket


def steps(target: SetupTarget) -> Sequence[SetupStep]:
    """All steps, in an order in which each builds on those before it."""
    return (
        _docker_settings(),  # before Docker, so that its first start reads them
        _packages(),
        _docker_runs(),
        *([] if target.user == "root" else [_docker_group(target.user)]),
        _bridged(),
        _folder(target),
        _key(target),
        _sshd(target.user),
        _clock(),
    )


def render_script(steps_to_run: Sequence[SetupStep]) -> str:
    """The steps as one script for root. It prints what it does and stops if a required step
    fails.
    """
    parts = [
        f"step {shlex.quote(step.title)} {'required' if step.required else 'optional'}"
        f" 3<<'CHECK' 4<<'APPLY'\n{step.check}\nCHECK\n{step.apply}\nAPPLY\n"
        for step in steps_to_run
    ]
    return "\n".join([_PROLOGUE, *parts])


# The PATH of an ordinary user or of cron lacks the folders of dockerd and iptables.
PATH = "export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Steps get no standard input, because the shell may be reading this very script from it.
_PROLOGUE = f"""#!/bin/sh
# Sets this machine up as a host of SpawnAI. Run it as root. It is safe to repeat.
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


def _docker_settings() -> SetupStep:
    """Settings of the daemon, unless the operator has some.

    The operator may have a file, or flags, and Docker refuses a setting that is in both. Live
    restore keeps apps running while Docker restarts, but Docker refuses it in swarm mode.
    """
    return SetupStep(
        title="Docker limits its logs, and apps survive its restarts",
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
# A running engine applies live-restore at once, and the limits of logs at its next start.
if pidof dockerd >/dev/null; then kill -HUP $(pidof dockerd); fi""",
    )


def _packages() -> SetupStep:
    return SetupStep(
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


def _docker_runs() -> SetupStep:
    return SetupStep(
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


def _docker_group(user: str) -> SetupStep:
    return SetupStep(
        title=f"{user} may use Docker",
        check=f"id -nG {user} | tr ' ' '\\n' | grep -qx docker",
        apply=f"usermod -aG docker {user}",
    )


def _bridged() -> SetupStep:
    return SetupStep(
        title="Traffic between sandboxes passes the firewall, also after a reboot",
        check=f"[ -e {_MODULE} ] && [ -e {_SYSCTL} ]\n"
        '[ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables)" = 1 ]',
        apply=f"""install -d -m 0755 {_MODULE.rpartition("/")[0]} {_SYSCTL.rpartition("/")[0]}
echo br_netfilter >{_MODULE}
printf '%s\\n' 'net.bridge.bridge-nf-call-iptables = 1' \\
    'net.bridge.bridge-nf-call-ip6tables = 1' >{_SYSCTL}
[ -d /proc/sys/net/bridge ] || modprobe br_netfilter
sysctl -q -p {_SYSCTL}""",
    )


def _folder(target: SetupTarget) -> SetupStep:
    """The folder is below /run, which is empty after each boot."""
    folder, name = target.agent_folder, target.agent_folder.rpartition("/")[2]
    return SetupStep(
        title=f"{folder} exists, also after a reboot",
        check=f"[ -e /etc/tmpfiles.d/{name}.conf ] && [ -d {folder} ]",
        apply=f"""install -d -m 0755 /etc/tmpfiles.d
echo 'd {folder} 0755 {target.user} - -' >/etc/tmpfiles.d/{name}.conf
install -d -m 0755 -o {target.user} {folder}""",
    )


def _key(target: SetupTarget) -> SetupStep:
    line = shlex.quote(target.public_key)
    data = shlex.quote(target.public_key.split()[1])
    keys = f'"$(getent passwd {target.user} | cut -d: -f6)/.ssh/authorized_keys"'
    return SetupStep(
        title=f"Our key lets us in as {target.user}",
        check=f"grep -qF {data} {keys}",
        apply=f"""keys={keys}
install -d -m 0700 -o {target.user} "$(dirname "$keys")"
touch "$keys"
chown {target.user} "$keys"
chmod 0600 "$keys"
# The last line of the file may lack its newline.
[ -z "$(tail -c 1 "$keys")" ] || echo >>"$keys"
echo {line} >>"$keys\"""",
    )


def _sshd(user: str) -> SetupStep:
    settings = "\n".join(_SSHD_SETTINGS)
    return SetupStep(
        title="sshd forwards sockets and allows enough connections",
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
# Never reload settings with which sshd would not start.
if ! sshd -t; then rm -f {SSHD_DROP_IN}; exit 1; fi
if [ -d /run/systemd/system ]; then systemctl reload-or-restart ssh
elif [ -s /run/sshd.pid ]; then kill -HUP "$(cat /run/sshd.pid)"; fi
echo 'Effective settings (lines before the Include in /etc/ssh/sshd_config take precedence):'
sshd -T -C user={user},host=localhost,addr=127.0.0.1 \\
    | grep -i -e '^allowstreamlocal' -e '^disableforw' -e '^maxs'""",
    )


def _clock() -> SetupStep:
    """Optional: a container has its host's clock, and not every image has systemd."""
    return SetupStep(
        title="The clock is synchronised",
        required=False,
        check="pidof chronyd || pidof ntpd || pidof systemd-timesyncd"
        ' || [ "$(timedatectl show -p NTPSynchronized --value)" = yes ]',
        apply="""export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends systemd-timesyncd
timedatectl set-ntp true""",
    )
