/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The configuration: a typo in a safety setting must not pass, and the defaults are those of rbxj.conf(5).
 * What hangs on the way of a path hangs nobody (K16).
 */
#include "config_fixture.h"
#include "hung_fuse.h"

/* ---- values ---- */

static void assert_defaults(void)
{
    assert_int_equal(loaded.map_size, 1ULL << 30);
    assert_int_equal(loaded.preallocate, 4 << 20);
    assert_int_equal(loaded.gate_timeout_ns, 10 * S);
    assert_false(loaded.lazy_umount);
    assert_int_equal(loaded.timeout_ns, 30 * S);
    assert_int_equal(loaded.boot_deadline_ns, 60 * S);
    assert_int_equal(loaded.stop_timeout_ns, 5 * S);
    assert_int_equal(loaded.busy_retries, 10);
    assert_int_equal(loaded.jobs, 0);
    assert_null(loaded.protected_paths);
    assert_null(loaded.allowed_paths);
    assert_int_not_equal(loaded.durability, DURABILITY_AUTO);
}

static void every_key_has_its_default(void **state)
{
    (void)state;
    assert_loads("");
    assert_defaults();
    assert_loads(
        "[journal]\ndurability=auto\nmap_size=1G\npreallocate=4M\ngate_timeout=10s\n"
        "[replay]\nlazy_umount=never\ntimeout=30s\nboot_deadline=60s\nstop_timeout=5s\nbusy_retries=10\njobs="
        "\n"
        "[health]\nquarantine_after=3\nescalate_failures=3\nescalate_per_day=1\nmin_free=5%\n"
        "[discover]\nlocks=/var/lib/rustbox/boxes/*/lock\ncgroups=rustbox-*\nmounts=/var/lib/rustbox/*\n"
        "tmpdirs=/tmp/rustbox-*\n[paths]\nprotected=\nallowed=\n[incidents]\nkeep=1000\nkeep_days=90\n");
    assert_defaults();
}

static void every_key_is_read(void **state)
{
    (void)state;
    assert_loads(
        "# a comment\n[journal]\ndurability = always ; another\nmap_size=512M\npreallocate = 8M\n"
        "gate_timeout=500ms\n[replay]\nlazy_umount=last-resort\ntimeout=2min\nboot_deadline=5\nstop_timeout="
        "1min\n"
        "busy_retries=0\njobs=3\n[paths]\nprotected=/data /srv/keep/\n  /more\\ of\\ it\nallowed=/\n");
    assert_int_equal(loaded.durability, DURABILITY_ALWAYS);
    assert_int_equal(loaded.map_size, 512 << 20);
    assert_int_equal(loaded.preallocate, 8 << 20);
    assert_int_equal(loaded.gate_timeout_ns, 500 * MS);
    assert_true(loaded.lazy_umount);
    assert_int_equal(loaded.timeout_ns, 120 * S);
    assert_int_equal(loaded.boot_deadline_ns, 5 * S);
    assert_int_equal(loaded.stop_timeout_ns, 60 * S);
    assert_int_equal(loaded.busy_retries, 0);
    assert_int_equal(loaded.jobs, 3);
    assert_string_equal(loaded.protected_paths[0], "/data");
    assert_string_equal(loaded.protected_paths[1], "/srv/keep");
    assert_string_equal(loaded.protected_paths[2], "/more of it");
    assert_null(loaded.protected_paths[3]);
    assert_string_equal(loaded.allowed_paths[0], "/");
    assert_null(loaded.allowed_paths[1]);
}

static void the_map_holds_what_is_allocated(void **state)
{
    (void)state;
    assert_loads("[journal]\nmap_size=2097153\n");
    assert_int_equal(loaded.map_size, (2 << 20) + (64 << 10));
    assert_int_equal(loaded.preallocate, loaded.map_size);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"[journal]", "durability="},
        {"[journal]", "durability=Always"},
        {"[journal]", "map_size="},
        {"[journal]", "map_size=1"},
        {"[journal]", "map_size=-1G"},
        {"[journal]", "map_size=1GB"},
        {"[journal]", "map_size=1 G"},
        {"[journal]", "map_size=0x100000"},
        {"[journal]", "map_size=18446744073709551616"},
        {"[journal]", "map_size=18446744073709551615T"},
        {"[journal]", "map_size=16777217T"}, /* 2^64 and 1T */
        {"[journal]", "map_size=2T"},
        {"[journal]", "preallocate=many"},
        {"[journal]", "gate_timeout=0"},
        {"[journal]", "gate_timeout=10h"},
        {"[journal]", "gate_timeout=1.5s"},
        {"[replay]", "timeout=86401"},
        {"[replay]", "timeout="},
        {"[replay]", "boot_deadline=-1s"},
        {"[replay]", "lazy_umount=yes"},
        {"[replay]", "busy_retries=ten"},
        {"[replay]", "busy_retries=4294967296"},
        {"[replay]", "jobs=0"},
        {"[paths]", "protected=srv"},
        {"[paths]", "protected=/srv/../etc"},
        {"[paths]", "protected=/srv relative"},
        {"[paths]", "allowed=/srv//box"},
        {"[health]", "quarantine_after=0"},
        {"[health]", "escalate_failures=x"},
        {"[health]", "escalate_per_day="},
        {"[health]", "min_free=5"},
        {"[health]", "min_free=101%"},
        {"[discover]", "locks=boxes/*/lock"},
        {"[discover]", "cgroups=../*"},
        {"[discover]", "mounts=/srv/*/../x"},
        {"[discover]", "tmpdirs=tmp"},
        {"[incidents]", "keep=all"},
        {"[incidents]", "keep_days=-1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *key = harness_format("%.*s", (int)strcspn(cases[i][1], "="), cases[i][1]);
        assert_refused(harness_format("%s\n\n%s\n", cases[i][0], cases[i][1]),
                       harness_format("rbxj.conf:3: %s: ", key));
    }
}

static void typos_are_refused(void **state)
{
    (void)state;
    assert_refused("[journal]\nmap_sise=1G\n", "rbxj.conf:2: map_sise: no such key in this section");
    assert_refused("[journal]\ntimeout=30s\n", "rbxj.conf:2: timeout: no such key in this section");
    assert_refused("[jurnal]\nmap_size=1G\n", "rbxj.conf:2: jurnal: no such section");
    assert_refused("protected=/srv\n", "rbxj.conf:1: protected: is in no section");
    assert_refused("[paths]\nprotected\n", "rbxj.conf:2: line: expected [section] or key=value");
    assert_refused("[journal]\n[paths\n", "rbxj.conf:2: line: expected");
    assert_refused("[journal]\nmap_size=1G\n  preallocate=4M\n",
                   "rbxj.conf:3: map_size: expected a size such as 4M: 'preallocate=4M'");
    assert_refused("[journal]\nmap_size=1\nmap_size=2\n", "rbxj.conf:2: "); /* the first one is reported */
    assert_refused("[journal\nmap_size=1G\n", "rbxj.conf:1: line: expected [section]");
    assert_refused("[discover]\ncgroups=/sys/fs/cgroup/box-*\n",
                   "without / and .. in them: '/sys/fs/cgroup/box-*'");
}

static void a_line_is_never_cut(void **state)
{
    (void)state;
    char path[400];
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    for (size_t len = 150; len < sizeof(path) - 1; len++) {
        if (load(harness_format("[paths]\nprotected=/%.*s\n", (int)len, path)) < 0) {
            assert_non_null(strstr(error.message, "rbxj.conf:2: line: is too long"));
            assert_true(len > 180);
        } else {
            assert_int_equal(strlen(loaded.protected_paths[0]), len + 1);
        }
    }
    assert_int_equal(error.code, RBXJ_E_BAD_REQUEST);

    static const char text[] = "[paths]\nprotected=/srv\0/x\n";
    _cleanup_close_ int fd = open(main_file(), O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    assert_refused(NULL, "rbxj.conf:2: line: has a NUL byte");
}

static void a_last_line_needs_no_newline(void **state)
{
    (void)state;
    assert_loads("[replay]\njobs=7");
    assert_int_equal(loaded.jobs, 7);
    assert_refused("[replay]\njobs=none", "rbxj.conf:2: jobs");
}

/* ---- files ---- */

static void a_named_file_must_exist(void **state)
{
    (void)state;
    assert_refused(NULL, "rbxj.conf: No such file or directory");
    harness_mkdir(main_file());
    assert_refused(NULL, "is not a regular file");
    assert_int_equal(rmdir(main_file()), 0);
    assert_int_equal(mkfifo(main_file(), 0600), 0);
    assert_refused(NULL, "is not a regular file");
}

static void drop_ins_win_in_name_order(void **state)
{
    (void)state;
    drop_in("20.conf", "[replay]\njobs=20\n[paths]\nprotected=/c\n");
    drop_in("10.conf", "[replay]\njobs=10\nbusy_retries=1\n[paths]\nprotected=/b\n");
    drop_in("30.conf.dpkg-old", "[replay]\njobs=30\n");
    drop_in(".40.conf", "[replay]\ngate_timeout=\n");
    assert_loads("[replay]\njobs=5\nbusy_retries=5\ntimeout=5s\n[paths]\nprotected=/a\n");
    assert_int_equal(loaded.jobs, 20);
    assert_int_equal(loaded.busy_retries, 1);
    assert_int_equal(loaded.timeout_ns, 5 * S);
    assert_string_equal(loaded.protected_paths[0], "/a");
    assert_string_equal(loaded.protected_paths[1], "/b");
    assert_string_equal(loaded.protected_paths[2], "/c");
    assert_null(loaded.protected_paths[3]);

    drop_in("15.conf", "[paths]\nprotected=\n");
    assert_loads(NULL);
    assert_string_equal(loaded.protected_paths[0], "/c");
    assert_null(loaded.protected_paths[1]);

    drop_in("15.conf", "[paths]\n\nprotekted=/d\n");
    assert_refused(NULL, "rbxj.conf.d/15.conf:3: protekted: no such key");
}

static void a_symlink_to_nothing_is_no_missing_file(void **state)
{
    (void)state;
    const char *dir = harness_format("%s/rbxj.conf.d", harness_disk());
    harness_write(main_file(), "");
    assert_int_equal(symlink("not-mounted", dir), 0);
    assert_refused(NULL, "rbxj.conf.d: a symlink to what is not there");
    assert_int_equal(unlink(dir), 0);
    assert_int_equal(unlink(main_file()), 0);
    assert_int_equal(symlink("not-mounted", main_file()), 0);
    assert_refused(NULL, "rbxj.conf: a symlink to what is not there");
}

static void a_strangers_drop_ins_are_refused(void **state)
{
    (void)state;
    drop_in("10.conf", "[paths]\nallowed=/\n");
    harness_write(main_file(), "");
    const char *dir = harness_format("%s/rbxj.conf.d", harness_disk());
    assert_int_equal(chmod(dir, 01777), 0);
    assert_int_equal(load(NULL), -RBXJ_E_PERMISSION);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(load(NULL), 0);
    harness_need_root();
    assert_int_equal(chown(dir, 65534, 65534), 0);
    assert_int_equal(load(NULL), -RBXJ_E_PERMISSION);
}

/* What is journaled is resolved. */
static void a_path_through_a_symlink_is_where_it_leads_too(void **state)
{
    (void)state;
    const char *real = harness_format("%s/real", harness_disk()),
               *link = harness_format("%s/link", harness_disk());
    harness_mkdir(real);
    assert_int_equal(symlink("real", link), 0);
    assert_loads(harness_format("[paths]\nprotected=%s %s /\nallowed=%s/not/there\n", link, real, link));
    assert_string_equal(loaded.protected_paths[0], link);
    assert_string_equal(loaded.protected_paths[1], real);
    assert_string_equal(loaded.protected_paths[2], "/");
    assert_string_equal(loaded.protected_paths[3], real);
    assert_null(loaded.protected_paths[4]);
    assert_string_equal(loaded.allowed_paths[0], harness_format("%s/not/there", link));
    assert_string_equal(loaded.allowed_paths[1], harness_format("%s/not/there", real));
    assert_null(loaded.allowed_paths[2]);
}

static void a_path_that_leads_nowhere_is_its_own_name(void **state)
{
    (void)state;
    const char *const paths[] = {harness_format("%s/none", harness_disk()),
                                 harness_format("%s/loop/below", harness_disk())};
    assert_int_equal(symlink("nothing/there", paths[0]), 0);
    assert_int_equal(symlink("loop", harness_format("%s/loop", harness_disk())), 0);
    assert_loads(harness_format("[paths]\nprotected=%s %s\n", paths[0], paths[1]));
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        assert_string_equal(loaded.protected_paths[i], paths[i]);
    assert_null(loaded.protected_paths[ARRAY_LEN(paths)]);
}

/* Every command loads it: none of them hangs, and all together leave one helper behind. */
static void k16_a_path_that_hangs_is_asked_by_one_helper(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk()), *path = harness_format("%s/link", hung);
    harness_write(harness_format("%s/helpers", harness_disk()), ""); /* as whoever writes has made it */
    pid_t server = hung_fuse(hung);
    for (int i = 0; i < 3; i++) {
        assert_loads(harness_format("[paths]\nprotected=%s\n", path));
        assert_string_equal(loaded.protected_paths[0], path);
        assert_null(loaded.protected_paths[1]);
    }
    assert_in_range(count_hanging(), 0, 1);
    harness_kill(server);
}

static void nothing_comes_out_of_a_failure(void **state)
{
    (void)state;
    struct config untouched, before;
    memset(&untouched, 0x5a, sizeof(untouched));
    memcpy(&before, &untouched, sizeof(before));
    harness_write(main_file(), "[paths]\nprotected=/a\nallowed=b\n");
    struct rbxj_options options = {.config = main_file(), .state_dir = "/", .runtime_dir = "/"};
    assert_int_equal(config_load(&options, &untouched, &error), -RBXJ_E_BAD_REQUEST);
    assert_memory_equal(&untouched, &before, sizeof(before));
    assert_int_equal(config_load(&options, &untouched, NULL), -RBXJ_E_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        config_test(every_key_has_its_default),
        config_test(every_key_is_read),
        config_test(the_map_holds_what_is_allocated),
        config_test(bad_values_are_refused),
        config_test(typos_are_refused),
        config_test(a_line_is_never_cut),
        config_test(a_last_line_needs_no_newline),
        config_test(a_named_file_must_exist),
        config_test(drop_ins_win_in_name_order),
        config_test(a_symlink_to_nothing_is_no_missing_file),
        config_test(a_strangers_drop_ins_are_refused),
        config_test(a_path_through_a_symlink_is_where_it_leads_too),
        config_test(a_path_that_leads_nowhere_is_its_own_name),
        config_test(k16_a_path_that_hangs_is_asked_by_one_helper),
        config_test(nothing_comes_out_of_a_failure),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
