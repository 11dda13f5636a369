# shellcheck shell=bash
# What a kernel and an init would have done for a machine that is a container with an engine inside:
# Docker mounts the control groups read-only, and that engine has to make groups of its own.
# Copied into the images of deploy/fresh and deploy/fleet; version 1 and version 2.

make_cgroups_writable() {
    local root=/sys/fs/cgroup pid controller
    if [[ -e $root/cgroup.controllers ]]; then
        # A group with processes of its own can't hand controllers on, so they move down first.
        mount -o remount,rw "$root"
        mkdir -p "$root/machine"
        while read -r pid; do
            echo "$pid" 2>/dev/null >"$root/machine/cgroup.procs" || true
        done <"$root/cgroup.procs"
        sed 's/[^ ]*/+&/g' "$root/cgroup.controllers" >"$root/cgroup.subtree_control"
    else
        for controller in "$root"/*/; do
            mount -o remount,bind,rw "$controller"
        done
    fi
}
