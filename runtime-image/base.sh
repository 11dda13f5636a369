#!/usr/bin/env bash
# Prints the name of a Debian 12 base image for the runtime image, making one where none can be pulled.
#
# Called by build.sh, by CI and by whoever prepares a host. Order: the pulled image, our own import,
# a pull that may take 20 s, and at last debootstrap with the apt mirror that this machine uses itself.
set -euo pipefail

readonly PULLED=debian:bookworm-slim
readonly IMPORTED=spawnai/debian-base:bookworm
readonly PULL_LIMIT_S=20
ROOTFS=""

fail() {
    echo "base.sh: $*" >&2
    exit 1
}

have_image() {
    docker image inspect "$1" >/dev/null 2>&1
}

# The first archive in apt's configuration that isn't a security archive, in either file format.
machine_mirror() {
    local files=()
    mapfile -t files < <(find /etc/apt -maxdepth 2 \( -name '*.sources' -o -name '*.list' \) | sort)
    ((${#files[@]})) || return 0
    awk '
        /^[[:space:]]*#/ { next }
        /^[[:space:]]*deb[[:space:]]/ {
            for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { url = $i; suite = $(i + 1); break }
            if (suite ~ /^bookworm$/) { print url; exit }
        }
        /^URIs:/ { url = $2 }
        /^Suites:/ && / bookworm( |$)/ { print url; exit }
    ' "${files[@]}"
}

bootstrap() {
    local mirror
    command -v debootstrap >/dev/null || fail "no $PULLED and no debootstrap: apt-get install debootstrap"
    [[ $(id -u) == 0 ]] || fail "no $PULLED, and debootstrap needs root: run this as root"
    mirror=$(machine_mirror)
    [[ -n $mirror ]] || fail "no bookworm archive in /etc/apt: pull $PULLED by hand and start again"

    ROOTFS=$(mktemp -d)
    trap 'rm -rf "$ROOTFS"' EXIT
    debootstrap --variant=minbase bookworm "$ROOTFS" "$mirror" >&2 || fail "debootstrap failed, see above"
    rm -rf "$ROOTFS"/var/cache/apt/archives/*.deb "$ROOTFS"/var/lib/apt/lists/*
    tar -C "$ROOTFS" -c . | docker import - "$IMPORTED" >&2
}

main() {
    docker version >/dev/null 2>&1 || fail "no Docker engine answers: start it, or set DOCKER_HOST"
    for image in "$PULLED" "$IMPORTED"; do
        if have_image "$image"; then
            echo "$image"
            return
        fi
    done
    if timeout "$PULL_LIMIT_S" docker pull -q "$PULLED" >&2; then
        echo "$PULLED"
        return
    fi
    echo "base.sh: $PULLED can't be pulled, building $IMPORTED with debootstrap" >&2
    bootstrap
    echo "$IMPORTED"
}

main "$@"
