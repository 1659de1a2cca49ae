/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The seeds of the fuzz targets: seeds DIR writes DIR/TARGET/NAME. Journals are made by the library, and the
 * records of them, with some that have every field; the texts are in seeds_text.c, beside those of this
 * machine.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/salvage.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(bool good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "seeds: %s: %s\n", what, strerror(errno));
    exit(1);
}

void seed_write(const char *target, const char *name, const void *bytes, size_t len)
{
    char path[PATH_MAX];
    (void)mkdir(target, 0700);
    (void)snprintf(path, sizeof(path), "%s/%s", target, name);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && fd_write_all(fd, bytes, len) == 0, path);
}

static void seed_data_file(const char *name, const void *bytes, size_t len)
{
    static const char *const targets[] = {"pages", "salvage", "snapshot", "survive"};
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        seed_write(targets[i], name, bytes, len);
}

/* ---- a data file by LMDB alone: a tree of two levels, large values, free pages, records ---- */

static char scratch[] = "/tmp/rbxj-seeds-XXXXXX";

static const char *in_scratch(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    (void)snprintf(path, PATH_MAX, "%s/%s", scratch, name);
    return path;
}

static void must_do(int rc)
{
    if (rc > 0)
        errno = rc;
    must(rc == 0, "liblmdb");
}

static void put_record(MDB_txn *txn, MDB_dbi db, uint64_t incarnation, uint32_t seq)
{
    struct box box = {.name = "box", .incarnation = incarnation, .next_seq = 9};
    struct record r = {
        .incarnation = incarnation, .seq = seq, .kind = RBXJ_TMPDIR, .path = "/srv/box/some/directory"};
    _cleanup_free_ uint8_t *bytes = NULL;
    uint8_t large[6000] = {0};
    size_t len = 0;
    struct record_key k = record_key(incarnation, seq);
    must((seq ? record_encode(&r, seq, &bytes, &len) : record_encode_box(&box, 1, &bytes, &len)) == 0,
         "record");
    MDB_val key = {sizeof(k), &k}, value = {len, bytes};
    if (seq == 5)
        value = (MDB_val){sizeof(large), large};
    must_do(mdb_put(txn, db, &key, &value, 0));
}

static void fill(MDB_env *env, uint64_t first, uint64_t last)
{
    MDB_txn *txn;
    MDB_dbi records, meta;
    must_do(mdb_txn_begin(env, NULL, 0, &txn));
    must_do(mdb_dbi_open(txn, "records", MDB_CREATE, &records));
    must_do(mdb_dbi_open(txn, "meta", MDB_CREATE, &meta));
    for (uint64_t i = first; i < last; i++)
        for (uint32_t seq = 0; seq < 7; seq++)
            put_record(txn, records, i, seq);
    MDB_val key = {8, "instance"}, value = {16, "0123456789abcdef"};
    must_do(mdb_put(txn, meta, &key, &value, 0));
    must_do(mdb_txn_commit(txn));
}

static void seed_by_lmdb(void)
{
    MDB_env *env;
    char *bytes;
    const char *dir = in_scratch("lmdb");
    must(mkdir(dir, 0700) == 0, dir);
    must_do(mdb_env_create(&env));
    must_do(mdb_env_set_maxdbs(env, 4));
    must_do(mdb_env_open(env, dir, MDB_NOLOCK | MDB_NOSYNC, 0600));
    for (uint64_t i = 0; i < 3; i++)
        fill(env, 1, 5 + i);
    mdb_env_close(env);
    ssize_t len = fd_read_all(AT_FDCWD, in_scratch("lmdb/data.mdb"), 4 << 20, &bytes);
    must(len > 0, "a data file of LMDB");
    seed_data_file("lmdb", bytes, (size_t)len);
    free(bytes);
}

/* ---- journals, by supervisors that die ---- */

struct life {
    const char *name;
    int boxes, ended; /* of them */
    int directories;  /* each box */
    bool lock_with_content;
};
static const struct life lives[] = {
    {.name = "none"},
    {.name = "one", .boxes = 1, .directories = 1},
    {.name = "locks", .boxes = 3, .ended = 1, .directories = 1, .lock_with_content = true},
    {.name = "many", .boxes = 14, .ended = 6, .directories = 5},
};

static void good(int r, const struct rbxj_error *e)
{
    if (r >= 0)
        return;
    (void)fprintf(stderr, "seeds: %s (%s)\n", e->message, e->detail);
    _exit(1);
}

static void write_lock(const char *path)
{
    char content[LOCK_CONTENT_MAX - 1];
    memset(content, 'x', sizeof(content));
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && fd_write_all(fd, content, sizeof(content)) == 0, path);
}

static void live_box(struct rbxj *handle, const struct life *life, int i)
{
    struct rbxj_error e = {0};
    struct rbxj_resource plan[8] = {0};
    char name[16], paths[8][PATH_MAX];
    size_t n = 0;
    int fd = -1;
    (void)snprintf(name, sizeof(name), "box%d", i);
    for (; n < (size_t)life->directories; n++) {
        (void)snprintf(paths[n], PATH_MAX, "%s/%s.%zu", in_scratch(life->name), name, n);
        plan[n] = (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = paths[n]};
    }
    if (life->lock_with_content) {
        (void)snprintf(paths[n], PATH_MAX, "%s/%s.lock", in_scratch(life->name), name);
        write_lock(paths[n]);
        plan[n] = (struct rbxj_resource){.kind = RBXJ_LOCK, .path = paths[n]};
        n++;
    }
    const struct rbxj_box box = {.name = name, .plan = plan, .plan_len = n};
    good(rbxj_begin(handle, &box, NULL, &e), &e);
    for (uint32_t seq = 1; seq <= n && i % 3; seq++) {
        good(rbxj_acquire(handle, name, seq, NULL, &fd, &e), &e);
        cleanup_closep(&fd);
        fd = -1;
    }
    if (i >= life->ended)
        return;
    good(rbxj_undo(handle, name, NULL, &e), &e);
    good(rbxj_end(handle, name, &e), &e);
}

static void live(const struct life *life, const char *state, const char *run)
{
    struct rbxj_error e = {0};
    struct rbxj *handle;
    const struct rbxj_options options = {
        .state_dir = state, .runtime_dir = run, .config = in_scratch("conf")};
    good(rbxj_open(&options, &handle, &e), &e);
    for (int i = 0; i < life->boxes; i++)
        live_box(handle, life, i);
    (void)raise(SIGKILL);
}

/* Each record by itself, and under a log entry's frame. */
static void seed_records(const char *prefix, const struct autopsy *a)
{
    enum { EACH = 24 };
    char name[80];
    for (size_t i = 0, n = 0; i < a->records_len && n < EACH; i++) {
        const struct carved *c = &a->records[i];
        if (c->state == CARVED_DAMAGED)
            continue;
        (void)snprintf(name, sizeof(name), "%s-%zu", prefix, n++);
        seed_write("record", name, c->bytes, c->head.length);
    }
}

/* A data file without the room that was allocated ahead. */
static void seed_journal(const char *name, int dirfd, const char *path)
{
    struct autopsy a;
    struct rbxj_error e = {0};
    good(autopsy_read(dirfd, path, path, &a, &e), &e);
    must(autopsy_is_sound(&a), path);
    uint64_t last = a.metas[0].meta.last_page > a.metas[1].meta.last_page ? a.metas[0].meta.last_page
                                                                          : a.metas[1].meta.last_page;
    uint64_t len = (last + 1) * a.metas[0].meta.page_size;
    must(len <= a.file.len, path);
    seed_data_file(name, a.file.bytes, len);
    seed_records(name, &a);
    autopsy_clear(&a);
}

static void seed_life(const struct life *life)
{
    char name[64], state[PATH_MAX], run[PATH_MAX];
    int status;
    (void)snprintf(state, sizeof(state), "%s.state", in_scratch(life->name));
    (void)snprintf(run, sizeof(run), "%s.run", in_scratch(life->name));
    must(mkdir(in_scratch(life->name), 0700) == 0 && mkdir(state, 0700) == 0 && mkdir(run, 0700) == 0, state);
    pid_t pid = fork();
    if (pid == 0)
        live(life, state, run);
    must(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
         "a supervisor");
    _cleanup_close_ int state_fd = fd_open_dir(AT_FDCWD, state);
    must(state_fd >= 0, state);
    (void)snprintf(name, sizeof(name), "%s-disk", life->name);
    seed_journal(name, state_fd, "journal/data.mdb");
    _cleanup_closedir_ DIR *names = fd_open_names_at(AT_FDCWD, run);
    for (const struct dirent *d; (d = fd_next_name(names));) {
        if (strncmp(d->d_name, "journal-", 8) != 0)
            continue;
        (void)snprintf(name, sizeof(name), "%s/data.mdb", d->d_name);
        (void)snprintf(state, sizeof(state), "%s-boot", life->name);
        seed_journal(state, dirfd(names), name);
    }
}

/* ---- records with every field ---- */

static void fill_bytes(void *data, size_t len)
{
    static uint8_t counter;
    for (uint8_t *p = data; len; p++, len--)
        *p = counter = counter % 250 + 1;
}

static void seed_full_records(void)
{
    static char path[] = "/srv/a \n\\\xff/b", fstype[] = "tmpfs", source[] = "rbxj:1:2", root[] = "/";
    static uint8_t content[200];
    struct record r;
    struct box box;
    uint8_t *bytes;
    size_t len;
    char name[32];
    fill_bytes(content, sizeof(content));
    for (int kind = RBXJ_LOCK; kind <= RBXJ_PROCESS; kind++) {
        fill_bytes(&r, sizeof(r));
        r.kind = (enum rbxj_kind)kind;
        r.path = path;
        r.fstype = fstype;
        r.source = r.found_source = source;
        r.root = root;
        r.content = content;
        r.content_len = sizeof(content);
        r.process.pid = 4711;
        r.parent.handle_len = r.before.handle_len = r.id.handle_len = FILEID_HANDLE_MAX;
        must(record_encode(&r, 1, &bytes, &len) == 0, "record");
        (void)snprintf(name, sizeof(name), "kind-%d", kind);
        seed_write("record", name, bytes, len);
        struct log_frame frame;
        log_frame_fill(&frame, "7", r.incarnation, r.seq, 1, true, bytes, len);
        uint8_t *framed = malloc(sizeof(frame) + len);
        must(framed != NULL, "memory");
        memcpy(framed, &frame, sizeof(frame));
        memcpy(framed + sizeof(frame), bytes, len);
        (void)snprintf(name, sizeof(name), "log-%d", kind);
        seed_write("record", name, framed, sizeof(frame) + len);
        free(framed);
        free(bytes);
    }
    fill_bytes(&box, sizeof(box));
    (void)strcpy(box.name, "box-7.a_B");
    must(record_encode_box(&box, 1, &bytes, &len) == 0, "box");
    seed_write("record", "box", bytes, len);
    free(bytes);
}

/* ---- this machine ---- */

static void seed_file(const char *target, const char *name, const char *path)
{
    char *text;
    ssize_t len = fd_read_all(AT_FDCWD, path, 64 << 10, &text);
    if (len < 0)
        return; /* not on this machine, or too much of it */
    seed_write(target, name, text, (size_t)len);
    free(text);
}

static void seed_machine(void)
{
    static const char *const texts[] = {"stat", "status", "cgroup", "fdinfo/0"};
    char path[64];
    seed_file("mountinfo", "here", "/proc/self/mountinfo");
    seed_file("proctext", "locks", "/proc/locks");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        (void)snprintf(path, sizeof(path), "/proc/self/%s", texts[i]);
        seed_file("proctext", i == 3 ? "fdinfo" : texts[i], path);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0;
}

static void remove_scratch(void)
{
    (void)nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(int argc, char **argv)
{
    static const char config[] = "[journal]\ndurability=always\npreallocate=1M\nmap_size=16M\n";
    must(argc == 2 && (mkdir(argv[1], 0700) == 0 || errno == EEXIST) && chdir(argv[1]) == 0,
         "usage: seeds DIR");
    must(mkdtemp(scratch) != NULL && atexit(remove_scratch) == 0, scratch);
    (void)unsetenv("RBXJ_DURABILITY");
    _cleanup_close_ int fd = open(in_scratch("conf"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && fd_write_all(fd, config, sizeof(config) - 1) == 0, "configuration");
    seed_by_lmdb();
    for (size_t i = 0; i < ARRAY_LEN(lives); i++)
        seed_life(&lives[i]);
    seed_full_records();
    seed_machine();
    seed_texts();
    return 0;
}
