"""A survey of a machine over SSH: its facts, and whether forwarding and published ports work.

Called by `spawnctl hosts add` and `hosts doctor`. Changes nothing on the machine.
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

_SCRIPT_TIMEOUT_S = 60.0
_FORWARD_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_LISTEN_TIMEOUT_S = 15  # how long the listener there waits for our connection
_PORTS_TRIED = 20

# Prints what host_facts.parse reads. No command may fail the rest: a missing fact is unknown.
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
say descriptors
process=$PPID
while [ "$process" -gt 1 ]; do
    case $(cat "/proc/$process/comm") in sshd*) break ;; esac
    process=$(awk '/^PPid:/ { print $2 }' "/proc/$process/status")
done
as_root awk '/^Max open files/ { print $4 }' "/proc/$process/limits"
say iptables; as_root iptables -w 5 -t mangle -S PREROUTING 2>&1; echo $?
say tables
for kind in legacy nft; do
    printf '%s %s\n' "$kind" "$(as_root "iptables-$kind-save" 2>/dev/null | grep -c '^-A')"
done
say bridged; cat /proc/sys/net/bridge/bridge-nf-call-iptables
say addresses; cat /proc/net/fib_trie
say routes; cat /proc/net/route
"""

# A listener on the first free port. It prints the port and sends a word to its first client. Perl
# is in the base system of Debian and Ubuntu, Python in Ubuntu's. Without both we can't test.
_LISTEN_PERL = r"""
use IO::Socket::INET; $| = 1; my ($word, $seconds, $address, @ports) = @ARGV; alarm $seconds;
for (@ports) {
    my $server = IO::Socket::INET->new(LocalAddr => $address, LocalPort => $_, Listen => 1) or next;
    print "$_\n"; my $peer = $server->accept; print $peer $word; close $peer; exit 0;
}
print "none: $!\n";
"""
_LISTEN_PYTHON = r"""
import signal, socket, sys
word, seconds, address, *ports = sys.argv[1:]
signal.alarm(int(seconds))
outcome = "none: no port is free"
for port in ports:
    try:
        listener = socket.create_server((address, int(port)))
    except OSError as error:
        outcome = f"none: {error.strerror}"
        continue
    print(port, flush=True)
    listener.accept()[0].sendall(word.encode())
    sys.exit()
print(outcome)
"""
_LISTEN = r"""
perl=$1 python=$2; shift 2
if command -v perl >/dev/null; then exec perl -e "$perl" -- "$@"
elif command -v python3 >/dev/null; then exec python3 -c "$python" "$@"
else echo untried; fi
"""


async def survey_host(
    connection: asyncssh.SSHClientConnection, publish_address: str, ports: Sequence[int]
) -> Survey:
    """Collect the facts, and test forwarding and publishing.

    The test of publishing listens at `publish_address`, on one of `ports`. Raises errors.LinkDown,
    errors.Temporary (run_timed_out).
    """
    asked_at_s = time.time()
    result = await ssh.run(connection, ("sh", "-c", _SCRIPT), timeout_s=_SCRIPT_TIMEOUT_S)
    facts = host_facts.parse(result.stdout)
    skew_s = None if facts.clock_s is None else facts.clock_s - asked_at_s
    tried, publishing = await _test_publishing(connection, publish_address, ports[:_PORTS_TRIED])
    return Survey(
        facts=facts,
        clock_skew_s=skew_s,
        forwarding=await _test_forwarding(connection),
        publishing=publishing,
        published_tried=tried,
    )


async def _test_forwarding(connection: asyncssh.SSHClientConnection) -> str:
    """Test socket forwarding in both directions at once. Return "" or what failed.

    We offer a socket on the host and connect to it through the host. So our own word comes back.
    """
    path, word = f"/tmp/spawnai-{secrets.token_hex(8)}.sock", secrets.token_bytes(8)  # noqa: S108 - its name can't be guessed

    async def send_word(
        _reader: asyncssh.SSHReader[bytes], writer: asyncssh.SSHWriter[bytes]
    ) -> None:
        writer.write(word)
        writer.write_eof()

    try:
        async with asyncio.timeout(_FORWARD_TIMEOUT_S):
            listener = await connection.start_unix_server(lambda: send_word, path, encoding=None)
            try:
                reader, writer = await connection.open_unix_connection(path, encoding=None)
                answer = await reader.read()
                writer.close()
            finally:
                listener.close()
                await ssh.run(connection, ("rm", "-f", path))
    except asyncssh.ChannelListenError:
        return "its sshd refuses to offer a socket of ours there"
    except asyncssh.ChannelOpenError as error:
        return f"its sshd refuses to connect us to a socket there ({error.reason})"
    except TimeoutError:
        return f"forwarded data does not arrive within {_FORWARD_TIMEOUT_S:g} s"
    except (OSError, asyncssh.Error) as error:
        raise ssh.connection_lost(error) from error
    return "" if answer == word else "forwarded data does not arrive"


async def _test_publishing(
    connection: asyncssh.SSHClientConnection, address: str, ports: Sequence[int]
) -> tuple[bool, str]:
    """Test whether we reach a port of the host. Return whether that was possible, and the problem.

    The provider's firewall treats this listener like an app. A firewall on the machine may let
    apps through and block this listener: then the test is too strict.
    """
    word = secrets.token_hex(8)
    programs = (_LISTEN_PERL, _LISTEN_PYTHON)
    arguments = (word, str(_LISTEN_TIMEOUT_S), address, *map(str, ports))
    command = shlex.join(("sh", "-c", _LISTEN, "sh", *programs, *arguments))
    try:
        async with (
            asyncio.timeout(_LISTEN_TIMEOUT_S),
            connection.create_process(command, errors="replace") as listener,
        ):
            line = str(await listener.stdout.readline()).strip()
            if not line.isdigit():
                reason = line.removeprefix("none: ") or str(await listener.stderr.read()).strip()
                return line != "untried", reason[:200]
            return True, await _expect_word(address, int(line), word)
    except TimeoutError:
        return True, f"nothing listens there within {_LISTEN_TIMEOUT_S} s"
    except (OSError, asyncssh.Error) as error:
        raise ssh.connection_lost(error) from error


async def _expect_word(address: str, port: int, word: str) -> str:
    """Connect to that port and read the word. Return "" or what went wrong."""
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, port)
            answer = await reader.read()
            writer.close()
    except TimeoutError:
        return (
            f"port {port} does not answer within {_CONNECT_TIMEOUT_S:g} s: a firewall drops"
            " the packets"
        )
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    if answer.decode(errors="replace") != word:
        return f"another program answers on port {port}"
    return ""
