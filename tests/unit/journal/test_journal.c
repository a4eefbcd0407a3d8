/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "journal/journal.h"
#include "journal/record.h"
#include "util/base.h"

static struct tier_event event_number(uint64_t sequence)
{
	return (struct tier_event){ .sequence = sequence, .module = sequence * 7, .kind = TIER_EVENT_PUBLISHED };
}

static void append_range(struct journal *journal, uint64_t first, uint64_t last)
{
	for (uint64_t s = first; s <= last; s++) {
		struct tier_event event = event_number(s);

		journal_append(journal, &event);
	}
}

static void an_empty_journal_has_nothing_and_no_gap(void **state)
{
	struct journal *journal;
	struct tier_event events[4];
	uint64_t last;
	uint32_t n = 99;

	assert_int_equal(journal_new(&journal, 8), 0);
	assert_int_equal(journal_newest(journal), 0);
	assert_int_equal(journal_oldest(journal), 1);
	assert_int_equal(journal_read(journal, 1, events, 4, &n, &last), 0);
	assert_int_equal(n, 0);
	journal_free(journal);
}

static void what_was_appended_is_read_in_order(void **state)
{
	struct journal *journal;
	struct tier_event events[4];
	uint64_t last;
	uint32_t n;

	assert_int_equal(journal_new(&journal, 8), 0);
	append_range(journal, 1, 6);
	assert_int_equal(journal_read(journal, 2, events, 4, &n, &last), 0);
	assert_int_equal(n, 4);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(events[i].sequence, 2 + i);
		assert_int_equal(events[i].module, (2 + i) * 7);
		assert_true(record_is_sound(&events[i]));
	}
	assert_int_equal(journal_read(journal, 6, events, 4, &n, &last), 0);
	assert_int_equal(n, 1);
	assert_int_equal(journal_read(journal, 7, events, 4, &n, &last), 0);
	assert_int_equal(n, 0);
	assert_int_equal(journal_read(journal, UINT64_MAX, events, 4, &n, &last), 0);
	assert_int_equal(n, 0);
	journal_free(journal);
}

static void retention_leaves_a_gap_with_known_numbers(void **state)
{
	struct journal *journal;
	struct tier_event events[8];
	uint64_t last;
	uint32_t n;

	assert_int_equal(journal_new(&journal, 4), 0);
	append_range(journal, 1, 10);
	assert_int_equal(journal_newest(journal), 10);
	assert_int_equal(journal_oldest(journal), 7);
	assert_int_equal(journal_read(journal, 6, events, 8, &n, &last), JOURNAL_E_GAP);
	assert_int_equal(journal_read(journal, 0, events, 8, &n, &last), JOURNAL_E_GAP);
	assert_int_equal(journal_read(journal, 7, events, 8, &n, &last), 0);
	assert_int_equal(n, 4);
	assert_int_equal(events[0].sequence, 7);
	assert_int_equal(events[3].sequence, 10);
	journal_free(journal);
}

static void a_successor_begins_at_any_number(void **state)
{
	struct journal *journal;
	struct tier_event event;
	uint64_t last;
	uint32_t n;

	assert_int_equal(journal_new(&journal, 1), 0);
	append_range(journal, 1000001, 1000002);
	assert_int_equal(journal_oldest(journal), 1000002);
	assert_int_equal(journal_read(journal, 1000002, &event, 1, &n, &last), 0);
	assert_int_equal(n, 1);
	assert_int_equal(journal_read(journal, 5, &event, 1, &n, &last), JOURNAL_E_GAP);
	journal_free(journal);
}

static void the_crc_is_zlibs_and_sees_every_bit(void **state)
{
	/* crc32() of zlib over 60 zero bytes, and over 60 bytes 0, 1, 2, … 59 */
	struct tier_event event = {};

	assert_int_equal(record_crc(&event), 0x04128908u);
	for (unsigned int i = 0; i < offsetof(struct tier_event, crc); i++)
		((unsigned char *)&event)[i] = i;
	assert_int_equal(record_crc(&event), 0xb0ec7feeu);
	event.crc = record_crc(&event);
	for (unsigned int bit = 0; bit < sizeof(event) * 8; bit++) {
		((unsigned char *)&event)[bit / 8] ^= 1u << bit % 8;
		assert_false(record_is_sound(&event));
		((unsigned char *)&event)[bit / 8] ^= 1u << bit % 8;
	}
	assert_true(record_is_sound(&event));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_journal_has_nothing_and_no_gap),
		cmocka_unit_test(what_was_appended_is_read_in_order),
		cmocka_unit_test(retention_leaves_a_gap_with_known_numbers),
		cmocka_unit_test(a_successor_begins_at_any_number),
		cmocka_unit_test(the_crc_is_zlibs_and_sees_every_bit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
