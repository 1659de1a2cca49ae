/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The names index: does a path overlap one that another box has recorded (K4)? Three kinds of keys, each with
 * the record's key at its end:
 *
 *   - 'P' path 0: sorted, so what lies inside a path is one range; a path over PATH_KEY_MAX bytes is
 *     cut there and its rest is the value
 *   - 'A' dev ino hash: an alias, the parent directory's identity and the hash of the last component; so
 *     the same directory reached through a bind mount is found too
 *   - 'A' dev ino 0: the directory itself, once it is known (a tmpdir with evidence), which may be
 *     bind-mounted elsewhere
 *
 * The value of an alias is the hash of the directory's handle: an inode number is given again at once (K3).
 *
 * Aliases are looked up by every directory on the way to the new path. The other direction (a recorded path
 * inside the new one, through an alias) needs no look-up: what would contain it must be absent before
 * (tmpdir, cgroup), or is a file (lock), or only covers it (mount).
 */
#include "base/fd.h"
#include "journal/internal.h"

#include <endian.h>
#include <string.h>
#include <xxhash.h>

#define PATH_KEY_MAX 480

struct name_key {
    size_t len;
    uint8_t bytes[511];
};

static void key_add(struct name_key *k, const void *data, size_t len)
{
    memcpy(k->bytes + k->len, data, len);
    k->len += len;
}

static void key_add_record(struct name_key *k, const struct record *r)
{
    struct record_key own = record_key(r->incarnation, r->seq);
    key_add(k, &own, sizeof(own));
}

/* 'P' and the path up to its cut; the caller adds what follows. */
static struct name_key path_key(const char *path, size_t len)
{
    struct name_key k = {0};
    key_add(&k, "P", 1);
    key_add(&k, path, len < PATH_KEY_MAX ? len : PATH_KEY_MAX);
    return k;
}

static struct name_key alias_key(uint64_t dev, uint64_t ino, uint64_t hash)
{
    struct name_key k = {0};
    uint64_t parts[3] = {htobe64(dev), htobe64(ino), htobe64(hash)};
    key_add(&k, "A", 1);
    key_add(&k, parts, sizeof(parts));
    return k;
}

static uint64_t base_hash(const char *path)
{
    const char *base = strrchr(path, '/') + 1;
    return XXH3_64bits(base, strlen(base));
}

static struct name_key record_path_key(const struct record *r)
{
    struct name_key k = path_key(r->path, strlen(r->path));
    key_add(&k, "", 1);
    key_add_record(&k, r);
    return k;
}

/* By its place, and by itself. Those of a mount or a lock say nothing: a mount's root may be any
 * directory. */
static size_t record_alias_keys(const struct record *r, struct name_key k[2], uint64_t handles[2])
{
    size_t n = 0;
    if (fileid_is_set(&r->parent)) {
        handles[n] = fileid_handle_hash(&r->parent);
        k[n++] = alias_key(r->parent.dev, r->parent.ino, base_hash(r->path));
    }
    if (r->kind == RBXJ_TMPDIR && fileid_is_set(&r->id)) {
        handles[n] = fileid_handle_hash(&r->id);
        k[n++] = alias_key(r->id.dev, r->id.ino, 0);
    }
    for (size_t i = 0; i < n; i++)
        key_add_record(&k[i], r);
    return n;
}

int names_add(MDB_txn *txn, MDB_dbi names, const struct record *r, const uint8_t boot_id[16])
{
    if (!r->path)
        return MDB_SUCCESS;
    struct name_key k = record_path_key(r), aliases[2];
    uint64_t handles[2];
    size_t len = strlen(r->path), kept = len < PATH_KEY_MAX ? len : PATH_KEY_MAX;
    MDB_val key = {k.len, k.bytes}, data = {len - kept, r->path + kept};
    int rc = mdb_put(txn, names, &key, &data, 0);
    /* device and inode numbers of another boot say nothing in this one */
    size_t n = boot_id ? record_alias_keys(r, aliases, handles) : 0;
    for (size_t i = 0; i < n && rc == MDB_SUCCESS; i++) {
        key = (MDB_val){aliases[i].len, aliases[i].bytes};
        data = (MDB_val){sizeof(handles[i]), &handles[i]};
        rc = mdb_put(txn, names, &key, &data, 0);
    }
    return rc;
}

int names_remove(MDB_txn *txn, MDB_dbi names, const struct record *r)
{
    struct name_key k[3];
    uint64_t handles[2];
    if (!r->path)
        return MDB_SUCCESS;
    k[0] = record_path_key(r);
    size_t n = 1 + record_alias_keys(r, &k[1], handles);
    for (size_t i = 0; i < n; i++) {
        MDB_val key = {k[i].len, k[i].bytes};
        int rc = mdb_del(txn, names, &key, NULL);
        if (rc != MDB_SUCCESS && rc != MDB_NOTFOUND)
            return rc;
    }
    return MDB_SUCCESS;
}

/* ---- looking up ---- */

struct lookup {
    MDB_cursor *cursor;
    const struct record *r;
    const uint64_t *related;
    size_t n;
    uint64_t other;
};

/* May r stand beside the path of that record? Within a box everything may nest, and only a mount may use a
 * path again; in a box that lives in another one (related[1..]) things may lie inside the outer one's. */
static bool may_stand(const struct lookup *l, uint64_t incarnation, const char *path)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->related[i] != incarnation)
            continue;
        bool equal = strcmp(path, l->r->path) == 0;
        if (i == 0)
            return !equal || l->r->kind == RBXJ_MOUNT;
        return !equal && path_is_below(l->r->path, path);
    }
    return false;
}

/* Whose entry is it? The end of every key says so. */
static uint64_t incarnation_of(const MDB_val *key)
{
    struct record_key own;
    uint64_t incarnation;
    uint32_t seq;
    memcpy(&own, (uint8_t *)key->mv_data + key->mv_size - sizeof(own), sizeof(own));
    record_key_parse(&own, &incarnation, &seq);
    return incarnation;
}

/* handle: of the directory on the way, 0: not known; what an earlier version has written has no value. */
static int check_alias(struct lookup *l, uint64_t handle, const MDB_val *key, const MDB_val *data)
{
    uint64_t incarnation = incarnation_of(key), theirs = 0;
    if (data->mv_size == sizeof(theirs))
        memcpy(&theirs, data->mv_data, sizeof(theirs));
    if (handle && theirs && handle != theirs)
        return MDB_SUCCESS;
    for (size_t i = 0; i < l->n; i++)
        if (l->related[i] == incarnation)
            return MDB_SUCCESS;
    l->other = incarnation;
    return MDB_KEYEXIST;
}

static int check_path(struct lookup *l, const MDB_val *key, const MDB_val *data)
{
    char path[RECORD_PATH_MAX + PATH_KEY_MAX];
    size_t around = 1 + 1 + sizeof(struct record_key);
    if (key->mv_size < around || key->mv_size - around + data->mv_size >= sizeof(path))
        return MDB_CORRUPTED;
    size_t head = key->mv_size - around;
    memcpy(path, (uint8_t *)key->mv_data + 1, head);
    memcpy(path + head, data->mv_data, data->mv_size);
    path[head + data->mv_size] = 0;
    uint64_t incarnation = incarnation_of(key);
    /* a range of cut keys holds strangers, too */
    if ((!path_is_below(path, l->r->path) && !path_is_below(l->r->path, path)) ||
        may_stand(l, incarnation, path))
        return MDB_SUCCESS;
    l->other = incarnation;
    return MDB_KEYEXIST;
}

/* Every entry whose key begins with prefix: MDB_KEYEXIST at the first that is in the way. alias: no path to
 * compare, but the directory. */
static int check_range(struct lookup *l, const struct name_key *prefix, const struct record_step *alias)
{
    MDB_val key = {prefix->len, (void *)(uintptr_t)prefix->bytes}, data;
    int rc = mdb_cursor_get(l->cursor, &key, &data, MDB_SET_RANGE);
    for (; rc == MDB_SUCCESS; rc = mdb_cursor_get(l->cursor, &key, &data, MDB_NEXT)) {
        if (key.mv_size < prefix->len || memcmp(key.mv_data, prefix->bytes, prefix->len) != 0)
            return MDB_SUCCESS;
        rc = alias ? check_alias(l, alias->handle_hash, &key, &data) : check_path(l, &key, &data);
        if (rc != MDB_SUCCESS)
            return rc;
    }
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

int names_overlap(MDB_txn *txn, MDB_dbi names, const struct record *r, const uint64_t *related, size_t n,
                  uint64_t *ret_other)
{
    struct lookup l = {.r = r, .related = related, .n = n};
    if (!r->path)
        return MDB_SUCCESS;
    size_t len = strlen(r->path);
    int rc = mdb_cursor_open(txn, names, &l.cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    /* what equals or contains it: every ancestor, and itself */
    for (size_t at = 1; at <= len && at <= PATH_KEY_MAX && rc == MDB_SUCCESS; at++) {
        if (r->path[at] != '/' && r->path[at] != 0)
            continue;
        struct name_key k = path_key(r->path, at);
        key_add(&k, "", 1);
        rc = check_range(&l, &k, NULL);
    }
    /* what lies inside it, and everything that was cut where it is cut */
    if (rc == MDB_SUCCESS) {
        struct name_key k = path_key(r->path, len);
        key_add(&k, len < PATH_KEY_MAX ? "/" : "", 1);
        rc = check_range(&l, &k, NULL);
    }
    for (size_t i = 0; i < r->chain_len && rc == MDB_SUCCESS; i++) {
        const struct record_step *step = &r->chain[i];
        struct name_key k = alias_key(step->dev, step->ino, step->base_hash);
        rc = check_range(&l, &k, step);
        if (rc == MDB_SUCCESS) {
            k = alias_key(step->dev, step->ino, 0);
            rc = check_range(&l, &k, step);
        }
    }
    mdb_cursor_close(l.cursor);
    if (rc == MDB_KEYEXIST)
        *ret_other = l.other;
    return rc;
}
