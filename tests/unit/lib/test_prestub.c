/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>
#include <unwind.h>
#include "client.h"

/* The first call and the threshold: what DESIGN §4 promises about them */

static void a_first_call_keeps_all_arguments_and_errno(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module = client_open(conn, "demo");
	tier_fn fn = tier_entry(client_method(module, 0));

	errno = 4242;
	assert_int_equal(fn(0x1111111111111111, 2, 0x300000000, 4, 55), fake_mix(0x1111111111111111, 2, 0x300000000, 4, 55));
	assert_int_equal(errno, 4242);
	assert_int_equal(fake_of(state)->n_requests[WIRE_PREPARE], 1);
	tier_close(module);
	tier_disconnect(conn);
}

static void the_first_call_is_not_counted_and_the_nth_rings_once(void **state, bool is_kernel)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;

	fake->is_kernel = is_kernel;
	conn = client_connect(fake);
	assert_int_equal(tier_conn_uses_kernel(conn, NULL), is_kernel);
	module = client_open(conn, "demo");
	method = client_method(module, 2);
	client_call(method, 1);
	for (uint32_t left = FAKE_THRESHOLD; left > 0; left--) {
		assert_int_equal(tier_remaining(method), left);
		assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].n + fake->n_bells, 0);
		errno = 77;
		client_call(method, 1);
		assert_int_equal(errno, 77);
	}
	assert_int_equal(tier_remaining(method), 0);
	assert_int_equal(tier_status(method).stage, TIER_STAGE_REACHED);
	client_call(method, 3);
	if (is_kernel) {
		assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].n, 1);
		assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].a, tier_module_id(module));
		assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].b, 2);
		assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].c, 1);
	} else {
		fake_expect(&fake->n_bells, 1);
		assert_int_equal(fake->bell.module, tier_module_id(module));
		assert_int_equal(fake->bell.method, 2);
		assert_int_equal(fake->bell.version, 1);
		assert_int_equal(fake->bell.tid, gettid());
	}
	tier_close(module);
	tier_disconnect(conn);
}

static void with_the_kernel_the_nth_call_fires_the_probe(void **state)
{
	the_first_call_is_not_counted_and_the_nth_rings_once(state, true);
}

static void without_the_kernel_the_nth_call_sends_a_note(void **state)
{
	the_first_call_is_not_counted_and_the_nth_rings_once(state, false);
}

static void a_call_that_finds_code_asks_nobody(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_record *record = fake_record(&fake->modules[0], 0);

	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	fake_set_precode(&fake->modules[0], 0, fake_prestub(&fake->modules[0]));
	record->code = 1;	/* must not be used: E says where to go */
	client_call(client_method(module, 0), 2);
	assert_int_equal(fake->n_requests[WIRE_PREPARE], 0);
	assert_int_equal(fake_visits(&fake->modules[0])->n[TIER_VISIT_POINTER], 2);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_direct_call_reaches_a_cold_callee(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module = client_open(conn, "demo");

	client_call(client_method(module, 5), 1);
	assert_int_equal(tier_status(client_method(module, 0)).stage, TIER_STAGE_COUNTING);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Threads --- */
struct crowd {
	pthread_barrier_t barrier;
	struct tier_method *method;
	uint32_t n_wrong;
};

static void *crowd_main(void *context)
{
	struct crowd *crowd = context;

	pthread_barrier_wait(&crowd->barrier);
	if (tier_entry(crowd->method)(1, 2, 3, 4, 5) != fake_mix(1, 2, 3, 4, 5))
		__atomic_fetch_add(&crowd->n_wrong, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void sixty_four_threads_at_once_share_one_request(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module = client_open(conn, "demo");
	struct crowd crowd = { .method = client_method(module, 0) };
	pthread_t threads[64];

	pthread_barrier_init(&crowd.barrier, NULL, 64);
	for (int i = 0; i < 64; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &crowd), 0);
	for (int i = 0; i < 64; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crowd.n_wrong, 0);
	assert_int_equal(fake_of(state)->n_requests[WIRE_PREPARE], 1);
	tier_close(module);
	tier_disconnect(conn);
}

/* The optimizer makes the first code of one method: others' first calls don't wait for it. */
static void a_first_call_that_takes_long_keeps_nobody_else(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct crowd crowd = { .method = client_method(module, 0) };
	pthread_t thread;
	void *result;

	fake->twist_method = 1;
	fake_set_twist(fake, WIRE_PREPARE, TWIST_HOLD);
	pthread_barrier_init(&crowd.barrier, NULL, 1);
	assert_int_equal(pthread_create(&thread, NULL, crowd_main, &crowd), 0);
	fake_expect(&fake->n_held, 1);
	client_call(client_method(module, 2), 1);
	client_call(client_method(module, 4), 1);
	assert_int_equal(pthread_tryjoin_np(thread, &result), EBUSY);
	fake_expect(&fake->n_held, 2);			/* it asks again */
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	pthread_join(thread, NULL);
	assert_int_equal(crowd.n_wrong, 0);
	tier_close(module);
	tier_disconnect(conn);
}

static double first_call_ms(struct tier_method *method)
{
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	client_call(method, 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6;
}

/* However long it has taken already: it asks more and more rarely, and never longer. The better of two, for a busy machine. */
static void nor_do_others_wait_longer_when_it_asks_again(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct crowd crowd = { .method = client_method(module, 0) };
	double second_ms, third_ms;
	pthread_t thread;

	fake->twist_method = 1;
	fake_set_twist(fake, WIRE_PREPARE, TWIST_HOLD);
	pthread_barrier_init(&crowd.barrier, NULL, 1);
	assert_int_equal(pthread_create(&thread, NULL, crowd_main, &crowd), 0);
	fake_expect(&fake->n_held, 2);
	second_ms = first_call_ms(client_method(module, 2));
	fake_expect(&fake->n_held, 3);
	third_ms = first_call_ms(client_method(module, 4));
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	pthread_join(thread, NULL);
	assert_true(second_ms < 125 || third_ms < 125);
	tier_close(module);
	tier_disconnect(conn);
}

/* More threads than the daemon has waits for */
static void a_first_call_that_may_not_wait_there_waits_here(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct crowd crowd = { .method = client_method(module, 0) };
	pthread_t thread;

	fake_set_twist(fake, WIRE_PREPARE, TWIST_QUOTA);
	pthread_barrier_init(&crowd.barrier, NULL, 1);
	assert_int_equal(pthread_create(&thread, NULL, crowd_main, &crowd), 0);
	fake_expect(&fake->n_held, 2);
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	pthread_join(thread, NULL);
	assert_int_equal(crowd.n_wrong, 0);
	tier_close(module);
	tier_disconnect(conn);
}

struct victim {
	struct tier_method *method;
	int type;
	bool is_asynchronous, is_cleaned_up;
	uint64_t result;
};

static void victim_clean_up(void *context)
{
	((struct victim *)context)->is_cleaned_up = true;
}

static void *victim_main(void *context)
{
	struct victim *victim = context;
	int old;

	pthread_cleanup_push(victim_clean_up, victim);
	pthread_setcanceltype(victim->type, &old);
	victim->result = tier_entry(victim->method)(1, 2, 3, 4, 5);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return NULL;
}

/* A thread that is cancelled while it is in the prestub leaves it first: the lane works for the next one. */
static void a_canceled_thread_leaves_the_prestub_intact(void **state, int type)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct victim victim = { .method = client_method(module, 0), .type = type };
	pthread_t thread;
	void *result;

	fake_set_twist(fake, WIRE_PREPARE, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, victim_main, &victim), 0);
	fake_expect(&fake->n_held, 1);
	pthread_cancel(thread);
	assert_int_equal(pthread_tryjoin_np(thread, &result), EBUSY);
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	pthread_join(thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	assert_true(victim.is_cleaned_up);
	if (type == PTHREAD_CANCEL_DEFERRED)
		assert_int_equal(victim.result, fake_mix(1, 2, 3, 4, 5));
	client_call(client_method(module, 2), 1);
	tier_close(module);
	tier_disconnect(conn);
}

static void cancelling_a_thread_in_the_prestub_waits_for_its_call(void **state)
{
	a_canceled_thread_leaves_the_prestub_intact(state, PTHREAD_CANCEL_DEFERRED);
}

static void cancelling_it_asynchronously_unwinds_after_the_round_trip(void **state)
{
	a_canceled_thread_leaves_the_prestub_intact(state, PTHREAD_CANCEL_ASYNCHRONOUS);
}

/* -- Signals --- */
static struct tier_method *handler_method;
static uint64_t handler_result;

static void handler_calls(int number)
{
	handler_result = tier_entry(handler_method)(1, 2, 3, 4, 5);
}

static void *release_after_signal(void *context)
{
	struct fake *fake = context;

	fake_expect(&fake->n_held, 1);
	kill(getpid(), SIGUSR1);
	for (int i = 0; i < 100000 && !__atomic_load_n(&handler_result, __ATOMIC_ACQUIRE); i++)
		usleep(100);
	fake_set_twist(fake, fake->twist_type, TWIST_NONE);
	return NULL;
}

static void a_handler_that_interrupts_a_request_makes_a_first_call(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct sigaction action = { .sa_handler = handler_calls }, old;
	struct tier_answer answer;
	sigset_t mask;
	pthread_t thread;

	handler_method = client_method(module, 0);
	handler_result = 0;
	sigaction(SIGUSR1, &action, &old);
	fake_set_twist(fake, WIRE_STATUS, TWIST_HOLD);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);	/* the helper inherits it: this thread gets the signal */
	assert_int_equal(pthread_create(&thread, NULL, release_after_signal, fake), 0);
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	assert_int_equal(tier_status_ask(client_method(module, 2), &answer), 0);
	assert_int_equal(answer.stage, TIER_STAGE_COLD);
	pthread_join(thread, NULL);
	assert_int_equal(handler_result, fake_mix(1, 2, 3, 4, 5));
	sigaction(SIGUSR1, &old, NULL);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- What goes wrong --- */
static void failing_call_says(void **state, enum twist twist, const char *text)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect_for(fake, twist == TWIST_SILENT ? FAKE_SECOND / 10 : 10 * FAKE_SECOND);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_method *method = client_method(module, 4);
	uint32_t pending;

	fake_set_twist(fake, WIRE_PREPARE, twist);
	assert_true(call_fails(tier_entry(method)));
	assert_string_equal(failure_module, "demo");
	assert_string_equal(failure_method, "method4");
	if (!strstr(failure_text, text))
		fail_msg("'%s' does not say '%s'", failure_text, text);
	assert_true(failure_saw_signals_blocked);
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	assert_int_equal(tier_pending_all(conn, &pending), 0);	/* the other lane does not mind */
	tier_close(module);
	tier_disconnect(conn);
}

static void a_silent_daemon_ends_a_first_call_in_bounded_time(void **state)
{
	failing_call_says(state, TWIST_SILENT, "did not answer in time");
}

static void a_refusal_reaches_the_handler_with_its_sentence(void **state)
{
	failing_call_says(state, TWIST_REFUSE, "no room for you");
}

static void code_that_is_promised_and_missing_is_a_failure(void **state)
{
	failing_call_says(state, TWIST_LIE, "there is none");
}

static void a_first_call_survives_garbage(void **state)
{
	failing_call_says(state, TWIST_GARBAGE, "not a message of tierd");
}

static void a_first_call_survives_a_short_reply(void **state) { failing_call_says(state, TWIST_SHORT, "wrong size"); }
static void a_first_call_survives_a_long_reply(void **state) { failing_call_says(state, TWIST_LONG, "wrong size"); }
static void a_first_call_survives_another_reply(void **state)
{
	failing_call_says(state, TWIST_TYPE, "does not fit");
}

static void a_first_call_survives_a_future_reply(void **state)
{
	failing_call_says(state, TWIST_FUTURE, "nobody asked");
}

static void a_first_call_survives_another_version(void **state)
{
	failing_call_says(state, TWIST_VERSION, "another version");
}

static void a_first_call_survives_the_daemons_end(void **state)
{
	failing_call_says(state, TWIST_HANGUP, "the daemon closed it");
}

static void the_daemons_last_word_is_passed_on(void **state)
{
	failing_call_says(state, TWIST_LAST_WORD, "not polite");
}

static void a_late_reply_does_not_confuse_the_next_call(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect_for(fake, FAKE_SECOND / 5);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_twist(fake, WIRE_PREPARE, TWIST_HOLD);
	assert_true(call_fails(tier_entry(client_method(module, 0))));
	fake_set_twist(fake, WIRE_PREPARE, TWIST_NONE);
	client_call(client_method(module, 2), 1);
	client_call(client_method(module, 0), 1);
	tier_close(module);
	tier_disconnect(conn);
}

static int call_and_abort(void *context)
{
	tier_entry(context)(1, 2, 3, 4, 5);
	return 0;
}

static void the_default_handler_prints_one_line_and_aborts(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	int ends[2], saved = dup(2);
	char line[512] = { 0 };

	fake_set_twist(fake, WIRE_PREPARE, TWIST_REFUSE);
	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], 2);
	assert_int_equal(child_run(BY_FORK, call_and_abort, client_method(module, 0)), 128 + SIGABRT);
	dup2(saved, 2);
	close(ends[1]);
	assert_true(read(ends[0], line, sizeof(line) - 1) > 0);
	assert_string_equal(line, "libtier: demo:method0 cannot be called: no room for you\n");
	close(ends[0]);
	close(saved);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Imports --- */
static uint64_t host_subtract(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return a - b - c - d - e;
}

static void an_unbound_import_fails_by_name(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module = client_open(conn, "demo");
	tier_fn fn = tier_entry(client_method(module, 1));

	assert_true(call_fails(fn));
	assert_string_equal(failure_module, "demo");
	assert_string_equal(failure_method, "host0");
	assert_non_null(strstr(failure_text, "'host0' is not bound"));
	assert_true(failure_saw_signals_blocked);
	assert_int_equal(tier_bind(module, "host0", host_subtract), 0);
	assert_int_equal(fn(100, 1, 2, 3, 4), 90);
	assert_int_equal(tier_bind(module, "host0", NULL), 0);
	assert_true(call_fails(fn));
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Unwinding --- */
static __attribute__((noinline)) uint64_t unwind_caller(tier_fn fn)
{
	return fn(1, 2, 3, 4, 5) + 1;
}

static _Unwind_Reason_Code unwind_frame(struct _Unwind_Context *context, void *found)
{
	if (_Unwind_FindEnclosingFunction((void *)(_Unwind_GetIP(context) - 1)) == (void *)(uintptr_t)unwind_caller)
		*(bool *)found = true;
	return _URC_NO_REASON;
}

static bool unwind_found;

static void unwind_failure(const char *module, const char *method, const char *text)
{
	_Unwind_Backtrace(unwind_frame, &unwind_found);
	siglongjmp(failure_escape, 1);
}

static void a_backtrace_walks_through_the_prestub(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_twist(fake, WIRE_PREPARE, TWIST_REFUSE);
	unwind_found = false;
	tier_set_failure_handler(unwind_failure);
	if (sigsetjmp(failure_escape, 1) == 0)
		unwind_caller(tier_entry(client_method(module, 0)));
	tier_set_failure_handler(NULL);
	assert_true(unwind_found);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_first_call_runs_on_a_small_signal_stack(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module = client_open(conn, "demo");
	static char stack[16384];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) }, none = { .ss_flags = SS_DISABLE };
	struct sigaction action = { .sa_handler = handler_calls, .sa_flags = SA_ONSTACK }, old;

	handler_method = client_method(module, 0);
	handler_result = 0;
	sigaltstack(&alternate, NULL);
	sigaction(SIGUSR1, &action, &old);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &old, NULL);
	sigaltstack(&none, NULL);
	assert_int_equal(handler_result, fake_mix(1, 2, 3, 4, 5));
	tier_close(module);
	tier_disconnect(conn);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_first_call_keeps_all_arguments_and_errno),
		CASE(with_the_kernel_the_nth_call_fires_the_probe),
		CASE(without_the_kernel_the_nth_call_sends_a_note),
		CASE(a_call_that_finds_code_asks_nobody),
		CASE(a_direct_call_reaches_a_cold_callee),
		CASE(sixty_four_threads_at_once_share_one_request),
		CASE(a_first_call_that_takes_long_keeps_nobody_else),
		CASE(a_first_call_that_may_not_wait_there_waits_here),
		CASE(nor_do_others_wait_longer_when_it_asks_again),
		CASE(cancelling_a_thread_in_the_prestub_waits_for_its_call),
		CASE(cancelling_it_asynchronously_unwinds_after_the_round_trip),
		CASE(a_handler_that_interrupts_a_request_makes_a_first_call),
		CASE(a_silent_daemon_ends_a_first_call_in_bounded_time),
		CASE(a_refusal_reaches_the_handler_with_its_sentence),
		CASE(code_that_is_promised_and_missing_is_a_failure),
		CASE(a_first_call_survives_garbage),
		CASE(a_first_call_survives_a_short_reply),
		CASE(a_first_call_survives_a_long_reply),
		CASE(a_first_call_survives_another_reply),
		CASE(a_first_call_survives_a_future_reply),
		CASE(a_first_call_survives_another_version),
		CASE(a_first_call_survives_the_daemons_end),
		CASE(the_daemons_last_word_is_passed_on),
		CASE(a_late_reply_does_not_confuse_the_next_call),
		CASE(the_default_handler_prints_one_line_and_aborts),
		CASE(an_unbound_import_fails_by_name),
		CASE(a_backtrace_walks_through_the_prestub),
		CASE(a_first_call_runs_on_a_small_signal_stack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
