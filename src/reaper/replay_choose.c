/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which boxes a replay handles: those whose supervisor is dead. They are claimed before what they hold is
 * read.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/handle.h"
#include "reaper/replay_passes.h"

#include <stdlib.h>
#include <string.h>

static size_t index_of(const struct snapshot *s, uint64_t incarnation)
{
    size_t i = 0;
    while (i < s->len && s->boxes[i].box.incarnation != incarnation)
        i++;
    return i;
}

void count_outer_as_live(const struct snapshot *s, enum liveness *live)
{
    for (size_t i = 0; i < s->len; i++) {
        size_t outer = live[i] != LIVE_DEAD && s->boxes[i].box.parent ? index_of(s, s->boxes[i].box.parent)
                                                                      : s->len;
        for (size_t depth = 0; outer < s->len && depth < s->len; depth++) {
            if (live[outer] == LIVE_DEAD)
                live[outer] = LIVE_ALIVE;
            outer = s->boxes[outer].box.parent ? index_of(s, s->boxes[outer].box.parent) : s->len;
        }
    }
}

int classify(struct journal *j, const struct config *config, const struct snapshot *s, enum liveness **ret,
             struct rbxj_error *e)
{
    _cleanup_free_ enum liveness *live = calloc(s->len + 1, sizeof(*live));
    if (!live)
        return error_sys(e, ENOMEM, "boxes");
    struct procid self;
    int r = j || !s->len ? 0 : journal_find_self(&self, e); /* else each box would be asked, in vain */
    for (size_t i = 0; i < s->len && r == 0; i++) {
        r = box_find_liveness(j, config->state_dir, &s->boxes[i].box, &live[i]);
        if (r < 0)
            return error_sys(e, -r, "box %s: is its supervisor alive", s->boxes[i].box.name);
    }
    if (r < 0)
        return r;
    count_outer_as_live(s, live);
    *ret = steal_ptr(live);
    return 0;
}

static int compare_incarnations(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The incarnations of the dead, sorted; NULL: no memory. */
static uint64_t *dead_of(const struct snapshot *s, const enum liveness *live, size_t *ret_len)
{
    uint64_t *dead = calloc(s->len + 1, sizeof(*dead));
    size_t n = 0;
    for (size_t i = 0; dead && i < s->len; i++)
        if (live[i] == LIVE_DEAD)
            dead[n++] = s->boxes[i].box.incarnation;
    if (n)
        qsort(dead, n, sizeof(*dead), compare_incarnations);
    *ret_len = n;
    return dead;
}

static int read_and_classify(const struct config *config, struct snapshot *s, enum liveness **ret,
                             struct rbxj_error *e)
{
    int r = snapshot_read(config->state_dir, config->runtime_dir, s, e);
    return r < 0 || s->damaged ? r : classify(NULL, config, s, ret, e);
}

int read_and_judge(const struct config *config, struct snapshot *s, enum liveness **ret, struct rbxj_error *e)
{
    _cleanup_free_ enum liveness *first = NULL;
    _cleanup_free_ enum liveness *live = NULL;
    size_t n;
    int r = read_and_classify(config, s, &first, e);
    if (r < 0 || s->damaged)
        return r;
    _cleanup_free_ uint64_t *dead = dead_of(s, first, &n);
    if (!dead)
        return error_sys(e, ENOMEM, "boxes");
    if (!n) {
        *ret = steal_ptr(first);
        return 0;
    }
    snapshot_clear(s);
    *s = (struct snapshot){0};
    r = read_and_classify(config, s, &live, e);
    if (r < 0 || s->damaged)
        return r;
    for (size_t i = 0; i < s->len; i++)
        if (live[i] == LIVE_DEAD &&
            !bsearch(&s->boxes[i].box.incarnation, dead, n, sizeof(*dead), compare_incarnations))
            live[i] = LIVE_ALIVE;
    count_outer_as_live(s, live);
    *ret = steal_ptr(live);
    return 0;
}

static bool is_named(const struct rbxj_replay *how, const char *name)
{
    for (size_t i = 0; i < how->boxes_len; i++)
        if (strcmp(how->boxes[i], name) == 0)
            return true;
    return false;
}

static int compare_attempts(const void *a, const void *b)
{
    uint32_t x = ((const struct teardown *)a)->sb->attempts, y = ((const struct teardown *)b)->sb->attempts;
    return (x > y) - (x < y);
}

int replay_check(const struct snapshot *s, struct rbxj_error *e)
{
    if (!s->damaged)
        return 0;
    return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal: %zu records are damaged: nothing is undone",
                     s->damaged);
}

static bool is_stale(const struct replay *p, const struct snapshot_box *sb, enum liveness live)
{
    bool named = is_named(p->how, sb->box.name);
    return live == LIVE_DEAD || (live == LIVE_UNKNOWN && p->how->assume_dead && named);
}

static bool is_wanted(const struct replay *p, const struct snapshot_box *sb)
{
    return !p->how->boxes_len || is_named(p->how, sb->box.name);
}

static int compare_claims(const void *a, const void *b)
{
    uint64_t x = ((const struct claim *)a)->incarnation, y = ((const struct claim *)b)->incarnation;
    return (x > y) - (x < y);
}

static int collect_stale(struct replay *p, const struct snapshot *s, const enum liveness *live,
                         struct rbxj_error *e)
{
    p->claims = calloc(s->len + 1, sizeof(*p->claims));
    if (!p->claims)
        return error_sys(e, ENOMEM, "replay");
    for (size_t i = 0; i < s->len; i++)
        if (is_stale(p, &s->boxes[i], live[i]) && is_wanted(p, &s->boxes[i]))
            p->claims[p->claims_len++].incarnation = s->boxes[i].box.incarnation;
    qsort(p->claims, p->claims_len, sizeof(*p->claims), compare_claims);
    return 0;
}

/* Takes what is stale, and then reads again: a supervisor that was alive at the first reading may have
 * written more before it died, or ended its box; nobody writes to a claimed one. */
int replay_claim(struct replay *p, struct rbxj_error *e)
{
    struct journal *j = p->reaper.journal;
    _cleanup_free_ enum liveness *live = NULL;
    int r = journal_snapshot(j, &p->snapshot, e);
    if (r == 0)
        r = replay_check(&p->snapshot, e);
    if (r == 0)
        r = classify(j, p->reaper.config, &p->snapshot, &live, e);
    if (r == 0)
        r = collect_stale(p, &p->snapshot, live, e);
    if (r < 0 || !p->claims_len)
        return r;
    r = journal_claim_all(j, p->claims, p->claims_len, &p->busy);
    if (r == -RBXJ_E_JOURNAL_BUSY) /* what is there is told all the same, and left */
        return 0;
    if (r < 0) {
        p->claims_len = 0;
        return error_set(e, p->busy.code, p->busy.errnum, "%s", p->busy.message);
    }
    snapshot_clear(&p->snapshot);
    p->snapshot = (struct snapshot){0};
    r = journal_snapshot(j, &p->snapshot, e);
    return r == 0 ? replay_check(&p->snapshot, e) : r;
}

int replay_foretell(struct replay *p, struct rbxj_error *e)
{
    _cleanup_free_ enum liveness *live = NULL;
    int r = read_and_judge(p->reaper.config, &p->snapshot, &live, e);
    if (r == 0)
        r = replay_check(&p->snapshot, e);
    return r < 0 || !live ? r : collect_stale(p, &p->snapshot, live, e);
}

/* What the claim of that box came to; NULL: it was not stale when it was asked. */
static const struct claim *claim_of(const struct replay *p, uint64_t incarnation)
{
    struct claim key = {.incarnation = incarnation};
    return p->claims_len ? bsearch(&key, p->claims, p->claims_len, sizeof(key), compare_claims) : NULL;
}

static int add_box(struct replay *p, struct snapshot_box *sb, const struct claim *claim)
{
    struct teardown *t = &p->boxes[p->len];
    int r = teardown_init(t, &p->reaper, sb, false);
    if (r < 0)
        return r;
    p->len++;
    t->claimed = claim && claim->result == 0 && !p->busy.code;
    if (!claim || t->claimed)
        return 0;
    if (p->busy.code)
        t->error = p->busy;
    else
        (void)error_set(&t->error, RBXJ_E_BUSY, EBUSY, "box %s is being torn down by pid %d", sb->box.name,
                        claim->claimer.pid);
    teardown_leave_alone(t);
    return 0;
}

/* Newest first, as a nested box is younger than the one it lives in; those that did not come to their end the
 * last time go last (K34). */
int replay_choose(struct replay *p, struct rbxj_error *e)
{
    struct snapshot *s = &p->snapshot;
    _cleanup_free_ enum liveness *live = NULL;
    int r = classify(p->reaper.journal, p->reaper.config, s, &live, e);
    if (r < 0)
        return r;
    p->boxes = calloc(s->len + 1, sizeof(*p->boxes));
    p->causes = calloc(s->len + 1, sizeof(*p->causes));
    if (!p->boxes || !p->causes)
        return error_sys(e, ENOMEM, "replay");
    for (int poison = 0; poison < 2; poison++) {
        for (size_t i = s->len; i-- > 0;) {
            struct snapshot_box *sb = &s->boxes[i];
            bool stale = is_stale(p, sb, live[i]), wanted = is_wanted(p, sb);
            const struct claim *claim = stale && wanted ? claim_of(p, sb->box.incarnation) : NULL;
            if (stale && wanted && !claim)
                stale = false; /* it died since: the next replay's */
            if (!poison && !stale)
                p->live++;
            if (!stale || !wanted || (sb->attempts > 0) != poison)
                continue;
            r = add_box(p, sb, p->reaper.journal ? claim : NULL);
            if (r < 0)
                return error_sys(e, -r, "replay");
        }
        p->sound = poison ? p->sound : p->len;
    }
    if (p->len > p->sound)
        qsort(p->boxes + p->sound, p->len - p->sound, sizeof(*p->boxes), compare_attempts);
    return 0;
}
