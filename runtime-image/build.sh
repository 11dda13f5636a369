#!/usr/bin/env bash
# Builds the runtime image and prints its tag as the last line of stdout; does nothing if it is there.
#
#   runtime-image/build.sh [--base IMAGE] [--tag TAG]
#
# The tag is spawnai/runtime:<first 16 hex of a hash>, so that a host can tell from the name alone
# whether its image is the one that the control plane was built with. The hash is that of the files of
# this folder and of orchestrator/contract, which the agent shares with the control plane.
# Behind a proxy: HTTP(S)_PROXY, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and NPM_CONFIG_REGISTRY are handed
# on; certificates come from ca/*.crt and from SSL_CERT_FILE, PIP_CERT or REQUESTS_CA_BUNDLE.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
CONTRACT=$HERE/../orchestrator/contract
readonly CONTRACT
CONTEXT=""

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# Files below the current folder that go into the image or say how it is made. Caches and this
# machine's certificates don't.
content_files() {
    find . -type f ! -path './ca/*' ! -path '*/__pycache__/*' ! -path '*/node_modules/*' \
        ! -path '*/.mypy_cache/*' ! -path '*/.ruff_cache/*' ! -name '*.pyc' -print0 | LC_ALL=C sort -z
}

content_hash() {
    local folder
    for folder in "$HERE" "$CONTRACT"; do
        (cd "$folder" && content_files | xargs -0 sha256sum) || fail "$folder can't be read"
    done | sha256sum | cut -d ' ' -f 1
}

machine_ca_bundle() {
    local candidate
    for candidate in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        if [[ -n $candidate && -r $candidate ]]; then
            echo "$candidate"
            return
        fi
    done
}

prepare_context() {
    local bundle
    CONTEXT=$(mktemp -d)
    trap 'rm -rf "$CONTEXT"' EXIT
    (cd "$HERE" && content_files | xargs -0 cp --parents -t "$CONTEXT")
    mkdir "$CONTEXT/contract"
    (cd "$CONTRACT" && content_files | xargs -0 cp --parents -t "$CONTEXT/contract")
    # A COPY needs something to copy, also where there is no certificate at all.
    mkdir -p "$CONTEXT/ca" && touch "$CONTEXT/ca/.empty"
    find "$HERE/ca" -maxdepth 1 -name '*.crt' -exec cp -t "$CONTEXT/ca" {} + 2>/dev/null || true
    bundle=$(machine_ca_bundle)
    if [[ -n $bundle ]]; then
        cp -L "$bundle" "$CONTEXT/ca/machine-bundle.crt"
    fi
}

build() {
    local base=$1 tag=$2 hash=$3 name
    local arguments=(--network=host --build-arg "BASE=$base" --label "ai.spawn.runtime=$hash" --tag "$tag")
    # By name only: docker takes the value from the environment, so that none shows up in argv.
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL NPM_CONFIG_REGISTRY \
        HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
        if [[ -n ${!name:-} ]]; then
            arguments+=(--build-arg "$name")
        fi
    done
    # The same builder everywhere: what CI has is the legacy one.
    DOCKER_BUILDKIT=0 docker build "${arguments[@]}" "$CONTEXT" >&2 || fail "the build failed, see above"
}

main() {
    local base="" tag="" hash
    while (($#)); do
        case $1 in
            --base) base=${2:?--base needs an image} && shift 2 ;;
            --tag) tag=${2:?--tag needs a tag} && shift 2 ;;
            *) fail "unknown argument $1 (known: --base IMAGE, --tag TAG)" ;;
        esac
    done
    hash=$(content_hash)
    tag=${tag:-spawnai/runtime:${hash:0:16}}
    docker version >/dev/null 2>&1 || fail "no Docker engine answers: start it, or set DOCKER_HOST"
    if [[ $(docker image inspect --format '{{index .Config.Labels "ai.spawn.runtime"}}' "$tag" 2>/dev/null) == "$hash" ]]; then
        echo "$tag"
        return
    fi
    base=${base:-$("$HERE/base.sh")}
    prepare_context
    build "$base" "$tag" "$hash"
    echo "$tag"
}

main "$@"
