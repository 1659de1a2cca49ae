/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The binary interface, as programs that are linked already know it (64 bit, LP64), and the functions'
 * signatures: what is listed here stays as it is. A structure grows by taking from its reserved fields only;
 * what is new is added to the list (check-symbols.sh sees to the functions).
 *
 *     cc -DPRINT_ABI -Iinclude -o /tmp/abi tests/test_abi.c && /tmp/abi    prints how it is now
 */
#include "rbxj.h"

#include <assert.h>
#include <stdio.h>

/* clang-format off */
#define ABI \
    SIZE(rbxj_error, 608) AT(rbxj_error, code, 0) AT(rbxj_error, errnum, 4) AT(rbxj_error, message, 8) \
        AT(rbxj_error, detail, 408) \
    SIZE(rbxj_options, 88) AT(rbxj_options, state_dir, 0) AT(rbxj_options, runtime_dir, 8) \
        AT(rbxj_options, config, 16) AT(rbxj_options, event, 24) AT(rbxj_options, event_data, 32) \
        AT(rbxj_options, reserved, 40) \
    SIZE(rbxj_resource, 80) AT(rbxj_resource, kind, 0) AT(rbxj_resource, flags, 4) \
        AT(rbxj_resource, path, 8) AT(rbxj_resource, fstype, 16) AT(rbxj_resource, source, 24) \
        AT(rbxj_resource, options, 32) AT(rbxj_resource, pid, 40) AT(rbxj_resource, reserved, 48) \
    SIZE(rbxj_box, 72) AT(rbxj_box, name, 0) AT(rbxj_box, supervisor, 8) AT(rbxj_box, parent, 16) \
        AT(rbxj_box, plan, 24) AT(rbxj_box, plan_len, 32) AT(rbxj_box, reserved, 40) \
    SIZE(rbxj_spawn, 128) AT(rbxj_spawn, argv, 0) AT(rbxj_spawn, envp, 8) AT(rbxj_spawn, cgroups, 16) \
        AT(rbxj_spawn, cgroups_len, 24) AT(rbxj_spawn, fds, 32) AT(rbxj_spawn, fds_len, 40) \
        AT(rbxj_spawn, setup, 48) AT(rbxj_spawn, setup_data, 56) AT(rbxj_spawn, reserved, 64) \
    SIZE(rbxj_replay, 136) AT(rbxj_replay, dry_run, 0) AT(rbxj_replay, boot, 4) \
        AT(rbxj_replay, lazy_umount, 8) AT(rbxj_replay, assume_dead, 12) AT(rbxj_replay, reason, 16) \
        AT(rbxj_replay, plan, 24) AT(rbxj_replay, boxes, 32) AT(rbxj_replay, boxes_len, 40) \
        AT(rbxj_replay, timeout, 48) AT(rbxj_replay, progress, 56) AT(rbxj_replay, progress_data, 64) \
        AT(rbxj_replay, reserved, 72) \
    SIZE(rbxj_result_info, 128) AT(rbxj_result_info, plan, 0) AT(rbxj_result_info, boot_id, 8) \
        AT(rbxj_result_info, started_ns, 16) AT(rbxj_result_info, duration_ns, 24) \
        AT(rbxj_result_info, dry_run, 32) AT(rbxj_result_info, boxes, 40) \
        AT(rbxj_result_info, live, 48) AT(rbxj_result_info, undone, 56) \
        AT(rbxj_result_info, already_gone, 64) AT(rbxj_result_info, refused, 72) \
        AT(rbxj_result_info, failed, 80) AT(rbxj_result_info, left, 88) \
        AT(rbxj_result_info, reserved, 96) \
    SIZE(rbxj_result_box, 112) AT(rbxj_result_box, box, 0) AT(rbxj_result_box, incarnation, 8) \
        AT(rbxj_result_box, state, 16) AT(rbxj_result_box, cause, 24) AT(rbxj_result_box, outcome, 32) \
        AT(rbxj_result_box, supervisor, 40) AT(rbxj_result_box, supervisor_alive, 44) \
        AT(rbxj_result_box, begun_ns, 48) AT(rbxj_result_box, entries, 56) \
        AT(rbxj_result_box, failures, 64) AT(rbxj_result_box, flags, 68) \
        AT(rbxj_result_box, incident, 72) AT(rbxj_result_box, reserved, 80) \
    SIZE(rbxj_result_entry, 112) AT(rbxj_result_entry, seq, 0) AT(rbxj_result_entry, kind, 8) \
        AT(rbxj_result_entry, name, 16) AT(rbxj_result_entry, found, 24) \
        AT(rbxj_result_entry, action, 32) AT(rbxj_result_entry, outcome, 40) \
        AT(rbxj_result_entry, evidence, 48) AT(rbxj_result_entry, time_ns, 56) \
        AT(rbxj_result_entry, error, 64) AT(rbxj_result_entry, note, 72) \
        AT(rbxj_result_entry, content, 80) AT(rbxj_result_entry, reserved, 88) \
    SIZE(rbxj_health, 1024) AT(rbxj_health, status, 0) AT(rbxj_health, quarantine_reason, 8) \
        AT(rbxj_health, quarantine_detail, 16) AT(rbxj_health, quarantine_ns, 416) \
        AT(rbxj_health, can_accept_submissions, 424) AT(rbxj_health, escalate, 428) \
        AT(rbxj_health, failed_cleanup_count, 432) AT(rbxj_health, stale_boxes, 436) \
        AT(rbxj_health, live_boxes, 440) AT(rbxj_health, held_boxes, 444) \
        AT(rbxj_health, unknown_boxes, 448) AT(rbxj_health, flags, 452) \
        AT(rbxj_health, last_cleanup_error, 456) AT(rbxj_health, orphan_processes, 956) \
        AT(rbxj_health, zombie_processes, 960) AT(rbxj_health, blocked_processes, 964) \
        AT(rbxj_health, foreign_resources, 968) AT(rbxj_health, exhausted_resources, 972) \
        AT(rbxj_health, not_looked_at, 976) AT(rbxj_health, reserved, 984) \
    SIZE(rbxj_clean, 56) AT(rbxj_clean, clean, 0) AT(rbxj_clean, locks, 4) AT(rbxj_clean, mounts, 8) \
        AT(rbxj_clean, cgroups, 12) AT(rbxj_clean, processes, 16) AT(rbxj_clean, temp_dirs, 20) \
        AT(rbxj_clean, unjournaled, 24) AT(rbxj_clean, missing, 28) AT(rbxj_clean, not_looked_at, 32) \
        AT(rbxj_clean, reserved, 40) \
    VALUE(RBXJ_ESCALATE_FAILURES, 1) \
    VALUE(RBXJ_ESCALATE_INCIDENTS, 2) \
    VALUE(RBXJ_ESCALATE_CORRUPTION, 4) \
    VALUE(RBXJ_ESCALATE_JOURNAL, 8) \
    VALUE(RBXJ_ESCALATE_KERNEL, 16) \
    VALUE(RBXJ_E_BAD_REQUEST, 5001) \
    VALUE(RBXJ_E_NO_SUCH_BOX, 5002) \
    VALUE(RBXJ_E_BOX_LIVE, 5003) \
    VALUE(RBXJ_E_BOX_STALE, 5004) \
    VALUE(RBXJ_E_PROTECTED_PATH, 5005) \
    VALUE(RBXJ_E_EXISTS, 5006) \
    VALUE(RBXJ_E_QUARANTINED, 5007) \
    VALUE(RBXJ_E_JOURNAL_BUSY, 5008) \
    VALUE(RBXJ_E_JOURNAL_FULL, 5009) \
    VALUE(RBXJ_E_DISK_FULL, 5010) \
    VALUE(RBXJ_E_JOURNAL_DAMAGED, 5011) \
    VALUE(RBXJ_E_PERMISSION, 5012) \
    VALUE(RBXJ_E_IO, 5013) \
    VALUE(RBXJ_E_BUSY, 5014) \
    VALUE(RBXJ_E_FORKED, 5015) \
    VALUE(RBXJ_E_FOREIGN, 5016) \
    VALUE(RBXJ_E_LEFT, 5017) \
    VALUE(RBXJ_LOCK, 1) \
    VALUE(RBXJ_CGROUP, 2) \
    VALUE(RBXJ_MOUNT, 3) \
    VALUE(RBXJ_TMPDIR, 4) \
    VALUE(RBXJ_PROCESS, 5) \
    VALUE(RBXJ_RMDIR_ONLY, 1)

#define FUNCTIONS \
    SIGNATURE(rbxj_acquire, int (*)(struct rbxj *, const char *, uint32_t, const char *, int *, struct rbxj_error *)) \
    SIGNATURE(rbxj_acquired, int (*)(struct rbxj *, const char *, uint32_t, struct rbxj_error *)) \
    SIGNATURE(rbxj_audit, int (*)(const struct rbxj_options *, const struct rbxj_audit *, char **, struct rbxj_error *)) \
    SIGNATURE(rbxj_begin, int (*)(struct rbxj *, const struct rbxj_box *, uint64_t *, struct rbxj_error *)) \
    SIGNATURE(rbxj_close, void (*)(struct rbxj *)) \
    SIGNATURE(rbxj_end, int (*)(struct rbxj *, const char *, struct rbxj_error *)) \
    SIGNATURE(rbxj_evidence, int (*)(const struct rbxj_options *, char **, struct rbxj_error *)) \
    SIGNATURE(rbxj_forensics, int (*)(const struct rbxj_options *, const char *, const char *, char **, struct rbxj_error *)) \
    SIGNATURE(rbxj_forget, int (*)(const struct rbxj_options *, const char *, uint32_t, const char *, struct rbxj_error *)) \
    SIGNATURE(rbxj_health, int (*)(const struct rbxj_options *, struct rbxj_health *, struct rbxj_error *)) \
    SIGNATURE(rbxj_incidents, int (*)(const struct rbxj_options *, const char *, int64_t, struct rbxj_incidents **, struct rbxj_error *)) \
    SIGNATURE(rbxj_incidents_free, void (*)(struct rbxj_incidents *)) \
    SIGNATURE(rbxj_incidents_json, const char * (*)(const struct rbxj_incidents *, size_t)) \
    SIGNATURE(rbxj_incidents_len, size_t (*)(const struct rbxj_incidents *)) \
    SIGNATURE(rbxj_intend, int (*)(struct rbxj *, const char *, const struct rbxj_resource *, uint32_t *, struct rbxj_error *)) \
    SIGNATURE(rbxj_list, int (*)(const struct rbxj_options *, const char *, struct rbxj_result **, struct rbxj_error *)) \
    SIGNATURE(rbxj_metrics, int (*)(const struct rbxj_options *, char **, struct rbxj_error *)) \
    SIGNATURE(rbxj_mount_source, int (*)(struct rbxj *, const char *, uint32_t, char **, struct rbxj_error *)) \
    SIGNATURE(rbxj_open, int (*)(const struct rbxj_options *, struct rbxj **, struct rbxj_error *)) \
    SIGNATURE(rbxj_quarantine, int (*)(const struct rbxj_options *, const char *, struct rbxj_error *)) \
    SIGNATURE(rbxj_recover, int (*)(const struct rbxj_options *, const struct rbxj_replay *, struct rbxj_result **, struct rbxj_health *, struct rbxj_error *)) \
    SIGNATURE(rbxj_released, int (*)(struct rbxj *, const char *, uint32_t, struct rbxj_error *)) \
    SIGNATURE(rbxj_replay, int (*)(const struct rbxj_options *, const struct rbxj_replay *, struct rbxj_result **, struct rbxj_error *)) \
    SIGNATURE(rbxj_reset, int (*)(const struct rbxj_options *, const struct rbxj_replay *, uint32_t *, struct rbxj_result **, struct rbxj_health *, struct rbxj_error *)) \
    SIGNATURE(rbxj_result_box, int (*)(const struct rbxj_result *, size_t, struct rbxj_result_box *)) \
    SIGNATURE(rbxj_result_boxes, size_t (*)(const struct rbxj_result *)) \
    SIGNATURE(rbxj_result_entry, int (*)(const struct rbxj_result *, size_t, size_t, struct rbxj_result_entry *)) \
    SIGNATURE(rbxj_result_free, void (*)(struct rbxj_result *)) \
    SIGNATURE(rbxj_result_info, void (*)(const struct rbxj_result *, struct rbxj_result_info *)) \
    SIGNATURE(rbxj_spawn, int (*)(struct rbxj *, const char *, const struct rbxj_spawn *, pid_t *, int *, uint32_t *, struct rbxj_error *)) \
    SIGNATURE(rbxj_strerror, const char * (*)(int)) \
    SIGNATURE(rbxj_take, int (*)(struct rbxj *, const char *, const struct rbxj_resource *, uint32_t *, int *, struct rbxj_error *)) \
    SIGNATURE(rbxj_undo, int (*)(struct rbxj *, const char *, struct rbxj_result **, struct rbxj_error *)) \
    SIGNATURE(rbxj_unquarantine, int (*)(const struct rbxj_options *, const char *, struct rbxj_error *)) \
    SIGNATURE(rbxj_verify_clean, int (*)(const struct rbxj_options *, struct rbxj_clean *, struct rbxj_error *))

#ifdef PRINT_ABI

#define SIZE(type, n) printf("    SIZE(%s, %zu) \\\n", #type, sizeof(struct type));
#define AT(type, field, n)                                                                                   \
    printf("        AT(%s, %s, %zu) \\\n", #type, #field, offsetof(struct type, field));
#define VALUE(name, n) printf("    VALUE(%s, %d) \\\n", #name, name);
int main(void)
{
    ABI
    return 0;
}

#else

#include "harness.h"

#include <string.h>

#ifdef __LP64__
#define SIZE(type, n) static_assert(sizeof(struct type) == (n), "the size of struct " #type);
#define AT(type, field, n) static_assert(offsetof(struct type, field) == (n), "struct " #type ": " #field);
#define VALUE(name, n) static_assert((name) == (n), #name);
ABI
#define SIGNATURE(name, ...) \
    static_assert(__builtin_types_compatible_p(__typeof__(&name), __VA_ARGS__), "the signature of " #name);
FUNCTIONS
static_assert(RBXJ_E_LEFT == 5017, "the last code");
#endif
/* clang-format on */

/* The codes' names are an interface, too: the hook's clients read them. */
static void each_code_has_its_name(void **state)
{
    (void)state;
    static const char *const names[] = {
        "bad_request",     "no_such_box", "box_live",     "box_stale",    "protected_path",
        "exists",          "quarantined", "journal_busy", "journal_full", "disk_full",
        "journal_damaged", "permission",  "io",           "busy",         "forked",
        "foreign",         "left",
    };
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++)
        assert_string_equal(names[i], rbxj_strerror(-(RBXJ_E_BAD_REQUEST + i)));
    assert_int_equal(RBXJ_E_BAD_REQUEST + (int)(sizeof(names) / sizeof(names[0])) - 1, RBXJ_E_LEFT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_code_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
