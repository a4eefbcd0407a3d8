/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <fcntl.h>
#include "kept.h"

/* Tracers that come after another: a tracer is freed, which leaves in the kernel what is kept as if it had been killed. */

#define RING (1u << 16)
#define N_METHODS 200	/* more than a ring of one page holds */
#define N_OURS 4	/* sites with a program */
#define N_KEPT (1 + 4 + N_OURS)
#define STREAM_MAX 500000u	/* a ring of 64 MiB has room for each twice: while one takes over, both tell */
#define STREAM_NS 20000u	/* from one to the next, so that there are some as long as tracers come and go */
#define N_TRACERS 4u

static const struct tracer_config usual = { .kernel = true, .ring_bytes = RING };
static const struct tracer_config tiny = { .kernel = true, .ring_bytes = 4096 };

static void begin(struct fixture *fixture, const struct tracer_config *config, struct kept *kept)
{
	fixture_init_with(fixture, config, kept);
	if (config->kernel && !tracer_is_attached(fixture->tracer))
		kept_clear(kept);
	if (config->kernel)
		fixture_need_kernel(fixture);
}

/* What a client has mapped; it stays when the daemon goes. */
static uint8_t *client_page(struct kept *kept)
{
	uint8_t *page;

	assert_int_equal(page_map(&page, kept->rows[kept_find(kept, "page")].fd), 0);
	return page;
}

/* As if other programs were attached: those of another version */
static void others(struct kept *kept)
{
	const int fd = kept->rows[kept_find(kept, "bss")].fd;
	struct tier_kernel_shared shared;
	const uint32_t key = 0;

	assert_int_equal(bpf_map_lookup_elem(fd, &key, &shared), 0);
	assert_true(shared.programs != 0);
	shared.programs ^= 2;
	assert_int_equal(bpf_map_update_elem(fd, &key, &shared, BPF_ANY), 0);
}

static int no_map(void)
{
	int fd = memfd_create("no map", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* A hit is told; once, as soon as the kernel is through with what was attached before. */
static void check_works(struct fixture *fixture, struct kept *kept, uint8_t *client)
{
	const uint64_t deadline = clock_now_ns() + PATIENCE_MS * 1000000ull;

	assert_true(tracer_is_attached(fixture->tracer));
	do {
		assert_true(clock_now_ns() < deadline);
		fixture->n_events = 0;
		hit(client, TIER_PROBE_THRESHOLD, 77, 88, 99, 0, 0);
		while (tracer_drain(fixture->tracer))
			;
		assert_true(fixture->n_events >= 1);
		assert_true(fixture->events[0].module == 77 && fixture->events[0].version == 99);
	} while (fixture->n_events != 1);
	assert_int_equal(kept_links(kept), N_OURS);
	assert_int_equal(kept->n, N_KEPT);
}

static void what_was_rung_while_nobody_was_there_is_delivered_once(void **state)
{
	struct fixture first, second;
	struct kept kept = { 0 };
	uint8_t *client;

	begin(&first, &usual, &kept);
	client = client_page(&kept);
	hit(client, TIER_PROBE_THRESHOLD, 1, 0, 1, 0, 0);
	expect_events(&first, 1);
	hit(client, TIER_PROBE_THRESHOLD, 1, 1, 1, 0, 0);	/* not read before the end */
	fixture_deinit(&first);
	for (uint32_t i = 2; i < 10; i++)
		hit(client, TIER_PROBE_THRESHOLD, 1, i, 1, 0, 0);
	begin(&second, &usual, &kept);
	expect_events(&second, 9);
	for (uint32_t i = 0; i < 9; i++)
		assert_int_equal(second.events[i].method, 1 + i);
	assert_int_equal(recover(&second), 0);
	check_works(&second, &kept, client);
	page_unmap(client);
	fixture_deinit(&second);
	kept_clear(&kept);
}

static void what_found_no_room_meanwhile_is_counted_and_delivered_from_the_map(void **state)
{
	bool has[N_METHODS] = { false };
	struct fixture fixture;
	struct kept kept = { 0 };
	uint64_t n_dropped;
	uint8_t *client;
	size_t n_ring;

	begin(&fixture, &tiny, &kept);
	client = client_page(&kept);
	fixture_deinit(&fixture);
	for (uint32_t i = 0; i < N_METHODS; i++)
		hit(client, TIER_PROBE_THRESHOLD, 9, i, 1, 0, 0);
	begin(&fixture, &tiny, &kept);
	n_dropped = stats_of(&fixture).n_dropped;
	n_ring = tracer_drain(fixture.tracer);
	assert_int_equal(n_ring + n_dropped, N_METHODS);
	assert_true(n_ring && n_dropped);
	assert_int_equal(recover(&fixture), n_dropped);
	for (size_t i = 0; i < fixture.n_events; i++)
		has[fixture.events[i].method] = true;
	for (uint32_t i = 0; i < N_METHODS; i++)
		assert_true(has[i]);
	fixture_deinit(&fixture);

	begin(&fixture, &tiny, &kept);		/* knows that all of it is dealt with; the count goes on */
	assert_int_equal(recover(&fixture), 0);
	assert_int_equal(stats_of(&fixture).n_dropped, n_dropped);
	for (uint32_t i = 0; i < N_METHODS; i++)
		hit(client, TIER_PROBE_THRESHOLD, 9, i, 2, 0, 0);
	assert_int_equal(stats_of(&fixture).n_dropped, 2 * n_dropped);
	assert_int_equal(recover(&fixture), n_dropped);
	page_unmap(client);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

/* A pass that was not finished is begun again. */
static void a_successor_of_one_that_died_while_it_recovered_recovers(void **state)
{
	struct fixture fixture;
	struct kept kept = { 0 };
	uint8_t *client;
	uint64_t when;

	begin(&fixture, &tiny, &kept);
	client = client_page(&kept);
	for (uint32_t i = 0; i < 3 * 256; i++)
		hit(client, TIER_PROBE_THRESHOLD, 9, i, 1, 0, 0);
	assert_int_equal(tracer_recover(fixture.tracer, &when), 0);
	assert_true(when);
	fixture_deinit(&fixture);
	begin(&fixture, &tiny, &kept);
	assert_true(recover(&fixture) > 0);
	page_unmap(client);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

struct stream {
	pthread_t thread;
	uint8_t *page;
	uint32_t n;
	bool is_over;
};

static void *stream_run(void *argument)
{
	struct stream *stream = argument;

	while (stream->n < STREAM_MAX && !__atomic_load_n(&stream->is_over, __ATOMIC_ACQUIRE)) {
		const uint64_t next = clock_now_ns() + STREAM_NS;

		hit(stream->page, TIER_PROBE_THRESHOLD, 5, stream->n++, 1, 0, 0);
		while (clock_now_ns() < next)
			;
	}
	return NULL;
}

static size_t stream_read(struct fixture *fixture, uint8_t *has)
{
	size_t n;

	while (tracer_drain(fixture->tracer))
		;
	for (size_t i = 0; i < fixture->n_events; i++)
		has[fixture->events[i].method] = 1;
	n = fixture->n_events;
	fixture->n_events = 0;
	assert_int_equal(stats_of(fixture).n_dropped, 0);
	return n;
}

/* Attaching is slow, so the same programs stay attached. */
static void the_same_programs_stay_attached(void **state)
{
	char names[N_KEPT][32];
	struct fixture fixture;
	struct kept kept = { 0 };
	uint64_t before;

	begin(&fixture, &usual, &kept);
	for (unsigned int i = 0; i < N_KEPT; i++)
		strcpy(names[i], kept.rows[i].name);
	fixture_deinit(&fixture);
	before = clock_now_ns();
	begin(&fixture, &usual, &kept);
	print_message("taken over in %.1f ms\n", (clock_now_ns() - before) / 1e6);
	assert_int_equal(kept.n, N_KEPT);
	for (unsigned int i = 0; i < N_KEPT; i++)	/* nothing was put or removed */
		assert_string_equal(kept.rows[i].name, names[i]);
	check_works(&fixture, &kept, fixture.page);
	tracer_fire(fixture.tracer, &(struct tier_event){ .kind = TIER_EVENT_PUBLISHED, .sequence = 4711 });
	expect_events(&fixture, 2);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

/* A link that is none, or one of another page, is worth nothing. */
static void links_that_lead_nowhere_are_replaced(void **state)
{
	struct fixture fixture;
	struct kept kept = { 0 };
	uint8_t *client;

	begin(&fixture, &usual, &kept);
	fixture_deinit(&fixture);
	kept_replace(&kept, "link.0.0", no_map());
	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	check_works(&fixture, &kept, client);
	fixture_deinit(&fixture);
	kept_remove(&kept, "page");
	page_unmap(client);
	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	check_works(&fixture, &kept, client);
	page_unmap(client);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

/* While tracers come and go, somebody rings all the time: every hit is told, those between two links twice. */
static void no_hit_is_missing_while_one_takes_over_from_another(void **state)
{
	const struct tracer_config large = { .kernel = true, .ring_bytes = 64u << 20 };
	uint8_t *has = calloc(STREAM_MAX, 1);
	struct fixture fixture;
	struct kept kept = { 0 };
	struct stream stream = { 0 };
	size_t n_told = 0;

	begin(&fixture, &large, &kept);
	stream.page = client_page(&kept);
	assert_int_equal(pthread_create(&stream.thread, NULL, stream_run, &stream), 0);
	for (unsigned int i = 0; i < N_TRACERS; i++) {
		n_told += stream_read(&fixture, has);
		fixture_deinit(&fixture);
		others(&kept);
		begin(&fixture, &large, &kept);
	}
	__atomic_store_n(&stream.is_over, true, __ATOMIC_RELEASE);
	pthread_join(stream.thread, NULL);
	n_told += stream_read(&fixture, has);
	for (uint32_t i = 0; i < stream.n; i++)
		assert_true(has[i]);
	print_message("%u hits, told %zu times by %u tracers\n", stream.n, n_told, N_TRACERS + 1);
	assert_int_equal(kept_links(&kept), N_OURS);
	page_unmap(stream.page);
	fixture_deinit(&fixture);
	kept_clear(&kept);
	free(has);
}

static void one_that_died_between_the_two_links_leaves_nothing_double(void **state)
{
	struct fixture fixture;
	struct kept kept = { 0 };
	uint8_t *client;

	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	assert_int_equal(kept_find(&kept, "link.0.1"), -1);
	kept_put(&kept, "link.0.1", kept.rows[kept_find(&kept, "link.0.0")].fd);
	kept_put(&kept, "link.31.0", kept.rows[kept_find(&kept, "link.1.0")].fd);	/* a site of a newer daemon's */
	fixture_deinit(&fixture);
	for (int i = 0; i < 3; i++) {
		begin(&fixture, &usual, &kept);
		check_works(&fixture, &kept, client);
		fixture_deinit(&fixture);
		others(&kept);		/* the next one takes the other turn */
	}
	page_unmap(client);
	kept_clear(&kept);
}

static void a_ring_that_is_there_keeps_its_size(void **state)
{
	const struct tracer_config larger = { .kernel = true, .ring_bytes = 2 * RING };
	struct bpf_map_info info = { 0 };
	uint32_t n = sizeof(info);
	struct fixture fixture;
	struct kept kept = { 0 };
	uint8_t *client;

	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	fixture_deinit(&fixture);
	hit(client, TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);
	begin(&fixture, &larger, &kept);
	expect_events(&fixture, 1);
	assert_int_equal(bpf_obj_get_info_by_fd(kept.rows[kept_find(&kept, "ring")].fd, &info, &n), 0);
	assert_int_equal(info.max_entries, RING);
	check_works(&fixture, &kept, client);
	page_unmap(client);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

/* -- What does not fit --- */
static int other_map(enum bpf_map_type type, uint32_t key, uint32_t value, uint32_t n)
{
	int fd = bpf_map_create(type, "other", key, value, n, NULL);

	assert_true(fd >= 0);
	return fd;
}

/* The counts of a daemon whose records look otherwise */
static int other_format(struct kept *kept)
{
	const int fd = kept->rows[kept_find(kept, "bss")].fd;
	struct tier_kernel_shared counts;
	const uint32_t key = 0;

	assert_int_equal(bpf_map_lookup_elem(fd, &key, &counts), 0);
	assert_int_equal(counts.format, TIER_KERNEL_FORMAT);
	counts.format++;
	assert_int_equal(bpf_map_update_elem(fd, &key, &counts, BPF_ANY), 0);
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void maps_that_do_not_fit_are_replaced_all_together(void **state)
{
	static const char *const names[] = {
		"ring", "ring", "newest", "newest", "limits", "bss",
	};
	struct kept kept = { 0 };
	struct fixture fixture;
	uint8_t *client;

	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	fixture_deinit(&fixture);
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		int fd = -1;

		hit(client, TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);	/* in a ring that is given up with the others */
		switch (i) {
		case 0: break;		/* missing */
		case 1: fd = no_map(); break;
		case 2: fd = other_map(BPF_MAP_TYPE_LRU_HASH, 16, 48, 8192); break;
		case 3: fd = other_map(BPF_MAP_TYPE_LRU_HASH, 16, sizeof(struct tier_kernel_event), 16); break;
		case 4: fd = other_map(BPF_MAP_TYPE_HASH, 4, 8, 4096); break;
		case 5: fd = other_format(&kept); break;
		}
		kept_replace(&kept, names[i], fd);
		begin(&fixture, &usual, &kept);
		assert_int_equal(tracer_drain(fixture.tracer), 0);
		assert_int_equal(stats_of(&fixture).n_dropped, 0);
		check_works(&fixture, &kept, client);
		fixture_deinit(&fixture);
	}
	page_unmap(client);
	kept_clear(&kept);
}

static int page_file(const uint8_t *bytes, size_t n, int seals)
{
	int fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(pwrite(fd, bytes, n, 0), n);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Their sites run in every client: not to the byte as ours, and it is another page. */
static void a_page_that_is_none_is_replaced_and_says_why(void **state)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	uint8_t bytes[2 * TIER_PROBE_PAGE_SIZE] = { 0 };
	struct kept kept = { 0 };
	struct fixture fixture;
	uint8_t *client;
	int ends[2];

	for (unsigned int i = 0; i < 7; i++) {
		int fd = -1;

		page_fill(bytes);
		switch (i) {
		case 0: fd = page_file(bytes, TIER_PROBE_PAGE_SIZE, seals & ~F_SEAL_WRITE); break;
		case 1: fd = page_file(bytes, TIER_PROBE_PAGE_SIZE - 1, seals); break;
		case 2: fd = page_file(bytes, sizeof(bytes), seals); break;
		case 3:
			bytes[TIER_PROBE_OFFSET(7)] ^= 1;
			fd = page_file(bytes, TIER_PROBE_PAGE_SIZE, seals);
			break;
		case 4:
			((struct tier_probe_header *)(bytes + TIER_PROBE_HEADER_OFFSET))->version++;
			fd = page_file(bytes, TIER_PROBE_PAGE_SIZE, seals);
			break;
		case 5:
			assert_int_equal(pipe(ends), 0);
			close(ends[1]);
			fd = ends[0];
			break;
		case 6:		/* the names of a version that knows other sites: that one is a page */
			bytes[100] ^= 1;
			fd = page_file(bytes, TIER_PROBE_PAGE_SIZE, seals);
			break;
		}
		assert_int_equal(page_check(fd) == NULL, i == 6);
		if (i < 4) {
			close(fd);
			continue;
		}
		kept_replace(&kept, "page", fd);
		begin(&fixture, &usual, &kept);
		client = client_page(&kept);
		check_works(&fixture, &kept, client);
		page_unmap(client);
		fixture_deinit(&fixture);
	}
	kept_clear(&kept);
}

/* -- With and without the kernel --- */
static void the_page_is_the_same_file_for_all_that_follow(void **state)
{
	const struct tracer_config socket = { .kernel = false };
	struct fixture fixture;
	struct kept kept = { 0 };
	struct stat first, now;

	begin(&fixture, &socket, &kept);
	assert_int_equal(kept.n, 1);
	assert_int_equal(fstat(tracer_page_fd(fixture.tracer), &first), 0);
	fixture_deinit(&fixture);
	begin(&fixture, &usual, &kept);
	assert_int_equal(fstat(tracer_page_fd(fixture.tracer), &now), 0);
	assert_true(now.st_ino == first.st_ino && now.st_dev == first.st_dev);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

static void one_that_is_not_to_use_the_kernel_gives_all_of_it_back(void **state)
{
	const struct tracer_config socket = { .kernel = false };
	struct fixture fixture;
	struct kept kept = { 0 };
	uint8_t *client;

	begin(&fixture, &usual, &kept);
	client = client_page(&kept);
	fixture_deinit(&fixture);
	hit(client, TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);
	begin(&fixture, &socket, &kept);
	assert_int_equal(kept.n, 1);		/* the page */
	assert_int_equal(tracer_sites(fixture.tracer), 0);
	hit(client, TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);
	assert_int_equal(tracer_drain(fixture.tracer), 0);
	assert_int_equal(recover(&fixture), 0);
	fixture_deinit(&fixture);

	begin(&fixture, &usual, &kept);		/* and the way back */
	assert_int_equal(tracer_drain(fixture.tracer), 0);
	check_works(&fixture, &kept, client);
	page_unmap(client);
	fixture_deinit(&fixture);
	kept_clear(&kept);
}

static void one_that_the_kernel_refuses_gives_all_of_it_back(void **state)
{
	struct fixture fixture;
	struct kept kept = { 0 };
	pid_t pid;

	begin(&fixture, &usual, &kept);
	fixture_deinit(&fixture);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			child_exit(false);
		fixture_init_with(&fixture, &usual, &kept);
		child_exit(!tracer_is_attached(fixture.tracer) && kept.n == 1 && kept_find(&kept, "page") == 0);
	}
	expect_child(pid);
	kept_clear(&kept);
}

static void a_store_that_takes_nothing_costs_the_successor_only(void **state)
{
	struct kept kept = { .is_broken = true };
	struct fixture fixture;

	begin(&fixture, &usual, &kept);
	hit(fixture.page, TIER_PROBE_THRESHOLD, 1, 2, 3, 0, 0);
	expect_events(&fixture, 1);
	assert_int_equal(kept.n, 0);
	fixture_deinit(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_rung_while_nobody_was_there_is_delivered_once),
		cmocka_unit_test(what_found_no_room_meanwhile_is_counted_and_delivered_from_the_map),
		cmocka_unit_test(a_successor_of_one_that_died_while_it_recovered_recovers),
		cmocka_unit_test(the_same_programs_stay_attached),
		cmocka_unit_test(links_that_lead_nowhere_are_replaced),
		cmocka_unit_test(no_hit_is_missing_while_one_takes_over_from_another),
		cmocka_unit_test(one_that_died_between_the_two_links_leaves_nothing_double),
		cmocka_unit_test(a_ring_that_is_there_keeps_its_size),
		cmocka_unit_test(maps_that_do_not_fit_are_replaced_all_together),
		cmocka_unit_test(a_page_that_is_none_is_replaced_and_says_why),
		cmocka_unit_test(the_page_is_the_same_file_for_all_that_follow),
		cmocka_unit_test(one_that_is_not_to_use_the_kernel_gives_all_of_it_back),
		cmocka_unit_test(one_that_the_kernel_refuses_gives_all_of_it_back),
		cmocka_unit_test(a_store_that_takes_nothing_costs_the_successor_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
