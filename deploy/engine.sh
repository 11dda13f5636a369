#!/usr/bin/env bash
# Makes sure that a Docker engine answers. Stops the engine if it started it itself.
#
#   deploy/engine.sh ensure         use the running engine, or start one
#   deploy/engine.sh stop [--force] stop it if `ensure` started it and nobody uses it; --force: even if somebody does
#   deploy/engine.sh run COMMAND    run COMMAND with permission to use the engine
#
# Called by install.sh, fresh.sh, the Makefile and CI. Without systemd, dockerd runs with its pid file and its
# log in the state folder. The pid file shows that we started the engine.
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly FOLDER=$STATE/engine
readonly PIDFILE=$FOLDER/dockerd.pid
readonly LOG=$FOLDER/dockerd.log
readonly START_LIMIT_S=60
# dockerd waits up to 15 s for each container before it ends itself.
readonly STOP_LIMIT_S=60

# docker-proxy inherits this limit, needs two for each connection to an app, and ends when it has none left.
# shellcheck disable=SC2016 # the inner shell expands it
readonly WITH_DESCRIPTORS='ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"; exec dockerd "$@"'

# Words of the command lines of those who use an engine: installations, and our scripts.
readonly USERS='orchestrator\.entrypoints\.supervisor|(.*/)?deploy/(install|engine)\.sh'

main() {
    case ${1:-} in
        ensure) ensure ;;
        stop) stop "${2:-}" ;;
        run) run "${@:2}" ;;
        *) fail "say what to do: ensure, stop [--force] or run COMMAND" ;;
    esac
}

ensure() {
    if may_talk; then
        return
    fi
    [[ $DOCKER_HOST == "unix://$SOCKET" ]] \
        || fail "no engine answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST to use this machine's own"
    has dockerd || [[ -S $SOCKET ]] || fail "there is no Docker engine here: run deploy/install.sh"
    can_be_root || fail "no Docker engine answers this user, who may not start one. As root, run:
    $(start_command) && usermod -aG docker $(id -un)   # then log in again"
    if ! as_root env DOCKER_HOST="$DOCKER_HOST" timeout 10 docker version >/dev/null 2>&1; then
        start
    fi
    may_talk || join_group
    may_talk || fail "the engine runs, but user $(id -un) may not talk to it: check who owns $SOCKET"
}

may_talk() {
    run timeout 10 docker version >/dev/null 2>&1
}

start_command() {
    if under_systemd; then
        echo "systemctl start docker"
    else
        echo "{ setsid dockerd >/var/log/dockerd.log 2>&1 & }"
    fi
}

start() {
    if under_systemd; then
        say "Starting the Docker engine (systemd)"
        as_root systemctl start docker || fail "docker.service doesn't start: journalctl -u docker"
        wait_for_answer 1
    else
        say "Starting the Docker engine (no systemd here: by hand, log in $LOG)"
        mkdir -p "$FOLDER"
        # In a new session, so that a Ctrl-C in the terminal of `make up` does not reach the engine.
        "${AS_ROOT[@]}" setsid --wait bash -c "$WITH_DESCRIPTORS" dockerd --pidfile "$PIDFILE" >"$LOG" 2>&1 </dev/null &
        wait_for_answer $!
    fi
}

# $1: the pid of the starting process. If it ends, waiting is useless.
wait_for_answer() {
    local starter=$1 deadline=$((SECONDS + START_LIMIT_S))
    until as_root env DOCKER_HOST="$DOCKER_HOST" timeout 10 docker version >/dev/null 2>&1; do
        if ((SECONDS > deadline)) || [[ ! -e /proc/$starter ]]; then
            [[ ! -e $LOG ]] || tail -n 20 "$LOG" >&2
            fail "the Docker engine doesn't answer; its last log lines stand above (all: $LOG)"
        fi
        sleep 0.1
    done
}

# The membership takes effect at the next login. Until then `run` uses sg.
join_group() {
    say "Adding user $(id -un) to the group docker, who may use the engine"
    as_root usermod -aG docker "$(id -un)"
}

stop() {
    local pid use deadline=$((SECONDS + STOP_LIMIT_S))
    pid=$(our_pid) || return 0
    use=$(find_use)
    if [[ ${1:-} != --force && -n $use ]]; then
        say "The Docker engine (pid $pid) goes on: $use. deploy/engine.sh stop --force ends it all the same"
        return 0
    fi
    can_be_root || fail "the engine (pid $pid) was started as root: sudo kill $pid"
    # kill is a builtin of the shell: a bare Debian has no program `kill` that sudo could run.
    as_root bash -c "kill $pid" || true
    while our_pid >/dev/null; do
        ((SECONDS <= deadline)) || fail "dockerd (pid $pid) hasn't ended after $STOP_LIMIT_S s: see $LOG"
        sleep 0.1
    done
    as_root rm -f "$PIDFILE"
    say "Stopped the Docker engine"
}

# Why the engine is still needed; nothing if it isn't. An installation without a container needs it for the next one.
find_use() {
    local containers
    if ! containers=$(run timeout 10 docker ps --quiet 2>/dev/null); then
        echo "it doesn't say whether containers run on it"
    elif [[ -n $containers ]]; then
        echo "containers run on it"
    else
        find_user
    fi
}

# An installation that runs on this machine, or a script of ours that uses the engine or is about to. Not ourselves.
find_user() {
    local file pid
    while read -r file; do
        if ! grep -qszx stop "$file"; then
            pid=${file#/proc/}
            echo "process ${pid%/cmdline} may need it"
            return
        fi
    done < <(grep -lszxE "$USERS" /proc/[0-9]*/cmdline)
}

# Another process may have this pid by now. Only a dockerd with our pid file in its argv is ours.
our_pid() {
    local pid
    pid=$(cat "$PIDFILE" 2>/dev/null) && [[ -n $pid ]] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$PIDFILE" || return 1
    echo "$pid"
}

run() {
    (($#)) || fail "run needs a command"
    if [[ $(id -u) != 0 && ! -w $SOCKET ]] && id -nG "$(id -un)" | grep -qw docker; then
        sg docker -c "$(printf '%q ' "$@")"
    else
        "$@"
    fi
}

main "$@"
