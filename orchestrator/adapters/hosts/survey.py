"""One look at a machine over SSH: its facts, and whether it forwards and is reached as we need it.

Called by `spawnctl hosts add` and `hosts doctor`. Changes nothing over there.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import time
from collections.abc import Sequence

import asyncssh

from orchestrator.adapters.ssh import connection as ssh
from orchestrator.domain.pool import host_facts
from orchestrator.domain.pool.host_facts import Survey

_SURVEY_S = 60.0
_FORWARD_S = 10.0
_KNOCK_S = 5.0
_LISTEN_S = 15  # over there, until somebody comes
_PORTS_TRIED = 20

# What host_facts.parse reads. Nothing in here may fail the rest: what isn't there is unknown.
_SCRIPT = r"""
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
say() { printf '\n@@ %s\n' "$1"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
say clock; date +%s.%N
say user; echo "$(id -u) $(id -un)"
say peer; echo "${SSH_CONNECTION%% *}"
say sudo; as_root true >/dev/null 2>&1 && echo yes
say os; cat /etc/os-release
say machine; cat /etc/machine-id
say cpus; getconf _NPROCESSORS_ONLN
say meminfo; cat /proc/meminfo
say client; command -v docker >/dev/null && echo yes
say docker; docker info --format '{{json .}}' 2>&1
root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
while [ ! -e "${root:=/var/lib/docker}" ]; do root=$(dirname "$root"); done
say disk; df -Pk "$root"; echo "$root"
say inodes; df -Pi "$root"
say networks
docker network ls -q 2>/dev/null | xargs docker network inspect \
    --format '{{range .IPAM.Config}}{{.Subnet}} {{end}}' 2>/dev/null
say sshd
as_root sshd -T -C "user=$(id -un),host=${SSH_CONNECTION%% *},addr=${SSH_CONNECTION%% *}" 2>&1
say iptables; as_root iptables -w 5 -S INPUT 2>&1; echo $?
say bridged; cat /proc/sys/net/bridge/bridge-nf-call-iptables
say addresses; cat /proc/net/fib_trie
say routes; cat /proc/net/route
"""

# A listener that says a word to whom comes first; prints its port. Perl is in Debian's and Ubuntu's
# base, Python in Ubuntu's; a machine with neither can't be tried.
_LISTEN_PERL = r"""
use IO::Socket::INET; $| = 1; my ($word, $seconds, $address, @ports) = @ARGV; alarm $seconds;
for (@ports) {
    my $home = IO::Socket::INET->new(LocalAddr => $address, LocalPort => $_, Listen => 1) or next;
    print "$_\n"; my $peer = $home->accept; print $peer $word; close $peer; exit 0;
}
print "none: $!\n";
"""
_LISTEN_PYTHON = r"""
import signal, socket, sys
word, seconds, address, *ports = sys.argv[1:]
signal.alarm(int(seconds))
said = "none: no port is free"
for port in ports:
    try:
        home = socket.create_server((address, int(port)))
    except OSError as error:
        said = f"none: {error.strerror}"
        continue
    print(port, flush=True)
    home.accept()[0].sendall(word.encode())
    sys.exit()
print(said)
"""
_LISTEN = r"""
perl=$1 python=$2; shift 2
if command -v perl >/dev/null; then exec perl -e "$perl" -- "$@"
elif command -v python3 >/dev/null; then exec python3 -c "$python" "$@"
else echo untried; fi
"""


async def look(
    connection: asyncssh.SSHClientConnection, publish_address: str, ports: Sequence[int]
) -> Survey:
    """Everything. `ports`: of those one is listened on at `publish_address`. Raises LinkDown,
    Temporary (run_timed_out)."""
    asked_at = time.time()
    ran = await ssh.run(connection, ("sh", "-c", _SCRIPT), within_s=_SURVEY_S)
    facts = host_facts.parse(ran.stdout)
    skew = None if facts.clock_s is None else facts.clock_s - asked_at
    tried, publishing = await _publishes(connection, publish_address, ports[:_PORTS_TRIED])
    return Survey(
        facts=facts,
        clock_skew_s=skew,
        forwarding=await _forwards(connection),
        publishing=publishing,
        published_tried=tried,
    )


async def _forwards(connection: asyncssh.SSHClientConnection) -> str:
    """Both directions at once: what is sent into a socket of ours over there comes back here."""
    path, word = f"/tmp/spawnai-{secrets.token_hex(8)}.sock", secrets.token_bytes(8)  # noqa: S108 - its name can't be guessed

    async def answer(_reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]) -> None:
        writer.write(word)
        writer.write_eof()

    try:
        async with asyncio.timeout(_FORWARD_S):
            listener = await connection.start_unix_server(lambda: answer, path, encoding=None)
            try:
                reader, writer = await connection.open_unix_connection(path, encoding=None)
                said = await reader.read()
                writer.close()
            finally:
                listener.close()
                await ssh.run(connection, ("rm", "-f", path))
    except asyncssh.ChannelListenError:
        return "it refuses to let us offer a socket there"
    except asyncssh.ChannelOpenError as error:
        return f"it refuses to reach a socket there ({error.reason})"
    except TimeoutError:
        return f"what is forwarded doesn't arrive within {_FORWARD_S:g} s"
    except (OSError, asyncssh.Error) as error:
        raise ssh.ended(error) from error
    return "" if said == word else "what is forwarded doesn't arrive"


async def _publishes(
    connection: asyncssh.SSHClientConnection, address: str, ports: Sequence[int]
) -> tuple[bool, str]:
    """Whether it could be tried, and what hindered us. A firewall of the provider drops what comes
    for this listener as it would what comes for an app; one on the machine may treat the two
    differently, so its answer is on the strict side."""
    word = secrets.token_hex(8)
    argv = ("sh", "-c", _LISTEN, "sh", _LISTEN_PERL, _LISTEN_PYTHON, word, str(_LISTEN_S), address)
    command = shlex.join((*argv, *map(str, ports)))
    try:
        async with (
            asyncio.timeout(_LISTEN_S),
            connection.create_process(command, errors="replace") as there,
        ):
            first = str(await there.stdout.readline()).strip()
            if not first.isdigit():
                said = first.removeprefix("none: ") or str(await there.stderr.read()).strip()
                return first != "untried", said[:200]
            return True, await _knock(address, int(first), word)
    except TimeoutError:
        return True, f"nothing listens there within {_LISTEN_S} s"
    except (OSError, asyncssh.Error) as error:
        raise ssh.ended(error) from error


async def _knock(address: str, port: int, word: str) -> str:
    """Be answered with the word on that port; "" or what came instead."""
    try:
        async with asyncio.timeout(_KNOCK_S):
            reader, writer = await asyncio.open_connection(address, port)
            said = await reader.read()
            writer.close()
    except TimeoutError:
        return f"port {port} doesn't answer within {_KNOCK_S:g} s: a firewall drops what comes"
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    return "" if said.decode(errors="replace") == word else f"port {port} is somebody else's"
