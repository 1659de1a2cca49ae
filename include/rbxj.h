/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * librbxj: a write-ahead cleanup journal for sandbox supervisors.
 *
 * Before a supervisor takes something from the system (a lock file, a cgroup, a mount, a directory, a
 * process) it journals an intent; afterwards it journals the evidence of what it got. When it dies, a reaper
 * undoes exactly what the journal names, newest first, and nothing else.
 *
 * CAVEATS, before anything else
 *
 *  - One handle per process. A second rbxj_open() in the same process is refused with RBXJ_E_BAD_REQUEST:
 *    LMDB and POSIX record locks both lose their locks when a second handle closes.
 *  - A handle does not survive fork(2). In the child every call but rbxj_close() fails with RBXJ_E_FORKED;
 *    open after the last fork, and between fork and exec in a child touch nothing of rbxj. All descriptors
 *    are close-on-exec. rbxj_spawn() forks in the right way.
 *  - Do not close descriptors that you did not open (closefrom(3) in the supervisor itself): the journal's
 *    locks go with them; the next call notices it and fails with RBXJ_E_BAD_REQUEST. In children it is fine.
 *  - The process that calls rbxj_begin() owns the box: the box is live exactly as long as that process lives,
 *    whatever becomes of its threads, children and descriptors.
 *  - If rbxj_begin(), rbxj_intend(), rbxj_take() or rbxj_spawn() fails, nothing was recorded that a replay
 *    would act on and the caller must not acquire (fail closed).
 *  - Put nothing into a resource before rbxj_acquired() (or rbxj_acquire(), rbxj_take()) returned 0 for it.
 *  - Do not freeze or stop a process while it is inside a call: the others wait for it up to gate_timeout,
 *    and then fail with RBXJ_E_JOURNAL_BUSY, naming it.
 *  - Under a limit of the size of files (RLIMIT_FSIZE) ignore SIGXFSZ: what the journal can't write is then
 *    an error that is told; else it is the end of the process.
 *  - A process in another pid namespace than the journal's other users may use it (liveness is then told by a
 *    record lock), but two that have the same pid number at the same time disturb each other's reading.
 *  - A thread that has descriptors of its own (unshare(2) with CLONE_FILES) can't use the handle, and one
 *    that has mounts of its own journals no intent: RBXJ_E_BAD_REQUEST. Both are the process' to the kernel's
 *    locks and to /proc.
 *
 * Threads: one handle may be used by many threads at once, until rbxj_close() is called; calls for one box
 * should come from one thread at a time. While one undoes it, another one that undoes it, or acquires for it,
 * gets RBXJ_E_BUSY, and nothing that it made is left. The functions without a handle are thread-safe: they go
 * side by side while the process has a handle, and else one after the other; rbxj_open() and rbxj_close()
 * wait for those that are under way in other threads. An error object and a result belong to one thread at a
 * time. A thread that calls any of this needs 128 KiB of stack. A callback may call all of it again but
 * rbxj_close(); a child that it forks must not return from it.
 *
 * Nothing here prints, exits, aborts, or changes signal dispositions or masks of the calling thread. A thread
 * that is cancelled (pthread_cancel(3)) inside goes on to the end of the call.
 *
 * Return values: 0 (or a documented positive value) for success, else a negative code: -errno (-1 to -4095),
 * or one of the RBXJ_E_* codes below, negated. Outputs are untouched on failure. An error argument may be
 * NULL; it is cleared at entry. Every structure that is passed in must be zero-initialised: its reserved
 * fields are for later versions and must be zero.
 *
 * Any language that can call C can call this: there are no macros to expand, no variable arguments, and enums
 * are ints. See also librbxj(3) and, for those who would rather write lines of JSON to a child,
 * rbxj-hook(7).
 */
#ifndef RBXJ_H
#define RBXJ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RBXJ_VERSION "0.1.0"

/* Own error codes, always returned negated. The names are those of the hook's JSON error codes. */
enum rbxj_code {
    RBXJ_E_BAD_REQUEST = 5001,    /* the arguments are wrong: nothing was done */
    RBXJ_E_NO_SUCH_BOX = 5002,    /* no box of that name, or no such record in it */
    RBXJ_E_BOX_LIVE = 5003,       /* another living supervisor has the box */
    RBXJ_E_BOX_STALE = 5004,      /* records of a dead incarnation are there: replay first */
    RBXJ_E_PROTECTED_PATH = 5005, /* a path that rbxj never undoes */
    RBXJ_E_EXISTS = 5006,         /* the resource is there already, or another box has it */
    RBXJ_E_QUARANTINED = 5007,    /* the worker takes no new boxes */
    RBXJ_E_JOURNAL_BUSY = 5008,   /* a process holds the journal too long; it is named */
    RBXJ_E_JOURNAL_FULL = 5009,   /* no room for another intent in the map, or no number in the box */
    RBXJ_E_DISK_FULL = 5010,      /* the file system has no room for another intent */
    /* the journal can't be trusted: nothing is undone. errnum 0: its content is wrong; else it is another's,
     * of another layout, or its disk is missing */
    RBXJ_E_JOURNAL_DAMAGED = 5011,
    RBXJ_E_PERMISSION = 5012, /* a privilege or an owner is missing */
    RBXJ_E_IO = 5013,         /* the system failed; errnum says how */
    RBXJ_E_BUSY = 5014,       /* in use: another reaper, or the thing itself */
    RBXJ_E_FORKED = 5015,     /* the handle belongs to the parent process */
    RBXJ_E_FOREIGN = 5016,    /* what stands there is not ours: left alone */
    RBXJ_E_LEFT = 5017,       /* something is left that could not be undone */
};

/* What failed, on what, and why. message is one line, bytes that are not printable are escaped. */
struct rbxj_error {
    int code;          /* the negated return value: an errno or an enum rbxj_code; 0: no error */
    int errnum;        /* the errno behind it, or 0 */
    char message[400]; /* "what: on what: why" */
    char detail[200];  /* who holds it, what to do; may be empty */
};

/* The short name of a return value, as in the hook's JSON ("box_live", "io"); never NULL. Thread-safe. */
const char *rbxj_strerror(int code);

struct rbxj;        /* the journal handle */
struct rbxj_result; /* what a replay did, or would do */

/* Where the journal is; zero-initialise, then set what differs. All strings are copied. */
struct rbxj_options {
    const char *state_dir;   /* NULL: RBXJ_STATE_DIR, else the default (see rbxj(1)) */
    const char *runtime_dir; /* NULL: RBXJ_RUNTIME_DIR, else the default */
    const char *config;      /* NULL: /etc/rbxj/rbxj.conf, which need not exist; else it must */
    /* What happened, in one line each ("worker_quarantined", "reason manual_quarantine: ..."): called from
     * the calling thread, and only where no journald takes it. NULL: then nobody is told. */
    void (*event)(void *data, const char *event, const char *message);
    void *event_data;
    uint64_t reserved[6];
};

/* Opens the journal for writing, creating it in an existing state directory where there is none.
 * Errors: PERMISSION (wrong owner or mode), JOURNAL_DAMAGED, JOURNAL_BUSY, DISK_FULL, BAD_REQUEST (second
 * handle, network file system, bad configuration), or -errno. */
int rbxj_open(const struct rbxj_options *options, struct rbxj **ret, struct rbxj_error *error);

/* Closes; a box that was begun and not ended stays begun, and becomes stale when the process ends. NULL is
 * fine. */
void rbxj_close(struct rbxj *handle);

enum rbxj_kind {
    RBXJ_LOCK = 1,
    RBXJ_CGROUP = 2,
    RBXJ_MOUNT = 3,
    RBXJ_TMPDIR = 4,
    RBXJ_PROCESS = 5,
};

enum rbxj_resource_flags {
    RBXJ_RMDIR_ONLY = 1, /* tmpdir: undone by rmdir alone; not empty is left and reported */
};

/* One thing that is about to be acquired. Paths are absolute bytes without "." or ".." parts. */
struct rbxj_resource {
    enum rbxj_kind kind;
    uint32_t flags;      /* enum rbxj_resource_flags */
    const char *path;    /* lock, cgroup, tmpdir; mount: the target */
    const char *fstype;  /* mount */
    const char *source;  /* mount */
    const char *options; /* mount, rbxj_acquire() only: mount options, comma separated; may be NULL */
    pid_t pid;           /* process: a child that waits to be let go */
    uint64_t reserved[4];
};

/* A box: from begin to end. Zero-initialise. */
struct rbxj_box {
    const char *name;                 /* 1 to 64 of A-Z a-z 0-9 . _ -, not starting with . or - */
    pid_t supervisor;                 /* 0: the calling process, recommended; else a living process */
    const char *parent;               /* the box in which this one lives, 16 deep at most, or NULL */
    const struct rbxj_resource *plan; /* what will be acquired, oldest first */
    size_t plan_len;
    uint64_t reserved[4];
};

/* Begins a box and journals its whole plan in one commit; plan[i] gets sequence number i + 1. On return the
 * plan is as durable as its resources are: on disk if any of them could survive the boot, else in the boot
 * journal. ret_incarnation may be NULL. A box of that name whose supervisor is dead is BOX_STALE, a path that
 * another box has, dead or not, EXISTS; so is a lock file that changes while its intent is written. Errors:
 * BAD_REQUEST, BOX_LIVE, BOX_STALE, PROTECTED_PATH, EXISTS, QUARANTINED, JOURNAL_BUSY, JOURNAL_FULL,
 * DISK_FULL, JOURNAL_DAMAGED, PERMISSION, IO. */
int rbxj_begin(struct rbxj *handle, const struct rbxj_box *box, uint64_t *ret_incarnation,
               struct rbxj_error *error);

/* Journals one more intent; ret_seq gets its number. Same durability and errors as rbxj_begin(), and
 * NO_SUCH_BOX. */
int rbxj_intend(struct rbxj *handle, const char *box, const struct rbxj_resource *resource, uint32_t *ret_seq,
                struct rbxj_error *error);

/* For a supervisor that mounts by itself: the source to give to mount(2) for seq, so that the mount is known
 * as the box's even if this process dies before rbxj_acquired(). ret_source gets it, to be freed with
 * free(3); or NULL where the type needs its own source (a device, a server, a bind mount's directory): then
 * the intent's is used, and only the evidence that rbxj_acquired() records proves it (rbxj_acquire() journals
 * that of a bind mount before it attaches it). Errors: NO_SUCH_BOX, BAD_REQUEST (seq is no mount), BOX_LIVE,
 * BOX_STALE, IO. */
int rbxj_mount_source(struct rbxj *handle, const char *box, uint32_t seq, char **ret_source,
                      struct rbxj_error *error);

/* The caller acquired what seq says: looks at the system, checks that it is new and empty, stamps it, and
 * records its identity. Not flushed, except where the resource is persistent and can't bear a stamp.
 * Oldest first: what lies in another thing of the box comes after that one, which would not be empty
 * otherwise. Once more for the same seq changes nothing: 0 as long as it is the same thing. Errors: EXISTS
 * (not empty, of another owner, or another one than before), BAD_REQUEST (it is not there; or that in which
 * it lies was not acquired yet, or is hidden by a newer mount of the box), BUSY, NO_SUCH_BOX, and those of
 * rbxj_begin(). BOX_STALE, or NO_SUCH_BOX of a box that was there: a reaper was told that this process is
 * dead, and may not have seen what was acquired: give it back. */
int rbxj_acquired(struct rbxj *handle, const char *box, uint32_t seq, struct rbxj_error *error);

/* Acquires what seq says, in the way that rbxj knows, and records the evidence; ret_fd gets what must stay
 * open (lock: the locked file, close-on-exec, the caller's to close), else -1; it may be NULL except for a
 * lock. For a mount, options is the mount's options, comma separated (mount(8)), or NULL; it is ignored for
 * others. Not for processes. Once for each seq. Errors: BUSY (somebody holds the lock; detail names him),
 * EXISTS (something is there, or seq was acquired before), NO_SUCH_BOX, BAD_REQUEST (no such type, wrong
 * options), PERMISSION, IO, and those of rbxj_acquired(). After a failure the intent is still there:
 * rbxj_undo() knows what became of it. After EXISTS what is there is another's: it is left alone, unless it
 * was made by an earlier try that failed in another way. Where it is not, because a reaper was told that this
 * process is dead, what was acquired is given back (BOX_STALE, NO_SUCH_BOX). */
int rbxj_acquire(struct rbxj *handle, const char *box, uint32_t seq, const char *options, int *ret_fd,
                 struct rbxj_error *error);

/* rbxj_intend() and rbxj_acquire() in one, for a lock, cgroup, mount or tmpdir (with resource->options for a
 * mount). ret_fd as there. ret_seq may be NULL. Where it fails after the intent was written, what was made by
 * then is undone and the intent dropped as far as can be; what can't be is left to rbxj_undo(). Where nothing
 * was made, because something was there already for instance, that is left alone and only the intent is taken
 * back. */
int rbxj_take(struct rbxj *handle, const char *box, const struct rbxj_resource *resource, uint32_t *ret_seq,
              int *ret_fd, struct rbxj_error *error);

/* How a process is started. Zero-initialise. */
struct rbxj_spawn {
    const char *const *argv; /* NULL-terminated; argv[0] without a slash is looked up in the caller's PATH */
    const char *const *envp; /* NULL-terminated; NULL: this process' own */
    const uint32_t *cgroups; /* seqs of cgroups of this box into which it goes, in this order */
    size_t cgroups_len;
    const int *fds; /* what it keeps open besides 0, 1 and 2; everything else is closed. See below */
    size_t fds_len;
    int (*setup)(void *data); /* see below; may be NULL */
    void *setup_data;
    uint64_t reserved[8];
};

/* Starts a process that cannot outlive the box: it is forked waiting on a pipe, journaled as a resource of
 * kind process (pid, start time, pid namespace), put into its cgroups, and only then let go; where the caller
 * dies before that, it sees that and exits without having run anything. It covers this one process: what
 * forks belongs into a cgroup. The caller may have unshared its pid namespace (unshare(2)).
 *
 * setup() runs in the child after it was let go and before the exec, for what a sandbox wants (dup2, chroot,
 * limits, unshare). As after any fork of a process that may have threads it may only do what is
 * async-signal-safe (signal-safety(7)), and nothing of rbxj. It leaves descriptors alone that it does not
 * know: one of them tells the caller what became of the exec. It returns 0, or an errno with which the start
 * fails; what is not in 1..4095 counts as EINVAL. The signal mask and dispositions are the calling thread's.
 *
 * PATH is the caller's, whatever envp says. The descriptors in fds lose close-on-exec in the child, not in
 * the caller. Never pass a lock's: who has the descriptor has the lock, and the box is held for as long as it
 * lives.
 *
 * ret_pid is a child of the caller, who waits for it (waitpid(2)); ret_pidfd (may be NULL) gets a pidfd,
 * close-on-exec, the caller's to close; ret_seq may be NULL. Returns after the exec: -errno of the exec or of
 * setup() (-ENOENT: no such program) when it did not come to that; then the child is reaped and its record
 * dropped. Other errors: those of rbxj_intend(), NO_SUCH_BOX (a seq that is no cgroup of this box),
 * BAD_REQUEST (also: a cgroup that was not acquired yet, a descriptor that is not open), FOREIGN (another
 * cgroup, or none, is where that one was), IO (also when somebody killed it before it was let go), BUSY: a
 * cgroup is frozen; or it was frozen, or the child stopped, meanwhile, and was not let on within the
 * configuration's timeout (setup() itself may take as long as it likes). Then it is killed, too. One that
 * does not even die, as in a frozen v1 cgroup, is left to rbxj_undo() with its record, and to the caller to
 * be reaped; detail says so. */
int rbxj_spawn(struct rbxj *handle, const char *box, const struct rbxj_spawn *how, pid_t *ret_pid,
               int *ret_pidfd, uint32_t *ret_seq, struct rbxj_error *error);

/* The caller gave seq back itself: the record is dropped after the system shows that it is gone (else
 * EXISTS). */
int rbxj_released(struct rbxj *handle, const char *box, uint32_t seq, struct rbxj_error *error);

/* Normal teardown: undoes everything that the box still has, newest first, by the code that a replay runs.
 * What lay on a persistent file system is flushed there (one fsync for each directory in which it was) before
 * its record goes. The box stays begun; call rbxj_end(). ret may be NULL. Returns 0 when nothing is left,
 * -RBXJ_E_LEFT when something is (ret is set then, too, and the error's detail says why of the newest one).
 * What failed for want of memory or descriptors may be tried again. JOURNAL_DAMAGED: nothing was undone, as
 * by a replay. */
int rbxj_undo(struct rbxj *handle, const char *box, struct rbxj_result **ret, struct rbxj_error *error);

/* Ends a box that has nothing left; LEFT otherwise, BUSY while a replay takes it down that was told to assume
 * its supervisor dead. Goes to disk with the next commit that anyone makes. */
int rbxj_end(struct rbxj *handle, const char *box, struct rbxj_error *error);

/* How a replay is told what to do. Zero-initialise. */
struct rbxj_replay {
    int dry_run;              /* look only: change nothing at all, not even the journal */
    int boot;                 /* at boot: with the configured deadline */
    int lazy_umount;          /* 0: as configured; 1: never; 2: last resort */
    int assume_dead;          /* treat the named boxes as stale although their liveness is unknown */
    const char *reason;       /* required with assume_dead */
    const char *plan;         /* do exactly this plan, or nothing */
    const char *const *boxes; /* only these; NULL: all */
    size_t boxes_len;
    double timeout; /* seconds for one box, up to 1e6; 0: as configured */
    void (*progress)(void *data, size_t done, size_t total); /* may be NULL; called from the calling thread */
    void *progress_data;
    uint64_t reserved[8];
};

/* The reaper. Without a handle: it opens what it needs. Returns 0 nothing left, 1 something is left or
 * refused (or, in a dry run, would be), or a negative error (ret is untouched then). Errors: BUSY (another
 * reaper), JOURNAL_DAMAGED, PERMISSION, and those of rbxj_open(). */
int rbxj_replay(const struct rbxj_options *options, const struct rbxj_replay *how, struct rbxj_result **ret,
                struct rbxj_error *error);

/* What a replay, an undo or a list found. Strings live as long as the result; NULL where there is nothing to
 * say. */
struct rbxj_result_info {
    const char *plan;    /* hex; NULL but for a dry run or a replay */
    const char *boot_id; /* hex */
    int64_t started_ns;  /* CLOCK_REALTIME */
    int64_t duration_ns;
    int dry_run;
    size_t boxes; /* stale boxes handled */
    size_t live;  /* boxes left alone */
    size_t undone, already_gone, refused, failed, left;
    uint64_t reserved[4];
};
struct rbxj_result_box {
    const char *box;
    uint64_t incarnation;
    const char *state; /* live, stale, held, unknown */
    const char
        *cause; /* system_crash, supervisor_crash, cleanup_failure, lock_corruption; NULL for a live box */
    const char *outcome; /* success, partial, failure, planned; NULL in a list */
    pid_t supervisor;
    int supervisor_alive;
    int64_t begun_ns; /* CLOCK_REALTIME */
    size_t entries;
    uint32_t failures;    /* replays of it that failed, in a row */
    uint32_t flags;       /* 0 */
    const char *incident; /* id of the incident record that tells of it; NULL: none */
    uint64_t reserved[4];
};
struct rbxj_result_entry {
    uint32_t seq;
    const char *kind;    /* lock, cgroup, mount, tmpdir, process */
    const char *name;    /* bytes: the path, or "pid N" */
    const char *found;   /* present, gone, foreign, busy */
    const char *action;  /* what undo does: unlink, restore, kill, rmdir, unmount, remove; NULL in a list */
    const char *outcome; /* undone, already_gone, refused, failed, skipped, planned; NULL in a list */
    int evidence;        /* its identity is known */
    int64_t time_ns;     /* when the intent was written, CLOCK_REALTIME */
    const struct rbxj_error *error; /* NULL: none */
    const char *note;               /* what was seen besides (OOM kills in a cgroup); NULL: nothing */
    /* a lock, before it was touched: valid (JSON), other_box (valid, but names another box), not_json,
     * truncated (JSON that ends too early), binary, empty, not_regular (a FIFO, a symlink: not opened). NULL:
     * nothing is there, or it was not looked at */
    const char *content;
    uint64_t reserved[3];
};

void rbxj_result_info(const struct rbxj_result *result, struct rbxj_result_info *ret);
/* Box i, entry k of box i, in the order undone (in a list: oldest first). -ERANGE past the end. */
int rbxj_result_box(const struct rbxj_result *result, size_t i, struct rbxj_result_box *ret);
int rbxj_result_entry(const struct rbxj_result *result, size_t i, size_t k, struct rbxj_result_entry *ret);
size_t rbxj_result_boxes(const struct rbxj_result *result);
void rbxj_result_free(struct rbxj_result *result);

/* The boxes and their records, with what is found of each. Changes nothing, needs no handle. box NULL:
 * all. */
int rbxj_list(const struct rbxj_options *options, const char *box, struct rbxj_result **ret,
              struct rbxj_error *error);

/* Drops one record that nobody can undo; reason goes into an incident record. Errors: BOX_LIVE (its
 * supervisor may be alive), NO_SUCH_BOX, BUSY, BAD_REQUEST (no reason), and those of rbxj_open(). */
int rbxj_forget(const struct rbxj_options *options, const char *box, uint32_t seq, const char *reason,
                struct rbxj_error *error);

/* ---- the worker's health ---- */

/* Why a person should look at this worker. */
enum rbxj_escalation {
    RBXJ_ESCALATE_FAILURES = 1,   /* a box failed too many replays in a row, or was held for so many */
    RBXJ_ESCALATE_INCIDENTS = 2,  /* too many of them within 24 hours */
    RBXJ_ESCALATE_CORRUPTION = 4, /* of a journal, or of a lock within 24 hours */
    RBXJ_ESCALATE_JOURNAL = 8,    /* it can't be used, though its content is not wrong */
    RBXJ_ESCALATE_KERNEL = 16     /* its taint, or what it logged of an incident within 24 hours */
};

struct rbxj_health {
    const char *status;            /* "healthy", "unhealthy", "quarantined"; a literal */
    const char *quarantine_reason; /* one of the words of rbxj-health(1), a literal; NULL: not quarantined */
    char quarantine_detail[400];   /* what was given as the reason, escaped; may be empty */
    int64_t quarantine_ns;         /* CLOCK_REALTIME; 0: not quarantined */
    int can_accept_submissions;    /* would rbxj_begin() be let through? */
    int escalate;                  /* enum rbxj_escalation, or'ed; 0: no person need look at this worker */
    uint32_t failed_cleanup_count; /* failed replays in a row, of the box that has the most */
    uint32_t stale_boxes, live_boxes, held_boxes, unknown_boxes; /* held ones are stale, too */
    uint32_t flags;                                              /* 0 */
    char last_cleanup_error[500]; /* "mount_unmount_failed: ..."; may be empty */
    /* what was seen besides the boxes; rbxj_evidence() has each in words */
    uint32_t orphan_processes;    /* they outlived their box, and no record names them */
    uint32_t zombie_processes;    /* of boxes; none makes unhealthy, nor does a blocked one */
    uint32_t blocked_processes;   /* of boxes, in state D */
    uint32_t foreign_resources;   /* something of somebody else is where something of a dead box was */
    uint32_t exhausted_resources; /* file systems and journals with less room than min_free */
    uint32_t not_looked_at;       /* what could not be: it may be well or not */
    uint64_t reserved[5];
};

/* What can be seen; changes nothing, needs no handle. A damaged journal is a status (quarantined,
 * journal_corruption), not an error; so is one whose content is not wrong, but that can't be used, or made
 * for want of room (unhealthy, and no new boxes). Errors: PERMISSION, JOURNAL_BUSY, BAD_REQUEST, IO: then the
 * health is unknown. */
int rbxj_health(const struct rbxj_options *options, struct rbxj_health *ret, struct rbxj_error *error);

/* What rbxj_health() has counted besides the boxes, in words, as the JSON document of rbxj-health(1) in
 * *ret_json, to be freed with free(3). Looks again; changes nothing. Errors: those of rbxj_health(). */
int rbxj_evidence(const struct rbxj_options *options, char **ret_json, struct rbxj_error *error);

/* A replay, and then: a quarantine that a recovery may release (cleanup_failure, orphan_process_detected,
 * resource_exhaustion) is released if nothing is left; a journal whose content is damaged quarantines. how
 * NULL: all boxes.
 * ret_health is what rbxj_health() says afterwards; ret_result, which may be NULL, the replay's result, or
 * NULL where there was none. It is no dry run. Returns as rbxj_replay(); ret_health is set then, too, if it
 * can be. */
int rbxj_recover(const struct rbxj_options *options, const struct rbxj_replay *how,
                 struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *error);

/* A full reset of the worker: it is quarantined, the supervisors of all live boxes are killed, and whoever
 * keeps the lock of a dead one; then a replay of everything, and where nothing is left the quarantine ends,
 * whichever it was before but manual_quarantine and journal_corruption, which stay when they are set
 * meanwhile, too; failures count from none again. Killed half-way, or where something is left, it leaves the
 * worker quarantined; it may be called again. how: as for rbxj_recover(), without boxes and plan; NULL: as
 * configured. ret_killed: how many processes were killed, set on failure, too. Returns and sets the others as
 * rbxj_recover(). Errors: BUSY (this process, or one above it, is such a supervisor; one does not die;
 * another reaper is at it for longer than one box may take), BOX_LIVE (one is in another pid namespace), and
 * those of rbxj_recover(). */
int rbxj_reset(const struct rbxj_options *options, const struct rbxj_replay *how, uint32_t *ret_killed,
               struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *error);

/* From now on rbxj_begin() fails with QUARANTINED, across reboots, whoever calls it; boxes that run go on.
 * reason is free text. Durable when it returns 0. A worker that is quarantined already gets the new reason.
 * Errors: BAD_REQUEST (no reason), PERMISSION, DISK_FULL, JOURNAL_BUSY (another process is changing it for
 * too long), IO; new boxes are kept out then, too, as far as that could be written down. */
int rbxj_quarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error);

/* Ends any quarantine, and counts failures from none again. 0 also where there was none. The same errors. */
int rbxj_unquarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error);

/* How many things are there that should not be, by kind: of the dead, and those that match the patterns of
 * [discover] and are journaled nowhere. What live boxes hold does not count. */
struct rbxj_clean {
    int clean; /* nothing at all, no record of a dead box either, and all could be looked at */
    uint32_t locks, mounts, cgroups, processes, temp_dirs;
    uint32_t unjournaled;   /* how many of these are in no journal; rbxj_audit() names them */
    uint32_t missing;       /* journaled, acquired, and no longer there; of live boxes, too */
    uint32_t not_looked_at; /* places of which the file system does not answer */
    uint64_t reserved[2];
};
/* Looks; changes nothing. Errors: those of rbxj_list(), and where what was journaled is not known: IO (as
 * root there is no state directory, which the installation makes: its disk may not be mounted), PERMISSION
 * (nor is a user's, and he could not make it there), JOURNAL_DAMAGED (this boot's journal was made for
 * another state directory). */
int rbxj_verify_clean(const struct rbxj_options *options, struct rbxj_clean *ret, struct rbxj_error *error);

/* ---- what was never journaled ---- */

/* What an audit does. Zero-initialise: then it only looks. */
struct rbxj_audit {
    int adopt;                /* write what was found into the journal */
    const char *const *names; /* only these of it, each must be there; NULL: all */
    size_t names_len;
    /* asked for each before it is adopted, from the calling thread: not 0 for yes. NULL: nobody is asked */
    int (*ask)(void *data, const char *kind, const char *name);
    void *ask_data;
    uint64_t reserved[8];
};

/* What matches the patterns of [discover] and is journaled nowhere, and what is journaled and is no longer
 * there, as the JSON document of rbxj-audit(1) in *ret_json, to be freed with free(3). how NULL: looks only.
 * Looking changes nothing, not even the journal, and needs no handle.
 *
 * With adopt, what was found is written into the journal with the identity that it has now, as durably as
 * rbxj_begin() does, as boxes "adopted-<hex>" that are stale at once: the next replay undoes them. Nothing is
 * undone here. What somebody uses is refused: a lock that is held or names a living process, a cgroup with
 * processes in it, a file that is open in a directory or mount, what is mounted in another place of another
 * mount namespace (a sandbox's root), what another box has, and protected paths; the document says why.
 *
 * Returns 0 nothing (else) was found, 1 something is left, or a negative error. Errors: those of rbxj_list(),
 * and with adopt those of rbxj_open() and rbxj_begin(). */
int rbxj_audit(const struct rbxj_options *options, const struct rbxj_audit *how, char **ret_json,
               struct rbxj_error *error);

/* ---- what is kept of the past ---- */

struct rbxj_incidents; /* incident records, newest first */

/* id NULL: all that were detected or came again since since_ns (CLOCK_REALTIME; 0: all that are kept).
 * Changes nothing. Errors: NO_SUCH_BOX (no incident of that id), PERMISSION, IO. A record that can't be read
 * is left out. */
int rbxj_incidents(const struct rbxj_options *options, const char *id, int64_t since_ns,
                   struct rbxj_incidents **ret, struct rbxj_error *error);
size_t rbxj_incidents_len(const struct rbxj_incidents *incidents);
/* Incident i as a JSON object (the fields of rbxj-incidents(1), one line); lives as long as incidents. NULL
 * past the end. */
const char *rbxj_incidents_json(const struct rbxj_incidents *incidents, size_t i);
void rbxj_incidents_free(struct rbxj_incidents *incidents);

/* The metrics of rbxj-metrics(1) in Prometheus' text format; ret_text is to be freed with free(3). Changes
 * nothing. Errors: those of rbxj_list(). ret_text is set then, too (but for ENOMEM): it tells of the damage,
 * or that the health is unknown, and leaves out what can't be read. */
int rbxj_metrics(const struct rbxj_options *options, char **ret_text, struct rbxj_error *error);

/* ---- damaged journals ---- */

/* What can be read of journals, however damaged, without LMDB: metas, snapshots, and every record that is
 * whole or was one, as the JSON document of rbxj-forensics(1) in *ret_json, to be freed with free(3). path: a
 * data file, or a directory that has some (a state, runtime or journal directory); NULL: those of options.
 * Nothing of them is changed, and nothing but leave to read them is needed.
 *
 * salvage_dir, which may be NULL, is made (or is an empty directory of ours, 0700) and becomes a state
 * directory with a new, sound journal of every record that is whole and the newest of its key; the document
 * says what was left out. What is replayed from it is undone only where its identity is proven.
 *
 * Returns 0 all sound, 1 something is damaged, or a negative error. Errors: PERMISSION, IO, BAD_REQUEST (no
 * journal, not a regular file, salvage_dir is not empty), BUSY (another salvage writes into it), JOURNAL_BUSY
 * (it changes too fast to be read), DISK_FULL. */
int rbxj_forensics(const struct rbxj_options *options, const char *path, const char *salvage_dir,
                   char **ret_json, struct rbxj_error *error);

#ifdef __cplusplus
}
#endif
#endif
