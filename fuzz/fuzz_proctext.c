/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever /proc says: each of its texts is read within bounds, by every function that reads one, and no
 * answer is anything but what the text can mean.
 */
#include "fuzz.h"

#include "base/proctext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

static void try_ids(const char *text)
{
    struct proc_stat stat;
    int r = proctext_stat(text, &stat);
    if (r != 0 && r != -EBADMSG)
        abort();
    if (r == 0 && (!strchr(text, ')') || stat.parent < 0))
        abort();
    if (proctext_tgid(text) < 0)
        abort();
    int mount = proctext_mount_id(text);
    if (mount < 0 && mount != -ENODATA)
        abort();
}

static void try_locks(const char *text)
{
    if (proctext_has_flock(text, makedev(0xfe, 1), 77) && !strstr(text, " fe:01:77 "))
        abort();
    bool one = proctext_shows_flock(text, makedev(0xfe, 1), 77), any = proctext_shows_flock(text, 0, 77);
    if ((one && !any) || (any && (!strstr(text, ":77 ") || !strstr(text, "ino:"))))
        abort();
}

static void try_lists(const char *text)
{
    size_t lines = 0;
    pid_t pid;
    for (const char *at = text; proctext_next_pid(&at, &pid); lines++)
        if (pid < 0 || at > text + strlen(text))
            abort();
    if (lines > strlen(text))
        abort();
    char cgroup[16];
    if (proctext_cgroup(text, cgroup, sizeof(cgroup)) && !strstr(text, cgroup))
        abort();
    if (proctext_is_in_cgroup(text, "/sys/fs/cgroup/rbxj/box7") && !strstr(text, "/box7"))
        abort();
}

static void try_kmsg(const char *text)
{
    struct kmsg_record record;
    int r = proctext_kmsg(text, &record);
    if (r != 0 && r != -EBADMSG)
        abort();
    if (r == 0 && (record.level > 7 || record.text <= text ||
                   record.text + record.len > text + strlen(text) || memchr(record.text, '\n', record.len)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* a NUL in it ends it early, as a reader has it */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    try_ids(text);
    try_locks(text);
    try_lists(text);
    try_kmsg(text);
    if (proctext_names_container(text, size) && !memmem(text, size, "container=", 10))
        abort();
    free(text);
    return 0;
}
