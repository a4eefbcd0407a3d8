/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "history.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define SYSTEM_FOLDER "/var/lib/tierd/journal"
#define EVENTS_WITHOUT_HISTORY 4096u	/* --journal=off: what followers need to keep up */
#define EVENTS_AHEAD_OF_DISK 65536u	/* memory holds at least so many while the disk is slow */

_Static_assert((int)OPTIONS_SYNC_RECORD == (int)JOURNAL_SYNC_RECORD && (int)OPTIONS_SYNC_INTERVAL == (int)JOURNAL_SYNC_INTERVAL
	       && (int)OPTIONS_SYNC_NEVER == (int)JOURNAL_SYNC_NEVER, "the same words");

static int history_keep(struct journal *journal, struct dispatch *dispatch, const struct options *options, const char *folder,
			void (*readable)(void *context), void *context)
{
	const struct journal_config config = {
		.folder = folder,
		.sync = (enum journal_sync)options->journal_sync,
		.sync_interval_ns = options->journal_sync_interval_ns,
		.size_max = options->journal_size,
		.age_max_ns = options->journal_age_ns,
		.readable = readable,
		.context = context,
	};

	return journal_open(journal, dispatch, &config);
}

int history_open(struct journal **ret, struct dispatch *dispatch, const struct options *options, void (*readable)(void *context),
		 void *context)
{
	const char *where = options->journal ? options->journal : options_is_the_systems(options) ? SYSTEM_FOLDER : "memory";
	uint64_t n_memory = options->journal_events;
	bool is_folder = false;
	int r;

	if (!strcmp(where, "off"))
		n_memory = EVENTS_WITHOUT_HISTORY;
	else if (strcmp(where, "memory"))
		is_folder = true;
	if (is_folder)
		n_memory = MAX(n_memory, EVENTS_AHEAD_OF_DISK);
	r = journal_new(ret, n_memory);
	if (r || !is_folder)
		return r ? error_fold(r) : 0;
	r = history_keep(*ret, dispatch, options, where, readable, context);
	if (!r || options->journal)
		return r ? error_fold(r) : 0;
	log_line(LOG_WARNING, "events are kept in memory only; --journal says where else");
	return 0;
}
