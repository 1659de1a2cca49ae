#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The packages that make deb has built: lintian, then installed, upgraded, removed and purged by dpkg in an overlay of this
# machine's root, which stays as it is: RBXJ_DEB=build/deb tests/deb/check.sh
debs=$(realpath "${RBXJ_DEB:-build/deb}")
. "${0%/*}/../lib.bash" /bin/true # the program that is tried is the package's

package() { echo "$debs/$1_"*.deb; }
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$top/debian/changelog")

check "its version is the Makefile's" grep -qx "VERSION := $version" "$top/Makefile"
all_there() {
    local name
    for name in rbxj rbxj-dbgsym librbxj0 librbxj0-dbgsym librbxj-dev; do there "$(package "$name")" || return 1; done
}
check "all packages are there, with symbols for the debugger" all_there
clean_lintian() {
    lintian --allow-root --display-info --fail-on error,warning,info "$debs"/*.changes >"$work/out" 2>"$work/err"
}
check "lintian has nothing to say" clean_lintian

# ---- an overlay of this machine ----

overlay
for dir in proc sys dev; do mount --rbind "/$dir" "$root/$dir"; done
mkdir "$root/srv/packages" "$root/srv/source"
for name in rbxj librbxj0 librbxj-dev; do cp "$(package "$name")" "$root/srv/packages/$name.deb"; done
tar -C "$top" -c debian demo examples | tar -C "$root/srv/source" -x

# inside COMMAND...: with its status in $status, what it wrote in out and err.
inside() {
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@" \
        >"$work/out" 2>"$work/err" </dev/null
    status=$?
    return "$status"
}
install_all() { inside dpkg --install /srv/packages/{rbxj,librbxj0,librbxj-dev}.deb; }
remove() { inside dpkg --remove rbxj; }
purge() { inside dpkg --purge rbxj; }
# begin BOX: a supervisor of the installed version, with $supervisor its pid; its payload has started.
begin() {
    rm -f "$root/srv/$1.up"
    chroot "$root" /usr/bin/rbxj run --box "$1" --lock "/srv/$1.lock" --tmpdir "/srv/$1.dir" --mount "tmpfs,x,/srv/$1.mnt" -- \
        /bin/sh -c 'echo up >"/srv/$1.up"; exec sleep 600' sh "$1" >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    until_true started "$root/srv/$1.up" "$supervisor" && [ -s "$root/srv/$1.up" ]
}
die() {
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}
nothing_of() { gone "$root/srv/$1.lock" "$root/srv/$1.dir" "$root/srv/$1.mnt"; }
state_is() { inside rbxj list --json && json "sorted((b['box'], b['state']) for b in d['boxes']) == $1"; }

# ---- installed ----

check "they install" install_all
enabled() {
    local unit
    for unit in rbxj-reaper.service rbxj-watch.service rbxj-health.timer rbxj-audit.timer; do
        inside systemctl is-enabled "$unit" && is "$(cat "$work/out")" enabled || return 1
    done
}
check "the reaper, the watcher and the timers are enabled" enabled
the_timers() { inside systemctl is-enabled rbxj-health.service && is "$(cat "$work/out")" static; }
check "the recovery is its timer's" the_timers
check "the state directory is root's alone" is "$(stat -c '%a %u' "$root/var/lib/rbxj")" "700 0"
is_version() { inside rbxj --version && out_has "$version"; }
check "the program says the package's version" is_version
completions() { inside dpkg -L rbxj && out_has /usr/share/bash-completion/completions/rbxj && out_has /usr/share/zsh/vendor-completions/_rbxj; }
check "with completions" completions
manuals() {
    local page package
    for page in $(cd "$top/man" && echo *.scd) rbxj_open.3.scd; do
        page=${page%.scd}
        package=rbxj
        [ "${page##*.}" != 3 ] || package=librbxj-dev
        inside dpkg -L $package && out_has "/usr/share/man/man${page##*.}/$page.gz" || { echo "  no $page"; return 1; }
    done
}
check "and manual pages, those of the library with its header" manuals

explained() { inside journalctl --list-catalog && out_has "rbxj: A journal is damaged"; }
check "journalctl -x knows the events" explained

# What autopkgtest would run: the commands of debian/tests/control.
autopkgtest() { inside sh -c "cd /srv/source && $1"; }
demo=$(sed -n 's/^Test-Command: //p' "$top/debian/tests/control")
check "autopkgtest: the demo" autopkgtest "$demo"
check "autopkgtest: a supervisor that is built with the package" autopkgtest debian/tests/library

# ---- upgraded, beside a supervisor of the old version ----

upgrade() {
    local tree=$work/upgraded name
    for name in rbxj librbxj0 librbxj-dev; do
        rm -rf "$tree"
        dpkg-deb -R "$(package "$name")" "$tree" && sed -i "s/\b$version\b/$version+1/" "$tree/DEBIAN/control" &&
            dpkg-deb --root-owner-group -Znone -b "$tree" "$root/srv/packages/$name+1.deb" >"$work/out" || return 1
    done
    inside dpkg --install /srv/packages/{rbxj,librbxj0,librbxj-dev}+1.deb
}
check "a box is begun, and its supervisor dies" begin stale
die
check "another one's lives" begin live
check "k24: an upgrade goes through" upgrade
check "k24: the journal is as it was" state_is "[('live', 'live'), ('stale', 'stale')]"
inside rbxj replay
check "the new version undoes what the old one's supervisor left" nothing_of stale
check "and leaves the living alone" there "$root/srv/live.lock" "$root/srv/live.dir" "$root/srv/live.mnt"
kill -TERM "$supervisor"
wait "$supervisor"
check "k24: a supervisor of the old version ends its box beside the new one" nothing_of live
check "and nothing is in the journal" state_is "[]"

# ---- removed and purged ----

begin left && die
warned() { err_has "left (stale)" && err_has "by a purge, too"; }
check "it can be removed while a stale box is in the journal" remove
check "but says so, and names the box" warned
check "a purge goes through" purge
says_kept() { err_has "/var/lib/rbxj is kept"; }
check "keeps the journal, and says so" says_kept
check "the journal is there" there "$root/var/lib/rbxj/journal/data.mdb"
check "and the box untouched" there "$root/srv/left.lock" "$root/srv/left.dir"
check "installed again" install_all
inside rbxj replay
check "it is undone" nothing_of left

check "removed when nothing is left" remove
silent() { is "$(grep ^rbxj: "$work/err")" ""; }
check "it has nothing to say" silent
program_is_gone() { gone "$root/usr/bin/rbxj" "$root/lib/systemd/system/rbxj-reaper.service"; }
check "the program and its units are gone" program_is_gone
check "a purge goes through" purge
no_trace() {
    gone "$root/var/lib/rbxj" "$root/run/rbxj" &&
        is "$(find "$root/etc/systemd" "$root/var/lib/systemd" -name '*rbxj*')" ""
}
check "and leaves no trace" no_trace

check "installed, never used" install_all
purge
check "and purged, it leaves no trace" no_trace

check "installed, used" install_all
begin kept && die
inside rbxj replay
check "removed" remove
touch "$root/var/lib/rbxj/journal/data.mdb" # somebody with the library has journaled since
check "purged" purge
check "what was written after the removal is kept" there "$root/var/lib/rbxj/journal/data.mdb"
finish
