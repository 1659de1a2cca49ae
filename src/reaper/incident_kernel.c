/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/incident_kernel.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/incident_doc.h"
#include "reaper/incident_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#define FILE_NAME "kernel.log"
#define WINDOW_NS (3600LL * 1000000000)

enum { LINES_MAX = 20 };

static const char *const counted[KERNEL_WORDS] = {[KERNEL_OOM_CGROUP] = "oom_kills",
                                                  [KERNEL_OOM_MACHINE] = "machine_oom_kills",
                                                  [KERNEL_HUNG_TASK] = "hung_tasks",
                                                  [KERNEL_BUG] = "bugs",
                                                  [KERNEL_IO_ERROR] = "io_errors"};

static void read_once(struct incident_kernel *kernel)
{
    if (kernel->read)
        return;
    kernel->read = true;
    kernel->read_ns = now_realtime_ns();
    kernel->log = kernel_log_read(kernel->read_ns - WINDOW_NS);
    kernel->taint_error = kernel_taint_read(&kernel->taint);
}

void incident_kernel_clear(struct incident_kernel *kernel)
{
    free(kernel->log);
    *kernel = (struct incident_kernel){0};
}

/* ---- the file ---- */

static size_t put_line(char *text, size_t size, const struct kernel_line *line)
{
    char when[32];
    doc_format_time(when, line->at_ns);
    int n = snprintf(text, size, "%s <%u> %s\n", when, line->level, line->text);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

/* 0 or -errno. */
static int keep(const struct kernel_log *log, int fd, const char *id, int64_t since_ns)
{
    enum { ROOM = KERNEL_LINES * (KERNEL_TEXT_MAX + 40) };
    _cleanup_free_ char *text = malloc(ROOM);
    size_t len = 0;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < log->len; i++)
        if (kernel_log_line(log, i)->at_ns >= since_ns)
            len += put_line(text + len, ROOM - len, kernel_log_line(log, i));
    return len ? incident_store_append(fd, id, FILE_NAME, text, len) : 0;
}

/* ---- the document ---- */

static void add_release(struct doc *doc, cJSON *object)
{
    struct utsname name;
    (void)doc_text(doc, object, "release", uname(&name) == 0 ? name.release : NULL);
}

static void add_taint(struct doc *doc, cJSON *object, const struct incident_kernel *kernel)
{
    if (kernel->taint_error < 0) {
        (void)doc_text(doc, object, "tainted", NULL);
        return;
    }
    doc_number(doc, object, "tainted", (double)kernel->taint);
    cJSON *words = doc_array(doc, object, "taint");
    for (unsigned int bit = 0; bit < 64; bit++) {
        char number[16];
        (void)snprintf(number, sizeof(number), "bit_%u", bit);
        const char *word = kernel_taint_word(bit);
        if (kernel->taint >> bit & 1)
            (void)doc_text(doc, words, NULL, word ? word : number);
    }
}

/* Those that tell of something, in one list with those of before. */
static void add_lines(struct doc *doc, cJSON *object, const struct kernel_log *log, const cJSON *old,
                      int64_t since_ns)
{
    cJSON *lines = doc_array(doc, object, "lines");
    char text[KERNEL_TEXT_MAX + 40];
    for (const cJSON *item = doc_get_first(old, "lines"); item; item = item->next)
        if (cJSON_GetArraySize(lines) < LINES_MAX)
            (void)doc_text(doc, lines, NULL, cJSON_GetStringValue(item));
    for (size_t i = 0; log && i < log->len; i++) {
        const struct kernel_line *line = kernel_log_line(log, i);
        size_t n = line->at_ns >= since_ns && line->word != KERNEL_NOTED &&
                           cJSON_GetArraySize(lines) < LINES_MAX
                       ? put_line(text, sizeof(text), line)
                       : 0;
        if (!n)
            continue;
        text[n - 1] = 0; /* the newline */
        (void)doc_text(doc, lines, NULL, text);
    }
}

static void add_counts(struct doc *doc, cJSON *object, const struct kernel_log *log, const cJSON *old,
                       int64_t since_ns)
{
    size_t counts[KERNEL_WORDS] = {0}, messages = 0;
    for (size_t i = 0; log && i < log->len; i++) {
        const struct kernel_line *line = kernel_log_line(log, i);
        messages += line->at_ns >= since_ns;
        counts[line->word] += line->at_ns >= since_ns;
    }
    bool more = log && log->omitted && messages == log->len;
    doc_number(doc, object, "messages", doc_get_number(old, "messages", 0) + (double)messages);
    doc_bool(doc, object, "omitted", more || doc_get_true(old, "omitted"));
    for (size_t i = 0; i < KERNEL_WORDS; i++)
        if (counted[i])
            doc_number(doc, object, counted[i], doc_get_number(old, counted[i], 0) + (double)counts[i]);
}

void incident_kernel_add(struct incident_kernel *kernel, int fd, const char *id, struct doc *doc,
                         int64_t begun_ns, bool kept)
{
    char why[120];
    read_once(kernel);
    const struct kernel_log *log = kernel->log;
    const cJSON *old = cJSON_GetObjectItemCaseSensitive(doc->root, "kernel");
    cJSON *object = cJSON_CreateObject();
    double until = doc_get_number(old, "until", 0);
    int64_t since_ns = until > 0 && until < 1e9 * 9 ? (int64_t)(until * 1e9) : begun_ns;
    int r = log ? log->error : -ENOMEM;
    if (r < 0)
        (void)snprintf(why, sizeof(why), "/dev/kmsg could not be read: %s", strerrordesc_np(-r));
    int k = log && !kept ? keep(log, fd, id, since_ns) : 0;
    if (k < 0 && r == 0)
        (void)snprintf(why, sizeof(why), FILE_NAME " could not be written: %s", strerrordesc_np(-k));
    (void)doc_text(doc, object, "error", r < 0 || k < 0 ? why : NULL);
    add_release(doc, object);
    add_taint(doc, object, kernel);
    add_counts(doc, object, log, old, since_ns);
    add_lines(doc, object, log, old, since_ns);
    doc_seconds(doc, object, "until", kernel->read_ns);
    document_set_kernel(doc, object);
}
