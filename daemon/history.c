/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "history.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define SYSTEM_FOLDER "/var/lib/tierd/journal"
#define EVENTS_WITHOUT_HISTORY 4096u	/* --journal=off: what followers need to keep up */
#define EVENTS_AHEAD_OF_DISK 65536u	/* memory holds at least so many while the disk is slow */
#define MEMORY_PREFIX "journal."
#define MEMORY_NUMBER_MAX 1000000000u

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

/* -- Memory --- */
struct memory {
	uint64_t number;	/* N of its name; 0: there is none */
	char name[STORE_NAME_MAX];
	int fd;			/* -1: there is none */
};

static uint64_t memory_number(const char *name)
{
	const size_t n = strlen(MEMORY_PREFIX);
	char *end;
	uint64_t number;

	if (strncmp(name, MEMORY_PREFIX, n) || name[n] < '1' || name[n] > '9')
		return 0;
	number = strtoull(name + n, &end, 10);
	return *end || number > MEMORY_NUMBER_MAX ? 0 : number;
}

static void memory_name(struct memory *memory)
{
	snprintf(memory->name, sizeof(memory->name), MEMORY_PREFIX "%" PRIu64, memory->number);
}

/* What a predecessor left: the latest */
static struct memory memory_take(struct store *store)
{
	struct memory memory = { .fd = -1 };
	const char *name;
	uint32_t at = 0;

	while (store && (name = store_next(store, &at)))
		memory.number = MAX(memory.number, memory_number(name));
	memory_name(&memory);
	if (memory.number)
		memory.fd = store_take(store, memory.name);
	return memory;
}

/* The journal's own memory takes the place of what a predecessor left. Where there is no room for both, that goes first: who got it
 * again would take it for all that was ever told, and the folder, which has more, for another history's. */
static void memory_put(struct store *store, const struct memory *before, int fd)
{
	struct memory memory = { .number = before->number + 1, .fd = fd };
	int r;

	if (!store)
		return;
	memory_name(&memory);
	r = store_put(store, memory.name, memory.fd);
	if (before->number)
		store_remove(store, before->name);
	if (r && before->number)
		store_put(store, memory.name, memory.fd);
}

static int history_remember(struct journal **ret, struct store *store, uint32_t n_max)
{
	struct memory before = memory_take(store);
	int r = before.fd < 0 ? -EBADMSG : journal_adopt(ret, n_max, before.fd);

	if (r == -EBADMSG)
		r = journal_new(ret, n_max);
	if (!r && journal_fd(*ret) == before.fd)
		return 0;
	if (!r)
		memory_put(store, &before, journal_fd(*ret));
	close_fd(before.fd);
	return r ? error_fold(r) : 0;
}

int history_open(struct journal **ret, struct dispatch *dispatch, const struct options *options, struct store *store,
		 void (*readable)(void *context), void *context)
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
	r = history_remember(ret, store, n_memory);
	if (r || !is_folder)
		return r ? error_fold(r) : 0;
	r = history_keep(*ret, dispatch, options, where, readable, context);
	if (!r || options->journal)
		return r ? error_fold(r) : 0;
	log_line(LOG_WARNING, "events are kept in memory only; --journal says where else");
	return 0;
}
