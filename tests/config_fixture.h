/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A configuration in the scratch directory, loaded or refused.
 */
#ifndef RBXJ_TESTS_CONFIG_FIXTURE_H
#define RBXJ_TESTS_CONFIG_FIXTURE_H

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

static inline int setup(void **state)
{
    static const char *const names[] = {
        "RBXJ_STATE_DIR", "RBXJ_RUNTIME_DIR", "RBXJ_DURABILITY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unsetenv(names[i]);
    return harness_setup(state);
}

static inline int teardown(void **state)
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

static inline int load_options(const struct rbxj_options *options)
{
    config_clear(&loaded);
    error = (struct rbxj_error){0};
    return config_load(options, &loaded, &error);
}

/* Loads the main file of the scratch directory, with that text if it is not NULL. */
static inline int load(const char *text)
{
    if (text)
        harness_write(main_file(), text);
    return load_options(&(struct rbxj_options){
        .config = main_file(), .state_dir = harness_disk(), .runtime_dir = harness_disk()});
}

static inline void assert_loads(const char *text)
{
    if (load(text) < 0)
        fail_msg("refused: %s", error.message);
}

/* Refused, and the message has these words in it. */
static inline void assert_refused(const char *text, const char *words)
{
    if (load(text) != -RBXJ_E_BAD_REQUEST)
        fail_msg("accepted: %s", text ? text : "no file");
    if (!strstr(error.message, words))
        fail_msg("\"%s\" is not in the message: %s", words, error.message);
}

static inline void drop_in(const char *name, const char *text)
{
    const char *dir = harness_format("%s/rbxj.conf.d", harness_disk());
    if (!path_exists(dir))
        harness_mkdir(dir);
    harness_write(harness_format("%s/%s", dir, name), text);
}

#endif
