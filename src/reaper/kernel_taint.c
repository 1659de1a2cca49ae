/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/kernel.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>

int kernel_taint_read(uint64_t *ret)
{
    char text[32], *end;
    ssize_t n = fd_read_file(AT_FDCWD, "/proc/sys/kernel/tainted", text, sizeof(text));
    if (n < 0)
        return (int)n;
    errno = 0;
    uint64_t taint = strtoull(text, &end, 10);
    if (errno || end == text)
        return -EBADMSG;
    *ret = taint;
    return 0;
}

const char *kernel_taint_word(unsigned int bit)
{
    /* by bit; the kernel's Documentation/admin-guide/tainted-kernels.rst */
    static const char *const words[] = {"proprietary_module",
                                        "forced_module",
                                        "cpu_out_of_specification",
                                        "forced_unload",
                                        "machine_check",
                                        "bad_page",
                                        "user_request",
                                        "oops",
                                        "acpi_table_overridden",
                                        "warning",
                                        "staging_module",
                                        "firmware_workaround",
                                        "out_of_tree_module",
                                        "unsigned_module",
                                        "soft_lockup",
                                        "live_patched",
                                        "auxiliary",
                                        "randomized_structures",
                                        "in_kernel_test",
                                        "mutating_firmware_call"};
    return bit < ARRAY_LEN(words) ? words[bit] : NULL;
}
