# shellcheck shell=bash
# Makes the control groups writable in a container that plays a machine. Docker mounts them read-only, but the
# engine inside has to create its own groups. Works with version 1 and version 2. Copied into the images of
# deploy/fresh and deploy/fleet.

make_cgroups_writable() {
    local root=/sys/fs/cgroup pid controller
    if [[ -e $root/cgroup.controllers ]]; then
        # A group that contains processes can't delegate controllers, so move the processes down first.
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
