/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a data file holds: validating and reading it end, and read within bounds; what is read of all of
 * it is found when it is asked for; and reading it page by page comes to the same as having it in memory.
 */
#include "fuzz.h"
#include "newest.h"

#include "journal/image.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile uint8_t sum; /* so that every byte is read */

struct reading {
    const struct pages *pages;
    const char *db;
    const struct pages_entry *last;
    uint64_t entries;
};

static int compare_keys(const struct pages_entry *a, const struct pages_entry *b)
{
    size_t shorter = a->key_len < b->key_len ? a->key_len : b->key_len;
    int r = memcmp(a->key, b->key, shorter);
    return r ? r : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static int check_entry(void *data, const struct pages_entry *e)
{
    struct reading *reading = data;
    static struct pages_entry last;
    for (size_t i = 0; i < e->value_len; i++)
        sum += e->value[i];
    if (reading->last && compare_keys(reading->last, e) >= 0)
        abort();
    struct pages_entry found;
    if (pages_get(reading->pages, reading->db, e->key, e->key_len, &found) != 0 || found.value != e->value ||
        found.value_len != e->value_len)
        abort();
    last = *e;
    reading->last = &last;
    reading->entries++;
    return 0;
}

/* Accepted or not, by the whole in memory. */
static bool read_snapshot(const uint8_t *data, size_t size, int which)
{
    struct pages p;
    struct pages_fault fault = {0};
    if (pages_open(data, size, which, &p, &fault) < 0) {
        if (!fault.why)
            abort();
        return false;
    }
    if (p.live + p.free > p.meta.last_page + 1)
        abort();
    for (size_t i = 0; i < p.dbs_len; i++) {
        struct reading reading = {.pages = &p, .db = p.dbs[i].name};
        if (pages_each(&p, p.dbs[i].name, check_entry, &reading) != 0 ||
            reading.entries != p.dbs[i].tree.entries)
            abort();
    }
    pages_clear(&p);
    return true;
}

/* By what a process does before it trusts a file. */
static bool read_file(const uint8_t *data, size_t size)
{
    char path[40];
    struct image image;
    struct pages_fault fault = {0};
    int fd = input_file(data, size, path), r = image_read(fd, &image, &fault);
    (void)close(fd);
    if (r == 0)
        image_clear(&image);
    return r == 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    return data_file_mutate(data, size, max, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int newest = pages_newest(data, size);
    bool accepted[2] = {read_snapshot(data, size, 0), read_snapshot(data, size, 1)};
    if (read_file(data, size) != (newest >= 0 && accepted[newest]))
        abort();
    return 0;
}
