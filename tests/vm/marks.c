/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Boxes on a disk that logs every write: marks DEVICE OFFSET DIRECTORY SEED SECONDS WORKERS
 *
 * What was acknowledged is written to a sector of the same disk, outside of its file system, directly and
 * without a flush: so the log itself tells what was acknowledged at any of its points. A mark is one line:
 *
 *     rbxjmark WORKER NUMBER begun BOX RECORDS      begin returned
 *     rbxjmark WORKER NUMBER intended BOX RECORDS   intend returned
 *     rbxjmark WORKER NUMBER undoing BOX 0          from here on its records may go
 */
#include <rbxj.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, STAYING = 6, PATH_LEN = 256 };

struct worker {
    int device;
    off_t offset;
    const char *dir;
    unsigned int number, marks, seed;
    char staying[STAYING][64]; /* boxes that live on for a while */
    struct rbxj *handle;
};

static void fail(const char *what, const struct rbxj_error *e)
{
    (void)fprintf(stderr, "%s: %s (%s)\n", what, e ? e->message : strerror(errno), e ? e->detail : "");
    exit(1);
}

static void mark(struct worker *w, const char *what, const char *box, unsigned int records)
{
    static char sector[SECTOR] __attribute__((aligned(SECTOR)));
    memset(sector, 0, sizeof(sector));
    (void)snprintf(sector, sizeof(sector), "rbxjmark %u %u %s %s %u\n", w->number, w->marks++, what, box,
                   records);
    if (pwrite(w->device, sector, SECTOR, w->offset + (off_t)w->number * SECTOR) != SECTOR)
        fail("mark", NULL);
}

static void fill(struct worker *w, const char *box)
{
    char path[PATH_LEN];
    for (unsigned int i = rand_r(&w->seed) % 4; i > 0; i--) {
        (void)snprintf(path, sizeof(path), "%s/%s.tmp/%u", w->dir, box, i);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, path, sizeof(path)) < 0 || close(fd) < 0)
            fail(path, NULL);
    }
}

static void acquire(struct worker *w, const char *box, uint32_t seq)
{
    struct rbxj_error e;
    int fd = -1;
    if (rbxj_acquire(w->handle, box, seq, NULL, &fd, &e) < 0)
        fail("acquire", &e);
    if (fd >= 0)
        (void)close(fd);
}

static void begin(struct worker *w, const char *box)
{
    char lock[PATH_LEN], tmp[PATH_LEN], more[PATH_LEN];
    struct rbxj_error e;
    (void)snprintf(lock, sizeof(lock), "%s/%s.lock", w->dir, box);
    (void)snprintf(tmp, sizeof(tmp), "%s/%s.tmp", w->dir, box);
    (void)snprintf(more, sizeof(more), "%s/%s.more", w->dir, box);
    struct rbxj_resource plan[] = {{.kind = RBXJ_LOCK, .path = lock}, {.kind = RBXJ_TMPDIR, .path = tmp}};
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = 2};
    if (rbxj_begin(w->handle, &b, NULL, &e) < 0)
        fail("begin", &e);
    mark(w, "begun", box, 2);
    acquire(w, box, 1);
    acquire(w, box, 2);
    fill(w, box);
    if (rand_r(&w->seed) % 2) {
        struct rbxj_resource later = {.kind = RBXJ_TMPDIR, .path = more};
        uint32_t seq;
        if (rbxj_intend(w->handle, box, &later, &seq, &e) < 0)
            fail("intend", &e);
        mark(w, "intended", box, 3);
        acquire(w, box, seq);
    }
}

static void end(struct worker *w, const char *box)
{
    struct rbxj_error e;
    mark(w, "undoing", box, 0);
    if (rbxj_undo(w->handle, box, NULL, &e) < 0 || rbxj_end(w->handle, box, &e) < 0)
        fail("end", &e);
}

static void work(struct worker *w, double seconds)
{
    struct rbxj_error e;
    struct timespec began, now;
    if (rbxj_open(NULL, &w->handle, &e) < 0)
        fail("open", &e);
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    for (unsigned int n = 0;; n++) {
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)(now.tv_sec - began.tv_sec) > seconds)
            break;
        char *box = w->staying[rand_r(&w->seed) % STAYING];
        if (*box)
            end(w, box);
        (void)snprintf(box, sizeof(w->staying[0]), "w%u-%u", w->number, n);
        begin(w, box);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    int device = open(argv[1], O_WRONLY | O_DIRECT | O_CLOEXEC), failed = 0, status;
    if (device < 0)
        fail(argv[1], NULL);
    unsigned int workers = (unsigned int)atoi(argv[6]);
    for (unsigned int i = 0; i < workers; i++) {
        struct worker w = {.device = device,
                           .offset = atoll(argv[2]),
                           .dir = argv[3],
                           .number = i,
                           .seed = (unsigned int)atoi(argv[4]) * 1000 + i};
        if (fork() == 0) {
            work(&w, atof(argv[5]));
            _exit(0);
        }
    }
    while (wait(&status) > 0)
        failed |= status != 0;
    return failed;
}
