/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/helper.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/forked.h"
#include "base/procid.h"
#include "base/proctext.h"

#include <assert.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define KILL_GRACE_MS 100 /* a killed process that can die is gone within that */
#define LEFT_MAX 64       /* jobs remembered; more of them hang: the oldest is forgotten, and tried again */

/* What the helper is to do. */
struct task {
    helper_function *function;
    void *data;
    const char *file; /* NULL: it need not be alone */
    uint64_t byte;
    bool make; /* the file */
    pid_t parent;
};

/* What helper and caller share. */
struct page {
    int code;
    int refused; /* errno: nothing was run */
    pid_t other; /* with EBUSY: who is at it already; 0: not visible from here */
    _Atomic bool answered;
    _Alignas(max_align_t) uint8_t output[HELPER_OUTPUT_MAX];
};

static struct {
    uint64_t job;
    struct helper_left left;
} left_behind[LEFT_MAX];
static size_t left_next;
static struct forked_mutex left_mutex;

static uint64_t start_time_of(pid_t pid)
{
    struct procid id;
    return procid_of(pid, &id) < 0 ? 0 : id.start_time;
}

bool helper_left_gone(const struct helper_left *left)
{
    if (left->pid <= 0)
        return true;
    siginfo_t info = {0};
    uint64_t now = start_time_of(left->pid); /* also of one that is not reaped yet */
    if (now && left->start_time && now != left->start_time)
        return true;
    /* a child without an exit signal is seen with __WALL only */
    if (waitid(P_PID, (id_t)left->pid, &info, WEXITED | WNOHANG | __WALL) == 0)
        return info.si_pid == left->pid;
    return kill(left->pid, 0) < 0 && errno == ESRCH;
}

/* The living helper that was left behind on this job. */
static bool left_find(uint64_t job, struct helper_left *ret)
{
    bool found = false;
    (void)forked_lock(&left_mutex); /* its parent's are there still */
    for (size_t i = 0; job && i < LEFT_MAX; i++) {
        if (left_behind[i].job != job)
            continue;
        if (helper_left_gone(&left_behind[i].left)) {
            left_behind[i].job = 0;
            continue;
        }
        *ret = left_behind[i].left;
        found = true;
    }
    forked_unlock(&left_mutex);
    return found;
}

static void left_add(uint64_t job, const struct helper_left *left)
{
    if (!job)
        return;
    (void)forked_lock(&left_mutex); /* its parent's are there still */
    left_behind[left_next].job = job;
    left_behind[left_next].left = *left;
    left_next = (left_next + 1) % LEFT_MAX;
    forked_unlock(&left_mutex);
}

/* Never closed: it goes with the helper, at the very end of whatever call that is in. errno. */
static int be_alone(const struct task *task, struct page *page)
{
    int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (task->make ? O_CREAT : 0);
    int fd = open(task->file, flags, 0600);
    if (fd < 0)
        return errno;
    int r = fd_record_lock(fd, F_WRLCK, task->byte);
    if (r != -EAGAIN)
        return -r;
    (void)fd_record_holder(fd, task->byte, &page->other);
    return EBUSY;
}

static _Noreturn void helper_main(const struct task *task, struct page *page)
{
    /* what it does for nobody, nobody would hear of */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (syscall(SYS_close_range, 0U, ~0U, 0U) < 0)
        page->refused = errno; /* a helper that is left behind must not keep our locks */
    else if (getppid() != 0 && getppid() != task->parent) /* 0: it is in another pid namespace */
        page->refused = ESRCH;
    else
        page->refused = task->file ? be_alone(task, page) : 0;
    if (!page->refused)
        page->code = task->function(task->data, page->output);
    atomic_store(&page->answered, true);
    for (;;)
        (void)syscall(SYS_exit_group, 0);
}

/* What CLONE_CLEAR_SIGHAND does: a handler of the host program's must not run in the helper. What is ignored
 * stays so. */
static void clear_handlers(void)
{
    for (int number = 1; number <= SIGRTMAX; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) < 0 || action.sa_handler == SIG_IGN)
            continue;
        action = (struct sigaction){.sa_handler = SIG_DFL};
        (void)sigaction(number, &action, NULL);
    }
}

/* The same child, by the older call, which can't clear the handlers: no signal comes before that is done. */
static long start_by_clone(int *ret_pidfd)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    long pid = syscall(SYS_clone, (unsigned long)CLONE_PIDFD, NULL, ret_pidfd, NULL, 0UL);
    int errnum = errno;
    if (pid == 0)
        clear_handlers();
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = errnum;
    return pid;
}

/* A child that the host program does not notice: no SIGCHLD, and wait(2) does not return it. clone3() is
 * refused by the seccomp filters of containers, which can't look into its argument, and its flag is since
 * 5.5. */
static pid_t start(const struct task *task, struct page *page, int *ret_pidfd)
{
    struct clone_args args = {.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
                              .pidfd = (uint64_t)(uintptr_t)ret_pidfd};
    long pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid < 0 && (errno == ENOSYS || errno == EPERM || errno == EINVAL))
        pid = start_by_clone(ret_pidfd);
    if (pid == 0)
        helper_main(task, page);
    if (pid < 0)
        return -errno;
    return (pid_t)pid;
}

/* A supervisor whose children go to another pid namespace (unshare(2)) must not have a helper there: it would
 * be the first process of a new one, whose end is the end of that, or be seen by those in it. Each thread has
 * its own. 0: *ret_back leads back there after the start, or is -1; or a negative code. */
static int leave_children_ns(int *ret_back)
{
    struct stat own, theirs;
    *ret_back = -1;
    if (stat("/proc/self/ns/pid", &own) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (stat("/proc/thread-self/ns/pid_for_children", &theirs) < 0)
        /* nobody was in it yet; or, on some kernels, its first process has died */
        return errno == ENOENT ? -ECHILD : -errno;
    if (own.st_ino == theirs.st_ino)
        return 0;
    _cleanup_close_ int here = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int back = open("/proc/thread-self/ns/pid_for_children", O_RDONLY | O_CLOEXEC);
    if (here < 0 || back < 0)
        return -errno;
    if (syscall(SYS_setns, here, CLONE_NEWPID) == 0)
        *ret_back = steal_fd(&back); /* else it lacks the privilege: then it is started there */
    return 0;
}

static pid_t start_here(const struct task *task, struct page *page, int *ret_pidfd)
{
    int back_fd, r = leave_children_ns(&back_fd);
    if (r < 0)
        return r;
    _cleanup_close_ int back = back_fd;
    pid_t pid = start(task, page, ret_pidfd);
    while (back >= 0 && syscall(SYS_setns, back, CLONE_NEWPID) < 0 && errno == ENOMEM)
        (void)usleep(1000); /* nothing else can keep it from there, the end of its first process neither */
    return pid;
}

static int run(const struct task *task, uint64_t job, int64_t deadline_ns, struct helper_result *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (left_find(job, &ret->left))
        return -EBUSY;
    struct page *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    _cleanup_close_ int pidfd = -1;
    pid_t pid = start_here(task, page, &pidfd);
    int rc = pid < 0 ? pid : 0;
    if (pid > 0 && pidfd_wait(pidfd, deadline_ns) < 0) {
        rc = -ETIMEDOUT;
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        if (pidfd_wait(pidfd, now_monotonic_ns() + KILL_GRACE_MS * 1000000LL) < 0) {
            ret->left = (struct helper_left){.pid = pid, .start_time = start_time_of(pid)};
            left_add(job, &ret->left);
        }
    }
    if (pid > 0 && !ret->left.pid) {
        siginfo_t info;
        while (waitid(P_PID, (id_t)pid, &info, WEXITED | __WALL) < 0 && errno == EINTR)
            ;
    }
    if (!rc)
        rc = atomic_load(&page->answered) ? -page->refused : -EPIPE;
    if (rc == -EBUSY)
        ret->left = (struct helper_left){.pid = page->other,
                                         .start_time = page->other ? start_time_of(page->other) : 0};
    if (pid > 0)
        memcpy(ret->output, page->output, sizeof(ret->output));
    if (!rc)
        ret->code = page->code;
    (void)munmap(page, sizeof(*page));
    return rc;
}

int helper_run(helper_function *function, void *data, uint64_t job, int64_t deadline_ns,
               struct helper_result *ret)
{
    const struct task task = {.function = function, .data = data, .parent = getpid()};
    return run(&task, job, deadline_ns, ret);
}

void helper_file(const char *runtime_dir, char ret[PATH_MAX])
{
    (void)snprintf(ret, PATH_MAX, "%s/helpers", runtime_dir);
}

int helper_run_alone(const char *file, uint64_t byte, helper_function *function, void *data,
                     int64_t deadline_ns, struct helper_result *ret)
{
    const struct task task = {
        .function = function, .data = data, .file = file, .byte = byte, .make = true, .parent = getpid()};
    return run(&task, 0, deadline_ns, ret);
}

int helper_is_at(const char *file, uint64_t byte, struct helper_left *ret)
{
    pid_t pid = 0;
    _cleanup_close_ int fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    int r = fd_record_holder(fd, byte, &pid);
    if (r > 0)
        *ret = (struct helper_left){.pid = pid, .start_time = pid ? start_time_of(pid) : 0};
    return r;
}

/* ---- path_probe ---- */

int mount_id_of_fd(int fd)
{
    char path[40], info[1024];
    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    ssize_t n = fd_read_file(AT_FDCWD, path, info, sizeof(info));
    if (n < 0)
        return (int)n;
    return proctext_mount_id(info);
}

struct probe_job {
    struct path_probe *probes;
    size_t len;
};

struct probe_answer {
    int32_t result;
    int32_t mount_id;
};
static_assert(sizeof(struct probe_answer) * PATH_PROBE_MAX <= HELPER_OUTPUT_MAX, "the answers fit");

/* In the helper: everything that a caller is going to do with such a path, open, stat and statfs. */
static int probe_in_helper(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    struct probe_job *job = data;
    for (size_t i = 0; i < job->len; i++) {
        if (job->probes[i].result != -ETIMEDOUT)
            continue;
        struct probe_answer answer = {0};
        int fd = fd_openat2(AT_FDCWD, job->probes[i].path, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
        struct stat st;
        struct statfs fs;
        if (fd < 0)
            answer.result = fd;
        else if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
            answer.result = -errno;
        else
            answer.mount_id = mount_id_of_fd(fd);
        if (fd >= 0)
            (void)close(fd);
        answer.result = answer.result ? answer.result : 1;
        memcpy(output + i * sizeof(answer), &answer, sizeof(answer));
    }
    return 0;
}

/* True if the cache alone has the answer. */
static bool probe_cached(struct path_probe *probe, path_local_function *is_local, void *data)
{
    _cleanup_close_ int fd = fd_openat2(AT_FDCWD, probe->path, O_PATH | O_NOFOLLOW, 0,
                                        RESOLVE_NO_SYMLINKS | RESOLVE_CACHED);
    if (fd < 0)
        return false; /* not in the cache; and an ENOENT from there may come from a file system that hangs */
    probe->mount_id = mount_id_of_fd(fd);
    probe->is_local = probe->mount_id >= 0 && is_local(data, probe->mount_id);
    if (probe->is_local)
        probe->result = 0;
    return probe->is_local;
}

/* By the clock by which start times are; what the machine slept counts. */
static int64_t age_of(const struct helper_left *left)
{
    struct timespec now = {0};
    int64_t tick_ns = 1000000000 / sysconf(_SC_CLK_TCK);
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (int64_t)left->start_time * tick_ns;
}

/* Another process' helper is at it: 0 when that is gone, or -EBUSY, as it has waited for patience_ns by then,
 * in vain. */
static int wait_for_other(const struct helper_left *left, int64_t patience_ns)
{
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, left->pid, 0);
    if (pidfd < 0 || start_time_of(left->pid) != left->start_time)
        return 0;
    return pidfd_wait(pidfd, now_monotonic_ns() + patience_ns - age_of(left)) == 0 ? 0 : -EBUSY;
}

/* Where others are asked, and answered, again and again, that is no reason to wait for them, nor where nobody
 * sees them. */
static int run_probe(struct probe_job *todo, uint64_t job, const struct probe_place *place,
                     int64_t deadline_ns, struct helper_result *ret)
{
    enum { ROUNDS = 3 };
    int64_t patience_ns = deadline_ns - now_monotonic_ns();
    struct task task = {.function = probe_in_helper, .data = todo, .parent = getpid()};
    for (int i = 0; place && i < ROUNDS; i++) {
        task.file = place->file;
        task.byte = place->byte;
        task.make = place->make;
        int rc = run(&task, job, deadline_ns, ret);
        bool asked = rc == 0 || rc == -ETIMEDOUT || rc == -EPIPE || rc == -EBUSY;
        /* a look goes on where it may not write, on a read-only disk for instance */
        if (rc == -ENOENT || (!asked && !place->make) || (rc == -EBUSY && !ret->left.start_time))
            break;
        if (rc != -EBUSY || left_find(job, &ret->left) || wait_for_other(&ret->left, patience_ns) < 0)
            return rc;
    }
    task.file = NULL;
    return run(&task, job, deadline_ns, ret);
}

int path_probe(struct path_probe *probes, size_t len, path_local_function *is_local, void *data, uint64_t job,
               const struct probe_place *place, int64_t deadline_ns, struct helper_left *ret_left)
{
    if (len > PATH_PROBE_MAX)
        return -E2BIG;
    size_t waiting = 0;
    for (size_t i = 0; i < len; i++) {
        probes[i].result = -ETIMEDOUT;
        probes[i].is_local = false;
        if (!probe_cached(&probes[i], is_local, data))
            waiting++;
    }
    if (!waiting)
        return 0;
    struct probe_job todo = {.probes = probes, .len = len};
    struct helper_result result;
    int rc = run_probe(&todo, job, place, deadline_ns, &result);
    if (ret_left)
        *ret_left = result.left;
    if (rc && rc != -ETIMEDOUT)
        return rc;
    for (size_t i = 0; i < len; i++) {
        struct probe_answer answer;
        memcpy(&answer, result.output + i * sizeof(answer), sizeof(answer));
        if (probes[i].result != -ETIMEDOUT || !answer.result)
            continue;
        probes[i].result = answer.result > 0 ? 0 : answer.result;
        probes[i].mount_id = answer.mount_id;
    }
    return 0;
}
