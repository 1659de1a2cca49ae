/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a configuration file holds: it is loaded, or refused with one line that names it.
 */
#include "fuzz.h"

#include "base/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    struct config config = {0};
    struct rbxj_error e = {0};
    int fd = input_file(data, size, path);
    const struct rbxj_options options = {.state_dir = "/nowhere", .runtime_dir = "/nowhere", .config = path};
    int r = config_load(&options, &config, &e);
    if (r < 0 && (!e.message[0] || strchr(e.message, '\n')))
        abort();
    config_clear(&config);
    (void)close(fd);
    return 0;
}
