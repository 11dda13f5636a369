#!/usr/bin/env bash
# First process of a container that plays a VPS, and the switches of its parts.
#
#   vps.sh                                start sshd and dockerd, and stay
#   vps.sh start-sshd | stop-sshd         stop-sshd ends open connections too
#   vps.sh start-dockerd | kill-dockerd   kill -9, as the kernel does it when memory runs out
#   vps.sh cut | heal                     drop every packet, silently, as a broken network does
set -euo pipefail
# shellcheck source=deploy/nested/cgroups.sh
source /usr/local/sbin/cgroups.sh

readonly DOCKERD_PID=/run/docker.pid
readonly SSHD_PID=/run/sshd.pid

main() {
    case ${1:-} in
        "") boot ;;
        start-sshd) start_sshd ;;
        stop-sshd) stop_sshd ;;
        start-dockerd) start_dockerd ;;
        kill-dockerd) kill_dockerd ;;
        cut) firewall -I ;;
        heal) firewall -D ;;
        *) echo "vps.sh: unknown switch $1" >&2 && exit 2 ;;
    esac
}

boot() {
    make_cgroups_writable
    [[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    ssh-keygen -A >/dev/null
    start_sshd
    start_dockerd
    exec sleep infinity
}

start_sshd() {
    mkdir -p /run/sshd
    /usr/sbin/sshd # as Debian configures it: limits and forwarding at their defaults
}

stop_sshd() {
    local pid
    kill "$(cat "$SSHD_PID")"
    # What it forked for each connection is a process of its own.
    for pid in $(pgrep -x sshd); do
        kill -9 "$pid" 2>/dev/null || true
    done
}

start_dockerd() {
    rm -f "$DOCKERD_PID"
    # Pools of its own, which can't be those of the engine that this container runs on.
    setsid dockerd --pidfile "$DOCKERD_PID" --bip 10.200.0.1/24 \
        --default-address-pool base=10.201.0.0/16,size=24 >>/var/log/dockerd.log 2>&1 </dev/null &
}

kill_dockerd() {
    kill -9 "$(cat "$DOCKERD_PID")"
}

# Loopback stays: what is cut is the cable.
firewall() {
    iptables -w 5 "$1" INPUT -i eth0 -j DROP
    iptables -w 5 "$1" OUTPUT -o eth0 -j DROP
}

main "$@"
