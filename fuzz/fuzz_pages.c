/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a data file holds: validating, reading, carving and salvaging it end, and read within bounds.
 *
 * Random bytes die at the first check, so the mutator starts from a sound file, which it makes itself, and changes one
 * field at a time to what might do harm: another page's number, one more or less, the largest, nothing.
 */
#include "base/fd.h"
#include "journal/salvage.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

/* ---- a sound file: a tree of two levels, values with pages of their own, free pages, records ---- */

static uint8_t *sound;
static size_t sound_len;

static void must(int rc)
{
    if (rc != 0)
        abort();
}

static int put_record(MDB_txn *txn, MDB_dbi db, uint64_t incarnation, uint32_t seq)
{
    struct box box = {.name = "box", .incarnation = incarnation, .next_seq = 9};
    struct record r = {
        .incarnation = incarnation, .seq = seq, .kind = RBXJ_TMPDIR, .path = "/srv/box/some/directory"};
    uint8_t *bytes = NULL, large[6000] = {0};
    size_t len = 0;
    struct record_key k = record_key(incarnation, seq);
    must(seq ? record_encode(&r, seq, &bytes, &len) : record_encode_box(&box, 1, &bytes, &len));
    MDB_val key = {sizeof(k), &k}, value = {len, bytes};
    if (seq == 5)
        value = (MDB_val){sizeof(large), large};
    int rc = mdb_put(txn, db, &key, &value, 0);
    free(bytes);
    return rc;
}

static void fill(MDB_env *env, uint64_t first, uint64_t last)
{
    MDB_txn *txn;
    MDB_dbi records, meta;
    must(mdb_txn_begin(env, NULL, 0, &txn));
    must(mdb_dbi_open(txn, "records", MDB_CREATE, &records));
    must(mdb_dbi_open(txn, "meta", MDB_CREATE, &meta));
    for (uint64_t i = first; i < last; i++)
        for (uint32_t seq = 0; seq < 7; seq++)
            must(put_record(txn, records, i, seq));
    MDB_val key = {8, "instance"}, value = {16, "0123456789abcdef"};
    must(mdb_put(txn, meta, &key, &value, 0));
    must(mdb_txn_commit(txn));
}

static void make_sound(void)
{
    char dir[] = "/tmp/rbxj-fuzz-XXXXXX", path[64];
    struct stat st;
    MDB_env *env;
    if (!mkdtemp(dir))
        abort();
    (void)snprintf(path, sizeof(path), "%s/data.mdb", dir);
    must(mdb_env_create(&env));
    must(mdb_env_set_maxdbs(env, 4));
    must(mdb_env_open(env, dir, MDB_NOLOCK | MDB_NOSYNC, 0600));
    for (uint64_t i = 0; i < 3; i++)
        fill(env, 1, 5 + i);
    mdb_env_close(env);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !(sound = malloc((size_t)st.st_size)) ||
        read(fd, sound, (size_t)st.st_size) != st.st_size)
        abort();
    sound_len = (size_t)st.st_size;
    (void)close(fd);
    (void)unlink(path);
    (void)rmdir(dir);
}

/* ---- one field at a time ---- */

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % below;
}

/* Where a field may be in a page: its head, its pointers, a node's head, a node's content; or a meta. */
static size_t field_offset(const uint8_t *page, size_t number)
{
    uint16_t lower, node;
    if (number < 2)
        return draw(152);
    memcpy(&lower, page + 12, sizeof(lower));
    size_t keys = lower > 16 && lower < PAGE ? (size_t)(lower - 16) / 2 : 0;
    if (!keys || draw(4) == 0)
        return draw(16);
    size_t pointer = 16 + 2 * draw(keys);
    memcpy(&node, page + pointer, sizeof(node));
    return draw(3) == 0 || node >= PAGE - 16 ? pointer : node + draw(draw(2) ? 8 : 40);
}

static void change_field(uint8_t *data, size_t size)
{
    static const size_t widths[] = {1, 2, 4, 8};
    size_t pages = size / PAGE, number = draw(pages), width = widths[draw(4)];
    size_t at = number * PAGE + field_offset(data + number * PAGE, number);
    uint64_t value = 0;
    if (at + width > size)
        return;
    memcpy(&value, data + at, width);
    switch (draw(7)) {
    case 0:
        value = draw(pages + 2);
        break;
    case 1:
        value++;
        break;
    case 2:
        value--;
        break;
    case 3:
        value = UINT64_MAX;
        break;
    case 4:
        value = 0;
        break;
    case 5:
        value ^= 1ull << draw(width * 8);
        break;
    default:
        value = draw(PAGE * 2);
    }
    memcpy(data + at, &value, width);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    state = seed;
    if (!sound)
        make_sound();
    if ((size < 2 * PAGE || draw(50) == 0) && max >= sound_len) {
        memcpy(data, sound, sound_len);
        size = sound_len;
    }
    if (size < 2 * PAGE || draw(20) == 0)
        return LLVMFuzzerMutate(data, size, max);
    for (uint64_t n = 1 + draw(3); n > 0; n--)
        change_field(data, size);
    if (draw(10) == 0) /* a lost write: a page as another one is */
        memcpy(data + draw(size / PAGE) * PAGE, data + draw(size / PAGE) * PAGE, draw(2) ? 16 : PAGE / 2);
    return draw(40) == 0 ? 1 + draw(size) : size;
}

/* ---- what is done with it ---- */

static int touch(void *sum, const struct pages_entry *e)
{
    for (size_t i = 0; i < e->key_len; i++)
        *(uint8_t *)sum ^= e->key[i];
    for (size_t i = 0; i < e->value_len; i++)
        *(uint8_t *)sum ^= e->value[i];
    return 0;
}

static void read_snapshots(const uint8_t *data, size_t size)
{
    uint8_t sum = 0;
    for (int which = 0; which < 2; which++) {
        struct pages p;
        struct pages_fault fault = {0};
        if (pages_open(data, size, which, &p, &fault) < 0) {
            if (!fault.why)
                abort();
            continue;
        }
        for (size_t i = 0; i < p.dbs_len; i++)
            if (pages_each(&p, p.dbs[i].name, touch, &sum) != 0)
                abort();
        pages_clear(&p);
    }
}

static void carve(const uint8_t *data, size_t size)
{
    char path[40];
    struct autopsy a;
    int fd = memfd_create("journal", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, data, size) < 0)
        abort();
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    must(autopsy_read(AT_FDCWD, path, "fuzz", &a, NULL));
    autopsy_clear(&a);
    (void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)pages_newest(data, size, NULL);
    read_snapshots(data, size);
    carve(data, size);
    return 0;
}
