/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a data file of the disk or of the boot holds: reading the journal as list and a dry run do ends,
 * and gives boxes and records that are well-formed, or says that it is damaged.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/procid.h"
#include "journal/journal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char top[] = "/dev/shm/rbxj-fuzz-XXXXXX", state[64], run[64], disk_dir[96], boot_dir[160], disk[128],
            boot[192];

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    return data_file_mutate(data, size, max, seed);
}

static void clean(void)
{
    (void)unlink(disk);
    (void)unlink(boot);
    (void)rmdir(disk_dir);
    (void)rmdir(boot_dir);
    (void)rmdir(state);
    (void)rmdir(run);
    (void)rmdir(top);
}

static void prepare(void)
{
    uint8_t id[16];
    char hex[33];
    if (!mkdtemp(top) || atexit(clean) != 0 || procid_boot(id) < 0)
        abort();
    hex_encode(hex, id, sizeof(id));
    (void)snprintf(state, sizeof(state), "%s/state", top);
    (void)snprintf(run, sizeof(run), "%s/run", top);
    (void)snprintf(disk_dir, sizeof(disk_dir), "%s/journal", state);
    (void)snprintf(boot_dir, sizeof(boot_dir), "%s/journal-%s", run, hex);
    (void)snprintf(disk, sizeof(disk), "%s/data.mdb", disk_dir);
    (void)snprintf(boot, sizeof(boot), "%s/data.mdb", boot_dir);
    if (mkdir(state, 0700) < 0 || mkdir(run, 0700) < 0 || mkdir(disk_dir, 0700) < 0 ||
        mkdir(boot_dir, 0700) < 0)
        abort();
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fd_write_all(fd, data, size) < 0)
        abort();
}

static int count(void *data, const struct snapshot_box *box, const char *path)
{
    (void)box;
    *(size_t *)data += path[0] == '/';
    return 0;
}

static void check_box(const struct snapshot_box *b)
{
    if (b->box.name[0] ? !box_name_is_valid(b->box.name) : !b->damaged)
        abort();
    for (size_t i = 0; i < b->len; i++) {
        const struct record *r = &b->records[i];
        if (r->incarnation != b->box.incarnation || (i && r->seq <= r[-1].seq) ||
            (r->kind == RBXJ_PROCESS ? r->process.pid <= 0 : !path_is_normal(r->path)))
            abort();
    }
}

static void read_journal(void)
{
    struct snapshot s;
    struct journal_size boot_size, disk_size;
    struct rbxj_error e = {0};
    size_t n = 0;
    int r = snapshot_read(state, run, &s, &e);
    if (r < 0 && (r != -RBXJ_E_JOURNAL_DAMAGED || !e.message[0])) {
        (void)fprintf(stderr, "%d: %s\n", r, e.message);
        abort();
    }
    if (r == 0) {
        for (size_t i = 0; i < s.len; i++)
            check_box(&s.boxes[i]);
        (void)snapshot_overlaps(&s, 0, "/tmp", count, &n);
        snapshot_clear(&s);
    }
    if (snapshot_read_headers(state, run, &s, NULL) == 0)
        snapshot_clear(&s);
    (void)journal_sizes(state, run, &boot_size, &disk_size, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!state[0])
        prepare();
    write_file(disk, data, size);
    (void)unlink(boot);
    read_journal();
    write_file(boot, data, size);
    (void)unlink(disk);
    read_journal();
    return 0;
}
