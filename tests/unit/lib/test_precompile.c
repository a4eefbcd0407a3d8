/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* tier_precompile(): an object goes out, another one comes back */

static const char *write_object(struct fake *fake)
{
	static char path[100];
	FILE *file;

	snprintf(path, sizeof(path), "%s/object.o", fake->folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs("object", file);
	fclose(file);
	return path;
}

static void an_object_comes_back_with_code(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	const char *path = write_object(fake);
	char bytes[16] = "";
	int fd;

	fd = tier_precompile(conn, path, TIER_FOREVER);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), 11);
	assert_string_equal(bytes, "object+code");
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fake->object_seals & F_SEAL_WRITE, F_SEAL_WRITE);
	close(fd);
	unlink(path);
	tier_disconnect(conn);
}

static void what_goes_wrong_has_a_sentence(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	const char *path = write_object(fake);

	fake_set_twist(fake, WIRE_PRECOMPILE, TWIST_REFUSE);
	assert_true(tier_precompile(conn, path, TIER_FOREVER) < 0);
	fake_set_twist(fake, WIRE_PRECOMPILE, TWIST_SILENT);
	assert_int_equal(tier_precompile(conn, path, 1000000), -ETIMEDOUT);
	unlink(path);
	assert_int_equal(tier_precompile(conn, path, TIER_FOREVER), -ENOENT);
	assert_non_null(strstr(tier_error_text(), path));
	tier_disconnect(conn);
}

#define PRECOMPILE_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		PRECOMPILE_TEST(an_object_comes_back_with_code),
		PRECOMPILE_TEST(what_goes_wrong_has_a_sentence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
