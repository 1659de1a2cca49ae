#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every command of docs/fleet.md: the node exporter, Prometheus and journald's remote shipping, of Debian's packages, in a
# machine with a systemd and a network of its own: fleet.sh [RBXJ]
. "${0%/*}/lib.bash"

tools=$top/build/tools
for file in usr/bin/prometheus usr/bin/prometheus-node-exporter lib/systemd/systemd-journal-remote; do
    [ -x "$tools/$file" ] || { echo "needs $file (make tools)"; exit 77; }
done
if LD_LIBRARY_PATH=$(printf '%s:' "$tools"/usr/lib/*/) ldd "$tools/lib/systemd/systemd-journal-remote" | grep -q 'not found'; then
    echo "needs the systemd of the same version as systemd-journal-remote"
    exit 77
fi
for program in curl jq ip; do
    command -v $program >/dev/null || { echo "needs $program"; exit 77; }
done
. "${0%/*}/guide.bash"

machine_net=yes
guide_machine
tar -C "$tools" -c . | tar -C "$root" -x --keep-directory-symlink
cp "$root"/lib/systemd/system/{prometheus,prometheus-node-exporter,systemd-journal-upload}.service \
    "$root"/lib/systemd/system/systemd-journal-remote.{service,socket} "$root$units"
# Without what fences them in, which a machine in namespaces can't do a second time, and as root where the user is made up.
sed -Ei '/^(Private|Protect|Restrict|Device|Dynamic|CapabilityB|Memory|NoNew|RemoveIPC|LockP|SystemCall|Supplementary)/d
    s/^User=systemd-journal-upload$/User=root/' "$root$units"/{prometheus,systemd-journal-}*.service
guide fleet.md
finish
