/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading without a trace (K28): from the outside, while others write, on read-only mounts, from a copy.
 */
#include "journal_fixture.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <xxhash.h>

/* ---- a picture of a directory: names, content, and everything that stat tells but the access time ---- */

static void picture_file(XXH3_state_t *hash, int dirfd, const char *name)
{
    struct stat st;
    assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    memset(&st.st_atim, 0, sizeof(st.st_atim));
    XXH3_64bits_update(hash, name, strlen(name));
    XXH3_64bits_update(hash, &st, sizeof(st));
    if (!S_ISREG(st.st_mode))
        return;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOATIME | O_CLOEXEC);
    _cleanup_free_ char *buf = malloc(1 << 16);
    ssize_t n;
    while ((n = read(fd, buf, 1 << 16)) > 0)
        XXH3_64bits_update(hash, buf, (size_t)n);
    assert_int_equal(n, 0);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void picture_dir(XXH3_state_t *hash, const char *dir)
{
    char *names[64] = {NULL};
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        if (strcmp(entry->d_name, "..") != 0)
            names[n++] = harness_format("%s", entry->d_name);
    qsort(names, n, sizeof(*names), compare);
    for (size_t i = 0; i < n; i++) {
        picture_file(hash, dirfd(d), names[i]);
        char *path = harness_format("%s/%s", dir, names[i]);
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        if (S_ISDIR(st.st_mode) && strcmp(names[i], ".") != 0)
            picture_dir(hash, path);
    }
    (void)closedir(d);
}

static uint64_t picture(const struct place *p)
{
    XXH3_state_t *hash = XXH3_createState();
    (void)XXH3_64bits_reset(hash);
    picture_dir(hash, p->state);
    picture_dir(hash, p->runtime);
    uint64_t sum = XXH3_64bits_digest(hash);
    (void)XXH3_freeState(hash);
    return sum;
}

/* A journal with three boxes, one of them on disk, made by a process that is gone. */
static struct place make_boxes(void)
{
    struct place p = place_make();
    pid_t pid = CHILD({
        struct rbxj_error e;
        struct journal *j = place_open(&p);
        CHECK(begin_one(j, "a", harness_format("%s/a", p.kept), &e) == 0);
        CHECK(begin_one(j, "b", harness_format("%s/b", p.lost), &e) == 0);
        CHECK(begin_one(j, "c", NULL, &e) == 0);
    });
    assert_child(pid);
    return p;
}

static void has_boxes(const struct place *p, size_t n)
{
    static const char *const names[] = {"a", "b", "c"};
    struct rbxj_error e = {0};
    struct snapshot s;
    assert_ok(snapshot_read(p->state, p->runtime, &s, &e), e);
    assert_int_equal(s.len, n);
    assert_int_equal(s.damaged, 0);
    for (size_t i = 0; i < s.len; i++)
        assert_string_equal(s.boxes[i].box.name, names[i]); /* in the order begun */
    if (n) {
        assert_int_equal(box_liveness(NULL, p->state, &s.boxes[0].box), LIVE_DEAD);
        assert_string_equal(s.boxes[0].records[0].path, harness_format("%s/a", p->kept));
    }
    snapshot_clear(&s);
}

static void k28_reading_changes_no_byte(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    uint64_t before = picture(&p);
    has_boxes(&p, 3);
    assert_true(picture(&p) == before);
    boot_number++; /* a boot that has no journal yet: the disk's */
    has_boxes(&p, 1);
    assert_true(picture(&p) == before);
}

static void k28_reading_nothing_makes_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    for (int i = 0; i < 3; i++) {
        assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
        assert_true(s.nothing);
        assert_int_equal(snapshot_is_nothing(p.state, p.runtime, &e), 1);
        assert_false(path_exists(p.runtime));
        if (i == 0)
            harness_write(harness_format("%s/alive", p.state),
                          ""); /* all that a killed first opener may leave */
        if (i == 1)
            assert_int_equal(system(harness_format("rm -r %s", p.state)), 0);
    }
}

static void read_only(const char *dir)
{
    assert_int_equal(mount(dir, dir, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
}

static void k28_reading_works_on_read_only_mounts(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    read_only(p.state);
    read_only(p.runtime);
    has_boxes(&p, 3);
    boot_number++;
    has_boxes(&p, 1);
}

static void k28_reading_works_from_a_copy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes(), copy = p;
    copy.state = harness_format("%s/state-copy", harness_disk());
    copy.runtime = harness_format("%s/run-copy", harness_disk());
    assert_int_equal(
        system(harness_format("cp -a %s %s && cp -a %s %s", p.state, copy.state, p.runtime, copy.runtime)),
        0);
    assert_int_equal(system(harness_format("rm -r %s %s", p.state, p.runtime)), 0);
    has_boxes(&copy, 3);
    boot_number++; /* another machine */
    has_boxes(&copy, 1);
}

/* ---- while others write ---- */

/* A box with one record or two, as fast as it can. */
static void churn(const struct place *p, struct shared *s, int number)
{
    struct rbxj_error e;
    struct journal *j = place_open(p);
    char name[16], path[4200];
    (void)snprintf(name, sizeof(name), "w%d", number);
    (void)snprintf(path, sizeof(path), "%s/w%d", p->lost, number);
    struct box box = {0};
    const char *paths = path;
    CHECK(begin(j, &box, name, &paths, 1, &e) == 0);
    atomic_fetch_add(&s->step, 1);
    for (uint32_t seq = 2; !atomic_load(&s->stop); seq++) {
        CHECK(intend(j, &box, RBXJ_LOCK, harness_format("%s/l", path), &e) == 0);
        CHECK(journal_drop(j, box.incarnation, seq, &e) == 0);
    }
}

static void k28_reading_while_others_write_is_consistent(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t pids[2];
    for (int i = 0; i < 2; i++)
        pids[i] = CHILD(churn(&p, s, i));
    wait_for(s, 2);
    for (int i = 0; i < 200; i++) {
        struct rbxj_error e = {0};
        struct snapshot snapshot;
        assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
        assert_int_equal(snapshot.damaged, 0);
        assert_int_equal(snapshot.len, 2);
        for (int k = 0; k < 2; k++)
            assert_in_range(snapshot.boxes[k].len, 1, 2);
        snapshot_clear(&snapshot);
    }
    atomic_store(&s->stop, 1);
    for (int i = 0; i < 2; i++)
        assert_child(pids[i]);
}

/* The library's copying comes here: with a fast writer, the journal has moved on after every piece. */
static struct shared *fast_writer;

/* So many readings of both meta pages have that writer between the one and the other. */
static struct shared *between;
static int torn;

static bool unsteady; /* whoever looks again sees something else, of no meaning to LMDB */

static void let_write(struct shared *writer)
{
    int turn = atomic_fetch_add(&writer->step, 1) + 1;
    int64_t deadline = now_monotonic_ns() + 30000000000;
    while (atomic_load(&writer->value[0]) < (uint64_t)turn && now_monotonic_ns() < deadline)
        (void)usleep(100);
}

static ssize_t read_torn(int fd, uint8_t *buf, size_t len)
{
    ssize_t n = syscall(SYS_pread64, fd, buf, 4096, 0), rest;
    let_write(between);
    let_write(between);
    rest = syscall(SYS_pread64, fd, buf + 4096, len - 4096, 4096);
    return n < 0 || rest < 0 ? -1 : n + rest;
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    if (torn && len == 65536 && offset == 0) {
        torn--;
        return read_torn(fd, buf, len);
    }
    if (unsteady && len == 152) {
        ssize_t n = syscall(SYS_pread64, fd, buf, len, offset);
        ((uint8_t *)buf)[8] ^= 1;
        return n;
    }
    if (fast_writer && len == 152) /* the look at the meta page after what it names was read; LMDB's, too */
        let_write(fast_writer);
    return syscall(SYS_pread64, fd, buf, len, offset);
}

static void write_in_turns(const struct place *p, struct shared *s)
{
    struct rbxj_error e;
    struct journal *j = place_open(p);
    atomic_store(&s->value[1], 1);
    for (uint64_t turn = 1;; turn++) {
        while (atomic_load(&s->step) < (int)turn)
            (void)usleep(100);
        for (int i = 0; i < 2; i++)
            CHECK(begin_one(j, harness_format("t%lu-%d", turn, i), NULL, &e) == 0);
        atomic_store(&s->value[0], turn);
    }
}

/* Its journal is open. */
static pid_t start_writer(const struct place *p, struct shared *s)
{
    pid_t writer = CHILD(write_in_turns(p, s));
    for (int i = 0; i < 30000 && !atomic_load(&s->value[1]); i++)
        (void)usleep(1000);
    assert_true(atomic_load(&s->value[1]));
    return writer;
}

static void k28_too_fast_for_a_copy_takes_a_reader_or_says_busy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    pid_t writer = start_writer(&p, s);
    fast_writer = s;
    int r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    fast_writer = NULL;
    assert_ok(r, e);
    int turns = atomic_load(&s->step);
    assert_true(turns >= 5); /* so many tries, and one that nobody can disturb */
    assert_int_equal(snapshot.len, 3 + 2 * turns);
    snapshot_clear(&snapshot);
    read_only(p.runtime); /* no reader slot can be had there: pages would be used again below it */
    fast_writer = s;
    r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    fast_writer = NULL;
    assert_refused(r, e, RBXJ_E_JOURNAL_BUSY, "too fast");
    harness_kill(writer);
    e = (struct rbxj_error){0};
    assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
    assert_int_equal(snapshot.len, 3 + 2 * atomic_load(&s->step));
    snapshot_clear(&snapshot);
}

/* The meta pages are not read at one moment, however often; neither from outside nor through a reader slot. */
static void k28_metas_of_different_moments_are_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    pid_t writer = start_writer(&p, s);
    between = s;
    for (int open = 0; open < 2; open++) {
        struct journal *j = open ? place_open(&p) : NULL;
        torn = 12;
        int r = open ? journal_snapshot(j, &snapshot, &e) : snapshot_read(p.state, p.runtime, &snapshot, &e);
        int left = torn;
        torn = 0;
        assert_ok(r, e);
        assert_int_equal(left, 0);
        snapshot_clear(&snapshot);
        if (open)
            assert_true(atomic_load(&j->boot.sound->ino) != 0); /* nobody has to look at it as a whole */
    }
    harness_kill(writer);
}

/* The main database's root page of the newest snapshot, as LMDB dies of it. */
static void damage_root(const char *data)
{
    uint64_t txn[2], root;
    uint16_t lower = 0;
    _cleanup_close_ int fd = open(data, O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &txn[i], sizeof(txn[i]), i * 4096 + 144), sizeof(txn[i]));
    assert_int_equal(pread(fd, &root, sizeof(root), (txn[1] > txn[0]) * 4096 + 128), sizeof(root));
    assert_int_equal(pwrite(fd, &lower, sizeof(lower), (off_t)root * 4096 + 12), sizeof(lower));
}

static void k27_reader_slot_shows_lmdb_nothing_that_is_damaged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    unsteady = true;
    int r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    unsteady = false;
    assert_ok(r, e);
    assert_int_equal(snapshot.len, 3);
    snapshot_clear(&snapshot);
    damage_root(harness_format("%s/data.mdb", place_folder(&p)));
    pid_t reader = CHILD({
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka's would go on in the child */
        unsteady = true;
        r = snapshot_read(p.state, p.runtime, &snapshot, &e);
        CHECK(r == -RBXJ_E_JOURNAL_DAMAGED);
    });
    assert_child(reader);
}

/* A process that has the journal open must not lose its locks to its own look, under any spelling. */
static void k9_reading_keeps_the_locks_of_this_process(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    const char *state_dir = harness_format("%s/../state", p.state),
               *runtime = harness_format("%s/../run", p.runtime);
    assert_ok(snapshot_read(state_dir, runtime, &s, &e), e);
    box = s.boxes[0].box;
    box.supervisor.pid_ns++; /* as from another namespace: its slot is looked at */
    (void)box_liveness(NULL, state_dir, &box);
    snapshot_clear(&s);
    pid_t pid = CHILD({
        CHECK(fd_record_holder(j->alive_fd, ALIVE_OPEN_BYTE, NULL) == 1);
        CHECK(fd_record_holder(j->alive_fd, alive_slot(box.incarnation), NULL) == 1);
    });
    assert_child(pid);
}

/* ---- damage ---- */

static void i9_damaged_record_is_counted_and_its_box_marked(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.lost)),
               b = must_begin(j, "b", harness_format("%s/b", p.lost));
    MDB_txn *txn;
    struct record_key keys[] = {record_key(a.incarnation, 1), record_key(b.incarnation, 0)};
    struct snapshot s;
    struct snapshot_box sb;
    assert_int_equal(intend(j, &a, RBXJ_LOCK, harness_format("%s/l", p.lost), &e), 0);
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), 0);
    for (size_t i = 0; i < 2; i++) {
        MDB_val key = {sizeof(keys[i]), &keys[i]}, data;
        uint8_t copy[1024];
        assert_int_equal(mdb_get(txn, j->boot.records, &key, &data), 0);
        memcpy(copy, data.mv_data, data.mv_size);
        copy[data.mv_size - 1] ^= 1;
        data.mv_data = copy;
        assert_int_equal(mdb_put(txn, j->boot.records, &key, &data, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.damaged, 2);
    assert_int_equal(s.len, 1);
    assert_int_equal(s.boxes[0].damaged, 1); /* K24: it is not undone */
    assert_int_equal(s.boxes[0].len, 1);
    snapshot_clear(&s);
    assert_refused(journal_get(j, "a", &sb, &e), e, RBXJ_E_JOURNAL_DAMAGED, "box a");
    e = (struct rbxj_error){0};
    assert_refused(journal_get(j, "b", &sb, &e), e, RBXJ_E_JOURNAL_DAMAGED, "box b");
    e = (struct rbxj_error){0};
    assert_refused(journal_drop(j, a.incarnation, 1, &e), e, RBXJ_E_JOURNAL_DAMAGED, "seq 1");
    e = (struct rbxj_error){0};
    assert_refused(journal_end(j, a.incarnation, &e), e, RBXJ_E_LEFT, "seq 1");
    /* its name stays taken, the others go on */
    e = (struct rbxj_error){0};
    assert_refused(begin_one(j, "b", NULL, &e), e, RBXJ_E_JOURNAL_DAMAGED, "header");
    assert_int_equal(begin_one(j, "c", harness_format("%s/c", p.kept), &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k28_reading_changes_no_byte),
        journal_test(k28_reading_nothing_makes_nothing),
        journal_test(k28_reading_works_on_read_only_mounts),
        journal_test(k28_reading_works_from_a_copy),
        journal_test(k28_reading_while_others_write_is_consistent),
        journal_test(k27_reader_slot_shows_lmdb_nothing_that_is_damaged),
        journal_test(k28_too_fast_for_a_copy_takes_a_reader_or_says_busy),
        journal_test(k28_metas_of_different_moments_are_no_damage),
        journal_test(k9_reading_keeps_the_locks_of_this_process),
        journal_test(i9_damaged_record_is_counted_and_its_box_marked),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
