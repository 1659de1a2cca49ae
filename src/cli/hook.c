/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/hook.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/hook_request.h"
#include "cli/json.h"
#include "reaper/mount.h"

#include <string.h>

/* ---- the supervisor (K8) ---- */

void hook_note_parent(struct hook *hook)
{
    struct procid parent;
    pid_t pid = getppid();
    hook->parent = (struct procid){0};
    if (pid <= 0 || procid_of(pid, &parent) < 0) /* 0: it is in another pid namespace */
        return;
    bool near = getsid(pid) == getsid(0) || getpgid(pid) == getpgrp();
    if (near && getppid() == pid) /* it has lived until now: this was about it */
        hook->parent = parent;
}

/* The parent, if it is the one that it was at start. As long as it lives nobody else has its pid. */
static int find_parent(const struct hook *hook, pid_t *ret, struct rbxj_error *e)
{
    struct procid now;
    if (!hook->parent.pid)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "begin: the hook's parent is in another session and process group: give the "
                         "supervisor's \"pid\"");
    if (getppid() != hook->parent.pid || procid_of(hook->parent.pid, &now) < 0 ||
        !procid_equal(&now, &hook->parent))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "begin: the hook's parent (pid %d) has died: give the supervisor's \"pid\"",
                         hook->parent.pid);
    *ret = hook->parent.pid;
    return 0;
}

/* ---- the requests: what they reply besides "ok" ---- */

/* The source that marks it as ours even without evidence (K1), if it can have that. */
static bool get_source(const struct rbxj_resource *resource, uint64_t incarnation, uint32_t seq,
                       char ret[MOUNT_SOURCE_MAX])
{
    return resource->kind == RBXJ_MOUNT && mount_source(ret, resource->fstype, incarnation, seq);
}

static int begin(struct hook *hook, const struct hook_request *request, struct doc *reply,
                 struct rbxj_error *e)
{
    struct rbxj_box box = {.name = request->box,
                           .supervisor = request->pid,
                           .parent = request->parent,
                           .plan = request->resources,
                           .plan_len = request->resources_len};
    char source[MOUNT_SOURCE_MAX];
    uint64_t incarnation;
    bool any = false;
    int rc = request->pid ? 0 : find_parent(hook, &box.supervisor, e);
    if (rc == 0)
        rc = rbxj_begin(hook->handle, &box, &incarnation, e);
    if (rc < 0)
        return rc;
    (void)doc_text(reply, reply->root, "box", request->box);
    doc_number64(reply, reply->root, "incarnation", incarnation);
    cJSON *seqs = doc_array(reply, reply->root, "seq");
    for (uint32_t i = 0; i < box.plan_len; i++) {
        doc_number(reply, seqs, NULL, i + 1);
        any = any || get_source(&box.plan[i], incarnation, i + 1, source);
    }
    cJSON *sources = any ? doc_array(reply, reply->root, "sources") : NULL;
    for (uint32_t i = 0; any && i < box.plan_len; i++)
        (void)doc_text(reply, sources, NULL,
                       get_source(&box.plan[i], incarnation, i + 1, source) ? source : NULL);
    return 0;
}

static int intend(struct hook *hook, const struct hook_request *request, struct doc *reply,
                  struct rbxj_error *e)
{
    _cleanup_free_ char *source = NULL;
    uint32_t seq;
    int rc = rbxj_intend(hook->handle, request->box, request->resources, &seq, e);
    if (rc == 0 && request->resources->kind == RBXJ_MOUNT)
        rc = rbxj_mount_source(hook->handle, request->box, seq, &source, e);
    if (rc < 0) /* without its source it is not to be mounted: the record stays, of nothing */
        return rc;
    doc_number(reply, reply->root, "seq", seq);
    if (source)
        (void)doc_text(reply, reply->root, "source", source);
    return 0;
}

static int acquired(struct hook *hook, const struct hook_request *request, struct doc *reply,
                    struct rbxj_error *e)
{
    (void)reply;
    return rbxj_acquired(hook->handle, request->box, request->seq, e);
}

static int released(struct hook *hook, const struct hook_request *request, struct doc *reply,
                    struct rbxj_error *e)
{
    (void)reply;
    return rbxj_released(hook->handle, request->box, request->seq, e);
}

/* Also "ok" when something is left: that is told, and "end" refuses then. */
static int undo(struct hook *hook, const struct hook_request *request, struct doc *reply,
                struct rbxj_error *e)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_info info;
    int rc = rbxj_undo(hook->handle, request->box, &result, e);
    if (result && (rc == 0 || rc == -RBXJ_E_LEFT)) {
        json_entries(reply, reply->root, result, 0);
        rbxj_result_info(result, &info);
        if (rc < 0)
            doc_number(reply, reply->root, "left", (double)info.left);
        rc = 0;
    }
    rbxj_result_free(result);
    return rc;
}

static int end(struct hook *hook, const struct hook_request *request, struct doc *reply, struct rbxj_error *e)
{
    (void)reply;
    return rbxj_end(hook->handle, request->box, e);
}

static int (*const requests[])(struct hook *, const struct hook_request *, struct doc *,
                               struct rbxj_error *) = {
    [HOOK_BEGIN] = begin,       [HOOK_INTEND] = intend, [HOOK_ACQUIRED] = acquired,
    [HOOK_RELEASED] = released, [HOOK_UNDO] = undo,     [HOOK_END] = end,
};

/* ---- replies ---- */

static char *failure(const char *code, const struct rbxj_error *e)
{
    struct doc reply;
    doc_init(&reply);
    doc_bool(&reply, reply.root, "ok", false);
    cJSON *error = doc_object(&reply, reply.root, "error");
    (void)doc_text(&reply, error, "code", code);
    doc_number(&reply, error, "errno", e->errnum);
    (void)doc_text(&reply, error, "message", e->message[0] ? e->message : code);
    if (e->detail[0])
        (void)doc_text(&reply, error, "detail", e->detail);
    return json_finish(&reply);
}

char *hook_answer(struct hook *hook, const char *line, size_t len)
{
    struct rbxj_error e = {0};
    _cleanup_(hook_request_clear) struct hook_request request;
    struct doc reply;
    int rc = hook_request_read(line, len, &request, &e);
    if (rc == -EBADMSG)
        return failure("bad_json", &e);
    doc_init(&reply);
    doc_bool(&reply, reply.root, "ok", true);
    if (rc == 0)
        rc = requests[request.op](hook, &request, &reply, &e);
    if (rc == 0)
        return json_finish(&reply);
    doc_clear(&reply);
    return failure(rbxj_strerror(rc), &e);
}

char *hook_answer_too_long(void)
{
    struct rbxj_error e = {0};
    (void)error_set(&e, RBXJ_E_BAD_REQUEST, 0, "a line of more than %d bytes", HOOK_LINE_MAX);
    return failure("bad_request", &e);
}
