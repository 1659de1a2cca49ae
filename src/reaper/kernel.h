/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the kernel has to say of the time of an incident: its log and its taint. Evidence for a person; no
 * undo ever depends on it.
 */
#ifndef RBXJ_REAPER_KERNEL_H
#define RBXJ_REAPER_KERNEL_H

#include "base/proctext.h"

/* ---- kernel_log.c ---- */

/* What a message tells of. */
enum kernel_word {
    KERNEL_NOTED,       /* a warning or worse, or about memory */
    KERNEL_OOM_CGROUP,  /* a process was killed, as its cgroup had no memory left */
    KERNEL_OOM_MACHINE, /* a process was killed, as the machine had none */
    KERNEL_HUNG_TASK,   /* a task, or a processor, that does not go on */
    KERNEL_BUG,         /* a bug, an oops, a lockup, broken hardware */
    KERNEL_IO_ERROR,
    KERNEL_WORDS
};

enum { KERNEL_TEXT_MAX = 320, KERNEL_LINES = 256 };

struct kernel_line {
    uint64_t sequence;
    int64_t at_ns; /* CLOCK_REALTIME, as far as the two clocks tell: some tenths of a second */
    unsigned int level;
    enum kernel_word word;
    char text[KERNEL_TEXT_MAX]; /* cut, and without control characters */
};

/* The newest lines that are wanted; a ring, read by kernel_log_line(). */
struct kernel_log {
    int error;     /* a negative errno: it could not be read, or not to its end; 0: it was */
    bool omitted;  /* there were older ones */
    uint64_t next; /* the number of the message that comes next */
    size_t first, len;
    struct kernel_line lines[KERNEL_LINES];
};

/* The kernel's warnings and worse, and what it says about memory, since then (CLOCK_REALTIME), from
 * /dev/kmsg. Takes milliseconds, waits for nothing, and gives up after a moment. Free it; NULL: no memory. */
struct kernel_log *kernel_log_read(int64_t since_ns);
/* Oldest first; i is below log->len. */
const struct kernel_line *kernel_log_line(const struct kernel_log *log, size_t i);

/* Its enum kernel_word, or -1: it is not wanted. What a process is called must not make it a bug: only the
 * beginning of what the kernel itself calls an error counts. */
int kernel_word_of(const struct kmsg_record *record);

/* The process that a line says was killed for want of memory, as the first pid namespace counts; 0: it says
 * nothing of that. */
pid_t kernel_line_killed(const struct kernel_line *line);

/* ---- kernel_taint.c ---- */

/* /proc/sys/kernel/tainted; 0 or -errno. */
int kernel_taint_read(uint64_t *ret);
/* The word for a bit of it, a literal: "machine_check"; one that is not known yet: NULL. */
const char *kernel_taint_word(unsigned int bit);
/* The bits that tell of a kernel or a machine that may do anything by now: a machine check, a bad page, an
 * oops, a soft lockup. A mere warning is none: it is common, and stays until the next boot. */
#define KERNEL_TAINT_TROUBLE (1ULL << 4 | 1ULL << 5 | 1ULL << 7 | 1ULL << 14)

#endif
