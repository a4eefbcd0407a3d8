/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"
#include "server/load.h"
#include <sys/socket.h>

/* LOAD: what may be loaded, under which name, and who learns how it ended */

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static int object(off_t size, int seals)
{
	int fd = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct wire_load named(const char *name)
{
	struct wire_load load = {};

	strcpy(load.name, name);
	return load;
}

static void load_begins_with(struct client *client, const char *name, size_t n)
{
	struct wire_load load = named(name);

	client->fd_to_send = object(n, SEALS);
	client->world->load = NULL;
	assert_int_equal(client_send(client, WIRE_LOAD, &load), 0);
	assert_false(client_has_reply(client));
	assert_non_null(client->world->load);
}

static void load_begins(struct client *client, const char *name)
{
	load_begins_with(client, name, 100);
}

static void load_fails(struct client *client, const char *name, int fd, enum tier_error error)
{
	struct wire_load load = named(name);

	client->fd_to_send = fd;
	client_ask_error(client, WIRE_LOAD, &load, error);
}

static void a_load_ends_with_a_module(void **state)
{
	struct world *world = *state;
	struct wire_load load = named("filter");
	struct client a;
	uint32_t n = count_fds();

	client_hello(&a, world, 1000);
	load.flags = WIRE_LOAD_SHARED;
	a.fd_to_send = object(100, SEALS);
	assert_int_equal(client_send(&a, WIRE_LOAD, &load), 0);
	assert_int_equal(world->load_n, 100);
	assert_true(world->load_shared);
	assert_true(fcntl(world->load_fd, F_GETFD) >= 0);	/* there until the load ends */
	server_loaded(world->load, world_module(world, 1000, "filter", true, 1)->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&a)->header.type, WIRE_LOADED);
	assert_int_equal(a.message.header.serial, a.serial);
	assert_int_equal(a.message.ref.module, 1);
	assert_string_equal(a.message.ref.name, "filter");
	assert_int_equal(count_fds(), n);
	client_leave(&a);
}

static void a_load_that_fails_says_why(void **state)
{
	struct world *world = *state;
	struct client a;

	client_hello(&a, world, 1000);
	load_begins(&a, "filter");
	server_loaded(world->load, NULL, TIER_ERROR_BAD_MODULE, "section .text, offset 8: unknown opcode 0xff");
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_BAD_MODULE);
	assert_non_null(strstr(a.message.error.text, "unknown opcode"));
	world->load_result = TIER_ERROR_WORKER;
	load_fails(&a, "filter", object(100, SEALS), TIER_ERROR_WORKER);
	world->load_result = 0;
	load_begins(&a, "filter");			/* the name is free again */
	client_leave(&a);
}

static void the_object_must_be_sealed_and_of_a_sensible_size(void **state)
{
	struct client a;
	uint32_t n = count_fds();
	int pair[2];

	client_hello(&a, *state, 1000);
	load_fails(&a, "m", object(100, F_SEAL_SHRINK | F_SEAL_GROW), TIER_ERROR_ARGUMENT);
	load_fails(&a, "m", object(100, F_SEAL_WRITE | F_SEAL_GROW), TIER_ERROR_ARGUMENT);
	load_fails(&a, "m", object(0, SEALS), TIER_ERROR_BAD_MODULE);
	load_fails(&a, "m", object(4097, SEALS), TIER_ERROR_QUOTA);
	load_fails(&a, "m", open("/dev/null", O_RDONLY), TIER_ERROR_ARGUMENT);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	load_fails(&a, "m", pair[0], TIER_ERROR_ARGUMENT);
	close(pair[1]);
	load_fails(&a, "m", open(".", O_RDONLY | O_DIRECTORY), TIER_ERROR_ARGUMENT);
	while (a.world->server->closings.n)	/* what is no memfd is closed by a thread */
		assert_int_equal(dispatch_turn(&a.world->dispatch, 1000), 0);
	assert_int_equal(count_fds(), n);
	client_leave(&a);
}

static void names_have_rules(void **state)
{
	static const char *const bad[] = { "", "a:b", "a b", "a/b", "a\n", "\xc3\xa4" };
	struct client a;
	char longest[WIRE_NAME_MAX];

	client_hello(&a, *state, 1000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		load_fails(&a, bad[i], object(1, SEALS), TIER_ERROR_ARGUMENT);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_true(load_name_is_sound(longest));
	assert_true(load_name_is_sound("A-z_0.9+"));
	client_leave(&a);
}

static void a_name_is_taken_by_modules_and_by_loads_under_way(void **state)
{
	struct world *world = *state;
	struct client a, b;

	world_module(world, 1000, "old", false, 1);
	client_hello(&a, world, 1000);
	client_hello(&b, world, 1001);
	load_fails(&a, "old", object(1, SEALS), TIER_ERROR_EXISTS);
	load_begins(&a, "new");
	load_fails(&a, "new", object(1, SEALS), TIER_ERROR_EXISTS);
	load_begins(&b, "old");				/* another user's names are another's */
	load_begins(&b, "new");
	client_leave(&a);
	client_leave(&b);
}

static void objects_under_way_have_a_quota_in_bytes(void **state)
{
	struct world *world = *state;
	struct server_load *first;
	struct client a, b;

	world->server->charges.limits[SERVER_SLOT_OBJECTS] = 4096 + 4095;
	client_hello(&a, world, 1000);
	client_hello(&b, world, 1001);
	load_begins_with(&a, "m1", 4096);
	first = world->load;
	load_fails(&a, "m2", object(4096, SEALS), TIER_ERROR_QUOTA);
	load_begins_with(&b, "m1", 4096);
	server_loaded(first, NULL, TIER_ERROR_BAD_MODULE, NULL);
	client_read(&a);
	load_begins_with(&a, "m2", 4096);
	client_leave(&a);
	client_leave(&b);
}

static void no_uid_may_have_more_than_half_of_the_open_files(void **state)
{
	for (uint64_t n_files = 256; n_files; n_files *= 2) {
		struct server_config config = SERVER_CONFIG_DEFAULT;

		server_config_fit(&config, n_files);
		assert_true(config.modules_per_uid && config.sessions_per_uid && config.loads_per_uid && config.closings_per_uid);
		assert_true(config.modules_per_uid * 8 + config.sessions_per_uid * _WIRE_LANE_N + config.loads_per_uid * 2
			    + config.closings_per_uid <= n_files / 2);
		assert_true(config.modules_per_uid <= 1024 && config.sessions_per_uid <= 4096);
	}
}

static void loads_and_modules_have_quotas(void **state)
{
	struct world *world = *state;
	struct server_load *first;
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 1001);
	load_begins(&a, "m1");
	first = world->load;
	load_begins(&a, "m2");
	load_fails(&a, "m3", object(1, SEALS), TIER_ERROR_QUOTA);
	assert_non_null(strstr(a.message.error.text, "2 loads"));
	assert_non_null(strstr(a.message.error.text, "at most 2"));
	load_begins(&b, "m1");
	server_loaded(first, world_module(world, 1000, "m1", false, 1)->module, TIER_ERROR_NONE, NULL);
	client_read(&a);
	world_module(world, 1000, "m4", false, 1);
	load_fails(&a, "m5", object(1, SEALS), TIER_ERROR_QUOTA);	/* two modules, one under way */
	assert_non_null(strstr(a.message.error.text, "3 modules"));
	client_leave(&a);
	client_leave(&b);
}

static void a_load_is_canceled_when_its_client_is_gone(void **state)
{
	struct world *world = *state;
	struct client a;

	client_hello(&a, world, 1000);
	load_begins(&a, "m");
	client_leave(&a);
	assert_int_equal(world->n_canceled, 1);
	client_hello(&a, world, 1000);			/* until it has ended its name is taken */
	server_loaded(world->load, NULL, TIER_ERROR_CANCELED, "nobody waits for it");
	assert_false(client_has_reply(&a));
	load_begins(&a, "m");
	server_loaded(world->load, world_module(world, 1000, "m", false, 1)->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&a)->header.type, WIRE_LOADED);
	client_leave(&a);
	assert_int_equal(world->n_canceled, 1);
}

static void a_server_that_ends_drops_its_loads(void **state)
{
	struct client a;

	client_hello(&a, *state, 1000);
	load_begins(&a, "m");
	client_leave(&a);				/* the teardown finds the load under way */
}

static void precompile_begins(struct client *client)
{
	client->fd_to_send = object(100, SEALS);
	client->world->load = NULL;
	assert_int_equal(client_send(client, WIRE_PRECOMPILE, &(struct wire_empty){}), 0);
	assert_false(client_has_reply(client));
	assert_non_null(client->world->load);
}

static void an_object_with_code_comes_back_as_a_descriptor(void **state)
{
	struct world *world = *state;
	uint32_t n = count_fds();
	struct client a;
	int fd;

	client_hello(&a, world, 1000);
	precompile_begins(&a);
	assert_int_equal(world->load_n, 100);
	fd = object(300, SEALS);
	server_precompiled(world->load, fd, 300, TIER_ERROR_NONE, NULL);
	close(fd);
	assert_int_equal(client_read(&a)->header.type, WIRE_OBJECT);
	assert_int_equal(a.message.header.serial, a.serial);
	assert_int_equal(a.message.header.n_fds, 1);
	client_leave(&a);
	assert_int_equal(count_fds(), n);
}

static void a_precompilation_that_fails_or_is_left_alone_is_over(void **state)
{
	struct world *world = *state;
	struct client a;

	client_hello(&a, world, 1000);
	precompile_begins(&a);
	server_precompiled(world->load, -1, 0, TIER_ERROR_BAD_MODULE, "not an ELF object file (100 bytes)");
	assert_int_equal(client_read(&a)->header.type, WIRE_ERROR);
	assert_int_equal(a.message.error.error, TIER_ERROR_BAD_MODULE);
	assert_non_null(strstr(a.message.error.text, "not an ELF"));
	a.fd_to_send = object(100, 0);
	client_ask_error(&a, WIRE_PRECOMPILE, &(struct wire_empty){}, TIER_ERROR_ARGUMENT);
	precompile_begins(&a);
	client_leave(&a);
	assert_int_equal(world->n_canceled, 1);
	server_precompiled(world->load, -1, 0, TIER_ERROR_CANCELED, "nobody waits for it");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_load_ends_with_a_module),
		WORLD_TEST(a_load_that_fails_says_why),
		WORLD_TEST(the_object_must_be_sealed_and_of_a_sensible_size),
		WORLD_TEST(names_have_rules),
		WORLD_TEST(a_name_is_taken_by_modules_and_by_loads_under_way),
		WORLD_TEST(loads_and_modules_have_quotas),
		WORLD_TEST(objects_under_way_have_a_quota_in_bytes),
		cmocka_unit_test(no_uid_may_have_more_than_half_of_the_open_files),
		WORLD_TEST(a_load_is_canceled_when_its_client_is_gone),
		WORLD_TEST(a_server_that_ends_drops_its_loads),
		WORLD_TEST(an_object_with_code_comes_back_as_a_descriptor),
		WORLD_TEST(a_precompilation_that_fails_or_is_left_alone_is_over),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
