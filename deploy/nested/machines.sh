# shellcheck shell=bash
# Shared by fresh.sh and fleet.sh: images of containers that play a machine with its own engine.

# The variables that say how to reach packages, for example through a proxy.
readonly REACH=(http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    PIP_INDEX_URL PIP_EXTRA_INDEX_URL NPM_CONFIG_REGISTRY)
readonly WAIT_LIMIT_S=60

# $1: the tag; $2: an empty folder for the build context; the rest: the files for it, with the Dockerfile.
# Adds the certificates of this machine as ca/.
build_machine() {
    local tag=$1 context=$2 base name arguments=()
    shift 2
    base=$(base_image)
    mkdir -p "$context/ca"
    cp "$@" "$ROOT/deploy/nested/cgroups.sh" "$context/"
    touch "$context/ca/.empty" # COPY fails without a file
    cp -L /usr/local/share/ca-certificates/*.crt "$context/ca/" 2>/dev/null || true
    for name in $(names_that_are_set); do
        arguments+=(--build-arg "$name")
    done
    # The same builder everywhere: CI has the legacy one.
    DOCKER_BUILDKIT=0 docker build --quiet --network=host --build-arg "BASE=$base" --tag "$tag" \
        "${arguments[@]}" "$context"
}

# Names only: docker reads the values from the environment, so that none appears in argv.
names_that_are_set() {
    local name
    for name in "${REACH[@]}"; do
        [[ -z ${!name:-} ]] || echo "$name"
    done
}

# The base image of the sandboxes. If it cannot be pulled, debootstrap builds it.
base_image() {
    if [[ $(id -u) != 0 ]] && can_be_root; then
        as_root env DOCKER_HOST="$DOCKER_HOST" "$ROOT/runtime-image/base.sh" | tail -n 1
    else
        "$ROOT/runtime-image/base.sh" | tail -n 1
    fi
}

# $1: the name of the condition, for the message; the rest: the command that checks it.
wait_for() {
    local what=$1 deadline=$((SECONDS + WAIT_LIMIT_S))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || { echo "waited $WAIT_LIMIT_S s in vain for $what" >&2 && return 1; }
        sleep 0.2
    done
}
