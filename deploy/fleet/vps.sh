#!/usr/bin/env bash
# What a machine of the test fleet does to itself: `vps` in its image, called through `docker exec`.
#
#   vps boot                          first process of the container
#   vps ready                         whether sshd and dockerd answer
#   vps authorize                     let the owner of the public key on stdin log in as root
#   vps fingerprint                   of the host key, as `spawnctl hosts add --fingerprint` wants it
#   vps cut | heal                    drop all packets from and to elsewhere, silently
#   vps stop-sshd | start-sshd        the listener and every session
#   vps kill-dockerd | start-dockerd  kill -9; containers live on, as they do anywhere
#   vps fill-disk | free-disk         of Docker's file system, where it is one of its own
#   vps mend                          undo all of that
#
# Nothing restarts by itself: what a test ended stays ended until it is started again. Each command
# returns when it is done, and does nothing where nothing is to do.
set -euo pipefail
# shellcheck source=deploy/nested/cgroups.sh
source /usr/local/sbin/cgroups.sh

readonly DOCKER_ROOT=/var/lib/docker
readonly DISK=$DOCKER_ROOT/disk.ext4
readonly BALLAST=$DOCKER_ROOT/ballast
readonly LEFT_MIB=8
readonly KEYS=/root/.ssh/authorized_keys
readonly LIMIT_S=60

main() {
    case ${1:-} in
        boot | ready | authorize | fingerprint | mend) "$1" ;;
        cut | heal) "$1_network" ;;
        stop-sshd | start-sshd | kill-dockerd | start-dockerd | fill-disk | free-disk) "${1//-/_}" ;;
        *) fail "no command ${1:-}: see the head of $0" ;;
    esac
}

# --- life ------------------------------------------------------------------------------------------

boot() {
    make_cgroups_writable
    mount_disk
    launch_dockerd # takes its time, and so do the host keys
    make_identity
    start_sshd
    start_dockerd
    exec sleep infinity
}

# Made once, in the container's own layer: they outlive its restart.
make_identity() {
    [[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    ssh-keygen -A >/dev/null
}

# The file lies in the folder that it then covers: in the container's volume, gone with it.
mount_disk() {
    local number
    ((${VPS_DISK_MIB:-0})) || return 0
    for number in {0..31}; do
        [[ -e /dev/loop$number ]] || mknod "/dev/loop$number" b 7 "$number"
    done
    [[ -e /dev/loop-control ]] || mknod /dev/loop-control c 10 237
    if [[ ! -e $DISK ]]; then
        truncate --size "${VPS_DISK_MIB}M" "$DISK"
        mkfs.ext4 -q -m 0 "$DISK"
    fi
    mount -o loop "$DISK" "$DOCKER_ROOT"
}

ready() {
    dockerd_answers || fail "dockerd doesn't answer: see /var/log/dockerd.log"
    sshd_answers || fail "sshd doesn't answer: see /var/log/sshd.log"
}

mend() {
    heal_network
    free_disk
    start_sshd
    start_dockerd
}

# --- who may come in -------------------------------------------------------------------------------

authorize() {
    local key
    read -r key
    ssh-keygen -l -f - <<<"$key" >/dev/null || fail "that is no public key: $key"
    install -d -m 0700 "$(dirname "$KEYS")"
    grep -qsxF "$key" "$KEYS" || echo "$key" >>"$KEYS"
}

fingerprint() {
    ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub | cut -d ' ' -f 2
}

# --- the network -----------------------------------------------------------------------------------

cut_network() {
    local rule
    for rule in PREROUTING POSTROUTING; do
        dropping "$rule" -C 2>/dev/null || dropping "$rule" -I
    done
}

heal_network() {
    local rule
    for rule in PREROUTING POSTROUTING; do
        while dropping "$rule" -D 2>/dev/null; do :; done
    done
}

# Before the engine's own rules and after them, so that published ports are cut as well. ARP goes on: a
# neighbour that doesn't answer it is reported to the caller, and a broken line isn't.
dropping() {
    case $1 in
        PREROUTING) iptables -w -t raw "$2" PREROUTING -i eth0 -j DROP ;;
        POSTROUTING) iptables -w -t mangle "$2" POSTROUTING -o eth0 -j DROP ;;
    esac
}

# --- sshd ------------------------------------------------------------------------------------------

start_sshd() {
    ! sshd_answers || return 0
    mkdir -p /run/sshd
    /usr/sbin/sshd -E /var/log/sshd.log
    wait_for "sshd to answer" sshd_answers
}

stop_sshd() {
    pkill -x sshd || true
    wait_for "sshd and its sessions to end" no_process_named sshd
}

sshd_answers() {
    [[ $(greeting 2>/dev/null) == SSH-2.0-* ]]
}

greeting() {
    local line
    exec 3<>/dev/tcp/127.0.0.1/22
    read -r -t 5 line <&3
    echo "$line"
}

# --- dockerd ---------------------------------------------------------------------------------------

start_dockerd() {
    launch_dockerd
    wait_for "dockerd to answer" dockerd_answers
}

launch_dockerd() {
    no_process_named dockerd || return 0
    # Forked off: what this shell becomes at the end of boot reaps nothing, and a killed one is to vanish.
    setsid --fork dockerd >>/var/log/dockerd.log 2>&1 </dev/null
}

# Its containerd dies with it: the kernel sees to that. Its pid file would keep the next one from
# starting, once the number belongs to somebody else.
kill_dockerd() {
    pkill -KILL -x dockerd || true
    wait_for "dockerd to end" no_process_named dockerd
    wait_for "containerd to end" no_process_named containerd
    rm -f /run/docker.pid
}

dockerd_answers() {
    timeout 5 docker version >/dev/null 2>&1
}

# --- the disk --------------------------------------------------------------------------------------

# Space is set aside, not written: the file system that the disk's file lies on stays as it is.
fill_disk() {
    local free_mib
    ((${VPS_DISK_MIB:-0})) || fail "Docker has no file system of its own here, and the one below is not ours"
    free_disk
    free_mib=$(df --output=avail -B 1M "$DOCKER_ROOT" | tail -n 1)
    ((free_mib > LEFT_MIB)) || return 0
    fallocate --length "$((free_mib - LEFT_MIB))M" "$BALLAST"
}

free_disk() {
    rm -f "$BALLAST"
}

# --- help ------------------------------------------------------------------------------------------

no_process_named() {
    ! pgrep -x "$1" >/dev/null
}

# $1: what for; the rest: the condition.
wait_for() {
    local what=$1 deadline=$((SECONDS + LIMIT_S))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || fail "waited $LIMIT_S s in vain for $what: see /var/log"
        sleep 0.05
    done
}

fail() {
    echo "vps: $*" >&2
    exit 1
}

main "$@"
