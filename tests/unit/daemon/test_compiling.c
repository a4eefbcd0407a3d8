/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "compiling.h"
#include "unit/worker/object.h"
#include "util/dispatch.h"

/* Compiles between the core and the pool, both of which are the test's: what goes to a worker, what is made here and when, and
 * what becomes of either when its module goes. */

struct module {
	struct host *host;
	uint32_t body;		/* of the method "f" */
};

struct pool_job {
	pool_done_fn fn;
	void *context;
	bool is_hurried, is_canceled;
};

struct done {
	uint64_t version;
	enum tier_reason reason;
	struct core_code code;
};

static struct {
	struct dispatch dispatch;
	struct compiling compiling;
	struct caching caching;
	struct compiler compiler;
	struct module module;
	struct pool_job jobs[8];
	struct done done[8];
	unsigned int n_jobs, n_done;
	int refusal;	/* what the pool answers */
} world;

static struct window window;

/* -- The core and the pool --- */
struct module *core_module_by_id(struct core *core, uint64_t id)
{
	return id == world.module.host->id ? &world.module : NULL;
}

void *core_module_context(const struct module *module)
{
	return module->host;
}

void core_module_info(const struct module *module, struct core_module_info *ret)
{
	*ret = (struct core_module_info){ .uid = 1000 };
}

uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return method ? 0 : module->body;
}

bool core_profile(const struct module *module, uint32_t method, uint32_t *ret_cell)
{
	return false;
}

void core_compile_done(struct core *core, uint64_t module, uint32_t method, uint64_t version, enum tier_reason reason,
		       const struct core_result *result)
{
	world.done[world.n_done++] = (struct done){ version, reason, result->code };
}

int pool_submit(struct pool *pool, uid_t uid, enum job_kind kind, int input_fd, uint64_t n_input, pool_done_fn fn, void *context,
		struct pool_job **ret)
{
	if (world.refusal)
		return world.refusal;
	assert_int_equal(uid, 1000);
	assert_int_equal(kind, JOB_COMPILE);
	*ret = &world.jobs[world.n_jobs++];
	**ret = (struct pool_job){ .fn = fn, .context = context };
	return 0;
}

void pool_hurry(struct pool_job *job)
{
	job->is_hurried = true;
}

void pool_cancel(struct pool_job *job)
{
	job->is_canceled = true;
}

const struct compiler *pool_compiler(const struct pool *pool)
{
	return *world.compiler.version ? &world.compiler : NULL;
}

/* -- The world --- */
static int setup_with(const char *source)
{
	const struct host_plan plan = {
		.id = 5, .window = &window,
		.config = { .pgo = true, .osr = true, .osr_hit_limit = 1, .osr_counter_bump = 1, .osr_initial_counter = 1 },
	};
	struct object_file object = compile("clang", "-O2 -g", source);
	struct refusal refusal;
	void *bytes;
	size_t n;

	memset(&world, 0, sizeof(world));
	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal) || host_build(&world.module.host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(object.bytes);
	world.module.host->module = &world.module;
	assert_int_equal(dispatch_init(&world.dispatch), 0);
	compiling_init(&world.compiling, &world.dispatch);
	return 0;
}

static int setup(void **state)
{
	return setup_with("long f(long x) { return x & 1 ? x * 3 : x; }\n"
			  "long loop(long n) { long s = n; for (long i = 0; i < n; i++) s = s * s + i; return s; }\n");
}

static int setup_huge(void **state)
{
	return setup_with("#define A(x) x x x x x x x x x x\n"
			  "long huge(long x) { A(A(A(A(asm volatile(\"%0 += 1; %0 ^= 3; %0 += 1; %0 ^= 7\" : \"+r\"(x)););))) return x; }\n");
}

static int teardown(void **state)
{
	caching_stop(&world.caching);
	compiling_stop(&world.compiling);
	caching_close(&world.caching);
	dispatch_deinit(&world.dispatch);
	host_free(world.module.host);
	return 0;
}

static int start(uint64_t version, const char *name, enum tier_level level, bool is_urgent)
{
	const struct core_compile wanted = {
		.version = version, .method = symtab_find(world.module.host->symtab, name), .level = level, .is_urgent = is_urgent,
		.body = strcmp(name, "f") ? 0 : world.module.body, .profile = 100,
	};

	return compiling_start(&world.compiling, world.module.host, &wanted);
}

static void turn(void)
{
	assert_int_equal(dispatch_turn(&world.dispatch, 0), 0);
}

static void replace(void)
{
	struct object_file object = compile("clang", "-O2 -g", "long f(long x) { return x > 5 ? x - 1 : 7; }");
	struct host *host = world.module.host;
	struct refusal refusal;
	struct host_body *body;
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_int_equal(host_bind(&body, host, 0, &image, image_find_method(&image, "f"), false, &refusal), 0);
	assert_int_equal(host_body_reserve(host, body, &image), 0);
	host_body_fill(body, &image, image_find_method(&image, "f"));
	assert_int_equal(host_body_compile(host, body), 0);
	assert_int_equal(host_bodies_reserve(host), 0);
	host_body_free(host_body_exchange(host, 0, body));
	world.module.body = body->id;
	free(object.bytes);
	free(bytes);
}

/* -- Made here --- */
static void tier_0_that_counts_is_made_in_later_turns_one_in_each(void **state)
{
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	assert_int_equal(start(2, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	assert_int_equal(world.n_done, 0);
	turn();
	assert_int_equal(world.n_done, 1);
	turn();
	assert_int_equal(world.n_done, 2);
	turn();
	assert_int_equal(world.n_done, 2);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(world.done[i].version, i + 1);
		assert_int_equal(world.done[i].reason, TIER_REASON_NONE);
		assert_true(world.done[i].code.size > 0);
	}
	assert_int_equal(world.n_jobs, 0);	/* no worker was asked */
}

static void of_a_body_that_is_gone_nothing_is_made(void **state)
{
	replace();
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	replace();
	turn();
	assert_int_equal(world.n_done, 1);
	assert_int_equal(world.done[0].reason, TIER_REASON_REJIT);
	world.module.body = 0;
	assert_int_equal(start(2, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	turn();
	assert_int_equal(world.done[1].reason, TIER_REASON_NONE);
}

static void without_room_it_says_so(void **state)
{
	struct arena *arena = world.module.host->arena;

	arena_code_resume(arena, arena_layout(arena)->segment[TIER_SEGMENT_CODE].size - world.module.host->n_owed);
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	turn();
	assert_int_equal(world.done[0].reason, TIER_REASON_ARENA_FULL);
}

static void what_is_to_be_made_goes_with_its_module(void **state)
{
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER0_INSTRUMENTED, false), 0);
	assert_int_equal(start(2, "f", TIER_LEVEL_TIER1, false), 0);
	compiling_cancel(&world.compiling, world.module.host->id + 1);
	assert_false(world.jobs[0].is_canceled);
	compiling_cancel(&world.compiling, world.module.host->id);
	assert_true(world.jobs[0].is_canceled);
	turn();
	assert_int_equal(world.n_done, 0);
}

/* -- Made elsewhere --- */
static void only_what_a_caller_waits_for_is_hurried(void **state)
{
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER1, false), 0);
	assert_int_equal(start(2, "f", TIER_LEVEL_OPTIMIZED, true), 0);
	assert_int_equal(world.n_jobs, 2);
	assert_false(world.jobs[0].is_hurried);
	assert_true(world.jobs[1].is_hurried);
}

static void what_is_too_large_is_not_even_asked_for(void **state)
{
	assert_int_equal(start(1, "huge", TIER_LEVEL_TIER1, false), CORE_E_TOO_LARGE);
	assert_int_equal(start(2, "huge", TIER_LEVEL_OPTIMIZED, true), CORE_E_TOO_LARGE);
	assert_int_equal(world.n_jobs, 0);
}

static void a_shortage_is_handed_on(void **state)
{
	world.refusal = -EMFILE;
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER1, false), -EMFILE);
	world.refusal = 0;
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER1, false), 0);
}

/* What a worker would have made */
static void end_well(unsigned int job)
{
	static const uint8_t ret = 0xc3;
	const struct code_result code = { .bytes = &ret, .n_bytes = 1, .align = 16 };
	void *bytes;
	size_t n;

	assert_int_equal(job_put_code(&code, &bytes, &n), 0);
	world.jobs[job].fn(world.jobs[job].context, TIER_REASON_NONE, bytes, n, NULL);
}

static void code_for_loops_leaves_room_for_promotions(void **state)
{
	struct arena *arena = world.module.host->arena;
	const uint64_t size = arena_layout(arena)->segment[TIER_SEGMENT_CODE].size;

	assert_int_equal(arena_layout(arena)->n_patchpoints, 1);
	assert_int_equal(start(1, "loop", TIER_LEVEL_OSR, false), 0);
	end_well(0);
	assert_int_equal(world.done[0].reason, TIER_REASON_NONE);
	arena_code_resume(arena, size - size / 4 - world.module.host->n_owed + 16);
	assert_int_equal(start(2, "loop", TIER_LEVEL_OSR, false), 0);
	end_well(1);
	assert_int_equal(world.done[1].reason, TIER_REASON_ARENA_FULL);
	assert_int_equal(start(3, "loop", TIER_LEVEL_TIER1, false), 0);
	end_well(2);
	assert_int_equal(world.done[2].reason, TIER_REASON_NONE);
}

static void open_cache(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/cache", folder);
	assert_int_equal(caching_open(&world.caching, &world.dispatch, path, 1 << 20), 0);
	strcpy(world.compiler.version, "1");
	world.compiling.caching = &world.caching;
}

/* Turns until as many jobs were submitted, within seconds */
static void turns_until_jobs(unsigned int n)
{
	for (int i = 0; i < 200 && world.n_jobs < n; i++)
		assert_int_equal(dispatch_turn(&world.dispatch, 50), 0);
	assert_int_equal(world.n_jobs, n);
}

static void a_shortage_behind_the_cache_is_sat_out(void **state)
{
	open_cache();
	world.refusal = -EMFILE;
	assert_int_equal(start(1, "f", TIER_LEVEL_TIER1, false), 0);
	assert_int_equal(start(2, "f", TIER_LEVEL_OPTIMIZED, true), 0);
	while (world.caching.n_misses < 2)
		assert_int_equal(dispatch_turn(&world.dispatch, 5000), 0);
	assert_int_equal(world.n_done, 0);	/* nobody was given up */
	world.refusal = 0;
	turns_until_jobs(2);
	assert_false(world.jobs[0].is_hurried);
	assert_true(world.jobs[1].is_hurried);
	world.refusal = -EMFILE;
	assert_int_equal(start(3, "f", TIER_LEVEL_TIER1, false), 0);
	while (world.caching.n_misses < 3)
		assert_int_equal(dispatch_turn(&world.dispatch, 5000), 0);
	compiling_cancel(&world.compiling, world.module.host->id);
	world.refusal = 0;
	assert_int_equal(start(4, "f", TIER_LEVEL_TIER1, false), 0);
	turns_until_jobs(3);			/* not the one that was cancelled */
	world.refusal = -EINVAL;
	assert_int_equal(start(5, "f", TIER_LEVEL_TIER1, false), 0);
	while (!world.n_done)
		assert_int_equal(dispatch_turn(&world.dispatch, 5000), 0);
	assert_int_equal(world.done[0].version, 5);
	assert_int_equal(world.done[0].reason, TIER_REASON_NO_WORKER);
}

static void a_failure_and_garbage_end_with_their_reasons(void **state)
{
	const struct refusal refusal = { "a reason" };
	void *garbage = calloc(1, 64);

	assert_int_equal(start(1, "f", TIER_LEVEL_TIER1, false), 0);
	world.jobs[0].fn(world.jobs[0].context, TIER_REASON_WORKER_DIED, NULL, 0, &refusal);
	assert_int_equal(world.done[0].reason, TIER_REASON_WORKER_DIED);
	assert_int_equal(start(2, "f", TIER_LEVEL_TIER1, false), 0);
	world.jobs[1].fn(world.jobs[1].context, TIER_REASON_NONE, garbage, 64, NULL);
	assert_int_equal(world.done[1].reason, TIER_REASON_RESULT_REFUSED);
}

static int setup_group(void **state)
{
	folder_make();
	window_init(&window, 0);
	return 0;
}

static int teardown_group(void **state)
{
	return folder_remove();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(tier_0_that_counts_is_made_in_later_turns_one_in_each),
		TEST(of_a_body_that_is_gone_nothing_is_made),
		TEST(without_room_it_says_so),
		TEST(what_is_to_be_made_goes_with_its_module),
		TEST(only_what_a_caller_waits_for_is_hurried),
		cmocka_unit_test_setup_teardown(what_is_too_large_is_not_even_asked_for, setup_huge, teardown),
		TEST(a_shortage_is_handed_on),
		TEST(a_shortage_behind_the_cache_is_sat_out),
		TEST(code_for_loops_leaves_room_for_promotions),
		TEST(a_failure_and_garbage_end_with_their_reasons),
	};

	return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
