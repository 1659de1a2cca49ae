/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_look.h"

#include "base/cleanup.h"
#include "crash.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rbxj_options disk_options(const struct world *w, const char *state)
{
    return (struct rbxj_options){
        .state_dir = state,
        .runtime_dir = state == w->state ? harness_format("%s/run", harness_tmpfs()) : w->cut_runtime,
        .config = w->config,
    };
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    return ftw->level ? remove(path) : 0;
}

void disk_empty(const char *dir)
{
    if (!path_exists(dir))
        harness_mkdir(dir);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        fail_msg("%s can't be emptied", dir);
}

#define EXPECT(condition, ...)                                                                               \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, __VA_ARGS__);                                                              \
            (void)fprintf(stderr, "\n");                                                                     \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/* Of a box whose supervisor died before it was answered only the name is known. */
static int box_of(const struct model *m, uint64_t incarnation, const char *name)
{
    int unanswered = -1;
    for (uint32_t i = 0; i < m->boxes_len; i++) {
        if (m->boxes[i].incarnation == incarnation)
            return (int)i;
        if (!m->boxes[i].incarnation && strcmp(m->boxes[i].name, name) == 0)
            unanswered = (int)i;
    }
    return unanswered;
}

/* The records of one box as bits; each must be the very one that was journaled. */
static uint32_t check_box(const struct model *m, const struct model_box *box,
                          const struct rbxj_result *result, size_t i, size_t entries)
{
    struct rbxj_result_entry e;
    uint32_t mask = 1;
    char path[4200];
    for (size_t k = 0; k < entries; k++) {
        EXPECT(rbxj_result_entry(result, i, k, &e) == 0, "entry %zu", k);
        EXPECT(e.seq > 0 && e.seq < box->len, "box %s: seq %u was never journaled", box->name, e.seq);
        const struct model_record *r = &box->records[e.seq];
        model_path(m, r, path, sizeof(path));
        EXPECT(strcmp(path, e.name) == 0 && strcmp(e.kind, r->kind == RBXJ_LOCK ? "lock" : "tmpdir") == 0,
               "box %s: seq %u is %s %s instead of %s", box->name, e.seq, e.kind, e.name, path);
        mask |= 1u << e.seq;
    }
    return mask;
}

static void read_found(const struct world *w, const struct rbxj_result *result, uint32_t *found)
{
    const struct model *m = w->model;
    const char *cause = w->s->container ? "supervisor_crash" : "system_crash";
    struct rbxj_result_box b;
    for (size_t i = 0; i < rbxj_result_boxes(result); i++) {
        EXPECT(rbxj_result_box(result, i, &b) == 0, "box %zu", i);
        int number = box_of(m, b.incarnation, b.box);
        EXPECT(number >= 0 && strcmp(b.box, m->boxes[number].name) == 0, "box %s: was never begun", b.box);
        EXPECT(strcmp(b.state, "stale") == 0 && strcmp(b.cause, cause) == 0, "box %s: is %s, by %s", b.box,
               b.state, b.cause);
        found[number] = check_box(m, &m->boxes[number], result, i, b.entries);
    }
}

void disk_list(const struct world *w, const struct rbxj_options *o, uint32_t *found)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_list(o, NULL, &result, &e);
    EXPECT(r == 0, "list: %d: %s", r, e.message);
    memset(found, 0, sizeof(uint32_t) * MODEL_BOXES);
    read_found(w, result, found);
    rbxj_result_free(result);
}

/* What is there of what was taken: in the directory as the cut left it. */
struct leftovers {
    const struct model *m;
    const uint32_t *found;
    char text[512];
};

static void check_leftover(void *data, const char *name)
{
    struct leftovers *l = data;
    for (uint32_t i = 0; i < l->m->boxes_len; i++)
        for (uint32_t seq = 1; seq < l->m->boxes[i].len; seq++)
            if ((l->found[i] & (1u << seq)) && strcmp(l->m->boxes[i].records[seq].base, name) == 0)
                return;
    (void)snprintf(l->text, sizeof(l->text), "%s is there, and no record of it", name);
}

/* The worker goes on: another box, and its teardown. */
static void begin_another(const struct world *w, const struct rbxj_options *o)
{
    struct rbxj_resource plan = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/another", w->kept)};
    struct rbxj_box box = {.name = "another", .plan = &plan, .plan_len = 1};
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_open(o, &handle, &e);
    EXPECT(r == 0, "open: %d: %s", r, e.message);
    r = rbxj_begin(handle, &box, NULL, &e);
    if (r == 0)
        r = rbxj_acquire(handle, "another", 1, NULL, NULL, &e);
    EXPECT(r == 0, "begin: %d: %s", r, e.message);
    struct rbxj_result *result = NULL;
    struct rbxj_result_entry entry;
    r = rbxj_undo(handle, "another", &result, &e);
    if (r < 0 && result && rbxj_result_entry(result, 0, 0, &entry) == 0 && entry.error)
        (void)fprintf(stderr, "%s: %s\n", entry.error->message, entry.error->detail);
    rbxj_result_free(result);
    if (r == 0)
        r = rbxj_end(handle, "another", &e);
    EXPECT(r == 0, "end: %d: %s", r, e.message);
    rbxj_close(handle);
}

static void tell(const struct rbxj_result *result)
{
    struct rbxj_result_entry e;
    for (size_t i = 0; i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &e) == 0; k++)
            (void)fprintf(stderr, "%s: %s, %s: %s\n", e.name, e.found, e.outcome ? e.outcome : "",
                          e.error ? e.error->message : "");
}

size_t disk_replay(const struct rbxj_options *o, bool *ret_incident)
{
    struct rbxj_result_box box;
    struct rbxj_replay how = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_replay(o, &how, &result, &e);
    if (r > 0)
        tell(result);
    EXPECT(r == 0, "replay: %d: %s", r, e.message);
    size_t n = rbxj_result_boxes(result);
    for (size_t i = 0; ret_incident && i < n; i++)
        *ret_incident = *ret_incident || (rbxj_result_box(result, i, &box) == 0 && box.incident);
    rbxj_result_free(result);
    return n;
}

static uint64_t count_cleanups(const struct rbxj_options *o)
{
    static const char name[] = "rustbox_cleanup_total{outcome=\"success\"} ";
    char *text = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_metrics(o, &text, &e);
    const char *at = text ? strstr(text, name) : NULL;
    EXPECT(r == 0, "metrics: %d: %s", r, e.message);
    uint64_t n = at ? strtoull(at + strlen(name), NULL, 10) : 0;
    free(text);
    return n;
}

static void check_incidents(const struct rbxj_options *o)
{
    struct rbxj_incidents *incidents = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_incidents(o, NULL, 0, &incidents, &e);
    EXPECT(r == 0 && rbxj_incidents_len(incidents) > 0, "the incident of a replay that ended: %d: %s", r,
           e.message);
    rbxj_incidents_free(incidents);
}

/* A container's restart is no loss of a boot journal (K21). */
static void check_health(const struct rbxj_options *o)
{
    struct rbxj_health health = {0};
    struct rbxj_error e = {0};
    int r = rbxj_health(o, &health, &e);
    EXPECT(r == 0 && strcmp(health.status, "healthy") == 0, "health: %d: %s %s", r, health.status, e.message);
}

static bool replay_has_ended(const struct model *m, uint64_t at)
{
    const struct model_op *last = m->ops_len[0] ? &m->ops[0][m->ops_len[0] - 1] : NULL;
    return last && last->kind == MODEL_REPLAY && last->end && last->end <= at;
}

/* In the process that looks at a cut after that many entries of the log. */
_Noreturn void disk_look(const struct world *w, struct disk_image *image, struct disk_cut *cut, uint64_t at)
{
    static uint32_t found[MODEL_BOXES], again[MODEL_BOXES];
    struct leftovers left = {.m = w->model, .found = found};
    struct rbxj_options o = disk_options(w, w->cut_state);
    (void)alarm(20);
    disk_boot = w->s->container ? 0 : 9;
    disk_no_flush = true;
    const char *wrong = w->beside ? beside_judge(w->beside, at, &o) : NULL;
    EXPECT(!wrong, "%s", wrong);
    if (w->beside)
        _exit(0);
    disk_list(w, &o, found);
    wrong = model_judge(w->model, at, found);
    EXPECT(!wrong, "%s", wrong);
    disk_image_names(image, cut, "kept", check_leftover, &left);
    EXPECT(!left.text[0], "%s", left.text);
    EXPECT(count_cleanups(&o) <= w->model->cleanups, "more cleanups than were started");
    if (w->model->incident && replay_has_ended(w->model, at))
        check_incidents(&o);
    begin_another(w, &o);
    disk_list(w, &o, again);
    EXPECT(memcmp(found, again, sizeof(found)) == 0, "another box has changed what there was");
    size_t boxes = 0;
    for (size_t i = 0; i < MODEL_BOXES; i++)
        boxes += found[i] != 0;
    EXPECT(disk_replay(&o, NULL) == boxes, "the replay did not handle all boxes");
    EXPECT(disk_replay(&o, NULL) == 0, "a second replay found something");
    disk_list(w, &o, found);
    for (size_t i = 0; i < MODEL_BOXES; i++)
        EXPECT(!found[i], "a box is still there");
    if (w->s->container)
        check_health(&o);
    _exit(0);
}
