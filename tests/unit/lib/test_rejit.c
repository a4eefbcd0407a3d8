/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* tier_rejit() and what goes with it: what the daemon is sent, and what does not get that far */

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static void an_object_of_bytes_goes_out_sealed(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	assert_int_equal(tier_rejit_bytes(client_method(module, 3), "object", 6, "other", TIER_REJIT_FORCE), 0);
	assert_int_equal(fake->rejit.module, tier_module_id(module));
	assert_int_equal(fake->rejit.method, 3);
	assert_int_equal(fake->rejit.flags, WIRE_REJIT_FORCE);
	assert_string_equal(fake->rejit.symbol, "other");
	assert_int_equal(fake->n_object, 6);
	assert_memory_equal(fake->object, "object", 6);
	assert_int_equal(fake->object_seals & SEALS, SEALS);
	assert_int_equal(tier_rejit_bytes(client_method(module, 3), "object", 6, NULL, 0), 0);
	assert_string_equal(fake->rejit.symbol, "");
	assert_int_equal(fake->rejit.flags, 0);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_file_goes_out_as_it_is(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	char path[100];
	FILE *file;

	snprintf(path, sizeof(path), "%s/body.o", fake->folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs("a body", file);
	fclose(file);
	assert_int_equal(tier_rejit(client_method(module, 0), path, NULL, 0), 0);
	assert_memory_equal(fake->object, "a body", 6);
	unlink(path);
	assert_int_equal(tier_rejit(client_method(module, 0), path, NULL, 0), -ENOENT);
	assert_non_null(strstr(tier_error_text(), path));
	assert_int_equal(fake->n_requests[WIRE_REJIT], 1);
	tier_close(module);
	tier_disconnect(conn);
}

static void what_makes_no_sense_is_not_sent(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_method *method = client_method(module, 0);
	char name[WIRE_METHOD_NAME_MAX + 1];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	assert_int_equal(tier_rejit_bytes(method, "object", 6, NULL, 2), -EINVAL);
	assert_int_equal(tier_rejit_bytes(method, "object", 6, "", 0), -EINVAL);
	assert_int_equal(tier_rejit_bytes(method, "object", 6, name, 0), -EINVAL);
	assert_int_equal(tier_rejit_bytes(method, "", 0, NULL, 0), -ENOEXEC);
	assert_int_equal(tier_rejit(method, "/dev/null", NULL, 0), -ENOEXEC);
	assert_int_equal(fake->n_requests[WIRE_REJIT], 0);
	tier_close(module);
	tier_disconnect(conn);
}

static void refusals_are_told(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_twist(fake, WIRE_REJIT, TWIST_REFUSE);
	assert_int_equal(tier_rejit_bytes(client_method(module, 0), "object", 6, NULL, 0), -ENOSPC);
	assert_string_equal(tier_error_text(), "no room for you");
	fake_set_twist(fake, WIRE_REVERT, TWIST_REFUSE);
	assert_int_equal(tier_revert(client_method(module, 0)), -ENOSPC);
	fake_set_twist(fake, WIRE_REVERT, TWIST_NONE);
	assert_int_equal(tier_revert(client_method(module, 0)), 0);
	assert_int_equal(fake->n_requests[WIRE_REVERT], 2);
	tier_close(module);
	tier_disconnect(conn);
}

static void counters_come_as_the_daemon_has_them(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct wire_counters counters;

	assert_int_equal(tier_counters(conn, &counters), 0);
	assert_int_equal(counters.n_rejits, 9);
	tier_disconnect(conn);
}

#define REJIT_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		REJIT_TEST(an_object_of_bytes_goes_out_sealed),
		REJIT_TEST(a_file_goes_out_as_it_is),
		REJIT_TEST(what_makes_no_sense_is_not_sent),
		REJIT_TEST(refusals_are_told),
		REJIT_TEST(counters_come_as_the_daemon_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
