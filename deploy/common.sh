# shellcheck shell=bash
# Shared by install.sh, engine.sh, fleet.sh and fresh.sh: paths, output, and how to run commands as root.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${HOME:=$(cd ~ && pwd)}"
# The same folders as in orchestrator/config/groups.py.
if [[ $(id -u) == 0 ]]; then
    STATE=${SPAWN_STATE_DIR:-/var/lib/spawnai}
    AS_ROOT=()
else
    STATE=${SPAWN_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/spawnai}
    AS_ROOT=(sudo -n)
fi
# Scripts and daemons must use the same engine, whatever context the docker CLI has.
SOCKET=/var/run/docker.sock
export DOCKER_HOST=${DOCKER_HOST:-unix://$SOCKET}
if [[ $DOCKER_HOST != "unix://$SOCKET" ]]; then
    export SPAWN_DOCKER_URL=${SPAWN_DOCKER_URL:-$DOCKER_HOST}
fi
# On Debian, the PATH of an ordinary user lacks sbin, which contains nginx, iptables and dockerd.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck disable=SC2034 # used by the scripts that source this one
readonly ROOT STATE SOCKET AS_ROOT

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

can_be_root() {
    "${AS_ROOT[@]}" true 2>/dev/null
}

as_root() {
    "${AS_ROOT[@]}" "$@"
}

engine_answers() {
    timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

under_systemd() {
    [[ -d /run/systemd/system ]]
}
