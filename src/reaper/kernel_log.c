/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/kernel.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#define READING_NS 300000000 /* of this thread's time; a ring of some megabytes takes a tenth of it */
#define RECORD_MAX 8192      /* of one reading, by the kernel */

/* ---- what is wanted ---- */

static bool begins(const struct kmsg_record *r, const char *with)
{
    return r->len >= strlen(with) && memcmp(r->text, with, strlen(with)) == 0;
}

static bool has(const struct kmsg_record *r, const char *what)
{
    return memmem(r->text, r->len, what, strlen(what)) != NULL;
}

static enum kernel_word word_of_error(const struct kmsg_record *r)
{
    static const struct {
        const char *begin;
        enum kernel_word word;
    } words[] = {
        {"Memory cgroup out of memory: Kill", KERNEL_OOM_CGROUP},
        {"Out of memory", KERNEL_OOM_MACHINE},
        {"INFO: task ", KERNEL_HUNG_TASK},
        {"rcu: INFO: ", KERNEL_HUNG_TASK},
        {"BUG: ", KERNEL_BUG},
        {"kernel BUG at ", KERNEL_BUG},
        {"Oops", KERNEL_BUG},
        {"general protection fault", KERNEL_BUG},
        {"Unable to handle kernel ", KERNEL_BUG},
        {"Internal error: Oops", KERNEL_BUG},
        {"Kernel panic", KERNEL_BUG},
        {"watchdog: BUG: ", KERNEL_BUG},
        {"watchdog: Watchdog detected hard LOCKUP", KERNEL_BUG},
        {"mce: [Hardware Error]", KERNEL_BUG},
        {"I/O error", KERNEL_IO_ERROR},
        {"blk_update_request: I/O error", KERNEL_IO_ERROR},
        {"Buffer I/O error", KERNEL_IO_ERROR},
        {"EXT4-fs error", KERNEL_IO_ERROR},
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (begins(r, words[i].begin))
            return words[i].word;
    return KERNEL_NOTED;
}

int kernel_word_of(const struct kmsg_record *r)
{
    enum { ERROR = 3, WARNING = 4 };
    if (r->facility != 0)
        return -1;
    if (r->level <= ERROR)
        return (int)word_of_error(r);
    return r->level == WARNING || has(r, "oom") || has(r, "OOM") ? (int)KERNEL_NOTED : -1;
}

pid_t kernel_line_killed(const struct kernel_line *line)
{
    /* "Killed process 7 (sh) total-vm"; the name comes after it. Before 4.19: "Kill process 7 (sh) score" */
    static const char *const begins[] = {": Killed process ", ": Kill process "};
    bool kill = line->word == KERNEL_OOM_CGROUP || line->word == KERNEL_OOM_MACHINE;
    for (size_t i = 0; kill && i < ARRAY_LEN(begins); i++) {
        const char *at = strstr(line->text, begins[i]);
        long pid = at ? strtol(at + strlen(begins[i]), NULL, 10) : 0;
        if (pid > 0 && pid <= INT32_MAX)
            return (pid_t)pid;
    }
    return 0;
}

/* ---- reading ---- */

/* LXC has a link to a console there, others a pipe. */
static int open_kmsg(void)
{
    struct stat st;
    _cleanup_close_ int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 11) ? steal_fd(&fd) : -ENODEV;
}

static void add(struct kernel_log *log, const struct kmsg_record *r, int word, int64_t at_ns)
{
    struct kernel_line *line = &log->lines[(log->first + log->len) % KERNEL_LINES];
    log->omitted = log->omitted || log->len == KERNEL_LINES;
    if (log->len == KERNEL_LINES) /* in place of the oldest */
        log->first = (log->first + 1) % KERNEL_LINES;
    else
        log->len++;
    *line = (struct kernel_line){
        .sequence = r->sequence, .at_ns = at_ns, .level = r->level, .word = (enum kernel_word)word};
    escape_bytes(line->text, sizeof(line->text), r->text, r->len);
}

const struct kernel_line *kernel_log_line(const struct kernel_log *log, size_t i)
{
    return &log->lines[(log->first + i) % KERNEL_LINES];
}

/* However loaded the machine is. */
static int64_t thread_ns(void)
{
    struct timespec now;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) < 0 ? now_monotonic_ns()
                                                            : (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* When the clock of the log was zero. That one is not set right by anybody, as the other monotonic ones are:
 * after a hundred days there are minutes between them. What is left is what has gone wrong since the
 * message. */
static int64_t booted_ns(void)
{
    struct timespec raw = {0};
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &raw);
    return now_realtime_ns() - ((int64_t)raw.tv_sec * 1000000000 + raw.tv_nsec);
}

/* Each read is one record. 0 at the end, or -errno. */
static int read_all(int fd, int64_t since_ns, struct kernel_log *log)
{
    char text[RECORD_MAX];
    int64_t started = thread_ns(), boot_ns = booted_ns();
    for (unsigned int n = 0; n % 64 || thread_ns() - started < READING_NS; n++) {
        struct kmsg_record r;
        ssize_t len = read(fd, text, sizeof(text) - 1);
        if (len < 0 && (errno == EINTR || errno == EPIPE)) /* overwritten meanwhile: on with what is there */
            continue;
        if (len <= 0)
            return len == 0 || errno == EAGAIN ? 0 : -errno;
        text[len] = 0;
        if (proctext_kmsg(text, &r) < 0)
            continue;
        log->next = r.sequence + 1;
        int64_t at_ns = boot_ns + (int64_t)r.time_us * 1000;
        int word = at_ns < since_ns ? -1 : kernel_word_of(&r);
        if (word >= 0)
            add(log, &r, word, at_ns);
    }
    return -ETIMEDOUT;
}

struct kernel_log *kernel_log_read(int64_t since_ns)
{
    struct kernel_log *log = malloc(sizeof(*log));
    if (!log)
        return NULL;
    log->first = log->len = 0;
    log->next = 0;
    log->omitted = false;
    _cleanup_close_ int fd = open_kmsg();
    log->error = fd < 0 ? fd : read_all(fd, since_ns, log);
    return log;
}
