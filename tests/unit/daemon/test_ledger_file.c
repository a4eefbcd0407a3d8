/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bytecode/image.h"
#include "ledger_file.h"
#include "tiering/ledger.h"

/* Daemons that die between the ledger's file and its first use, as often as they like. The store is the test's. */

#define KEPT_MAX 8

struct store {
	struct { char name[STORE_NAME_MAX]; int fd; bool is_taken; } kept[KEPT_MAX];
	uint32_t n;
};

/* -- The store --- */
int store_put(struct store *store, const char *name, int fd)
{
	assert_true(store->n < KEPT_MAX);
	strcpy(store->kept[store->n].name, name);
	store->kept[store->n].is_taken = true;		/* for this daemon */
	store->kept[store->n++].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

/* All of the name */
void store_remove(struct store *store, const char *name)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < store->n; i++)
		if (strcmp(store->kept[i].name, name))
			store->kept[n++] = store->kept[i];
		else
			close(store->kept[i].fd);
	store->n = n;
}

int store_take(struct store *store, const char *name)
{
	for (uint32_t i = store->n; i-- > 0;)
		if (!store->kept[i].is_taken && !strcmp(store->kept[i].name, name)) {
			store->kept[i].is_taken = true;
			return fcntl(store->kept[i].fd, F_DUPFD_CLOEXEC, 0);
		}
	return -1;
}

const char *store_next(struct store *store, uint32_t *at)
{
	while (*at < store->n && store->kept[*at].is_taken)
		++*at;
	return *at < store->n ? store->kept[(*at)++].name : NULL;
}

static void successor(struct store *store)
{
	for (uint32_t i = 0; i < store->n; i++)
		store->kept[i].is_taken = false;
}

/* -- Lives --- */
/* Returns whether the ledger was a predecessor's. */
static bool live(struct store *store, bool is_used)
{
	struct ledger_file file = LEDGER_FILE_NULL;
	struct ledger ledger;
	struct refusal why;
	bool is_inherited;

	successor(store);
	assert_int_equal(ledger_file_open(&file, store), 0);
	is_inherited = file.is_inherited;
	if (is_used) {
		assert_int_equal(ledger_open(&ledger, file.memory, ledger_size()), 0);
		assert_int_not_equal(ledger_examine(file.memory, ledger_size(), &why), LEDGER_E_EMPTY);
	}
	ledger_file_close(&file);
	return is_inherited;
}

static void one_that_died_before_its_magic_leaves_nothing(void **state)
{
	struct store store = { .n = 0 };

	for (int i = 0; i < 4; i++) {
		assert_false(live(&store, false));
		assert_int_equal(store.n, 1);
	}
	assert_false(live(&store, true));
	assert_int_equal(store.n, 1);
	assert_true(live(&store, true));
	assert_int_equal(store.n, 1);
	store_remove(&store, "ledger.1");
	assert_int_equal(store.n, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_died_before_its_magic_leaves_nothing),
	};

	return cmocka_run_group_tests_name("ledger_file", tests, NULL, NULL);
}
