/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile races: mounts and cgroups that are made, moved, renamed and taken away while they are undone, by
 * what has the right to do all that.
 */
#include "hostile.h"

#include <limits.h>
#include <sys/wait.h>

#define CHILDREN_MAX 30

static const char *target, *tree, *cgroup, *decoy, *elsewhere;
static uint64_t seed;

static uint64_t any(uint64_t n)
{
    return crash_random(&seed) % n;
}

/* The attackers: some of the box, some strangers; and reapers that are killed at work. */
static void attack(void (*race)(void))
{
    const char *home = draw(2) ? cgroup : NULL; /* the others may find it renamed */
    for (uint64_t n = 1 + draw(2); n > 0; n--, home = NULL) {
        seed = draw(UINT64_MAX);
        (void)attacker(race, home);
    }
    (void)usleep((useconds_t)draw(20000));
    while (draw(2))
        reap_killed((unsigned)draw(20000));
    reaper_has(64, 2);
    (void)reap();
}

/* ---- mounts ---- */

static void mount_below(const char *dir, const char *name)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)mkdir(path, 0700);
    if (any(2))
        (void)mount("hostile", path, "tmpfs", 0, "size=64k");
    else
        (void)mount(decoy, path, NULL, MS_BIND, NULL);
}

static void unmount_below(const char *dir, const char *name)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)umount2(path, any(2) ? MNT_DETACH : 0);
}

static void race_mounts(void)
{
    static const unsigned long propagations[] = {MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE};
    for (;;) {
        switch (any(10)) {
        case 0:
            mount_below(tree, "m");
            break;
        case 1:
        case 2:
            unmount_below(tree, "m");
            break;
        case 3:
            mount_below(target, "m");
            break;
        case 4:
            unmount_below(target, "m");
            break;
        case 5:
            (void)mount(target, any(2) ? elsewhere : tree, NULL, MS_MOVE, NULL);
            break;
        case 6:
            (void)mount(any(2) ? elsewhere : tree, target, NULL, MS_MOVE, NULL);
            break;
        case 7:
            (void)mount("hostile", target, "tmpfs", 0, "size=64k");
            break;
        case 8:
            (void)umount2(any(2) ? target : tree, any(2) ? MNT_DETACH : 0);
            break;
        case 9:
            (void)mount(NULL, target, NULL, propagations[any(4)], NULL);
            break;
        }
    }
}

/* What the attackers have left mounted: theirs by its source, /etc by its root. The youngest of them
 * that can be: what is covered has to wait. */
static bool unmount_one(void)
{
    char line[3 * PATH_MAX], root[PATH_MAX], on[PATH_MAX], *found[200];
    size_t n = 0;
    bool done = false;
    _cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
    while (f && fgets(line, sizeof(line), f) && n < ARRAY_LEN(found)) {
        if (sscanf(line, "%*d %*d %*s %4095s %4095s", root, on) != 2)
            continue;
        size_t len = strlen(root);
        if (strstr(line, " hostile ") || (len > 12 && strcmp(root + len - 12, "/outside/etc") == 0))
            found[n++] = strdup(on);
    }
    for (; n > 0; free(found[n]))
        done = umount2(found[--n], MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || done;
    return done;
}

static void unmount_all(void)
{
    for (int i = 0; i < 1000 && unmount_one(); i++)
        ;
}

void mount_race(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    harness_mkdir(in_work("P"));
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    target = plan_mount("tmpfs", "x", in_work("P/M"));
    tree = plan(RBXJ_TMPDIR, in_work("P/T"));
    decoy = etc();
    elsewhere = outside("moved");
    harness_mkdir(elsewhere);
    crash();
    write_file(harness_format("%s/file", tree));
    attack(race_mounts);
    over(unmount_all);
}

/* ---- cgroups ---- */

static void try_write(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)!write(fd, text, strlen(text));
    cleanup_closep(&fd);
}

/* A process more, in there; at most CHILDREN_MAX of them live. */
static void add_process(const char *dir)
{
    static unsigned alive;
    char text[16];
    while (waitpid(-1, NULL, WNOHANG) > 0)
        alive--;
    pid_t pid = alive < CHILDREN_MAX ? fork() : -1;
    if (pid == 0) {
        (void)sleep(1);
        _exit(0);
    }
    if (pid < 0)
        return;
    alive++;
    (void)snprintf(text, sizeof(text), "%d", pid);
    try_write(dir, "cgroup.procs", text);
}

static void race_groups(void)
{
    char nested[PATH_MAX], deep[PATH_MAX];
    (void)snprintf(nested, sizeof(nested), "%s/n", cgroup);
    for (;;) {
        switch (any(11)) {
        case 0:
            (void)mkdir(nested, 0755);
            break;
        case 1:
            (void)rmdir(nested);
            break;
        case 2:
        case 3:
            add_process(any(2) ? nested : cgroup);
            break;
        case 4:
            try_write(any(2) ? nested : cgroup, "cgroup.freeze", any(2) ? "1" : "0");
            break;
        case 5:
            try_write(any(2) ? nested : cgroup, "freezer.state", any(2) ? "FROZEN" : "THAWED");
            break;
        case 6:
            try_write(nested, "cgroup.type", "threaded");
            break;
        case 7: /* under another name (v1) */
            (void)rename(cgroup, elsewhere);
            break;
        case 8:
            (void)rename(elsewhere, cgroup);
            break;
        case 9: /* as deep as it gets before somebody takes it away */
            for (size_t n = (size_t)snprintf(deep, sizeof(deep), "%s", cgroup); n < 600; n += 2) {
                (void)snprintf(deep + n, sizeof(deep) - n, "/d");
                (void)mkdir(deep, 0755);
            }
            break;
        case 10:
            (void)rmdir(cgroup);
            (void)mkdir(cgroup, 0755);
            break;
        }
    }
}

static void thaw_all(void)
{
    static const char *const names[] = {"", "/n"};
    const char *const groups[] = {cgroup, elsewhere};
    for (size_t i = 0; i < 4; i++)
        try_write(harness_format("%s%s", groups[i % 2], names[i / 2]), "freezer.state", "THAWED");
}

void group_race(const struct crash_case *c, uint64_t point)
{
    (void)c;
    static const char *const hierarchies[] = {"pids", "freezer", "cpu"};
    hostile_open(point);
    const char *parent = draw(2) ? group() : group_v1(hierarchies[draw(ARRAY_LEN(hierarchies))]);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", parent));
    elsewhere = harness_format("%s/z", parent);
    (void)plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    attack(race_groups);
    over(thaw_all);
}
