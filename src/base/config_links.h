/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where the paths of a list lead. What is journaled is resolved (all but its last part): a path of the
 * configuration that goes through a symlink, as /var/run, would match none of it.
 */
#ifndef RBXJ_BASE_CONFIG_LINKS_H
#define RBXJ_BASE_CONFIG_LINKS_H

/* Adds to a list of paths what those lead to that go through symlinks, as far as they exist and their file
 * systems answer. 0 or -errno. */
int config_add_targets(char ***list, const char *runtime_dir);

#endif
