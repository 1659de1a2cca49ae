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
#define SLACK_NS 2000000000LL /* the log's clock and that of a box's begin are not the same */

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
    kernel->log = kernel_log_read(now_realtime_ns() - WINDOW_NS);
    kernel->taint_error = kernel_taint_read(&kernel->taint);
}

void incident_kernel_clear(struct incident_kernel *kernel)
{
    free(kernel->log);
    *kernel = (struct incident_kernel){0};
}

/* ---- what is of the incident's time ---- */

struct part {
    const struct kernel_log *log;
    bool again; /* by number: the rest of this boot is told already */
    uint64_t next;
    int64_t since_ns;
};

/* Its i-th line, or NULL: it is not of that time. */
static const struct kernel_line *line_of(const struct part *part, size_t i)
{
    const struct kernel_line *line = kernel_log_line(part->log, i);
    return (part->again ? line->sequence >= part->next : line->at_ns >= part->since_ns) ? line : NULL;
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
static int keep(const struct part *part, int fd, const char *id)
{
    enum { ROOM = KERNEL_LINES * (KERNEL_TEXT_MAX + 40) };
    _cleanup_free_ char *text = malloc(ROOM);
    size_t len = 0;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < part->log->len; i++)
        if (line_of(part, i))
            len += put_line(text + len, ROOM - len, line_of(part, i));
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
static void add_lines(struct doc *doc, cJSON *object, const struct part *part, const cJSON *old)
{
    cJSON *lines = doc_array(doc, object, "lines");
    char text[KERNEL_TEXT_MAX + 40];
    for (const cJSON *item = doc_get_first(old, "lines"); item; item = item->next)
        if (cJSON_GetArraySize(lines) < LINES_MAX)
            (void)doc_text(doc, lines, NULL, cJSON_GetStringValue(item));
    for (size_t i = 0; part->log && i < part->log->len; i++) {
        const struct kernel_line *line = line_of(part, i);
        bool tells = line && line->word != KERNEL_NOTED && cJSON_GetArraySize(lines) < LINES_MAX;
        size_t n = tells ? put_line(text, sizeof(text), line) : 0;
        if (!n)
            continue;
        text[n - 1] = 0; /* the newline */
        (void)doc_text(doc, lines, NULL, text);
    }
}

static void add_counts(struct doc *doc, cJSON *object, const struct part *part, const cJSON *old)
{
    size_t counts[KERNEL_WORDS] = {0}, messages = 0;
    for (size_t i = 0; part->log && i < part->log->len; i++) {
        const struct kernel_line *line = line_of(part, i);
        messages += line != NULL;
        counts[line ? line->word : KERNEL_NOTED]++;
    }
    bool more = part->log && part->log->omitted && messages == part->log->len;
    doc_number(doc, object, "messages", doc_get_number(old, "messages", 0) + (double)messages);
    doc_bool(doc, object, "omitted", more || doc_get_true(old, "omitted"));
    for (size_t i = 0; i < KERNEL_WORDS; i++)
        if (counted[i])
            doc_number(doc, object, counted[i], doc_get_number(old, counted[i], 0) + (double)counts[i]);
}

/* Since when the kernel's word counts for it. */
static int64_t begin_of(const struct rbxj_result *result, const struct incarnations *boxes)
{
    int64_t first_ns = INT64_MAX;
    for (size_t i = 0; i < boxes->len; i++) {
        int64_t begun_ns = result->boxes[boxes->rows[i].i].box.begun_ns;
        first_ns = begun_ns < first_ns ? begun_ns : first_ns;
    }
    return first_ns > 0 ? first_ns : 0;
}

/* Of a box that began in a container the pid says nothing here. */
static void note_killed(struct doc *doc, const struct kernel_line *line, const struct rbxj_result *result,
                        const struct incarnations *boxes)
{
    char note[200];
    uint8_t boot[16];
    pid_t pid = kernel_line_killed(line);
    for (size_t i = 0; pid && i < boxes->len; i++) {
        const struct box *box = &result->boxes[boxes->rows[i].i].box;
        if (box->supervisor.pid != pid || box->supervisor.pid_ns != PROCID_INITIAL_PID_NS ||
            box->begun_ns > line->at_ns + SLACK_NS || procid_boot(boot) < 0 ||
            memcmp(boot, box->supervisor.boot_id, sizeof(boot)) != 0)
            continue;
        (void)snprintf(note, sizeof(note),
                       "the kernel killed the supervisor of box %s, pid %d, as %s was out of memory",
                       box->name, pid, line->word == KERNEL_OOM_CGROUP ? "its cgroup" : "the machine");
        document_add_note(doc, note);
    }
}

/* From where the last reading ended, where that was in this boot; else since the boxes began. */
static struct part part_of(const struct incident_kernel *kernel, const cJSON *old, const char *boot,
                           int64_t begun_ns)
{
    const char *before = doc_get_text(old, "boot");
    double next = doc_get_number(old, "next", -1);
    bool again = before && strcmp(before, boot) == 0 && next >= 0 && next < 9e15;
    return (struct part){.log = kernel->log,
                         .again = again,
                         .next = again ? (uint64_t)next : 0,
                         .since_ns = begun_ns - SLACK_NS};
}

void incident_kernel_add(struct incident_kernel *kernel, int fd, const char *id, struct doc *doc,
                         const struct rbxj_result *result, const struct incarnations *boxes, bool kept)
{
    char why[120], boot[33] = "";
    uint8_t boot_id[16];
    read_once(kernel);
    if (procid_boot(boot_id) == 0)
        hex_encode(boot, boot_id, sizeof(boot_id));
    const cJSON *old = cJSON_GetObjectItemCaseSensitive(doc->root, "kernel");
    cJSON *object = cJSON_CreateObject();
    struct part part = part_of(kernel, old, boot, begin_of(result, boxes));
    int r = part.log ? part.log->error : -ENOMEM, k = part.log && !kept ? keep(&part, fd, id) : 0;
    if (r < 0)
        (void)snprintf(why, sizeof(why), "/dev/kmsg could not be read: %s", strerrordesc_np(-r));
    else if (k < 0)
        (void)snprintf(why, sizeof(why), FILE_NAME " could not be written: %s", strerrordesc_np(-k));
    (void)doc_text(doc, object, "error", r < 0 || k < 0 ? why : NULL);
    add_release(doc, object);
    add_taint(doc, object, kernel);
    add_counts(doc, object, &part, old);
    add_lines(doc, object, &part, old);
    for (size_t i = 0; part.log && i < part.log->len; i++)
        if (line_of(&part, i))
            note_killed(doc, line_of(&part, i), result, boxes);
    (void)doc_text(doc, object, "boot", boot);
    doc_number(doc, object, "next", r == 0 ? (double)part.log->next : part.again ? (double)part.next : -1);
    document_set_kernel(doc, object);
}
