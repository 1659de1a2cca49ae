/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/monitor.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "journal/hint.h"
#include "journal/journal.h"
#include "reaper/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Descriptors that are left to the rest of the program. */
#define RESERVED_FDS 64

enum { DEAD = -1, UNSEEN = -2 }; /* in place of a pidfd */

struct supervisor {
    struct procid id;
    uint64_t incarnation;  /* of another namespace: of its box; else 0 */
    const struct box *box; /* while it is looked for: one of its boxes */
    int fd;
};

struct monitor {
    struct config config;
    struct procid self;
    struct hint hint;
    struct supervisor *supervisors; /* sorted */
    size_t len;
    struct pollfd *polls; /* the hint, others, one for each supervisor */
    struct monitor_box *dead;
};

int monitor_open(const struct rbxj_options *options, struct monitor **ret, struct rbxj_error *e)
{
    struct monitor *m = calloc(1, sizeof(*m));
    struct pollfd *polls = calloc(1 + MONITOR_OTHERS, sizeof(*polls));
    if (!m || !polls) {
        free(m);
        free(polls);
        return error_sys(e, ENOMEM, "watch");
    }
    m->polls = polls;
    m->hint.fd = -1;
    int r = config_load(options, &m->config, e);
    if (r == 0 && (r = procid_of(getpid(), &m->self)) < 0)
        r = error_sys(e, -r, "identity of this process");
    if (r == 0)
        r = hint_open(&m->hint, m->config.runtime_dir, e);
    if (r < 0)
        monitor_close(m);
    else
        *ret = m;
    return r;
}

static void close_all(struct supervisor *supervisors, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cleanup_closep(&supervisors[i].fd);
}

void monitor_leave(struct monitor *m)
{
    close_all(m->supervisors, m->len);
    m->len = 0;
    hint_close(&m->hint);
}

void monitor_close(struct monitor *m)
{
    if (!m)
        return;
    monitor_leave(m);
    free(m->supervisors);
    config_clear(&m->config);
    free(m->polls);
    free(m->dead);
    free(m);
}

/* ---- who there is ---- */

static struct supervisor supervisor_of(const struct monitor *m, const struct box *box)
{
    bool here = procid_comparable(&m->self, &box->supervisor);
    return (struct supervisor){
        .id = box->supervisor, .incarnation = here ? 0 : box->incarnation, .box = box, .fd = UNSEEN};
}

#define ORDER(a, b) (((a) > (b)) - ((a) < (b)))

static int compare_supervisors(const void *a, const void *b)
{
    const struct supervisor *x = a, *y = b;
    int order = ORDER(x->incarnation, y->incarnation);
    if (order == 0)
        order = ORDER(x->id.pid, y->id.pid);
    return order ? order : ORDER(x->id.start_time, y->id.start_time);
}

static struct supervisor *find(struct supervisor *supervisors, size_t n, const struct supervisor *key)
{
    return n ? bsearch(key, supervisors, n, sizeof(*key), compare_supervisors) : NULL;
}

/* Those of all boxes, each once; none is looked for yet. */
static size_t collect(const struct monitor *m, const struct snapshot *s, struct supervisor *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        ret[i] = supervisor_of(m, &s->boxes[i].box);
    qsort(ret, s->len, sizeof(*ret), compare_supervisors);
    for (size_t i = 0; i < s->len; i++)
        if (n == 0 || compare_supervisors(&ret[n - 1], &ret[i]) != 0)
            ret[n++] = ret[i];
    return n;
}

/* A pidfd, DEAD, or UNSEEN: then *ret_wanting may say why. */
static int open_supervisor(const struct monitor *m, const struct box *box, int *ret_wanting)
{
    struct rlimit limit;
    int fd = box_open_supervisor(m->config.state_dir, box);
    if (fd >= 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + RESERVED_FDS >= limit.rlim_cur) {
        (void)close(fd);
        fd = -EMFILE;
    }
    if (fd == -ESRCH)
        return DEAD;
    if (fd < 0 && fd != -EAGAIN)
        *ret_wanting = -fd;
    return fd < 0 ? UNSEEN : fd;
}

/* Takes over who was known, looks for who was not, and lets go of who has no box any more. */
static void take_up(struct monitor *m, struct supervisor *now, size_t n, struct monitor_view *view)
{
    for (size_t i = 0; i < n; i++) {
        struct supervisor *known = find(m->supervisors, m->len, &now[i]);
        if (known) {
            now[i].fd = known->fd;
            known->fd = DEAD; /* it is the new one's */
        }
        if (now[i].fd == UNSEEN)
            now[i].fd = open_supervisor(m, now[i].box, &view->wanting);
        now[i].box = NULL;
        view->supervisors += now[i].fd >= 0;
        view->unwatched += now[i].fd == UNSEEN;
    }
    close_all(m->supervisors, m->len);
    free(m->supervisors);
    m->supervisors = now;
    m->len = n;
}

/* The boxes of the dead, but for those in which a living one lives (K4). */
static size_t find_dead(const struct monitor *m, const struct snapshot *s, enum liveness *live,
                        struct monitor_box *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        struct supervisor key = supervisor_of(m, &s->boxes[i].box);
        int fd = find(m->supervisors, m->len, &key)->fd;
        live[i] = fd == DEAD ? LIVE_DEAD : fd == UNSEEN ? LIVE_UNKNOWN : LIVE_ALIVE;
    }
    count_outer_as_live(s, live);
    for (size_t i = 0; i < s->len; i++) {
        if (live[i] != LIVE_DEAD)
            continue;
        ret[n].incarnation = s->boxes[i].box.incarnation;
        (void)strcpy(ret[n++].name, s->boxes[i].box.name);
    }
    return n;
}

static int look(struct monitor *m, const struct snapshot *s, struct monitor_view *view, struct rbxj_error *e)
{
    _cleanup_free_ struct supervisor *now = calloc(s->len + 1, sizeof(*now));
    _cleanup_free_ enum liveness *live = calloc(s->len + 1, sizeof(*live));
    _cleanup_free_ struct monitor_box *dead = calloc(s->len + 1, sizeof(*dead));
    size_t most = s->len > m->len ? s->len : m->len;
    struct pollfd *polls = reallocarray(m->polls, 1 + MONITOR_OTHERS + most, sizeof(*polls));
    m->polls = polls ? polls : m->polls;
    if (!now || !live || !dead || !polls)
        return error_sys(e, ENOMEM, "watch");
    size_t n = collect(m, s, now);
    take_up(m, steal_ptr(now), n, view);
    view->dead_len = find_dead(m, s, live, dead);
    view->boxes = s->len;
    free(m->dead);
    view->dead = m->dead = steal_ptr(dead);
    return 0;
}

int monitor_look(struct monitor *m, struct monitor_view *ret, struct rbxj_error *e)
{
    struct monitor_view view = {0};
    struct snapshot s = {0};
    (void)hint_read(&m->hint);
    int armed = hint_arm(&m->hint);
    int r = snapshot_read_headers(m->config.state_dir, m->config.runtime_dir, &s, e);
    if (r == 0)
        r = look(m, &s, &view, e);
    snapshot_clear(&s);
    if (r < 0)
        return r;
    if (armed < 0) {
        view.wanting = -armed;
        view.unwatched++;
    }
    *ret = view;
    return 0;
}

/* ---- waiting ---- */

/* The pidfds alone: poll(2) takes no more entries than there may be descriptors. How many. */
static size_t fill_pidfds(const struct monitor *m, struct pollfd *polls)
{
    size_t n = 0;
    for (size_t i = 0; i < m->len; i++)
        if (m->supervisors[i].fd >= 0)
            polls[n++] = (struct pollfd){.fd = m->supervisors[i].fd, .events = POLLIN};
    return n;
}

/* In the same order. Who is dead stays so, and is not asked for again. */
static bool note_deaths(struct monitor *m, const struct pollfd *polls)
{
    bool any = false;
    for (size_t i = 0, n = 0; i < m->len; i++) {
        if (m->supervisors[i].fd < 0 || !polls[n++].revents)
            continue;
        (void)close(m->supervisors[i].fd);
        m->supervisors[i].fd = DEAD;
        any = true;
    }
    return any;
}

int monitor_wait(struct monitor *m, struct pollfd *others, size_t n, int milliseconds)
{
    m->polls[0] = (struct pollfd){.fd = m->hint.fd, .events = POLLIN};
    for (size_t i = 0; i < n; i++)
        m->polls[1 + i] = others[i];
    size_t pidfds = fill_pidfds(m, m->polls + 1 + n);
    if (poll(m->polls, 1 + n + pidfds, milliseconds) < 0)
        return errno == EINTR ? 0 : -errno;
    for (size_t i = 0; i < n; i++)
        others[i] = m->polls[1 + i];
    int events = m->polls[0].revents && hint_read(&m->hint) ? MONITOR_COMMIT : 0;
    return note_deaths(m, m->polls + 1 + n) ? events | MONITOR_DEATH : events;
}
