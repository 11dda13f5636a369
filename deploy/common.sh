# shellcheck shell=bash
# What install.sh, engine.sh and fresh.sh share: where things are, how they speak, how they become root.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${HOME:=$(cd ~ && pwd)}"
# The same folders that orchestrator/config.py takes.
if [[ $(id -u) == 0 ]]; then
    STATE=${SPAWN_STATE_DIR:-/var/lib/spawnai}
    AS_ROOT=()
else
    STATE=${SPAWN_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/spawnai}
    AS_ROOT=(sudo -n)
fi
# Scripts and daemons have to mean the same engine, whatever context the docker CLI is set to.
SOCKET=/var/run/docker.sock
export DOCKER_HOST=${DOCKER_HOST:-unix://$SOCKET}
if [[ $DOCKER_HOST != "unix://$SOCKET" ]]; then
    export SPAWN_DOCKER_URL=${SPAWN_DOCKER_URL:-$DOCKER_HOST}
fi
# An ordinary user of Debian has no sbin, and nginx, iptables and dockerd are there.
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
