/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>
#include "system/listener.h"
#include "system/solo.h"

/* The probe sites: what other tracers get there, and whom the daemon believes what it gets */

#define N_EVENTS 4096
#define MANY 40		/* methods of a module */

/* A loop that runs long enough to ask for optimized code */
#define LONG_N 3000000ul

static void need_root(void)
{
	if (getuid() == 0)
		return;
	print_message("skipped: takes root to attach to the probe page\n");
	skip();
}

static struct wire_stats stats_of(const struct daemon *daemon)
{
	struct wire_stats stats;
	int fd = raw_connect(daemon);

	raw_hello(fd, NULL);
	stats = raw_stats(fd);
	close(fd);
	return stats;
}

static struct tier_method *solo_load(const struct daemon *daemon, struct tier_conn *conn, const char *name,
				     struct tier_module **ret_module)
{
	struct tier_method *method;

	assert_done(tier_load(conn, bpf_compile(daemon->folder, name, SOLO_SOURCE, ""), name, 0, ret_module));
	assert_done(tier_find(*ret_module, "solo", &method));
	return method;
}

static void wait_idle(struct tier_conn *conn)
{
	uint32_t n;

	wait_until("nothing is pending", !tier_pending_all(conn, &n) && !n);
}

/* -- What is told --- */
static bool is_told_at(const struct tier_event *event, enum tier_probe *ret)
{
	static const struct { enum tier_event_kind kind; enum tier_probe probe; } sites[] = {
		{ TIER_EVENT_PUBLISHED, TIER_PROBE_PUBLISH }, { TIER_EVENT_COUNTING_BEGUN, TIER_PROBE_COUNTING_BEGUN },
		{ TIER_EVENT_DELAY_PAUSED, TIER_PROBE_DELAY_PAUSED }, { TIER_EVENT_DELAY_RESUMED, TIER_PROBE_DELAY_RESUMED },
		{ TIER_EVENT_COMPILE_STARTED, TIER_PROBE_COMPILE_STARTED }, { TIER_EVENT_COMPILE_ENDED, TIER_PROBE_COMPILE_ENDED },
	};

	for (size_t i = 0; i < sizeof(sites) / sizeof(sites[0]); i++)
		if (sites[i].kind == event->kind) {
			*ret = sites[i].probe;
			return true;
		}
	return false;
}

static void check_event(const struct daemon *daemon, const struct tier_event *event, const struct told *told)
{
	const uint64_t tiers = event->from << 8 | event->to;

	assert_int_equal(told->pid, daemon->pid);
	if (told->site == TIER_PROBE_DELAY_PAUSED || told->site == TIER_PROBE_DELAY_RESUMED) {
		assert_int_equal(told->args[0], event->uid);
		assert_int_equal(told->args[1], event->sequence);
		return;
	}
	assert_int_equal(told->args[0], event->module);
	assert_int_equal(told->args[1], event->method);
	assert_int_equal(told->args[2], event->version);
	assert_int_equal(told->args[3], told->site == TIER_PROBE_COMPILE_ENDED ? (uint64_t)event->reason << 16 | tiers : tiers);
	assert_int_equal(told->args[4], event->sequence);
}

/* What the daemon tells is the journal, event by event. */
static void check_daemon(const struct daemon *daemon, const struct listener *listener, const struct tier_event *events, size_t n)
{
	size_t at[_TIER_PROBE_N] = { 0 };
	enum tier_probe probe;

	for (size_t i = 0; i < n; i++) {
		const struct told *told;

		if (!is_told_at(&events[i], &probe))
			continue;
		told = listener_next(listener, probe, &at[probe]);
		if (!told)
			fail_msg("event %lu (%s) was not told", events[i].sequence, tier_event_name(events[i].kind));
		check_event(daemon, &events[i], told);
	}
	for (unsigned int i = 0; i < _TIER_PROBE_N; i++)
		if (at[i])
			assert_null(listener_next(listener, i, &at[i]));
	for (probe = TIER_PROBE_COUNTING_BEGUN; probe < _TIER_PROBE_N; probe++)
		assert_true(probe == TIER_PROBE_OSR_REQUESTED || at[probe]);
}

/* What clients tell: only those that don't use the socket */
static void check_clients(const struct listener *listener, const struct tier_event *events, size_t n)
{
	const struct told *told;
	size_t at = 0, n_thresholds = 0;

	assert_true(listener_count(listener, TIER_PROBE_HELLO) >= 1);
	if (!events_by_kernel()) {
		assert_int_equal(listener_count(listener, TIER_PROBE_THRESHOLD), 0);
		assert_int_equal(listener_count(listener, TIER_PROBE_OSR_REQUESTED), 0);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (events[i].kind != TIER_EVENT_THRESHOLD)
			continue;
		told = listener_next(listener, TIER_PROBE_THRESHOLD, &at);
		assert_non_null(told);
		assert_true(told->args[0] == events[i].module && told->args[1] == events[i].method && told->args[2] == events[i].version);
		assert_true(told->pid == (uint32_t)getpid() && told->tid == events[i].tid);
		n_thresholds++;
	}
	assert_true(n_thresholds >= 1);
	assert_int_equal(listener_count(listener, TIER_PROBE_THRESHOLD), n_thresholds);
	at = 0;
	told = listener_next(listener, TIER_PROBE_OSR_REQUESTED, &at);
	assert_non_null(told);
	assert_true(told->args[0] == events[0].module && told->args[1] == 0 && told->args[2] == 0);
}

static bool has_kind(const struct tier_event *events, size_t n, enum tier_event_kind kind)
{
	while (n)
		if (events[--n].kind == kind)
			return true;
	return false;
}

static void another_tracer_is_told_everything(bool by_name)
{
	struct tier_event *events = calloc(N_EVENTS, sizeof(*events));
	struct tier_module *module;
	struct tier_method *method;
	struct listener listener;
	struct tier_conn *conn;
	struct daemon daemon;
	size_t n;

	need_root();
	daemon_start(&daemon, ARGS("--call-counting-delay=20ms"));
	listener_start(&listener, &daemon, stats_of(&daemon).probe_page, by_name);
	conn = daemon_connect(&daemon);
	method = solo_load(&daemon, conn, "solo", &module);
	tier_entry(method)(SOLO_N, 0, 0, 0, 0);
	wait_until("code for the loop", (tier_entry(method)(LONG_N, 0, 0, 0, 0),
					 events_count(conn, module, method, TIER_EVENT_OSR_READY)));
	climb(method, (uint64_t[5]){ SOLO_N });
	wait_idle(conn);
	n = events_read(conn, 0, UINT32_MAX, events, N_EVENTS);
	assert_true(has_kind(events, n, TIER_EVENT_OSR_REQUESTED));
	listener_read(&listener);
	check_daemon(&daemon, &listener, events, n);
	check_clients(&listener, events, n);
	assert_int_equal(!!stats_of(&daemon).n_kernel_events[TIER_PROBE_OSR_REQUESTED], events_by_kernel());
	listener_stop(&listener);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
	free(events);
}

static void who_attaches_by_the_sites_names_is_told_everything(void **state) { another_tracer_is_told_everything(true); }
static void who_attaches_by_the_sites_offsets_is_told_everything(void **state) { another_tracer_is_told_everything(false); }

/* The page outlives the daemon, so what was attached to it hears the next one. */
static void what_is_attached_hears_the_next_daemon(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct listener listener;
	struct stat first, next;
	struct tier_conn *conn;
	struct daemon daemon;
	pid_t pid;
	size_t at = 0;
	const struct told *told;

	need_root();
	daemon_start_kept(&daemon, ARGS("--call-counting-delay=0"));
	assert_int_equal(stat(stats_of(&daemon).probe_page, &first), 0);
	listener_start(&listener, &daemon, stats_of(&daemon).probe_page, true);
	pid = daemon_main_pid(&daemon);
	daemon_kill_main(&daemon);
	assert_true(daemon_main_pid(&daemon) != pid);
	assert_int_equal(stat(stats_of(&daemon).probe_page, &next), 0);
	assert_true(first.st_ino == next.st_ino && first.st_dev == next.st_dev);
	conn = daemon_connect(&daemon);
	assert_int_equal(tier_conn_uses_kernel(conn, NULL), events_by_kernel());
	method = solo_load(&daemon, conn, "solo", &module);
	climb(method, (uint64_t[5]){ SOLO_N });
	wait_idle(conn);
	listener_read(&listener);
	told = listener_next(&listener, TIER_PROBE_PUBLISH, &at);
	assert_non_null(told);
	assert_int_equal(told->pid, daemon_main_pid(&daemon));
	assert_int_equal(!!listener_count(&listener, TIER_PROBE_THRESHOLD), events_by_kernel());
	if (events_by_kernel())
		assert_int_equal(stats_of(&daemon).n_thresholds[TIER_SOURCE_KERNEL], events_count(conn, module, method, TIER_EVENT_THRESHOLD));
	listener_stop(&listener);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Who is believed --- */
typedef void (*site_fn)(uint64_t a, uint64_t b, uint64_t c);

static uint8_t *page_of(const struct daemon *daemon)
{
	int page = -1, fd = raw_connect(daemon);
	uint8_t *guard;

	raw_hello(fd, &page);
	assert_true(page >= 0);
	guard = mmap(NULL, 3 * TIER_PROBE_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(mmap(guard + TIER_PROBE_PAGE_SIZE, TIER_PROBE_PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, page, 0)
		    != MAP_FAILED);
	close(page);
	close(fd);
	return guard + TIER_PROBE_PAGE_SIZE;
}

static void site_call(uint8_t *page, enum tier_probe probe, uint64_t a, uint64_t b, uint64_t c)
{
	((site_fn)(uintptr_t)(page + TIER_PROBE_OFFSET(probe)))(a, b, c);
}

/* The one threshold of the method */
static struct tier_event threshold_of(struct tier_conn *conn, struct tier_module *module, const struct tier_method *method)
{
	struct tier_event *events = calloc(N_EVENTS, sizeof(*events)), found = { 0 };
	size_t n = events_read(conn, tier_module_id(module), method_index(module, method), events, N_EVENTS);

	for (size_t i = 0; i < n; i++)
		if (events[i].kind == TIER_EVENT_THRESHOLD && !found.kind)
			found = events[i];
	free(events);
	assert_int_equal(found.kind, TIER_EVENT_THRESHOLD);
	return found;
}

static void need_kernel(void)
{
	if (events_by_kernel())
		return;
	print_message("skipped: about the kernel's path\n");
	skip();
}

struct outsider {
	const struct daemon *daemon;
	struct outsider_shared {
		pid_t pid;
	} *shared;
	bool is_in_namespaces;
};

/* A client of its own: opens the module by name, and makes the calls that are left. */
static void outsider_calls(const struct outsider *outsider)
{
	struct tier_conn *conn = daemon_connect(outsider->daemon);
	struct tier_module *module;
	struct tier_method *method;
	const char *why;

	child_assert(tier_conn_uses_kernel(conn, &why));
	child_assert(!tier_open(conn, "solo", &module) && !tier_find(module, "solo", &method));
	for (uint32_t n = tier_remaining(method); n; n--)
		child_assert(tier_entry(method)(SOLO_N, 0, 0, 0, 0) == solo(SOLO_N));
}

static void outsider_run(void *context)
{
	const struct outsider *outsider = context;
	pid_t inner;
	int status;

	if (!outsider->is_in_namespaces) {
		outsider->shared->pid = getpid();
		outsider_calls(outsider);
		return;
	}
	child_assert(!unshare(CLONE_NEWUSER | CLONE_NEWPID));
	inner = fork();
	if (inner == 0) {
		child_assert(getpid() == 1);
		outsider_calls(outsider);
		_exit(0);
	}
	outsider->shared->pid = inner;
	child_assert(waitpid(inner, &status, 0) == inner && WIFEXITED(status) && !WEXITSTATUS(status));
}

static void an_outsiders_threshold_is_believed(bool is_in_namespaces)
{
	struct outsider outsider = { .is_in_namespaces = is_in_namespaces };
	struct tier_module *module;
	struct tier_method *method;
	struct tier_event event;
	struct tier_conn *conn;
	struct daemon daemon;

	need_kernel();
	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--sweep=3600s"));
	outsider.daemon = &daemon;
	outsider.shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	conn = daemon_connect(&daemon);
	method = solo_load(&daemon, conn, "solo", &module);
	tier_entry(method)(SOLO_N, 0, 0, 0, 0);
	child_end(child_start(outsider_run, &outsider));
	event = threshold_of(conn, module, method);
	assert_int_equal(event.source, TIER_SOURCE_KERNEL);
	assert_int_equal(event.pid, outsider.shared->pid);
	assert_int_equal(event.tid, outsider.shared->pid);
	munmap(outsider.shared, 4096);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void a_forked_child_is_believed(void **state) { an_outsiders_threshold_is_believed(false); }
static void a_client_in_other_namespaces_is_believed_and_named_as_seen_from_here(void **state)
{
	an_outsiders_threshold_is_believed(true);
}

/* It has disconnected, so libtier rings no more; whoever has the page still can. */
static void who_has_closed_his_connection_is_believed(void **state)
{
	struct tier_conn *conn, *closed;
	struct tier_module *module, *mapped;
	struct tier_method *method, *called;
	struct tier_event event;
	struct daemon daemon;
	uint8_t *page;

	need_kernel();
	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--sweep=3600s"));
	conn = daemon_connect(&daemon);
	closed = daemon_connect(&daemon);
	page = page_of(&daemon);
	method = solo_load(&daemon, conn, "solo", &module);
	assert_done(tier_open(closed, "solo", &mapped));
	assert_done(tier_find(mapped, "solo", &called));
	tier_entry(called)(SOLO_N, 0, 0, 0, 0);
	while (tier_remaining(called) > 1)
		tier_entry(called)(SOLO_N, 0, 0, 0, 0);
	tier_disconnect(closed);
	wait_until("its session ends", stats_of(&daemon).n_sessions == 2);	/* the other one, and who asks */
	assert_int_equal(tier_entry(called)(SOLO_N, 0, 0, 0, 0), solo(SOLO_N));
	site_call(page, TIER_PROBE_THRESHOLD, tier_module_id(module), method_index(module, method), 1);
	event = threshold_of(conn, module, method);
	assert_int_equal(event.source, TIER_SOURCE_KERNEL);
	assert_int_equal(event.pid, getpid());
	tier_close(mapped);
	tier_close(module);
	tier_disconnect(conn);
	munmap(page - TIER_PROBE_PAGE_SIZE, 3 * TIER_PROBE_PAGE_SIZE);
	daemon_stop(&daemon);
}

/* -- Floods --- */
struct flood {
	const struct daemon *daemon;
	uint64_t *n_hits;
};

static void flood_run(void *context)
{
	struct flood *flood = context;
	uint8_t *page = page_of(flood->daemon);

	for (uint64_t i = 0;; i++) {
		site_call(page, i & 1 ? TIER_PROBE_THRESHOLD : TIER_PROBE_OSR_REQUESTED, i % 5, i % 7, i % 1000);
		__atomic_store_n(flood->n_hits, i + 1, __ATOMIC_RELEASE);
	}
}

static const char *many_source(void)
{
	static char source[MANY * 128];
	size_t n = 0;

	for (unsigned int i = 0; i < MANY; i++)
		n += snprintf(source + n, sizeof(source) - n, "unsigned long m%u(unsigned long n) { return n + %u; }\n", i, i);
	return source;
}

/* While a process rings without an end, another's thresholds all come by the kernel. */
static void a_flood_takes_no_bell_from_others(void **state)
{
	struct tier_event *events = calloc(N_EVENTS, sizeof(*events));
	struct flood flood;
	size_t n;
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *conn;
	struct wire_stats stats;
	struct daemon daemon;
	pid_t pid;

	need_kernel();
	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=2", "--sweep=3600s", "--ring-bytes=4M"));
	flood = (struct flood){ &daemon, mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) };
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, bpf_compile(daemon.folder, "many", many_source(), ""), NULL, 0, &module));
	pid = child_start(flood_run, &flood);
	for (uint32_t i = 0; i < MANY; i++) {
		const uint64_t n_hits = __atomic_load_n(flood.n_hits, __ATOMIC_ACQUIRE);

		wait_until("the flood goes on", __atomic_load_n(flood.n_hits, __ATOMIC_ACQUIRE) > n_hits + 1000);
		assert_done(tier_method_at(module, i, &method));
		for (unsigned int k = 0; k < 3; k++)
			tier_entry(method)(k, 0, 0, 0, 0);
	}
	wait_until("the flood is limited", stats_of(&daemon).n_kernel_limited);
	kill(pid, SIGKILL);
	child_reap(pid);
	wait_idle(conn);
	stats = stats_of(&daemon);
	print_message("%lu hits of a flood: %lu not told, %lu not confirmed\n", *flood.n_hits, stats.n_kernel_limited, stats.n_unconfirmed);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_KERNEL], MANY);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_SWEEP], 0);
	assert_true(stats.n_unconfirmed > 0);
	n = events_read(conn, tier_module_id(module), UINT32_MAX, events, N_EVENTS);
	assert_false(has_kind(events, n, TIER_EVENT_OSR_REQUESTED));
	free(events);
	munmap(flood.n_hits, 4096);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_attaches_by_the_sites_names_is_told_everything),
		cmocka_unit_test(who_attaches_by_the_sites_offsets_is_told_everything),
		cmocka_unit_test(what_is_attached_hears_the_next_daemon),
		cmocka_unit_test(a_forked_child_is_believed),
		cmocka_unit_test(a_client_in_other_namespaces_is_believed_and_named_as_seen_from_here),
		cmocka_unit_test(who_has_closed_his_connection_is_believed),
		cmocka_unit_test(a_flood_takes_no_bell_from_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
