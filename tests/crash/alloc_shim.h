/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An allocator in front of glibc's, for crash_alloc.c: while it is armed the n-th allocation of this process,
 * its threads and its forked children finds no memory, and what was allocated and not freed is known, with
 * who asked for it. Freed memory is overwritten, fresh memory too, so that what reads either does not go on
 * by luck.
 *
 *     shim_init();              once; before any fork
 *     shim_arm(n, 1);           from now on number n, counted from 0, fails; 1: it alone
 *     ...
 *     shim_disarm();
 *     shim_failed()             did one fail
 *     shim_leaks(show)          what was allocated while it was armed and is still there
 */
#ifndef RBXJ_TESTS_CRASH_ALLOC_SHIM_H
#define RBXJ_TESTS_CRASH_ALLOC_SHIM_H

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* glibc's own, under the names that stay when malloc is replaced. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *p);

#define SHIM_FRAMES 24
#define SHIM_SLOTS (1U << 16) /* of which at most half are used at once: more is a leak by itself */

struct shim_block {
    uintptr_t p; /* 0: never used; 1: free again */
    size_t size;
    int frames_len;
    void *frames[SHIM_FRAMES];
};

/* What the process shares with the children that it forks, so that no number comes twice. */
static struct shim_shared {
    atomic_uint_fast64_t next;
    uint64_t from, to; /* these fail */
    atomic_bool failed;
    size_t size; /* the first that failed */
    int frames_len;
    void *frames[SHIM_FRAMES];
} * shim;

static struct shim_block shim_blocks[SHIM_SLOTS];
static size_t shim_used;
static bool shim_full;
static atomic_flag shim_lock = ATOMIC_FLAG_INIT;
static atomic_bool shim_armed, shim_known; /* counts and notes now; there may be noted blocks */
static _Thread_local bool shim_inside;     /* what backtrace() allocates does not count */

static void shim_enter(void)
{
    while (atomic_flag_test_and_set_explicit(&shim_lock, memory_order_acquire))
        ;
}

static void shim_leave(void)
{
    atomic_flag_clear_explicit(&shim_lock, memory_order_release);
}

static struct shim_block *shim_slot(uintptr_t p, bool fresh)
{
    size_t i = (size_t)(p >> 4) * 0x9e3779b97f4a7c15U >> 20;
    for (size_t n = 0; n < SHIM_SLOTS; n++, i++) {
        struct shim_block *b = &shim_blocks[i % SHIM_SLOTS];
        if (b->p == p || b->p == 0 || (fresh && b->p == 1))
            return b->p == p || fresh ? b : NULL;
    }
    return NULL;
}

/* A slot that others were stored behind stays "free again"; the last ones of such a row become unused. */
static void shim_vacate(size_t i)
{
    shim_blocks[i].p = 1;
    while (shim_blocks[i].p == 1 && shim_blocks[(i + 1) % SHIM_SLOTS].p == 0) {
        shim_blocks[i].p = 0;
        i = (i + SHIM_SLOTS - 1) % SHIM_SLOTS;
    }
}

static int shim_backtrace(void **frames)
{
    shim_inside = true;
    int n = backtrace(frames, SHIM_FRAMES);
    shim_inside = false;
    return n;
}

/* Is it the turn of this one to fail? */
static bool shim_fails(size_t size)
{
    if (!atomic_load(&shim_armed) || shim_inside)
        return false;
    uint64_t n = atomic_fetch_add(&shim->next, 1);
    if (n < shim->from || n >= shim->to)
        return false;
    if (!atomic_exchange(&shim->failed, true)) {
        shim->size = size;
        shim->frames_len = shim_backtrace(shim->frames);
    }
    errno = ENOMEM;
    return true;
}

static void *shim_note(void *p, size_t size, bool junk)
{
    if (!p || !atomic_load(&shim_armed) || shim_inside)
        return p;
    if (junk)
        memset(p, 0xa5, size);
    void *frames[SHIM_FRAMES];
    int n = shim_backtrace(frames);
    shim_enter();
    struct shim_block *b = shim_used < SHIM_SLOTS / 2 ? shim_slot((uintptr_t)p, true) : NULL;
    if (b) {
        shim_used++;
        *b = (struct shim_block){.p = (uintptr_t)p, .size = size, .frames_len = n};
        memcpy(b->frames, frames, sizeof(frames));
        atomic_store(&shim_known, true);
    }
    shim_full = shim_full || !b;
    shim_leave();
    return p;
}

/* Takes it out of what is known; its size, if it was. */
static size_t shim_forget(void *p)
{
    size_t size = 0;
    if (!p || !atomic_load(&shim_known))
        return 0;
    shim_enter();
    struct shim_block *b = shim_slot((uintptr_t)p, false);
    if (b) {
        size = b->size;
        shim_used--;
        shim_vacate((size_t)(b - shim_blocks));
    }
    shim_leave();
    return size;
}

/* ---- what replaces glibc's ---- */

void *malloc(size_t size)
{
    return shim_fails(size) ? NULL : shim_note(__libc_malloc(size), size, true);
}

void *calloc(size_t n, size_t size)
{
    return shim_fails(n * size) ? NULL : shim_note(__libc_calloc(n, size), n * size, false);
}

void *realloc(void *p, size_t size)
{
    if (shim_fails(size))
        return NULL;
    size_t before = shim_forget(p);
    void *larger = __libc_realloc(p, size);
    if (!larger && p && size)
        return shim_note(p, before, false), NULL;
    return shim_note(larger, size, false);
}

void free(void *p)
{
    int kept = errno;
    size_t size = shim_forget(p);
    if (size)
        memset(p, 0xdb, size);
    __libc_free(p);
    errno = kept;
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return shim_fails(size) ? NULL : shim_note(__libc_memalign(alignment, size), size, true);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    int kept = errno;
    void *p = memalign(alignment, size);
    errno = kept;
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}

/* ---- for the program ---- */

static inline void shim_init(void)
{
    void *frames[SHIM_FRAMES];
    if (shim)
        return;
    shim = mmap(NULL, sizeof(*shim), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shim == MAP_FAILED)
        abort();
    (void)shim_backtrace(frames); /* the first time it loads libgcc */
    tzset();                      /* gmtime_r(3) reads the time zone, too, and keeps it */
}

/* From now on count allocations from number n on fail. What is known already stays known. */
static inline void shim_arm(uint64_t n, uint64_t count)
{
    *shim = (struct shim_shared){.from = n, .to = count > UINT64_MAX - n ? UINT64_MAX : n + count};
    atomic_store(&shim_armed, true);
}

static inline void shim_disarm(void)
{
    atomic_store(&shim_armed, false);
}

/* Armed again, where it was; for what the program does between two calls. */
static inline void shim_rearm(void)
{
    atomic_store(&shim_armed, true);
}

/* There is memory again. */
static inline void shim_stop_failing(void)
{
    shim->to = 0;
}

static inline bool shim_failed(void)
{
    return atomic_load(&shim->failed);
}

static inline uint64_t shim_count(void)
{
    return atomic_load(&shim->next);
}

/* Prints a backtrace, by addr2line where there is one. */
static inline void shim_show(FILE *out, const char *what, void *const *frames, int n)
{
    char command[1024];
    Dl_info self, info;
    int len = 0;
    fprintf(out, "%s:\n", what);
    if (!dladdr((void *)(uintptr_t)shim_show, &self))
        return;
    for (int i = 1; i < n; i++) {
        uintptr_t at = (uintptr_t)frames[i] - 1;
        if (!dladdr((void *)at, &info)) {
            fprintf(out, "  %p\n", frames[i]);
        } else if (info.dli_fbase != self.dli_fbase) {
            const char *slash = strrchr(info.dli_fname, '/');
            fprintf(out, "  %s %s+%#" PRIxPTR "\n", slash ? slash + 1 : info.dli_fname,
                    info.dli_sname ? info.dli_sname : "?", at - (uintptr_t)info.dli_fbase);
        } else {
            len = snprintf(command, sizeof(command),
                           "addr2line -e /proc/%d/exe -fps %#" PRIxPTR " 2>/dev/null", (int)getpid(),
                           at - (uintptr_t)info.dli_fbase);
            FILE *in = len > 0 ? popen(command, "r") : NULL;
            char line[512];
            bool named = false;
            while (in && fgets(line, sizeof(line), in)) {
                named = true;
                fprintf(out, "  %s", line);
            }
            if (in)
                (void)pclose(in);
            if (!named)
                fprintf(out, "  +%#" PRIxPTR "\n", at - (uintptr_t)info.dli_fbase);
        }
    }
}

/* Does the backtrace go through a function of that name in a library whose file name begins so? */
static inline bool shim_passes(const struct shim_block *b, const char *library, const char *function)
{
    Dl_info info;
    for (int i = 1; i < b->frames_len; i++) {
        if (!dladdr((void *)((uintptr_t)b->frames[i] - 1), &info) || !info.dli_sname)
            continue;
        const char *slash = strrchr(info.dli_fname, '/');
        if (strncmp(slash ? slash + 1 : info.dli_fname, library, strlen(library)) == 0 &&
            strcmp(info.dli_sname, function) == 0)
            return true;
    }
    return false;
}

/* How many blocks are left, shown if out is not NULL; of those that tolerated() accepts nothing is said. */
static inline size_t shim_leaks(FILE *out, bool (*tolerated)(const struct shim_block *b))
{
    size_t n = 0;
    if (shim_full && out)
        fprintf(out, "more blocks than can be counted\n");
    for (size_t i = 0; i < SHIM_SLOTS; i++) {
        const struct shim_block *b = &shim_blocks[i];
        char what[64];
        if (b->p <= 1 || tolerated(b))
            continue;
        (void)snprintf(what, sizeof(what), "%zu bytes are left", b->size);
        if (out && n < 5)
            shim_show(out, what, b->frames, b->frames_len);
        n++;
    }
    return n + shim_full;
}

#endif
