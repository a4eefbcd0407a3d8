/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/loops.h"
#include "bytecode/profile.h"
#include "host.h"
#include "unit/worker/object.h"
#include "worker/job.h"

/* What the daemon makes of a method's loops, attributes and counts: patchpoints, first code, jobs. The core's words are the
 * test's: which body is in use, and where a version counts. */

#define N_METHODS_MAX 16
#define NO_CELL UINT32_MAX

struct module {
	uint32_t body[N_METHODS_MAX], cell[N_METHODS_MAX];
};

uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return module->body[method];
}

bool core_profile(const struct module *module, uint32_t method, uint32_t *ret_cell)
{
	*ret_cell = module->cell[method];
	return *ret_cell != NO_CELL;
}

static const char source[] =
	"typedef unsigned long long u64;\n"
	"#define AWAY __attribute__((noinline))\n"
	"#define TAG(t) __attribute__((btf_decl_tag(t)))\n"
	"AWAY u64 leaf(u64 x) { return x * 3; }\n"
	"AWAY u64 other(u64 x) { return x ^ 5; }\n"
	"AWAY u64 never(u64 x) { return x / 7; }\n"
	"AWAY u64 two(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s = s * 3 + leaf(i);\n"
	"	for (u64 i = 0; i < n; i++) s ^= leaf(s + i); return s; }\n"
	"AWAY u64 one(u64 n) { u64 s = 1; for (u64 i = 0; i < n; i++) s = s * s + leaf(i); return s; }\n"
	"AWAY TAG(\"tier:no_optimization\") u64 slow(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s += leaf(s); return s; }\n"
	"AWAY TAG(\"tier:aggressive_optimization\") u64 fast(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s += leaf(s); return s; }\n"
	"const volatile u64 knob = 77;\n"
	"struct ops { u64 (*f)(u64); u64 (*g)(u64); };\n"
	"const struct ops ops[2] = { { leaf, other }, { other, leaf } };\n"
	"u64 outer(u64 i) { if (i > 100) return never(i); return ops[i & 1].f(i) + two(i) + knob; }\n";

static const char straight[] = "typedef unsigned long long u64; u64 one(u64 n) { return n + 1; }\n";
static const char looping[] = "typedef unsigned long long u64;\n"
			      "u64 leaf(u64 n) { u64 s = n; for (u64 i = 0; i < n; i++) s = s * s + i; return s; }\n";

static const struct host_config everything = {
	.pgo = true, .osr = true, .osr_hit_limit = 7, .osr_counter_bump = 99, .osr_initial_counter = 500,
};

static struct window window;
static struct module module;

/* -- Worlds --- */
static struct host *host_make(const char *text, const struct host_config *config, uint64_t n_code)
{
	struct object_file object = compile("clang", "-O2 -g", text);
	struct host_plan plan = { .id = 1, .window = &window, .n_code = n_code, .config = *config };
	struct refusal refusal = { "" };
	struct host *host = NULL;
	void *bytes;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal) || host_build(&host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(object.bytes);
	assert_true(host->image.n_methods <= N_METHODS_MAX);
	module = (struct module){ .body = { 0 } };
	memset(module.cell, 0xff, sizeof(module.cell));
	host->module = &module;
	return host;
}

static uint32_t method_of(const struct host *host, const char *name)
{
	int64_t method = symtab_find(host->symtab, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

static struct core_code first_code(struct host *host, const char *name, enum tier_level level, uint32_t profile)
{
	const struct core_compile compile = { .method = method_of(host, name), .level = level, .profile = profile };
	struct core_result result = {};

	assert_int_equal(host_first(host, &compile, &result), 0);
	assert_int_equal(result.code.code_used, arena_code_used(host->arena));
	return result.code;
}

static const struct host_body *replace(struct host *host, const char *name, const char *text)
{
	struct object_file object = compile("clang", "-O2 -g", text);
	const uint32_t method = method_of(host, name);
	struct host_body *body;
	struct image image;
	struct refusal refusal;
	int64_t index;
	void *bytes;

	image = load(&object, &bytes);
	index = image_find_method(&image, name);
	if (host_bind(&body, host, method, &image, index, false, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(host_body_reserve(host, body, &image), 0);
	host_body_fill(body, &image, index);
	assert_int_equal(host_body_compile(host, body), 0);
	assert_int_equal(host_bodies_reserve(host), 0);
	host_body_free(host_body_exchange(host, method, body));
	module.body[method] = body->id;
	free(object.bytes);
	free(bytes);
	return body;
}

/* -- Traits --- */
static void traits_are_the_attributes_and_the_bodys_loops(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	const struct host_body *body;

	assert_int_equal(host_traits(host, method_of(host, "leaf"), 0), 0);
	assert_int_equal(host_traits(host, method_of(host, "two"), 0), CORE_TRAIT_LOOPS);
	assert_int_equal(host_traits(host, method_of(host, "slow"), 0), CORE_TRAIT_LOOPS | CORE_TRAIT_NO_OPTIMIZATION);
	assert_int_equal(host_traits(host, method_of(host, "fast"), 0), CORE_TRAIT_LOOPS | CORE_TRAIT_AGGRESSIVE_OPTIMIZATION);
	body = replace(host, "one", straight);
	assert_int_equal(host_traits(host, method_of(host, "one"), body->id), 0);
	assert_int_equal(host_traits(host, method_of(host, "one"), 0), CORE_TRAIT_LOOPS);
	body = replace(host, "leaf", looping);
	assert_int_equal(host_traits(host, method_of(host, "leaf"), body->id), CORE_TRAIT_LOOPS);
	host_free(host);
}

static void nothing_is_counted_without_pgo(void **state)
{
	const struct host_config config = { .osr = true, .osr_hit_limit = 1, .osr_counter_bump = 1, .osr_initial_counter = 1 };
	struct host *host = host_make(source, &everything, 0), *without = host_make(source, &config, 0);
	const uint32_t outer = method_of(host, "outer"), leaf = method_of(host, "leaf");
	const struct host_body *body;
	const uint32_t n = profile_n_words(image_method_insns(&host->image, outer), host->image.methods[outer].n_insns);
	uint32_t sum = 0;

	assert_int_equal(host_n_profile(host, outer, 0), n);
	assert_int_equal(n % 2, 0);
	assert_int_equal(host_n_profile(without, outer, 0), 0);
	for (uint32_t i = 0; i < host->image.n_methods; i++)
		sum += 2 * host_n_profile(host, i, 0);
	assert_int_equal(arena_layout(host->arena)->n_cells - arena_layout(without->arena)->n_cells, sum);
	body = replace(host, "leaf", looping);
	assert_int_equal(host_n_profile(host, leaf, body->id), profile_n_words(body->bound.insns, body->bound.n_insns));
	assert_int_not_equal(host_n_profile(host, leaf, body->id), host_n_profile(host, leaf, 0));
	host_free(without);
	host_free(host);
}

static void a_huge_method_is_not_instrumented(void **state)
{
	struct host *host = host_make("#define A(x) x x x x x x x x\n"
				      "long small(long x) { return x + 1; }\n"
				      "long huge(long x) { A(A(A(A(asm volatile(\"%0 += 1; %0 ^= 5; %0 *= 3\" : \"+r\"(x)););)))\n"
				      "	for (long i = 0; i < x; i++) asm volatile(\"%0 += 1\" : \"+r\"(x)); return x; }", &everything, 0);
	const struct core_code code = first_code(host, "huge", TIER_LEVEL_TIER0, 0);

	assert_int_equal(host_n_profile(host, method_of(host, "huge"), 0), 0);
	assert_true(host_n_profile(host, method_of(host, "small"), 0) > 0);
	assert_int_equal(arena_layout(host->arena)->n_patchpoints, 1);	/* but its loops have theirs */
	assert_int_equal(first_code(host, "huge", TIER_LEVEL_TIER0, 0).address, code.address);	/* it is there already */
	host_free(host);
}

/* -- Patchpoints --- */
static void patchpoints_are_numbered_by_methods_and_their_loops(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	const struct tier_layout *layout = arena_layout(host->arena);
	uint32_t number = 0, heads[8];

	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		const char *name = image_method_name(&host->image, i);
		const int64_t n = loops_find(image_method_insns(&host->image, i), host->image.methods[i].n_insns, heads);

		if (!strcmp(name, "slow") || !strcmp(name, "fast"))
			continue;	/* never at tier 0 */
		for (int64_t k = 0; k < n; k++, number++) {
			const struct tier_patchpoint *patchpoint = arena_patchpoint(host->arena, number);

			assert_int_equal(patchpoint->method, i);
			assert_int_equal(patchpoint->pc, heads[k]);
			assert_int_equal(patchpoint->number, number);
			assert_int_equal(patchpoint->limit, 7);
			assert_int_equal(patchpoint->bump, 99);
			assert_int_equal(patchpoint->code, 0);
			assert_int_equal(tier_layout_segment(layout, TIER_SEGMENT_RECORDS) + patchpoint->offset,
					 tier_layout_patchpoint(layout, number));
		}
	}
	assert_int_equal(number, 3);
	assert_int_equal(layout->n_patchpoints, number);
	host_free(host);
}

static void only_tier_0_of_the_own_body_has_patchpoints(void **state)
{
	const struct host_config none = { .pgo = true };
	struct host *host = host_make(source, &everything, 0), *without = host_make(source, &none, 0);
	const uint64_t plain = first_code(without, "two", TIER_LEVEL_TIER0, 0).size;

	assert_int_equal(arena_layout(without->arena)->n_patchpoints, 0);
	assert_true(first_code(host, "two", TIER_LEVEL_TIER0, 0).size > plain);
	assert_int_equal(first_code(host, "two", TIER_LEVEL_MIN_OPT_JITTED, 0).size, plain);
	assert_int_equal(first_code(host, "slow", TIER_LEVEL_MIN_OPT_JITTED, 0).size,
			 first_code(without, "slow", TIER_LEVEL_TIER0, 0).size);
	assert_int_equal(first_code(host, "leaf", TIER_LEVEL_TIER0, 0).size, first_code(without, "leaf", TIER_LEVEL_TIER0, 0).size);
	assert_int_equal(replace(host, "leaf", looping)->tier0.size, replace(without, "leaf", looping)->tier0.size);
	host_free(without);
	host_free(host);
}

static void a_span_that_is_too_small_does_without(void **state)
{
	static const char branches[] = "#define A(x) x x x x x x x x\n"
				       "long f(long x) { A(A(A(if (x & 1) asm volatile(\"%0 += 1\" : \"+r\"(x)); x >>= 1;)))\n"
				       "	for (long i = 0; i < x; i++) asm volatile(\"%0 += 1\" : \"+r\"(x)); return x; }";
	const struct host_config none = { .pgo = false };
	struct host *host = host_make(branches, &none, 1u << 20);
	const struct tier_layout *layout = arena_layout(host->arena);
	const uint64_t beside = layout->size - layout->segment[TIER_SEGMENT_CODE].size, most = TIER_SPAN_MAX - beside - 2 * 4096;

	host_free(host);
	host = host_make(branches, &everything, most - (1u << 20));
	assert_int_equal(arena_layout(host->arena)->n_patchpoints, 1);
	assert_true(host_n_profile(host, 0, 0) > 1000);
	host_free(host);
	host = host_make(branches, &everything, most);
	assert_int_equal(arena_layout(host->arena)->n_patchpoints, 0);
	assert_int_equal(host_n_profile(host, 0, 0), 0);
	assert_true(first_code(host, "f", TIER_LEVEL_TIER0, 0).size > 0);
	host_free(host);
}

/* -- Instrumented code --- */
static void instrumented_code_counts_in_cells_of_its_own(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	struct core_compile compile = { .method = method_of(host, "outer"), .level = TIER_LEVEL_TIER0_INSTRUMENTED, .profile = 100 };
	const struct core_code plain = first_code(host, "outer", TIER_LEVEL_TIER0, 0);
	const uint64_t n_owed = host->n_owed;
	struct core_code code, again;

	assert_int_equal(host_instrument(host, &compile, &code), 0);
	assert_true(code.size > plain.size && code.address >= plain.address + plain.size);
	assert_int_equal(host->n_owed, n_owed);		/* its first code is there */
	compile.profile = 200;
	assert_int_equal(host_instrument(host, &compile, &again), 0);
	assert_memory_not_equal(arena_alias(host->arena, code.address, code.size), arena_alias(host->arena, again.address, code.size),
				code.size);
	compile.body = replace(host, "one", straight)->id;
	compile.method = method_of(host, "one");
	assert_int_equal(host_instrument(host, &compile, &code), 0);
	assert_true(host_has_body(host, compile.method, compile.body) && !host_has_body(host, compile.method, compile.body + 1));
	host_free(host);
}

static void instrumented_code_leaves_what_first_calls_take(void **state)
{
	struct host *host = host_make(source, &everything, 16384);
	const struct core_compile compile = { .method = method_of(host, "outer"), .level = TIER_LEVEL_TIER0_INSTRUMENTED };
	struct core_code code;
	int r;

	while (!(r = host_instrument(host, &compile, &code)))
		;
	assert_int_equal(r, CORE_E_FULL);
	while (!(r = host_stub(host, compile.method, 0, 1, code.address, &code)))
		;
	assert_int_equal(r, CORE_E_FULL);
	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		if (i == compile.method)
			continue;
		first_code(host, image_method_name(&host->image, i), TIER_LEVEL_TIER0, 0);
		assert_int_equal(host_stub(host, i, i, i + 1, code.address, &code), 0);
	}
	assert_int_equal(host->n_owed, 0);
	host_free(host);
}

/* -- Jobs --- */
struct work {
	struct job_compile job;
	struct host_bodies bodies;
	void *input;
};

static struct work work_of(struct host *host, const char *name, enum tier_level level, uint32_t number)
{
	const struct core_compile compile = { .method = method_of(host, name), .level = level, .profile = number, .patchpoint = number };
	struct refusal refusal;
	struct work work;
	size_t n;
	int fd;

	assert_int_equal(host_compile_job(host, &compile, &work.bodies, &fd, &n), 0);
	work.input = malloc(n);
	assert_int_equal(pread(fd, work.input, n, 0), n);
	close(fd);
	if (!job_get_compile(&work.job, work.input, n, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(work.job.n_bodies, work.bodies.n);
	for (uint32_t i = 0; i < work.bodies.n; i++)
		assert_int_equal(work.job.bodies[i].method, work.bodies.methods[i]);
	return work;
}

static void work_end(struct work *work)
{
	free(work->job.bodies);
	free(work->input);
}

static const struct job_body *body_of(const struct work *work, const struct host *host, const char *name)
{
	for (uint32_t i = 0; i < work->job.n_bodies; i++)
		if (work->job.bodies[i].method == method_of(host, name))
			return &work->job.bodies[i];
	return NULL;
}

/* As instrumented code would: @n calls, each conditional taken every time, each call executed, each callx to @target. */
static void count(struct host *host, const char *name, uint32_t cell, uint32_t n, const char *target, bool reaches_never)
{
	const uint32_t method = method_of(host, name);
	const struct insn *insns = image_method_insns(&host->image, method);
	uint32_t *words = arena_counters(host->arena) + cell;
	struct profile_map *map;

	assert_int_equal(profile_map_new(&map, insns, host->image.methods[method].n_insns), 0);
	for (uint32_t i = 0; i < map->n_sites; i++) {
		const struct profile_site *site = &map->sites[i];
		const bool is_never = site->kind == PROFILE_CALL && (uint32_t)insns[site->pc].imm == method_of(host, "never");

		words[site->word] = is_never && !reaches_never ? 0 : n;
		if (site->kind == PROFILE_BRANCH || site->kind == PROFILE_CALLX)
			words[site->word + 1] = n;
		if (site->kind == PROFILE_CALLX) {
			const uint32_t index = method_of(host, target);
			const uint64_t address = tier_layout_method(arena_layout(host->arena), index,
								    arena_record(host->arena, index)->flags);

			memcpy(&words[profile_target(site)], &address, sizeof(address));
		}
	}
	free(map);
	module.cell[method] = cell;
}

static void without_a_profile_direct_callees_come_along(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	struct work work = work_of(host, "outer", TIER_LEVEL_TIER1, 0);

	assert_ptr_equal(body_of(&work, host, "outer"), &work.job.bodies[0]);
	assert_non_null(body_of(&work, host, "never"));
	assert_non_null(body_of(&work, host, "leaf"));		/* through two */
	assert_null(body_of(&work, host, "other"));
	assert_int_equal(work.job.bodies[0].n_profile, 0);
	work_end(&work);
	host_free(host);
}

static void a_profile_comes_along_and_says_who_may_be_inlined(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	const struct job_body *outer;
	struct work work;
	bool is_seen = false;

	count(host, "outer", 1000, 44, "other", false);
	count(host, "two", 2000, 55, "leaf", true);
	work = work_of(host, "outer", TIER_LEVEL_TIER1, 0);
	outer = body_of(&work, host, "outer");
	assert_int_equal(outer->profile[0].kind, PROFILE_ENTRY);
	assert_int_equal(outer->profile[0].n, 44);
	for (uint32_t i = 0; i < outer->n_profile; i++)
		if (outer->profile[i].kind == PROFILE_CALLX) {
			assert_int_equal(outer->profile[i].method, method_of(host, "other"));
			assert_int_equal(outer->profile[i].m, 44);
			is_seen = true;
		}
	assert_true(is_seen);
	assert_non_null(body_of(&work, host, "other"));		/* which a callx calls */
	assert_null(body_of(&work, host, "never"));		/* which is never called */
	assert_int_equal(body_of(&work, host, "two")->profile[0].n, 55);
	assert_int_equal(body_of(&work, host, "leaf")->n_profile, 0);
	work_end(&work);
	host_free(host);
}

static void garbage_in_the_cells_is_no_more_than_a_hint(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	uint32_t *cells = arena_counters(host->arena);
	struct work work;

	module.cell[method_of(host, "outer")] = 1000;
	module.cell[method_of(host, "two")] = arena_layout(host->arena)->n_cells - 2;	/* beyond the last */
	for (uint32_t round = 0; round < 50; round++) {
		for (uint32_t i = 1000; i < 1200; i++)
			cells[i] = round ? (uint32_t)random() * 2654435761u : UINT32_MAX;
		work = work_of(host, "outer", TIER_LEVEL_TIER1, 0);
		for (uint32_t i = 0; i < work.job.bodies[0].n_profile; i++)
			assert_true(work.job.bodies[0].profile[i].m <= work.job.bodies[0].profile[i].n);
		assert_int_equal(body_of(&work, host, "two") ? body_of(&work, host, "two")->n_profile : 0, 0);
		work_end(&work);
	}
	host_free(host);
}

static void another_bodys_counts_are_not_used(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	struct work work;

	count(host, "one", 1000, 44, "leaf", true);
	replace(host, "one", straight);
	work = work_of(host, "one", TIER_LEVEL_TIER1, 0);	/* its own body, whose promotion was under way */
	assert_int_equal(work.job.bodies[0].n_profile, 0);
	work_end(&work);
	host_free(host);
}

static void a_small_rodata_comes_along_with_its_pointers(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	struct host *large = host_make("const char big[70000] = { 1 }; long f(long x) { return big[x]; }\n", &everything, 0);
	struct work work = work_of(host, "outer", TIER_LEVEL_TIER1, 0), none;
	const struct job_compile *job = &work.job;
	uint64_t word;

	assert_int_equal(job->n_rodata, host->image.n_rodata);
	assert_memory_equal(job->rodata, host->image.rodata, job->n_rodata);
	assert_int_equal(job->n_relocs, 4);
	for (uint32_t i = 0; i < job->n_relocs; i++) {
		memcpy(&word, job->rodata + job->relocs[i].offset, sizeof(word));
		assert_int_equal(word, 0);
		assert_int_equal(job->relocs[i].ref, INSN_REF_METHOD);
	}
	none = work_of(large, "f", TIER_LEVEL_TIER1, 0);
	assert_null(none.job.rodata);
	assert_int_equal(none.job.n_relocs, 0);
	work_end(&none);
	work_end(&work);
	host_free(large);
	host_free(host);
}

static void each_level_gets_what_it_needs(void **state)
{
	struct host *host = host_make(source, &everything, 0);
	struct work work;

	count(host, "two", 2000, 55, "leaf", true);
	work = work_of(host, "two", TIER_LEVEL_TIER1_INSTRUMENTED, 3000);
	assert_int_equal(work.job.level, TIER_LEVEL_TIER1_INSTRUMENTED);
	assert_int_equal(work.job.profile, 3000);
	assert_int_equal(work.job.n_cells, arena_layout(host->arena)->n_cells);
	assert_int_equal(work.job.n_bodies, 1);			/* it inlines nothing */
	assert_int_equal(work.job.bodies[0].n_profile, 0);
	work_end(&work);

	work = work_of(host, "two", TIER_LEVEL_OSR, host->own[method_of(host, "two")].patchpoint + 1);
	assert_int_equal(work.job.level, TIER_LEVEL_OSR);
	assert_int_equal(work.job.osr_pc, arena_patchpoint(host->arena, host->own[method_of(host, "two")].patchpoint + 1)->pc);
	assert_int_equal(work.job.n_cells, 0);
	assert_int_equal(work.job.bodies[0].profile[0].n, 55);
	work_end(&work);
	host_free(host);
}

static int setup(void **state)
{
	folder_make();
	window_init(&window, 0);
	srandom(5);
	return 0;
}

static int teardown(void **state)
{
	return folder_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(traits_are_the_attributes_and_the_bodys_loops),
		cmocka_unit_test(nothing_is_counted_without_pgo),
		cmocka_unit_test(a_huge_method_is_not_instrumented),
		cmocka_unit_test(patchpoints_are_numbered_by_methods_and_their_loops),
		cmocka_unit_test(only_tier_0_of_the_own_body_has_patchpoints),
		cmocka_unit_test(a_span_that_is_too_small_does_without),
		cmocka_unit_test(instrumented_code_counts_in_cells_of_its_own),
		cmocka_unit_test(instrumented_code_leaves_what_first_calls_take),
		cmocka_unit_test(without_a_profile_direct_callees_come_along),
		cmocka_unit_test(a_profile_comes_along_and_says_who_may_be_inlined),
		cmocka_unit_test(garbage_in_the_cells_is_no_more_than_a_hint),
		cmocka_unit_test(another_bodys_counts_are_not_used),
		cmocka_unit_test(a_small_rodata_comes_along_with_its_pointers),
		cmocka_unit_test(each_level_gets_what_it_needs),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
