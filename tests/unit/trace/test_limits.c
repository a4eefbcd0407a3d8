/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <signal.h>
#include "kept.h"

/* Who is heard, and how often: processes that flood, that pretend to be the daemon, and that live in other namespaces */

#define RING (1u << 20)
#define N_BELLS 200
#define N_METHODS 100
#define FLOOD 666

static void begin(struct fixture *fixture, uint32_t ring_bytes, uint32_t per_second)
{
	fixture_init_with(fixture, &(struct tracer_config){ .kernel = true, .ring_bytes = ring_bytes, .per_second = per_second }, NULL);
	fixture_need_kernel(fixture);
}

/* Shared with children */
struct tally {
	uint64_t n_hits;
	pid_t pid;
};

static struct tally *tally_new(void)
{
	struct tally *tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(tally != MAP_FAILED);
	return tally;
}

/* The child's copy of the parent's page is not there; it maps its own. */
static uint8_t *child_page(struct fixture *fixture)
{
	uint8_t *page;

	if (page_map(&page, tracer_page_fd(fixture->tracer)))
		child_exit(false);
	return page;
}

static pid_t flood_start(struct fixture *fixture, struct tally *tally)
{
	pid_t pid = fork();
	uint8_t *page;

	assert_true(pid >= 0);
	if (pid)
		return pid;
	page = child_page(fixture);
	for (;;) {
		__atomic_fetch_add(&tally->n_hits, 1, __ATOMIC_RELEASE);
		hit(page, TIER_PROBE_THRESHOLD, FLOOD, tally->n_hits % 50000, 1, 0, 0);
	}
}

static size_t n_of_module(const struct fixture *fixture, uint64_t module)
{
	size_t n = 0;

	for (size_t i = 0; i < fixture->n_events; i++)
		n += fixture->events[i].module == module;
	return n;
}

/* Every bell of a process that rings now and then comes through the ring while another floods. */
static void one_that_floods_leaves_room_for_others(void **state)
{
	struct tally *tally = tally_new();
	struct fixture fixture;
	struct tracer_stats stats;
	size_t n_flood;
	pid_t pid;

	begin(&fixture, RING, 1000);
	pid = flood_start(&fixture, tally);
	for (uint64_t i = 0; i < N_BELLS; i++) {
		const uint64_t n_flooded = __atomic_load_n(&tally->n_hits, __ATOMIC_ACQUIRE);
		const uint64_t deadline = clock_now_ns() + PATIENCE_MS * 1000000ull;

		while (__atomic_load_n(&tally->n_hits, __ATOMIC_ACQUIRE) < n_flooded + 100)
			assert_true(clock_now_ns() < deadline);
		hit(fixture.page, TIER_PROBE_THRESHOLD, 1, i, 1, 0, 0);
		while (n_of_module(&fixture, 1) <= i) {
			assert_int_equal(dispatch_turn(&fixture.dispatch, 100), 0);
			assert_true(clock_now_ns() < deadline);
		}
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	while (tracer_drain(fixture.tracer))
		;
	stats = stats_of(&fixture);
	n_flood = n_of_module(&fixture, FLOOD);
	print_message("%llu hits of a flood: %zu told, %llu not\n", (unsigned long long)tally->n_hits, n_flood,
		      (unsigned long long)stats.n_limited);
	assert_int_equal(n_of_module(&fixture, 1), N_BELLS);
	assert_int_equal(stats.n_dropped, 0);
	assert_true(stats.n_limited > n_flood);
	assert_in_range(n_flood + stats.n_limited, tally->n_hits - 1, tally->n_hits);	/* killed before its last */
	munmap(tally, sizeof(*tally));
	fixture_deinit(&fixture);
}

/* What it had too many of is not lost, only later. */
static void what_is_not_told_is_in_the_map(void **state)
{
	bool has[N_METHODS] = { false };
	struct fixture fixture;
	uint64_t when;
	size_t n;

	begin(&fixture, 4096, 1);
	for (uint32_t i = 0; i < N_METHODS; i++)
		hit(fixture.page, TIER_PROBE_THRESHOLD, 9, i, 1, 0, 0);
	n = tracer_drain(fixture.tracer);
	assert_in_range(n, 1, N_METHODS / 2);
	assert_int_equal(stats_of(&fixture).n_limited, N_METHODS - n);
	assert_int_equal(stats_of(&fixture).n_dropped, 0);
	assert_int_equal(recover(&fixture), N_METHODS - n);
	for (size_t i = 0; i < fixture.n_events; i++)
		has[fixture.events[i].method] = true;
	for (uint32_t i = 0; i < N_METHODS; i++)
		assert_true(has[i]);

	hit(fixture.page, TIER_PROBE_THRESHOLD, 9, 0, 2, 0, 0);	/* goes on: the next pass is not at once */
	assert_int_equal(tracer_recover(fixture.tracer, &when), 0);
	assert_true(when > clock_now_ns());
	assert_int_equal(recover(&fixture), 1);
	fixture_deinit(&fixture);
}

static void each_process_has_its_own_allowance(void **state)
{
	struct fixture fixture;
	size_t n_before;
	pid_t pid;

	begin(&fixture, 4096, 1);
	for (uint32_t i = 0; i < N_METHODS; i++)
		hit(fixture.page, TIER_PROBE_HELLO, i, 0, 0, 0, 0);
	n_before = tracer_drain(fixture.tracer);
	assert_true(n_before < N_METHODS);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		hit(child_page(&fixture), TIER_PROBE_HELLO, 4711, 0, 0, 0, 0);
		child_exit(true);
	}
	expect_child(pid);
	expect_events(&fixture, n_before + 1);
	assert_true(fixture.events[n_before].module == 4711);
	fixture_deinit(&fixture);
}

static void nobody_else_tells_what_the_daemon_tells(void **state)
{
	struct fixture fixture;
	pid_t pid;

	begin(&fixture, RING, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		hit(child_page(&fixture), TIER_PROBE_PUBLISH, 1, 2, 3, 4, 5);
		child_exit(true);
	}
	expect_child(pid);
	assert_int_equal(tracer_drain(fixture.tracer), 0);
	assert_int_equal(stats_of(&fixture).n_refused, 1);
	tracer_fire(fixture.tracer, &(struct tier_event){ .kind = TIER_EVENT_PUBLISHED, .module = 7 });
	expect_events(&fixture, 1);
	assert_int_equal(stats_of(&fixture).n_refused, 1);
	fixture_deinit(&fixture);
}

/* Processes and threads are told by their numbers in the initial namespace. */
static void a_process_of_other_namespaces_is_heard_and_named_as_seen_from_here(void **state)
{
	struct tally *tally = tally_new();
	struct fixture fixture;
	pid_t pid, inner;
	int status;

	begin(&fixture, RING, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
			child_exit(errno == EPERM || errno == EINVAL || errno == ENOSPC);
		inner = fork();
		if (inner == 0) {
			if (getpid() != 1)
				child_exit(false);
			hit(child_page(&fixture), TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);
			child_exit(true);
		}
		tally->pid = inner;
		child_exit(waitpid(inner, &status, 0) == inner && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	expect_child(pid);
	if (!tally->pid) {
		print_message("skipped: no namespaces here\n");
		fixture_deinit(&fixture);
		skip();
	}
	expect_events(&fixture, 1);
	assert_int_equal(fixture.events[0].pid, tally->pid);
	assert_int_equal(fixture.events[0].tid, tally->pid);
	assert_int_equal(fixture.events[0].uid, getuid());
	munmap(tally, sizeof(*tally));
	fixture_deinit(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_floods_leaves_room_for_others),
		cmocka_unit_test(what_is_not_told_is_in_the_map),
		cmocka_unit_test(each_process_has_its_own_allowance),
		cmocka_unit_test(nobody_else_tells_what_the_daemon_tells),
		cmocka_unit_test(a_process_of_other_namespaces_is_heard_and_named_as_seen_from_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
