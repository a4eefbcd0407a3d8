/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* HELLO, lanes, PROBED, and who sees whom */

static void hello_welcomes_with_a_token_and_the_probe_page(void **state)
{
	struct world *world = *state;
	struct client a, b;

	client_hello(&a, world, 1000);
	assert_int_equal(a.message.header.n_fds, 1);
	assert_int_equal(a.message.fds[0], world->probe_page_fd);
	assert_string_equal(a.welcome.daemon, TIER_VERSION);
	client_hello(&b, world, 1000);
	assert_int_equal(b.welcome.number, a.welcome.number + 1);
	assert_true(memcmp(a.welcome.session, b.welcome.session, sizeof(a.welcome.session)));
	assert_true(a.welcome.nonce != b.welcome.nonce);
	client_leave(&a);
	client_leave(&b);
	assert_int_equal(world->server->n_sessions, 0);
}

static void hello_is_said_once(void **state)
{
	struct wire_hello hello = { .program = "again" };
	struct client client;

	client_hello(&client, *state, 1000);
	assert_int_equal(client_send(&client, WIRE_HELLO, &hello), LANE_E_END);
	assert_int_equal(client_read(&client)->error.error, TIER_ERROR_PROTOCOL);
	client_leave(&client);
}

static void lanes_share_a_session_until_the_last_one_leaves(void **state)
{
	struct world *world = *state;
	struct client a, b;

	client_hello(&a, world, 1000);
	client_join(&b, &a);
	assert_int_equal(b.welcome.number, a.welcome.number);
	assert_int_equal(world->server->n_sessions, 1);
	client_leave(&a);
	assert_int_equal(world->server->n_sessions, 1);
	client_leave(&b);
	assert_int_equal(world->server->n_sessions, 0);
}

static void a_token_is_worth_nothing_to_others(void **state)
{
	struct wire_hello hello = { .lane = WIRE_LANE_API };
	struct client a, thief;

	client_hello(&a, *state, 1000);
	client_init(&thief, *state, 1001);
	memcpy(hello.session, a.welcome.session, sizeof(hello.session));
	client_ask_error(&thief, WIRE_HELLO, &hello, TIER_ERROR_DENIED);
	hello.session[1] ^= 1;
	client_ask_error(&thief, WIRE_HELLO, &hello, TIER_ERROR_DENIED);
	client_leave(&thief);
	client_leave(&a);
}

static void sessions_and_lanes_have_quotas(void **state)
{
	struct wire_hello hello = {};
	struct client clients[3], lanes[2], extra;

	for (int i = 0; i < 3; i++)
		client_hello(&clients[i], *state, 1000);
	client_init(&extra, *state, 1000);
	client_ask_error(&extra, WIRE_HELLO, &hello, TIER_ERROR_QUOTA);
	client_join(&lanes[0], &clients[0]);
	client_join(&lanes[1], &clients[0]);
	memcpy(hello.session, clients[0].welcome.session, sizeof(hello.session));
	client_ask_error(&extra, WIRE_HELLO, &hello, TIER_ERROR_QUOTA);
	client_leave(&extra);
	client_hello(&extra, *state, 1001);		/* another user has its own */
	client_leave(&extra);
	client_leave(&clients[1]);
	client_hello(&extra, *state, 1000);		/* what is given back can be had again */
	client_leave(&extra);
	client_leave(&clients[0]);
	client_leave(&clients[2]);
	client_leave(&lanes[0]);
	client_leave(&lanes[1]);
}

static const struct wire_path *probed(struct client *client, uint32_t mapped)
{
	struct wire_probed body = { .nonce = client->welcome.nonce, .mapped = mapped };

	return &client_ask(client, WIRE_PROBED, &body, WIRE_PATH)->path;
}

static void the_path_is_the_kernel_when_it_saw_the_probe(void **state)
{
	struct world *world = *state;
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	world->kernel_sites = 1u << TIER_PROBE_THRESHOLD | 1u << TIER_PROBE_HELLO;
	world->seen_nonce = a.welcome.nonce;
	assert_int_equal(probed(&a, 1)->path, WIRE_PATH_KERNEL);
	assert_int_equal(a.message.path.sites, world->kernel_sites);
	assert_int_equal(probed(&b, 1)->path, WIRE_PATH_SOCKET);
	assert_int_equal(b.message.path.sites, 0);
	assert_non_null(strstr(b.message.path.why, "did not see"));
	assert_int_equal(world->n_drained, 2);
	client_leave(&a);
	client_leave(&b);
}

static void the_path_is_the_socket_and_says_why(void **state)
{
	struct world *world = *state;
	struct wire_probed wrong = { .nonce = 1 };
	struct client a;

	client_hello(&a, world, 1000);
	world->seen_nonce = a.welcome.nonce;
	assert_int_equal(probed(&a, 1)->path, WIRE_PATH_SOCKET);
	assert_string_equal(a.message.path.why, "no privilege in this world");
	world->kernel_sites = 1u << TIER_PROBE_THRESHOLD | 1u << TIER_PROBE_HELLO;
	assert_int_equal(probed(&a, 0)->path, WIRE_PATH_SOCKET);
	assert_non_null(strstr(a.message.path.why, "could not map"));
	client_ask_error(&a, WIRE_PROBED, &wrong, TIER_ERROR_ARGUMENT);
	client_leave(&a);
}

static void users_see_their_own_sessions_and_root_sees_all(void **state)
{
	struct wire_cursor cursor = {};
	struct client a, lane, b, root;

	client_hello(&a, *state, 1000);
	client_join(&lane, &a);
	client_hello(&b, *state, 1001);
	client_hello(&root, *state, 0);
	client_ask(&a, WIRE_CLIENTS, &cursor, WIRE_SESSIONS);
	assert_int_equal(a.message.sessions.n, 1);
	assert_int_equal(a.message.sessions.rows[0].number, a.welcome.number);
	assert_int_equal(a.message.sessions.rows[0].uid, 1000);
	assert_int_equal(a.message.sessions.rows[0].pid, 4242);
	assert_int_equal(a.message.sessions.rows[0].n_lanes, 2);
	assert_string_equal(a.message.sessions.rows[0].program, "tester");
	client_ask(&root, WIRE_CLIENTS, &cursor, WIRE_SESSIONS);
	assert_int_equal(root.message.sessions.n, 3);
	cursor.cursor = b.welcome.number;
	client_ask(&root, WIRE_CLIENTS, &cursor, WIRE_SESSIONS);
	assert_int_equal(root.message.sessions.n, 1);
	client_leave(&a);
	client_leave(&lane);
	client_leave(&b);
	client_leave(&root);
}

static void stats_put_everybodys_numbers_together(void **state)
{
	struct world *world = *state;
	struct wire_empty empty = {};
	struct client a;

	world_module(world, 1000, "m", false, 3);
	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_STATS, &empty, WIRE_STATISTICS);
	assert_string_equal(a.message.stats.daemon, TIER_VERSION);
	assert_string_equal(a.message.stats.path, "no kernel here");
	assert_int_equal(a.message.stats.pid, getpid());
	assert_int_equal(a.message.stats.n_sessions, 1);
	assert_int_equal(a.message.stats.n_modules, 1);
	assert_int_equal(a.message.stats.n_methods, 3);
	assert_int_equal(a.message.stats.n_requests, 2);
	assert_int_equal(a.message.stats.sequence, 1);
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(hello_welcomes_with_a_token_and_the_probe_page),
		WORLD_TEST(hello_is_said_once),
		WORLD_TEST(lanes_share_a_session_until_the_last_one_leaves),
		WORLD_TEST(a_token_is_worth_nothing_to_others),
		WORLD_TEST(sessions_and_lanes_have_quotas),
		WORLD_TEST(the_path_is_the_kernel_when_it_saw_the_probe),
		WORLD_TEST(the_path_is_the_socket_and_says_why),
		WORLD_TEST(users_see_their_own_sessions_and_root_sees_all),
		WORLD_TEST(stats_put_everybodys_numbers_together),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
