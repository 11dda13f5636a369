#!/usr/bin/env bash
# The commands of a machine of the test fleet: `vps` in its image, called through `docker exec`.
#
#   vps boot                          first process of the container
#   vps ready                         succeeds if sshd and dockerd answer
#   vps authorize                     allow the public key on stdin to log in as root
#   vps fingerprint                   print the host key's fingerprint for `spawnctl hosts add --fingerprint`
#   vps cut | heal                    drop all packets of its network, silently; undo it
#   vps stop-sshd | start-sshd        the listener and all sessions
#   vps kill-dockerd | start-dockerd  kill -9; containers keep running, as on any machine
#   vps fill-disk | free-disk         Docker's disk, if it is a separate file system
#   vps mend                          undo all of these
#
# Nothing restarts by itself: a process that a test stopped stays stopped until a command starts it. Each
# command returns when its effect is complete, and does nothing if there is nothing to do.
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
    launch_dockerd # is slow; the host keys are made meanwhile
    make_identity
    start_sshd
    start_dockerd
    exec sleep infinity
}

# Created once, in the container's own layer, so that they outlive its restart.
make_identity() {
    [[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    ssh-keygen -A >/dev/null
}

# The file lies below its own mount point, in the container's volume, and is deleted with the volume.
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

# Before the engine's own rules and after them, so that published ports are cut too. ARP still works: without
# it callers would get an error at once, which a broken line doesn't cause.
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
    # Forked off: at the end of boot this shell becomes `sleep`, which reaps no child, and a killed dockerd must
    # not remain as a zombie.
    setsid --fork dockerd >>/var/log/dockerd.log 2>&1 </dev/null
}

# The kernel kills its containerd with it. A stale pid file would stop the next dockerd from starting, once
# another process has this pid.
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

# Reserves the space without writing it, so that the file system below the disk's file stays as it is.
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

# $1: the name of the condition, for the message; the rest: the command that checks it.
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
