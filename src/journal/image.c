/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/image.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define META_TRIES 100
#define COPY_TRIES 5
#define SLOT_TRIES 100
#define META_BYTES 152
#define LARGE (2 << 20)  /* of so much memory more is taken at once */
#define HEAD_BYTES 65536 /* both metas, whatever the page size is */

struct metas {
    uint8_t bytes[2][META_BYTES];
    struct pages_meta meta[2];
};

static int read_metas_once(int fd, struct metas *ret, struct pages_fault *fault)
{
    _cleanup_free_ uint8_t *head = malloc(HEAD_BYTES); /* a caller's stack may be no larger than that */
    ssize_t n = head ? fd_pread_all(fd, head, HEAD_BYTES, 0) : -ENOMEM;
    if (n < 0)
        return (int)n;
    *ret = (struct metas){0};
    for (int i = 0; i < 2; i++) {
        size_t at = i ? ret->meta[0].page_size : 0;
        if (at + META_BYTES <= (size_t)n)
            memcpy(ret->bytes[i], head + at, META_BYTES);
        int r = pages_read_meta(head, (size_t)n, i, &ret->meta[i], fault);
        if (r < 0)
            return r;
    }
    if (!pages_metas_follow(ret->meta)) {
        *fault = (struct pages_fault){1, PAGES_UNRELATED};
        return -EBADMSG;
    }
    return 0;
}

/* They are not read at one moment: on a busy machine writers come between. Then the next reading has others,
 * and only what stays as it is, is damaged. */
static int read_metas(int fd, struct metas *ret, struct pages_fault *fault)
{
    int r = read_metas_once(fd, ret, fault);
    for (int i = 0; i < META_TRIES && r == -EBADMSG; i++) {
        struct metas before = *ret;
        r = read_metas_once(fd, ret, fault);
        if (r == -EBADMSG && memcmp(before.bytes, ret->bytes, sizeof(before.bytes)) == 0)
            return r;
    }
    return r == -EBADMSG ? -EAGAIN : r;
}

static int read_pages(int fd, void *to, size_t len, uint64_t offset)
{
    ssize_t n = fd_pread_all(fd, to, len, offset);
    return n < 0 ? (int)n : (size_t)n < len ? -EBADMSG : 0;
}

/* Memory is taken as pages are read, one behind the other; where there are many, in large pieces. */
static void *reserve(size_t len)
{
    void *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED)
        return NULL;
    if (len > LARGE)
        (void)madvise((uint8_t *)bytes + LARGE, len - LARGE, MADV_HUGEPAGE);
    return bytes;
}

/* One of the snapshots, with the metas as they were read. */
static int read_snapshot(int fd, const struct metas *m, int which, struct image *ret,
                         struct pages_fault *fault)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint64_t size = m->meta[which].page_size, len = (m->meta[which].last_page + 1) * size;
    if (len > (uint64_t)st.st_size)
        len = (uint64_t)st.st_size;
    if (len < 2 * size)
        return -EAGAIN; /* cut short since */
    struct image image = {.bytes = reserve(len), .len = len};
    if (!image.bytes)
        return -ENOMEM;
    memcpy(image.bytes, m->bytes[0], META_BYTES);
    memcpy(image.bytes + size, m->bytes[1], META_BYTES);
    int r = pages_open_as_read(image.bytes, image.len, which, read_pages, fd, &image.pages, fault);
    if (r < 0)
        image_clear(&image);
    else
        *ret = image;
    return r;
}

static int read_once(int fd, struct image *ret, struct pages_fault *fault)
{
    struct metas before;
    uint8_t again[META_BYTES];
    int r = read_metas(fd, &before, fault);
    if (r < 0)
        return r;
    int newest = before.meta[1].txn > before.meta[0].txn;
    r = read_snapshot(fd, &before, newest, ret, fault);
    if (r < 0 && r != -EBADMSG)
        return r;
    /* N's own meta page is the one that N + 2 writes; if it was half-written when it was read, it differs,
     * too */
    ssize_t n = fd_pread_all(fd, again, sizeof(again), newest ? before.meta[0].page_size : 0);
    if (n == META_BYTES && memcmp(again, before.bytes[newest], META_BYTES) == 0)
        return r;
    if (r == 0)
        image_clear(ret);
    return n < 0 ? (int)n : -EAGAIN;
}

/* Damaged is what was so each time, however often it changed before. */
static bool is_decided(int r, int *changed, int *damaged, int tries)
{
    *changed += r == -EAGAIN;
    *damaged = r == -EBADMSG ? *damaged + 1 : 0;
    return (r != -EAGAIN && r != -EBADMSG) || *changed == tries || *damaged == COPY_TRIES;
}

int image_read(int fd, struct image *ret, struct pages_fault *fault)
{
    int r, changed = 0, damaged = 0;
    do
        r = read_once(fd, ret, fault);
    while (!is_decided(r, &changed, &damaged, COPY_TRIES));
    return r;
}

int image_read_file(int dirfd, const char *name, const char *shown, struct image *ret, struct rbxj_error *e)
{
    struct pages_fault fault = {0};
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_sys(e, errno, "journal %s", shown);
    int r = image_read(fd, ret, &fault);
    return r < 0 && r != -EAGAIN ? image_error(e, r, &fault, shown) : r;
}

/* While the slot is held, the pages of its snapshot and of all that come after it stay: the newest is read,
 * however far on it is. */
static int read_in_slot(struct store *s, struct image *ret, struct pages_fault *fault)
{
    struct metas m;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS)
        return rc == MDB_READERS_FULL ? -EBUSY : rc > 0 ? -rc : -EIO;
    uint64_t id = mdb_txn_id(txn);
    int r = read_metas(s->fd, &m, fault);
    int newest = r == 0 && m.meta[1].txn > m.meta[0].txn;
    if (r == 0)
        r = m.meta[newest].txn >= id ? read_snapshot(s->fd, &m, newest, ret, fault) : -EAGAIN;
    mdb_txn_abort(txn);
    return r;
}

int image_read_store(struct store *s, struct image *ret, struct pages_fault *fault)
{
    int r, changed = 0, damaged = 0;
    do
        r = read_in_slot(s, ret, fault);
    while (!is_decided(r, &changed, &damaged, SLOT_TRIES));
    if (r == -EBADMSG && s->sound) /* who opens it next looks at it as a whole */
        atomic_store(&s->sound->ino, 0);
    return r;
}

void image_clear(struct image *image)
{
    pages_clear(&image->pages);
    if (image->bytes)
        (void)munmap(image->bytes, image->len);
    *image = (struct image){0};
}

int image_error(struct rbxj_error *e, int r, const struct pages_fault *fault, const char *shown)
{
    if (r == -EBADMSG)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: page %" PRIu64 ": %s", shown, fault->page,
                         fault->why);
    if (r == -EAGAIN || r == -EBUSY)
        return error_set(e, RBXJ_E_JOURNAL_BUSY, EBUSY, "journal %s: changes too fast to be read", shown);
    return error_sys(e, -r, "journal %s: reading it", shown);
}
