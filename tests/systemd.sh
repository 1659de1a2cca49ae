#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The units under a real systemd: PID 1 of a machine in namespaces (machine.bash). It is booted again and again; in between
# its power is cut, as far as a container has one, and at last a file system of it hangs. What is looked at inside is in
# systemd-inside.bash: systemd.sh [RBXJ]
. "${0%/*}/lib.bash"
. "${0%/*}/machine.bash"

machine_make /usr
mkdir "$root/var/boxes" "$root/var/hung"
unit supervisor.service '[Service]' \
    'ExecStart=rbxj run --box s --lock /var/boxes/s.lock --tmpdir /var/boxes/s.dir --mount tmpfs,x,/var/boxes/s.mnt -- sleep 1000' \
    Restart=on-failure RestartSec=100ms '[Install]' WantedBy=multi-user.target
install -D -m 0644 "$root/usr/share/rbxj/supervisor.conf" "$root$units/supervisor.service.d/rbxj.conf"
machine_runs 'bash /srv/inside.bash /srv/boot'
cp "$top/tests/systemd-inside.bash" "$root/srv/inside.bash"
cp "$top/tests/hung.py" "$root/srv/"
(cd "$root$units" && ls -d *.service *.timer *.socket) >"$work/enabled"
mapfile -t files <"$work/enabled"
enable "${files[@]}"

boot 1
cut
report "boot 1: "
boot 2
cut
report "boot 2: "
if [ -c /dev/fuse ]; then
    echo 'python3 -I -S /srv/hung.py /var/hung >/srv/hung.pid' >"$root/srv/before"
    rm "$root$units"/*.wants/rbxj-{watch.service,health.timer} # they would wait for it, too
    mkdir -p "$root/etc/rbxj" "$root$units"/rbxj-{reaper,watch}.service.d
    printf '[replay]\nboot_deadline=20s\n' >"$root/etc/rbxj/rbxj.conf"
    unit rbxj-reaper.service.d/test.conf '[Service]' TimeoutStopSec=30s
    unit rbxj-watch.service.d/test.conf '[Service]' TimeoutStopSec=60s
    boot 3
    cut
    report "boot 3: "
else
    echo "skip: a file system that hangs: no /dev/fuse"
fi
finish
