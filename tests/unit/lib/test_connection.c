/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* Connecting, asking, and what a daemon can do wrong */

/* -- Which socket --- */
static void the_socket_is_chosen_in_the_documented_order(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = "/nowhere/asked.sock" };
	struct tier_conn *conn;
	char path[256];

	assert_int_equal(tier_connect(&conn, &opts), -ENOENT);
	assert_non_null(strstr(tier_error_text(), "/nowhere/asked.sock"));
	assert_non_null(strstr(tier_error_text(), "tierd --user"));
	assert_non_null(strstr(tier_error_text(), "TIERD_SOCKET"));
	setenv("TIERD_SOCKET", "/nowhere/named.sock", 1);
	setenv("XDG_RUNTIME_DIR", fake->folder, 1);
	assert_int_equal(tier_connect(&conn, NULL), -ENOENT);
	assert_non_null(strstr(tier_error_text(), "/nowhere/named.sock"));
	unsetenv("TIERD_SOCKET");
	snprintf(path, sizeof(path), "%s/tierd.sock", fake->folder);
	assert_int_equal(symlink(fake->address.sun_path, path), 0);
	assert_int_equal(tier_connect(&conn, NULL), 0);
	tier_disconnect(conn);
	unlink(path);
	unsetenv("XDG_RUNTIME_DIR");
}

static void a_relative_path_survives_a_change_of_directory(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = "fake.sock" };
	struct tier_conn *conn;
	struct tier_module *module;
	char old[256];

	assert_non_null(getcwd(old, sizeof(old)));
	assert_int_equal(chdir(fake->folder), 0);
	assert_int_equal(tier_connect(&conn, &opts), 0);
	assert_int_equal(chdir(old), 0);
	module = client_open(conn, "demo");
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(20);
		_exit(tier_entry(client_method(module, 0))(1, 2, 3, 4, 5) == fake_mix(1, 2, 3, 4, 5) ? 0 : 1);
	}
	assert_int_equal(child_end(pid), 0);
	tier_close(module);
	tier_disconnect(conn);
}

static void options_are_checked(void **state)
{
	struct tier_conn_opts opts = { .size = 3 };
	struct tier_conn *conn;
	char path[200];

	assert_int_equal(tier_connect(&conn, &opts), -EINVAL);
	memset(path, 'p', sizeof(path));
	path[199] = 0;
	opts = (struct tier_conn_opts){ .size = sizeof(opts), .socket = path };
	assert_int_equal(tier_connect(&conn, &opts), -ENAMETOOLONG);
	assert_non_null(strstr(tier_error_text(), "107"));
}

/* -- The hello --- */
static void the_path_is_the_kernel_only_if_the_probe_was_seen(void **state)
{
	struct fake *fake = fake_of(state);
	const char *why;
	struct tier_conn *conn;

	fake->is_kernel = true;
	conn = client_connect(fake);
	assert_true(tier_conn_uses_kernel(conn, &why));
	assert_string_equal(why, "seen");
	assert_int_equal(fake->hits[TIER_PROBE_HELLO].n, 1);
	tier_disconnect(conn);
	fake->has_no_page = true;
	conn = client_connect(fake);
	assert_false(tier_conn_uses_kernel(conn, &why));
	assert_string_equal(why, "not mapped");
	tier_disconnect(conn);
}

/* Its sites may be elsewhere: none of them is called. */
static void a_page_of_another_layout_is_not_used(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn;
	const char *why;

	fake->is_kernel = true;
	close(fake->probe_fd);
	fake_make_probes(fake, TIER_PROBE_VERSION + 1);
	conn = client_connect(fake);
	assert_false(tier_conn_uses_kernel(conn, &why));
	assert_string_equal(why, "not mapped");
	assert_int_equal(fake->hits[TIER_PROBE_HELLO].n, 0);
	tier_disconnect(conn);
}

static void a_wrong_answer_to_hello_is_reported(void **state)
{
	static const struct { enum twist twist; int r; } cases[] = {
		{ TWIST_GARBAGE, -EPROTO }, { TWIST_SHORT, -EPROTO }, { TWIST_TYPE, -EPROTO }, { TWIST_FUTURE, -EPROTO },
		{ TWIST_VERSION, -EPROTO }, { TWIST_HANGUP, -ECONNRESET }, { TWIST_LAST_WORD, -EPROTO }, { TWIST_SILENT, -ETIMEDOUT },
	};
	static const enum wire_type types[] = { WIRE_HELLO, WIRE_PROBED };
	struct fake *fake = fake_of(state);
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = fake->address.sun_path, .timeout_ns = FAKE_SECOND / 20 };
	struct tier_conn *conn;

	for (int t = 0; t < 2; t++)
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			fake_set_twist(fake, types[t], cases[i].twist);
			opts.timeout_ns = cases[i].twist == TWIST_SILENT ? FAKE_SECOND / 20 : 10 * FAKE_SECOND;
			assert_int_equal(tier_connect(&conn, &opts), cases[i].r);
			assert_non_null(strstr(tier_error_text(), fake->address.sun_path));
		}
}

/* Failed attempts leave no descriptor behind. */
static void failed_connections_leave_nothing_open(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = fake->address.sun_path };
	struct tier_conn *conn;
	int before, after;

	tier_disconnect(client_connect(fake));
	before = dup(0);
	close(before);
	fake_set_twist(fake, WIRE_PROBED, TWIST_REFUSE);
	for (int i = 0; i < 10; i++)
		assert_int_equal(tier_connect(&conn, &opts), -ENOSPC);
	fake_set_twist(fake, WIRE_PROBED, TWIST_NONE);
	tier_disconnect(client_connect(fake));
	for (int i = 0; i < 10000 && fake_load(&fake->n_live) > 0; i++)	/* the daemon's ends are in this process */
		usleep(100);
	after = dup(0);
	close(after);
	assert_int_equal(after, before);
}

static int child_without_standard_descriptors(void *context)
{
	struct tier_conn *conn;
	struct stat status;

	close(0);
	close(1);
	close(2);
	conn = client_connect(context);
	for (int i = 0; i < 3; i++)
		if (fstat(i, &status) == 0)
			return 1;
	tier_disconnect(conn);
	return 0;
}

static void lanes_stay_away_from_the_standard_descriptors(void **state)
{
	assert_int_equal(child_run(BY_FORK, child_without_standard_descriptors, fake_of(state)), 0);
}

/* -- Requests --- */
static void a_wrong_answer_is_refused_and_the_next_request_gets_a_new_lane(void **state)
{
	static const struct { enum twist twist; int r; const char *text; } cases[] = {
		{ TWIST_GARBAGE, -EPROTO, "not a message" }, { TWIST_SHORT, -EPROTO, "wrong size" },
		{ TWIST_LONG, -EPROTO, "wrong size" },	     { TWIST_TYPE, -EPROTO, "does not fit" },
		{ TWIST_FUTURE, -EPROTO, "nobody asked" },   { TWIST_VERSION, -EPROTO, "another version" },
		{ TWIST_HANGUP, -ECONNRESET, "closed it" },  { TWIST_LAST_WORD, -EPROTO, "not polite" },
	};	/* a question that the daemon hangs up on again and again is given up */
	struct fake *fake = fake_of(state);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tier_conn *conn = client_connect(fake);
		struct tier_module *module = client_open(conn, "demo");
		struct wire_stats stats;

		fake_set_twist(fake, WIRE_STATS, cases[i].twist);
		assert_int_equal(tier_stats(conn, &stats), cases[i].r);
		if (!strstr(tier_error_text(), cases[i].text))
			fail_msg("'%s' does not say '%s'", tier_error_text(), cases[i].text);
		fake_set_twist(fake, WIRE_STATS, TWIST_NONE);
		assert_int_equal(tier_stats(conn, &stats), 0);
		client_call(client_method(module, 2 * (i % 3)), 1);	/* the other lane is not concerned */
		assert_int_equal(fake->n_sessions, i + 1);		/* so it is still the same session */
		tier_close(module);
		tier_disconnect(conn);
	}
}

static void an_answer_that_came_too_late_is_skipped(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect_for(fake, FAKE_SECOND / 10);
	struct wire_stats stats;
	uint32_t pending;

	fake_set_twist(fake, WIRE_STATS, TWIST_HOLD);
	assert_int_equal(tier_stats(conn, &stats), -ETIMEDOUT);
	fake_set_twist(fake, WIRE_STATS, TWIST_NONE);
	fake->pending = 9;
	assert_int_equal(tier_pending_mine(conn, &pending), 0);
	assert_int_equal(pending, 9);
	assert_int_equal(tier_stats(conn, &stats), 0);
	assert_string_equal(stats.daemon, "fake");
	tier_disconnect(conn);
}

/* Late descriptors are closed, not kept. */
static void a_late_attachment_leaks_nothing(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect_for(fake, FAKE_SECOND / 10);
	struct tier_module *module;
	uint32_t pending;
	int before = dup(0), after;

	close(before);
	fake_set_twist(fake, WIRE_ATTACH, TWIST_HOLD);
	assert_int_equal(tier_open(conn, "demo", &module), -ETIMEDOUT);
	fake_set_twist(fake, WIRE_ATTACH, TWIST_NONE);
	assert_int_equal(tier_pending_mine(conn, &pending), 0);
	after = dup(0);
	close(after);
	assert_int_equal(after, before);
	tier_disconnect(conn);
}

static int row_count(const struct tier_module_row *row, void *context)
{
	uint32_t *n = context;

	assert_int_equal(row->id, 100 + *n);
	assert_int_equal(row->shared, row->id == 101);
	return ++*n == 3 ? 17 : 0;
}

static int session_count(const struct wire_session_row *row, void *context)
{
	assert_string_equal(row->program, "someone");
	++*(uint32_t *)context;
	return 0;
}

static void lists_come_in_pages(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	uint32_t n = 0;

	assert_int_equal(tier_list(conn, row_count, &n), 17);
	assert_int_equal(n, 3);
	n = 0;
	assert_int_equal(tier_clients(conn, session_count, &n), 0);
	assert_int_equal(n, 1);
	tier_disconnect(conn);
}

static void a_descriptor_that_the_program_closed_is_not_used(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct stat status;
	uint32_t pending;
	int first = dup(0), ends[2];

	close(first);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
	for (int i = 3; i < first; i++)	/* all sockets that connected: libtier's and the fake's ends */
		if (i != fake->listen_fd && fstat(i, &status) == 0 && S_ISSOCK(status.st_mode) && i != ends[0] && i != ends[1]) {
			struct sockaddr_un name = { 0 };
			socklen_t n = sizeof(name);

			if (getsockname(i, (struct sockaddr *)&name, &n) == 0 && n <= sizeof(sa_family_t))
				dup2(ends[0], i);	/* unnamed: the client's */
		}
	assert_int_equal(tier_pending_mine(conn, &pending), 0);	/* by a lane of another number */
	client_call(client_method(module, 0), 1);
	assert_int_equal(recv(ends[1], &status, sizeof(status), 0), -1);	/* nothing went to the stranger */
	assert_int_equal(errno, EAGAIN);
	tier_close(module);
	tier_disconnect(conn);
	for (int i = 3; i < first; i++) {
		struct stat stranger;

		fstat(ends[0], &stranger);
		if (i != ends[0] && i != ends[1] && fstat(i, &status) == 0 && status.st_ino == stranger.st_ino)
			close(i);
	}
	close(ends[0]);
	close(ends[1]);
}

/* -- Threads --- */
static void *ask_often(void *context)
{
	struct tier_conn *conn = context;
	uint32_t pending;

	for (int i = 0; i < 200; i++)
		if (tier_pending_all(conn, &pending) != 0 || pending != 7)
			return context;
	return NULL;
}

static void threads_share_a_connection(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	pthread_t threads[8];
	void *failed;

	fake->pending = 7;
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, conn), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	tier_disconnect(conn);
}

static void *fail_elsewhere(void *context)
{
	struct tier_conn *conn;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = "/nowhere/thread.sock" };

	assert_string_equal(tier_error_text(), "");
	tier_connect(&conn, &opts);
	return NULL;
}

static void each_thread_has_its_own_sentence(void **state)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = "/nowhere/main.sock" };
	struct tier_conn *conn;
	pthread_t thread;

	assert_int_equal(tier_connect(&conn, &opts), -ENOENT);
	assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
	pthread_join(thread, NULL);
	assert_non_null(strstr(tier_error_text(), "main.sock"));
}

static void disconnecting_ends_requests_of_other_threads(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	pthread_t thread;
	void *failed;

	fake_set_twist(fake, WIRE_PENDING, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, ask_often, conn), 0);
	fake_expect(&fake->n_held, 1);
	tier_disconnect(conn);
	pthread_join(thread, &failed);
	assert_non_null(failed);
	tier_close(module);	/* kept the connection's memory until here */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_socket_is_chosen_in_the_documented_order),
		CASE(a_relative_path_survives_a_change_of_directory),
		CASE(options_are_checked),
		CASE(the_path_is_the_kernel_only_if_the_probe_was_seen),
		CASE(a_page_of_another_layout_is_not_used),
		CASE(a_wrong_answer_to_hello_is_reported),
		CASE(failed_connections_leave_nothing_open),
		CASE(lanes_stay_away_from_the_standard_descriptors),
		CASE(a_wrong_answer_is_refused_and_the_next_request_gets_a_new_lane),
		CASE(an_answer_that_came_too_late_is_skipped),
		CASE(a_late_attachment_leaks_nothing),
		CASE(lists_come_in_pages),
		CASE(a_descriptor_that_the_program_closed_is_not_used),
		CASE(threads_share_a_connection),
		CASE(each_thread_has_its_own_sentence),
		CASE(disconnecting_ends_requests_of_other_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
