/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile trees: a tmpdir that is renamed, filled, exchanged and turned into symlinks while it is removed.
 */
#include "hostile.h"

#include <limits.h>
#include <linux/fs.h>

/* Of the attackers, which share nothing with the test after the fork. */
static const char *tree, *decoy;
static uint64_t seed;

/* Half of the attackers live in the box, and die in the quiesce; the others are strangers, who do not. */
static const char *home_of_attacker(const char *cgroup)
{
    return draw(2) ? cgroup : NULL;
}

/* ---- races ---- */

/* The attackers follow their own links: this keeps /etc whole from them, and the reaper takes such flags
 * away. */
static void keep_from_attackers(bool keep)
{
    static const char *const names[] = {"/ssl", "/passwd", "/shadow", ""};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!set_flags(harness_format("%s%s", etc(), names[i]), keep ? FS_IMMUTABLE_FL : 0))
            harness_skip("no immutable flag here");
}

/* Something of a small set of names, at most four levels deep. */
static void some_path(char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s", tree);
    for (uint64_t depth = 1 + crash_random(&seed) % 4; depth > 0; depth--)
        n += snprintf(path + n, PATH_MAX - (size_t)n, "/%c", (char)('a' + crash_random(&seed) % 6));
}

static void race(void)
{
    char a[PATH_MAX], b[PATH_MAX];
    for (;;) {
        some_path(a);
        some_path(b);
        switch (crash_random(&seed) % 10) {
        case 0:
        case 1:
        case 2:
            (void)mkdir(a, 0700);
            break;
        case 3:
            write_file(a);
            break;
        case 4:
            (void)rename(a, b);
            break;
        case 5:
            (void)renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
            break;
        case 6: /* a directory becomes a link to /etc */
            (void)snprintf(b, sizeof(b), "%s/away%d", tree, (int)(crash_random(&seed) % 4));
            (void)rename(a, b);
            (void)!symlink(decoy, a);
            break;
        case 7:
            (void)!symlink(decoy, b);
            (void)renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
            break;
        case 8: /* out of the tree, and in again */
            (void)snprintf(b, sizeof(b), "%s/../../outside/x", tree);
            (void)rename(a, b);
            (void)rename(b, a);
            break;
        case 9:
            (void)mkdir(tree, 0700);
            (void)rmdir(tree);
            break;
        }
    }
}

/* What the race has moved out, and one that it has made at our place, which is not the box's (K2). */
static void no_outsider(void)
{
    if (path_exists(outside("x")))
        must(system(harness_format("rm -rf %s", outside("x"))) == 0);
    if (path_exists(tree) && is_gone(RBXJ_TMPDIR))
        must(system(harness_format("rm -rf %s", tree)) == 0);
}

void tree_race(const struct crash_case *c, uint64_t point)
{
    (void)c;
    const char *cgroup;
    hostile_open(point);
    tree = plan_tree(&cgroup);
    decoy = etc();
    keep_from_attackers(true);
    crash();
    for (uint64_t n = 1 + draw(3); n > 0; n--) {
        seed = draw(UINT64_MAX);
        (void)attacker(race, home_of_attacker(cgroup));
    }
    (void)usleep((useconds_t)draw(30000));
    while (draw(2))
        reap_killed((unsigned)draw(20000));
    reaper_has(64, 2);
    (void)reap();
    over(no_outsider);
    keep_from_attackers(false);
}

/* The tmpdir itself and the decoy beside it change places all the time. */
static void swap(void)
{
    for (;;)
        (void)renameat2(AT_FDCWD, tree, AT_FDCWD, decoy, RENAME_EXCHANGE);
}

void tree_swap(const struct crash_case *c, uint64_t point)
{
    (void)c;
    const char *cgroup;
    hostile_open(point);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    decoy = in_work("D");
    crash();
    make_decoy(decoy);
    for (int i = 0; i < 50; i++)
        write_file(harness_format("%s/%d", tree, i));
    struct stat st;
    must(stat(decoy, &st) == 0);
    (void)attacker(swap, home_of_attacker(cgroup));
    reaper_has(64, 2);
    (void)reap();
    over(NULL);
    /* whatever it is called now: it is whole */
    char *names[] = {harness_format("%s", tree), harness_format("%s", decoy)};
    const char *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct stat now;
        if (stat(names[i], &now) == 0 && now.st_ino == st.st_ino)
            found = names[i];
    }
    if (!found)
        fail_msg("the directory that was exchanged with the tmpdir is gone");
    assert_true(path_exists(harness_format("%s/passwd", found)));
    assert_true(path_exists(harness_format("%s/ssl/key\n\033[31m", found)));
    assert_true(path_exists(harness_format("%s/fifo", found)));
}

/* ---- moved away ---- */

static const char *moved_from, *moved_to;

static void move_back(void)
{
    if (path_exists(moved_to))
        must(rename(moved_to, moved_from) == 0);
}

void tree_moved(const struct crash_case *c, uint64_t point)
{
    (void)c;
    static const char *const names[] = {"renamed", "outside", "parent", "parent away",
                                        "stranger in its place"};
    hostile_open(point);
    uint64_t how = draw(ARRAY_LEN(names));
    harness_mkdir(in_work("P"));
    tree = plan(RBXJ_TMPDIR, in_work("P/T"));
    crash();
    make_decoy(harness_format("%s/tree", tree));
    moved_from = how == 2 || how == 3 ? in_work("P") : tree;
    moved_to = how == 0 || how == 4 ? in_work("P/U") : how == 2 ? in_work("Q") : outside("x");
    must(rename(moved_from, moved_to) == 0);
    char *before = NULL;
    if (how == 3) /* another one stands where its directory was */
        harness_mkdir(moved_from);
    if (how == 4) {
        make_decoy(tree);
        before = picture(tree, true);
    }
    (void)reap();
    if (how == 0)
        all_undone();
    else if (how == 4)
        must_be_whole(tree, before, true);
    else
        left(RBXJ_TMPDIR, how == 1 ? moved_to : "");
    if (how == 3)
        must(rmdir(moved_from) == 0);
    if (how == 4 && is_left(RBXJ_TMPDIR))
        must(system(harness_format("rm -rf %s", tree)) == 0);
    over(how == 4 ? NULL : move_back);
}

/* ---- large ones ---- */

void tree_deep(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    int fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (uint64_t depth = sized(600, 100000); depth > 0; depth--) {
        must(mkdirat(fd, "d", 0700) == 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must(next >= 0);
        if (depth % 100 == 0) {
            (void)!symlinkat(etc(), fd, "etc");
            (void)mknodat(fd, "pipe", S_IFIFO | 0600, 0);
        }
        (void)close(fd);
        fd = next;
    }
    (void)close(fd);
    reaper_has(32, 1700);
    (void)reap();
    all_undone();
    over(NULL);
}

void tree_wide(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    uint64_t n = sized(1500, 1000000), per = draw(2) ? n : 1000;
    int fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir = -1;
    for (uint64_t i = 0; i < n; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%lu", (unsigned long)(i / per));
        if (i % per == 0) {
            must(mkdirat(fd, name, 0700) == 0);
            cleanup_closep(&dir);
            dir = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        (void)snprintf(name, sizeof(name), "f%lu", (unsigned long)i);
        must(mknodat(dir, name, S_IFREG | 0600, 0) == 0);
    }
    cleanup_closep(&dir);
    (void)close(fd);
    reaper_has(32, 3000);
    (void)reap();
    all_undone();
    over(NULL);
}
