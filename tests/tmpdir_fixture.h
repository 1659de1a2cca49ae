/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A box with one tmpdir: what the tests of that kind stand on.
 */
#ifndef RBXJ_TESTS_TMPDIR_FIXTURE_H
#define RBXJ_TESTS_TMPDIR_FIXTURE_H

#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/mountinfo.h"
#include "reaper/undo.h"

#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* A box with one tmpdir. */
static struct config config;
static struct undo undo;
static struct record record;
static struct finding finding;
static struct rbxj_error error;
static char *target, *aside;

static inline void intend(const char *where, uint32_t flags)
{
    static char *none[] = {NULL};
    mounts_free(undo.mounts);
    config = (struct config){
        .protected_paths = none,
        .allowed_paths = none,
        .state_dir = harness_format("%s/state", harness_disk()),
        .runtime_dir = harness_format("%s/runtime", harness_disk()),
    };
    undo = (struct undo){
        .config = &config,
        .records = &record,
        .records_len = 1,
        .deadline_ns = now_monotonic_ns() + INT64_C(60000000000),
        .same_boot = true,
    };
    target = harness_format("%s/box", where);
    record = (struct record){
        .incarnation = UINT64_C(0xfedcba9876543210),
        .seq = 4,
        .kind = RBXJ_TMPDIR,
        .flags = flags,
        .time_ns = now_realtime_ns(),
        .path = target,
    };
    memset(&error, 0, sizeof(error));
}

static inline int prepare(void)
{
    memset(&error, 0, sizeof(error));
    return kind_tmpdir.prepare(&undo, &record, &error);
}

static inline void begin_in(const char *where, uint32_t flags)
{
    intend(where, flags);
    assert_int_equal(prepare(), 0);
    char hex[33];
    hex_encode(hex, record.nonce, sizeof(record.nonce));
    aside = harness_format("%s/.rbxj-%s", where, hex);
}

static inline void acquire_in(const char *where, uint32_t flags)
{
    int fd = 0;
    begin_in(where, flags);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, &fd, &error), 0);
    assert_int_equal(fd, -1);
}

static inline int look(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.look(&undo, &record, &finding);
}

static inline int undo_it(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.undo(&undo, &record, &finding);
}

static inline int verify(void)
{
    memset(&finding, 0, sizeof(finding));
    return kind_tmpdir.verify(&undo, &record, &finding);
}

static inline void assert_found(enum found found)
{
    assert_int_equal(look(), 0);
    assert_int_equal(finding.found, found);
    assert_int_equal(finding.refused, found == FOUND_FOREIGN);
    assert_true((finding.identity != 0) == (found != FOUND_GONE));
}

static inline void assert_undone(void)
{
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_false(path_exists(aside));
    assert_found(FOUND_GONE);
    assert_int_equal(undo_it(), 0);
}

/* Foreign, left alone, and the record is to stay. */
static inline void assert_refused(void)
{
    assert_found(FOUND_FOREIGN);
    assert_int_equal(undo_it(), -RBXJ_E_FOREIGN);
    assert_true(finding.refused);
    assert_non_null(strstr(finding.error.message, target));
    assert_true(path_exists(target));
}

static inline void fill(const char *dir)
{
    harness_write(harness_format("%s/file", dir), "x");
    harness_mkdir(harness_format("%s/dir", dir));
    harness_write(harness_format("%s/dir/file", dir), "x");
    assert_int_equal(symlink("/", harness_format("%s/dir/link", dir)), 0);
}

static inline void assert_filled(const char *dir)
{
    assert_string_equal(harness_read(harness_format("%s/file", dir)), "x");
    assert_string_equal(harness_read(harness_format("%s/dir/file", dir)), "x");
}

/* Of the group. */
static inline int teardown(void **state)
{
    mounts_free(undo.mounts);
    undo.mounts = NULL;
    return harness_group_teardown(state);
}

#endif
