/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_model.h"

#include "disk_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct model *model_new(void)
{
    struct model *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        abort();
    return m;
}

uint32_t model_box_new(struct model *m, unsigned process, const char *name)
{
    uint32_t number = atomic_fetch_add(&m->boxes_len, 1);
    if (number >= MODEL_BOXES)
        abort();
    struct model_box *box = &m->boxes[number];
    (void)snprintf(box->name, sizeof(box->name), "%s", name);
    box->process = process;
    box->len = 1;
    return number;
}

void model_path(const struct model *m, const struct model_record *r, char *to, size_t size)
{
    (void)snprintf(to, size, "%s/%s", m->parents[r->parent], r->base);
}

bool model_is_durable(const struct model *m, const struct model_record *r)
{
    return m->always || r->parent != PARENT_LOST;
}

struct model_op *model_start(struct model *m, unsigned process, enum model_kind kind, uint32_t box,
                             uint32_t first, uint32_t last)
{
    if (m->ops_len[process] == MODEL_OPS)
        abort();
    struct model_op *op = &m->ops[process][m->ops_len[process]];
    *op = (struct model_op){.kind = kind, .box = box, .first = first, .last = last};
    op->durable = kind == MODEL_REPLAY || (kind == MODEL_ADD && m->always);
    for (uint32_t i = first; kind == MODEL_ADD && i <= last; i++)
        op->durable = op->durable || (i && model_is_durable(m, &m->boxes[box].records[i]));
    op->start = disk_log_mark();
    m->ops_len[process]++; /* after its start is there */
    return op;
}

void model_end(struct model_op *op)
{
    op->end = disk_log_mark();
}

/* ---- what may be on disk ---- */

struct state {
    uint32_t records[MODEL_BOXES];
    bool on_disk[MODEL_BOXES]; /* a durable record of it has been there (K23) */
};

static uint32_t bits(uint32_t first, uint32_t last)
{
    uint32_t mask = 0;
    for (uint32_t i = first; i <= last; i++)
        mask |= 1u << i;
    return mask;
}

static void advance(struct state *s, const struct model_op *op)
{
    if (op->kind == MODEL_ADD) {
        s->records[op->box] |= bits(op->first, op->last);
        s->on_disk[op->box] |= op->durable;
    } else if (op->kind == MODEL_DROP) {
        s->records[op->box] &= ~bits(op->first, op->last);
    } else {
        memset(s->records, 0, sizeof(s->records));
    }
}

/* Does what was found of this process' boxes lie between two states? */
static bool lies_between(const struct model *m, unsigned process, const struct state *most,
                         const struct state *least, const uint32_t *found)
{
    for (uint32_t i = 0; i < m->boxes_len; i++) {
        uint32_t upper = most->on_disk[i] ? most->records[i] : 0;
        uint32_t lower = least->on_disk[i] ? least->records[i] : 0;
        if (m->boxes[i].process == process && ((found[i] & ~upper) || (lower & ~found[i])))
            return false;
    }
    return true;
}

/* When the last operation started that was acknowledged as durable before the cut. */
static uint64_t last_durable(const struct model *m, uint64_t cut)
{
    uint64_t last = 0;
    for (unsigned p = 0; p < MODEL_PROCESSES; p++)
        for (uint32_t i = 0; i < m->ops_len[p]; i++) {
            const struct model_op *op = &m->ops[p][i];
            if (op->durable && op->end && op->end <= cut && op->start > last)
                last = op->start;
        }
    return last;
}

static const char *explain(const struct model *m, unsigned process, uint32_t least, uint32_t most,
                           const uint32_t *found)
{
    static char text[4096];
    static struct state s;
    memset(&s, 0, sizeof(s));
    for (uint32_t k = 0; k < least; k++)
        advance(&s, &m->ops[process][k]);
    size_t n = (size_t)snprintf(text, sizeof(text), "process %u: between its operations %u and %u;", process,
                                least, most);
    for (uint32_t i = 0; i < m->boxes_len && n < sizeof(text); i++)
        if (m->boxes[i].process == process && (found[i] || (s.records[i] && s.on_disk[i])))
            n += (size_t)snprintf(text + n, sizeof(text) - n, " box %s(%" PRIx64 "): found %x, at least %x;",
                                  m->boxes[i].name, m->boxes[i].incarnation, found[i],
                                  s.on_disk[i] ? s.records[i] : 0);
    return text;
}

static const char *judge_process(const struct model *m, unsigned process, uint64_t cut, uint64_t durable,
                                 const uint32_t *found)
{
    static struct state now, next;
    uint32_t least = 0, most = 0;
    for (uint32_t i = 0; i < m->ops_len[process]; i++) {
        const struct model_op *op = &m->ops[process][i];
        if (op->start <= cut)
            most = i + 1;
        if (op->end && op->end <= cut && (op->durable || op->end <= durable))
            least = i + 1;
    }
    memset(&now, 0, sizeof(now));
    for (uint32_t k = 0; k <= most; k++) {
        if (k >= least && lies_between(m, process, &now, &now, found))
            return NULL;
        if (k == most)
            break;
        next = now;
        advance(&next, &m->ops[process][k]);
        bool in_steps = m->ops[process][k].kind != MODEL_ADD;
        if (k >= least && in_steps && lies_between(m, process, &now, &next, found))
            return NULL;
        now = next;
    }
    return explain(m, process, least, most, found);
}

const char *model_judge(const struct model *m, uint64_t cut, const uint32_t *found)
{
    uint64_t durable = last_durable(m, cut);
    const char *wrong = NULL;
    for (unsigned p = 0; p < MODEL_PROCESSES && !wrong; p++)
        wrong = judge_process(m, p, cut, durable, found);
    return wrong;
}

bool model_has_begun(const struct model *m, uint64_t cut)
{
    for (unsigned p = 0; p < MODEL_PROCESSES; p++)
        if (m->ops_len[p] && m->ops[p][0].start <= cut)
            return true;
    return false;
}
