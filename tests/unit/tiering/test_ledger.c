/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include "unit/tiering/fake.h"

/* The ledger alone: transactions are whole or not at all, at whichever instruction the daemon dies */

static int setup(void **state)
{
	*state = fake_memory();
	return 0;
}

static int teardown(void **state)
{
	munmap(*state, ledger_size());
	return 0;
}

static void a_fresh_ledger_gives_ids_from_one(void **state)
{
	struct ledger ledger;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	assert_int_equal(ledger.global->next_module, 1);
	assert_int_equal(ledger.global->next_version, 1);
	assert_int_equal(ledger.global->sequence, 0);
}

static void an_incompatible_ledger_is_refused_and_left_alone(void **state)
{
	uint8_t *memory = *state, before[8192];
	struct ledger ledger;

	assert_int_equal(ledger_open(&ledger, memory, ledger_size()), 0);
	for (uint32_t at = 0; at < 32; at += 4) {	/* magic, format, number of tables, sizes */
		memory[at] ^= 0x40;
		memcpy(before, memory, sizeof(before));
		assert_int_equal(ledger_open(&ledger, memory, ledger_size()), -EBADMSG);
		assert_memory_equal(before, memory, sizeof(before));
		memory[at] ^= 0x40;
	}
	assert_int_equal(ledger_open(&ledger, memory, ledger_size()), 0);
}

/* It does not say what shape it has. */
static void a_ledger_of_format_4_is_refused(void **state)
{
	uint32_t *header = *state;
	struct ledger ledger;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	assert_int_equal(header[2], LEDGER_FORMAT);
	header[2] = 4;
	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), -EBADMSG);
	assert_int_equal(header[2], 4);
}

static void a_redo_area_that_makes_no_sense_is_refused(void **state)
{
	uint8_t *memory = *state;
	struct ledger ledger;
	uint64_t *redo = (uint64_t *)(memory + LEDGER_PAGE);
	const uint64_t bad[][4] = {	/* bytes, reserved, offset and size of the first record */
		{ LEDGER_REDO_SIZE, 0, 0, 0 },
		{ 8, 0, 0, 0 },
		{ 24, 0, 0, 16 },
		{ 24, 0, UINT64_MAX, 8 },
		{ 24, 0, ledger_size() - 4, 8 },
		{ 24, 0, 64, 7 },
		{ 24, 0, 64, UINT64_MAX - 7 },
	};

	assert_int_equal(ledger_open(&ledger, memory, ledger_size()), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(redo, bad[i], sizeof(bad[i]));
		assert_int_equal(ledger_open(&ledger, memory, ledger_size()), -EBADMSG);
	}
}

static void an_edit_is_seen_only_after_the_commit(void **state)
{
	struct ledger ledger;
	struct ledger_user *user;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	user = ledger_user(&ledger, ledger_take(&ledger, LEDGER_USERS));
	ledger_begin(&ledger);
	ledger_edit(&ledger, user)->owner = 7;
	ledger_edit(&ledger, user)->turn = ledger_ticket(&ledger);
	ledger_event(&ledger)->uid = 6;
	assert_int_equal(user->owner, 0);
	assert_int_equal(ledger.global->sequence, 0);
	ledger_commit(&ledger);
	assert_int_equal(user->owner, 7);
	assert_int_equal(user->turn, 1);
	assert_int_equal(ledger.global->sequence, 1);
	assert_int_equal(ledger_event_at(&ledger, 1)->uid, 6);
}

static void a_slot_given_back_is_taken_first(void **state)
{
	struct ledger ledger;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(ledger_take(&ledger, LEDGER_EDGES), i);
	ledger_release(&ledger, LEDGER_EDGES, 1);
	assert_int_equal(ledger_take(&ledger, LEDGER_EDGES), 1);
	assert_int_equal(ledger_take(&ledger, LEDGER_EDGES), 3);
}

static void a_full_table_says_so(void **state)
{
	struct ledger ledger;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	for (uint32_t i = 0; i < LEDGER_USERS_MAX; i++)
		assert_int_equal(ledger_take(&ledger, LEDGER_USERS), i);
	assert_int_equal(ledger_take(&ledger, LEDGER_USERS), LEDGER_NONE);
}

/* -- Dying --- */
static jmp_buf death;
static int n_steps_to_live;

static void die(void)
{
	if (!n_steps_to_live--)
		longjmp(death, 1);
}

/* Two records that must change together, over and over */
static void change(struct ledger *ledger, uint64_t value)
{
	ledger_begin(ledger);
	ledger_edit(ledger, ledger_user(ledger, 0))->turn = value;
	ledger_edit(ledger, ledger_module(ledger, 0))->code_used = value;
	ledger_event(ledger)->version = value;
	ledger_commit(ledger);
}

static void a_transaction_is_whole_wherever_the_daemon_dies(void **state)
{
	struct ledger ledger;
	volatile int n_steps;
	volatile bool is_alive = false;
	volatile uint64_t n_old = 0, n_new = 0;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	ledger_take(&ledger, LEDGER_USERS);
	ledger_take(&ledger, LEDGER_MODULES);
	change(&ledger, 1);
	for (n_steps = 0; !is_alive; n_steps++) {
		uint64_t before = ledger.global->sequence;

		n_steps_to_live = n_steps;
		ledger_crash_point = die;
		if (!setjmp(death)) {
			change(&ledger, before + 1);
			is_alive = true;
		}
		ledger_crash_point = NULL;
		assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
		assert_int_equal(ledger_user(&ledger, 0)->turn, ledger.global->sequence);
		assert_int_equal(ledger_module(&ledger, 0)->code_used, ledger.global->sequence);
		assert_int_equal(ledger_event_at(&ledger, ledger.global->sequence)->version, ledger.global->sequence);
		n_old += ledger.global->sequence == before;
		n_new += ledger.global->sequence == before + 1;
		ledger_set_delivered(&ledger, ledger.global->sequence);
	}
	assert_int_equal(n_old + n_new, n_steps);
	assert_true(n_old >= 4 && n_new >= 4);
}

static void a_successor_may_die_in_the_recovery_too(void **state)
{
	struct ledger ledger;
	volatile int n_steps, n_more;

	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	ledger_take(&ledger, LEDGER_USERS);
	ledger_take(&ledger, LEDGER_MODULES);
	for (n_steps = 3; n_steps < 8; n_steps++)
		for (n_more = 0; n_more < 5; n_more++) {
			ledger_crash_point = die;
			n_steps_to_live = n_steps;
			if (!setjmp(death))
				change(&ledger, ledger.global->sequence + 1);
			n_steps_to_live = n_more;
			if (!setjmp(death))
				assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
			ledger_crash_point = NULL;
			assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
			assert_int_equal(ledger_user(&ledger, 0)->turn, ledger.global->sequence);
			assert_int_equal(ledger_module(&ledger, 0)->code_used, ledger.global->sequence);
			ledger_set_delivered(&ledger, ledger.global->sequence);
		}
}

static void dying_while_the_ledger_is_made_leaves_nothing_behind(void **state)
{
	struct ledger ledger;

	ledger_crash_point = die;
	n_steps_to_live = 0;
	if (!setjmp(death))
		ledger_open(&ledger, *state, ledger_size());
	ledger_crash_point = NULL;
	assert_int_equal(*(uint64_t *)*state, 0);
	assert_int_equal(ledger_open(&ledger, *state, ledger_size()), 0);
	assert_int_equal(ledger.global->next_version, 1);
}

int main(void)
{
#define LEDGER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		LEDGER_TEST(a_fresh_ledger_gives_ids_from_one),
		LEDGER_TEST(an_incompatible_ledger_is_refused_and_left_alone),
		LEDGER_TEST(a_ledger_of_format_4_is_refused),
		LEDGER_TEST(a_redo_area_that_makes_no_sense_is_refused),
		LEDGER_TEST(an_edit_is_seen_only_after_the_commit),
		LEDGER_TEST(a_slot_given_back_is_taken_first),
		LEDGER_TEST(a_full_table_says_so),
		LEDGER_TEST(a_transaction_is_whole_wherever_the_daemon_dies),
		LEDGER_TEST(a_successor_may_die_in_the_recovery_too),
		LEDGER_TEST(dying_while_the_ledger_is_made_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
