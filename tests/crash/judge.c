/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The judgement, from the system's own view (life.h).
 */
#include "life.h"

#include "../picture.h"

#include <sys/file.h>

static char *picture; /* as it was when nothing of the boxes was there */

char *life_picture(void)
{
    const char *const groups[] = {life.group, life.group_v1};

    return picture_take(life.work, groups, ARRAY_LEN(groups));
}

void life_judge_by(char *text)
{
    free(picture);
    picture = text;
}

/* K1: an empty lock file that nothing proves ours is left. */
static void remove_empty_locks(void)
{
    for (const char *box = "a\0c\0"; *box; box += 2) {
        struct stat st;
        if (lstat(life_path(box, PART_LOCK), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
            assert_int_equal(unlink(life_path(box, PART_LOCK)), 0);
    }
}

const char *life_differs(void)
{
    remove_empty_locks();
    _cleanup_free_ char *now = life_picture();
    if (strcmp(now, picture) == 0)
        return NULL;
    return harness_format("the machine is not as before:\n--- before\n%s--- now\n%s", picture, now);
}

static void print_entries(const struct rbxj_result *result)
{
    struct rbxj_result_entry x;

    for (size_t i = 0; result && i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &x) == 0; k++)
            print_error("  seq %u %s %s: %s, %s: %s (%s)\n", x.seq, x.kind, x.name, x.found,
                        x.outcome ? x.outcome : "", x.error ? x.error->message : "",
                        x.error ? x.error->detail : "");
}

/* Returns how many boxes it handled. */
static size_t replay(const char *what)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_info info;
    struct rbxj_error e = {0};

    int r = rbxj_replay(&life.options, &(struct rbxj_replay){0}, &result, &e);
    if (r != 0) {
        print_entries(result);
        fail_msg("%s: the replay returned %d: %s (%s)", what, r, e.message, e.detail);
    }
    rbxj_result_info(result, &info);
    rbxj_result_free(result);
    assert_int_equal(info.left, 0);
    return info.boxes;
}

void life_replay(void)
{
    (void)replay("a clean replay");
}

static void bystander_is_whole(const char *what)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box box;
    struct rbxj_error e = {0};
    bool lives = false;

    if (rbxj_list(&life.options, NULL, &result, &e) < 0)
        fail_msg("%s: list: %s", what, e.message);
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++) {
        if (!life.bystander || strcmp(box.box, "b") != 0)
            fail_msg("%s: box %s is still in the journal", what, box.box);
        lives = strcmp(box.state, "live") == 0;
        for (size_t k = 0; lives && k < box.entries; k++) {
            struct rbxj_result_entry entry;
            assert_int_equal(rbxj_result_entry(result, i, k, &entry), 0);
            if (strcmp(entry.found, "present") != 0)
                fail_msg("%s: the bystander's %s is %s", what, entry.kind, entry.found);
        }
    }
    rbxj_result_free(result);
    if (!life.bystander)
        return;
    _cleanup_close_ int lock = open(life_path("b", PART_LOCK), O_RDONLY | O_CLOEXEC);
    assert_true(lock >= 0);
    if (!lives || is_dead(life.bystander) || is_dead(life.bystander_payload) ||
        flock(lock, LOCK_EX | LOCK_NB) == 0)
        fail_msg("%s: the bystander is not whole", what);
}

static void payload_is_dead(const char *what)
{
    for (int i = 0; i < 6000 && life_told->payload && !is_dead(life_told->payload); i++)
        (void)usleep(5000);
    if (life_told->payload && !is_dead(life_told->payload))
        fail_msg("%s: the payload lives", what);
}

void life_judge(const char *what)
{
    payload_is_dead(what);
    for (int again = 0; again < 2; again++) {
        const char *differs = life_differs();
        if (differs)
            fail_msg("%s%s: %s", what, again ? ", replayed again" : "", differs);
        bystander_is_whole(what);
        if (!again && replay(what) != 0)
            fail_msg("%s: the second replay had something to do", what);
    }
}

void life_goes_on(void)
{
    struct rbxj_error e = {0};
    struct rbxj_health health;

    if (rbxj_health(&life.options, &health, &e) < 0)
        fail_msg("health: %s", e.message);
    if (!health.can_accept_submissions || strcmp(health.status, "healthy") != 0)
        fail_msg("the worker is %s afterwards: %s %s %s", health.status,
                 health.quarantine_reason ? health.quarantine_reason : "", health.quarantine_detail,
                 health.last_cleanup_error);
    life_killed("a", LIFE_WHOLE);
    life_judge("a life afterwards");
}
