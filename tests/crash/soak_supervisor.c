/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"
#include "reaper/handle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP                                                                                              \
    200 /* boxes, before the one that lives throughout measures itself: LMDB keeps pages for the next time */

bool soak_fail(struct soak *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!atomic_exchange(&s->failed, true))
        (void)vsnprintf(s->failure, sizeof(s->failure), format, args);
    va_end(args);
    return false;
}

enum { LOCK, TMPDIR, GROUP, GROUP_V1, MOUNT, PARTS };

struct supervisor {
    struct soak *s;
    unsigned slot;
    uint64_t random;
    struct rbxj *handle;
    char name[16], paths[PARTS][PATH_MAX], inner[PATH_MAX]; /* inner: a mount's target in the tmpdir */
    int lock_fd;
    pid_t payload;
};

static uint64_t draw(struct supervisor *v, uint64_t n)
{
    return crash_random(&v->random) % n;
}

static void pause_ms(uint64_t ms)
{
    (void)poll(NULL, 0, (int)ms);
}

/* A whole result, for a failure's message: entry by entry. */
static void describe(const struct rbxj_result *result, char *text, size_t size)
{
    struct rbxj_result_entry entry;
    size_t len = 0;
    text[0] = 0;
    for (size_t k = 0; result && rbxj_result_entry(result, 0, k, &entry) == 0 && len < size; k++)
        len += (size_t)snprintf(text + len, size - len, "\n  seq %u %s: found %s, %s: %s (%s)", entry.seq,
                                entry.name, entry.found, entry.outcome,
                                entry.error ? entry.error->message : "",
                                entry.error ? entry.error->detail : "");
}

static bool failed(struct supervisor *v, const char *what, int r, const struct rbxj_error *e)
{
    return soak_fail(v->s, "%s, pid %d: %s: %d: %s (%s)", v->name, getpid(), what, r, e->message, e->detail);
}

/* ---- a stop inside of a gate, on demand ---- */

static bool stop_in_gate(struct supervisor *v)
{
    struct journal *j = v->handle->journal;
    int wish = atomic_exchange(&v->s->slot[v->slot].wish, WISH_NONE);
    struct gate *gate = wish == WISH_STOP_IN_GATE ? &j->gates->boot : &j->gates->disk;
    struct rbxj_error e = {0};
    if (wish == WISH_NONE)
        return true;
    int r = gate_lock(gate, "soak", j->options.gate_timeout_ns, &e);
    if (r < 0)
        return failed(v, "gate", r, &e);
    (void)raise(SIGSTOP);
    if (wish == WISH_STOP_IN_GATE)
        gate_unlock(gate);
    else
        gate_pass(gate);
    return true;
}

/* ---- a box ---- */

static struct rbxj_resource resource(struct supervisor *v, int part)
{
    static const enum rbxj_kind kinds[] = {RBXJ_LOCK, RBXJ_TMPDIR, RBXJ_CGROUP, RBXJ_CGROUP, RBXJ_MOUNT};
    struct rbxj_resource r = {.kind = kinds[part], .path = v->paths[part]};
    if (part == MOUNT) {
        r.fstype = "tmpfs";
        r.source = "rbxj-soak";
        r.options = "size=64k";
    }
    return r;
}

/* What a dead one of this slot left is there until the reaper has been: the box can't begin. */
static bool begin(struct supervisor *v, const struct rbxj_resource *plan, size_t n, struct soak_box *box)
{
    struct rbxj_box b = {.name = v->name, .plan = plan, .plan_len = n};
    struct rbxj_error e = {0};
    uint64_t incarnation;
    for (;;) {
        atomic_store(&box->state, SOAK_BEGINNING);
        int r = rbxj_begin(v->handle, &b, &incarnation, &e);
        if (r == 0) {
            box->incarnation = incarnation;
            atomic_store(&box->state, SOAK_BEGUN);
            return true;
        }
        atomic_store(&box->state, SOAK_REFUSED);
        if (r != -RBXJ_E_BOX_STALE)
            return failed(v, "begin", r, &e);
        atomic_fetch_add(&v->s->stale, 1);
        if (atomic_load(&v->s->stop))
            return false;
        pause_ms(5 + draw(v, 20));
    }
}

/* A few files, and the target of a mount in it. */
static bool fill(struct supervisor *v)
{
    char path[PATH_MAX + 32];
    if (mkdir(v->inner, 0700) < 0)
        return soak_fail(v->s, "%s: %s", v->inner, strerror(errno));
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s/file%u", v->paths[TMPDIR], i);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return soak_fail(v->s, "%s: %s", path, strerror(errno));
    }
    return true;
}

static bool acquire(struct supervisor *v, const struct rbxj_resource *plan, size_t n, bool planned)
{
    struct rbxj_error e = {0};
    for (size_t i = 0; i < n; i++) {
        bool is_lock = plan[i].kind == RBXJ_LOCK;
        int fd = -1;
        uint32_t seq = (uint32_t)i + 1;
        int r = planned ? rbxj_acquire(v->handle, v->name, seq, plan[i].options, &fd, &e)
                        : rbxj_take(v->handle, v->name, &plan[i], &seq, &fd, &e);
        if (r < 0)
            return failed(v, planned ? "acquire" : "take", r, &e);
        if (is_lock)
            v->lock_fd = fd;
        if (plan[i].kind == RBXJ_TMPDIR && !fill(v))
            return false;
    }
    return true;
}

/* A payload, which may have the lock's descriptor (K7), and a mount namespace of its own, with a copy of all
 * mounts (K12). */
static bool spawn(struct supervisor *v, const uint32_t *groups, size_t n)
{
    static const char *const plain[] = {"sleep", "1000", NULL};
    static const char *const apart[] = {"unshare", "--mount", "sleep", "1000", NULL};
    struct rbxj_spawn how = {.argv = draw(v, 2) ? plain : apart,
                             .cgroups = groups,
                             .cgroups_len = n,
                             .fds = &v->lock_fd,
                             .fds_len = v->lock_fd >= 0 && draw(v, 2)};
    struct rbxj_error e = {0};
    int r = rbxj_spawn(v->handle, v->name, &how, &v->payload, NULL, NULL, &e);
    return r < 0 ? failed(v, "spawn", r, &e) : true;
}

/* The teardown of a living supervisor has one reason to leave something: the payload of another box has a
 * mount namespace of its own, with a copy of our mount in it (K12). What is older waits for that. */
static bool is_copied(const struct rbxj_result *result)
{
    struct rbxj_result_entry entry;
    bool copied = false;
    for (size_t k = 0; result && rbxj_result_entry(result, 0, k, &entry) == 0; k++) {
        bool failed_ = strcmp(entry.outcome, "failed") == 0;
        if (failed_ && (!entry.error || !strstr(entry.error->message, SOAK_COPY)))
            return false;
        copied = copied || failed_;
    }
    return copied;
}

static bool undo(struct supervisor *v)
{
    int64_t limit = now_monotonic_ns() + 60000000000;
    struct rbxj_error e = {0};
    char entries[3000] = "";
    int r = -RBXJ_E_LEFT;
    bool again = true;
    for (int i = 0; r == -RBXJ_E_LEFT && again; i++) {
        struct rbxj_result *result = NULL;
        if (i > 0)
            pause_ms(20);
        r = rbxj_undo(v->handle, v->name, &result, &e);
        describe(result, entries, sizeof(entries));
        again = is_copied(result) && now_monotonic_ns() < limit;
        rbxj_result_free(result);
        if (r == -RBXJ_E_LEFT && again)
            atomic_fetch_add(&v->s->copied, 1);
    }
    if (v->payload > 0)
        (void)waitpid(v->payload, NULL, r < 0 ? WNOHANG : 0);
    v->payload = 0;
    cleanup_closep(&v->lock_fd);
    v->lock_fd = -1;
    return r == 0 ? true
                  : soak_fail(v->s, "%s, pid %d: undo: %d: %s%s", v->name, getpid(), r, e.message, entries);
}

static bool end(struct supervisor *v, struct soak_box *box)
{
    struct rbxj_error e = {0};
    atomic_store(&box->state, SOAK_ENDING);
    int r = rbxj_end(v->handle, v->name, &e);
    if (r < 0)
        return failed(v, "end", r, &e);
    atomic_store(&box->state, SOAK_ENDED);
    return true;
}

/* Of the parts some, in this order; a mount may lie in the tmpdir. */
static size_t make_plan(struct supervisor *v, struct rbxj_resource plan[PARTS])
{
    uint64_t parts = draw(v, 1 << PARTS);
    size_t n = 0;
    for (int part = 0; part < PARTS; part++) {
        if (!(parts & 1u << part) || (part == GROUP_V1 && !v->s->group_v1))
            continue;
        plan[n] = resource(v, part);
        if (part == MOUNT && parts & 1u << TMPDIR && draw(v, 2))
            plan[n].path = v->inner;
        n++;
    }
    return n;
}

static bool use(struct supervisor *v, const struct rbxj_resource *plan, size_t n, bool planned)
{
    uint32_t groups[2];
    size_t groups_len = 0;
    /* of a plan some are never acquired */
    size_t acquired = draw(v, 4) == 0 ? draw(v, n + 1) : n;
    if (!acquire(v, plan, acquired, planned) || !stop_in_gate(v))
        return false;
    for (size_t i = 0; i < acquired; i++)
        if (plan[i].kind == RBXJ_CGROUP)
            groups[groups_len++] = (uint32_t)i + 1;
    if (draw(v, 4) == 0 && !spawn(v, groups, groups_len))
        return false;
    if (draw(v, 4) == 0)
        pause_ms(draw(v, 20));
    return true;
}

static bool one_box(struct supervisor *v)
{
    struct rbxj_resource plan[PARTS];
    uint32_t index = atomic_fetch_add(&v->s->next, 1);
    if (index >= SOAK_BOXES)
        return soak_fail(v->s, "more boxes than there is room for");
    struct soak_box *box = &v->s->box[index];
    box->slot = v->slot;
    size_t n = make_plan(v, plan);
    bool planned = draw(v, 3) > 0;
    return begin(v, plan, planned ? n : 0, box) && use(v, plan, n, planned) && undo(v) && end(v, box);
}

static bool enter(struct supervisor *v, struct soak *s, unsigned slot, uint64_t random)
{
    struct rbxj_error e = {0};
    *v = (struct supervisor){.s = s, .slot = slot, .random = random, .lock_fd = -1};
    (void)snprintf(v->name, sizeof(v->name), "s%02u", slot);
    (void)snprintf(v->paths[LOCK], PATH_MAX, "%s/%s.lock", s->work, v->name);
    (void)snprintf(v->paths[TMPDIR], PATH_MAX, "%s/%s.tmp", s->work, v->name);
    (void)snprintf(v->paths[GROUP], PATH_MAX, "%s/%s", s->group, v->name);
    (void)snprintf(v->inner, PATH_MAX, "%s/inner", v->paths[TMPDIR]);
    (void)snprintf(v->paths[GROUP_V1], PATH_MAX, "%s/%s", s->group_v1 ? s->group_v1 : "", v->name);
    (void)snprintf(v->paths[MOUNT], PATH_MAX, "%s/%s.mnt", s->work, v->name);
    int64_t began = now_monotonic_ns();
    int r = rbxj_open(&s->options, &v->handle, &e);
    uint64_t ms = (uint64_t)(now_monotonic_ns() - began) / 1000000;
    for (uint64_t slowest = atomic_load(&s->slowest_open_ms);
         ms > slowest && !atomic_compare_exchange_weak(&s->slowest_open_ms, &slowest, ms);)
        ;
    atomic_fetch_add(&s->opens, 1);
    return r < 0 ? failed(v, "open", r, &e) : true;
}

void soak_supervisor(struct soak *s, unsigned slot, unsigned boxes, uint64_t random)
{
    static struct supervisor v;
    if (!enter(&v, s, slot, random))
        return;
    for (unsigned i = 0; i < boxes && !atomic_load(&s->stop) && !atomic_load(&s->failed); i++)
        if (!one_box(&v))
            break;
    rbxj_close(v.handle);
}

/* ---- the one that lives throughout ---- */

static struct soak_size measure(void)
{
    struct soak_size size = {0};
    char text[4096] = "";
    /* what the allocator keeps is as much as the largest reading of the journal took, and no growth */
    (void)malloc_trim(0);
    _cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        size.descriptors++;
    size.heap = mallinfo2().uordblks + mallinfo2().hblkhd;
    (void)fd_read_file(AT_FDCWD, "/proc/self/status", text, sizeof(text));
    const char *line = strstr(text, "RssAnon:");
    size.anonymous = line ? strtoull(line + strlen("RssAnon:"), NULL, 10) * 1024 : 0;
    return size;
}

void soak_long_lived(struct soak *s, unsigned slot, uint64_t random)
{
    static struct supervisor v;
    if (!enter(&v, s, slot, random))
        return;
    uint32_t n = 0;
    for (; !atomic_load(&s->stop) && !atomic_load(&s->failed); n++) {
        if (!one_box(&v))
            break;
        if (n == WARM_UP)
            s->first = measure();
    }
    s->last = measure();
    atomic_store(&s->lived, n);
    rbxj_close(v.handle);
}
