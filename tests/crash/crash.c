/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crash.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_FIGURES 16

enum { PASSED, PAST_THE_END, SKIPPED, FAILED };

/* What the process of a point tells the frame. */
static struct shared {
    uint64_t points;
    volatile int result;
    struct figure {
        char name[24];
        uint64_t n;
    } figures[MAX_FIGURES];
} * shared;

static struct settings {
    const char *program, *state, *only;
    uint64_t seed, only_point, failures;
    bool all, list, one;
    double seconds, case_seconds;
} settings;

static const struct crash_case *now; /* in the process of a point */
static uint64_t now_point;

uint64_t crash_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

void crash_count(const char *what, uint64_t n)
{
    for (size_t i = 0; i < MAX_FIGURES; i++) {
        struct figure *f = &shared->figures[i];
        if (!f->name[0])
            (void)snprintf(f->name, sizeof(f->name), "%s", what);
        if (strncmp(f->name, what, sizeof(f->name) - 1) == 0) {
            f->n += n;
            return;
        }
    }
}

void crash_past_the_end(void)
{
    shared->result = PAST_THE_END;
    skip();
    abort();
}

double crash_seconds(void)
{
    return settings.all && settings.case_seconds < 120 ? 120 : settings.case_seconds;
}

static double seconds_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- one point ---- */

static void point_test(void **state)
{
    (void)state;
    if (now_point == UINT64_MAX)
        shared->points = now->points(now);
    else
        now->run(now, now_point);
    shared->result = PASSED;
}

/* In the process of the point: what it prints goes to fd. */
static _Noreturn void point_process(int fd)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(point_test)};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        _exit(125);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)fflush(NULL);
    exit(failed ? 1 : 0); /* by exit(), for a sanitizer's report */
}

/* What the point left running: its orphans are ours (PR_SET_CHILD_SUBREAPER). */
static void kill_orphans(void)
{
    for (;;) {
        _cleanup_fclose_ FILE *f = fopen("/proc/thread-self/children", "re");
        long pid;
        while (f && fscanf(f, "%ld", &pid) == 1) {
            (void)kill((pid_t)pid, SIGKILL);
            (void)kill((pid_t)pid, SIGCONT);
        }
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            return;
    }
}

static void show(int fd)
{
    char line[4096];
    _cleanup_fclose_ FILE *f = fdopen(dup(fd), "r");

    if (!f)
        return;
    rewind(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, "TAP version", 11) != 0)
            printf("# | %s%s", line, strchr(line, '\n') ? "" : "\n");
}

/* As harness_skip() prints it. */
static bool skipped(int fd)
{
    char text[8192];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return strstr(text, "skip: ") != NULL;
}

/* Runs one point; UINT64_MAX counts the points. */
static int point_run(const struct crash_case *c, uint64_t point)
{
    _cleanup_close_ int out = memfd_create("point", MFD_CLOEXEC);
    unsigned limit = (c->timeout ? c->timeout : 60) + (c->whole ? (unsigned)crash_seconds() : 0);
    int status = 0;

    now = c;
    now_point = point;
    shared->result = FAILED;
    (void)fflush(NULL);
    pid_t pid = out < 0 || harness_setup(NULL) < 0 ? -1 : fork();
    if (pid == 0)
        point_process(out);
    _cleanup_close_ int pidfd = pid < 0 ? -1 : pidfd_open(pid, 0);
    if (pidfd < 0) {
        printf("# %s: no process: %s\n", c->name, strerror(errno));
        return FAILED;
    }
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    double end = seconds_now() + limit;
    int r;
    do
        r = poll(&p, 1, (int)((end - seconds_now()) * 1000) + 1);
    while ((r < 0 && errno == EINTR) || (r == 0 && seconds_now() < end));
    if (r == 0)
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    kill_orphans();
    if (harness_teardown(NULL) < 0)
        shared->result = FAILED;

    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (good && shared->result == PAST_THE_END)
        return PAST_THE_END;
    if (good && shared->result != PASSED && skipped(out))
        return SKIPPED;
    if (good && shared->result == PASSED) {
        if (settings.one && point != UINT64_MAX)
            show(out);
        return PASSED;
    }
    if (point == UINT64_MAX)
        printf("# %s: counting its points failed", c->name);
    else
        printf("# failed: %s --only %s:%" PRIu64, settings.program, c->name, point);
    if (r == 0)
        printf(", no end after %u s", limit);
    else if (WIFSIGNALED(status))
        printf(", killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
    printf("\n");
    show(out);
    return FAILED;
}

/* ---- the state file of a long run: a line "CASE N" for each case, N the next point ---- */

static uint64_t state_read(const char *name)
{
    _cleanup_fclose_ FILE *f = settings.state ? fopen(settings.state, "re") : NULL;
    char word[64];
    uint64_t point, found = 0;

    while (f && fscanf(f, "%63s %" SCNu64, word, &point) == 2)
        if (strcmp(word, name) == 0)
            found = point;
    return found;
}

static void state_write(const char *name, uint64_t point)
{
    _cleanup_fclose_ FILE *f = settings.state ? fopen(settings.state, "ae") : NULL;

    if (f)
        fprintf(f, "%s %" PRIu64 "\n", name, point);
}

/* ---- one case ---- */

struct tally {
    uint64_t tried, failed, points;
    bool skipped;
};

static void tally_point(struct tally *t, int result)
{
    t->tried++;
    t->failed += result == FAILED;
}

static void case_all(const struct crash_case *c, struct tally *t)
{
    uint64_t end = c->points ? UINT64_MAX - 1 : c->all;
    double told = seconds_now();

    for (uint64_t point = state_read(c->name); point < end && t->failed < settings.failures; point++) {
        int r = point_run(c, point);
        if (r == PAST_THE_END)
            break;
        if (r == SKIPPED) {
            t->skipped = true;
            break;
        }
        tally_point(t, r);
        if (seconds_now() - told >= 10) {
            state_write(c->name, point + 1);
            printf("# %s: %" PRIu64 " of %" PRIu64 "\n", c->name, point + 1, t->points ? t->points : c->all);
            told = seconds_now();
        }
    }
    state_write(c->name, UINT64_MAX - 1);
}

static void case_sample(const struct crash_case *c, struct tally *t, double seconds)
{
    uint64_t random = settings.seed;
    double end = seconds_now() + seconds;

    do {
        uint64_t draw = crash_random(&random);
        int r = point_run(c, t->points ? draw % t->points : draw % 1000000000);
        if (r == SKIPPED) {
            t->skipped = true;
            return;
        }
        tally_point(t, r);
    } while (seconds_now() < end && t->failed < settings.failures);
}

static void case_run(const struct crash_case *c, struct tally *t, double seconds)
{
    double end = seconds_now() + seconds; /* counting the points is part of it */
    settings.case_seconds = seconds;
    if (c->points && !settings.one) {
        int r = point_run(c, UINT64_MAX);
        t->points = shared->points;
        t->skipped = r == SKIPPED;
        t->failed += r == FAILED;
        if (r != PASSED)
            return;
    }
    if (settings.list)
        return;
    if (settings.one)
        tally_point(t, point_run(c, settings.only_point));
    else if (settings.all)
        case_all(c, t);
    else
        case_sample(c, t, end - seconds_now());
}

/* ---- the program ---- */

static int usage(const char *why)
{
    fprintf(stderr,
            "%s: %s: --seconds S --seed N|random --all --state FILE --failures N --only CASE[:N] --list\n",
            settings.program, why);
    return 2;
}

static int settings_parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'},  {"seed", required_argument, NULL, 'r'},
        {"failures", required_argument, NULL, 'n'}, {"all", no_argument, NULL, 'a'},
        {"state", required_argument, NULL, 'f'},    {"only", required_argument, NULL, 'o'},
        {"list", no_argument, NULL, 'l'},           {NULL, 0, NULL, 0},
    };
    char *end = NULL;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!optarg && o != 'a' && o != 'l') /* it has said why */
            return usage("unknown option");
        switch (o) {
        case 's':
            settings.seconds = strtod(optarg, &end);
            if (*end || settings.seconds < 0)
                return usage("--seconds");
            break;
        case 'r':
            if (strcmp(optarg, "random") == 0 &&
                getrandom(&settings.seed, sizeof(uint32_t), 0) == sizeof(uint32_t))
                break;
            settings.seed = strtoull(optarg, &end, 10);
            if (*end)
                return usage("--seed");
            break;
        case 'n':
            settings.failures = strtoull(optarg, &end, 10);
            if (*end)
                return usage("--failures");
            break;
        case 'a':
            settings.all = true;
            break;
        case 'f':
            settings.state = optarg;
            break;
        case 'l':
            settings.list = true;
            break;
        case 'o':
            settings.only = strsep(&optarg, ":");
            settings.one = optarg != NULL;
            if (optarg)
                settings.only_point = strtoull(optarg, &end, 10);
            break;
        default:
            return usage("unknown option");
        }
    }
    return optind < argc ? usage("no argument is taken") : 0;
}

static bool chosen(const struct crash_case *c)
{
    return !settings.only || strcmp(settings.only, c->name) == 0;
}

static size_t run_cases(const struct crash_case *cases, size_t n)
{
    size_t todo = 0, number = 0, bad = 0;

    for (size_t i = 0; i < n; i++)
        todo += chosen(&cases[i]);
    printf("1..%zu\n", todo);
    for (size_t i = 0; i < n; i++) {
        struct tally t = {0};
        if (!chosen(&cases[i]))
            continue;
        double began = seconds_now();
        case_run(&cases[i], &t, settings.seconds / (double)todo);
        bad += t.failed > 0;
        printf("%s %zu - %s", t.failed ? "not ok" : "ok", ++number, cases[i].name);
        if (t.skipped)
            printf(" # SKIP not possible here\nskip: %s\n", cases[i].name);
        else
            printf(": %" PRIu64 " points, %" PRIu64 " failed, of %" PRIu64 " (%.0f s)\n", t.tried, t.failed,
                   t.points, seconds_now() - began);
    }
    return todo ? bad : 1;
}

int crash_main(int argc, char **argv, double seconds, const struct crash_case *cases, size_t n)
{
    settings = (struct settings){.program = argv[0], .seed = 1, .failures = 5, .seconds = seconds};
    int r = settings_parse(argc, argv);
    if (r != 0)
        return r;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    /* A subreaper only after the harness' guardian has become nobody's child. */
    if (shared == MAP_FAILED || harness_group_setup(NULL) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return 1;
    printf("# seed %" PRIu64 "\n", settings.seed);
    size_t bad = run_cases(cases, n);
    printf("# %s:", argv[0]);
    for (size_t i = 0; i < MAX_FIGURES && shared->figures[i].name[0]; i++)
        printf(" %s %" PRIu64, shared->figures[i].name, shared->figures[i].n);
    printf("\n");
    return harness_group_teardown(NULL) < 0 || bad ? 1 : 0;
}
