/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include "client.h"

/* Forks: however they are made and whenever, methods can be called in them, and the parent notices nothing */

struct family {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *cold, *warm;
};

static struct family family_new_for(void **state, bool is_kernel, uint64_t timeout_ns)
{
	struct family family = { .fake = fake_of(state) };

	family.fake->is_kernel = is_kernel;
	family.conn = client_connect_for(family.fake, timeout_ns);
	family.module = client_open(family.conn, "demo");
	family.cold = client_method(family.module, 0);
	family.warm = client_method(family.module, 2);
	return family;
}

static struct family family_new(void **state, bool is_kernel)
{
	return family_new_for(state, is_kernel, 10 * FAKE_SECOND);
}

static void family_end(struct family *family)
{
	struct tier_answer answer;

	/* the parent's session is as it was */
	assert_int_equal(tier_status_ask(family->cold, &answer), 0);
	tier_close(family->module);
	tier_disconnect(family->conn);
}

static bool call_works(struct tier_method *method, uint32_t n)
{
	while (n--)
		if (tier_entry(method)(1, 2, 3, 4, 5) != fake_mix(1, 2, 3, 4, 5))
			return false;
	return true;
}

/* -- Cold calls and thresholds --- */
static int child_calls_and_crosses(void *context)
{
	struct family *family = context;
	struct fake *fake = family->fake;
	const uint64_t n_hits = fake->hits[TIER_PROBE_THRESHOLD].n;
	const uint32_t n_bells = fake_load(&fake->n_bells);

	errno = 31;
	if (!call_works(family->cold, 1) || errno != 31)
		return 1;
	if (!call_works(family->cold, FAKE_THRESHOLD) || errno != 31)
		return 2;
	if (fake->is_kernel)
		return fake->hits[TIER_PROBE_THRESHOLD].n == n_hits + 1 ? 0 : 3;
	fake_expect(&fake->n_bells, n_bells + 1);
	return 0;
}

static int child_crosses_only(void *context)
{
	struct family *family = context;
	struct fake *fake = family->fake;

	if (!call_works(family->warm, FAKE_THRESHOLD))
		return 1;
	if (fake->is_kernel)
		return fake->hits[TIER_PROBE_THRESHOLD].n == 1 ? 0 : 2;
	fake_expect(&fake->n_bells, 1);
	return 0;
}

static void child_does(void **state, long flags, bool is_kernel, bool is_after, int (*fn)(void *))
{
	struct family family = family_new(state, is_kernel);
	struct fake *fake = family.fake;

	client_call(family.warm, 1);
	if (is_after) {		/* the parent has hit the probe page */
		struct tier_method *other = client_method(family.module, 4);

		client_call(other, 1 + FAKE_THRESHOLD);
		if (is_kernel)
			assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].n, 1);
		else
			fake_expect(&fake->n_bells, 1);
		fake->hits[TIER_PROBE_THRESHOLD].n = 0;
		__atomic_store_n(&fake->n_bells, 0, __ATOMIC_RELEASE);
	}
	assert_int_equal(child_run(flags, fn, &family), 0);
	assert_int_equal(fake->n_sessions, 2);
	assert_int_equal(fake->sessions[1].n_held[0], 1);
	family_end(&family);
}

#define CHILD_CASE(name, flags, is_kernel, is_after, fn)                                                               \
	static void name(void **state)                                                                                 \
	{                                                                                                              \
		child_does(state, flags, is_kernel, is_after, fn);                                                     \
	}
#define CHILD_CASES(what, flags)                                                                                       \
	CHILD_CASE(what##_has_cold_calls_with_the_kernel, flags, true, false, child_calls_and_crosses)                 \
	CHILD_CASE(what##_has_cold_calls_over_the_socket, flags, false, false, child_calls_and_crosses)                \
	CHILD_CASE(what##_after_hits_has_cold_calls_with_the_kernel, flags, true, true, child_calls_and_crosses)       \
	CHILD_CASE(what##_crosses_first_with_the_kernel, flags, true, false, child_crosses_only)                       \
	CHILD_CASE(what##_crosses_first_over_the_socket, flags, false, true, child_crosses_only)

CHILD_CASES(a_fork, BY_FORK)
CHILD_CASES(a_raw_clone, 0)
CHILD_CASES(a_clone_that_shares_descriptors, CLONE_FILES)

static int child_forks_again(void *context)
{
	struct family *family = context;

	if (child_run(0, child_calls_and_crosses, context) != 0)
		return 1;
	return call_works(family->cold, 1) && child_run(BY_FORK, child_crosses_only, context) == 0 ? 0 : 2;
}

static void forks_of_forks_have_sessions_of_their_own(void **state)
{
	struct family family = family_new(state, true);

	client_call(family.warm, 1);
	family.fake->hits[TIER_PROBE_THRESHOLD].n = 0;
	family.fake->is_kernel = false;
	assert_int_equal(child_run(BY_FORK, child_forks_again, &family), 0);
	assert_int_equal(family.fake->n_sessions, 3);	/* the child found code, so it never asked */
	family_end(&family);
}

static int child_calls_final(void *context)
{
	struct family *family = context;

	return call_works(family->warm, 10) ? 0 : 1;
}

static void a_fork_that_needs_nothing_costs_nothing(void **state)
{
	struct family family = family_new(state, true);

	fake_set_stage(family.fake, 2, TIER_STAGE_FINAL);
	assert_int_equal(child_run(BY_FORK, child_calls_final, &family), 0);
	assert_int_equal(family.fake->n_sessions, 1);
	family_end(&family);
}

static void a_fork_whose_module_is_refused_is_not_cut_off(void **state)
{
	struct family family = family_new(state, true);
	struct tier_module *other = client_open(family.conn, "other");

	fake_set_twist(family.fake, WIRE_ATTACH, TWIST_REFUSE);
	assert_int_equal(child_run(BY_FORK, child_calls_and_crosses, &family), 0);
	fake_set_twist(family.fake, WIRE_ATTACH, TWIST_NONE);
	tier_close(other);
	family_end(&family);
}

/* -- While another thread is inside --- */
static void *caller_main(void *context)
{
	return (void *)(uintptr_t)call_works(context, 1);
}

static void child_while_a_thread_is_in_the_prestub(void **state, long flags)
{
	struct family family = family_new(state, true);
	struct fake *fake = family.fake;
	pthread_t thread;
	void *works;

	fake->twist_session = 1;
	fake_set_twist(fake, WIRE_PREPARE, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, caller_main, family.cold), 0);
	fake_expect(&fake->n_held, 1);
	assert_int_equal(child_run(flags, child_calls_and_crosses, &family), 0);
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	pthread_join(thread, &works);
	assert_non_null(works);
	family_end(&family);
}

static void a_fork_while_a_thread_is_in_the_prestub(void **state)
{
	child_while_a_thread_is_in_the_prestub(state, BY_FORK);
}

static void a_raw_clone_while_a_thread_is_in_the_prestub(void **state)
{
	child_while_a_thread_is_in_the_prestub(state, 0);
}

static void *asker_main(void *context)
{
	struct tier_answer answer;

	return (void *)(uintptr_t)(tier_status_ask(context, &answer) == 0);
}

static int child_asks(void *context)
{
	struct family *family = context;
	struct tier_answer answer;
	struct tier_module *other, *same;
	struct tier_method *method;
	uint32_t n;

	if (tier_status_ask(family->cold, &answer) != 0 || answer.stage != TIER_STAGE_COLD)
		return 1;
	if (tier_wait(family->cold, 0, NULL, &answer) != 0 || tier_pending_mine(family->conn, &n) != 0)
		return 2;
	if (tier_open(family->conn, "other", &other) != 0 || tier_find(other, "method0", &method) != 0 || !call_works(method, 1))
		return 3;
	if (tier_open(family->conn, "demo", &same) != 0 || same != family->module)
		return 4;
	tier_close(same);
	tier_close(other);
	tier_close(family->module);
	tier_disconnect(family->conn);
	return 0;
}

static void a_fork_asks_while_another_thread_asks(void **state)
{
	struct family family = family_new(state, true);
	struct fake *fake = family.fake;
	pthread_t thread;
	void *works;

	fake->twist_session = 1;
	fake_set_twist(fake, WIRE_STATUS, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, asker_main, family.warm), 0);
	fake_expect(&fake->n_held, 1);
	assert_int_equal(child_run(BY_FORK, child_asks, &family), 0);
	fake_set_twist(fake, WIRE_STATUS, TWIST_NONE);
	pthread_join(thread, &works);
	assert_non_null(works);
	assert_int_equal(fake->sessions[1].n_held[0], 0);
	assert_int_equal(fake->sessions[1].n_held[1], 0);
	family_end(&family);
}

static void *opener_main(void *context)
{
	struct family *family = context;
	struct tier_module *module = client_open(family->conn, "other");

	tier_close(module);
	return NULL;
}

static void a_fork_opens_what_another_thread_is_opening(void **state)
{
	struct family family = family_new(state, true);
	struct fake *fake = family.fake;
	pthread_t thread;

	fake->twist_session = 1;
	fake_set_twist(fake, WIRE_METHODS, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, opener_main, &family), 0);
	fake_expect(&fake->n_held, 1);
	assert_int_equal(child_run(BY_FORK, child_asks, &family), 0);
	fake_set_twist(fake, WIRE_METHODS, TWIST_NONE);
	pthread_join(thread, NULL);
	family_end(&family);
}

/* -- Forking in a handler that interrupts a request --- */
static struct family *handler_family;
static pid_t handler_child;
static bool handler_calls_in_child;

static void handler_forks(int number)
{
	pid_t pid = fork();

	if (pid == 0 && handler_calls_in_child && !call_works(handler_family->cold, 1))
		_exit(9);
	__atomic_store_n(&handler_child, pid, __ATOMIC_RELEASE);
}

static void *lift_after_fork(void *context)
{
	struct fake *fake = context;

	fake_expect(&fake->n_held, 1);
	kill(getpid(), SIGUSR1);
	for (int i = 0; i < 100000 && __atomic_load_n(&handler_child, __ATOMIC_ACQUIRE) <= 0; i++)
		usleep(100);
	assert_true(handler_child > 0);
	/* the child has found out that the answer is not its own before there is one */
	assert_int_equal(child_end(handler_child), 0);
	fake_set_twist(fake, WIRE_STATUS, TWIST_NONE);
	return NULL;
}

static void a_handler_forks_in_the_middle_of_a_request(void **state, bool calls_in_child)
{
	struct family family = family_new(state, true);
	struct sigaction action = { .sa_handler = handler_forks }, old;
	const pid_t self = getpid();
	struct tier_answer answer;
	sigset_t mask;
	pthread_t thread;
	int r;

	handler_family = &family;
	handler_calls_in_child = calls_in_child;
	handler_child = -1;
	sigaction(SIGUSR1, &action, &old);
	family.fake->twist_session = 1;
	fake_set_twist(family.fake, WIRE_STATUS, TWIST_HOLD);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	assert_int_equal(pthread_create(&thread, NULL, lift_after_fork, family.fake), 0);
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	r = tier_status_ask(family.warm, &answer);
	if (getpid() != self) {
		if (r != -ECONNRESET || !strstr(tier_error_text(), "forked"))
			_exit(1);
		_exit(tier_status_ask(family.warm, &answer) == 0 && call_works(family.cold, 1) ? 0 : 2);
	}
	assert_int_equal(r, 0);
	pthread_join(thread, NULL);
	sigaction(SIGUSR1, &old, NULL);
	family_end(&family);
}

static void a_handler_that_forks_leaves_the_answer_to_the_parent(void **state)
{
	a_handler_forks_in_the_middle_of_a_request(state, false);
}

static void a_fork_made_and_used_in_a_handler_asks_anew(void **state)
{
	a_handler_forks_in_the_middle_of_a_request(state, true);
}

/* -- Descriptors --- */
static int child_reuses_descriptors(void *context)
{
	struct stat status, null;
	int fd = open("/dev/null", O_RDONLY);

	for (int i = 3; i < 64; i++)
		if (i != fd && dup2(fd, i) < 0)
			return 1;
	if (!call_works(((struct family *)context)->cold, 1))
		return 2;
	fstat(fd, &null);
	for (int i = 3; i < 64; i++)
		if (fstat(i, &status) < 0 || status.st_rdev != null.st_rdev)
			return 3;
	return 0;
}

static void a_fork_does_not_touch_descriptors_that_are_the_programs(void **state)
{
	struct family family = family_new(state, true);

	assert_int_equal(child_run(BY_FORK, child_reuses_descriptors, &family), 0);
	family_end(&family);
}

/* Sockets of this process. A clone that shares the table would end its parent's session by closing them. */
static int count_sockets(void)
{
	struct stat status;
	int n = 0;

	for (int i = 0; i < 256; i++)
		n += fstat(i, &status) == 0 && S_ISSOCK(status.st_mode);
	return n;
}

static int child_keeps_no_lane_of_its_parents(void *context)
{
	int n = count_sockets();

	/* of two lanes it needs one so far */
	return call_works(((struct family *)context)->cold, 1) && count_sockets() == n - 1 ? 0 : 1;
}

static void a_fork_closes_its_copies_of_the_parents_lanes(void **state)
{
	struct family family = family_new(state, true);

	assert_int_equal(child_run(BY_FORK, child_keeps_no_lane_of_its_parents, &family), 0);
	family_end(&family);
}

static void a_forks_session_ends_with_it(void **state)
{
	struct family family = family_new(state, true);

	assert_int_equal(child_run(BY_FORK, child_calls_and_crosses, &family), 0);
	for (int i = 0; i < 10000 && fake_load(&family.fake->n_live) != 1; i++)
		usleep(100);
	assert_int_equal(family.fake->n_live, 1);
	family_end(&family);
}

/* -- Forks that outlive their parents --- */
struct orphan {
	struct fake *fake;
	long flags;
	int gone[2];		/* the parent closes its end by ending */
	int said[2];
};

static char orphan_says(struct orphan *orphan, struct tier_method *cold)
{
	char byte;

	close(orphan->gone[1]);
	if (read(orphan->gone[0], &byte, 1) != 0)
		return 'r';
	if (!call_works(cold, 1))
		return 'c';
	/* what is left of two sessions is the orphan's own */
	for (int i = 0; i < 50000 && fake_load(&orphan->fake->n_live) != 1; i++)
		usleep(100);
	return fake_load(&orphan->fake->n_live) == 1 && orphan->fake->n_sessions == 2 ? '+' : 'n';
}

static int parent_connects_forks_and_ends(void *context)
{
	struct orphan *orphan = context;
	struct tier_conn *conn = client_connect(orphan->fake);
	struct tier_method *cold = client_method(client_open(conn, "demo"), 0);
	char said;

	if (orphan->flags == BY_FORK ? fork() : (pid_t)syscall(SYS_clone, orphan->flags | SIGCHLD, 0, 0, 0, 0))
		return 0;
	alarm(20);
	said = orphan_says(orphan, cold);
	_exit(write(orphan->said[1], &said, 1) != 1);
}

static void child_outlives_its_parent(void **state, long flags)
{
	struct orphan orphan = { .fake = fake_of(state), .flags = flags };
	char said = 0;

	assert_int_equal(pipe(orphan.gone), 0);
	assert_int_equal(pipe(orphan.said), 0);
	assert_int_equal(child_run(BY_FORK, parent_connects_forks_and_ends, &orphan), 0);
	close(orphan.gone[1]);
	close(orphan.said[1]);
	assert_int_equal(read(orphan.said[0], &said, 1), 1);
	assert_int_equal(said, '+');
	close(orphan.gone[0]);
	close(orphan.said[0]);
}

static void a_fork_that_outlives_its_parent_lets_the_session_end(void **state)
{
	child_outlives_its_parent(state, BY_FORK);
}

static void a_raw_clone_that_outlives_its_parent_lets_the_session_end(void **state)
{
	child_outlives_its_parent(state, 0);
}

/* -- A process in the same memory is no fork --- */
static int sibling_main(void *context)
{
	struct family *family = context;

	return call_works(family->cold, 1 + FAKE_THRESHOLD) ? 0 : 1;
}

static void a_process_in_the_same_memory_uses_the_session_it_finds(void **state)
{
	struct family family = family_new(state, true);
	static char stack[256 << 10];
	pid_t pid = clone(sibling_main, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &family);

	assert_true(pid > 0);
	assert_int_equal(child_end(pid), 0);
	assert_int_equal(family.fake->n_sessions, 1);
	assert_int_equal(family.fake->hits[TIER_PROBE_THRESHOLD].n, 1);
	family_end(&family);
}

static int child_cannot_connect(void *context)
{
	struct family *family = context;

	unlink(family->fake->address.sun_path);
	if (!call_works(family->warm, FAKE_THRESHOLD + 1))	/* has code: nothing that is missing stops it */
		return 1;
	if (!call_fails(tier_entry(family->cold)) || !strstr(failure_text, "cannot connect"))
		return 2;
	return 0;
}

static int child_calls_counted(void *context)
{
	return call_works(((struct family *)context)->warm, FAKE_THRESHOLD + 1) ? 0 : 1;
}

/* After as long as a cold call may take */
static void a_fork_that_cannot_connect_says_so(void **state)
{
	struct family family = family_new_for(state, true, FAKE_SECOND / 5);

	client_call(family.warm, 1);
	assert_int_equal(child_run(BY_FORK, child_cannot_connect, &family), 0);
	family_end(&family);
}

static void a_threshold_in_a_fork_does_not_wait_for_a_silent_daemon(void **state)
{
	struct family family = family_new(state, true);
	struct timespec begin, end;

	client_call(family.warm, 1);
	fake_set_twist(family.fake, WIRE_HELLO, TWIST_SILENT);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_int_equal(child_run(BY_FORK, child_calls_counted, &family), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 5);	/* the connection's own limit is 10 */
	fake_set_twist(family.fake, WIRE_HELLO, TWIST_NONE);
	family_end(&family);
}

static int child_of_many_threads(void *context)
{
	pthread_t threads[16];
	void *works;

	for (int i = 0; i < 16; i++)
		if (pthread_create(&threads[i], NULL, caller_main, ((struct family *)context)->cold) != 0)
			return 1;
	for (int i = 0; i < 16; i++) {
		pthread_join(threads[i], &works);
		if (!works)
			return 2;
	}
	return 0;
}

static void threads_of_a_fork_recover_once(void **state)
{
	struct family family = family_new(state, true);

	assert_int_equal(child_run(BY_FORK, child_of_many_threads, &family), 0);
	assert_int_equal(family.fake->n_sessions, 2);
	assert_int_equal(family.fake->n_requests[WIRE_PREPARE], 1);
	family_end(&family);
}

/* -- Forks at any moment --- */
static bool storm_is_over;

static void *storm_main(void *context)
{
	struct family *family = context;

	for (uint32_t i = 0; !__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE); i++) {
		struct tier_module *module = client_open(family->conn, "other");
		struct tier_answer answer;

		if (!call_works(client_method(module, 8 + i % 32), 1) || tier_status_ask(family->warm, &answer) != 0)
			return NULL;
		tier_close(module);
	}
	return context;
}

static int storm_child(void *context)
{
	struct family *family = context;
	struct tier_module *module;
	struct tier_answer answer;

	if (!call_works(family->cold, 2) || tier_status_ask(family->warm, &answer) != 0)
		return 1;
	if (tier_open(family->conn, "other", &module) != 0)
		return 2;
	return call_works(client_method(module, 6), 1) ? 0 : 3;
}

static void forks_at_any_moment_of_open_call_and_close(void **state)
{
	const int n_rounds = getenv("TIER_TEST_LONG") ? 500 : 100;
	struct family family = family_new(state, false);
	pthread_t thread;
	void *works;
	int status = 0;

	storm_is_over = false;
	assert_int_equal(pthread_create(&thread, NULL, storm_main, &family), 0);
	for (int i = 0; i < n_rounds && !status; i++)
		status = child_run(BY_FORK, storm_child, &family);
	__atomic_store_n(&storm_is_over, true, __ATOMIC_RELEASE);
	pthread_join(thread, &works);
	assert_int_equal(status, 0);
	assert_non_null(works);
	family_end(&family);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
#define CHILD_CASE_ROWS(what)                                                                                          \
	CASE(what##_has_cold_calls_with_the_kernel), CASE(what##_has_cold_calls_over_the_socket),                      \
	CASE(what##_after_hits_has_cold_calls_with_the_kernel), CASE(what##_crosses_first_with_the_kernel),            \
	CASE(what##_crosses_first_over_the_socket)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHILD_CASE_ROWS(a_fork),
		CHILD_CASE_ROWS(a_raw_clone),
		CHILD_CASE_ROWS(a_clone_that_shares_descriptors),
		CASE(forks_of_forks_have_sessions_of_their_own),
		CASE(a_fork_that_needs_nothing_costs_nothing),
		CASE(a_fork_whose_module_is_refused_is_not_cut_off),
		CASE(a_fork_while_a_thread_is_in_the_prestub),
		CASE(a_raw_clone_while_a_thread_is_in_the_prestub),
		CASE(a_fork_asks_while_another_thread_asks),
		CASE(a_fork_opens_what_another_thread_is_opening),
		CASE(a_handler_that_forks_leaves_the_answer_to_the_parent),
		CASE(a_fork_made_and_used_in_a_handler_asks_anew),
		CASE(a_fork_does_not_touch_descriptors_that_are_the_programs),
		CASE(a_fork_closes_its_copies_of_the_parents_lanes),
		CASE(a_forks_session_ends_with_it),
		CASE(a_fork_that_outlives_its_parent_lets_the_session_end),
		CASE(a_raw_clone_that_outlives_its_parent_lets_the_session_end),
		CASE(a_process_in_the_same_memory_uses_the_session_it_finds),
		CASE(a_fork_that_cannot_connect_says_so),
		CASE(a_threshold_in_a_fork_does_not_wait_for_a_silent_daemon),
		CASE(threads_of_a_fork_recover_once),
		CASE(forks_at_any_moment_of_open_call_and_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
