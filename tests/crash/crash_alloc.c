/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Every allocation fails once: of a supervisor's life, of a replay, and of all that looks. What is held then:
 *
 *  - it never crashes, and frees what it allocated;
 *  - a call that fails says that memory is short, and nothing else: neither damage nor a refusal nor "gone";
 *  - one that succeeds has done all of it;
 *  - a bystander's box and what nobody journaled stay whole, and the journal has what exists: the supervisor
 *    that dies there is undone by a replay, the one that goes on does the same call again, and ends its box.
 *
 * Each allocation has a life or a call of its own, and it alone fails; or, where memory stays short, it and
 * all that follow until the call has returned. A point is four of them, in one world.
 */
#include "alloc_hook.h"
#include "alloc_judge.h"
#include "alloc_life.h"
#include "alloc_reap.h"

enum { ONCE, SHORT = 1, GOES_ON = 2, BY_HOOK = 4 };
enum { BLOCK = 4, VARIANTS_MAX = 8 };

/* What is done: a life, or a call. */
struct variant {
    const char *name;
    bool (*once)(
        bool first); /* with one allocation failing, in a world; first: of its block. Was there such a one? */
    unsigned int how;      /* of a life */
    void (*prepare)(void); /* of a call */
    void (*call)(struct got *got);
    void (*judge)(const struct got *got, const char *expected, const char *before);
};

static const struct variant *variant_now;

/* ---- a supervisor's life ---- */

static void life_fails(const struct life *l, const char *step, int r, const struct rbxj_error *e,
                       const char *what)
{
    tell_failure(step, r, e, l->result);
    (void)snprintf(told->error, sizeof(told->error), "%s: %s", step, what);
    _exit(1);
}

/* Does the step, and once more if it failed for want of memory. False: the life ends here. */
static bool life_do(struct life *l, const struct life_step *step)
{
    struct rbxj_error e = {0};
    bool excused = !shim_failed();
    shim_rearm();
    int r = step->run(l, step->i, &e);
    shim_disarm();
    if (shim_failed())
        shim_stop_failing();
    if (r == 0)
        return true;
    bool said = says_no_memory(r, &e) || (r == -RBXJ_E_LEFT && result_says_no_memory(l->result));
    if (!shim_failed() || !excused || !said)
        life_fails(l, step->name, r, &e, "it failed, but not for want of memory");
    if (!(variant_now->how & GOES_ON))
        return false;
    shim_rearm();
    e = (struct rbxj_error){0};
    r = (step->again ? step->again : step->run)(l, step->i, &e);
    shim_disarm();
    if (r < 0)
        life_fails(l, step->name, r, &e, "there is memory, but it failed again");
    return true;
}

static void life_close(struct life *l, size_t fds)
{
    shim_rearm();
    rbxj_close(l->handle);
    rbxj_result_free(l->result);
    l->result = NULL;
    shim_disarm();
    cleanup_closep(&l->lock_fd);
    cleanup_closep(&l->taken_fd);
    cleanup_closep(&l->pidfd);
    if (shim_leaks(stdout, tolerated))
        life_fails(l, "close", 0, NULL, "memory is left");
    if (open_fds() != fds)
        life_fails(l, "close", 0, NULL, "a descriptor is left");
}

static void life_dies(void)
{
    shim_disarm();
    die();
}

static void life_go(const char *box, unsigned int parts)
{
    struct life l = {
        .parts = parts, .lock_fd = -1, .taken_fd = -1, .pidfd = -1, .is_short = variant_now->how & SHORT};
    const struct life_step *step = variant_now->how & BY_HOOK ? hook_steps : life_steps;
    size_t fds = open_fds();
    (void)box;
    if (variant_now->how & BY_HOOK)
        must(atexit(life_dies) == 0);
    shim_arm(allocation_now, l.is_short ? UINT64_MAX : 1);
    for (; step->name; step++) {
        if (!life_has_step(&l, step))
            continue;
        if (!life_do(&l, step))
            break;
        if (step->check)
            step->check(&l, step->i);
    }
    told->result = !step->name;
    if (told->result)
        life_close(&l, fds);
    life_dies();
}

static void make_target_once(const char *box)
{
    if (!path_exists(part_path(box, MOUNT)))
        make_target(box, possible(ALL));
}

/* An empty lock file may be left by a supervisor that died (K1). */
static void remove_empty_lock(void)
{
    struct stat st;
    const char *path = part_path(LIFE_BOX, LOCK);
    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        assert_int_equal(unlink(path), 0);
}

static bool life_once(bool first)
{
    static char *before;
    if (first) {
        make_target_once(LIFE_BOX);
        make_target_once(LIFE_TAKEN);
        before = machine();
    }
    told->payload = 0;
    told->result = 0;
    (void)supervisor_fork(life_go, LIFE_BOX, ALL);
    size_t stale = stale_boxes();
    assert_true(stale <= (told->result ? 0 : 1));
    replay_is_clean(stale);
    remove_empty_lock();
    is_as_before(before, "allocation %" PRIu64 ": after a supervisor's life", allocation_now);
    if (told->payload)
        payload_is_dead();
    crash_count("lives", 1);
    return shim_failed();
}

/* ---- without a handle ---- */

static void reap_fails(const struct got *got, const char *what)
{
    tell_failure(variant_now->name, got->r, &got->e, got->result);
    fail_msg("%s", what);
}

static bool said_no_memory(const struct got *got)
{
    return got->r < 0 ? says_no_memory(got->r, &got->e) : got->r == 1 && result_says_no_memory(got->result);
}

/* What it says is what it says with memory; or it says that there was none. */
static void judge_look(const struct got *got, const char *expected, const char *before)
{
    char *said = got_text(got);
    is_as_before(before, "after a look");
    if (got->r < 0 || result_says_no_memory(got->result) || strcmp(said, expected) == 0)
        return;
    tell_failure(variant_now->name, got->r, &got->e, got->result);
    fail_msg("it said:\n%s\nnot:\n%s", said, expected);
}

static void must_not_be_quarantined(void)
{
    struct rbxj_health health;
    assert_int_equal(rbxj_health(&world.options, &health, NULL), 0);
    if (health.quarantine_reason)
        fail_msg("the worker is quarantined: %s: %s", health.quarantine_reason, health.quarantine_detail);
}

static bool incidents_tell(const char *text)
{
    struct rbxj_incidents *incidents = NULL;
    bool found = false;
    assert_int_equal(rbxj_incidents(&world.options, NULL, 0, &incidents, NULL), 0);
    for (size_t i = 0; i < rbxj_incidents_len(incidents); i++)
        found = found || strstr(rbxj_incidents_json(incidents, i), text);
    rbxj_incidents_free(incidents);
    return found;
}

/* Undone, all of it, or a later replay does it; and what was done is told. */
static void judge_replay(const struct got *got, const char *expected, const char *before)
{
    (void)expected;
    if (got->r == 0)
        is_as_before(before, "after a replay that left nothing");
    must_not_be_quarantined();
    replay_is_clean(stale_boxes());
    is_as_before(before, "after the next replay");
    char *told_box = harness_format("\"box\":\"%s\"", box_now);
    if (!incidents_tell(told_box))
        reap_fails(got, "no incident tells of the box");
    if (told->payload)
        payload_is_dead();
}

static size_t records_of(const char *box)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box b;
    assert_int_equal(rbxj_list(&world.options, box, &result, NULL), 0);
    size_t n = rbxj_result_box(result, 0, &b) == 0 ? b.entries : 0;
    rbxj_result_free(result);
    return n;
}

static void judge_forget(const struct got *got, const char *expected, const char *before)
{
    size_t all = (size_t)__builtin_popcount(possible(ALL)), now = records_of(box_now);
    struct got again = {0};
    (void)expected;
    is_as_before(before, "after forgetting");
    assert_true(now == all - 1 || (got->r < 0 && now == all));
    if (got->r < 0) {
        call_forget(&again);
        assert_int_equal(again.r, now == all ? 0 : -RBXJ_E_NO_SUCH_BOX);
    }
    assert_int_equal(records_of(box_now), all - 1);
    if (!incidents_tell(forget_reason))
        reap_fails(got, "no incident tells the reason");
}

static void quarantine_is(bool expected)
{
    struct rbxj_health health;
    assert_int_equal(rbxj_health(&world.options, &health, NULL), 0);
    assert_int_equal(health.quarantine_reason != NULL, expected);
    if (!expected)
        return;
    assert_string_equal(health.quarantine_reason, "manual_quarantine");
    assert_string_equal(health.quarantine_detail, "a reason to stop");
}

static void judge_quarantine(const struct got *got, const char *expected, const char *before)
{
    bool enters = variant_now->call == call_quarantine;
    struct got again = {0};
    (void)expected;
    is_as_before(before, "after a quarantine");
    if (got->r < 0) {
        variant_now->call(&again);
        assert_int_equal(again.r, 0);
    }
    quarantine_is(enters);
}

static void one_call(const char *expected, const char *before)
{
    static struct got got;
    size_t fds = open_fds();
    shim_arm(allocation_now, 1);
    variant_now->call(&got);
    shim_disarm();
    shim_stop_failing();
    if (got.r != 0 && !(expected && got.r == 1) && !(shim_failed() && said_no_memory(&got)))
        reap_fails(&got, "it failed, but not for want of memory");
    if (open_fds() != fds)
        reap_fails(&got, "a descriptor is left");
    variant_now->judge(&got, expected, before);
    got_clear(&got);
    if (shim_leaks(stdout, tolerated))
        reap_fails(&got, "memory is left");
    crash_count("calls", 1);
}

/* What only looks is called again and again in the same world; else there is another dead box each time. */
static bool call_once(bool first)
{
    static struct got got;
    static char *expected, *before;
    static unsigned int boxes;
    bool looks = variant_now->judge == judge_look;
    told->payload = 0; /* the bystander's is in the picture, by its cgroup */
    if (first || !looks) {
        (void)snprintf(box_now, sizeof(box_now), "a%u", boxes++);
        make_target_once(box_now);
        before = machine();
        variant_now->prepare();
        expected = NULL;
        if (variant_now->judge != judge_replay)
            before = machine();
    }
    if (first && looks) {
        variant_now->call(&got);
        assert_true(got.r >= 0);
        expected = got_text(&got);
        got_clear(&got);
    }
    one_call(expected, before);
    return shim_failed();
}

/* ---- points: blocks of the allocations of the first variant, then those of the second, ... ---- */

/* How many blocks each variant has, counted once; shared between the processes of the points. */
static struct blocks {
    uint64_t n[VARIANTS_MAX];
    bool counted;
} * blocks;

static struct blocks *blocks_of(const struct crash_case *c);

static uint64_t count_blocks(const struct crash_case *c)
{
    struct blocks *b = blocks_of(c);
    uint64_t sum = 0;
    world_start();
    allocation_now = UINT64_MAX;
    for (variant_now = c->data; variant_now->name; variant_now++) {
        uint64_t *n = &b->n[variant_now - (const struct variant *)c->data];
        (void)variant_now->once(true);
        *n = shim_count() / BLOCK + 1;
        sum += *n;
    }
    b->counted = true;
    return sum;
}

static void run_block(const struct crash_case *c, uint64_t point)
{
    const struct blocks *b = blocks_of(c);
    if (b->counted)
        world_start();
    else
        (void)count_blocks(c); /* this point alone was asked for */
    variant_now = c->data;
    for (const uint64_t *n = b->n; variant_now->name && point >= *n; n++, variant_now++)
        point -= *n;
    if (!variant_now->name)
        crash_past_the_end();
    printf("%s\n", variant_now->name);
    for (unsigned int k = 0; k < BLOCK; k++) {
        allocation_now = point * BLOCK + k;
        (void)variant_now->once(k == 0);
    }
}

/* ---- the program ---- */

#define LIFE(n, what)                                                                                        \
    {                                                                                                        \
        .name = (n), .once = life_once, .how = (what)                                                        \
    }
#define CALL(n, before, what, after)                                                                         \
    {                                                                                                        \
        .name = (n), .once = call_once, .prepare = (before), .call = (what), .judge = (after)                \
    }

static const struct variant lives[] = {
    LIFE("dies", ONCE),
    LIFE("goes on", GOES_ON),
    LIFE("dies, memory stays short", SHORT),
    LIFE("goes on, memory stays short", GOES_ON | SHORT),
    {0},
};

static const struct variant hooks[] = {
    LIFE("by hook, dies", BY_HOOK),
    LIFE("by hook, goes on", BY_HOOK | GOES_ON),
    {0},
};

static const struct variant replays[] = {
    CALL("replay after the evidence", dead_after_evidence, call_replay, judge_replay),
    CALL("replay without evidence", dead_after_acquisition, call_replay, judge_replay),
    CALL("replay of intents", dead_after_intent, call_replay, judge_replay),
    CALL("replay with a new boot journal", dead_without_boot_journal, call_replay, judge_replay),
    CALL("recover", dead_after_evidence, call_recover, judge_replay),
    CALL("replay with two threads", two_dead, call_replay, judge_replay),
    {0},
};

static const struct variant looks[] = {
    CALL("list", a_past_and_a_dead, call_list, judge_look),
    CALL("dry run", a_past_and_a_dead, call_dry_run, judge_look),
    CALL("health", a_past_and_a_dead, call_health, judge_look),
    CALL("verify clean", a_past_and_a_dead, call_clean, judge_look),
    CALL("incidents", a_past_and_a_dead, call_incidents, judge_look),
    CALL("health of a quarantined worker", quarantined, call_health, judge_look),
    CALL("metrics", quarantined, call_metrics, judge_look),
    {0},
};

static const struct variant changes[] = {
    CALL("forget", dead_to_forget, call_forget, judge_forget),
    CALL("quarantine", not_quarantined, call_quarantine, judge_quarantine),
    CALL("unquarantine", quarantined, call_unquarantine, judge_quarantine),
    CALL("configuration", no_environment, call_config, judge_look),
    {0},
};

#define CASE(n, variants)                                                                                    \
    {                                                                                                        \
        .name = (n), .run = run_block, .points = count_blocks, .timeout = 300, .data = (variants)            \
    }

static const struct crash_case cases[] = {
    CASE("life", lives), CASE("hook", hooks),     CASE("replay", replays),
    CASE("look", looks), CASE("change", changes),
};

static struct blocks *blocks_of(const struct crash_case *c)
{
    return &blocks[c - cases];
}

int main(int argc, char **argv)
{
    blocks = mmap(NULL, ARRAY_LEN(cases) * sizeof(*blocks), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (blocks == MAP_FAILED)
        return 1;
    return crash_main(argc, argv, 15, cases, ARRAY_LEN(cases));
}
