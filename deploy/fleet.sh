#!/usr/bin/env bash
# A fleet of three container VPSes on this machine, for developers and demos.
#
#   deploy/fleet.sh image    build their image; its name is the last line of stdout
#   deploy/fleet.sh up       start them, and join them to the SpawnAI that runs here
#   deploy/fleet.sh down     take them out of the pool, and remove them with all that is on them
#
# Called by the Makefile and by tests/fleet.py (image).
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly PROJECT=spawnai-fleet
readonly READY_LIMIT_S=60
FOLDER=""

main() {
    cd "$ROOT"
    case ${1:-} in
        image) image ;;
        up) up ;;
        down) down ;;
        *) fail "say what to do: image, up or down" ;;
    esac
}

# The tag says what it was built from, so that it is built once.
image() {
    local base hash name
    base=$(runtime-image/base.sh | tail -n 1)
    hash=$(cat deploy/fleet/Dockerfile deploy/fleet/vps.sh deploy/nested/cgroups.sh | sha256sum)
    name=spawnai/fleet-vps:${hash:0:16}
    if ! docker image inspect "$name" >/dev/null 2>&1; then
        FOLDER=$(mktemp -d)
        trap 'rm -rf "$FOLDER"' EXIT
        cp deploy/fleet/Dockerfile deploy/fleet/vps.sh deploy/nested/cgroups.sh "$FOLDER/"
        mkdir "$FOLDER/ca" && touch "$FOLDER/ca/.empty" # COPY needs something to copy
        cp -L /usr/local/share/ca-certificates/*.crt "$FOLDER/ca/" 2>/dev/null || true
        build "$base" "$name" >&2
    fi
    echo "$name"
}

build() {
    local arguments=() one
    # By name only: docker takes the values from the environment, so none shows up in argv.
    for one in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [[ -z ${!one:-} ]] || arguments+=(--build-arg "$one")
    done
    DOCKER_BUILDKIT=0 docker build --quiet --network=host --build-arg "BASE=$1" --tag "$2" \
        "${arguments[@]}" "$FOLDER"
}

up() {
    local name address
    .venv/bin/spawnctl status >/dev/null || fail "SpawnAI doesn't run here: make up"
    FLEET_IMAGE=$(image)
    export FLEET_IMAGE
    compose up --detach --wait
    for name in vps1 vps2 vps3; do
        authorize "$name"
        address=$(address_of "$name")
        if ! .venv/bin/spawnctl hosts show "$name" >/dev/null 2>&1; then
            .venv/bin/spawnctl hosts add "ssh://root@$address" --name "$name" \
                --publish-address "$address" --fingerprint "$(fingerprint_of "$name")"
        fi
    done
    .venv/bin/spawnctl hosts list
}

down() {
    local name
    if .venv/bin/spawnctl status >/dev/null 2>&1; then
        for name in vps1 vps2 vps3; do
            .venv/bin/spawnctl hosts remove "$name" --force || true
        done
    fi
    FLEET_IMAGE=none compose down --volumes
}

compose() {
    .venv/bin/docker-compose --project-name "$PROJECT" --file deploy/fleet/compose.yaml "$@"
}

# What an operator of a real VPS does in their provider's console.
authorize() {
    local container=$PROJECT-$1-1 deadline=$((SECONDS + READY_LIMIT_S))
    .venv/bin/spawnctl hosts key 2>/dev/null | grep '^ssh-' \
        | docker exec --interactive "$container" sh -c \
            'install -d -m 0700 /root/.ssh && cat >/root/.ssh/authorized_keys'
    until docker exec "$container" docker version >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$1: its Docker does not answer within $READY_LIMIT_S s"
        sleep 0.2
    done
}

address_of() {
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$PROJECT-$1-1"
}

fingerprint_of() {
    docker exec "$PROJECT-$1-1" ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | awk '{ print $2 }'
}

main "$@"
