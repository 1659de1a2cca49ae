/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The power is cut while processes journal: what they write and flush is recorded (disk_calls.h), and of any
 * moment of it the disk is built as it may be left (disk_image.h), opened in another boot, listed and
 * replayed. Nothing that was acknowledged may be missing, nothing may be there that nobody began
 * (disk_model.h), no state may be refused as damaged, and nothing that was taken may be there without its
 * record.
 *
 * With flushes left out, one kind at a time, the same must find a loss.
 */
#include "base/cleanup.h"
#include "crash.h"
#include "disk_calls.h"
#include "disk_look.h"
#include "disk_work.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>

static char *deep_parent(const char *in)
{
    char *path = harness_format("%s", in);
    for (unsigned i = 0; i < 12; i++) {
        path = harness_format("%s/%0200u", path, i);
        harness_mkdir(path);
    }
    return path;
}

static void configure(const struct world *w, bool always, unsigned map_size)
{
    const char *durability = always ? "always" : "resource";
    harness_write(w->config, harness_format("[journal]\ndurability=%s\nmap_size=%uM\npreallocate=1M\n",
                                            durability, map_size));
}

static struct world world_make(const struct setting *s, uint64_t point)
{
    struct world w = {.s = s, .model = model_new(), .random = point};
    harness_need_root();
    w.root = harness_format("%s/root", harness_disk());
    w.state = harness_format("%s/state", w.root);
    w.kept = harness_format("%s/kept", w.root);
    w.config = harness_format("%s/rbxj.conf", harness_disk());
    w.cut_state = harness_format("%s/cut", harness_tmpfs());
    w.cut_runtime = harness_format("%s/cut-run", harness_tmpfs());
    harness_mkdir(w.root);
    harness_mkdir(w.state);
    harness_mkdir(w.kept);
    harness_mkdir(harness_format("%s/lost", harness_tmpfs()));
    configure(&w, s->always, 16);
    w.model->always = s->always;
    const char *lost = harness_format("%s/lost", harness_tmpfs());
    const char *parents[PARENTS] = {w.kept, s->big ? deep_parent(lost) : lost,
                                    s->big ? deep_parent(harness_disk()) : w.kept};
    for (size_t i = 0; i < PARENTS; i++)
        (void)snprintf(w.model->parents[i], sizeof(w.model->parents[i]), "%s", parents[i]);
    disk_no_reserve = s->no_fallocate;
    disk_log_open(w.root);
    return w;
}

/* ---- cuts ---- */

static struct disk_cut draw_cut(uint64_t *random)
{
    static const unsigned newest[] = {0, 10, 50, 50, 90, 100};
    return (struct disk_cut){
        .random = crash_random(random),
        .newest = newest[crash_random(random) % 6],
        .torn = crash_random(random) % 4 == 0,
    };
}

/* Another boot finds nothing in the runtime directory, or what is left of an earlier one. */
static void make_runtime(const struct world *w, uint64_t draw)
{
    disk_empty(w->cut_runtime);
    if (draw % 3 == 0) {
        char *folder = harness_format("%s/journal-%032d", w->cut_runtime, 7);
        harness_mkdir(folder);
        harness_write(harness_format("%s/data.mdb", folder), "not a journal");
    }
}

/* LMDB's lock file is a shared map, of which any part may have been written back. */
static void leave_lock_file(const struct world *w, uint64_t *random)
{
    char data[16384];
    _cleanup_close_ int from = open(harness_format("%s/journal/lock.mdb", w->state), O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int to = open(harness_format("%s/journal/lock.mdb", w->cut_state), O_WRONLY | O_CLOEXEC);
    ssize_t n = from < 0 || to < 0 ? 0 : read(from, data, sizeof(data));
    for (ssize_t at = 0; at + 512 <= n; at += 512)
        if (crash_random(random) % 2)
            assert_int_equal(pwrite(to, data + at, 512, at), 512);
}

/* One state: 0 it is good, 1 it is not. */
static int try_cut(const struct world *w, struct disk_image *image, uint64_t at, uint64_t *random)
{
    struct disk_cut cut = draw_cut(random);
    cut.whole = w->s->container;
    int status;
    disk_empty(w->cut_state);
    make_runtime(w, crash_random(random));
    disk_image_write(image, &cut, "state", w->cut_state);
    if (crash_random(random) % 2)
        leave_lock_file(w, random);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (w->s->left_out) {
            int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            if (null < 0 || dup2(null, STDERR_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
                _exit(1);
        }
        disk_look(w, image, &cut, at);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    crash_count("states", 1);
    if (status == 0)
        return 0;
    if (!w->s->left_out)
        fail_msg("cut after %" PRIu64 " of %zu entries (newest %u%s): %s %d", at, disk_log_len(), cut.newest,
                 cut.torn ? ", torn" : "", WIFSIGNALED(status) ? "signal" : "exit",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 1;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t below(uint64_t *random, uint64_t n)
{
    return n ? crash_random(random) % n : 0;
}

/* Where the power is cut: anywhere, or where the journal comes to be. */
static void draw_moments(const struct world *w, uint64_t *random, uint64_t *at, size_t n)
{
    uint64_t begun = 0, from = w->replayed, len = disk_log_len() + 1;
    while (begun < len && !model_has_begun(w->model, begun))
        begun++;
    if (w->s->left_out) /* there is something to lose */
        from = len / 2;
    uint64_t early = begun + 20 < len ? begun + 20 : len;
    for (size_t i = 0; i < n; i++) {
        bool soon = w->s->early || below(random, 8) == 0;
        at[i] = from ? from + below(random, len - from) : below(random, soon ? early : len);
    }
    qsort(at, n, sizeof(*at), compare_numbers);
}

static struct disk_image *new_image(void)
{
    static const char *const directories[] = {"state", "kept"};
    return disk_image_new(directories, ARRAY_LEN(directories));
}

static unsigned try_cuts(const struct world *w, uint64_t random)
{
    uint64_t *at = calloc(w->s->states, sizeof(*at)), done = 0;
    struct disk_image *image = new_image();
    unsigned lost = 0;
    assert_non_null(at);
    draw_moments(w, &random, at, w->s->states);
    for (unsigned i = 0; i < w->s->states && !lost; i++) {
        while (done < at[i])
            disk_image_apply(image, disk_log_get(done++), w->s->left_out);
        lost += (unsigned)try_cut(w, image, at[i], &random);
    }
    disk_image_free(image);
    free(at);
    return lost;
}

/* The log must be all that happened. */
static void check_log(const struct world *w)
{
    struct disk_image *image = new_image();
    for (size_t i = 0; i < disk_log_len(); i++)
        disk_image_apply(image, disk_log_get(i), 0);
    disk_image_compare(image, "state", w->state, "lock.mdb");
    disk_image_free(image);
}

/* ---- the cases ---- */

/* In the next boot, the reaper: its work is what is cut. */
static void run_replay(struct world *w)
{
    struct rbxj_options o = disk_options(w, w->state);
    disk_empty(w->model->parents[PARENT_LOST]);
    atomic_fetch_add(&w->model->cleanups, w->model->boxes_len);
    (void)fflush(NULL);
    w->replayed = disk_log_mark();
    pid_t pid = fork();
    if (pid == 0) {
        disk_boot = 1;
        struct model_op *op = model_start(w->model, 0, MODEL_REPLAY, 0, 0, 0);
        disk_replay(&o, &w->model->incident);
        model_end(op);
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
}

/* What the first cut has left is what the second boot begins with: boxes of a process that is no more. */
#define OLD (MODEL_PROCESSES - 1)

static void inherit(struct model *to, const struct model *from, const uint32_t *found)
{
    for (uint32_t i = 0; i < from->boxes_len; i++) {
        if (!found[i])
            continue;
        uint32_t n = model_box_new(to, OLD, from->boxes[i].name);
        to->boxes[n] = from->boxes[i];
        to->boxes[n].process = OLD;
        for (uint32_t seq = 0; seq < from->boxes[i].len; seq++) {
            if (!(found[i] & (1u << seq)))
                continue;
            struct model_op *op = model_start(to, OLD, MODEL_ADD, n, seq, seq);
            op->start = op->end = 1; /* before all that follows */
            op->durable = true;
        }
    }
    to->cleanups = from->cleanups + from->boxes_len;
}

/* The second boot: new boxes, and a replay of the old ones. */
static _Noreturn void second_boot(const struct world *first, const struct world *w)
{
    static uint32_t found[MODEL_BOXES];
    struct work work = {.model = w->model,
                        .options = disk_options(w, w->state),
                        .operations = 8,
                        .slots = 2,
                        .random = w->random};
    disk_boot = 1;
    disk_list(first, &work.options, found);
    inherit(w->model, first->model, found);
    if (w->random % 2)
        work_as(&work, 1);
    struct model_op *op = model_start(w->model, OLD, MODEL_REPLAY, 0, 0, 0);
    disk_replay(&work.options, NULL);
    model_end(op);
    if (w->random % 2 == 0)
        work_as(&work, 1);
    _exit(0);
}

/* Cuts the power once, and records the next boot from there. */
static void run_second_boot(struct world *w)
{
    struct world first = *w;
    struct disk_image *image = new_image();
    struct disk_cut cut = draw_cut(&w->random);
    uint64_t at = crash_random(&w->random) % (disk_log_len() + 1);
    for (uint64_t i = 0; i < at; i++)
        disk_image_apply(image, disk_log_get(i), 0);
    disk_empty(w->state);
    disk_empty(w->kept);
    disk_empty(w->model->parents[PARENT_LOST]);
    disk_empty(harness_format("%s/run", harness_tmpfs()));
    w->model = model_new();
    w->model->always = w->random % 3 == 0;
    configure(w, w->model->always, w->random % 5 ? 16 : 32);
    memcpy(w->model->parents, first.model->parents, sizeof(w->model->parents));
    disk_log_open(w->root); /* anew */
    disk_image_write(image, &cut, "state", w->state);
    disk_image_free(image);
    disk_log_add(&(struct disk_entry){.op = DISK_SYNC});
    w->replayed = disk_log_mark();
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        second_boot(&first, w);
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
}

static void run(const struct crash_case *c, uint64_t point)
{
    const struct setting *s = c->data;
    struct world w = world_make(s, point);
    struct work work = {
        .model = w.model,
        .options = disk_options(&w, w.state),
        .processes = s->processes,
        .operations = s->operations,
        .slots = s->slots,
        .big = s->big,
        .killed = s->killed,
        .random = point,
    };
    if (s->beside)
        w.beside = beside_run(&work.options, s->operations, point);
    else
        work_run(&work);
    if (s->replay)
        run_replay(&w);
    if (s->twice)
        run_second_boot(&w);
    disk_log_stop();
    crash_count("entries", disk_log_len());
    check_log(&w);
    disk_empty(w.kept);
    if (s->container)
        disk_empty(w.model->parents[PARENT_LOST]);
    char *bystander = harness_format("%s/bystander", w.kept);
    harness_mkdir(bystander);
    unsigned lost = try_cuts(&w, point);
    assert_true(path_exists(bystander));
    if (s->left_out && !lost)
        fail_msg("flushes were left out, and nothing was found");
}

#define CASE(case_name, case_all, ...)                                                                       \
    {                                                                                                        \
        .name = case_name, .run = run, .all = case_all, .data = &(const struct setting)                      \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

#define BOXES .processes = 1, .operations = 60, .slots = 3
#define MANY_BOXES .processes = 1, .operations = 200, .slots = 3
/* Without flushes of one kind a loss must be found, in as many states as may be needed. */
#define WITHOUT(flush) .states = 300, .left_out = 1u << (flush)

static const struct crash_case cases[] = {
    CASE("boxes", 2000, BOXES, .states = 30),
    CASE("group", 2000, .processes = 4, .operations = 30, .slots = 2, .states = 30),
    CASE("killed", 2000, .processes = 4, .operations = 30, .slots = 2, .killed = true, .states = 30),
    CASE("always", 2000, .processes = 2, .operations = 40, .slots = 3, .always = true, .states = 30),
    CASE("container", 2000, .processes = 2, .operations = 40, .slots = 3, .always = true, .container = true,
         .states = 30),
    CASE("growth", 2000, .processes = 2, .operations = 30, .slots = 4, .big = true, .states = 30),
    CASE("unreserved", 2000, .processes = 2, .operations = 30, .slots = 4, .big = true, .no_fallocate = true,
         .states = 30),
    CASE("creation", 2000, .processes = 2, .operations = 2, .slots = 1, .early = true, .states = 30),
    CASE("reaper", 2000, .processes = 1, .operations = 24, .slots = 8, .replay = true, .states = 30),
    CASE("twice", 2000, .processes = 1, .operations = 40, .slots = 6, .twice = true, .states = 30),
    CASE("quarantine", 1000, .operations = 12, .beside = true, .states = 30),
    CASE("no-fdatasync", 20, MANY_BOXES, WITHOUT(FLUSH_FDATASYNC)),
    CASE("no-dsync", 20, MANY_BOXES, WITHOUT(FLUSH_DSYNC)),
    CASE("no-undo-fsync", 20, MANY_BOXES, WITHOUT(FLUSH_RESOURCE)),
    CASE("creation-no-fsync", 20, .processes = 1, .operations = 16, .slots = 2, WITHOUT(FLUSH_DIRECTORY)),
    CASE("quarantine-no-fdatasync", 20, .operations = 12, .beside = true, WITHOUT(FLUSH_FDATASYNC)),
    CASE("quarantine-no-fsync", 20, .operations = 12, .beside = true, WITHOUT(FLUSH_DIRECTORY)),
};

int main(int argc, char **argv)
{
    return crash_main(argc, argv, 40, cases, ARRAY_LEN(cases));
}
