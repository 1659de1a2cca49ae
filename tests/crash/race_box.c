/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "race.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void race_choose(void)
{
    race->persistent = race_draw(4) == 0;
}

size_t race_plan(const struct rbxj_resource **ret)
{
    static _Thread_local struct rbxj_resource plan[3];
    bool persistent = race->persistent;
    struct rbxj_resource cgroup = {.kind = RBXJ_CGROUP, .path = race->cgroup};
    plan[0] = persistent ? (struct rbxj_resource){.kind = RBXJ_LOCK, .path = race->lock} : cgroup;
    plan[1] = (struct rbxj_resource){.kind = persistent ? RBXJ_TMPDIR : RBXJ_CGROUP,
                                     .path = persistent ? race->tmpdir : race->second};
    plan[2] = cgroup;
    *ret = plan;
    return persistent ? 3 : 2;
}

int race_begin(struct rbxj *handle, struct rbxj_error *e)
{
    struct rbxj_box box = {.name = "7"};
    box.plan_len = race_plan(&box.plan);
    return rbxj_begin(handle, &box, NULL, e);
}

/* The lock's descriptor: the teardown by its owner does not need it. */
int race_acquire(struct rbxj *handle, struct rbxj_error *e)
{
    const struct rbxj_resource *plan;
    size_t n = race_plan(&plan);
    for (uint32_t seq = 1; seq <= n; seq++) {
        int fd = -1, r = rbxj_acquire(handle, "7", seq, NULL, &fd, e);
        if (r < 0)
            return r;
        if (fd >= 0)
            (void)close(fd);
    }
    return 0;
}

int race_end(struct rbxj *handle, struct rbxj_error *e)
{
    int r = rbxj_undo(handle, "7", NULL, e);
    return r < 0 ? r : rbxj_end(handle, "7", e);
}

void race_leave_stale(bool acquired)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj *handle;
        struct rbxj_error e = {0};
        int r = rbxj_open(&race->options, &handle, &e);
        if (r == 0)
            r = race_begin(handle, &e);
        if (r == 0 && acquired)
            r = race_acquire(handle, &e);
        if (r < 0)
            (void)dprintf(2, "a stale box: %s\n", e.message);
        _exit(r < 0);
    }
    int status = -1;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_int_equal(status, 0);
}

void race_replay(const struct rbxj_replay *how, struct race_said *said)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box box;
    struct rbxj_result_entry entry;
    said->boxes = said->unfinished = 0;
    said->r = rbxj_replay(&race->options, how, &result, &said->error);
    if (said->r < 0)
        return;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++) {
        said->boxes++;
        if (strcmp(box.outcome, "success") == 0)
            continue;
        said->unfinished++;
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            if (entry.error && !said->error.code)
                said->error = *entry.error;
    }
    rbxj_result_free(result);
}

void race_all_is_there(void)
{
    assert_true(path_exists(race->cgroup));
    if (race->persistent)
        assert_true(path_exists(race->lock) && path_exists(race->tmpdir));
    else
        assert_true(path_exists(race->second));
}

static void is_empty(const char *path, unsigned char type)
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));)
        if (d->d_name[0] != '.' && (!type || d->d_type == type))
            fail_msg("%s/%s is left", path, d->d_name);
}

void race_nothing_is_left(void)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    is_empty(race->work, 0);
    is_empty(race->group, DT_DIR);
    if (rbxj_list(&race->options, NULL, &result, &e) < 0)
        fail_msg("list: %s", e.message);
    assert_int_equal(rbxj_result_boxes(result), 0);
    rbxj_result_free(result);
}
