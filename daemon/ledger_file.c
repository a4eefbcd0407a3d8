/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "bytecode/image.h"
#include "ledger_file.h"
#include "tiering/ledger.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define PREFIX "ledger."
#define NUMBER_MAX 1000000u

/* A predecessor's, or the one to be */
struct found {
	unsigned long number;	/* 0: none */
	int fd;
	void *memory;
	size_t n;
};
#define FOUND_NULL { .fd = -1, .memory = MAP_FAILED }

static void found_deinit(struct found *found)
{
	if (found->memory != MAP_FAILED)
		munmap(found->memory, found->n);
	close_fd(found->fd);
	*found = (struct found)FOUND_NULL;
}

static void name_of(char name[STORE_NAME_MAX], unsigned long number)
{
	snprintf(name, STORE_NAME_MAX, PREFIX "%lu", number);
}

static unsigned long number_of(const char *name)
{
	char *end;
	unsigned long number;

	if (strncmp(name, PREFIX, strlen(PREFIX)))
		return 0;
	number = strtoul(name + strlen(PREFIX), &end, 10);
	return *end || number > NUMBER_MAX ? 0 : number;
}

static int found_map(struct found *found)
{
	found->memory = mmap(NULL, found->n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, found->fd, 0);
	return found->memory == MAP_FAILED ? error_origin(-errno) : 0;
}

/* The highest below @below; number 0: there is none. */
static int found_take(struct found *found, struct store *store, unsigned long below)
{
	char name[STORE_NAME_MAX];
	const char *other;
	struct stat status;
	uint32_t at = 0;

	*found = (struct found)FOUND_NULL;
	while ((other = store_next(store, &at)))
		if (number_of(other) < below)
			found->number = MAX(found->number, number_of(other));
	if (!found->number)
		return 0;
	name_of(name, found->number);
	found->fd = store_take(store, name);
	if (found->fd < 0 || fstat(found->fd, &status) < 0)
		return error_origin(-errno);
	found->n = status.st_size;
	return found_map(found);
}

/* @number: its own */
static int found_make(struct found *found, unsigned long number)
{
	int r;

	*found = (struct found){ .number = number, .fd = memfd_create("tierd-ledger", MFD_CLOEXEC), .memory = MAP_FAILED, .n = ledger_size() };
	if (found->fd < 0 || ftruncate(found->fd, found->n) < 0)
		r = error_origin(-errno);
	else
		r = found_map(found);
	if (r)
		found_deinit(found);
	return r;
}

static int found_put(const struct found *found, struct store *store)
{
	char name[STORE_NAME_MAX];

	name_of(name, found->number);
	return store_put(store, name, found->fd);
}

static void remove_below(struct store *store, unsigned long number)
{
	char name[STORE_NAME_MAX];

	while (number-- > 1) {
		name_of(name, number);
		store_remove(store, name);
	}
}

/* Nothing of it is used before the store has it: with only the old one there, a successor would go on from the past. */
static int found_convert(struct found *found, struct store *store)
{
	struct found next;
	struct refusal why;
	int r;

	r = found_make(&next, found->number + 1);
	if (r)
		return error_fold(r);
	r = ledger_convert(next.memory, next.n, found->memory, found->n, &why);
	if (!r)
		r = found_put(&next, store);
	if (r) {
		found_deinit(&next);
		return error_origin(r);
	}
	log_line(LOG_INFO, "the ledger of an earlier tierd is converted");
	found_deinit(found);
	*found = next;
	remove_below(store, next.number);
	return 0;
}

/* Nobody ever relied on it; left there, each daemon that dies so early would add another. */
static void drop_empty(const struct found *found, struct store *store)
{
	char name[STORE_NAME_MAX];

	name_of(name, found->number);
	store_remove(store, name);
}

/* The highest that is one; who died before it was one left it empty. */
static int find(struct found *found, struct store *store, bool *ret_is_inherited)
{
	unsigned long below = ULONG_MAX;
	struct refusal why;
	int r;

	for (;; below = found->number, found_deinit(found)) {
		*ret_is_inherited = false;
		r = found_take(found, store, below);
		if (r || !found->number)
			return r;
		r = ledger_examine(found->memory, found->n, &why);
		if (r == LEDGER_E_EMPTY) {
			drop_empty(found, store);
			continue;
		}
		*ret_is_inherited = true;
		if (r >= 0)
			return r == LEDGER_E_OLDER ? found_convert(found, store) : 0;
		log_line(LOG_ERROR, "the ledger that a predecessor left cannot be taken over: %s; nothing was changed, and the program that "
			 "it belongs to can go on with it", why.text);
		return r;
	}
}

static int find_or_make(struct found *found, struct store *store, bool *ret_is_inherited)
{
	int r;

	r = find(found, store, ret_is_inherited);
	if (r || found->number)
		return r;
	r = found_make(found, 1);
	if (r)
		return error_fold(r);
	found_put(found, store);	/* if it cannot be kept, the modules cannot either */
	return 0;
}

int ledger_file_open(struct ledger_file *file, struct store *store)
{
	struct found found = FOUND_NULL;
	int r;

	r = find_or_make(&found, store, &file->is_inherited);
	if (!r)
		file->memory = found.memory;
	if (!r)
		found.memory = MAP_FAILED;
	found_deinit(&found);
	return r ? error_fold(r) : 0;
}

void ledger_file_close(struct ledger_file *file)
{
	if (file->memory != MAP_FAILED)
		munmap(file->memory, ledger_size());
	*file = (struct ledger_file)LEDGER_FILE_NULL;
}
