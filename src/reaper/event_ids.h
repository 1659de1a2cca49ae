/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * All events there are: a name, which is RBXJ_EVENT=, and a MESSAGE_ID= of its own. Both are a contract:
 * monitors match them. systemd/rbxj.catalog has for each what an operator is to do (journalctl -x);
 * tests/journald.sh holds them together.
 */
#ifndef RBXJ_REAPER_EVENT_IDS_H
#define RBXJ_REAPER_EVENT_IDS_H

#define EVENT_IDS(X)                                                                                         \
    X("cleanup_failure", "3b2887dba8bd4b58b7b5ac83361ff8f7")                                                 \
    X("mount_unmount_failed", "188bd8a052714a11a2696deb9710c90b")                                            \
    X("cgroup_removal_failed", "ddcd42cd48cc44099629922a8c631514")                                           \
    X("process_reap_failed", "972c218b8f7744ecade3ec8ef6a4c762")                                             \
    X("cleanup_timeout", "d2b8c9470c214313b23fd681728cffc0")                                                 \
    X("orphan_detected", "8b64dc2718854203b973f0b5874d5e88")                                                 \
    X("replay_done", "3c21ae74ed6e4977b76153faacbe026d")                                                     \
    X("worker_quarantined", "b1fe5e79f6ca4274980b31af4f197989")                                              \
    X("worker_escalated", "7ba8c14da6f944b4b478ec0012249a9f")                                                \
    X("worker_released", "a338e5bfa4724a9ab1f89913c17b8b6c")                                                 \
    X("journal_corruption", "f75dbf5bbbd54fb0be3f55cd978ecd76")                                              \
    X("record_forgotten", "26fffb6a983647e987e61f6457d6561c")                                                \
    X("process_killed", "7db50f35044145df82ef2adb4602d4dd")                                                  \
    X("adopted", "6bfd43a483834702ad3df665b195a247")                                                         \
    X("note", "a157c70fffe54782b479d5b24a830df5")

#endif
