/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "history.h"
#include "store/store.h"
#include "util/base.h"

/* The journal's memory in the store, whose every call is seen here: a predecessor that died between any two of them leaves what
 * its successor goes on with. */

#define NAMES_MAX 8

struct store {
	struct { char name[STORE_NAME_MAX]; int fd; bool is_taken; } stored[NAMES_MAX];
	char walked[STORE_NAME_MAX];
	unsigned int n_max;		/* so many fit; 0: all */
	unsigned int n_steps, dies_at;	/* puts and removals; from that one on nothing reaches the store any more */
};

static bool step(struct store *store)
{
	return !store->dies_at || ++store->n_steps < store->dies_at;
}

static unsigned int n_stored(const struct store *store)
{
	unsigned int n = 0;

	for (int i = 0; i < NAMES_MAX; i++)
		n += store->stored[i].fd >= 0;
	return n;
}

int store_put(struct store *store, const char *name, int fd)
{
	if (store->n_max && n_stored(store) >= store->n_max)
		return -E2BIG;
	for (int i = 0; step(store) && i < NAMES_MAX; i++)
		if (store->stored[i].fd < 0) {
			snprintf(store->stored[i].name, sizeof(store->stored[i].name), "%s", name);
			store->stored[i].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
			store->stored[i].is_taken = true;
			break;
		}
	return 0;
}

void store_remove(struct store *store, const char *name)
{
	if (!step(store))
		return;
	for (int i = 0; i < NAMES_MAX; i++)
		if (store->stored[i].fd >= 0 && !strcmp(store->stored[i].name, name))
			store->stored[i].fd = close_fd(store->stored[i].fd);
}

int store_take(struct store *store, const char *name)
{
	for (int i = 0; i < NAMES_MAX; i++)
		if (store->stored[i].fd >= 0 && !store->stored[i].is_taken && !strcmp(store->stored[i].name, name)) {
			store->stored[i].is_taken = true;
			return fcntl(store->stored[i].fd, F_DUPFD_CLOEXEC, 0);
		}
	return -1;
}

const char *store_next(struct store *store, uint32_t *at)
{
	for (; *at < NAMES_MAX; ++*at)
		if (store->stored[*at].fd >= 0 && !store->stored[*at].is_taken)
			return strcpy(store->walked, store->stored[(*at)++].name);
	return NULL;
}

/* -- The stories --- */
static int setup(void **state)
{
	struct store *store = calloc(1, sizeof(*store));

	for (int i = 0; i < NAMES_MAX; i++)
		store->stored[i].fd = -1;
	*state = store;
	return 0;
}

static int teardown(void **state)
{
	struct store *store = *state;

	for (int i = 0; i < NAMES_MAX; i++)
		close_fd(store->stored[i].fd);
	free(store);
	return 0;
}

static void readable(void *context) {}

/* A daemon of that size starts on what is stored. */
static struct journal *start(struct store *store, uint32_t n_events)
{
	struct options options = { .journal = "memory", .journal_events = n_events };
	struct journal *journal;

	for (int i = 0; i < NAMES_MAX; i++)
		store->stored[i].is_taken = false;
	assert_int_equal(history_open(&journal, NULL, &options, store, readable, NULL), 0);
	return journal;
}

static void append(struct journal *journal, uint64_t n)
{
	struct tier_event event = { .kind = TIER_EVENT_PUBLISHED };

	while (n--) {
		event.sequence = journal_newest(journal) + 1;
		event.module = 7 * event.sequence;
		journal_append(journal, &event);
	}
}

static void has(struct journal *journal, uint64_t first, uint64_t last)
{
	struct tier_event event;
	uint64_t gap_last;
	uint32_t n;

	assert_int_equal(journal_newest(journal), last);
	assert_int_equal(journal_oldest(journal), first);
	for (uint64_t s = first; s <= last; s++) {
		assert_int_equal(journal_read(journal, s, &event, 1, &n, &gap_last), 0);
		assert_int_equal(n, 1);
		assert_int_equal(event.module, 7 * s);
	}
}

static void store_has(const struct store *store, const char *name)
{
	for (int i = 0; i < NAMES_MAX; i++)
		if (store->stored[i].fd >= 0)
			assert_string_equal(store->stored[i].name, name);
	assert_int_equal(n_stored(store), 1);
}

static void the_same_size_goes_on_in_the_same_memory(void **state)
{
	struct store *store = *state;
	struct journal *journal;

	for (int i = 0; i < 3; i++) {
		journal = start(store, 100);
		store_has(store, "journal.1");
		append(journal, 10);
		has(journal, 1, 10 * (i + 1));
		journal_free(journal);
	}
}

static void another_size_is_stored_before_the_old_one_goes(void **state)
{
	struct store *store = *state;
	struct journal *journal = start(store, 100);

	append(journal, 50);
	journal_free(journal);
	journal = start(store, 20);
	store_has(store, "journal.2");
	has(journal, 31, 50);
	journal_free(journal);
	journal = start(store, 200);
	store_has(store, "journal.3");
	append(journal, 100);
	has(journal, 31, 150);
	journal_free(journal);
}

static void dying_between_the_two_loses_nothing(void **state)
{
	struct store *store = *state;
	struct journal *journal = start(store, 100);

	append(journal, 50);
	journal_free(journal);
	for (unsigned int dies_at = 1; dies_at <= 3; dies_at++) {
		store->n_steps = 0;
		store->dies_at = dies_at;
		journal = start(store, 100 + dies_at);
		has(journal, 1, 50);
		journal_free(journal);
		store->dies_at = 0;
		journal = start(store, 100 + dies_at);
		has(journal, 1, 50);
		journal_free(journal);
	}
}

static void where_there_is_no_room_for_both_the_old_one_goes_first(void **state)
{
	struct store *store = *state;
	struct journal *journal = start(store, 100);

	append(journal, 50);
	journal_free(journal);
	store->n_max = 1;
	journal = start(store, 60);
	store_has(store, "journal.2");
	append(journal, 20);
	journal_free(journal);
	journal = start(store, 60);
	has(journal, 11, 70);
	journal_free(journal);
}

static struct journal *start_in_folder(struct store *store, struct dispatch *dispatch, const char *folder, uint32_t n_events)
{
	struct options options = { .journal = folder, .journal_events = n_events };
	struct journal *journal;

	for (int i = 0; i < NAMES_MAX; i++)
		store->stored[i].is_taken = false;
	assert_int_equal(history_open(&journal, dispatch, &options, store, readable, NULL), 0);
	return journal;
}

/* With memory of the past it would say that the folder, which has more, is another history's. */
static void a_folder_goes_on_where_no_memory_could_be_stored(void **state)
{
	char folder[64], command[96];
	struct store *store = *state;
	struct dispatch dispatch;
	struct journal *journal;

	snprintf(folder, sizeof(folder), "%.32s/tierd-history-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(dispatch_init(&dispatch), 0);
	journal = start_in_folder(store, &dispatch, folder, 70000);
	append(journal, 50);
	journal_free(journal);
	store_put(store, "ledger.1", STDERR_FILENO);
	store->n_max = 1;
	for (uint64_t told = 50; told <= 90; told += 20) {
		journal = start_in_folder(store, &dispatch, folder, 80000);
		assert_int_equal(journal_newest(journal), told);
		assert_int_equal(journal_go_on(journal, told), 0);
		append(journal, 20);
		journal_free(journal);
	}
	dispatch_deinit(&dispatch);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	assert_int_equal(system(command), 0);
}

static void strange_names_and_memory_are_passed_over(void **state)
{
	static const char *const names[] = { "journal.", "journal.x", "journal.1x", "journal.0", "journal.99999999999999999999", "ledger.9" };
	struct store *store = *state;
	struct journal *journal;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int fd = memfd_create("strange", MFD_CLOEXEC);

		assert_int_equal(store_put(store, names[i], fd), 0);
		close(fd);
	}
	journal = start(store, 10);
	append(journal, 3);
	journal_free(journal);
	journal = start(store, 10);
	has(journal, 1, 3);
	assert_int_equal(n_stored(store), ARRAY_SIZE(names) + 1);
	journal_free(journal);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		store_remove(store, names[i]);

	store_put(store, "journal.7", STDERR_FILENO);	/* no memory at all: one of its own takes its place */
	journal = start(store, 10);
	assert_int_equal(journal_newest(journal), 0);
	append(journal, 1);
	journal_free(journal);
	assert_int_equal(n_stored(store), 2);	/* journal.1, which nobody takes any more: the daemon drops what is left */
	store_remove(store, "journal.1");
	store_has(store, "journal.8");
}

static void without_a_store_there_is_a_journal_all_the_same(void **state)
{
	const struct options options = { .journal = "off" };
	struct journal *journal;

	assert_int_equal(history_open(&journal, NULL, &options, NULL, readable, NULL), 0);
	append(journal, 5000);
	has(journal, 5000 - 4096 + 1, 5000);
	journal_free(journal);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_same_size_goes_on_in_the_same_memory),
		TEST(another_size_is_stored_before_the_old_one_goes),
		TEST(dying_between_the_two_loses_nothing),
		TEST(where_there_is_no_room_for_both_the_old_one_goes_first),
		TEST(a_folder_goes_on_where_no_memory_could_be_stored),
		TEST(strange_names_and_memory_are_passed_over),
		TEST(without_a_store_there_is_a_journal_all_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
