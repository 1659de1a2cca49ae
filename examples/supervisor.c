/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor with librbxj: runs a command in a box of a lock file, a cgroup, a directory and a mount.
 *
 *     cc -o supervisor supervisor.c $(pkg-config --cflags --libs rbxj)
 *     ./supervisor BOX BASE_DIR CGROUP_PARENT CMD [ARG...]
 *
 * Kill it at any moment, with SIGKILL: `rbxj replay` puts everything back as it was.
 */
#include <rbxj.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOCK, CGROUP, TMPDIR, MOUNT, PLAN_LEN };

static int complain(const struct rbxj_error *e, const char *doing)
{
    fprintf(stderr, "supervisor: %s: %s%s%s\n", doing, e->message, *e->detail ? "; " : "", e->detail);
    return -1;
}

/* Takes everything that the plan says, oldest first. Nothing is used before its acquisition has succeeded. */
static int acquire(struct rbxj *rbxj, const char *box, const struct rbxj_resource *plan, int *lock)
{
    struct rbxj_error error;
    for (uint32_t i = 0; i < PLAN_LEN; i++) {
        /* plan[i] has the number i + 1. The lock stays locked for as long as its descriptor is open. */
        if (rbxj_acquire(rbxj, box, i + 1, plan[i].options, i == LOCK ? lock : NULL, &error) < 0)
            return complain(&error, "acquiring");
        /* The mount's target lies in the directory of the box, so it goes with that. */
        if (i == TMPDIR && mkdir(plan[MOUNT].path, 0700) < 0) {
            perror(plan[MOUNT].path);
            return -1;
        }
    }
    return 0;
}

/* Runs the command inside the cgroup; its exit status, or -1. */
static int run(struct rbxj *rbxj, const char *box, char *const *argv)
{
    struct rbxj_error error;
    uint32_t cgroup = CGROUP + 1;
    struct rbxj_spawn how = {
        .argv = (const char *const *)argv,
        .cgroups = &cgroup,
        .cgroups_len = 1,
    };
    pid_t pid;
    int status;
    /* It is journaled, and in its cgroup, before it runs a single instruction of the command. */
    if (rbxj_spawn(rbxj, box, &how, &pid, NULL, NULL, &error) < 0)
        return complain(&error, "starting the command");
    if (waitpid(pid, &status, 0) < 0) {
        perror("waitpid");
        return -1;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int supervise(struct rbxj *rbxj, const char *name, const char *base, const char *parent,
                     char *const *argv)
{
    struct rbxj_error error;
    char lock_path[PATH_MAX], cgroup[PATH_MAX], dir[PATH_MAX], root[PATH_MAX + 8];
    snprintf(lock_path, sizeof(lock_path), "%s/%s.lock", base, name);
    snprintf(cgroup, sizeof(cgroup), "%s/%s", parent, name);
    snprintf(dir, sizeof(dir), "%s/%s", base, name);
    snprintf(root, sizeof(root), "%s/root", dir);

    /* The order is the order of acquisition. The undo goes the other way: what is in use by something newer
     * (the directory by the mount) is undone after it. */
    const struct rbxj_resource plan[PLAN_LEN] = {
        [LOCK] = {.kind = RBXJ_LOCK, .path = lock_path},
        [CGROUP] = {.kind = RBXJ_CGROUP, .path = cgroup},
        [TMPDIR] = {.kind = RBXJ_TMPDIR, .path = dir},
        [MOUNT] =
            {.kind = RBXJ_MOUNT, .path = root, .fstype = "tmpfs", .source = "box", .options = "size=16m"},
    };
    const struct rbxj_box box = {.name = name, .plan = plan, .plan_len = PLAN_LEN};

    /* From here on the journal knows what we are about to take. If this fails, nothing must be taken. */
    if (rbxj_begin(rbxj, &box, NULL, &error) < 0)
        return complain(&error, "begin"); /* box_stale: an earlier life of it crashed; rbxj replay */

    int lock = -1;
    int status = acquire(rbxj, name, plan, &lock);
    if (status == 0)
        status = run(rbxj, name, argv);

    /* Whatever has failed: what was taken is given back, by the code that would clean up after a crash; the
     * command, and what it left in the cgroup, is killed. The box ends only when nothing is left. */
    if (rbxj_undo(rbxj, name, NULL, &error) < 0 || rbxj_end(rbxj, name, &error) < 0)
        status = complain(&error, "undo"); /* rbxj list shows what is left, and why */
    if (lock >= 0)
        close(lock);
    return status;
}

int main(int argc, char **argv)
{
    struct rbxj *rbxj;
    struct rbxj_error error;
    if (argc < 5) {
        fprintf(stderr, "usage: %s BOX BASE_DIR CGROUP_PARENT CMD [ARG...]\n", argv[0]);
        return 2;
    }
    /* After the last fork: the process that begins a box owns it, and the handle does not survive a fork.
     * NULL: where RBXJ_STATE_DIR and RBXJ_RUNTIME_DIR say, else in the default places. */
    if (rbxj_open(NULL, &rbxj, &error) < 0) {
        complain(&error, "open");
        return 1;
    }
    int status = supervise(rbxj, argv[1], argv[2], argv[3], argv + 4);
    rbxj_close(rbxj);
    return status < 0 ? 1 : status;
}
