#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The units under a real systemd: PID 1 of a machine in namespaces, whose root is an overlay of this one's, with the units
# of make install and what they are ordered by, and nothing else. It is booted twice; in between its power is cut, as far as
# a container has one. What is looked at inside is in systemd-inside.bash: systemd.sh [RBXJ]
. "${0%/*}/lib.bash"

[ -x /lib/systemd/systemd ] || { echo "needs systemd"; exit 77; }
[ -n "$group" ] || { echo "needs cgroup2"; exit 77; }
overlay
units=$root/etc/test-units
mkdir "$units" "$root/var/boxes"
unset MAKEFLAGS MFLAGS MAKELEVEL
make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR="$root" PREFIX=/usr UNITDIR=/etc/test-units install \
    >"$work/out" 2>"$work/err"
check "it installs" is $? 0

# ---- the machine ----

cp /lib/systemd/system/{basic,sysinit,multi-user,local-fs,shutdown,umount,timers,sockets,paths,slices}.target \
    /lib/systemd/system/systemd-journald{.service,.socket,-dev-log.socket} "$units"
mkdir -p "$root/etc/systemd/journald.conf.d"
# It must not touch this machine: neither its log nor the kernel's audit.
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n' >"$root/etc/systemd/journald.conf.d/test.conf"
: >"$root/etc/fstab"

# unit NAME LINE...: of this test's own.
unit() {
    local name=$1
    shift
    printf '%s\n' "$@" >"$units/$name"
}
unit systemd-tmpfiles-setup.service '[Unit]' DefaultDependencies=no Before=sysinit.target '[Service]' Type=oneshot \
    RemainAfterExit=yes 'ExecStart=systemd-tmpfiles --create rbxj.conf' '[Install]' WantedBy=sysinit.target
unit supervisor.service '[Service]' \
    'ExecStart=rbxj run --box s --lock /var/boxes/s.lock --tmpdir /var/boxes/s.dir --mount tmpfs,x,/var/boxes/s.mnt -- sleep 1000' \
    Restart=on-failure RestartSec=100ms '[Install]' WantedBy=multi-user.target
install -D -m 0644 "$root/usr/share/rbxj/supervisor.conf" "$units/supervisor.service.d/rbxj.conf"
unit inside.service '[Unit]' After=multi-user.target '[Service]' Type=oneshot 'ExecStart=bash /srv/inside.bash /srv/boot' \
    StandardOutput=file:/srv/report StandardError=file:/srv/report '[Install]' WantedBy=inside.target
unit inside.target '[Unit]' Requires=multi-user.target
# Enabled as their [Install] sections say.
for file in "$units"/*.{service,timer,socket}; do
    for target in $(sed -n 's/^WantedBy=//p' "$file"); do
        mkdir -p "$units/$target.wants"
        ln -s "../${file##*/}" "$units/$target.wants/"
    done
done
mkdir -p "$units/sysinit.target.wants" "$units/sockets.target.wants"
ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$units/sockets.target.wants/"
cp "$top/tests/systemd-inside.bash" "$root/srv/inside.bash"

cat >"$work/init" <<'INIT'
#!/bin/sh
# PID 1 of the machine, in its namespaces: init ROOT. The kernel's own settings are for reading, as they are this machine's.
set -e
root=$1
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test SYSTEMD_UNIT_PATH=/etc/test-units \
    /lib/systemd/systemd --unit=inside.target
INIT
chmod +x "$work/init"
mkdir "$group/machine"

finished() { grep -qx finished "$root/srv/report" 2>/dev/null || ! kill -0 "$machine" 2>/dev/null; }
# boot NUMBER: until the script inside has come to its end, or the machine to its own.
boot() {
    local _
    umount "$root/run"
    mount -t tmpfs -o mode=0755 none "$root/run"
    rm -f "$root/srv/report"
    echo "$1" >"$root/srv/boot"
    # shellcheck disable=SC2016
    sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group/machine" \
        unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc "$work/init" "$root" \
        >"$work/console" 2>&1 </dev/null &
    machine=$!
    for _ in {1..9}; do ! until_true finished || break; done
}
# Everything in it is gone at once: its processes, its mounts, and its /run with the next boot.
cut() {
    kill -KILL "$machine"
    wait "$machine" 2>/dev/null
    until_true empty || bad "the machine is off"
}
empty() { grep -qx 'populated 0' "$group/machine/cgroup.events"; }
# What the script inside has found counts here.
report() {
    local line
    grep -qx finished "$root/srv/report" || bad "boot $1 comes to its end"
    while read -r line; do
        case $line in
        "ok "*) ok "boot $1: ${line#ok }" ;;
        "not ok "*) bad "boot $1: ${line#not ok }" ;;
        esac
    done <"$root/srv/report"
    grep -qx finished "$root/srv/report" && ! grep -q '^not ok' "$root/srv/report" && return
    sed 's/^/  inside: /' "$root/srv/report"
    sed 's/^/  console: /' "$work/console"
}

boot 1
cut
report 1
boot 2
cut
report 2
finish
