/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the health rests on besides its boxes, where a server does not answer (K16): a look must neither hang
 * nor say that all is well. How it looks to an operator: evidence.sh.
 */
#include "hung_fuse.h"
#include "journal_fixture.h"

#include "reaper/evidence.h"

static struct rbxj_options options_with(const char *patterns)
{
    static struct place p;
    p = place_make();
    const char *config = harness_format("%s/rbxj.conf", harness_disk());
    harness_write(config,
                  harness_format("[discover]\nlocks =\ncgroups =\nmounts =\ntmpdirs =\n%s", patterns));
    (void)place_open(&p);
    place_close();
    return (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime, .config = config};
}

static void k16_room_that_cant_be_asked_for_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk());
    struct rbxj_options options = options_with(harness_format("tmpdirs = %s/box-*\n", hung));
    struct rbxj_error e = {0};
    struct rbxj_health h;
    char *json = NULL;
    pid_t server = hung_fuse(hung);
    assert_ok(rbxj_health(&options, &h, &e), e);
    assert_string_equal(h.status, "healthy");
    assert_true(h.not_looked_at > 0);
    assert_int_equal(h.exhausted_resources, 0);
    assert_ok(rbxj_evidence(&options, &json, &e), e);
    if (!strstr(json, harness_format("box root %s: its room could not be looked at", hung)))
        fail_msg("%s", json);
    free(json);
    harness_kill(server);
}

static void k16_what_does_not_answer_is_not_clean(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk());
    struct rbxj_options options = options_with(
        harness_format("tmpdirs = %s/box-*\nlocks = %s/*/lock\n", hung, hung));
    struct rbxj_error e = {0};
    struct rbxj_clean clean;
    pid_t server = hung_fuse(hung);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_false(clean.clean);
    assert_int_equal(clean.not_looked_at, 2);
    assert_int_equal(clean.unjournaled, 0);
    harness_kill(server);
    assert_int_equal(umount2(hung, MNT_DETACH), 0);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_true(clean.clean);
}

/* A box root is a link to where a server should be: the link must not be followed into it. */
static void k16_a_link_to_what_does_not_answer_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk()),
               *link = harness_format("%s/link", harness_disk());
    struct rbxj_options options = options_with(harness_format("tmpdirs = %s/box-*\n", link));
    struct shared *s = shared_make();
    pid_t server = hung_fuse(hung);
    assert_int_equal(symlink("hung/boxes", link), 0);
    pid_t pid = CHILD({
        struct rbxj_error e = {0};
        struct rbxj_health h;
        struct rbxj_clean clean;
        CHECK_OK(rbxj_health(&options, &h, &e), e);
        CHECK(h.not_looked_at > 0 && h.exhausted_resources == 0);
        CHECK_OK(rbxj_verify_clean(&options, &clean, &e), e);
        CHECK(!clean.clean && clean.not_looked_at == 1);
        atomic_store(&s->step, 1);
    });
    for (int i = 0; i < 60000 && !atomic_load(&s->step); i++)
        (void)usleep(500);
    harness_kill(server); /* or it can't even be killed */
    assert_int_equal(atomic_load(&s->step), 1);
    assert_child(pid);
}

/* ---- room ---- */

/* A box with one directory in a file system of its own, on dir. */
static struct snapshot_box box_on(const char *dir, struct record *r)
{
    struct snapshot_box sb = {.records = r, .len = 1};
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    *r = (struct record){.kind = RBXJ_TMPDIR, .seq = 1, .path = harness_format("%s/box", dir)};
    r->parent = (struct fileid){.dev = st.st_dev, .ino = st.st_ino};
    assert_int_equal(procid_boot(sb.box.supervisor.boot_id), 0);
    return sb;
}

static const char *file_system(const char *name)
{
    const char *dir = harness_format("%s/%s", harness_disk(), name);
    harness_mkdir(dir);
    assert_int_equal(mount("test", dir, "tmpfs", 0, "size=64k"), 0);
    return dir;
}

static void fill(const char *dir)
{
    _cleanup_close_ int fd = open(harness_format("%s/file", dir), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fallocate(fd, 0, 0, 64 << 10), 0);
}

static struct config config_of(void)
{
    return (struct config){
        .state_dir = (char *)harness_disk(), .runtime_dir = (char *)harness_disk(), .min_free = 5};
}

/* What a box mounted in another boot has a device that may be any file system's in this one. */
static void room_of_what_another_boot_had_mounted(void **state)
{
    (void)state;
    harness_need_root();
    struct config config = config_of();
    const char *full = file_system("full");
    struct record r[2];
    struct snapshot_box boxes[] = {box_on(full, &r[0]), box_on(full, &r[1])};
    struct snapshot s = {.boxes = boxes, .len = 2};
    struct evidence ev = {0};
    fill(full);
    r[1].kind = RBXJ_MOUNT;
    r[1].flags = REC_EVIDENCE;
    r[1].fstype = "tmpfs";
    r[1].mount.dev = r[1].parent.dev;
    assert_int_equal(room_look(&config, &s, &ev), 0);
    assert_int_equal(ev.counts[EVIDENCE_EXHAUSTED], 0); /* it is the box's own to fill */
    memset(boxes[1].box.supervisor.boot_id, 1, 16);
    assert_int_equal(room_look(&config, &s, &ev), 0);
    assert_int_equal(ev.counts[EVIDENCE_EXHAUSTED], 1);
    evidence_clear(&ev);
}

static void room_of_too_many_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    enum { MANY = 260 };
    struct config config = config_of();
    static struct record r[MANY];
    static struct snapshot_box boxes[MANY];
    struct snapshot s = {.boxes = boxes, .len = MANY};
    struct evidence ev = {0};
    for (size_t i = 0; i < MANY; i++)
        boxes[i] = box_on(file_system(harness_format("%zu", i)), &r[i]);
    assert_int_equal(room_look(&config, &s, &ev), 0);
    assert_true(ev.room_unseen);
    assert_int_equal(ev.counts[EVIDENCE_UNKNOWN], 1);
    evidence_clear(&ev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k16_room_that_cant_be_asked_for_is_doubt),
        journal_test(k16_what_does_not_answer_is_not_clean),
        journal_test(k16_a_link_to_what_does_not_answer_is_doubt),
        journal_test(room_of_what_another_boot_had_mounted),
        journal_test(room_of_too_many_is_doubt),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
