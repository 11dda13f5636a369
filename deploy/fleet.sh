#!/usr/bin/env bash
# A fleet of up to three machines with sshd and Docker, for tests, developers and demos. Each is a container.
#
#   deploy/fleet.sh join             start three, and add them to the SpawnAI that runs here (`make fleet`)
#   deploy/fleet.sh leave            remove them from its pool, then delete them (`make fleet-down`)
#   deploy/fleet.sh up --authorized-key FILE [--count N] [--disk MIB]
#                                    start them; print a line `NAME ADDRESS` for each that answers;
#                                    FILE has the public key that may log in as root, - is stdin;
#                                    --disk gives Docker on vps3 its own file system, which a test can fill
#   deploy/fleet.sh down             delete them with all their data
#   deploy/fleet.sh cut|heal NAME    drop all packets of its network; undo it
#   deploy/fleet.sh fill-disk|free-disk NAME   fill its Docker disk up to some MiB; free it again
#   deploy/fleet.sh stop|start NAME  switch it off (SIGKILL); switch it on
#   deploy/fleet.sh vps NAME COMMAND run another command of deploy/fleet/vps.sh on it
#   deploy/fleet.sh image            build the image of the machines; print its name
#   deploy/fleet.sh environment      print the variables for compose.yaml; the tests' fixture uses them
#
# All take --project NAME. Fleets with different names are separate. The addresses are computed from the name,
# so that they stay the same; FLEET_PREFIX=10.1.2 chooses other addresses.
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=deploy/nested/machines.sh
source "$ROOT/deploy/nested/machines.sh"

readonly HERE=$ROOT/deploy/fleet
readonly CONTENT=("$HERE/Dockerfile" "$HERE/vps.sh" "$HERE/daemon.json")
readonly SPAWNCTL=$ROOT/.venv/bin/spawnctl
PROJECT=spawnai-fleet
COUNT=3
DISK_MIB=0
KEY_FILE=""
WORDS=() # the arguments that are not options

main() {
    read_options "$@"
    set -- "${WORDS[@]}"
    case ${1:-} in
        up | down | join | leave | image | environment) "$1" ;;
        cut | heal | fill-disk | free-disk) on_vps "${2:-}" "$1" ;;
        stop | start) "$1" "${2:-}" ;;
        vps) on_vps "${@:2}" ;;
        *) fail "say what to do: the head of $0 lists it" ;;
    esac
}

read_options() {
    while (($#)); do
        case $1 in
            --project) PROJECT=${2:?--project needs a name} && shift 2 ;;
            --count) COUNT=${2:?--count needs a number} && shift 2 ;;
            --disk) DISK_MIB=${2:?--disk needs MiB} && shift 2 ;;
            --authorized-key) KEY_FILE=${2:?--authorized-key needs a file} && shift 2 ;;
            --*) fail "unknown option $1" ;;
            *) WORDS+=("$1") && shift ;;
        esac
    done
    [[ $COUNT =~ ^[1-3]$ ]] || fail "--count is 1, 2 or 3, and not $COUNT"
    [[ $DISK_MIB =~ ^[0-9]+$ ]] || fail "--disk is a number of MiB, and not $DISK_MIB"
}

# --- the whole fleet -------------------------------------------------------------------------------

up() {
    local name key
    [[ -n $KEY_FILE ]] || fail "up needs --authorized-key FILE: the public key that may log in"
    key=$(cat "${KEY_FILE/#-/\/dev/stdin}")
    # shellcheck disable=SC2046 # one word each
    compose up --detach --no-build $(names) >&2
    for name in $(names); do
        wait_for "sshd and dockerd of $name" is_ready "$name" || fail "$name: see docker logs $(container "$name")"
        on_vps "$name" authorize <<<"$key"
        echo "$name $(prefix).1${name#vps}"
    done
}

down() {
    compose down --volumes --timeout 0 >&2
}

names() {
    printf 'vps%s\n' $(seq "$COUNT")
}

compose() {
    local program settings="" words=()
    program=$(compose_program)
    [[ $1 != up ]] || settings=$(environment)
    mapfile -t words < <(printf %s "$settings")
    env "${words[@]}" "$program" --progress quiet --file "$HERE/compose.yaml" --project-name "$PROJECT" "$@"
}

# docker-compose from the developers' tools, else the machine's own.
compose_program() {
    local program
    for program in "${FLEET_COMPOSE:-}" "$ROOT/.venv/bin/docker-compose" "$(command -v docker-compose)"; do
        if [[ -x $program ]]; then
            echo "$program"
            return
        fi
    done
    fail "there is no docker-compose: run deploy/install.sh fleet"
}

environment() {
    local image
    image=$(image)
    echo "FLEET_IMAGE=$image"
    echo "FLEET_PREFIX=$(prefix)"
    echo "FLEET_DISK_MIB=$DISK_MIB"
}

# The first three numbers of the addresses. Docker never chooses these for other networks by itself, and the
# engines on the machines use 10.250 and 10.251.
prefix() {
    local number
    number=$(cksum <<<"$PROJECT" | cut -d ' ' -f 1)
    echo "${FLEET_PREFIX:-10.$((200 + number % 50)).$((number / 50 % 256))}"
}

# The tag is a hash of the content, so that only changed content causes a new build.
image() {
    local tag context
    tag=spawnai/vps:$(cat "${CONTENT[@]}" "$ROOT/deploy/nested/cgroups.sh" | sha256sum | head -c 16)
    if ! docker image inspect "$tag" >/dev/null 2>&1; then
        say "Building the image of the fleet's machines, $tag (about a minute)"
        context=$(mktemp -d)
        # shellcheck disable=SC2064 # expand now: the variable is local to this function
        trap "rm -rf '$context'" EXIT
        build_machine "$tag" "$context" "${CONTENT[@]}" >&2
    fi
    echo "$tag"
}

# --- with a SpawnAI that runs ----------------------------------------------------------------------

join() {
    local machines name address
    KEY_FILE=$(mktemp)
    trap 'rm -f "$KEY_FILE"' EXIT
    "$SPAWNCTL" hosts key | grep '^ssh-' >"$KEY_FILE" || fail "SpawnAI doesn't run here: make up"
    machines=$(up)
    while read -r name address; do
        if ! "$SPAWNCTL" hosts show "$name" >/dev/null 2>&1 </dev/null; then
            "$SPAWNCTL" hosts add "ssh://root@$address" --name "$name" --publish-address "$address" \
                --fingerprint "$(on_vps "$name" fingerprint </dev/null)" </dev/null
        fi
    done <<<"$machines"
    "$SPAWNCTL" hosts list
}

leave() {
    local name
    for name in $(names); do
        "$SPAWNCTL" hosts remove "$name" --force || say "$name is no host of a SpawnAI that runs here"
    done
    down
}

# --- one machine -----------------------------------------------------------------------------------

# $1: its name; the rest: arguments for vps.sh.
on_vps() {
    local id
    id=$(container "$1")
    docker exec --interactive "$id" vps "${@:2}"
}

stop() {
    local id
    id=$(container "$1")
    docker kill "$id" >/dev/null
}

start() {
    local id
    id=$(container "$1")
    docker start "$id" >/dev/null
    wait_for "sshd and dockerd of $1" is_ready "$1"
}

is_ready() {
    on_vps "$1" ready >/dev/null 2>&1
}

container() {
    local id
    [[ ${1:-} =~ ^vps[1-3]$ ]] || fail "name a machine: vps1, vps2 or vps3"
    id=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$PROJECT" \
        --filter "label=com.docker.compose.service=$1")
    [[ -n $id ]] || fail "the fleet $PROJECT has no $1: deploy/fleet.sh up"
    echo "$id"
}

main "$@"
