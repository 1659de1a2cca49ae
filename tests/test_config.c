/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The configuration: a typo in a safety setting must not pass, and the defaults are those of rbxj(1).
 */
#include "base/cleanup.h"
#include "base/config.h"
#include "base/config_dirs.h"
#include "base/config_value.h"
#include "base/error.h"
#include "harness.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MS 1000000LL
#define S 1000000000LL

static struct config loaded; /* by load(); freed after the test */
static struct rbxj_error error;

static int setup(void **state)
{
    static const char *const names[] = {
        "RBXJ_STATE_DIR", "RBXJ_RUNTIME_DIR", "RBXJ_DURABILITY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unsetenv(names[i]);
    return harness_setup(state);
}

static int teardown(void **state)
{
    config_clear(&loaded);
    error = (struct rbxj_error){0};
    return harness_teardown(state);
}
#define config_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static const char *main_file(void)
{
    return harness_format("%s/rbxj.conf", harness_disk());
}

static int load_options(const struct rbxj_options *options)
{
    config_clear(&loaded);
    error = (struct rbxj_error){0};
    return config_load(options, &loaded, &error);
}

/* Loads the main file of the scratch directory, with that text if it is not NULL. */
static int load(const char *text)
{
    if (text)
        harness_write(main_file(), text);
    return load_options(&(struct rbxj_options){
        .config = main_file(), .state_dir = harness_disk(), .runtime_dir = harness_disk()});
}

static void assert_loads(const char *text)
{
    if (load(text) < 0)
        fail_msg("refused: %s", error.message);
}

/* Refused, and the message has these words in it. */
static void assert_refused(const char *text, const char *words)
{
    if (load(text) != -RBXJ_E_BAD_REQUEST)
        fail_msg("accepted: %s", text);
    if (!strstr(error.message, words))
        fail_msg("\"%s\" is not in the message: %s", words, error.message);
}

static void drop_in(const char *name, const char *text)
{
    const char *dir = harness_format("%s/rbxj.conf.d", harness_disk());
    if (!path_exists(dir))
        harness_mkdir(dir);
    harness_write(harness_format("%s/%s", dir, name), text);
}

/* ---- values ---- */

static void assert_defaults(void)
{
    assert_int_equal(loaded.map_size, 1ULL << 30);
    assert_int_equal(loaded.preallocate, 4 << 20);
    assert_int_equal(loaded.gate_timeout_ns, 10 * S);
    assert_false(loaded.lazy_umount);
    assert_int_equal(loaded.timeout_ns, 30 * S);
    assert_int_equal(loaded.boot_deadline_ns, 60 * S);
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
        "[replay]\nlazy_umount=never\ntimeout=30s\nboot_deadline=60s\nbusy_retries=10\njobs=\n"
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
        "gate_timeout=500ms\n[replay]\nlazy_umount=last-resort\ntimeout=2min\nboot_deadline=5\n"
        "busy_retries=0\njobs=3\n[paths]\nprotected=/data /srv/keep/\n  /more\\ of\\ it\nallowed=/\n");
    assert_int_equal(loaded.durability, DURABILITY_ALWAYS);
    assert_int_equal(loaded.map_size, 512 << 20);
    assert_int_equal(loaded.preallocate, 8 << 20);
    assert_int_equal(loaded.gate_timeout_ns, 500 * MS);
    assert_true(loaded.lazy_umount);
    assert_int_equal(loaded.timeout_ns, 120 * S);
    assert_int_equal(loaded.boot_deadline_ns, 5 * S);
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
    assert_refused("[journal]\nmap_size=1G\n  preallocate=4M\n", "rbxj.conf:3: map_size: expected a size");
    assert_refused("[journal]\nmap_size=1\nmap_size=2\n", "rbxj.conf:2: "); /* the first one is reported */
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

/* ---- directories ---- */

static void options_beat_the_environment(void **state)
{
    (void)state;
    harness_write(main_file(), "");
    (void)setenv("RBXJ_STATE_DIR", harness_format("%s/env-state", harness_disk()), 1);
    (void)setenv("RBXJ_RUNTIME_DIR", harness_format("%s/env-run", harness_disk()), 1);
    struct rbxj_options options = {.config = main_file()};
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.state_dir, harness_format("%s/env-state", harness_disk()));
    assert_string_equal(loaded.runtime_dir, harness_format("%s/env-run", harness_disk()));
    options.state_dir = harness_format("%s/state", harness_disk());
    options.runtime_dir = harness_format("%s/run", harness_disk());
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.state_dir, options.state_dir);
    assert_string_equal(loaded.runtime_dir, options.runtime_dir);
}

static void directories_are_absolute_and_resolved(void **state)
{
    (void)state;
    harness_write(main_file(), "");
    harness_mkdir(harness_format("%s/real", harness_disk()));
    assert_int_equal(symlink("real", harness_format("%s/link", harness_disk())), 0);
    struct rbxj_options options = {
        .config = main_file(),
        .state_dir = harness_format("%s/link/./not//there/yet/", harness_disk()),
        .runtime_dir = "not-there",
    };
    _cleanup_free_ char *cwd = get_current_dir_name();
    assert_int_equal(chdir(harness_format("%s/link", harness_disk())), 0);
    int r = load_options(&options);
    assert_int_equal(chdir(cwd), 0);
    assert_int_equal(r, 0);
    assert_string_equal(loaded.state_dir, harness_format("%s/real/not/there/yet", harness_disk()));
    assert_string_equal(loaded.runtime_dir, harness_format("%s/real/not-there", harness_disk()));

    options.runtime_dir = harness_format("%s/real/../link", harness_disk());
    assert_int_equal(load_options(&options), 0);
    assert_string_equal(loaded.runtime_dir, harness_format("%s/real", harness_disk()));
    options.runtime_dir = harness_format("%s/not-there/../real", harness_disk());
    assert_true(load_options(&options) < 0);
    assert_non_null(strstr(error.message, "runtime directory "));
}

/* Runs f in a child of another user, or of another root directory; what it returns. */
static int in_child(int (*f)(void), uid_t uid, const char *root)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if ((root && (chroot(root) < 0 || chdir("/") < 0)) || (uid != 0 && setresuid(uid, uid, uid) < 0))
            _exit(100);
        _exit(f());
    }
    assert_true(pid > 0);
    harness_track(pid);
    int status = harness_wait(pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool dirs_are(const char *state, const char *runtime)
{
    _cleanup_free_ char *s = NULL, *r = NULL;
    if (config_dirs(NULL, &s, &r, &error) < 0)
        return !state;
    return state && strcmp(s, state) == 0 && strcmp(r, runtime) == 0;
}

static int defaults_of_root(void)
{
    (void)setenv("XDG_STATE_HOME", "/s", 1);
    (void)setenv("XDG_RUNTIME_DIR", "/r", 1);
    return dirs_are("/var/lib/rbxj", "/run/rbxj") ? 0 : 1;
}

static int defaults_of_a_user(void)
{
    if (!dirs_are(NULL, NULL)) /* nothing is set */
        return 1;
    (void)setenv("HOME", "/home/u", 1);
    if (!dirs_are(NULL, NULL)) /* no runtime directory */
        return 2;
    (void)setenv("XDG_RUNTIME_DIR", "/r", 1);
    if (!dirs_are("/home/u/.local/state/rbxj", "/r/rbxj"))
        return 3;
    (void)setenv("XDG_STATE_HOME", "relative", 1); /* is to be ignored (XDG) */
    if (!dirs_are("/home/u/.local/state/rbxj", "/r/rbxj"))
        return 4;
    (void)setenv("XDG_STATE_HOME", "/s", 1);
    if (!dirs_are("/s/rbxj", "/r/rbxj"))
        return 5;
    (void)setenv("RBXJ_STATE_DIR", "", 1); /* empty is not set */
    return dirs_are("/s/rbxj", "/r/rbxj") ? 0 : 6;
}

static void the_defaults_depend_on_the_user(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(in_child(defaults_of_root, 0, harness_tmpfs()), 0);
    assert_int_equal(chmod(harness_tmpfs(), 0755), 0);
    assert_int_equal(in_child(defaults_of_a_user, 65534, harness_tmpfs()), 0);
}

/* ---- durability ---- */

static void the_environment_decides_durability(void **state)
{
    (void)state;
    (void)setenv("RBXJ_DURABILITY", "resource", 1);
    assert_loads("[journal]\ndurability=always\n");
    assert_int_equal(loaded.durability, DURABILITY_RESOURCE);
    (void)setenv("RBXJ_DURABILITY", "always", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, DURABILITY_ALWAYS);
    (void)setenv("RBXJ_DURABILITY", "", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, DURABILITY_RESOURCE);
    (void)setenv("RBXJ_DURABILITY", "allways", 1);
    assert_refused("", "RBXJ_DURABILITY=allways: expected auto, resource or always");
    (void)setenv("RBXJ_DURABILITY", "auto", 1);
    assert_loads("[journal]\ndurability=resource\n");
    assert_int_equal(loaded.durability, config_in_container() ? DURABILITY_ALWAYS : DURABILITY_RESOURCE);
}

static int in_container(void)
{
    return config_in_container();
}

/* A root directory of its own, so that this machine's marks are out of sight. */
static void a_container_is_told_by_its_marks(void **state)
{
    (void)state;
    const char *root = harness_tmpfs();
    static const char *const dirs[] = {"run", "run/systemd", "run/host", "proc", "proc/1"};
    static const char *const marks[] = {
        "run/systemd/container", "run/host/container-manager", "run/.containerenv", ".dockerenv", "proc/vz",
    };
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        harness_mkdir(harness_format("%s/%s", root, dirs[i]));
    assert_int_equal(in_child(in_container, 0, root), 0);
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        const char *mark = harness_format("%s/%s", root, marks[i]);
        harness_write(mark, "");
        assert_int_equal(in_child(in_container, 0, root), 1);
        assert_int_equal(unlink(mark), 0);
    }
    harness_write(harness_format("%s/proc/vz", root), "");
    harness_write(harness_format("%s/proc/bc", root), ""); /* the host of OpenVZ containers */
    assert_int_equal(in_child(in_container, 0, root), 0);

    static const struct {
        const char *environment;
        size_t len;
        int expected;
    } cases[] = {
#define ENVIRONMENT(text, expected) {text, sizeof(text) - 1, expected}
        ENVIRONMENT("HOME=/\0container=lxc\0", 1),
        ENVIRONMENT("container=lxc", 1),
        ENVIRONMENT("HOME=/\0container=\0TERM=linux\0", 0),
        ENVIRONMENT("HOME=/\0my_container=lxc\0", 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *path = harness_format("%s/proc/1/environ", root);
        harness_write(path, "");
        _cleanup_close_ int fd = open(path, O_WRONLY);
        assert_int_equal(write(fd, cases[i].environment, cases[i].len), cases[i].len);
        assert_int_equal(in_child(in_container, 0, root), cases[i].expected);
    }
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
        config_test(a_strangers_drop_ins_are_refused),
        config_test(nothing_comes_out_of_a_failure),
        config_test(options_beat_the_environment),
        config_test(directories_are_absolute_and_resolved),
        config_test(the_defaults_depend_on_the_user),
        config_test(the_environment_decides_durability),
        config_test(a_container_is_told_by_its_marks),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
