/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The judgements of the health that need another day, another boot or a lost journal: the rest is in
 * health.sh, as a monitor sees it (K14, K21, K33, I9).
 */
#include "journal_fixture.h"

#include "journal/salvage.h"
#include "reaper/quarantine.h"

#include <glob.h>
#include <sys/mount.h>
#include <xxhash.h>

static struct rbxj_options options_of(const struct place *p)
{
    return (struct rbxj_options){.state_dir = p->state, .runtime_dir = p->runtime};
}

static struct rbxj_health look(const struct place *p)
{
    struct rbxj_options options = options_of(p);
    struct rbxj_health h = {0};
    struct rbxj_error e = {0};
    assert_ok(rbxj_health(&options, &h, &e), e);
    return h;
}

static int replay_all(const struct place *p)
{
    struct rbxj_options options = options_of(p);
    struct rbxj_replay how = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_replay(&options, &how, &result, &e);
    rbxj_result_free(result);
    return r;
}

/* A dead box whose directory lies on a file system that is not mounted; it has been refused for that. */
static void leave_unmounted(const struct place *p)
{
    const char *data = harness_format("%s/data", harness_disk());
    harness_mkdir(data);
    assert_int_equal(mount("none", data, "tmpfs", 0, NULL), 0);
    pid_t pid = CHILD({
        struct rbxj_options options = options_of(p);
        struct rbxj *handle;
        struct rbxj_error e = {0};
        struct rbxj_resource plan = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/t", data)};
        struct rbxj_box box = {.name = "a", .plan = &plan, .plan_len = 1};
        CHECK_OK(rbxj_open(&options, &handle, &e), e);
        CHECK_OK(rbxj_begin(handle, &box, NULL, &e), e);
        CHECK_OK(rbxj_acquire(handle, "a", 1, NULL, NULL, &e), e);
    });
    assert_child(pid);
    assert_int_equal(umount2(data, MNT_DETACH), 0);
    assert_int_equal(replay_all(p), 1);
}

static void change_waiting(const struct place *p, int64_t since_ns, uint8_t other_boot)
{
    struct journal *j = place_open(p);
    struct snapshot_box sb;
    struct rbxj_error e = {0};
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_true(sb.box.waiting_since_ns != 0);
    sb.box.waiting_since_ns = since_ns ? since_ns : sb.box.waiting_since_ns;
    sb.box.waiting_boot[0] ^= other_boot;
    assert_ok(journal_update_box(j, &sb.box, &e), e);
    snapshot_box_clear(&sb);
    place_close();
}

static void k14_waiting_for_a_day_makes_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    leave_unmounted(&p);
    struct rbxj_health h = look(&p);
    assert_string_equal(h.status, "healthy");
    assert_int_equal(h.stale_boxes, 1);
    int64_t hour = 3600LL * 1000000000;
    change_waiting(&p, now_realtime_ns() - 23 * hour, 0);
    assert_string_equal(look(&p).status, "healthy");
    change_waiting(&p, now_realtime_ns() - 25 * hour, 0);
    assert_string_equal(look(&p).status, "unhealthy");
    assert_int_equal(replay_all(&p), 1); /* it goes on counting */
    assert_string_equal(look(&p).status, "unhealthy");
    change_waiting(&p, now_realtime_ns() + hour, 0); /* the clock was set back since */
    assert_string_equal(look(&p).status, "healthy");
    change_waiting(&p, now_realtime_ns() + 25 * hour, 0); /* so far that it would not be seen for long */
    assert_string_equal(look(&p).status, "unhealthy");
}

static void k14_waiting_into_a_second_boot_makes_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    leave_unmounted(&p);
    change_waiting(&p, 0, 1);
    assert_string_equal(look(&p).status, "unhealthy");
    assert_int_equal(replay_all(&p), 1);
    assert_string_equal(look(&p).status, "unhealthy");
}

static void k21_lost_boot_journal_makes_unhealthy_until_audited(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = options_of(&p);
    struct rbxj_error e = {0};
    (void)place_open(&p);
    place_close();
    assert_string_equal(look(&p).status, "healthy");
    const char *folder = place_folder(&p);
    assert_int_equal(rename(folder, harness_format("%s/aside", p.runtime)), 0);
    (void)place_open(&p);
    place_close();
    struct rbxj_health h = look(&p);
    assert_string_equal(h.status, "unhealthy");
    assert_non_null(strstr(h.last_cleanup_error, "journal_lost"));
    assert_ok(rbxj_unquarantine(&options, "looked into it", &e), e);
    assert_string_equal(look(&p).status, "healthy");
}

static struct config config_of(const struct place *p)
{
    return (struct config){.state_dir = (char *)p->state, .runtime_dir = (char *)p->runtime};
}

/* Only a person can have looked into what was lost. */
static void k21_recovery_audits_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = options_of(&p);
    struct config config = config_of(&p);
    struct rbxj_health h;
    struct rbxj_error e = {0};
    (void)place_open(&p);
    place_close();
    const char *folder = place_folder(&p);
    assert_int_equal(rename(folder, harness_format("%s/aside", p.runtime)), 0);
    (void)place_open(&p);
    place_close();
    assert_int_equal(quarantine_enter(&config, QUARANTINE_CLEANUP_FAILURE, "box 7", &e), 1);
    assert_ok(rbxj_recover(&options, NULL, NULL, &h, &e), e);
    assert_false(quarantine_is_set(&config));
    assert_string_equal(h.status, "unhealthy");
    assert_non_null(strstr(h.last_cleanup_error, "journal_lost"));
    assert_ok(rbxj_unquarantine(&options, "looked into it", &e), e);
    assert_string_equal(look(&p).status, "healthy");
}

/* ---- damage, and what is none ---- */

/* No replay, no quarantine: it would outlast what is wrong. */
static void assert_only_unusable(const struct place *p, const char *text)
{
    struct rbxj_options options = options_of(p);
    struct rbxj_replay how = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct config config = config_of(p);
    assert_refused(rbxj_replay(&options, &how, &result, &e), e, RBXJ_E_JOURNAL_DAMAGED, text);
    assert_false(quarantine_is_set(&config));
}

static void assert_unhealthy(const struct place *p, const char *text)
{
    struct rbxj_health h = look(p);
    assert_string_equal(h.status, "unhealthy");
    assert_null(h.quarantine_reason);
    assert_false(h.can_accept_submissions);
    assert_true(h.escalate);
    assert_non_null(strstr(h.last_cleanup_error, text));
}

static void k33_missing_disk_is_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e;
    (void)place_open(&p);
    place_close();
    assert_int_equal(mount("none", p.state, "tmpfs", 0, "mode=0700"), 0);
    assert_only_unusable(&p, "not mounted?");
    assert_unhealthy(&p, "not mounted?");
    harness_write(harness_format("%s/forgotten", p.state), "x"); /* what lies below a mount point */
    assert_only_unusable(&p, "not mounted?");
    assert_unhealthy(&p, "not mounted?");
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, "not mounted?");
    assert_int_equal(umount(p.state), 0);
    assert_string_equal(look(&p).status, "healthy");
    assert_int_equal(replay_all(&p), 0);
}

static void k21_another_journal_is_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make(), other = p;
    other.options.runtime_dir = harness_format("%s/run2", harness_tmpfs());
    (void)place_open(&p);
    place_close();
    assert_int_equal(system(harness_format("rm -rf %s/*", p.state)), 0);
    assert_int_equal(place_try(&other, &(struct rbxj_error){0}), 0);
    assert_only_unusable(&p, "does not belong");
    assert_unhealthy(&p, "does not belong");
}

/* Only the installation makes it, and its disk may be missing: no begin is let through. */
static void k33_missing_state_directory_is_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct config config = config_of(&p);
    struct rbxj_options options = options_of(&p);
    struct rbxj_health h;
    struct rbxj_error e = {0};
    (void)place_open(&p);
    place_close();
    next_boot(&p);
    assert_int_equal(quarantine_enter(&config, QUARANTINE_CLEANUP_FAILURE, "box 7", &e), 1);
    char *aside = harness_format("%s.aside", p.state);
    assert_int_equal(rename(p.state, aside), 0);
    assert_ok(rbxj_recover(&options, NULL, NULL, &h, &e), e);
    assert_string_equal(h.status, "quarantined"); /* what is not seen is not known to be clean */
    assert_int_equal(unlink(harness_format("%s/quarantined", p.runtime)), 0);
    assert_unhealthy(&p, "mount its disk");
    assert_refused(place_try(&p, &e), e, RBXJ_E_IO, "mount its disk");
    assert_int_equal(rename(aside, p.state), 0);
    assert_ok(rbxj_unquarantine(&options, "it is back", &e), e);
    assert_string_equal(look(&p).status, "healthy");
}

/* The same journal elsewhere: it can be read, but no begin is let through. */
static void k33_moved_state_directory_is_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    (void)place_open(&p);
    place_close();
    assert_int_equal(
        system(harness_format("mv %s %s.aside && cp -a %s.aside %s", p.state, p.state, p.state, p.state)), 0);
    assert_only_unusable(&p, "not mounted?");
    assert_unhealthy(&p, "not mounted?");
}

static void another_layout_is_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    (void)place_open(&p);
    place_close();
    const char *gate = harness_format("%s/gate", place_folder(&p));
    char *aside = harness_format("%s.aside", gate);
    assert_int_equal(rename(gate, aside), 0);
    harness_write(gate, "of a later version");
    assert_only_unusable(&p, "another layout");
    assert_unhealthy(&p, "another layout");
    assert_int_equal(rename(aside, gate), 0);
    int fd = open(harness_format("%s/data.mdb", place_folder(&p)), O_RDWR | O_CLOEXEC);
    uint32_t version = 2, was = 0;
    assert_int_equal(pread(fd, &was, sizeof(was), 20), sizeof(was));
    assert_int_equal(was, 1);
    assert_int_equal(pwrite(fd, &version, sizeof(version), 20), sizeof(version));
    assert_only_unusable(&p, "another layout");
    assert_unhealthy(&p, "another layout");
    assert_int_equal(pwrite(fd, &was, sizeof(was), 20), sizeof(was));
    (void)close(fd);
    assert_int_equal(replay_all(&p), 0);
}

/* A journal with a record whose content is wrong, closed. */
static struct place place_with_damage(void)
{
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", harness_format("%s/a", p.kept));
    struct record_key k = record_key(box.incarnation, 1);
    MDB_val key = {sizeof(k), &k}, garbage = {7, "garbage"};
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), MDB_SUCCESS);
    assert_int_equal(mdb_put(txn, j->boot.records, &key, &garbage, 0), MDB_SUCCESS);
    assert_int_equal(mdb_txn_commit(txn), MDB_SUCCESS);
    place_close();
    return p;
}

static uint64_t hash_of(const char *path)
{
    struct autopsy a;
    struct rbxj_error e = {0};
    assert_ok(autopsy_read(AT_FDCWD, path, path, &a, &e), e);
    uint64_t hash = XXH3_64bits(a.file.bytes, a.file.len);
    autopsy_clear(&a);
    return hash;
}

/* The only file of that pattern; NULL: there is none. */
static const char *only(const char *pattern)
{
    glob_t found = {0};
    int r = glob(pattern, 0, NULL, &found);
    const char *path = r == 0 ? harness_format("%s", found.gl_pathv[0]) : NULL;
    assert_true(found.gl_pathc <= 1);
    globfree(&found);
    return path;
}

static void i9_a_damaged_journal_is_moved_aside_untouched(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_with_damage();
    struct rbxj_options options = options_of(&p);
    struct config config = config_of(&p);
    struct quarantine q;
    struct rbxj_error e = {0};
    struct rbxj_health h;
    options.config = harness_format("%s/conf", harness_disk());
    harness_write(options.config, "[journal]\nmap_size = 16M\n[health]\nquarantine_after = 3\n");
    const char *boot = harness_format("%s/data.mdb", place_folder(&p)),
               *pattern = harness_format("%s/journal.damaged-*/data.mdb", p.runtime);
    uint64_t before = hash_of(boot), disk = hash_of(harness_format("%s/journal/data.mdb", p.state));
    assert_string_equal(look(&p).quarantine_reason, "journal_corruption"); /* whoever looks moves nothing */
    assert_true(path_exists(boot));
    assert_refused(rbxj_recover(&options, NULL, NULL, &h, &e), e, RBXJ_E_JOURNAL_DAMAGED, "are damaged");
    assert_non_null(strstr(e.detail, "journal.damaged-"));
    assert_string_equal(h.quarantine_reason, "journal_corruption");
    quarantine_read(&config, &q);
    assert_int_equal(q.reason, QUARANTINE_CORRUPTION);
    assert_false(path_exists(boot));
    assert_int_equal(hash_of(only(pattern)), before);
    assert_int_equal(hash_of(harness_format("%s/journal/data.mdb", p.state)), disk);
    /* nothing is undone before a person has looked into it */
    e = (struct rbxj_error){0};
    assert_refused(rbxj_recover(&options, NULL, NULL, &h, &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   "nobody has looked");
    assert_string_equal(h.quarantine_reason, "journal_corruption");
    assert_int_equal(hash_of(only(pattern)), before);
    struct rbxj_clean clean;
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_false(clean.clean);
    e = (struct rbxj_error){0};
    assert_ok(rbxj_unquarantine(&options, "looked into it", &e), e);
    assert_int_equal(rbxj_recover(&options, NULL, NULL, &h, &e),
                     0); /* as after a boot journal was lost (K21) */
}

/* What others have open stays where it is: they notice by themselves. */
static void i9_a_damaged_journal_in_use_is_left_in_place(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_with_damage();
    struct rbxj_options options = options_of(&p);
    struct rbxj_error e = {0};
    struct rbxj_health h;
    struct shared *s = shared_make();
    pid_t pid = CHILD({
        (void)place_open(&p);
        atomic_store(&s->step, 1);
        pause();
    });
    while (atomic_load(&s->step) == 0)
        (void)usleep(1000);
    assert_refused(rbxj_recover(&options, NULL, NULL, &h, &e), e, RBXJ_E_JOURNAL_DAMAGED, "are damaged");
    assert_true(path_exists(harness_format("%s/data.mdb", place_folder(&p))));
    assert_null(only(harness_format("%s/journal.damaged-*", p.runtime)));
    harness_kill(pid);
}

/* Whatever a supervisor that has the journals open asks for, the one handle of its process serves. */
static void health_is_served_by_an_open_handle(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = options_of(&p);
    struct rbxj_error e = {0};
    struct rbxj_clean clean;
    struct rbxj_health h;
    struct rbxj *handle;
    assert_ok(rbxj_open(&options, &handle, &e), e);
    struct rbxj_box box = {.name = "a"};
    assert_ok(rbxj_begin(handle, &box, NULL, &e), e);
    assert_ok(rbxj_quarantine(&options, "by its own supervisor", &e), e);
    assert_refused(rbxj_begin(handle, &(struct rbxj_box){.name = "b"}, NULL, &e), e, RBXJ_E_QUARANTINED,
                   "by its own supervisor");
    assert_ok(rbxj_unquarantine(&options, "done", &e), e);
    h = look(&p);
    assert_string_equal(h.status, "healthy");
    assert_int_equal(h.live_boxes, 1);
    options.config = harness_format("%s/own.conf", harness_disk()); /* nothing of the machine's */
    harness_write(options.config, "[discover]\nlocks=\ncgroups=\nmounts=\ntmpdirs=\n");
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_true(clean.clean);
    assert_ok(rbxj_recover(&options, NULL, NULL, &h, &e), e);
    assert_int_equal(h.live_boxes, 1);
    assert_ok(rbxj_end(handle, "a", &e), e); /* it has its locks still */
    rbxj_close(handle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k14_waiting_for_a_day_makes_unhealthy),
        journal_test(k14_waiting_into_a_second_boot_makes_unhealthy),
        journal_test(k21_lost_boot_journal_makes_unhealthy_until_audited),
        journal_test(k21_recovery_audits_nothing),
        journal_test(k33_missing_disk_is_no_damage),
        journal_test(k21_another_journal_is_no_damage),
        journal_test(k33_missing_state_directory_is_unhealthy),
        journal_test(k33_moved_state_directory_is_unhealthy),
        journal_test(another_layout_is_no_damage),
        journal_test(i9_a_damaged_journal_is_moved_aside_untouched),
        journal_test(i9_a_damaged_journal_in_use_is_left_in_place),
        journal_test(health_is_served_by_an_open_handle),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
