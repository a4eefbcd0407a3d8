/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cache/entry.h"

/* An entry is whole, another's, or damaged, and nothing else. */

static struct entry_part part(const char *text)
{
	return (struct entry_part){ text, strlen(text) };
}

static uint8_t *entry_of(const char *key, const char *profiles, const char *code, size_t *ret_n)
{
	const struct entry entry = { .key = part(key), .profiles = part(profiles), .code = part(code) };
	void *bytes;

	assert_int_equal(entry_put(&entry, &bytes, ret_n), 0);
	return bytes;
}

static void assert_part(const struct entry_part *part_, const char *text)
{
	assert_int_equal(part_->n, strlen(text));
	assert_memory_equal(part_->bytes, text, part_->n);
}

static void what_was_put_is_found(void **state)
{
	static const char *const texts[] = { "", "1", "seven b", "eight by", "nine byte" };

	for (size_t i = 0; i < 125; i++) {
		const char *key = texts[i % 5], *profiles = texts[i / 5 % 5], *code = texts[i / 25];
		const struct entry_part wanted = part(key);
		struct entry entry;
		size_t n;
		uint8_t *bytes = entry_of(key, profiles, code, &n);

		assert_int_equal(entry_get(&entry, bytes, n, &wanted), ENTRY_FOUND);
		assert_part(&entry.key, key);
		assert_part(&entry.profiles, profiles);
		assert_part(&entry.code, code);
		free(bytes);
	}
}

static void another_key_is_not_mistaken(void **state)
{
	const struct entry_part other = part("kez"), longer = part("key ");
	struct entry entry;
	size_t n;
	uint8_t *bytes = entry_of("key", "p", "c", &n);

	assert_int_equal(entry_get(&entry, bytes, n, &other), ENTRY_OF_ANOTHER);
	assert_int_equal(entry_get(&entry, bytes, n, &longer), ENTRY_OF_ANOTHER);
	free(bytes);
}

static void a_torn_or_changed_file_is_damaged(void **state)
{
	const struct entry_part key = part("a key of some length");
	struct entry entry;
	size_t n;
	uint8_t *bytes = entry_of("a key of some length", "profiles", "code code code", &n);

	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(entry_get(&entry, bytes, cut, &key), ENTRY_DAMAGED);
	for (size_t i = 0; i < n; i++)
		for (int bit = 0; bit < 8; bit++) {
			bytes[i] ^= 1 << bit;
			assert_int_equal(entry_get(&entry, bytes, n, &key), ENTRY_DAMAGED);
			bytes[i] ^= 1 << bit;
		}
	assert_int_equal(entry_get(&entry, bytes, n, &key), ENTRY_FOUND);
	free(bytes);
}

static void what_is_too_large_is_not_put(void **state)
{
	const struct entry entry = { .key = { "", ENTRY_MAX } }, huge = { .code = { "", SIZE_MAX } };
	void *bytes;
	size_t n;

	assert_int_equal(entry_put(&entry, &bytes, &n), -EFBIG);
	assert_int_equal(entry_put(&huge, &bytes, &n), -EFBIG);
}

static void names_differ_in_both_halves(void **state)
{
	struct entry_name names[256];

	for (unsigned int i = 0; i < 256; i++) {
		uint8_t key[3] = { i, 0, i };

		names[i] = entry_name(key, sizeof(key));
		for (unsigned int k = 0; k < i; k++) {
			assert_int_not_equal(names[i].hash[0], names[k].hash[0]);
			assert_int_not_equal(names[i].hash[1], names[k].hash[1]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_found),
		cmocka_unit_test(another_key_is_not_mistaken),
		cmocka_unit_test(a_torn_or_changed_file_is_damaged),
		cmocka_unit_test(what_is_too_large_is_not_put),
		cmocka_unit_test(names_differ_in_both_halves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
