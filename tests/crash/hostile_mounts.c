/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile mounts: over, in, below and beside those of the box, busy ones, and ones that never answer.
 */
#include "hostile.h"

#include "../hung_fuse.h"

#include <limits.h>
#include <sched.h>
#include <sys/syscall.h>

static const char *target, *tree, *cgroup;

/* A cgroup, a tmpfs, and a tmpdir beside it. */
static void plan_mounts(void)
{
    harness_mkdir(in_work("P"));
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    target = plan_mount("tmpfs", "x", in_work("P/M"));
    tree = plan(RBXJ_TMPDIR, in_work("P/T"));
}

/* ---- what the test itself has mounted, newest first ---- */

static const char *mine[16];
static size_t mine_len;

static const char *note(const char *path)
{
    assert_true(mine_len < ARRAY_LEN(mine));
    return mine[mine_len++] = path;
}

static void unmount_mine(void)
{
    while (mine_len > 0)
        (void)umount2(mine[--mine_len], MNT_DETACH | UMOUNT_NOFOLLOW);
}

static void open_mounts(uint64_t point)
{
    mine_len = 0;
    hostile_open(point);
}

/* ---- /etc, bound into the box ---- */

void mount_decoys(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    bool in_tree = draw(2), in_mount = draw(2) || !in_tree;
    plan_mounts();
    crash();
    if (in_mount) {
        bind_on(etc(), harness_format("%s/etc", target));
        if (draw(2))
            bind_on(etc(), harness_format("%s/etc/ssl", target));
    }
    if (in_tree) {
        bind_on(etc(), note(harness_format("%s/etc", tree)));
        if (draw(2))
            must(mount(NULL, mine[0], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
    }
    char *before = picture(etc(), true);
    (void)reap();
    must_be_whole(etc(), before, true);
    if (in_tree)
        left(RBXJ_TMPDIR, mine[0]);
    else
        all_undone();
    over(unmount_mine);
}

/* ---- stacks ---- */

void mount_stacked(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    plan_mounts();
    crash();
    uint64_t how = draw(5);
    harness_mkdir(harness_format("%s/sub", target));
    tmpfs_on(harness_format("%s/sub/1", target));
    switch (how) {
    case 0: /* one of the box on its own: it is a stranger's for all that is known */
        tmpfs_on(note(target));
        break;
    case 1: /* many, some covered */
        for (int i = 0; i < 5; i++)
            tmpfs_on(harness_format("%s/sub", target));
        tmpfs_on(harness_format("%s/sub/2", target));
        break;
    case 2: /* the directory above is covered */
        tmpfs_on(note(in_work("P")));
        break;
    case 3: /* over the tmpdir */
        tmpfs_on(note(tree));
        break;
    case 4: /* itself upon itself */
        must(mount(target, note(target), NULL, MS_BIND, NULL) == 0);
        break;
    }
    int r = reap();
    if (how == 1)
        all_undone();
    else
        assert_int_equal(r, 1);
    over(unmount_mine);
}

/* ---- propagation ---- */

static const char *in_namespace; /* a mount that the attacker makes in a namespace of its own */

static void live_in_namespace(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        _exit(2);
    if (in_namespace && mount(target, in_namespace, NULL, MS_BIND, NULL) < 0)
        _exit(3);
    if (draw(2)) /* a copy that no propagation reaches */
        (void)mount(NULL, target, NULL, MS_PRIVATE, NULL);
    for (;;)
        pause();
}

/* Until it has a namespace of its own, and in that what it was to mount. */
static void wait_for_copies(pid_t pid)
{
    char *ns = harness_format("/proc/%d/ns/mnt", pid), *info = harness_format("/proc/%d/mountinfo", pid);
    struct stat own, theirs;
    must(stat("/proc/self/ns/mnt", &own) == 0);
    for (int i = 0; i < 3000; i++) {
        if (stat(ns, &theirs) == 0 && theirs.st_ino != own.st_ino &&
            (!in_namespace || strstr(harness_read(info), harness_format(" %s ", in_namespace))))
            return;
        (void)usleep(10000);
    }
    fail_msg("no other namespace");
}

void mount_shared(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    bool stranger = draw(2), shared = draw(2);
    in_namespace = NULL;
    plan_mounts();
    const char *all = harness_disk();
    bind_on(all, all);
    must(mount(NULL, all, NULL, shared ? MS_SHARED : MS_PRIVATE, NULL) == 0);
    crash();
    if (draw(2))
        must(mount(NULL, target, NULL, MS_SHARED, NULL) == 0);
    wait_for_copies(attacker(live_in_namespace, stranger ? NULL : cgroup));
    /* an rbind copy beside it: its original is to stay whole below */
    bind_on(etc(), harness_format("%s/etc", target));
    (void)reap();
    if (!stranger)
        all_undone();
    else if (is_left(RBXJ_MOUNT))
        left(RBXJ_MOUNT, "copy");
    over(NULL);
}

/* ---- busy ---- */

static const char *busy_at, *hung;

static void work_there(void)
{
    if (chdir(busy_at) < 0)
        _exit(2);
    for (;;)
        pause();
}

/* In state D: its working directory keeps the mount busy while it waits for a file system that is dead. */
static void wait_for_the_dead(void)
{
    if (chdir(busy_at) < 0)
        _exit(2);
    for (;;)
        (void)open(hung, O_RDONLY | O_CLOEXEC);
}

/* Until it is where it will stay: in that directory, and waiting for the dead server if there is one. */
static void wait_until_busy(pid_t pid, bool hangs)
{
    char *wait = harness_format("/proc/%d/wchan", pid), *link = harness_format("/proc/%d/cwd", pid);
    for (int i = 0; i < 3000; i++) {
        char cwd[PATH_MAX] = "", in[64] = "";
        (void)!readlink(link, cwd, sizeof(cwd) - 1);
        _cleanup_fclose_ FILE *f = fopen(wait, "re");
        (void)!(f && fread(in, 1, sizeof(in) - 1, f));
        if (strcmp(cwd, busy_at) == 0 && (!hangs || strstr(in, "fuse") || strstr(in, "request_wait_answer")))
            return;
        (void)usleep(10000);
    }
    fail_msg("pid %d is not yet where it should be", pid);
}

static pid_t server;

static void end_server(void)
{
    if (server)
        harness_kill(server);
    server = 0;
    unmount_mine();
}

void mount_busy(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    uint64_t who = draw(4);
    server = 0;
    plan_mounts();
    crash();
    busy_at = draw(2) ? target : harness_format("%s/sub", target);
    if (busy_at != target)
        tmpfs_on(busy_at);
    if (who >= 2) {
        hung = outside("hung");
        server = hung_fuse(note(hung));
        hung = harness_format("%s/file", hung);
    }
    pid_t pid = attacker(who < 2 ? work_there : wait_for_the_dead, who % 2 == 0 ? cgroup : NULL);
    wait_until_busy(pid, who >= 2);
    reaper_has(64, 4);
    bool lazy = draw(3) == 0;
    reaper_is_lazy(lazy);
    (void)reap();
    reaper_is_lazy(false);
    if (who == 0)
        all_undone();
    else if (lazy && who != 2 &&
             !is_left(RBXJ_MOUNT)) /* detached, and nobody holds it: only what lay in it */
        assert_true(busy_at != target);
    else if (who == 2)
        left(RBXJ_CGROUP, harness_format("pid %d", pid));
    else
        left(RBXJ_MOUNT, lazy ? "" : strerror(EBUSY)); /* and by whom, if there was time to look */
    if (server)                                        /* it alone lets the waiting die */
        harness_kill(server);
    server = 0;
    over(unmount_mine);
}

/* ---- dead servers ---- */

void mount_hung(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    uint64_t where = draw(4);
    plan_mounts();
    crash();
    harness_mkdir(harness_format("%s/d", tree));
    const char *path = where == 0   ? harness_format("%s/hung", target)
                       : where == 1 ? note(harness_format("%s/hung", tree))
                       : where == 2 ? note(harness_format("%s/d/hung", tree))
                                    : note(in_work("hung"));
    server = hung_fuse(path);
    (void)reap();
    if (where == 1 || where == 2)
        left(RBXJ_TMPDIR, path);
    else
        all_undone();
    over(end_server);
}

/* ---- elsewhere ---- */

static const char *elsewhere;

void mount_bound_elsewhere(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    plan_mounts();
    crash();
    make_decoy(harness_format("%s/tree", target));
    elsewhere = outside("copy");
    bool of_another = draw(2), stranger = draw(2);
    in_namespace = NULL;
    if (!of_another) {
        bind_on(draw(2) ? target : harness_format("%s/tree", target), note(elsewhere));
    } else {
        harness_mkdir(elsewhere);
        in_namespace = elsewhere;
        wait_for_copies(attacker(live_in_namespace, stranger ? NULL : cgroup));
    }
    (void)reap();
    if (of_another && !stranger)
        all_undone();
    else
        left(RBXJ_MOUNT, of_another ? "copy" : elsewhere);
    over(unmount_mine);
}

void mount_moved(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    plan_mounts();
    crash();
    uint64_t where = draw(4);
    elsewhere = where == 0   ? outside("moved")
                : where == 1 ? harness_format("%s/moved", tree)
                : where == 2 ? harness_format("%s/ssl", etc())
                             : tree;
    if (where < 2)
        harness_mkdir(elsewhere);
    if (draw(2))
        tmpfs_on(harness_format("%s/sub", target));
    must(mount(target, elsewhere, NULL, MS_MOVE, NULL) == 0);
    if (draw(2))
        tmpfs_on(note(target));
    (void)reap();
    all_undone();
    unmount_mine();
    over(NULL);
}

void mount_readonly(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    target = plan_mount("tmpfs", "x", in_work("M"));
    tree = plan(RBXJ_TMPDIR, harness_format("%s/T", target));
    crash();
    make_decoy(harness_format("%s/tree", tree));
    must(mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY | (draw(2) ? MS_BIND : 0), NULL) == 0);
    (void)reap();
    left(RBXJ_TMPDIR, strerror(EROFS));
    must(mount(NULL, target, NULL, MS_REMOUNT | MS_BIND, NULL) == 0);
    must(mount(NULL, target, NULL, MS_REMOUNT, NULL) == 0);
    over(NULL);
}

/* Binds that the box has journaled itself are no copies; each is undone, and with it what lies in it. */
void mount_own_binds(const struct crash_case *c, uint64_t point)
{
    (void)c;
    open_mounts(point);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    target = plan_mount("tmpfs", "x", in_work("M"));
    const char *bound[] = {in_work("B1"), in_work("B2")};
    for (size_t i = 0; i < ARRAY_LEN(bound); i++) {
        harness_mkdir(bound[i]);
        (void)plan_mount(draw(2) ? "bind" : "rbind", target, bound[i]);
    }
    tree = plan(RBXJ_TMPDIR, harness_format("%s/T", bound[0]));
    crash();
    make_decoy(harness_format("%s/tree", tree));
    in_namespace = NULL;
    if (draw(2))
        wait_for_copies(attacker(live_in_namespace, cgroup));
    if (draw(2))
        must(umount2(target, MNT_DETACH) == 0); /* the oldest goes first */
    (void)reap();
    all_undone();
    over(NULL);
}
