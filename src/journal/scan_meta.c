/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a journal says of itself, read without LMDB.
 */
#include "journal/internal.h"
#include "journal/pages.h"

#include <string.h>

int scan_meta(const struct pages *p, const char *name, void *value, size_t len)
{
    struct pages_entry e = {0};
    if (pages_get(p, DB_META, name, strlen(name), &e) < 0 || e.value_len != len)
        return -EBADMSG;
    memcpy(value, e.value, len);
    return 0;
}

static bool has(const struct pages *p, const char *name, size_t len)
{
    struct pages_entry e = {0};
    return pages_get(p, DB_META, name, strlen(name), &e) == 0 && e.value_len == len;
}

static bool has_db(const struct pages *p, const char *name)
{
    for (size_t i = 0; i < p->dbs_len; i++)
        if (strcmp(p->dbs[i].name, name) == 0)
            return true;
    return false;
}

int scan_lacks(const struct pages *p)
{
    bool boot = has_db(p, DB_LOG),
         all = has_db(p, DB_RECORDS) && has(p, META_FORMAT, sizeof(uint32_t)) && has(p, META_INSTANCE, 16);
    if (boot)
        all = all && has_db(p, DB_MARKS) && has_db(p, DB_NAMES) && has_db(p, DB_BOXES) &&
              has(p, META_BOOT, 16) && has(p, META_GENERATION, 16) &&
              has(p, META_POSITION, sizeof(uint64_t)) && has(p, META_STATE_DIR, 2 * sizeof(uint64_t));
    else
        all = all && has(p, META_COVERED, sizeof(uint64_t));
    return all ? 0 : -EBADMSG;
}
