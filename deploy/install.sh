#!/usr/bin/env bash
# Installs on a machine with Debian 12, Python 3.11 and make what SpawnAI needs to start. A repetition is fast.
#
#   deploy/install.sh up      the virtual environment, the programs that SpawnAI runs, an engine, the image
#   deploy/install.sh venv    only the virtual environment, with the developers' tools
#   deploy/install.sh fleet   the same as `up`, plus the developers' tools: docker-compose is one of them
#   deploy/install.sh test    the same as `fleet`, plus the programs that only the test suite starts
#   deploy/install.sh bench   the same as `test`, plus the load generator
#
# Called by the Makefile. It uses installed programs as they are. SpawnAI runs its own nginx and Redis, so
# this script neither starts nor enables the system services of the packages that it installs.
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly LOG=$STATE/install.log
readonly CLAUDE_CODE=tests/claude_code
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_MARK="# Written by SpawnAI's deploy/install.sh for one apt-get run; safe to delete."

main() {
    local what=${1:-up} lock=requirements-dev.lock
    [[ $what =~ ^(venv|up|fleet|test|bench)$ ]] \
        || fail "say what to install: venv, up, fleet, test or bench"
    [[ $what != up ]] || lock=requirements.lock
    cd "$ROOT"
    make_state_folder
    install_packages "$what" "$lock"
    make_venv "$lock"
    if [[ $what == test || $what == bench ]]; then
        install_claude_code
    fi
    if [[ $what != venv ]]; then
        deploy/engine.sh ensure
        build_image
    fi
}

# --- Debian packages -------------------------------------------------------------------------------

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]})); then
        apt_install "${missing[@]}"
    fi
}

missing_packages() {
    local what=$1 lock=$2
    venv_is_current "$lock" || missing_python
    [[ $what != venv ]] || return 0
    has dockerd || engine_answers || echo docker.io
    has iptables || echo iptables
    has nginx || echo nginx-light
    has redis-server || echo redis-server
    [[ $what != up && $what != fleet ]] || return 0
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
    has pgbouncer || echo pgbouncer
    has node || echo nodejs
    has npm || claude_code_is_current || echo npm
    has chromium || echo chromium
    has sshd || echo openssh-server
    has ip || echo iproute2
    has cc || printf '%s\n' gcc libc6-dev
    [[ $what == bench ]] || return 0
    has wrk || echo wrk
}

missing_python() {
    local python
    if ! python=$(find_python); then
        echo python3
        echo python3-venv
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian has venv in a separate package, named after the version.
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    fi
}

# 3.11 first: the lock was made with it.
find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

apt_install() {
    local command="apt-get install -y --no-install-recommends $*"
    has apt-get || fail "missing, and this isn't Debian: $*. Install what corresponds to them."
    can_be_root || fail "missing: $*. This user may not install them. Run, then start again:
    sudo apt-get update && sudo $command"
    say "Installing $* (log: $LOG)"
    hold_services
    # A failing third-party source does not matter, as long as the install works.
    as_root apt-get update -qq >>"$LOG" 2>&1 || say "apt-get update had complaints, see $LOG"
    # shellcheck disable=SC2086 # split into words: the same command that the messages show
    logged as_root env DEBIAN_FRONTEND=noninteractive $command -qq -o DPkg::Lock::Timeout=120
    release_services "$@"
}

# Debian starts a service right after its installation. Its port may be taken, and we do not need it.
hold_services() {
    local draft
    if [[ -e $POLICY ]] && ! grep -qF "$POLICY_MARK" "$POLICY"; then
        return # another program's rule: leave it
    fi
    trap release_policy EXIT
    draft=$(mktemp)
    # shellcheck disable=SC2016 # $1 belongs to the generated script
    printf '%s\n' '#!/bin/sh' "$POLICY_MARK" 'case $1 in' \
        'docker* | containerd* | nginx* | redis* | postgresql* | pgbouncer* | ssh*) exit 101 ;;' 'esac' 'exit 0' >"$draft"
    as_root install -m 0755 "$draft" "$POLICY"
    rm -f "$draft"
}

release_policy() {
    if grep -qsF "$POLICY_MARK" "$POLICY"; then
        as_root rm -f "$POLICY"
    fi
}

release_services() {
    local package
    release_policy
    under_systemd || return 0
    for package in "$@"; do
        case $package in
            nginx-light) as_root systemctl disable --quiet nginx ;;
            openssh-server) as_root systemctl disable --quiet ssh ;;
            redis-server | postgresql | pgbouncer) as_root systemctl disable --quiet "$package" ;;
        esac
    done
}

# --- the virtual environment -----------------------------------------------------------------------

venv_is_current() {
    [[ -x .venv/bin/python && -e .venv/$(venv_stamp "$1") ]]
}

# The name is a hash of the inputs. The folder is one of them: a virtual environment doesn't survive a move.
venv_stamp() {
    { echo "$ROOT $1" && cat requirements.lock requirements-dev.lock pyproject.toml; } \
        | sha256sum | sed 's/^\(.\{16\}\).*/made-from-\1/'
}

make_venv() {
    local lock=$1 python
    if venv_is_current "$lock"; then
        return
    fi
    python=$(find_python) || fail "needs Python 3.11 or newer, and this system's packages have none"
    say "Making the virtual environment .venv (log: $LOG)"
    trust_own_authorities
    # Keep an environment made for running: the developers' tools, with the same versions, are added to it.
    [[ ! -L .venv ]] || fail ".venv is a link, and what it leads to would be emptied: rm .venv"
    venv_is_current requirements.lock || logged "$python" -m venv --clear .venv
    logged pip_install --require-hashes -r "$lock"
    # The lock contains everything that the build needs, so pip installs nothing without a hash here.
    logged pip_install --no-deps --no-build-isolation --editable .
    touch ".venv/$(venv_stamp requirements.lock)" ".venv/$(venv_stamp "$lock")"
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --root-user-action=ignore "$@"
}

# A machine behind a company proxy has its own certificate authorities, which pip and npm ignore by
# default.
trust_own_authorities() {
    local bundle=/etc/ssl/certs/ca-certificates.crt
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null && [[ -r $bundle ]]; then
        export PIP_CERT=${PIP_CERT:-$bundle} NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$bundle}
    fi
}

# --- the program Claude Code, which tests run against the gateway -----------------------------------

claude_code_is_current() {
    cmp -s "$CLAUDE_CODE/package-lock.json" "$CLAUDE_CODE/node_modules/made-from.json"
}

# Without its optional packages, which handle pictures.
install_claude_code() {
    if claude_code_is_current; then
        return
    fi
    say "Installing Claude Code for the tests (19 MB; log: $LOG)"
    trust_own_authorities
    logged env -C "$CLAUDE_CODE" npm ci --omit=optional --ignore-scripts --no-audit --no-fund
    cp "$CLAUDE_CODE/package-lock.json" "$CLAUDE_CODE/node_modules/made-from.json"
}

# --- the runtime image -----------------------------------------------------------------------------

build_image() {
    trust_own_authorities
    if ! base_image_exists && ! pull_base_image; then
        has debootstrap || apt_install debootstrap
        say "Building a base image with debootstrap (about half a minute; log: $LOG)"
        logged as_root env DOCKER_HOST="$DOCKER_HOST" runtime-image/base.sh
    fi
    say "Runtime image (its first build takes a minute or two; log: $LOG)"
    # spawnctl runs runtime-image/build.sh and stores the name of the image.
    deploy/engine.sh run .venv/bin/spawnctl image build 2>>"$LOG" || show_log
}

# The names that runtime-image/base.sh uses. It builds the second one.
base_image_exists() {
    local name
    for name in debian:bookworm-slim spawnai/debian-base:bookworm; do
        if deploy/engine.sh run docker image inspect "$name" >/dev/null 2>&1; then
            return
        fi
    done
    return 1
}

pull_base_image() {
    deploy/engine.sh run timeout 60 docker pull --quiet debian:bookworm-slim >>"$LOG" 2>&1
}

# --- the state folder and its log -------------------------------------------------------------------

# 0711 as in orchestrator/adapters/files/state_folder.py: nginx's workers, another user, must pass through.
make_state_folder() {
    mkdir -p "$STATE"
    chmod 0711 "$STATE"
}

logged() {
    "$@" >>"$LOG" 2>&1 || show_log
}

show_log() {
    tail -n 40 "$LOG" >&2
    fail "the step above failed; its last log lines stand here (all: $LOG)"
}

main "$@"
