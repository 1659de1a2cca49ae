/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Damaged journals (I9): a data file of a journal in use is damaged at a place and in a way that the seed says, and
 * everything is tried on it: list, a dry run, health, forensics with a salvage, a new box, a replay. Nobody dies of it,
 * nothing is touched that the journal did not name for a dead box, and every record that still lies whole in the file is
 * found by the salvage.
 */
#include "crash.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/salvage.h"
#include "rbxj.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static struct {
    const char *state, *run, *work, *program;
    uint64_t random;
} world;

static uint64_t draw(uint64_t below)
{
    return crash_random(&world.random) % below;
}

/* ---- a journal in use ---- */

static const char *path_of(const char *box, int i)
{
    return harness_format("%s/%s.%d", world.work, box, i);
}

/* In a process of its own: a box with a few directories, and some that came and went. Says so by a byte. */
static _Noreturn void supervise(const char *box, int n, int out)
{
    struct rbxj_options options = {.state_dir = world.state, .runtime_dir = world.run};
    struct rbxj *handle = NULL;
    struct rbxj_box begin = {.name = box};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rbxj_open(&options, &handle, NULL) < 0 || rbxj_begin(handle, &begin, NULL, NULL) < 0)
        _exit(1);
    for (int i = 0; i < n; i++) {
        struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = path_of(box, i)};
        uint32_t seq;
        if (rbxj_take(handle, box, &r, &seq, NULL, NULL) < 0)
            _exit(1);
        if (i % 5 == 4 && (rmdir(r.path) < 0 || rbxj_released(handle, box, seq, NULL) < 0))
            _exit(1);
    }
    if (write(out, "", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static pid_t start(const char *box, int n)
{
    int ends[2];
    char byte;
    assert_int_equal(0, pipe2(ends, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0)
        supervise(box, n, ends[1]);
    harness_track(pid);
    (void)close(ends[1]);
    assert_int_equal(1, read(ends[0], &byte, 1));
    (void)close(ends[0]);
    return pid;
}

static const char *data_file(bool boot)
{
    char path[PATH_MAX], hex[33];
    uint8_t id[16];
    assert_int_equal(0, procid_boot(id));
    hex_encode(hex, id, 16);
    (void)snprintf(path, sizeof(path), "%s/journal-%s/data.mdb", world.run, hex);
    return boot ? harness_format("%s", path) : harness_format("%s/journal/data.mdb", world.state);
}

/* ---- damage ---- */

/* Only the pages that are in use count: the rest was allocated ahead. */
static void damage_bytes(uint8_t *bytes, size_t used)
{
    size_t page = draw(used / PAGE) * PAGE, other = draw(used / PAGE) * PAGE;
    switch (draw(7)) {
    case 0:
        bytes[draw(used)] ^= (uint8_t)(1 + draw(255));
        return;
    case 1: /* a meta */
        bytes[draw(2) * PAGE + draw(152)] ^= (uint8_t)(1 + draw(255));
        return;
    case 2: /* a head, or a pointer */
        bytes[page + draw(60)] ^= (uint8_t)(1 + draw(255));
        return;
    case 3:
        memset(bytes + page, 0, PAGE);
        return;
    case 4:
        for (size_t i = 0; i < PAGE; i++)
            bytes[page + i] = (uint8_t)draw(256);
        return;
    case 5: /* a write that went to another place */
        memmove(bytes + page, bytes + other, PAGE);
        return;
    default: /* several sectors */
        for (uint64_t n = 1 + draw(4); n > 0; n--)
            memset(bytes + draw(used / 512) * 512, (int)draw(256), 512);
    }
}

/* The file is another one then, as after a boot: damage in place is told by whoever only reads, but LMDB's own
 * structure has no checksums (sound.c). */
static void damage(const char *path)
{
    struct stat st;
    uint64_t last;
    const char *copy = harness_format("%s.damaged", path);
    _cleanup_close_ int in = open(path, O_RDONLY | O_CLOEXEC),
                        out = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(in >= 0 && out >= 0 && fstat(in, &st) == 0);
    size_t len = (size_t)st.st_size;
    _cleanup_free_ uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    assert_int_equal(st.st_size, read(in, bytes, len));
    memcpy(&last, bytes + (draw(2) ? PAGE : 0) + 136, sizeof(last));
    size_t used = (last + 1) * PAGE <= len ? (size_t)(last + 1) * PAGE : len;
    if (draw(8) == 0)
        len = draw(used);
    else
        damage_bytes(bytes, used);
    assert_int_equal(0, fd_write_all(out, bytes, len));
    assert_int_equal(0, rename(copy, path));
}

/* ---- what is tried ---- */

/* Whatever it says: it ends by itself. Its exit status. */
static int call(const char *const argv[])
{
    const char *full[16] = {world.program, "--state-dir", world.state, "--runtime-dir", world.run};
    size_t n = 5;
    for (size_t i = 0; argv[i]; i++)
        full[n++] = argv[i];
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            (void)dup2(null, fd);
        (void)execv(full[0], (char *const *)full);
        _exit(127);
    }
    harness_track(pid);
    int status = harness_wait(pid);
    if (!WIFEXITED(status))
        fail_msg("rbxj %s: killed by SIG%s", argv[0], sigabbrev_np(WTERMSIG(status)));
    return WEXITSTATUS(status);
}

#define CALL(...) call((const char *const[]){__VA_ARGS__, NULL})

/* A record whose bytes are as they were is found. */
static uint64_t must_be_found(const struct autopsy *before, const struct autopsy *after)
{
    uint64_t whole = 0;
    for (size_t i = 0; i < before->records_len; i++) {
        const struct carved *c = &before->records[i];
        uint64_t offset = (uint64_t)(c->bytes - before->bytes);
        bool found = false;
        if (c->state != CARVED_INTACT || offset + c->head.length > after->len ||
            memcmp(c->bytes, after->bytes + offset, c->head.length) != 0)
            continue;
        for (size_t k = 0; k < after->records_len && !found; k++)
            found = after->records[k].offset == offset && after->records[k].state != CARVED_DAMAGED;
        if (!found)
            fail_msg("the record at %" PRIu64 " is whole, and was not found", offset);
        whole++;
    }
    return whole;
}

static struct autopsy read_file(const char *path)
{
    struct autopsy a;
    struct rbxj_error e = {0};
    if (autopsy_read(AT_FDCWD, path, path, &a, &e) < 0)
        fail_msg("%s", e.message);
    return a;
}

static void run(const struct crash_case *c, uint64_t point)
{
    bool boot = *(const bool *)c->data, closed = point % 2;
    harness_need_root();
    world.random = point;
    world.program = getenv("RBXJ") ? getenv("RBXJ") : "build/rbxj";
    world.state = harness_format("%s/state", harness_disk());
    world.run = harness_format("%s/run", harness_disk());
    world.work = harness_format("%s/work", harness_disk());
    harness_mkdir(world.state);
    harness_mkdir(world.run);
    harness_mkdir(world.work);
    const char *decoy = harness_format("%s/decoy", world.work), *file = harness_format("%s/file", decoy);
    harness_mkdir(decoy);
    harness_write(file, "not ours");
    pid_t live = closed ? -1 : start("live", 3);
    harness_kill(start("dead", 6 + (int)draw(12)));

    const char *path = data_file(boot);
    struct autopsy before = read_file(path);
    damage(path);
    struct autopsy after = read_file(path);
    crash_count("records found whole", must_be_found(&before, &after));
    crash_count("damaged", !autopsy_is_sound(&after));
    bool sound = autopsy_is_sound(&after);
    autopsy_clear(&before);
    autopsy_clear(&after);

    int status = CALL("list");
    if (!sound && boot)
        assert_int_equal(3, status);
    (void)CALL("replay", "--dry-run");
    (void)CALL("health");
    (void)CALL("metrics");
    (void)CALL("forensics", "--json");
    (void)CALL("forensics", "--salvage", harness_format("%s/new", harness_disk()), path);
    /* a record of another box that is damaged is found at the undo: then nothing is undone, and that is said */
    status = CALL("run", "--box", "new", "--tmpdir", path_of("new", 0), "--", "true");
    assert_true(!path_exists(path_of("new", 0)) || (!sound && status != 0));
    status = CALL("replay");
    if (!sound && boot)
        assert_int_equal(3, status);
    (void)CALL("replay");
    assert_string_equal("not ours", harness_read(file));
    if (live > 0) {
        assert_int_equal(0, kill(live, 0));
        for (int i = 0; i < 3; i++)
            assert_true(path_exists(path_of("live", i)));
    }
}

static const bool yes = true, no = false;
static const struct crash_case cases[] = {
    {.name = "boot", .run = run, .all = 10000, .data = &yes},
    {.name = "disk", .run = run, .all = 10000, .data = &no},
};

int main(int argc, char **argv)
{
    return crash_main(argc, argv, 20, cases, ARRAY_LEN(cases));
}
