/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a data file holds: carving it ends, and reads within bounds; what is called whole is, and counts
 * once for each key; what is salvaged from it is a sound journal of exactly what was said to be in it.
 */
#include "fuzz.h"

#include "base/fd.h"
#include "base/procid.h"
#include "journal/salvage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    return data_file_mutate(data, size, max, seed);
}

/* ---- carving ---- */

static void check_carved(const struct autopsy *a, size_t size)
{
    size_t count[CARVED_DAMAGED + 1] = {0};
    for (size_t i = 0; i < a->records_len; i++) {
        const struct carved *c = &a->records[i], *last = i ? c - 1 : NULL;
        count[c->state]++;
        if (c->offset >= size)
            abort();
        if (c->state == CARVED_DAMAGED)
            continue;
        if (c->head.length > size - c->offset ||
            record_check(c->bytes, c->head.length, NULL, NULL) == -EBADMSG)
            abort();
        if (c->state == CARVED_INTACT && last && last->state != CARVED_DAMAGED &&
            last->head.incarnation == c->head.incarnation && last->head.seq == c->head.seq)
            abort();
    }
    if (a->file.len != size || memcmp(count, a->count, sizeof(count)) != 0)
        abort();
}

/* ---- salvaging ---- */

static char top[] = "/dev/shm/rbxj-fuzz-XXXXXX";
static pid_t maker;

static void remove_below(const char *format)
{
    static const char *const names[] = {"new/journal/data.mdb", "new/journal/lock.mdb", "new/journal",
                                        "new/alive", "new"};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", format, names[i]);
        if (unlink(path) < 0)
            (void)rmdir(path);
    }
}

static void clean(void)
{
    if (getpid() != maker)
        return;
    remove_below(top);
    (void)rmdir(top);
}

/* A box of one name, and every record of a box that has its header. */
static void check_salvaged(const char *dir, const struct salvaged *salvaged)
{
    char runtime[64];
    struct snapshot s;
    size_t records = 0;
    (void)snprintf(runtime, sizeof(runtime), "%s/run", top);
    if (snapshot_read(dir, runtime, &s, NULL) != 0)
        abort();
    for (size_t i = 0; i < s.len; i++) {
        records += s.boxes[i].len;
        for (size_t k = 0; k < i; k++)
            if (strcmp(s.boxes[i].box.name, s.boxes[k].box.name) == 0)
                abort();
    }
    if (s.damaged || s.salvaged_ns <= 0 || s.len != salvaged->boxes || records != salvaged->records)
        abort();
    snapshot_clear(&s);
}

static void salvage(const struct autopsy *a)
{
    const struct journal_options options = {.map_size = 4 << 20, .preallocate = 64 << 10};
    char dir[64];
    struct salvaged salvaged;
    if (!maker) {
        maker = getpid();
        if (!mkdtemp(top) || atexit(clean) != 0)
            abort();
    }
    (void)snprintf(dir, sizeof(dir), "%s/new", top);
    struct rbxj_error e = {0};
    if (salvage_write(a, 1, false, dir, &options, &salvaged, &e) < 0) {
        (void)fprintf(stderr, "salvage: %s\n", e.message);
        abort();
    }
    check_salvaged(dir, &salvaged);
    remove_below(top);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned long n;
    char path[40];
    struct autopsy a;
    int fd = input_file(data, size, path);
    if (autopsy_read(AT_FDCWD, path, "fuzz", &a, NULL) < 0)
        abort();
    (void)close(fd);
    check_carved(&a, size);
    (void)autopsy_is_sound(&a);
    if (a.count[CARVED_INTACT] && n++ % 8 == 0) /* it makes files: slower by far */
        salvage(&a);
    autopsy_clear(&a);
    return 0;
}
