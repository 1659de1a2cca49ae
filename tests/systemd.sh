#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The units under a real systemd: PID 1 of a machine in namespaces (machine.bash). It is booted twice; in between its power
# is cut, as far as a container has one. What is looked at inside is in systemd-inside.bash: systemd.sh [RBXJ]
. "${0%/*}/lib.bash"
. "${0%/*}/machine.bash"

machine_make /usr
mkdir "$root/var/boxes"
unit supervisor.service '[Service]' \
    'ExecStart=rbxj run --box s --lock /var/boxes/s.lock --tmpdir /var/boxes/s.dir --mount tmpfs,x,/var/boxes/s.mnt -- sleep 1000' \
    Restart=on-failure RestartSec=100ms '[Install]' WantedBy=multi-user.target
install -D -m 0644 "$root/usr/share/rbxj/supervisor.conf" "$root$units/supervisor.service.d/rbxj.conf"
machine_runs 'bash /srv/inside.bash /srv/boot'
cp "$top/tests/systemd-inside.bash" "$root/srv/inside.bash"
(cd "$root$units" && ls -d *.service *.timer *.socket) >"$work/enabled"
mapfile -t files <"$work/enabled"
enable "${files[@]}"

boot 1
cut
report "boot 1: "
boot 2
cut
report "boot 2: "
finish
