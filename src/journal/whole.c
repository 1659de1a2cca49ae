/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/whole.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SIZE_LIMIT (1ULL << 40) /* the largest map that can be configured */
#define BLOCK 65536

static int find_stretches(int fd, struct whole *w)
{
    size_t room = 0;
    uint64_t at = 0, end = w->size < SIZE_LIMIT ? w->size : SIZE_LIMIT, stretch_end;
    int r;
    while ((r = fd_next_data(fd, &at, end, &stretch_end)) > 0) {
        if (w->stretches_len == room) {
            room = room ? room * 2 : 16;
            struct stretch *larger = reallocarray(w->stretches, room, sizeof(*larger));
            if (!larger)
                return -ENOMEM;
            w->stretches = larger;
        }
        w->stretches[w->stretches_len++] = (struct stretch){at, stretch_end};
        at = w->len = stretch_end;
    }
    return r;
}

/* A file that is cut short meanwhile ends in zeros. */
static int read_stretch(int fd, struct whole *w, const struct stretch *s)
{
    for (size_t at = s->start; at < s->end;) {
        size_t wanted = s->end - at < BLOCK ? s->end - at : BLOCK;
        ssize_t n = fd_pread_all(fd, w->bytes + at, wanted, at);
        if (n == -EIO) { /* a bad sector: what is there counts as nothing, and the rest is read */
            memset(w->bytes + at, 0, wanted);
            w->unreadable++;
        } else if (n < 0) {
            return (int)n;
        }
        at += wanted;
    }
    return 0;
}

static int read_all(int fd, struct whole *w)
{
    struct stat st;
    int r = fstat(fd, &st) < 0 ? -errno : 0;
    if (r < 0)
        return r;
    w->size = (uint64_t)st.st_size;
    r = find_stretches(fd, w);
    if (r < 0 || !w->len)
        return r;
    /* memory is taken as it is written to */
    void *bytes = mmap(NULL, w->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                       0);
    if (bytes == MAP_FAILED)
        return -ENOMEM;
    w->bytes = bytes;
    for (size_t i = 0; i < w->stretches_len && r == 0; i++)
        r = read_stretch(fd, w, &w->stretches[i]);
    return r;
}

int whole_read(int fd, struct whole *ret)
{
    struct whole w = {0};
    int r = read_all(fd, &w);
    if (r < 0)
        whole_clear(&w);
    else
        *ret = w;
    return r;
}

void whole_clear(struct whole *w)
{
    if (w->bytes)
        (void)munmap(w->bytes, w->len);
    free(w->stretches);
    *w = (struct whole){0};
}
