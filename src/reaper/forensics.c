/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What can be read of journals, however damaged, as a JSON document; and a new journal from it. Read only: by
 * anybody who can read the files, from a copy, from a read-only disk.
 */
#include "base/cleanup.h"
#include "base/config.h"
#include "base/doc.h"
#include "base/error.h"
#include "base/fd.h"
#include "journal/salvage.h"
#include "reaper/entry.h"
#include "reaper/undo.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 64

/* What a name says: in this order they are told, and salvaged. */
enum source {
    SOURCE_BOOT,  /* journal-<boot>, a folder */
    SOURCE_DISK,  /* journal, a folder; or a data file that was named */
    SOURCE_ASIDE, /* journal.damaged-<time>, a folder: of those of a directory the newest is salvaged */
    /* damaged-<time>.mdb: kept when the log of a boot journal was damaged; a boot journal that is of another
     * boot, or was never finished. Never salvaged with others */
    SOURCE_KEPT,
    SOURCES,
};

struct files {
    struct autopsy *list; /* FILES_MAX: too many for a stack */
    enum source sources[FILES_MAX];
    unsigned dirs[FILES_MAX]; /* in the how many-th directory it is */
    unsigned dir;
    size_t len;
};

static void files_clear(struct files *files)
{
    while (files->len)
        autopsy_clear(&files->list[--files->len]);
    free(files->list);
}

static int add_file(struct files *files, const char *path, enum source source, struct rbxj_error *e)
{
    if (files->len == FILES_MAX)
        return error_set(e, RBXJ_E_BAD_REQUEST, E2BIG, "%s: more than %d journals", path, FILES_MAX);
    int r = autopsy_read(AT_FDCWD, path, path, &files->list[files->len], e);
    files->sources[files->len] = source;
    files->dirs[files->len] = files->dir;
    files->len += r == 0;
    return r;
}

/* ---- which files ---- */

static enum source source_of(const char *name)
{
    size_t len = strlen(name);
    if (strncmp(name, "journal-", 8) == 0)
        return SOURCE_BOOT;
    if (strcmp(name, "journal") == 0 || strcmp(name, "data.mdb") == 0)
        return SOURCE_DISK;
    if (strncmp(name, "journal.damaged-", 16) == 0)
        return SOURCE_ASIDE;
    return strncmp(name, "damaged-", 8) == 0 && len > 12 && strcmp(name + len - 4, ".mdb") == 0 ? SOURCE_KEPT
                                                                                                : SOURCES;
}

static int choose_name(const struct dirent *d)
{
    return source_of(d->d_name) != SOURCES;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    enum source x = source_of((*a)->d_name), y = source_of((*b)->d_name);
    return x != y ? (x > y) - (x < y) : strcmp((*a)->d_name, (*b)->d_name);
}

/* One of another boot goes unread, and one that was never finished is made again (K20). */
static bool is_of_this_boot(const char *name, const struct autopsy *a)
{
    char own[64];
    struct rbxj_error unused = {0};
    bool named = source_of(name) != SOURCE_BOOT ||
                 (journal_boot_folder("", own, sizeof(own), &unused) == 0 && strcmp(own + 1, name) == 0);
    return named && !autopsy_is_of_another_boot(a);
}

#define NO_FILE "is not a regular file"

/* In its place is something else: told, and nobody is kept from what the others hold. */
static void add_no_file(struct files *files, char *path)
{
    struct autopsy a = {.path = path, .snapshots = {{.which = -1}, {.which = -1}}};
    for (size_t i = 0; i < ARRAY_LEN(a.metas); i++)
        a.metas[i].fault = (struct pages_fault){i, NO_FILE};
    files->list[files->len] = a;
    files->sources[files->len] = SOURCE_KEPT;
    files->dirs[files->len++] = files->dir;
}

static bool is_no_file(const struct rbxj_error *e)
{
    return e->errnum == ELOOP || e->errnum == ENOTDIR || (e->code == RBXJ_E_BAD_REQUEST && !e->errnum);
}

static int add_entry(struct files *files, const char *dir, const char *name, struct rbxj_error *e)
{
    _cleanup_free_ char *path = NULL;
    const char *rest = strncmp(name, "journal", 7) == 0 ? "/data.mdb" : "";
    struct rbxj_error own = {0};
    if (asprintf(&path, "%s%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", name, rest) < 0) {
        path = NULL;
        return error_sys(e, ENOMEM, "forensics");
    }
    int r = add_file(files, path, source_of(name), &own);
    bool none = own.errnum == ENOENT || (own.errnum == ENOTDIR && strcmp(name, "journal") != 0);
    if (r < 0 && none && *rest) /* a folder without one, or a file of such a name */
        return 0;
    if (r < 0 && is_no_file(&own)) {
        add_no_file(files, steal_ptr(path));
        return 0;
    }
    if (r == 0 && !is_of_this_boot(name, &files->list[files->len - 1]))
        files->sources[files->len - 1] = SOURCE_KEPT;
    return r < 0 ? error_pass(e, &own) : 0;
}

/* All that a state, runtime or journal directory has of journals. */
static int add_dir(struct files *files, const char *dir, struct rbxj_error *e)
{
    struct dirent **names;
    int n = scandir(dir, &names, choose_name, compare_names), r = 0;
    if (n < 0)
        return error_sys(e, errno, "%s", dir);
    files->dir++;
    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = add_entry(files, dir, names[i]->d_name, e);
        free(names[i]);
    }
    free(names);
    return r;
}

static int add_operand(struct files *files, const char *path, struct rbxj_error *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return error_sys(e, errno, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return add_file(files, path, SOURCE_DISK, e);
    int r = add_dir(files, path, e);
    return r == 0 && !files->len ? error_set(e, RBXJ_E_BAD_REQUEST, ENOENT, "%s: has no journal", path) : r;
}

static void move_to_end(struct files *files, size_t n)
{
    size_t others = files->len - 1;
    for (; n; n--) {
        struct autopsy a = files->list[0];
        enum source source = files->sources[0];
        unsigned dir = files->dirs[0];
        memmove(files->list, files->list + 1, others * sizeof(a));
        memmove(files->sources, files->sources + 1, others * sizeof(source));
        memmove(files->dirs, files->dirs + 1, others * sizeof(dir));
        files->list[others] = a;
        files->sources[others] = source;
        files->dirs[others] = dir;
    }
}

/* The disk's are read first, which the boot journal is never behind; and told last. */
static int add_own(struct files *files, const struct config *config, struct rbxj_error *e)
{
    const char *const dirs[] = {config->state_dir, config->runtime_dir};
    size_t disk = 0;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        struct rbxj_error own = {0};
        disk = files->len;
        int r = add_dir(files, dirs[i], &own);
        if (r < 0 && own.errnum != ENOENT) { /* one that is not there has none */
            return error_pass(e, &own);
        }
    }
    move_to_end(files, disk);
    return 0;
}

/* ---- the document ---- */

static const char *const state_names[] = {"intact", "superseded", "orphan", "damaged"};

static void put_fault(struct doc *doc, cJSON *parent, bool sound, const struct pages_fault *fault)
{
    char text[160];
    (void)snprintf(text, sizeof(text), "page %" PRIu64 ": %s", fault->page, sound ? "" : fault->why);
    (void)doc_text(doc, parent, "why", sound ? NULL : text);
}

static void put_metas(struct doc *doc, cJSON *file, const struct autopsy *a)
{
    cJSON *list = doc_array(doc, file, "metas");
    for (int i = 0; i < 2; i++) {
        const struct autopsy_meta *m = &a->metas[i];
        cJSON *meta = doc_object(doc, list, NULL);
        doc_number(doc, meta, "page", i);
        doc_bool(doc, meta, "sound", m->sound);
        if (m->sound) {
            doc_number(doc, meta, "txn", (double)m->meta.txn);
            doc_number(doc, meta, "page_size", m->meta.page_size);
            doc_number(doc, meta, "last_page", (double)m->meta.last_page);
            doc_number(doc, meta, "map_size", (double)m->meta.map_size);
        }
        put_fault(doc, meta, m->sound, &m->fault);
    }
}

static void put_databases(struct doc *doc, cJSON *snapshot, const struct pages *p)
{
    cJSON *list = doc_array(doc, snapshot, "databases");
    for (size_t i = 0; i < p->dbs_len; i++) {
        const struct pages_tree *t = &p->dbs[i].tree;
        cJSON *db = doc_object(doc, list, NULL);
        (void)doc_text(doc, db, "name", p->dbs[i].name);
        doc_number(doc, db, "entries", (double)t->entries);
        doc_number(doc, db, "pages", (double)(t->branch_pages + t->leaf_pages + t->overflow_pages));
        doc_number(doc, db, "depth", t->depth);
    }
    doc_number(doc, snapshot, "pages_used", (double)p->live);
    doc_number(doc, snapshot, "pages_free", (double)p->free);
}

static void put_snapshots(struct doc *doc, cJSON *file, const struct autopsy *a)
{
    cJSON *list = doc_array(doc, file, "snapshots");
    for (int i = 0; i < 2; i++) {
        const struct autopsy_snapshot *s = &a->snapshots[i];
        if (s->which < 0)
            continue;
        cJSON *snapshot = doc_object(doc, list, NULL);
        doc_number(doc, snapshot, "txn", (double)a->metas[s->which].meta.txn);
        doc_bool(doc, snapshot, "sound", s->sound);
        doc_number(doc, snapshot, "records", (double)s->records);
        put_fault(doc, snapshot, s->sound, &s->fault);
        if (s->sound)
            put_databases(doc, snapshot, &s->pages);
    }
}

/* The newest transaction that is known to have had it. Of what lies in free pages only older ones than both
 * are. */
static void put_txn(struct doc *doc, cJSON *entry, const struct autopsy *a, const struct carved *c)
{
    const struct autopsy_snapshot *s = &a->snapshots[c->newest ? 0 : 1];
    if (c->newest || c->previous)
        doc_number(doc, entry, "txn", (double)a->metas[s->which].meta.txn);
    else
        (void)doc_text(doc, entry, "txn", NULL);
}

static void put_entry(struct doc *doc, cJSON *list, const struct autopsy *a, const struct carved *c,
                      const char *box)
{
    const struct kind *kind = kind_of((enum rbxj_kind)c->head.kind);
    struct record r = {0};
    char pid[32];
    const char *name = NULL;
    if (c->state != CARVED_DAMAGED && c->head.seq && record_decode(c->bytes, c->head.length, NULL, &r) == 0)
        name = r.path;
    if (r.kind == RBXJ_PROCESS) {
        (void)snprintf(pid, sizeof(pid), "pid %d", r.process.pid);
        name = pid;
    }
    cJSON *entry = doc_object(doc, list, NULL);
    (void)doc_text(doc, entry, "state", state_names[c->state]);
    (void)doc_text(doc, entry, "box", box);
    doc_number64(doc, entry, "incarnation", c->head.incarnation);
    doc_number(doc, entry, "seq", c->head.seq);
    (void)doc_text(doc, entry, "kind", c->head.seq == 0 ? "box" : kind ? kind->name : NULL);
    if (name)
        doc_name(doc, entry, "name", name);
    else
        (void)doc_text(doc, entry, "name", NULL);
    doc_time(doc, entry, "time", c->state == CARVED_DAMAGED ? 0 : c->head.time_ns);
    doc_bool(doc, entry, "evidence", r.flags & REC_EVIDENCE);
    doc_number(doc, entry, "offset", (double)c->offset);
    put_txn(doc, entry, a, c);
    doc_bool(doc, entry, "newest_snapshot", c->newest);
    doc_bool(doc, entry, "previous_snapshot", c->previous);
    record_clear(&r);
}

/* Records come in the order of their keys, a box's header before its resources. */
static void put_entries(struct doc *doc, cJSON *file, const struct autopsy *a)
{
    cJSON *list = doc_array(doc, file, "entries");
    struct box box = {0}, header;
    for (size_t i = 0; i < a->records_len; i++) {
        const struct carved *c = &a->records[i];
        if (c->head.incarnation != box.incarnation)
            box = (struct box){.incarnation = c->head.incarnation};
        if (c->head.seq == 0 && c->state != CARVED_DAMAGED && !box.name[0] &&
            record_decode_box(c->bytes, c->head.length, NULL, &header) == 0)
            box = header;
        put_entry(doc, list, a, c, box.name[0] ? box.name : NULL);
    }
}

static void put_reason(struct doc *doc, cJSON *reasons, const char *what, const struct pages_fault *fault)
{
    char text[200];
    (void)snprintf(text, sizeof(text), "%s: page %" PRIu64 ": %s", what, fault->page, fault->why);
    (void)doc_text(doc, reasons, NULL, text);
}

static void put_reasons(struct doc *doc, cJSON *file, const struct autopsy *a)
{
    char text[80];
    size_t damaged = 0;
    cJSON *reasons = doc_array(doc, file, "reasons");
    for (int i = 0; i < 2; i++)
        if (!a->metas[i].sound)
            put_reason(doc, reasons, i ? "meta page 1" : "meta page 0", &a->metas[i].fault);
    for (int i = 0; i < 2; i++)
        if (a->snapshots[i].which >= 0 && !a->snapshots[i].sound)
            put_reason(doc, reasons, i ? "previous snapshot" : "newest snapshot", &a->snapshots[i].fault);
    for (size_t i = 0; i < a->records_len; i++)
        damaged += a->records[i].state == CARVED_DAMAGED && a->records[i].newest;
    if (a->file.unreadable) {
        (void)snprintf(text, sizeof(text), "%zu blocks of 64 KiB can't be read", a->file.unreadable);
        (void)doc_text(doc, reasons, NULL, text);
    }
    (void)snprintf(text, sizeof(text), "newest snapshot: %zu records are damaged", damaged);
    if (damaged)
        (void)doc_text(doc, reasons, NULL, text);
    (void)snprintf(text, sizeof(text), "newest snapshot: %zu records are not at their key", a->misplaced);
    if (a->misplaced)
        (void)doc_text(doc, reasons, NULL, text);
    if (a->lacks)
        (void)doc_text(doc, reasons, NULL, "newest snapshot: lacks what every journal has");
}

static void put_file(struct doc *doc, cJSON *list, const struct autopsy *a)
{
    cJSON *file = doc_object(doc, list, NULL);
    doc_name(doc, file, "path", a->path);
    doc_number(doc, file, "bytes", (double)a->file.size);
    (void)doc_text(doc, file, "verdict", autopsy_is_sound(a) ? "sound" : "damaged");
    put_reasons(doc, file, a);
    put_metas(doc, file, a);
    put_snapshots(doc, file, a);
    cJSON *records = doc_object(doc, file, "records");
    for (size_t i = 0; i < ARRAY_LEN(state_names); i++)
        doc_number(doc, records, state_names[i], (double)a->count[i]);
    put_entries(doc, file, a);
}

static void put_salvaged(struct doc *doc, const char *dir, const struct salvaged *s)
{
    cJSON *object = doc_object(doc, doc->root, "salvaged");
    doc_name(doc, object, "directory", dir);
    doc_number(doc, object, "boxes", (double)s->boxes);
    doc_number(doc, object, "records", (double)s->records);
    doc_number(doc, object, "left_out_without_header", (double)s->without_header);
    doc_number(doc, object, "left_out_same_name", (double)s->same_name);
    doc_number(doc, object, "left_out_newer_version", (double)s->newer_version);
}

/* Of the ones aside only the newest of a directory: older ones were looked into, and so was what a salvaged
 * journal has replaced. */
static bool is_salvaged(const struct files *files, size_t i)
{
    if (files->sources[i] == SOURCE_KEPT)
        return false;
    for (size_t k = 0; k < files->len && files->sources[i] == SOURCE_ASIDE; k++)
        if ((files->sources[k] == SOURCE_BOOT || files->sources[k] == SOURCE_DISK) &&
            salvage_is_replaced(&files->list[i], &files->list[k]))
            return false;
    return files->sources[i] != SOURCE_ASIDE || i + 1 == files->len ||
           files->sources[i + 1] != SOURCE_ASIDE || files->dirs[i + 1] != files->dirs[i];
}

static int salvage(const struct files *files, const struct config *config, const char *dir,
                   struct salvaged *ret, struct rbxj_error *e)
{
    const struct journal_options options = {.map_size = config->map_size, .preallocate = config->preallocate};
    _cleanup_free_ struct autopsy *chosen = calloc(FILES_MAX, sizeof(*chosen));
    size_t n = 0, boots = 0, asides = 0;
    if (!chosen)
        return error_sys(e, ENOMEM, "salvage");
    for (size_t i = 0; i < files->len; i++) {
        if (!is_salvaged(files, i))
            continue;
        chosen[n++] = files->list[i];
        boots += files->sources[i] == SOURCE_BOOT;
        asides += files->sources[i] == SOURCE_ASIDE;
    }
    if (!n)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "salvage: there is no journal of this boot, of the disk or aside");
    bool boot_is_all = boots == 1 && !asides && autopsy_is_sound(&chosen[0]) &&
                       !salvage_is_behind(chosen, n, &chosen[0]);
    return salvage_write(chosen, n, boot_is_all, dir, &options, ret, e);
}

int rbxj_forensics(const struct rbxj_options *options, const char *path, const char *salvage_dir,
                   char **ret_json, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(files_clear) struct files files = {.len = 0};
    struct salvaged salvaged = {0};
    files.list = calloc(FILES_MAX, sizeof(*files.list));
    if (!files.list)
        return error_sys(error, ENOMEM, "forensics");
    int r = config_load(options, &config, error);
    if (r == 0)
        r = path ? add_operand(&files, path, error) : add_own(&files, &config, error);
    if (r == 0 && salvage_dir)
        r = salvage(&files, &config, salvage_dir, &salvaged, error);
    if (r < 0)
        return r;
    struct doc doc;
    doc_init(&doc);
    cJSON *list = doc_array(&doc, doc.root, "files");
    bool sound = true;
    for (size_t i = 0; i < files.len; i++) {
        put_file(&doc, list, &files.list[i]);
        sound = sound && autopsy_is_sound(&files.list[i]);
    }
    if (salvage_dir)
        put_salvaged(&doc, salvage_dir, &salvaged);
    char *text = doc_finish(&doc);
    if (!text)
        return error_sys(error, ENOMEM, "forensics");
    *ret_json = text;
    return sound ? 0 : 1;
}
