/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Do a boot journal, a state directory and the journal in it belong together? Who opens them and who only
 * reads them ask the same.
 */
#include "base/fd.h"
#include "journal/internal.h"

#include <string.h>
#include <unistd.h>

int belongs_missing(const char *state_dir, struct rbxj_error *e)
{
    return error_set(e, RBXJ_E_IO, ENOENT,
                     "state directory %s: make it with mode 0700 (as root only the installation does), or "
                     "mount its disk",
                     state_dir);
}

int belongs_emptied(const char *state_dir, struct rbxj_error *e)
{
    return error_set(e, RBXJ_E_JOURNAL_DAMAGED, ESTALE,
                     "state directory %s: is empty, but this boot has a journal of it (not mounted?)",
                     state_dir);
}

int belongs_check(const struct belongs *boot, const struct belongs *disk, const char *folder,
                  const char *state_dir, struct rbxj_error *e)
{
    if (memcmp(boot->instance, disk->instance, 16) != 0 || memcmp(boot->boot, disk->boot, 16) != 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, ESTALE,
                         "journal %s: does not belong to the journal in %s", folder, state_dir);
    /* what it gave out now would count as on disk already, and what was dropped since would be undone
     * (K21) */
    if (memcmp(boot->generation, disk->generation, 16) == 0 && boot->position < disk->position)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, ESTALE,
                         "journal %s: is older than what the journal in %s has of it: an old copy", folder,
                         state_dir);
    return 0;
}

int belongs_check_generation(const uint8_t boot[16], const uint8_t disk[16], const char *folder,
                             struct rbxj_error *e)
{
    static const uint8_t unknown[16];
    if (memcmp(boot, disk, 16) == 0 || memcmp(boot, unknown, 16) == 0 || memcmp(disk, unknown, 16) == 0)
        return 0;
    (void)error_set(e, RBXJ_E_JOURNAL_DAMAGED, ESTALE, "journal %s: another boot journal has taken its place",
                    folder);
    error_detail(e,
                 "made for the same state directory where this one is not seen (a container, a unit with a "
                 "/run of its own?)");
    return -RBXJ_E_JOURNAL_DAMAGED;
}

int belongs_check_state(uint64_t ino, int state_fd, const char *state_dir, struct rbxj_error *e)
{
    struct stat st;
    if (fstat(state_fd, &st) < 0)
        return error_sys(e, errno, "state directory %s", state_dir);
    if (st.st_ino == ino)
        return 0;
    return error_set(e, RBXJ_E_JOURNAL_DAMAGED, ESTALE,
                     "state directory %s: is not the directory that this boot's journal was made for (not "
                     "mounted?)",
                     state_dir);
}

int belongs_check_gate(int gate_fd, const char *path, struct rbxj_error *e)
{
    uint32_t head[2]; /* magic, size */
    struct stat st;
    if (fstat(gate_fd, &st) < 0)
        return error_sys(e, errno, "journal %s", path);
    ssize_t n = st.st_size == sizeof(struct gate_page) ? pread(gate_fd, head, sizeof(head), 0) : 0;
    if (n < 0)
        return error_sys(e, errno, "journal %s", path);
    if (n != sizeof(head) || head[0] != GATE_MAGIC || head[1] != sizeof(struct gate_page))
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, EPROTONOSUPPORT, "journal %s: has another layout", path);
    return 0;
}
