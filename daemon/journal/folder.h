/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The folder of a journal: opening it for oneself alone, recovering what a predecessor left, and the promise about numbers
 *
 * Recovery keeps what is whole: it truncates the raw segments at their first record that is not sound, finishes or takes back a
 * deflation that was under way, and marks the numbers that are missing. It says in the log what it did. */

#include "journal/index.h"

enum {
	_FOLDER_E_SUCCESS,
	FOLDER_E_STRANGE,	/* what is there is of another history */
};

struct folder {
	const char *path;	/* borrowed */
	int fd;			/* locked while it is open; -1 */
	uint64_t used;		/* numbers up to this one may have been told to somebody */
	uint64_t unread;	/* first number of the latest segment that cannot be read; 0: none */
	bool is_damaged;	/* recovery found less at the end than there should be */
	unsigned char boot[16];
};
#define FOLDER_NULL { .fd = -1 }

/* Makes the folder, for its owner only, if it is not there, and the one above it, but no more. -EBUSY: another daemon keeps its
 * journal there. 0, or -errno. */
int folder_open(struct folder *folder, const char *path);
/* Fills @index. @told: numbers up to this one, and no others, may have been told; 0: only the folder can know. FOLDER_E_STRANGE:
 * the folder has later ones. 0 or -errno. */
int folder_recover(struct folder *folder, struct segment_index *index, uint64_t told);
void folder_close(struct folder *folder);
/* Where the folder was removed, makes it again under the same descriptor. 0, or -errno as folder_open(). From any one thread. */
int folder_remake(const struct folder *folder);

/* Writes the numbers and syncs them: nothing from @bound on was told, and @is_exact. 0 or -errno. From any one thread. */
int folder_promise(const struct folder *folder, uint64_t bound, bool is_exact);
