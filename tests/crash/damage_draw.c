/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "damage.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define SECTOR 512
#define META_LEN 152

static uint64_t number_at(const uint8_t *at)
{
    uint64_t number;
    memcpy(&number, at, sizeof(number));
    return number;
}

static void flip(struct damage_world *w, uint8_t *at)
{
    *at ^= (uint8_t)(1 + damage_draw(w, 255));
}

/* The list of free pages of one of the metas: its root page, in its head or anywhere. False: it has none. */
static bool damage_free_list(struct damage_world *w, uint8_t *bytes, size_t used)
{
    uint64_t root = number_at(bytes + damage_draw(w, 2) * PAGE + 80);
    if (root < 2 || root >= used / PAGE)
        return false;
    flip(w, bytes + root * PAGE + damage_draw(w, damage_draw(w, 2) ? 60 : PAGE));
    return true;
}

/* Only the pages that are in use count: the rest was allocated ahead. */
static void damage_bytes(struct damage_world *w, uint8_t *bytes, size_t used)
{
    size_t page = damage_draw(w, used / PAGE) * PAGE, other = damage_draw(w, used / PAGE) * PAGE;
    switch (damage_draw(w, 9)) {
    case 0:
        flip(w, bytes + damage_draw(w, used));
        return;
    case 1: /* a meta */
        flip(w, bytes + damage_draw(w, 2) * PAGE + damage_draw(w, META_LEN));
        return;
    case 2: /* a head, or a pointer */
    case 3:
        flip(w, bytes + page + damage_draw(w, 60));
        return;
    case 4:
        if (damage_free_list(w, bytes, used))
            return;
        __attribute__((fallthrough));
    case 5:
        memset(bytes + page, 0, PAGE);
        return;
    case 6:
        for (size_t i = 0; i < PAGE; i++)
            bytes[page + i] = (uint8_t)damage_draw(w, 256);
        return;
    case 7: /* a write that went to another place */
        memmove(bytes + page, bytes + other, PAGE);
        return;
    default: /* several sectors */
        for (uint64_t n = 1 + damage_draw(w, 4); n > 0; n--)
            memset(bytes + damage_draw(w, used / SECTOR) * SECTOR, (int)damage_draw(w, 256), SECTOR);
    }
}

static void write_back(const char *path, const uint8_t *bytes, size_t len, bool in_place)
{
    const char *to = in_place ? path : harness_format("%s.damaged", path);
    _cleanup_close_ int out = open(to, O_WRONLY | (in_place ? 0 : O_CREAT | O_EXCL) | O_CLOEXEC, 0600);
    assert_true(out >= 0);
    assert_int_equal(0, fd_write_all(out, bytes, len));
    assert_int_equal(0, ftruncate(out, (off_t)len));
    if (!in_place)
        assert_int_equal(0, rename(to, path));
}

void damage_file(struct damage_world *w, const char *path, bool in_place)
{
    struct stat st;
    _cleanup_close_ int in = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(in >= 0 && fstat(in, &st) == 0);
    size_t len = (size_t)st.st_size;
    _cleanup_free_ uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    assert_int_equal(st.st_size, read(in, bytes, len));
    uint64_t last = number_at(bytes + (damage_draw(w, 2) ? PAGE : 0) + 136);
    size_t used = (last + 1) * PAGE <= len ? (size_t)(last + 1) * PAGE : len;
    if (damage_draw(w, 9) == 0)
        len = damage_draw(w, used);
    else
        damage_bytes(w, bytes, used);
    write_back(path, bytes, len, in_place);
}
