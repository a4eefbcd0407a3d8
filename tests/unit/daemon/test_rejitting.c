/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include "host.h"
#include "loading.h"
#include "rejitting.h"
#include "tiering/ledger.h"
#include "unit/worker/object.h"

/* Loads and rejits with real workers, a real checker thread and a real core; only the server is missing, whose part the test
 * plays, and nobody calls anything. */

#define PATIENCE_NS 60000000000u
#define UID 1000

struct server_load {
	bool done;
	unsigned int order;	/* of the end, from 1 */
	struct module *module;
	enum tier_error error;
	char text[512];
};

struct world {
	struct dispatch dispatch;
	struct pool *pool;
	struct task_thread *checker;
	struct core *core;
	void *ledger;
	struct loading loading;
	struct rejitting rejitting;
	struct module *module;
	struct task brake;	/* keeps the checker thread until it is let go */
	sem_t held, go;
	bool takes_jobs;	/* which the test ends; else every method is too large */
	uint64_t job;		/* the version of the newest */
};

static char worker_path[4096];
static unsigned int n_ended;

void server_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text)
{
	assert_false(load->done);
	load->done = true;
	load->order = ++n_ended;
	load->module = module;
	load->error = error;
	snprintf(load->text, sizeof(load->text), "%s", text ? text : "");
}

/* -- The core's outside --- */
static uint64_t op_now(void *context) { return 1000000000; }
static void op_arm(void *context, uint64_t deadline_ns) { }
static int op_first(void *context, void *host, const struct core_compile *compile, struct core_result *ret)
{
	return host_first(host, compile, ret);
}
static int op_stub(void *context, void *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret)
{
	return host_stub(host, method, cell, version, code, ret);
}
static int op_forwarder(void *context, void *host, uint32_t method, uint64_t target, struct core_code *ret)
{
	return host_forwarder(host, target, ret);
}
static void *op_alias(void *context, void *host, uint64_t address) { return host_alias(host, address); }
static int op_compile(void *context, void *host, const struct core_compile *compile)
{
	struct world *w = context;

	w->job = compile->version;
	return w->takes_jobs ? 0 : CORE_E_TOO_LARGE;
}
static void op_event(void *context, const struct tier_event *event) { }
static void op_changed(void *context, struct module *module, uint32_t method) { }

/* -- The world --- */
static const char target_source[] =
	"typedef unsigned long long u64;\n"
	"u64 counter; u64 plain(u64 x) { return x; }\n"
	"u64 area(u64 x) { return counter + x; }\n"
	"u64 (*const table[])(u64) = { area };\n";
static const char small_source[] = "typedef unsigned long long u64; extern u64 counter; u64 area(u64 x) { return counter * x; }\n"
				   "u64 lost(u64 x) { extern u64 nowhere; return nowhere + x; } u64 two(u64 x, u64 y) { return x * y; }\n";
static const char large_source[] = "typedef unsigned long long u64; extern u64 plain(u64); const char text[1000000] = { 1 };\n"
				   "u64 (*const to[])(u64) = { plain }; u64 area(u64 x) { return text[x] + to[x & 0](x); }\n";

static int memfd_with(const char *source, uint64_t *ret_n)
{
	struct object_file object = compile("clang", "-O2 -g", source);
	int fd = memfd_create("object", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, object.bytes, object.n, 0), object.n);
	*ret_n = object.n;
	free(object.bytes);
	return fd;
}

static void turn_until(struct world *w, const bool *done)
{
	const uint64_t deadline = clock_now_ns() + PATIENCE_NS;

	while (!*done) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&w->dispatch, 100), 0);
	}
}

static void world_init_core(struct world *w)
{
	static const struct core_ops ops = {
		.now = op_now, .wall = op_now, .arm = op_arm, .first = op_first, .stub = op_stub, .forwarder = op_forwarder,
		.alias = op_alias, .compile = op_compile, .event = op_event, .changed = op_changed,
	};
	const struct core_config config = {
		.threshold = 30, .call_counting = true, .jobs_per_uid = 1, .jobs_total = 1, .sweep_ns = 1000000000,
	};

	w->ledger = mmap(NULL, ledger_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w->ledger, MAP_FAILED);
	assert_int_equal(core_new(&w->core, &config, &ops, w, w->ledger, ledger_size()), 0);
}

static void world_load(struct world *w, const char *source)
{
	struct server_load load = { .done = false };
	uint64_t n;
	int fd = memfd_with(source, &n);

	assert_int_equal(loading_start(&w->loading, UID, "shapes", false, fd, n, &load), 0);
	turn_until(w, &load.done);
	if (!load.module)
		fail_msg("%s", load.text);
	w->module = load.module;
	close(fd);
}

static void world_init(struct world *w, uint64_t n_code)
{
	struct pool_config config = POOL_CONFIG_DEFAULT;

	*w = (struct world){ .module = NULL };
	config.worker_path = worker_path;
	assert_int_equal(dispatch_init(&w->dispatch), 0);
	assert_int_equal(pool_new(&w->pool, &w->dispatch, &config), 0);
	assert_int_equal(task_thread_new(&w->checker, &w->dispatch, "checker"), 0);
	world_init_core(w);
	loading_init(&w->loading);
	rejitting_init(&w->rejitting);
	window_init(&w->loading.window, 0);
	w->loading.core = w->rejitting.core = w->core;
	w->loading.pool = w->rejitting.pool = w->pool;
	w->loading.checker = w->rejitting.checker = w->checker;
	w->loading.n_code = n_code;
	w->rejitting.charges = &w->loading.charges;
	world_load(w, target_source);
	n_ended = 0;
}

static struct host *world_host(const struct world *w)
{
	return core_module_context(w->module);
}

static void world_remove_module(struct world *w)
{
	struct host *host = world_host(w);

	core_module_remove(w->module);
	w->module = NULL;
	if (w->checker)
		host_release(host, w->checker);
	else
		host_free(host);
}

/* In the order of the daemon's end */
static void world_deinit(struct world *w)
{
	w->checker = task_thread_free(w->checker);
	w->pool = pool_free(w->pool);
	loading_stop(&w->loading);
	rejitting_stop(&w->rejitting);
	if (w->module)
		world_remove_module(w);
	charge_table_deinit(&w->loading.charges);	/* all was given back */
	core_free(w->core);
	munmap(w->ledger, ledger_size());
	dispatch_deinit(&w->dispatch);
}

static uint32_t method_of(const struct world *w, const char *name)
{
	return symtab_find(world_host(w)->symtab, name);
}

static int rejit(struct world *w, const char *source, const char *symbol, bool force, struct server_load *load)
{
	uint64_t n;
	int fd = memfd_with(source, &n), r;

	*load = (struct server_load){ .done = false };
	r = rejitting_start(&w->rejitting, w->module, method_of(w, "area"), symbol, force, fd, n, load);
	close(fd);
	assert_false(load->done);
	return r;
}

static void rejit_and_wait(struct world *w, const char *source, const char *symbol, bool force, struct server_load *load)
{
	assert_int_equal(rejit(w, source, symbol, force, load), 0);
	turn_until(w, &load->done);
}

static void assert_refused(struct world *w, const char *source, const char *symbol, enum tier_error error, const char *word)
{
	const uint32_t before = core_method_body(w->module, method_of(w, "area"));
	struct server_load load;

	rejit_and_wait(w, source, symbol, false, &load);
	assert_null(load.module);
	assert_int_equal(load.error, error);
	if (!strstr(load.text, word))
		fail_msg("'%s' does not say '%s'", load.text, word);
	assert_int_equal(core_method_body(w->module, method_of(w, "area")), before);
}

/* -- Holding the checker thread --- */
static void brake_run(struct task *task)
{
	struct world *w = container_of(task, struct world, brake);

	sem_post(&w->held);
	sem_wait(&w->go);
}

static void brake_done(struct task *task) { }

static void world_hold_checker(struct world *w)
{
	sem_init(&w->held, 0, 0);
	sem_init(&w->go, 0, 0);
	w->brake = (struct task)TASK_NULL(w->brake);
	task_submit(w->checker, &w->brake, brake_run, brake_done);
	sem_wait(&w->held);
}

/* Until the worker is done with what it has, and the rest waits for the checker thread */
static void world_wait_for_worker(struct world *w, uint64_t n_jobs)
{
	const uint64_t deadline = clock_now_ns() + PATIENCE_NS;
	struct pool_stats stats;

	for (pool_stats(w->pool, &stats); stats.n_jobs < n_jobs; pool_stats(w->pool, &stats)) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&w->dispatch, 100), 0);
	}
}

/* -- Cases --- */
static void the_new_body_is_there_when_the_answer_comes(void **state)
{
	struct server_load load;
	struct world w;
	uint32_t area;

	world_init(&w, 0);
	area = method_of(&w, "area");
	assert_int_equal(core_prepare(w.module, area), 0);
	rejit_and_wait(&w, small_source, "", false, &load);
	if (load.module != w.module)
		fail_msg("%s", load.text);
	assert_int_equal(core_method_body(w.module, area), 1);
	assert_int_equal(core_answer(w.module, area).stage, TIER_STAGE_COLD);
	assert_non_null(host_body_current(world_host(&w), area));
	assert_int_equal(core_prepare(w.module, area), 0);
	assert_int_not_equal(core_answer(w.module, area).stage, TIER_STAGE_COLD);
	assert_null(core_check(w.core));
	assert_int_equal(core_revert(w.module, area), 0);
	assert_null(host_body_current(world_host(&w), area));
	rejit_and_wait(&w, large_source, "area", false, &load);	/* in the place of the first, whose charge goes */
	assert_ptr_equal(load.module, w.module);
	assert_int_equal(core_method_body(w.module, area), 2);
	assert_null(core_check(w.core));
	world_deinit(&w);
}

static void what_cannot_be_is_refused_and_nothing_changes(void **state)
{
	struct server_load load;
	struct world w;

	world_init(&w, 0);
	assert_refused(&w, "int data = 3;", "", TIER_ERROR_BAD_MODULE, "no functions");
	assert_refused(&w, small_source, "absent", TIER_ERROR_NO_METHOD, "no function 'absent'");
	assert_refused(&w, small_source, "two", TIER_ERROR_SIGNATURE, "two(u64 x, u64 y)");
	assert_refused(&w, small_source, "lost", TIER_ERROR_UNBOUND, "'nowhere'");
	rejit_and_wait(&w, small_source, "two", true, &load);
	assert_ptr_equal(load.module, w.module);
	assert_refused(&w, small_source, "lost", TIER_ERROR_UNBOUND, "'nowhere'");	/* the replaced one stays */
	world_deinit(&w);
}

static void a_method_that_does_not_exist_is_refused_at_once(void **state)
{
	struct server_load load = { .done = false };
	struct world w;
	uint64_t n;
	int fd;

	world_init(&w, 0);
	fd = memfd_with(small_source, &n);
	assert_int_equal(rejitting_start(&w.rejitting, w.module, 3, "", false, fd, n, &load), TIER_ERROR_NO_METHOD);
	assert_int_equal(rejitting_start(&w.rejitting, w.module, UINT32_MAX, "", false, fd, n, &load), TIER_ERROR_NO_METHOD);
	close(fd);
	world_deinit(&w);
	assert_false(load.done);
}

static void without_room_for_its_rodata_a_body_is_refused(void **state)
{
	struct world w;

	world_init(&w, 65536);
	assert_refused(&w, large_source, "", TIER_ERROR_CODE_FULL, "no room for");
	world_deinit(&w);
}

static void whoever_was_told_of_a_new_body_can_call_it(void **state)
{
	unsigned int n_replaced = 0;
	struct server_load load;
	struct world w;
	uint32_t area;

	world_init(&w, 4096);
	area = method_of(&w, "area");
	for (;;) {
		rejit_and_wait(&w, small_source, "", false, &load);
		if (!load.module)
			break;
		assert_int_equal(core_method_body(w.module, area), ++n_replaced);
		assert_int_equal(core_prepare(w.module, area), 0);
	}
	assert_int_equal(load.error, TIER_ERROR_CODE_FULL);
	assert_non_null(strstr(load.text, "no room for"));
	assert_true(n_replaced > 0);
	assert_int_equal(core_method_body(w.module, area), n_replaced);
	assert_int_not_equal(core_answer(w.module, area).stage, TIER_STAGE_COLD);
	assert_int_equal(core_prepare(w.module, method_of(&w, "plain")), 0);	/* which never was called */
	assert_int_equal(core_revert(w.module, area), 0);
	assert_int_equal(core_prepare(w.module, area), 0);			/* nor was its own body */
	assert_null(core_check(w.core));
	world_deinit(&w);
}

static void rejits_of_a_method_end_in_the_order_in_which_they_were_asked_for(void **state)
{
	struct server_load loads[12];
	struct world w;

	world_init(&w, 0);
	for (unsigned int i = 0; i < 12; i++)
		assert_int_equal(rejit(&w, i % 3 ? small_source : large_source, "area", false, &loads[i]), 0);
	for (unsigned int i = 0; i < 12; i++) {
		turn_until(&w, &loads[i].done);
		assert_int_equal(loads[i].order, i + 1);
		assert_ptr_equal(loads[i].module, w.module);
	}
	assert_int_equal(core_method_body(w.module, method_of(&w, "area")), 12);
	assert_null(core_check(w.core));
	world_deinit(&w);
}

/* -- Inliners --- */
#define INLINERS 150u	/* more than the core withdraws in one turn */

/* area, and functions whose optimized code has it inlined, as far as the core is told */
static void world_load_inliners(struct world *w)
{
	char source[256 + INLINERS * 64];
	int n = snprintf(source, sizeof(source), "typedef unsigned long long u64; u64 counter; u64 area(u64 x) { return counter + x; }\n");

	for (unsigned int i = 0; i < INLINERS; i++)
		n += snprintf(source + n, sizeof(source) - n, "u64 f%u(u64 x) { return area(x) + %u; }\n", i, i);
	world_remove_module(w);
	world_load(w, source);
	n_ended = 0;
}

/* As calls and a worker bring it to its final tier; its code is the one that it has. */
static void inline_area(struct world *w, uint32_t method, uint32_t area)
{
	struct arena *arena = world_host(w)->arena;
	const struct tier_record *record = arena_record(arena, method);
	struct core_result result = { .inlined = &area, .n_inlined = 1 };
	struct core_module_info info;

	assert_int_equal(core_prepare(w->module, method), 0);
	arena_counters(arena)[record->cell] = 0;
	core_module_info(w->module, &info);
	assert_int_equal(core_look(w->module, method), 1);
	result.code = (struct core_code){ .address = record->code, .size = 16, .code_used = info.code_used };
	core_compile_done(w->core, info.id, method, w->job, TIER_REASON_NONE, &result);
	assert_int_equal(core_answer(w->module, method).tier, TIER_LEVEL_TIER1);
}

static void a_body_that_many_inlined_goes_in_several_turns_and_in_order(void **state)
{
	struct server_load loads[2];
	unsigned int n_between = 0;
	uint32_t area;
	struct world w;

	world_init(&w, 0);
	world_load_inliners(&w);
	area = method_of(&w, "area");
	w.takes_jobs = true;
	for (uint32_t i = 0; i <= INLINERS; i++)
		if (i != area)
			inline_area(&w, i, area);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(rejit(&w, small_source, "area", false, &loads[i]), 0);
	while (!loads[1].done) {
		const uint64_t n = core_counters(w.core)->n_withdrawn;

		assert_int_equal(dispatch_turn(&w.dispatch, 100), 0);
		n_between += n && n < INLINERS;
		assert_true(!n || n == INLINERS || !core_method_body(w.module, area) || loads[0].done);
	}
	assert_true(n_between > 0);
	assert_true(loads[0].order == 1 && loads[1].order == 2 && loads[0].module && loads[1].module);
	assert_int_equal(core_method_body(w.module, area), 2);
	assert_int_equal(core_counters(w.core)->n_withdrawn, INLINERS);
	assert_null(core_check(w.core));
	world_deinit(&w);
}

static void a_module_that_goes_while_the_worker_reads_is_missed(void **state)
{
	struct server_load load;
	struct world w;

	world_init(&w, 0);
	assert_int_equal(rejit(&w, small_source, "area", false, &load), 0);
	world_remove_module(&w);
	turn_until(&w, &load.done);
	assert_int_equal(load.error, TIER_ERROR_NO_MODULE);
	world_deinit(&w);
}

static void a_module_that_goes_while_its_names_are_read_is_missed(void **state)
{
	struct server_load load;
	struct world w;

	world_init(&w, 0);
	world_hold_checker(&w);
	assert_int_equal(rejit(&w, small_source, "area", false, &load), 0);
	world_wait_for_worker(&w, 2);
	world_remove_module(&w);
	sem_post(&w.go);
	turn_until(&w, &load.done);
	assert_int_equal(load.error, TIER_ERROR_NO_MODULE);
	world_deinit(&w);
}

static void a_canceled_rejit_changes_nothing(void **state)
{
	struct server_load first, second;
	struct world w;

	world_init(&w, 0);
	assert_int_equal(rejit(&w, small_source, "area", false, &first), 0);
	rejitting_cancel(&w.rejitting, &first);		/* in the worker */
	assert_true(first.done);
	assert_int_equal(first.error, TIER_ERROR_CANCELED);
	world_hold_checker(&w);
	assert_int_equal(rejit(&w, small_source, "area", false, &second), 0);
	world_wait_for_worker(&w, 2);
	rejitting_cancel(&w.rejitting, &second);	/* in the thread, if it has got there */
	sem_post(&w.go);
	turn_until(&w, &second.done);
	assert_int_equal(second.error, TIER_ERROR_CANCELED);
	assert_int_equal(core_method_body(w.module, method_of(&w, "area")), 0);
	world_deinit(&w);
}

static void what_is_under_way_at_the_daemons_end_is_canceled(void **state)
{
	struct server_load loads[3];
	struct world w;

	world_init(&w, 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(rejit(&w, small_source, "area", false, &loads[i]), 0);
	turn_until(&w, &loads[0].done);
	world_deinit(&w);
	for (unsigned int i = 1; i < 3; i++) {
		assert_true(loads[i].done);
		assert_true(!loads[i].error || loads[i].error == TIER_ERROR_CANCELED);
	}
}

static int setup(void **state)
{
	ssize_t n = readlink("/proc/self/exe", worker_path, sizeof(worker_path) - 32);

	if (n < 0)
		return -1;
	worker_path[n] = '\0';
	for (int i = 0; i < 4; i++)
		*strrchr(worker_path, '/') = '\0';
	strcat(worker_path, "/tierd-worker");
	folder_make();
	return access(worker_path, X_OK);
}

static int teardown(void **state)
{
	return folder_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_new_body_is_there_when_the_answer_comes),
		cmocka_unit_test(what_cannot_be_is_refused_and_nothing_changes),
		cmocka_unit_test(a_method_that_does_not_exist_is_refused_at_once),
		cmocka_unit_test(without_room_for_its_rodata_a_body_is_refused),
		cmocka_unit_test(whoever_was_told_of_a_new_body_can_call_it),
		cmocka_unit_test(rejits_of_a_method_end_in_the_order_in_which_they_were_asked_for),
		cmocka_unit_test(a_body_that_many_inlined_goes_in_several_turns_and_in_order),
		cmocka_unit_test(a_module_that_goes_while_the_worker_reads_is_missed),
		cmocka_unit_test(a_module_that_goes_while_its_names_are_read_is_missed),
		cmocka_unit_test(a_canceled_rejit_changes_nothing),
		cmocka_unit_test(what_is_under_way_at_the_daemons_end_is_canceled),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
