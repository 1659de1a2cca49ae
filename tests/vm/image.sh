#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Builds the machine that the power cuts are tried on: image.sh DIRECTORY DEBS
# There: kernel (Debian's cloud kernel, which boots an ext4 on NVMe without an initrd), root.tar (a minimal Debian, made
# once), root.img (that with the package rbxj, and what is in guest/). Exit status 77: no archive can be reached.
set -eu -o pipefail
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin
here=$(cd "${0%/*}" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
debs=$(cd "$2" && pwd)
exec </dev/null

[ "$(id -u)" = 0 ] || { echo "vm: building the image needs root" >&2; exit 1; }

packages=systemd,systemd-sysv,udev,kmod,procps,mount,libcgroup2,liblmdb0,libcjson1,libmount1,libsmartcols1,libinih1
packages=$packages,libxxhash0,libsystemd0
# what virtio-blk needs; all else is in the kernel itself
modules="virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk"

# The archive that this machine uses, as far as it is Debian's.
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
sources=
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -n "$sources" ] || ! grep -qs "$suite" "$file" || sources=$file
done

kernel() {
    local name unpacked
    if [ -s "$dir/kernel/vmlinuz" ]; then return; fi
    rm -rf "$dir/kernel" "$dir/kernel.new"
    mkdir "$dir/kernel.new"
    unpacked=$dir/kernel.new/unpacked
    name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
    if [ -z "$name" ] || ! (cd "$dir/kernel.new" && apt-get -qq download "$name" 2>/dev/null); then
        apt-get -qq update || true
        name=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
        (cd "$dir/kernel.new" && apt-get -qq download "${name:-linux-image-cloud-amd64}" 2>/dev/null) || {
            echo "vm: the kernel's package can't be downloaded" >&2
            exit 77
        }
    fi
    dpkg -x "$dir"/kernel.new/*.deb "$unpacked"
    cp "$unpacked"/boot/vmlinuz-* "$dir/kernel.new/vmlinuz"
    mv "$unpacked/lib/modules" "$dir/kernel.new/modules"
    rm -rf "$unpacked" "$dir"/kernel.new/*.deb
    mv "$dir/kernel.new" "$dir/kernel"
}

root_tar() {
    local try
    if [ -s "$dir/root.tar" ]; then return; fi
    for try in 1 2 3; do
        rm -f "$dir/root.new.tar"
        # shellcheck disable=SC2086
        if mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='Acquire::Languages "none"' \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --dpkgopt='path-exclude=/usr/share/doc/*' "$suite" "$dir/root.new.tar" $sources 2>"$dir/mmdebstrap.log"; then
            mv "$dir/root.new.tar" "$dir/root.tar"
            return
        fi
        sleep "$try"
    done
    cat "$dir/mmdebstrap.log" >&2
    exit 1
}

root_img() {
    local root=$dir/root version module path
    rm -rf "$root"
    mkdir "$root"
    tar -C "$root" --numeric-owner --xattrs --xattrs-include='*' -xf "$dir/root.tar"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/lib/systemd/system/*.wants/systemd-pcrphase* \
        "$root"/etc/systemd/system/timers.target.wants/*

    version=$(ls "$dir/kernel/modules")
    mkdir -p "$root/lib/modules/$version"
    for module in $modules; do
        path=$(find "$dir/kernel/modules" -name "$module.ko")
        cp "$path" "$root/lib/modules/$version/"
    done
    cp "$dir/kernel/modules/$version"/modules.{builtin,order}* "$root/lib/modules/$version/"
    chroot "$root" depmod "$version"

    # the package as it is shipped, by dpkg
    cp "$debs"/rbxj_*.deb "$root/rbxj.deb"
    chroot "$root" dpkg -i /rbxj.deb >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log" >&2; exit 1; }
    rm "$root/rbxj.deb"
    mkdir -p "$root/usr/lib/rig" "$root/srv/rig"
    install -m 0755 "$here"/guest/*.sh "$dir"/programs/* "$root/usr/lib/rig/"
    install -m 0644 "$here"/guest/rig-*.service "$root/etc/systemd/system/"
    # the report as JSON: all else is the unit as it is shipped
    mkdir -p "$root/etc/systemd/system/rbxj-reaper.service.d"
    {
        echo '[Service]'
        echo 'ExecStart='
        sed -n 's/^\(ExecStart=[^ ]*rbxj\) /\1 --json /p' "$root/lib/systemd/system/rbxj-reaper.service"
        printf '%s\n' StandardOutput=file:/run/rig/report.json StandardError=journal
    } >"$root/etc/systemd/system/rbxj-reaper.service.d/rig.conf"
    grep -q '^ExecStart=.*rbxj --json' "$root/etc/systemd/system/rbxj-reaper.service.d/rig.conf"
    install -D -m 0644 "$root/usr/share/rbxj/supervisor.conf" "$root/etc/systemd/system/rig-supervisor.service.d/rbxj.conf"

    echo rig >"$root/etc/hostname"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >"$root/etc/systemd/journald.conf"
    for module in serial-getty@.service getty@.service console-getty.service getty-static.service \
        systemd-journal-flush.service systemd-random-seed.service e2scrub_reap.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$module"
    done
    chroot "$root" systemctl -q enable rig-before.service rig-after.service rig-supervisor.service rig-agent.service
    rm -f "$dir/root.img" "$dir/root.new.img"
    mke2fs -q -F -t ext4 -d "$root" "$dir/root.new.img" 600M 2>&1 | grep -v ^Creating || true
    [ -s "$dir/root.new.img" ]
    rm -rf "$root"
    mv "$dir/root.new.img" "$dir/root.img"
}

kernel
root_tar
root_img
