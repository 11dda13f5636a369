#!/usr/bin/env bash
# First process of the container that plays a bare machine.
set -euo pipefail
# shellcheck source=deploy/nested/cgroups.sh
source /usr/local/sbin/cgroups.sh

make_cgroups_writable
echo ready
exec sleep infinity
