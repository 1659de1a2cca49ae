/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A property test against a model of DESIGN.md (model.h): a point is a seed, that is a sequence of
 * operations. One that fails is made shorter as long as it still fails, and printed.
 *
 * A power loss is a boot that is another one by what the library asks: the boot id and the time since the
 * boot are answered here, at link time.
 */
#include "crash.h"
#include "model_apart.h"
#include "model_run.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <systemd/sd-id128.h>
#include <time.h>
#include <unistd.h>

/* ---- other boots ---- */

static int boot_number;
static int64_t boot_start_ns;

int sd_id128_get_boot(sd_id128_t *ret)
{
    static const sd_id128_t first = SD_ID128_MAKE(6d, 6f, 64, 65, 6c, 00, 40, 00, 80, 00, 00, 00, 00, 00, 00,
                                                  00);
    *ret = first;
    ret->bytes[15] = (uint8_t)boot_number;
    return 0;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    (void)syscall(SYS_clock_gettime, clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (clock != CLOCK_BOOTTIME || boot_start_ns == 0)
        return (int)syscall(SYS_clock_gettime, clock, ret);
    int64_t up = clock_ns(CLOCK_BOOTTIME) - boot_start_ns;
    *ret = (struct timespec){.tv_sec = up / 1000000000, .tv_nsec = up % 1000000000};
    return 0;
}

void boot_next(void)
{
    boot_number++;
    boot_start_ns = clock_ns(CLOCK_BOOTTIME);
}

/* ---- one sequence, in a world of its own ---- */

static struct outcome {
    char trouble[1500];
    struct op ops[MAX_OPS]; /* as they were done */
    int at;
    bool good;
} * outcome;

/* At its end everybody is dead, and a replay undoes what it may; the next boot finds the disk as that left
 * it. */
static void run_sequence(const void *data)
{
    const struct sequence *s = data;
    static const struct op end[] = {{.kind = OP_CRASH, .supervisor = 0},
                                    {.kind = OP_CRASH, .supervisor = 1},
                                    {.kind = OP_CRASH, .supervisor = 2},
                                    {.kind = OP_DRY_RUN, .pick = 1},
                                    {.kind = OP_REPLAY, .pick = 1},
                                    {.kind = OP_REPLAY, .pick = 1},
                                    {.kind = OP_HEALTH},
                                    {.kind = OP_POWER_LOSS},
                                    {.kind = OP_REPLAY, .pick = 1}};
    static struct run run;
    struct swarm from = s->from;
    world_make(s->always, s->real_disk);
    run.m.always = s->always;
    for (int i = 0; i < s->n + (int)ARRAY_LEN(end); i++) {
        outcome->at = i;
        (void)alarm(120);
        struct op op = i >= s->n ? end[i - s->n] : from.random ? op_draw(&from, &run.m) : s->ops[i];
        if (i < s->n)
            outcome->ops[i] = op;
        if (!op_infos[op.kind].act(&run, &op) || !run_check(&run, s->slow || i % 3 == 0)) {
            memcpy(outcome->trouble, run.trouble, sizeof(run.trouble));
            world_end();
            return;
        }
    }
    world_end();
    outcome->good = true;
}

static bool holds(const struct sequence *s)
{
    memset(outcome, 0, sizeof(*outcome));
    int status = apart_run(run_sequence, s, world_group());
    if (status != 0) {
        outcome->good = false;
        (void)snprintf(outcome->trouble, sizeof(outcome->trouble), "died with status %#x", status);
    }
    return outcome->good;
}

/* ---- drawing and shrinking ---- */

static struct sequence without(const struct sequence *s, int from, int n)
{
    struct sequence shorter = *s;
    memmove(&shorter.ops[from], &shorter.ops[from + n], (size_t)(s->n - from - n) * sizeof(s->ops[0]));
    shorter.n -= n;
    return shorter;
}

static struct sequence shrink(struct sequence s)
{
    for (int size = s.n / 2; size > 0; size /= 2)
        for (int from = s.n - size; from >= 0; from -= size) {
            if (from + size > s.n)
                continue;
            struct sequence shorter = without(&s, from, size);
            if (!holds(&shorter))
                s = shorter;
        }
    for (int i = s.n - 1; i >= 0; i--)
        for (int k = s.ops[i].plan_len - 1; k >= 0; k--) {
            struct sequence shorter = s;
            struct op *op = &shorter.ops[i];
            memmove(&op->plan[k], &op->plan[k + 1], (size_t)(op->plan_len - k - 1) * sizeof(op->plan[0]));
            op->plan_len--;
            if (!holds(&shorter))
                s = shorter;
        }
    return s;
}

static void print_sequence(const struct sequence *s)
{
    char text[1024];
    printf("durability=%s%s\n", s->always ? "always" : "resource", s->real_disk ? ", on a disk" : "");
    for (int i = 0; i < s->n; i++) {
        op_print(&s->ops[i], text, sizeof(text));
        printf("%2d %s\n", i + 1, text);
    }
    printf("%2d all crash, dry run, replay, replay, health, power loss, replay\n", s->n + 1);
}

static void run(const struct crash_case *c, uint64_t point)
{
    (void)c;
    harness_need_root();
    world_make_group();
    outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(outcome != MAP_FAILED);
    struct sequence s = sequence_draw(point);
    crash_count("operations", (uint64_t)s.n);
    if (holds(&s)) {
        memcpy(s.ops, outcome->ops, sizeof(s.ops));
        print_sequence(&s);
        return;
    }
    printf("before it was made shorter: at %d: %s\n", outcome->at + 1, outcome->trouble);
    memcpy(s.ops, outcome->ops, sizeof(s.ops));
    s.from.random = 0;
    s.n = outcome->at < s.n ? outcome->at + 1 : s.n;
    s.slow = true;
    if (holds(&s)) /* then it is in what is seen less often */
        s.slow = false;
    s = shrink(s);
    (void)holds(&s);
    print_sequence(&s);
    fail_msg("at %d: %s", outcome->at + 1, outcome->trouble);
}

int main(int argc, char **argv)
{
    apart_make_disk();
    static const struct crash_case cases[] = {{.name = "model", .run = run, .all = 100000, .timeout = 600}};
    return crash_main(argc, argv, 25, cases, ARRAY_LEN(cases));
}
