# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A machine in namespaces with a real systemd as its PID 1: its root $root is an overlay of this one's, with the units of
# make install and what they are ordered by, and nothing else. Sourced after lib.bash.
[ -x /lib/systemd/systemd ] || { echo "needs systemd"; exit 77; }
[ -n "$group" ] || { echo "needs cgroup2"; exit 77; }
units=/etc/test-units # in the machine: the only units beside those of its /etc/systemd/system, which is empty at first

# machine_make PREFIX: with what was built installed in it.
machine_make() {
    overlay
    rm -rf "$root/etc/systemd/system" "$root/etc/rbxj"
    mkdir -p "$root$units" "$root/etc/systemd/system" "$root/etc/systemd/journald.conf.d"
    (
        unset MAKEFLAGS MFLAGS MAKELEVEL
        make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR="$root" PREFIX="$1" UNITDIR=$units install
    ) >"$work/out" 2>"$work/err"
    check "it installs" is $? 0
    cp /lib/systemd/system/{basic,sysinit,multi-user,local-fs,shutdown,umount,timers,sockets,paths,slices}.target \
        /lib/systemd/system/systemd-journald{.service,.socket,-dev-log.socket} "$root$units"
    # It must not touch this machine: neither its log nor the kernel's audit.
    printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n' >"$root/etc/systemd/journald.conf.d/test.conf"
    : >"$root/etc/fstab"
    unit systemd-tmpfiles-setup.service '[Unit]' DefaultDependencies=no Before=sysinit.target '[Service]' Type=oneshot \
        RemainAfterExit=yes 'ExecStart=systemd-tmpfiles --create rbxj.conf' '[Install]' WantedBy=sysinit.target
    unit inside.target '[Unit]' Requires=multi-user.target
    mkdir -p "$root$units/sysinit.target.wants" "$root$units/sockets.target.wants"
    ln -s ../systemd-journald.service "$root$units/sysinit.target.wants/"
    ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$root$units/sockets.target.wants/"
    machine_init
    mkdir "$group/machine"
}

# unit NAME LINE...: of the test's own.
unit() {
    local name=$1
    shift
    printf '%s\n' "$@" >"$root$units/$name"
}
# machine_runs COMMAND: at the end of its boot; what it prints is in $root/srv/report. What runs before its systemd does, with
# its file systems, is a script $root/srv/before.
machine_runs() {
    unit inside.service '[Unit]' After=multi-user.target '[Service]' Type=oneshot "ExecStart=$1" TimeoutStartSec=infinity \
        StandardOutput=file:/srv/report StandardError=file:/srv/report '[Install]' WantedBy=inside.target
}
# enable FILE...: as their [Install] sections say.
enable() {
    local file target
    for file; do
        for target in $(sed -n 's/^WantedBy=//p' "$root$units/$file"); do
            mkdir -p "$root$units/$target.wants"
            ln -s "../$file" "$root$units/$target.wants/"
        done
    done
}

machine_init() {
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
for device in null zero full random urandom kmsg fuse; do
    [ -c "/dev/$device" ] || continue
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
[ ! -e "$root/srv/before" ] || chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh /srv/before
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test \
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/etc/test-units /lib/systemd/systemd --unit=inside.target \
    --log-target=console
INIT
    chmod +x "$work/init"
}

finished() { grep -qx finished "$root/srv/report" 2>/dev/null || ! kill -0 "$machine" 2>/dev/null; }
# boot NUMBER [WAITS]: until the command inside has come to its end, or the machine to its own; at most so often 10 s.
# machine_net=yes: with a network of its own, of which the loopback has to be brought up.
boot() {
    local i waits=${2:-9}
    umount "$root/run"
    mount -t tmpfs -o mode=0755 none "$root/run"
    rm -f "$root/srv/report"
    echo "$1" >"$root/srv/boot"
    # shellcheck disable=SC2016
    sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group/machine" \
        unshare --mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc ${machine_net:+--net} \
        "$work/init" "$root" >"$work/console" 2>&1 </dev/null &
    machine=$!
    for ((i = 0; i < waits; i++)); do ! until_true finished || break; done
}
# Everything in it is gone at once: its processes, its mounts, and its /run with the next boot.
cut() {
    kill -KILL "$machine"
    wait "$machine" 2>/dev/null
    until_true empty || bad "the machine is off"
}
empty() { grep -qx 'populated 0' "$group/machine/cgroup.events"; }
# report PREFIX: what the command inside has found counts here.
report() {
    local line
    grep -qx finished "$root/srv/report" || bad "${1}it comes to its end"
    while read -r line; do
        case $line in
        "ok "*) ok "$1${line#ok }" ;;
        "not ok "*) bad "$1${line#not ok }" ;;
        esac
    done <"$root/srv/report"
    grep -qx finished "$root/srv/report" && ! grep -q '^not ok' "$root/srv/report" && return
    sed 's/^/  inside: /' "$root/srv/report"
    sed 's/^/  console: /' "$work/console"
}
