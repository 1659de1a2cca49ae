/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The full reset of a worker: no new boxes, the supervisors of the live ones killed (K29), everything undone
 * by the replay that always does it (I8), and what can't be blamed on anybody released. Killed half-way it
 * leaves the worker quarantined, and is run again.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/audit.h"
#include "reaper/entry.h"
#include "reaper/events.h"
#include "reaper/evidence.h"
#include "reaper/flocks.h"
#include "reaper/handle.h"
#include "reaper/quarantine.h"

#include <string.h>
#include <syslog.h>
#include <time.h>

#define ROUNDS 5 /* whoever was let through in the instant of the quarantine is met in the next one */

struct reset {
    const struct config *config;
    struct undo guard;               /* ourselves and those above us are spared */
    int64_t timeout_ns, deadline_ns; /* for the deaths; then as long again for another reaper */
    uint32_t killed;
    struct rbxj_error *e;
};

/* Through a pidfd of which the start time was checked: 1 killed and gone, 0 it was gone, or a negative
 * code. */
static int kill_process(struct reset *reset, const struct procid *id, const char *what, const char *box)
{
    struct finding f = {0};
    _cleanup_close_ int pidfd = procid_open(id);
    if (pidfd == -ESRCH)
        return 0;
    if (pidfd < 0)
        return error_sys(reset->e, -pidfd, "box %s: %s, pid %d", box, what, id->pid);
    if (guard_kill(&reset->guard, id->pid, &f) < 0)
        return error_set(reset->e, RBXJ_E_BUSY, EBUSY, "box %s: %s, pid %d: %s", box, what, id->pid,
                         f.error.message);
    int r = pidfd_kill_wait(pidfd, reset->deadline_ns);
    if (r == -ESRCH)
        return 0;
    if (r < 0)
        return error_sys(reset->e, -r, "box %s: %s, pid %d, does not die", box, what, id->pid);
    reset->killed++;
    event_send(reset->config, &(struct event){.event = "process_killed", .priority = LOG_WARNING, .box = box},
               "box %s: %s, pid %d, was killed for a reset", box, what, id->pid);
    return 1;
}

/* ---- supervisors ---- */

/* Calls back for the supervisor of each live box until it returns a negative code; how many, or that code.
 * Whose life can't be judged from here is left. */
static int for_each_living(struct reset *reset, const struct snapshot *s,
                           int (*each)(struct reset *reset, const struct box *box))
{
    int n = 0;
    for (size_t i = 0; i < s->len; i++) {
        const struct box *box = &s->boxes[i].box;
        enum liveness live;
        int r = box_find_liveness(NULL, reset->config->state_dir, box, &live);
        if (r < 0)
            return error_sys(reset->e, -r, "box %s: is its supervisor, pid %d, alive", box->name,
                             box->supervisor.pid);
        if (live == LIVE_ALIVE && (r = each(reset, box)) < 0)
            return r;
        n += live == LIVE_ALIVE;
    }
    return n;
}

static int kill_supervisor(struct reset *reset, const struct box *box)
{
    return kill_process(reset, &box->supervisor, "its supervisor", box->name);
}

static int check_supervisor(struct reset *reset, const struct box *box)
{
    struct procid self;
    struct finding f = {0};
    int r = procid_of(getpid(), &self);
    if (r < 0)
        return error_sys(reset->e, -r, "reset");
    if (!procid_comparable(&self, &box->supervisor))
        return error_set(reset->e, RBXJ_E_BOX_LIVE, EBUSY,
                         "box %s: its supervisor is in another pid namespace; reset from there", box->name);
    if (guard_kill(&reset->guard, box->supervisor.pid, &f) < 0)
        return error_set(reset->e, RBXJ_E_BUSY, EBUSY, "box %s: its supervisor, %s", box->name,
                         f.error.message);
    return 0;
}

/* Clear *ret whatever it returns. */
static int read_boxes(const struct reset *reset, struct snapshot *ret)
{
    *ret = (struct snapshot){0};
    int r = snapshot_read(reset->config->state_dir, reset->config->runtime_dir, ret, reset->e);
    return r < 0 ? r : snapshot_check(ret, reset->e);
}

/* Before anything is changed: may all of them be killed? */
static int check_all(struct reset *reset)
{
    struct snapshot s;
    int r = read_boxes(reset, &s);
    if (r == 0)
        r = for_each_living(reset, &s, check_supervisor);
    snapshot_clear(&s);
    return r;
}

/* ---- who keeps a dead box's lock (K7) ---- */

struct holders {
    struct reset *reset;
    const struct box *box;
    uint64_t dev, ino;
    int result;
};

/* A reaper that is at the box has taken its flocks, and is waited for. It claims the box first: who has the
 * flock now is seen in a reading that begins now. 1 it is one, or the box has been undone since; 0, or a
 * negative code. */
static int is_reaper(const struct reset *reset, uint64_t incarnation, const struct procid *id)
{
    struct snapshot s;
    int r = snapshot_read(reset->config->state_dir, reset->config->runtime_dir, &s, reset->e);
    if (r < 0)
        return r;
    bool is = true;
    for (size_t i = 0; i < s.len; i++)
        if (s.boxes[i].box.incarnation == incarnation)
            is = procid_equal(&s.boxes[i].claimer, id);
    snapshot_clear(&s);
    return is;
}

static int kill_holder(void *data, pid_t pid)
{
    struct holders *h = data;
    struct procid id;
    int r = procid_of(pid, &id);
    int has = r < 0 ? r
                    : flocks_has(pid, h->dev, h->ino); /* that one, and none who was given its pid since */
    int reaper = has <= 0 ? has : is_reaper(h->reset, h->box->incarnation, &id);
    r = has <= 0 || reaper ? (reaper < 0 ? reaper : 0)
                           : kill_process(h->reset, &id, "the holder of its lock", h->box->name);
    h->result = r < 0 && r != -ESRCH && r != -ENOENT ? r : h->result;
    return 0;
}

/* Only of a lock that is proven to be this box's: whoever holds one that was adopted took it after that. */
static int kill_lock_holders(struct reset *reset, struct snapshot_box *sb)
{
    struct undo u = {.config = reset->config,
                     .box = &sb->box,
                     .records = sb->records,
                     .records_len = sb->len,
                     .dry_run = true};
    struct holders h = {.reset = reset, .box = &sb->box};
    uint8_t boot[16];
    bool blind = false;
    u.same_boot = procid_boot(boot) == 0 && memcmp(boot, sb->box.supervisor.boot_id, sizeof(boot)) == 0;
    if (box_is_adopted(&sb->box))
        return 0;
    for (size_t i = 0; i < sb->len && h.result == 0; i++) {
        const struct record *r = &sb->records[i];
        struct finding f = {0};
        struct stat st;
        if (r->kind != RBXJ_LOCK || !(r->flags & REC_EVIDENCE) || kind_lock.look(&u, r, &f) < 0 ||
            f.found != FOUND_PRESENT || lstat(r->path, &st) < 0 || st.st_ino != r->id.ino)
            continue;
        h.dev = st.st_dev;
        h.ino = st.st_ino;
        if (flocks_is_held(st.st_dev, st.st_ino) > 0)
            (void)flocks_holders(st.st_dev, st.st_ino, kill_holder, &h, &blind);
    }
    mounts_free(u.mounts);
    return h.result;
}

/* Only of the boxes that are known to be dead: who holds the lock of one of which that is not known, or in
 * which such a one lives, may be its supervisor (I3). */
static int kill_all_holders(struct reset *reset, struct snapshot *s)
{
    _cleanup_free_ enum liveness *live = NULL;
    int r = classify(NULL, reset->config, s, &live, reset->e);
    for (size_t i = 0; i < s->len && r == 0; i++)
        r = live[i] == LIVE_DEAD ? kill_lock_holders(reset, &s->boxes[i]) : 0;
    return r;
}

/* Until none is live, and nobody keeps the lock of a dead one. */
static int kill_all(struct reset *reset)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct snapshot s;
        int n = read_boxes(reset, &s);
        if (n == 0)
            n = for_each_living(reset, &s, kill_supervisor);
        if (n == 0)
            n = kill_all_holders(reset, &s);
        snapshot_clear(&s);
        if (n <= 0)
            return n;
    }
    return error_set(reset->e, RBXJ_E_BUSY, EBUSY, "reset: boxes go on beginning");
}

/* ---- the whole ---- */

/* What a person has set for another reason stays. */
static int enter(const struct config *config, bool *ret_stays, struct rbxj_error *e)
{
    struct quarantine q = {0};
    int r = quarantine_read(config, &q);
    if (r < 0)
        return error_sys(e, -r, "reset: is the worker quarantined");
    *ret_stays = r > 0 && (q.reason == QUARANTINE_MANUAL || q.reason == QUARANTINE_CORRUPTION) &&
                 strcmp(q.detail, QUARANTINE_RESET_DETAIL) != 0;
    if (*ret_stays)
        return 0;
    r = aftermath_quarantine(config, NULL, QUARANTINE_MANUAL, NULL, QUARANTINE_RESET_DETAIL, e);
    if (r != -RBXJ_E_DISK_FULL || quarantine_read(config, &q) <= 0)
        return r;
    error_clear(e); /* the flag keeps new boxes out until the next boot, and what is undone makes room */
    return 0;
}

/* A watch has seen these deaths, too, and is at it: what it undoes is undone. Waited for as long as one box
 * may take. */
static int replay_after_others(const struct reset *reset, const struct rbxj_replay *how, bool stays,
                               struct rbxj_result **ret_result, struct rbxj_health *ret_health)
{
    int64_t deadline = now_monotonic_ns() + reset->timeout_ns;
    for (;;) {
        _cleanup_(evidence_clear) struct evidence ev = {0};
        int r = health_recover(reset->config, how, "reset",
                               stays ? QUARANTINE_BY_RECOVERY : QUARANTINE_BY_RESET, ret_result, ret_health,
                               &ev, reset->e);
        if (r != -RBXJ_E_BUSY || now_monotonic_ns() >= deadline)
            return r;
        error_clear(reset->e);
        if (ret_result) {
            rbxj_result_free(*ret_result);
            *ret_result = NULL;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

int rbxj_reset(const struct rbxj_options *options, const struct rbxj_replay *how, uint32_t *ret_killed,
               struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    *ret_killed = 0;
    static const struct rbxj_replay all;
    _cleanup_(config_clear) struct config config = {0};
    struct rbxj_error own = {0};
    bool stays = false;
    how = how ? how : &all;
    int r = how->boxes || how->dry_run || how->plan
                ? error_set(error, RBXJ_E_BAD_REQUEST, 0, "reset: it is of all boxes, and no dry run")
                : replay_check_how(how, error);
    if (r == 0)
        r = config_load(options, &config, error);
    if (r < 0)
        return r;
    struct reset reset = {.config = &config,
                          .guard = {.config = &config},
                          .timeout_ns = how->timeout > 0 ? (int64_t)(how->timeout * 1e9) : config.timeout_ns,
                          .e = error ? error : &own};
    reset.deadline_ns = now_monotonic_ns() + reset.timeout_ns;
    r = check_all(&reset);
    if (r >= 0)
        r = enter(&config, &stays, reset.e);
    if (r >= 0)
        r = kill_all(&reset);
    *ret_killed = reset.killed;
    if (r < 0)
        replay_quarantine_damaged(&config, reset.e);
    return r < 0 ? r : replay_after_others(&reset, how, stays, ret_result, ret_health);
}
