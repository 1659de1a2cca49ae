#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the machine looks like before the reaper runs, and what the kernel's command line wants to have spoiled by then.
mkdir -p /run/rig
cp -r /var/lib/rbxj /run/rig/state-before
ls /srv/rig >/run/rig/before

journal=/var/lib/rbxj/journal/data.mdb
for word in $(cat /proc/cmdline); do
    case $word in
    rig.damage=metas) dd if=/dev/urandom of=$journal bs=4096 count=2 conv=notrunc,fsync status=none ;;
    rig.damage=pages) dd if=/dev/urandom of=$journal bs=4096 seek=2 count=60 conv=notrunc,fsync status=none ;;
    rig.damage=short) truncate -s 6000 $journal ;;
    rig.damage=empty) truncate -s 0 $journal ;;
    rig.damage=gone) rm $journal ;;
    rig.var=ro) mount --bind /var /var && mount -o remount,bind,ro /var ;;
    rig.var=full)
        fallocate -l "$(($(stat -f -c '%a * %S' /var) - (1 << 20)))" /var/rig-full
        dd if=/dev/zero of=/var/rig-full bs=4096 oflag=append conv=notrunc status=none
        ;;
    rig.deadline=*)
        mkdir -p /etc/rbxj
        printf '[replay]\nboot_deadline=%s\n' "${word#*=}" >/etc/rbxj/rbxj.conf
        ;;
    esac
done 2>/run/rig/before.err
echo "rig: reaper next" >/dev/ttyS0
