/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The files of incident records. Everything is reached by descriptor from the state directory, no symlink is
 * followed, and what has not the name of an incident is not touched.
 *
 * Beside incident.json there is an empty file "open" while the incident is open: a replay finds the few open
 * ones among a thousand without reading them. It is there before the document says so and goes after that no
 * longer does: one that a killed writer left costs a reading, and the next replay takes it away.
 */
#ifndef RBXJ_REAPER_INCIDENT_STORE_H
#define RBXJ_REAPER_INCIDENT_STORE_H

#include "reaper/incident.h"

#include "base/doc.h"

#define INCIDENT_TEXT_MAX (4 << 20) /* a longer document is not read */

/* What is dated later than that from now was detected by a clock that was ahead, and is not of now for as
 * long as that. */
#define INCIDENT_AHEAD_NS (24LL * 3600 * 1000000000)

bool incident_id_is_valid(const char *id);
int64_t incident_id_time(const char *id); /* CLOCK_REALTIME */

/* STATE/incidents, for reading. -ENOENT: there is none. */
int incident_store_open(const struct config *config);
/* The same for writing: made where it is missing, in a state directory that is in use; ours, and nobody else
 * may write there, else -EPERM. -ENOENT: no state directory, or an empty one. */
int incident_store_open_to_write(const struct config *config);

struct incident_store_names {
    char (*ids)[INCIDENT_ID_MAX];
    size_t len;
};
/* Newest first. 0 or -errno. */
int incident_store_list(int fd, struct incident_store_names *ret);
void incident_store_names_clear(struct incident_store_names *names);

/* False: it is closed, or is no incident. */
bool incident_store_may_be_open(int fd, const char *id);
/* It was read, and is closed. */
void incident_store_is_closed(int fd, const char *id);
/* The document, an object with this id; *ret NULL: there is none that makes sense. Free with cJSON_Delete().
 * 0, or a negative errno where memory or descriptors are short. */
int incident_store_read(int fd, const char *id, cJSON **ret);
/* Between a reading and the writing that rests on it: a replay and the owner of another box, or a person, may
 * have the same incident. Not without a bound: in the end it is written all the same, and what another writes
 * meanwhile is lost (K19). */
void incident_store_lock(int fd);
void incident_store_unlock(int fd);
/* Whole or not at all; makes the incident's directory. synced: the rename, too, is on disk. 0 or -errno. */
int incident_store_write(int fd, const char *id, const char *text, bool open, bool synced);
/* The same of a document; fd may be a negative errno. */
int incident_store_put(int fd, const char *id, struct doc *doc, bool synced);
/* The files that are kept with it, sorted, at most 256; free each and the list. 0 or -errno. */
int incident_store_evidence(int fd, const char *id, char ***ret, size_t *ret_len);
void incident_store_evidence_free(char **names, size_t len);
/* Adds to a file that is kept with it, which is made where it is missing, and is 64 KiB at most: what is more
 * is left out. 0 or -errno. */
int incident_store_append(int fd, const char *id, const char *name, const char *text, size_t len);
/* The files in it, and it. */
void incident_store_remove(int fd, const char *id);
/* Applies keep and keep_days; open ones and the newest stay. */
void incident_store_retain(int fd, const struct config *config);

#endif
