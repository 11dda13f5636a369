#!/usr/bin/env bash
# First process of the container that plays a bare machine: what a kernel and an init would have done.
#
# Docker mounts the control groups read-only; an engine inside has to make groups of its own.
set -euo pipefail

readonly GROUPS_ROOT=/sys/fs/cgroup

if [[ -e $GROUPS_ROOT/cgroup.controllers ]]; then
    # Version 2: a group with processes of its own can't hand controllers on, so they move down first.
    mount -o remount,rw "$GROUPS_ROOT"
    mkdir -p "$GROUPS_ROOT/machine"
    while read -r pid; do
        echo "$pid" 2>/dev/null >"$GROUPS_ROOT/machine/cgroup.procs" || true
    done <"$GROUPS_ROOT/cgroup.procs"
    sed 's/[^ ]*/+&/g' "$GROUPS_ROOT/cgroup.controllers" >"$GROUPS_ROOT/cgroup.subtree_control"
else
    for controller in "$GROUPS_ROOT"/*/; do
        mount -o remount,bind,rw "$controller"
    done
fi
echo ready
exec sleep infinity
