/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind, on real file systems: K1, K2, K4, K5, K17, K18, I4, I5.
 */
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/mountinfo.h"
#include "reaper/undo.h"

#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* A box with one tmpdir. */
static struct config config;
static struct undo undo;
static struct record record;
static struct finding finding;
static struct rbxj_error error;
static char *target, *aside;

static void intend(const char *where, uint32_t flags)
{
    static char *none[] = {NULL};
    mounts_free(undo.mounts);
    config = (struct config){
        .protected_paths = none,
        .allowed_paths = none,
        .state_dir = harness_format("%s/state", harness_disk()),
        .runtime_dir = harness_format("%s/runtime", harness_disk()),
    };
    undo = (struct undo){
        .config = &config,
        .records = &record,
        .records_len = 1,
        .deadline_ns = now_monotonic_ns() + INT64_C(60000000000),
        .same_boot = true,
    };
    target = harness_format("%s/box", where);
    record = (struct record){
        .incarnation = UINT64_C(0xfedcba9876543210),
        .seq = 4,
        .kind = RBXJ_TMPDIR,
        .flags = flags,
        .time_ns = now_realtime_ns(),
        .path = target,
    };
    memset(&error, 0, sizeof(error));
}

static int prepare(void)
{
    memset(&error, 0, sizeof(error));
    return kind_tmpdir.prepare(&undo, &record, &error);
}

static void begin_in(const char *where, uint32_t flags)
{
    intend(where, flags);
    assert_int_equal(prepare(), 0);
    char hex[33];
    hex_encode(hex, record.nonce, sizeof(record.nonce));
    aside = harness_format("%s/.rbxj-%s", where, hex);
}

static void acquire_in(const char *where, uint32_t flags)
{
    int fd = 0;
    begin_in(where, flags);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, &fd, &error), 0);
    assert_int_equal(fd, -1);
}

static int look(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.look(&undo, &record, &finding);
}

static int undo_it(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.undo(&undo, &record, &finding);
}

static int verify(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.verify(&undo, &record, &finding);
}

static void assert_found(enum found found)
{
    assert_int_equal(look(), 0);
    assert_int_equal(finding.found, found);
    assert_int_equal(finding.refused, found == FOUND_FOREIGN);
    assert_true((finding.identity != 0) == (found != FOUND_GONE));
}

static void assert_undone(void)
{
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_false(path_exists(aside));
    assert_found(FOUND_GONE);
    assert_int_equal(undo_it(), 0);
}

/* Foreign, left alone, and the record is to stay. */
static void assert_refused(void)
{
    assert_found(FOUND_FOREIGN);
    assert_int_equal(undo_it(), -RBXJ_E_FOREIGN);
    assert_true(finding.refused);
    assert_non_null(strstr(finding.error.message, target));
    assert_true(path_exists(target));
}

static void fill(const char *dir)
{
    harness_write(harness_format("%s/file", dir), "x");
    harness_mkdir(harness_format("%s/dir", dir));
    harness_write(harness_format("%s/dir/file", dir), "x");
    assert_int_equal(symlink("/", harness_format("%s/dir/link", dir)), 0);
}

static void assert_filled(const char *dir)
{
    assert_string_equal(harness_read(harness_format("%s/file", dir)), "x");
    assert_string_equal(harness_read(harness_format("%s/dir/file", dir)), "x");
}

/* ---- prepare ---- */

static void k5_present_before_is_exists(void **state)
{
    (void)state;
    intend(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(prepare(), -RBXJ_E_EXISTS);
    assert_non_null(strstr(error.message, target));
    assert_int_equal(rmdir(target), 0);
    assert_int_equal(symlink("/nowhere", target), 0);
    assert_int_equal(prepare(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    assert_int_equal(prepare(), 0);
}

static void k18_missing_parent_is_an_error_but_below(void **state)
{
    (void)state;
    intend(harness_format("%s/missing", harness_disk()), 0);
    assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
    record.below = 1;
    assert_int_equal(prepare(), 0);
    assert_false(fileid_is_set(&record.parent));
}

static void symlink_on_the_way_is_refused(void **state)
{
    (void)state;
    char *link = harness_format("%s/link", harness_disk());
    assert_int_equal(symlink(harness_disk(), link), 0);
    intend(link, 0);
    assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
}

static void bad_and_protected_paths_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"relative", "/tmp/../tmp/x", "/tmp//x", "/tmp/x/", ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        intend(harness_disk(), 0);
        record.path = harness_format("%s", bad[i]);
        assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
    }
    intend("/usr", 0);
    assert_int_equal(prepare(), -RBXJ_E_PROTECTED_PATH);
}

static void prepare_keeps_a_nonce(void **state)
{
    (void)state;
    begin_in(harness_disk(), 0);
    uint8_t nonce[sizeof(record.nonce)];
    memcpy(nonce, record.nonce, sizeof(nonce));
    assert_int_equal(prepare(), 0);
    assert_memory_equal(nonce, record.nonce, sizeof(nonce));
    begin_in(harness_disk(), 0);
    assert_memory_not_equal(nonce, record.nonce, sizeof(nonce));
    assert_int_equal(record.owner, geteuid());
}

/* ---- acquire, prove ---- */

static void acquired_has_evidence_and_a_stamp(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    struct stat st;
    uint64_t incarnation;
    uint32_t seq;
    assert_int_equal(lstat(target, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0700);
    assert_int_equal(record.flags, REC_EVIDENCE | REC_STAMPED);
    assert_int_equal(record.id.ino, st.st_ino);
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_get(fd, &incarnation, &seq), 1);
    assert_true(incarnation == record.incarnation);
    assert_int_equal(seq, record.seq);
}

static void acquire_never_takes_what_is_there(void **state)
{
    (void)state;
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, NULL, &error), -RBXJ_E_EXISTS);
    assert_int_equal(record.flags, 0);
}

static void acquire_refuses_another_parent(void **state)
{
    (void)state;
    char *parent = harness_format("%s/parent", harness_disk());
    harness_mkdir(parent);
    begin_in(parent, 0);
    assert_int_equal(rename(parent, harness_format("%s/old", harness_disk())), 0);
    harness_mkdir(parent);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, NULL, &error), -RBXJ_E_BAD_REQUEST);
    assert_false(path_exists(target));
}

static int prove(void)
{
    memset(&error, 0, sizeof(error));
    int r = kind_tmpdir.prove(&undo, &record, &error);
    if (r < 0)
        assert_int_equal(record.flags, 0);
    return r;
}

static void k1_prove_refuses_what_is_not_new(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    char *elsewhere = harness_format("%s/elsewhere", harness_disk());
    harness_mkdir(elsewhere);
    assert_int_equal(prove(), -RBXJ_E_BAD_REQUEST); /* not made */
    assert_int_equal(symlink(elsewhere, target), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    harness_write(target, "");
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    harness_mkdir(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(chown(target, 0, 0), 0);
    harness_mkdir(harness_format("%s/in", target));
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(rmdir(harness_format("%s/in", target)), 0);
    struct record other = {.incarnation = 5, .seq = 1};
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &other), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(stamp_set(fd, &record), 0); /* killed before the evidence was written: again */
    assert_int_equal(prove(), 0);
}

static void k1_mount_in_place_of_it_is_not_new(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(mount("rbxj-test", target, "tmpfs", 0, "mode=0700"), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
}

static void k1_where_no_stamp_can_be_set(void **state)
{
    (void)state;
    harness_need_root();
    char *where = harness_format("%s/ramfs", harness_disk());
    harness_mkdir(where);
    assert_int_equal(mount("rbxj-test", where, "ramfs", 0, NULL), 0);
    acquire_in(where, 0);
    assert_int_equal(record.flags, REC_EVIDENCE | REC_NO_STAMP);
    fill(target);
    assert_undone();
}

/* ---- look, undo, verify ---- */

static void ours_is_removed(void **state)
{
    (void)state;
    harness_need_root();
    const char *const places[] = {harness_disk(), harness_tmpfs()};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        acquire_in(places[i], 0);
        fill(target);
        assert_true(verify() < 0);
        assert_undone();
    }
}

static void ours_is_removed_in_another_boot(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    undo.same_boot = false;
    record.parent.dev++;
    record.id.dev++; /* another number for the same disk */
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_undone();
}

static void owner_and_mode_may_have_changed(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_int_equal(chmod(target, 0), 0);
    assert_undone();
}

static bool set_flags(const char *path, int flags)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static void k17_immutable_itself_is_renamed_aside_too(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    if (!set_flags(target, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    undo.deadline_ns = now_monotonic_ns() - 1;
    assert_int_equal(undo_it(), -ETIMEDOUT);
    assert_false(path_exists(target)); /* free for another box at once */
    undo.deadline_ns = 0;
    assert_undone();
}

static void k1_stamp_speaks_without_evidence(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    record.flags = 0;
    fill(target);
    assert_undone();
}

static void k1_unproven_is_at_most_rmdired(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    fill(target);
    assert_refused();
    assert_filled(target);
    assert_int_equal(rename(target, harness_format("%s/away", harness_disk())), 0);
    harness_mkdir(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_refused();
    assert_int_equal(chown(target, 0, 0), 0);
    assert_undone();
    harness_write(target, "");
    assert_refused();
}

static void k1_unproven_is_rmdired_as_it_is(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    if (!set_flags(target, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    assert_found(FOUND_PRESENT);
    assert_true(undo_it() < 0);
    assert_true(path_exists(target));
    assert_true(set_flags(target, 0));
    assert_undone();
}

static void k1_anothers_stamp_is_foreign_even_if_empty(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    struct record other = {.incarnation = record.incarnation, .seq = record.seq + 1};
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &other), 0);
    assert_refused();
}

static void k2_another_directory_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_int_equal(rmdir(target), 0);
    harness_mkdir(target); /* ext4 gives it the same inode number */
    assert_refused();
    /* a copy of the stamp does not help: evidence decides alone */
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    (void)stamp_set(fd, &record);
    fill(target);
    assert_refused();
    assert_filled(target);
    assert_int_equal(verify(), 0); /* what is there is not ours */
}

static void k2_symlink_in_its_place_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    char *ours = harness_format("%s/ours", harness_disk()),
         *other = harness_format("%s/other", harness_disk());
    fill(target);
    assert_int_equal(rename(target, ours), 0);
    harness_mkdir(other);
    fill(other);
    assert_int_equal(symlink(other, target), 0);
    assert_found(FOUND_PRESENT); /* under the name that it has now */
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(ours));
    assert_true(path_exists(target));
    assert_filled(other);
    assert_refused();
}

static void k2_file_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_int_equal(rmdir(target), 0);
    harness_write(target, "x");
    assert_refused();
    assert_string_equal(harness_read(target), "x");
}

static void identity_tells_what_was_seen(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_found(FOUND_PRESENT);
    uint64_t first = finding.identity;
    assert_found(FOUND_PRESENT);
    assert_true(finding.identity == first);
    assert_int_equal(rmdir(target), 0);
    harness_mkdir(target);
    assert_found(FOUND_FOREIGN);
    assert_true(finding.identity != first);
}

static void k14_not_mounted_is_not_gone(void **state)
{
    (void)state;
    harness_need_root();
    char *late = harness_format("%s/late", harness_disk()), *parent = harness_format("%s/parent", late);
    harness_mkdir(late);
    assert_int_equal(mount("rbxj-test", late, "tmpfs", 0, NULL), 0);
    harness_mkdir(parent);
    acquire_in(parent, 0);
    char *away = harness_format("%s/away", harness_disk());
    harness_mkdir(away);
    assert_int_equal(mount(late, away, NULL, MS_MOVE, NULL), 0);
    assert_int_equal(look(), 0);
    assert_true(finding.refused && finding.not_mounted);
    assert_true(undo_it() < 0);
    assert_true(finding.refused && finding.not_mounted);
    assert_true(verify() < 0);
    assert_int_equal(mount(away, late, NULL, MS_MOVE, NULL), 0);
    assert_undone();
}

/* ---- the name aside ---- */

static void k17_killed_after_the_rename(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(rename(target, aside), 0);
    assert_true(verify() < 0);
    assert_undone();
}

static void k17_stranger_at_the_freed_name_is_left_alone(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(rename(target, aside), 0);
    harness_mkdir(target);
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(aside));
    assert_filled(target);
}

static void k17_deleted_in_place_where_it_cant_be_renamed(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    harness_mkdir(aside);
    fill(aside);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_filled(aside);
    assert_found(FOUND_FOREIGN);
}

static void k17_never_renamed_over_something(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    harness_mkdir(aside); /* an empty directory could be renamed over */
    struct stat before, after;
    assert_int_equal(lstat(aside, &before), 0);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(lstat(aside, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static void k18_rmdir_only_leaves_what_is_not_empty(void **state)
{
    (void)state;
    acquire_in(harness_disk(), REC_RMDIR_ONLY);
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), -ENOTEMPTY);
    assert_true(finding.partial);
    assert_false(finding.refused);
    assert_filled(target);
    assert_int_equal(rename(target, harness_format("%s/away", harness_disk())), 0);
    acquire_in(harness_disk(), REC_RMDIR_ONLY);
    assert_undone();
}

/* ---- others inside ---- */

static void mount_below_is_busy_and_nothing_is_touched(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    char *inside = harness_format("%s/dir/mounted", target);
    harness_mkdir(inside);
    assert_int_equal(mount(harness_disk(), inside, NULL, MS_BIND, NULL), 0);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_non_null(strstr(finding.error.message, inside));
    assert_filled(target);
    assert_int_equal(umount(inside), 0);
    mounts_free(undo.mounts);
    undo.mounts = NULL;
    assert_undone();
}

static void mount_made_meanwhile_is_busy_and_untouched(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    assert_int_equal(mounts_read(&undo.mounts, &error), 0);
    char *inside = harness_format("%s/mounted", target);
    harness_mkdir(inside);
    assert_int_equal(mount("rbxj-test", inside, "tmpfs", 0, NULL), 0);
    fill(inside);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    char *now = harness_format("%s/mounted", path_exists(aside) ? aside : target);
    assert_filled(now);
    assert_int_equal(umount(now), 0);
    assert_undone();
}

static void mounted_over_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    assert_int_equal(mount("rbxj-test", target, "tmpfs", 0, NULL), 0);
    assert_int_equal(look(), 0);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(harness_mounts_below(target), 1);
}

static void k4_another_boxs_directory_inside_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    struct snapshot_box boxes[] = {
        {.box = {.name = "own", .incarnation = record.incarnation}},
        {.box = {.name = "nested", .incarnation = 99}},
    };
    struct snapshot snapshot = {.boxes = boxes, .len = ARRAY_LEN(boxes)};
    struct record nested = {.incarnation = 99, .seq = 2}, old = {.incarnation = 98, .seq = 2};
    undo.snapshot = &snapshot;
    undo.box = &boxes[0].box;
    char *dir = harness_format("%s/nested", target);
    harness_mkdir(dir);
    fill(dir);
    _cleanup_close_ int fd = open(dir, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &nested), 0);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_non_null(strstr(finding.error.message, "nested"));
    assert_filled(harness_format("%s/nested", path_exists(aside) ? aside : target));
    harness_mkdir(harness_format("%s/copy", path_exists(aside) ? aside : target));
    _cleanup_close_ int copy = open(harness_format("%s/copy", path_exists(aside) ? aside : target),
                                    O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(copy, &record), 0);
    assert_int_equal(stamp_set(fd, &old), 0); /* of a box that is in no journal */
    assert_undone();
}

static void deadline_leaves_it_for_the_next_run(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    undo.deadline_ns = now_monotonic_ns() - 1;
    assert_int_equal(undo_it(), -ETIMEDOUT);
    undo.deadline_ns += INT64_C(60000000000);
    assert_undone();
}

static void i5_killed_anywhere_and_run_again(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    for (int i = 0; i < 400; i++) {
        char *dir = harness_format("%s/%d", target, i);
        harness_mkdir(dir);
        fill(dir);
    }
    int killed = 0;
    for (int i = 0; i < 100 && (look(), finding.found) == FOUND_PRESENT; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(undo_it() < 0);
        harness_track(pid);
        (void)usleep((useconds_t)(random() % 2000));
        (void)kill(pid, SIGKILL);
        int status = harness_wait(pid);
        killed += WIFSIGNALED(status);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status));
    }
    assert_true(killed >= 3);
    look(); /* the last one may have been killed after it was done */
    if (finding.found == FOUND_PRESENT)
        assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_false(path_exists(aside));
}

static int teardown(void **state)
{
    mounts_free(undo.mounts);
    undo.mounts = NULL;
    return harness_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k5_present_before_is_exists),
        harness_test(k18_missing_parent_is_an_error_but_below),
        harness_test(symlink_on_the_way_is_refused),
        harness_test(bad_and_protected_paths_are_refused),
        harness_test(prepare_keeps_a_nonce),
        harness_test(acquired_has_evidence_and_a_stamp),
        harness_test(acquire_never_takes_what_is_there),
        harness_test(acquire_refuses_another_parent),
        harness_test(k1_prove_refuses_what_is_not_new),
        harness_test(k1_mount_in_place_of_it_is_not_new),
        harness_test(k1_where_no_stamp_can_be_set),
        harness_test(ours_is_removed),
        harness_test(ours_is_removed_in_another_boot),
        harness_test(owner_and_mode_may_have_changed),
        harness_test(k17_immutable_itself_is_renamed_aside_too),
        harness_test(k1_stamp_speaks_without_evidence),
        harness_test(k1_unproven_is_at_most_rmdired),
        harness_test(k1_unproven_is_rmdired_as_it_is),
        harness_test(k1_anothers_stamp_is_foreign_even_if_empty),
        harness_test(k2_another_directory_is_foreign),
        harness_test(k2_symlink_in_its_place_is_foreign),
        harness_test(k2_file_is_foreign),
        harness_test(identity_tells_what_was_seen),
        harness_test(k14_not_mounted_is_not_gone),
        harness_test(k17_killed_after_the_rename),
        harness_test(k17_stranger_at_the_freed_name_is_left_alone),
        harness_test(k17_deleted_in_place_where_it_cant_be_renamed),
        harness_test(k17_never_renamed_over_something),
        harness_test(k18_rmdir_only_leaves_what_is_not_empty),
        harness_test(mount_below_is_busy_and_nothing_is_touched),
        harness_test(mount_made_meanwhile_is_busy_and_untouched),
        harness_test(mounted_over_is_busy),
        harness_test(k4_another_boxs_directory_inside_is_busy),
        harness_test(deadline_leaves_it_for_the_next_run),
        harness_test(i5_killed_anywhere_and_run_again),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, teardown);
}
