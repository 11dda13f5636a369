# shellcheck shell=bash
# What fresh.sh and fleet.sh share: images of containers that play a machine with an engine of its own.

# What says how packages are reached from here, if at all through a proxy.
readonly REACH=(http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    PIP_INDEX_URL PIP_EXTRA_INDEX_URL NPM_CONFIG_REGISTRY)
readonly WAIT_LIMIT_S=60

# $1: the tag; $2: an empty folder for the build context; the rest: what goes into it, the Dockerfile among
# them. The certificates of this machine join them as ca/.
build_machine() {
    local tag=$1 context=$2 base name arguments=()
    shift 2
    base=$(base_image)
    mkdir -p "$context/ca"
    cp "$@" "$ROOT/deploy/nested/cgroups.sh" "$context/"
    touch "$context/ca/.empty" # COPY needs something to copy
    cp -L /usr/local/share/ca-certificates/*.crt "$context/ca/" 2>/dev/null || true
    for name in $(names_that_are_set); do
        arguments+=(--build-arg "$name")
    done
    # The same builder everywhere: what CI has is the legacy one.
    DOCKER_BUILDKIT=0 docker build --quiet --network=host --build-arg "BASE=$base" --tag "$tag" \
        "${arguments[@]}" "$context"
}

# Names only: docker takes the values from the environment, so none shows up in argv.
names_that_are_set() {
    local name
    for name in "${REACH[@]}"; do
        [[ -z ${!name:-} ]] || echo "$name"
    done
}

# The same image as that of the sandboxes: where none can be pulled, debootstrap makes it.
base_image() {
    if [[ $(id -u) != 0 ]] && can_be_root; then
        as_root env DOCKER_HOST="$DOCKER_HOST" "$ROOT/runtime-image/base.sh" | tail -n 1
    else
        "$ROOT/runtime-image/base.sh" | tail -n 1
    fi
}

# $1: what for; the rest: the condition.
wait_for() {
    local what=$1 deadline=$((SECONDS + WAIT_LIMIT_S))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || { echo "waited $WAIT_LIMIT_S s in vain for $what" >&2 && return 1; }
        sleep 0.2
    done
}
