/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Damaged journals (I9): a data file of a journal in use is damaged at a place and in a way that the seed
 * says, and everything is tried on it: list, a dry run, health, metrics, forensics with a salvage, a new box,
 * a replay, and a replay of what was salvaged. Nobody dies of it, nothing is touched that the journal did not
 * name for a dead box, and every record that still lies whole in the file is salvaged.
 *
 * What is damaged in place, under the stamp that says that it is sound (sound.c), is told by whoever only
 * reads, and by the reaper. LMDB's own structure has no checksums, so a supervisor that writes may die of it:
 * that is counted.
 */
#include "damage.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "journal/internal.h"
#include "journal/salvage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct what {
    bool boot;     /* the boot journal, else the disk's */
    bool in_place; /* else another file takes its place */
    bool rebooted; /* the runtime directory is empty */
};

static struct autopsy read_file(const char *path)
{
    struct autopsy a;
    struct rbxj_error e = {0};
    if (autopsy_read(AT_FDCWD, path, path, &a, &e) < 0)
        fail_msg("%s", e.message);
    return a;
}

/* ---- what is whole is found, and salvaged ---- */

static bool is_whole(const struct carved *c, const struct autopsy *before, const struct autopsy *after)
{
    uint64_t offset = (uint64_t)(c->bytes - before->file.bytes);
    return c->state == CARVED_INTACT && offset + c->head.length <= after->file.len &&
           memcmp(c->bytes, after->file.bytes + offset, c->head.length) == 0;
}

static uint64_t must_be_found(const struct autopsy *before, const struct autopsy *after)
{
    uint64_t whole = 0;
    for (size_t i = 0; i < before->records_len; i++) {
        const struct carved *c = &before->records[i];
        bool found = false;
        if (!is_whole(c, before, after))
            continue;
        for (size_t k = 0; k < after->records_len && !found; k++)
            found = after->records[k].offset == c->offset && after->records[k].state != CARVED_DAMAGED;
        if (!found)
            fail_msg("the record at %" PRIu64 " is whole, and was not found", c->offset);
        whole++;
    }
    return whole;
}

static bool is_salvaged(const struct autopsy *salvaged, const struct record_head *head)
{
    for (size_t i = 0; i < salvaged->records_len; i++) {
        const struct carved *c = &salvaged->records[i];
        if (c->newest && c->state == CARVED_INTACT && c->head.incarnation == head->incarnation &&
            c->head.seq == head->seq)
            return true;
    }
    return false;
}

/* Each whole record of a box whose header is whole, too; of the others, as many as there are. */
static uint64_t must_be_salvaged(const struct autopsy *before, const struct autopsy *after,
                                 const struct autopsy *salvaged)
{
    uint64_t n = 0, header = 0;
    for (size_t i = 0; i < before->records_len; i++) {
        const struct carved *c = &before->records[i];
        if (!is_whole(c, before, after))
            continue;
        if (c->head.seq == 0)
            header = c->head.incarnation;
        bool there = is_salvaged(salvaged, &c->head);
        if (c->head.incarnation == header && !there)
            fail_msg("record %" PRIu64 ":%u at %" PRIu64 " is whole, and was not salvaged",
                     c->head.incarnation, c->head.seq, c->offset);
        n += there;
    }
    return n;
}

/* ---- one point ---- */

/* False: nothing was left to salvage. */
static bool salvage(const struct damage_world *w, const char *path, const struct autopsy *before,
                    const struct autopsy *after)
{
    const char *dir = harness_format("%s.salvaged", w->state),
               *data = harness_format("%s/journal/data.mdb", dir);
    int status = CALL(w, "forensics", "--salvage", dir, path);
    if (!after->snapshots[0].sound && !after->snapshots[1].sound && !after->count[CARVED_INTACT]) {
        assert_int_equal(status, 3);
        assert_int_not_equal(access(dir, F_OK), 0);
        return false;
    }
    assert_in_range(status, 0, 1);
    struct autopsy salvaged = read_file(data);
    assert_true(autopsy_is_sound(&salvaged));
    crash_count("salvaged", must_be_salvaged(before, after, &salvaged));
    autopsy_clear(&salvaged);
    return true;
}

static void replay_salvaged(const struct damage_world *w)
{
    struct damage_world other = *w;
    other.state = harness_format("%s.salvaged", w->state);
    other.run = harness_format("%s.salvaged", w->run);
    harness_mkdir(other.run);
    assert_in_range(CALL(&other, "replay"), 0, 1);
}

static void try_readers(const struct damage_world *w, bool must_tell)
{
    int status = CALL(w, "list");
    if (must_tell)
        assert_int_equal(3, status);
    (void)CALL(w, "replay", "--dry-run");
    (void)CALL(w, "health");
    (void)CALL(w, "metrics");
    (void)CALL(w, "incidents");
    (void)CALL(w, "forensics", "--json");
}

/* A new box. A record of another box that is damaged is found at the undo: then nothing is undone, and that
 * is said. */
static void try_begin(const struct damage_world *w, bool sound, bool in_place)
{
    const char *path = harness_format("%s/new", w->work);
    int status = TRY(w, "run", "--box", "new", "--tmpdir", path, "--", "true");
    if (status < 0 && !in_place)
        fail_msg("rbxj run: killed by SIG%s", sigabbrev_np(-status));
    crash_count("killed at begin", status < 0);
    assert_true(!path_exists(path) || (!sound && status != 0));
}

/* The live one goes on, and takes its box down. True: it is live no more. */
static bool try_live(struct damage_world *w, bool in_place)
{
    if (!w->live.pid)
        return false;
    bool lives = damage_write(w);
    crash_count("killed at intend", !lives);
    assert_true(lives || in_place);
    if (!lives)
        return true;
    lives = damage_undo(w);
    crash_count("killed at undo", !lives);
    assert_true(lives || in_place);
    return true;
}

static void run(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;
    struct damage_world w = {.random = point};
    harness_need_root();
    damage_make(&w, !what->rebooted && point % 2, !what->boot || point % 4 < 2);
    const char *path = damage_data(&w, what->boot);
    if (what->rebooted)
        assert_int_equal(0, rename(w.run, harness_format("%s.before", w.run)));
    if (what->rebooted)
        harness_mkdir(w.run);
    struct autopsy before = read_file(path);
    damage_file(&w, path, what->in_place);
    struct autopsy after = read_file(path);
    crash_count("whole", must_be_found(&before, &after));
    bool sound = autopsy_is_sound(&after), must_tell = !sound && (what->boot || what->rebooted);
    crash_count("damaged", !sound);

    try_readers(&w, must_tell);
    bool salvaged = salvage(&w, path, &before, &after);
    autopsy_clear(&before);
    autopsy_clear(&after);
    try_begin(&w, sound, what->in_place);
    int status = CALL(&w, "replay");
    if (must_tell && !what->in_place)
        assert_int_equal(3, status);
    damage_look(&w, false);
    bool undone = try_live(&w, what->in_place);
    damage_look(&w, undone);
    (void)CALL(&w, "replay");
    (void)CALL(&w, "list");
    if (salvaged)
        replay_salvaged(&w);
    damage_look(&w, undone);
}

static const struct what boot = {.boot = true}, disk = {0}, reboot = {.rebooted = true},
                         boot_in_place = {.boot = true, .in_place = true}, disk_in_place = {.in_place = true};
static const struct crash_case cases[] = {
    {.name = "boot", .run = run, .all = 5000, .data = &boot},
    {.name = "disk", .run = run, .all = 4000, .data = &disk},
    {.name = "reboot", .run = run, .all = 4000, .data = &reboot},
    {.name = "boot-in-place", .run = run, .all = 4000, .data = &boot_in_place},
    {.name = "disk-in-place", .run = run, .all = 3000, .data = &disk_in_place},
};

int main(int argc, char **argv)
{
    return crash_main(argc, argv, 20, cases, ARRAY_LEN(cases));
}
