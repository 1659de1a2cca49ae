/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which journals belong together, of those that are salvaged, and what one of them says of what another one
 * has.
 */
#include "base/cleanup.h"
#include "base/sorted.h"
#include "journal/deletions.h"
#include "journal/internal.h"
#include "journal/salvage.h"

#include <string.h>

/* The newest snapshot that can be read, or NULL. */
static const struct autopsy_snapshot *best_of(const struct autopsy *a)
{
    for (size_t i = 0; i < ARRAY_LEN(a->snapshots); i++)
        if (a->snapshots[i].sound)
            return &a->snapshots[i];
    return NULL;
}

static bool has_id(const struct autopsy_snapshot *s, const char *name, uint8_t ret[16])
{
    return s && scan_meta(&s->pages, name, ret, 16) == 0;
}

static bool is_boot_journal(const struct autopsy_snapshot *s)
{
    uint64_t position;
    return s && scan_meta(&s->pages, META_POSITION, &position, sizeof(position)) == 0;
}

bool autopsy_is_of_another_boot(const struct autopsy *a)
{
    uint8_t own[16], boot[16];
    const struct autopsy_snapshot *s = best_of(a);
    return is_boot_journal(s) && has_id(s, META_BOOT, boot) &&
           (procid_boot(own) < 0 || memcmp(own, boot, sizeof(own)) != 0);
}

bool salvage_is_replaced(const struct autopsy *a, const struct autopsy *other)
{
    uint8_t own[16], its[16];
    int64_t salvaged_ns;
    const struct autopsy_snapshot *s = best_of(other);
    return has_id(best_of(a), META_INSTANCE, own) && has_id(s, META_INSTANCE, its) &&
           memcmp(own, its, sizeof(own)) != 0 &&
           scan_meta(&s->pages, META_SALVAGED, &salvaged_ns, sizeof(salvaged_ns)) == 0 && salvaged_ns != 0;
}

/* Is the one a disk journal, and the other the boot journal that it follows? */
static bool follows(const struct autopsy_snapshot *disk, const struct autopsy_snapshot *boot)
{
    uint8_t followed[16], own[16];
    return !is_boot_journal(disk) && is_boot_journal(boot) && has_id(disk, META_GENERATION, followed) &&
           has_id(boot, META_GENERATION, own) && memcmp(own, followed, sizeof(own)) == 0;
}

/* Is that an old copy of the boot journal that one of the disk journals has followed further? */
bool salvage_is_behind(const struct autopsy *files, size_t n, const struct autopsy *boot)
{
    const struct autopsy_snapshot *s = &boot->snapshots[0]; /* without it, it is known to be behind itself */
    for (size_t i = 0; i < n && s->sound; i++) {
        const struct autopsy_snapshot *disk = best_of(&files[i]);
        if (follows(disk, s) && disk->position > s->position)
            return true;
    }
    return false;
}

const struct autopsy *salvage_boot_of(const struct autopsy *files, size_t n, const struct autopsy *disk)
{
    for (size_t i = 0; i < n; i++)
        if (follows(best_of(disk), best_of(&files[i])) && !autopsy_is_of_another_boot(&files[i]) &&
            !salvage_is_behind(files, n, &files[i]))
            return &files[i];
    return NULL;
}

static int compare_keys(const void *a, const void *b)
{
    const struct carved *x = a, *y = b;
    return record_compare(&x->head, &y->head);
}

/* The boot journal has everything that the disk has (K20), which learns later of what was dropped: what it
 * lacks, but for what came after it, was. */
static bool has_dropped(const struct autopsy *boot, const struct carved *c)
{
    const struct autopsy_snapshot *s = best_of(boot);
    size_t i = lower_bound(c, boot->records, boot->records_len, sizeof(*c), compare_keys);
    for (; i < boot->records_len && compare_keys(c, &boot->records[i]) == 0; i++)
        if (s == &boot->snapshots[0] ? boot->records[i].newest : boot->records[i].previous)
            return false;
    return c->head.position <= s->position;
}

/* Whichever log says so: of the own one it was asked already. */
static bool is_deleted(const struct autopsy *files, size_t n, size_t which, const struct carved *c)
{
    for (size_t i = 0; i < n; i++)
        if (i != which && deletions_have(files[i].deletions, &c->head))
            return true;
    return false;
}

bool salvage_is_dropped(const struct autopsy *files, size_t n, size_t which, const struct autopsy *boot,
                        const struct carved *c)
{
    return (boot && has_dropped(boot, c)) || is_deleted(files, n, which, c);
}
