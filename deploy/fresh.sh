#!/usr/bin/env bash
# Tests the README's promise: on a bare Debian 12 machine, `make up` ends with a running SpawnAI.
#
# Called by `make fresh`. The machine is a container with its own engine inside (see start_machine). The
# commit HEAD is copied into it. Each step prints PASS or FAIL, and its duration.
#   FRESH_USER=dev    run as an ordinary user with passwordless sudo instead of root
#   FRESH_KEEP=1      keep the container afterwards, for inspection
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=deploy/nested/machines.sh
source "$ROOT/deploy/nested/machines.sh"

readonly IMAGE=spawnai/fresh
readonly MACHINE=spawnai-fresh-$$
readonly USER_INSIDE=${FRESH_USER:-root}
readonly PLACE=/srv/spawnai
# Enough for an engine that creates containers. --privileged would fail: if our engine itself runs in a
# container, it has no CAP_SYS_RESOURCE to give.
readonly CAPABILITIES=(SYS_ADMIN NET_ADMIN SYS_PTRACE)
FOLDER=""
ENGINE_WAS_THERE=""
WITH=() # more options for docker exec

main() {
    cd "$ROOT"
    FOLDER=$(mktemp -d)
    trap clean_up EXIT
    ! engine_answers || ENGINE_WAS_THERE=yes
    deploy/engine.sh ensure

    step "a bare Debian 12 machine" start_machine
    step "the source of HEAD in it" copy_source
    step "make up, the first time" inside make up
    step "make up, again" inside make up
    step "a template: a kanban board" ask_for "a kanban board" "kanban"
    step "the model's server (a fake, for want of a key)" start_model
    step "make down" inside make down
    step "make up with a key" inside_with_model make up
    step "a generated app: a page about tide pools" ask_for "a page about tide pools" "tide pools"
    step "make down, the last time" inside make down
    step "nothing is left" check_leftovers
    say "PASS  everything"
}

# --- steps -----------------------------------------------------------------------------------------

start_machine() {
    local environment=() capabilities=("${CAPABILITIES[@]/#/--cap-add=}")
    build_machine "$IMAGE" "$FOLDER/context" deploy/fresh/Dockerfile deploy/fresh/machine.sh
    mapfile -t environment < <(names_that_are_set)
    docker run --detach --init --name "$MACHINE" --hostname bare "${capabilities[@]}" \
        --security-opt seccomp=unconfined --security-opt systempaths=unconfined \
        --security-opt apparmor=unconfined --device-cgroup-rule 'a *:* rwm' \
        --volume /var/lib/docker --tmpfs /run "${environment[@]/#/--env=}" "$IMAGE"
    wait_for "the machine's start" machine_is_ready
    ! inside_as_root bash -c 'command -v dockerd nginx redis-server iptables'
}

machine_is_ready() {
    docker logs "$MACHINE" 2>&1 | grep -qx ready
}

copy_source() {
    inside_as_root install -d -o "$USER_INSIDE" "$PLACE"
    git archive HEAD | inside tar -x
}

# $1: the prompt, $2: a text that the app's page must contain.
ask_for() {
    local link
    inside .venv/bin/spawnctl run "$1" | tee "$FOLDER/answer"
    link=$(grep -oE 'https?://[a-z2-7]{16}\.[^[:space:]]+' "$FOLDER/answer" | head -n 1)
    echo "the link: $link"
    # Browsers resolve names below .localhost by themselves; a resolver may not.
    inside curl --silent --show-error --fail --max-time 20 --connect-to ::127.0.0.1: "$link" \
        | tee "$FOLDER/page" | head -c 600
    grep -qiF "$2" "$FOLDER/page"
}

start_model() {
    inside bash -c 'setsid .venv/bin/python -m tests.fakes.llm.messages_api --port 0 \
        >/tmp/model.log 2>&1 </dev/null & echo $! >/tmp/model.pid'
    wait_for "the fake model's start" inside grep -q 'listening on' /tmp/model.log
}

check_leftovers() {
    local found
    inside bash -c "kill $(inside cat /tmp/model.pid)" # a builtin: the machine has no program `kill`
    wait_for "the fake model's end" no_process_is_left
    found=$(inside_as_root find /var/lib/docker/containers -mindepth 1 -maxdepth 1)
    [[ -z $found ]] || { echo "containers are left: $found" && return 1; }
}

# --- inside the machine ----------------------------------------------------------------------------

inside() {
    docker exec --interactive --user "$USER_INSIDE" --workdir "$PLACE" "${WITH[@]}" "$MACHINE" "$@"
}

inside_with_model() {
    local url
    url=$(inside sed -n 's/^listening on //p' /tmp/model.log)
    WITH=(--env "ANTHROPIC_BASE_URL=$url" --env ANTHROPIC_API_KEY=not-a-key)
    inside "$@"
}

inside_as_root() {
    docker exec --interactive "$MACHINE" "$@"
}

# Ignores the container's first process, its sleep, and the processes of this check.
no_process_is_left() {
    local found
    # shellcheck disable=SC2016 # expand inside the machine
    found=$(inside_as_root bash -c 'for one in /proc/[0-9]*; do
            [[ ${one#/proc/} == "$$" ]] || tr "\0" " " <"$one/cmdline" 2>/dev/null && echo
        done' | grep -vE '^ *$|docker-init|tini|^sleep infinity|^tr ')
    if [[ -n $found ]]; then
        printf 'still running:\n%s\n' "$found"
        return 1
    fi
}

# --- the frame -------------------------------------------------------------------------------------

# $1: the title; the rest: the command. It runs in a subshell with -e, so that its first failure fails the step.
step() {
    local title=$1 log=$FOLDER/step.log started=$SECONDS status=0
    shift
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1
    status=$?
    set -e
    if ((status)); then
        tail -n 60 "$log" >&2
        say "FAIL  $title ($((SECONDS - started)) s)"
        exit 1
    fi
    say "PASS  $title ($((SECONDS - started)) s)"
}

clean_up() {
    rm -rf "$FOLDER"
    if [[ -n ${FRESH_KEEP:-} ]]; then
        say "Left there: docker exec -it $MACHINE bash; end it with docker rm -fv $MACHINE"
    else
        docker rm --force --volumes "$MACHINE" >/dev/null 2>&1 || true
        [[ -n $ENGINE_WAS_THERE ]] || deploy/engine.sh stop
    fi
}

main "$@"
