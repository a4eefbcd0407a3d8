/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include "kept.h"

/* The tracer against the real kernel. Where the kernel refuses probes (no privilege, no support) the cases that need
 * them are skipped, with the tracer's own sentence as the reason. */

#define N_THREADS 4
#define N_HITS 5000
#define N_METHODS 200	/* more than a ring of one page holds */
#define DRAIN_MAX 4096

static const struct tier_event published = {
	.kind = TIER_EVENT_PUBLISHED, .module = 5, .method = 6, .version = 7, .from = TIER_LEVEL_TIER0, .to = TIER_LEVEL_TIER1,
	.sequence = 8,
};

static void fixture_init(struct fixture *fixture, bool kernel, uint32_t ring_bytes)
{
	fixture_init_with(fixture, &(struct tracer_config){ .kernel = kernel, .ring_bytes = ring_bytes }, NULL);
}

static void fixture_init_attached(struct fixture *fixture, uint32_t ring_bytes)
{
	fixture_init(fixture, true, ring_bytes);
	fixture_need_kernel(fixture);
}

static pid_t thread_id(void)
{
	return syscall(SYS_gettid);
}

static void a_threshold_hit_arrives_with_its_arguments_and_its_thread(void **state)
{
	struct fixture fixture;
	const struct tier_kernel_event *event;
	uint64_t before, after;

	fixture_init_attached(&fixture, 1 << 16);
	assert_string_equal(tracer_status(fixture.tracer), "kernel probes");
	before = clock_now_ns();
	hit(fixture.page, TIER_PROBE_THRESHOLD, 0x1122334455667788, 77, 0x99aabbccddeeff00, 1, 2);
	after = clock_now_ns();
	expect_events(&fixture, 1);
	event = &fixture.events[0];
	assert_int_equal(event->probe, TIER_PROBE_THRESHOLD);
	assert_true(event->module == 0x1122334455667788 && event->version == 0x99aabbccddeeff00);
	assert_int_equal(event->method, 77);
	assert_int_equal(event->levels, 0);
	assert_true(event->sequence == 0);
	assert_int_equal(event->pid, getpid());
	assert_int_equal(event->tid, thread_id());
	assert_int_equal(event->uid, getuid());
	assert_true(event->time_ns >= before && event->time_ns <= after);
	fixture_deinit(&fixture);
}

static void a_hello_carries_its_nonce(void **state)
{
	struct fixture fixture;

	fixture_init_attached(&fixture, 1 << 16);
	hit(fixture.page, TIER_PROBE_HELLO, 0xfeedfacecafebeef, 0, 0, 0, 0);
	expect_events(&fixture, 1);
	assert_int_equal(fixture.events[0].probe, TIER_PROBE_HELLO);
	assert_true(fixture.events[0].module == 0xfeedfacecafebeef);
	fixture_deinit(&fixture);
}

static void what_the_daemon_publishes_is_in_the_ring_as_well(void **state)
{
	struct fixture fixture;
	struct tracer_stats stats;

	fixture_init_attached(&fixture, 1 << 16);
	tracer_fire(fixture.tracer, &published);
	expect_events(&fixture, 1);
	assert_int_equal(fixture.events[0].probe, TIER_PROBE_PUBLISH);
	assert_true(fixture.events[0].module == 5 && fixture.events[0].version == 7 && fixture.events[0].sequence == 8);
	assert_int_equal(fixture.events[0].method, 6);
	assert_int_equal(fixture.events[0].levels, 0 << 8 | 1);
	tracer_stats(fixture.tracer, &stats);
	assert_int_equal(stats.n_events[TIER_PROBE_PUBLISH], 1);
	assert_int_equal(stats.n_events[TIER_PROBE_THRESHOLD], 0);
	assert_int_equal(stats.n_dropped, 0);
	fixture_deinit(&fixture);
}

static void a_forked_child_that_maps_the_page_anew_is_heard(void **state)
{
	struct fixture fixture;
	pid_t pid;

	fixture_init_attached(&fixture, 1 << 16);
	for (int i = 0; i < 3; i++)	/* the parent's copy of the site is an optimized one by now */
		hit(fixture.page, TIER_PROBE_THRESHOLD, 1, i, 1, 0, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		uint8_t *page;

		if (page_map(&page, tracer_page_fd(fixture.tracer)))
			child_exit(false);
		for (int i = 0; i < 3; i++)
			hit(page, TIER_PROBE_THRESHOLD, 2, i, 1, 0, 0);
		child_exit(true);
	}
	expect_child(pid);
	expect_events(&fixture, 6);
	for (int i = 0; i < 6; i++) {
		assert_true(fixture.events[i].module == (i < 3 ? 1 : 2));
		assert_int_equal(fixture.events[i].method, i % 3);
		assert_int_equal(fixture.events[i].pid, i < 3 ? getpid() : pid);
	}
	fixture_deinit(&fixture);
}

/* The old mapping is gone in the child: a stale site cannot be called by mistake. */
static void the_page_does_not_survive_fork(void **state)
{
	struct fixture fixture;
	unsigned char resident;
	pid_t pid;

	fixture_init(&fixture, false, 4096);
	assert_int_equal(mincore(fixture.page, TIER_PROBE_PAGE_SIZE, &resident), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child_exit(mincore(fixture.page, TIER_PROBE_PAGE_SIZE, &resident) < 0 && errno == ENOMEM);
	expect_child(pid);
	fixture_deinit(&fixture);
}

struct hitter {
	pthread_t thread;
	uint8_t *page;
	uint64_t module;
	pid_t tid;
};

static void *hitter_run(void *argument)
{
	struct hitter *hitter = argument;

	hitter->tid = thread_id();
	for (uint32_t i = 0; i < N_HITS; i++)
		hit(hitter->page, TIER_PROBE_THRESHOLD, hitter->module, i, (uint64_t)i << 32, 0, 0);
	return NULL;
}

static void hits_of_many_threads_arrive_exactly_once_and_in_each_threads_order(void **state)
{
	struct hitter hitters[N_THREADS];
	uint32_t n_seen[N_THREADS] = { 0 };
	struct fixture fixture;

	fixture_init_attached(&fixture, 4 << 20);
	for (int i = 0; i < N_THREADS; i++) {
		hitters[i] = (struct hitter){ .page = fixture.page, .module = 100 + i };
		assert_int_equal(pthread_create(&hitters[i].thread, NULL, hitter_run, &hitters[i]), 0);
	}
	expect_events(&fixture, N_THREADS * N_HITS);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(hitters[i].thread, NULL);
	for (size_t i = 0; i < fixture.n_events; i++) {
		const struct tier_kernel_event *event = &fixture.events[i];
		unsigned int t = event->module - 100;

		assert_true(t < N_THREADS);
		assert_int_equal(event->tid, hitters[t].tid);
		assert_int_equal(event->method, n_seen[t]);
		n_seen[t]++;
	}
	fixture_deinit(&fixture);
}

static void a_turn_and_a_drain_are_bounded_and_the_next_goes_on(void **state)
{
	struct fixture fixture;
	size_t n_first;

	fixture_init_attached(&fixture, 1 << 20);
	for (uint32_t i = 0; i < 2 * DRAIN_MAX; i++)
		hit(fixture.page, TIER_PROBE_THRESHOLD, 1, i, 1, 0, 0);
	assert_int_equal(dispatch_turn(&fixture.dispatch, PATIENCE_MS), 0);
	n_first = fixture.n_events;
	assert_in_range(n_first, 1, DRAIN_MAX - 1);
	assert_int_equal(tracer_drain(fixture.tracer), DRAIN_MAX);
	assert_int_equal(fixture.n_events, n_first + DRAIN_MAX);
	expect_events(&fixture, 2 * DRAIN_MAX);
	for (uint32_t i = 0; i < fixture.n_events; i++)
		assert_int_equal(fixture.events[i].method, i);
	fixture_deinit(&fixture);
}

static void records_that_lead_to_work_are_taken_in_smaller_helpings(void **state)
{
	struct fixture fixture;

	fixture_init_attached(&fixture, 1 << 20);
	fixture.is_work = true;
	for (uint32_t i = 0; i < DRAIN_MAX; i++)
		hit(fixture.page, TIER_PROBE_THRESHOLD, 1, i, 1, 0, 0);
	assert_int_equal(tracer_drain(fixture.tracer), DRAIN_MAX / 8);
	fixture.is_work = false;
	assert_int_equal(tracer_drain(fixture.tracer), DRAIN_MAX - DRAIN_MAX / 8);
	fixture_deinit(&fixture);
}

static void a_full_ring_counts_what_it_lost_and_the_newest_map_has_it(void **state)
{
	struct fixture fixture;
	struct tracer_stats stats;
	uint64_t newest[N_METHODS] = { 0 };
	size_t n_ring;

	fixture_init_attached(&fixture, 4096);
	assert_int_equal(recover(&fixture), 0);
	for (uint64_t version = 1; version <= 2; version++)
		for (uint32_t i = 0; i < N_METHODS; i++)
			hit(fixture.page, TIER_PROBE_THRESHOLD, 9, i, version, 0, 0);
	n_ring = tracer_drain(fixture.tracer);
	assert_in_range(n_ring, 1, N_METHODS - 1);
	tracer_stats(fixture.tracer, &stats);
	assert_int_equal(stats.n_dropped, 2 * N_METHODS - n_ring);
	assert_int_equal(stats.n_events[TIER_PROBE_THRESHOLD], n_ring);

	assert_int_equal(recover(&fixture), 2 * N_METHODS - n_ring);
	assert_int_equal(fixture.n_events, n_ring + N_METHODS);
	for (size_t i = n_ring; i < fixture.n_events; i++) {
		const struct tier_kernel_event *event = &fixture.events[i];

		assert_true(event->module == 9 && event->method < N_METHODS);
		assert_int_equal(event->probe, TIER_PROBE_THRESHOLD);
		assert_int_equal(event->pid, getpid());
		assert_true(newest[event->method] == 0);
		newest[event->method] = event->version;
	}
	for (uint32_t i = 0; i < N_METHODS; i++)
		assert_true(newest[i] == 2);
	assert_int_equal(recover(&fixture), 0);
	fixture_deinit(&fixture);
}

static void a_ring_that_was_full_takes_records_again(void **state)
{
	struct fixture fixture;
	size_t n_ring;

	fixture_init_attached(&fixture, 4096);
	for (uint32_t i = 0; i < N_METHODS; i++)
		hit(fixture.page, TIER_PROBE_HELLO, i, 0, 0, 0, 0);
	n_ring = tracer_drain(fixture.tracer);
	for (uint32_t i = 0; i < n_ring; i++)
		assert_true(fixture.events[i].module == i);
	hit(fixture.page, TIER_PROBE_HELLO, 12345, 0, 0, 0, 0);
	expect_events(&fixture, n_ring + 1);
	assert_true(fixture.events[n_ring].module == 12345);
	fixture_deinit(&fixture);
}

static void a_tracer_that_is_switched_off_says_so_and_its_sites_do_nothing(void **state)
{
	struct fixture fixture;
	struct tracer_stats stats;

	fixture_init(&fixture, false, 1 << 16);
	assert_false(tracer_is_attached(fixture.tracer));
	assert_string_equal(tracer_status(fixture.tracer), "no kernel probes: switched off by configuration");
	tracer_fire(fixture.tracer, &published);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)	/* also those that no version has named yet */
		hit(fixture.page, i, 1, 2, 3, 4, 5);
	assert_int_equal(tracer_drain(fixture.tracer), 0);
	assert_int_equal(recover(&fixture), 0);
	tracer_stats(fixture.tracer, &stats);
	assert_int_equal(stats.n_dropped, 0);
	assert_int_equal(fixture.n_events, 0);
	fixture_deinit(&fixture);
}

static void without_privilege_the_tracer_exists_and_names_the_cause(void **state)
{
	pid_t pid;

	if (getuid() != 0) {
		print_message("skipped: takes root to become somebody else\n");
		skip();
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct fixture fixture;

		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			child_exit(false);
		fixture_init(&fixture, true, 1 << 16);
		print_message("status: %s\n", tracer_status(fixture.tracer));
		tracer_fire(fixture.tracer, &published);
		child_exit(!tracer_is_attached(fixture.tracer)
			   && strstr(tracer_status(fixture.tracer), "no kernel probes: ") == tracer_status(fixture.tracer)
			   && strstr(tracer_status(fixture.tracer), "not permitted") && tracer_drain(fixture.tracer) == 0);
	}
	expect_child(pid);
}

static void an_impossible_ring_is_a_sentence_not_a_failure(void **state)
{
	struct fixture fixture;

	fixture_init(&fixture, true, 0);
	assert_false(tracer_is_attached(fixture.tracer));
	assert_non_null(strstr(tracer_status(fixture.tracer), "no kernel probes: "));
	fixture_deinit(&fixture);
}

static void the_page_cannot_be_changed_by_anybody(void **state)
{
	struct fixture fixture;
	char path[64];
	int fd, page_fd;

	fixture_init(&fixture, false, 4096);
	page_fd = tracer_page_fd(fixture.tracer);
	assert_int_equal(write(page_fd, "x", 1), -1);
	assert_ptr_equal(mmap(NULL, TIER_PROBE_PAGE_SIZE, PROT_WRITE, MAP_SHARED, page_fd, 0), MAP_FAILED);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", page_fd);
	fd = open(path, O_RDWR | O_CLOEXEC);	/* its owner may open it, and is no further */
	if (fd >= 0) {
		assert_int_equal(write(fd, "x", 1), -1);
		assert_ptr_equal(mmap(NULL, TIER_PROBE_PAGE_SIZE, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
		assert_int_equal(ftruncate(fd, 0), -1);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
		close(fd);
	}
	fixture_deinit(&fixture);
}

static double hit_ns(uint8_t *page, int n)
{
	uint64_t before;

	for (int i = 0; i < 10; i++)
		hit(page, TIER_PROBE_HELLO, 0, 0, 0, 0, 0);
	before = clock_now_ns();
	for (int i = 0; i < n; i++)
		hit(page, TIER_PROBE_HELLO, 0, 0, 0, 0, 0);
	return (double)(clock_now_ns() - before) / n;
}

static void the_price_of_a_hit_is_printed(void **state)
{
	struct fixture fixture;

	fixture_init(&fixture, false, 4096);
	print_message("ns per hit, not attached: %.1f\n", hit_ns(fixture.page, 100000));
	fixture_deinit(&fixture);
	fixture_init_attached(&fixture, 4 << 20);
	print_message("ns per hit, attached: %.1f\n", hit_ns(fixture.page, 20000));
	fixture_deinit(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_threshold_hit_arrives_with_its_arguments_and_its_thread),
		cmocka_unit_test(a_hello_carries_its_nonce),
		cmocka_unit_test(what_the_daemon_publishes_is_in_the_ring_as_well),
		cmocka_unit_test(a_forked_child_that_maps_the_page_anew_is_heard),
		cmocka_unit_test(the_page_does_not_survive_fork),
		cmocka_unit_test(hits_of_many_threads_arrive_exactly_once_and_in_each_threads_order),
		cmocka_unit_test(a_turn_and_a_drain_are_bounded_and_the_next_goes_on),
		cmocka_unit_test(records_that_lead_to_work_are_taken_in_smaller_helpings),
		cmocka_unit_test(a_full_ring_counts_what_it_lost_and_the_newest_map_has_it),
		cmocka_unit_test(a_ring_that_was_full_takes_records_again),
		cmocka_unit_test(a_tracer_that_is_switched_off_says_so_and_its_sites_do_nothing),
		cmocka_unit_test(without_privilege_the_tracer_exists_and_names_the_cause),
		cmocka_unit_test(an_impossible_ring_is_a_sentence_not_a_failure),
		cmocka_unit_test(the_page_cannot_be_changed_by_anybody),
		cmocka_unit_test(the_price_of_a_hit_is_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
