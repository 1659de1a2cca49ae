/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/keepers.h"

#include "base/fd.h"
#include "base/procid.h"
#include "base/proctext.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void keepers_add(struct keepers *keepers, pid_t pid)
{
    struct procid id;
    for (size_t i = 0; i < keepers->len; i++)
        if (keepers->at[i].pid == pid)
            return;
    if (keepers->len == KEEPERS_MAX || pid <= 0)
        return;
    keepers->at[keepers->len++] = (struct keeper){.pid = pid,
                                                  .start_time = procid_of(pid, &id) == 0 ? id.start_time : 0};
}

/* CLOCK_REALTIME, or 0. */
static int64_t started_ns(uint64_t ticks)
{
    struct timespec boot;
    long hz = sysconf(_SC_CLK_TCK);
    if (hz <= 0 || clock_gettime(CLOCK_BOOTTIME, &boot) < 0)
        return 0;
    int64_t since_ns = (int64_t)boot.tv_sec * 1000000000 + boot.tv_nsec;
    return now_realtime_ns() - since_ns + (int64_t)(ticks / (uint64_t)hz) * 1000000000;
}

static bool read_of(pid_t pid, const char *file, char *buf, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    return fd_read_file(AT_FDCWD, path, buf, size) >= 0;
}

static void tell(struct doc *doc, cJSON *object, const struct keeper *keeper)
{
    char stat[1024], comm[64], text[8192], cgroup[PATH_MAX], state[2] = "";
    struct proc_stat now;
    bool same = read_of(keeper->pid, "stat", stat, sizeof(stat)) && proctext_stat(stat, &now) == 0 &&
                now.start_time == keeper->start_time;
    bool named = same && read_of(keeper->pid, "comm", comm, sizeof(comm));
    bool placed = same && read_of(keeper->pid, "cgroup", text, sizeof(text)) &&
                  proctext_cgroup(text, cgroup, sizeof(cgroup));
    if (same)
        state[0] = now.state;
    if (named)
        comm[strcspn(comm, "\n")] = 0;
    doc_number(doc, object, "pid", keeper->pid);
    (void)doc_text(doc, object, "comm", named ? comm : NULL);
    (void)doc_text(doc, object, "state", same ? state : NULL);
    doc_time(doc, object, "started", same ? started_ns(keeper->start_time) : 0);
    (void)doc_text(doc, object, "cgroup", placed ? cgroup : NULL);
}

void keepers_tell(struct doc *doc, cJSON *entry, const struct keepers *keepers)
{
    cJSON *list = keepers->len ? doc_array(doc, entry, "held_by") : NULL;
    for (size_t i = 0; i < keepers->len; i++)
        tell(doc, doc_object(doc, list, NULL), &keepers->at[i]);
}
