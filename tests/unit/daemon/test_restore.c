/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "host_file.h"
#include "host_kept.h"
#include "tiering/ledger.h"
#include "unit/worker/object.h"

/* Hosts and a real core over a takeover: what a predecessor had is saved, dropped and restored. Nobody calls anything: the test
 * counts, and plays the store. */

#define UID 1000

struct world {
	struct core *core;
	void *ledger;
	struct core_compile job;	/* the newest that the core asked for */
	uint32_t n_jobs;
};

/* A module, and what is left of it when its daemon has died */
struct kept {
	struct module *module;
	struct host *host;
	uint64_t id;
	int fds[_TIER_SEGMENT_N], host_fd, body_fd;
	uint32_t body;		/* whose file body_fd is */
	uint8_t *bytes[_TIER_SEGMENT_N];
	struct host_method *own;
	uint64_t n_owed;
	uint32_t n_bodies;
	int result;		/* host_restore()'s */
};

static struct window window;

/* -- The core's outside --- */
static uint64_t op_now(void *context) { return 1000000000; }
static void op_arm(void *context, uint64_t deadline_ns) { }
static uint32_t op_traits(void *context, void *host, uint32_t method, uint32_t body) { return host_traits(host, method, body); }
static uint32_t op_n_profile(void *context, void *host, uint32_t method, uint32_t body) { return host_n_profile(host, method, body); }
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

	w->job = *compile;
	w->n_jobs++;
	return 0;
}
static void op_event(void *context, const struct tier_event *event) { }
static void op_changed(void *context, struct module *module, uint32_t method) { }

static void world_start(struct world *w)
{
	static const struct core_ops ops = {
		.now = op_now, .wall = op_now, .arm = op_arm, .traits = op_traits, .n_profile = op_n_profile, .first = op_first,
		.stub = op_stub, .forwarder = op_forwarder, .alias = op_alias, .compile = op_compile, .event = op_event,
		.changed = op_changed,
	};
	const struct core_config config = {
		.threshold = 30, .call_counting = true, .jobs_per_uid = 8, .jobs_total = 8, .sweep_ns = 1000000000, .pgo = true,
	};

	w->n_jobs = 0;
	assert_int_equal(core_new(&w->core, &config, &ops, w, w->ledger, ledger_size()), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->ledger = mmap(NULL, ledger_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w->ledger, MAP_FAILED);
	world_start(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct module *module;

	while ((module = core_module_next(w->core, NULL))) {
		struct host *host = core_module_context(module);

		core_module_remove(module);
		host_free(host);
	}
	core_free(w->core);
	munmap(w->ledger, ledger_size());
	free(w);
	return 0;
}

/* -- Modules --- */
#define SHAPES                                                                                                         \
	"typedef unsigned long long u64;\n"                                                                            \
	"u64 counter; const volatile u64 knob = 5; const volatile unsigned char small = 1;\n"                          \
	"__attribute__((noinline)) u64 leaf(u64 x) { return x * 3 + knob + small; }\n"                                 \
	"__attribute__((noinline)) u64 area(u64 x) { counter += leaf(x); return counter; }\n"                          \
	"__attribute__((noinline)) u64 cold(u64 x) { return x ^ 5; }\n"                                                \
	"u64 loop(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) { s += i * s; s ^= n >> (i & 63); } return s; }\n"   \
	"struct ops { u64 (*f)(u64); u64 (*g)(u64); };\n"                                                              \
	"const struct ops ops[2] = { { leaf, area }, { area, leaf } };\n"                                              \
	"u64 outer(u64 i) { return ops[i & 1].f(i) + loop(i) + cold(i); }\n"
static const char shapes_source[] = SHAPES;
/* with one whose tier 0 is made ahead */
static const char huge_source[] = SHAPES
	"#define A(x) x x x x x x x x\n"
	"u64 huge(u64 x) { A(A(A(A(asm volatile(\"%0 += 1; %0 ^= 3; %0 += 5\" : \"+r\"(x));)))) return x; }\n";
static const char first_source[] = "typedef unsigned long long u64; extern u64 counter; u64 cold(u64);\n"
				   "const u64 mine[2] = { 11, 12 }; u64 (*const to[])(u64) = { cold };\n"
				   "u64 area(u64 x) { return counter * mine[x & 1] + to[x & 0](x); }\n";
static const char second_source[] = "typedef unsigned long long u64; u64 area(u64 x) { return x + 77; }\n";

static void module_add(struct world *w, struct kept *kept, struct host *host, const char *name)
{
	*kept = (struct kept){ .host = host, .id = host->id, .host_fd = -1, .body_fd = -1 };
	assert_int_equal(core_module_add(&kept->module, w->core, host->id, UID, name, false, arena_layout(host->arena),
					 arena_code_used(host->arena), arena_header(host->arena), arena_record(host->arena, 0),
					 arena_counters(host->arena), host), 0);
	host->module = kept->module;
}

static struct host_plan plan_of(struct world *w)
{
	return (struct host_plan){
		.id = core_take_module_id(w->core), .window = &window,
		.config = { .pgo = true, .osr = true, .osr_hit_limit = 7, .osr_counter_bump = 8, .osr_initial_counter = 9 },
	};
}

static void module_load(struct world *w, struct kept *kept, const char *source)
{
	struct object_file object = compile("clang", source == huge_source ? "-O1" : "-O2 -g", source);
	struct host_plan plan = plan_of(w);
	struct refusal refusal = { "" };
	struct host *host = NULL;
	void *bytes;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal) || host_build(&host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(object.bytes);
	module_add(w, kept, host, "shapes");
}

static uint32_t method_of(const struct kept *kept, const char *name)
{
	int64_t method = symtab_find(kept->host->symtab, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

static void prepare(const struct kept *kept, const char *name)
{
	assert_int_equal(core_prepare(kept->module, method_of(kept, name)), 0);
}

static void count_to(const struct kept *kept, const char *name, uint32_t left)
{
	const uint32_t method = method_of(kept, name);

	arena_counters(kept->host->arena)[arena_record(kept->host->arena, method)->cell] = left;
	core_look(kept->module, method);
}

/* -- Bodies --- */
static struct host_body *body_make(struct kept *kept, const char *source, bool save)
{
	struct object_file object = compile("clang", "-O2 -g", source);
	const uint32_t method = method_of(kept, "area");
	struct refusal refusal = { "" };
	struct host_body *body;
	struct image image;
	int64_t index;
	void *bytes;

	image = load(&object, &bytes);
	index = image_find_method(&image, "area");
	if (host_bind(&body, kept->host, method, &image, index, false, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(host_body_reserve(kept->host, body, &image), 0);
	host_body_fill(body, &image, index);
	assert_int_equal(host_body_compile(kept->host, body), 0);
	assert_int_equal(host_bodies_reserve(kept->host), 0);
	if (save) {
		close_fd(kept->body_fd);
		kept->body = body->id;
		kept->body_fd = host_body_save(kept->host, method, body, bytes, image.header->size, index);
		assert_true(kept->body_fd >= 0);
	}
	free(object.bytes);
	free(bytes);
	return body;
}

static void replace(struct kept *kept, const char *source)
{
	struct host_body *body = body_make(kept, source, true);
	const uint32_t method = method_of(kept, "area"), id = body->id;

	host_body_free(host_body_exchange(kept->host, method, body));
	assert_int_equal(core_rejit(kept->module, method, id), 0);
}

/* -- Dying, and coming again --- */
static uint8_t *bytes_of(const struct arena *arena, enum tier_segment segment)
{
	const size_t n = arena_layout(arena)->segment[segment].size;
	uint8_t *bytes = mmap(NULL, n, PROT_READ, MAP_SHARED, arena_own_fd(arena, segment), 0), *copy = malloc(n);

	memcpy(copy, bytes, n);
	munmap(bytes, n);
	return copy;
}

static void module_die(struct kept *kept)
{
	const struct host *host = kept->host;

	kept->host_fd = host_save(host);
	assert_true(kept->host_fd >= 0);
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		kept->fds[i] = fcntl(arena_own_fd(host->arena, i), F_DUPFD_CLOEXEC, 0);
		kept->bytes[i] = bytes_of(host->arena, i);
	}
	kept->n_owed = host->n_owed;
	kept->n_bodies = host->n_bodies;
	kept->own = malloc(host->image.n_methods * sizeof(*kept->own));
	memcpy(kept->own, host->own, host->image.n_methods * sizeof(*kept->own));
}

static void world_die(struct world *w)
{
	core_free(w->core);
	world_start(w);
}

static int take_body(void *context, uint64_t module, uint32_t body)
{
	struct kept *kept = context;

	assert_int_equal(module, kept->id);
	return body == kept->body ? TAKE_FD(kept->body_fd) : -1;
}

static bool module_restore(struct world *w, struct kept *kept, struct refusal *refusal)
{
	struct host_remains remains = { .core = w->core, .take_body = take_body, .context = kept, .host_fd = TAKE_FD(kept->host_fd) };

	kept->module = remains.module = core_module_by_id(w->core, kept->id);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		remains.fds[i] = TAKE_FD(kept->fds[i]);
	errno = ENOMEM;		/* whatever it says, only what fails here counts */
	kept->result = host_restore(&kept->host, &remains, refusal);
	if (kept->result)
		return false;
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		assert_int_equal(remains.fds[i], -1);
	assert_int_equal(remains.host_fd, -1);
	return true;
}

static void module_attach(struct kept *kept)
{
	struct arena *arena = kept->host->arena;

	core_module_attach(kept->module, arena_header(arena), arena_record(arena, 0), arena_counters(arena), kept->host);
}

static void expect_nothing_written(struct kept *kept)
{
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		uint8_t *bytes = bytes_of(kept->host->arena, i);

		assert_memory_equal(bytes, kept->bytes[i], arena_layout(kept->host->arena)->segment[i].size);
		free(TAKE_PTR(kept->bytes[i]));
		free(bytes);
	}
}

static void expect_same_room(struct kept *kept)
{
	const struct host *host = kept->host;

	assert_memory_equal(host->own, kept->own, host->image.n_methods * sizeof(*kept->own));
	assert_int_equal(host->n_owed, kept->n_owed);
	assert_int_equal(host->n_bodies, kept->n_bodies);
	free(TAKE_PTR(kept->own));
}

static void come_again(struct world *w, struct kept *kept)
{
	struct refusal refusal = { "" };

	if (!module_restore(w, kept, &refusal))
		fail_msg("%s", refusal.text);
	module_attach(kept);
	expect_nothing_written(kept);
	expect_same_room(kept);
	assert_null(core_check(w->core));
}

/* -- Cases --- */
static void a_module_at_every_stage_is_the_same_again(void **state)
{
	struct world *w = *state;
	struct kept kept;
	struct host *before;
	struct tier_answer answer;

	module_load(w, &kept, huge_source);
	before = kept.host;
	assert_int_equal(before->n_ahead, 1);
	prepare(&kept, "leaf");
	prepare(&kept, "area");
	prepare(&kept, "huge");
	prepare(&kept, "loop");
	count_to(&kept, "area", 7);
	count_to(&kept, "loop", 0);
	assert_int_equal(w->n_jobs, 1);
	module_die(&kept);
	world_die(w);
	come_again(w, &kept);
	for (uint32_t i = 0; i < before->image.n_methods; i++) {
		const char *name = image_method_name(&before->image, i);

		assert_int_equal(symtab_find(kept.host->symtab, name), i);
		assert_int_equal(host_traits(kept.host, i, 0), host_traits(before, i, 0));
		assert_int_equal(host_n_profile(kept.host, i, 0), host_n_profile(before, i, 0));
	}
	assert_memory_equal(kept.host->bytes, before->bytes, before->image.header->size);
	assert_memory_equal(&kept.host->config, &before->config, sizeof(before->config));
	assert_memory_equal(kept.host->ahead, before->ahead, sizeof(*before->ahead));
	answer = core_answer(kept.module, method_of(&kept, "area"));
	assert_int_equal(answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(answer.remaining, 7);
	assert_int_equal(core_answer(kept.module, method_of(&kept, "cold")).stage, TIER_STAGE_COLD);
	core_tick(w->core);
	assert_int_equal(w->n_jobs, 1);		/* begun by the predecessor, and begun again */
	assert_int_equal(w->job.method, method_of(&kept, "loop"));
	prepare(&kept, "cold");		/* its room is still there */
	assert_int_equal(kept.host->id, before->id);
	host_free(before);
}

static void a_successor_may_die_too(void **state)
{
	struct world *w = *state;
	struct kept kept;

	module_load(w, &kept, shapes_source);
	prepare(&kept, "area");
	for (int i = 0; i < 3; i++) {
		struct host *before = kept.host;

		count_to(&kept, "area", 20 - i);
		module_die(&kept);
		world_die(w);
		come_again(w, &kept);
		host_free(before);
		assert_int_equal(core_answer(kept.module, method_of(&kept, "area")).remaining, 20 - i);
	}
}

static void expect_same_body(const struct host_body *a, const struct host_body *b)
{
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->rodata, b->rodata);
	assert_int_equal(a->tier0.address, b->tier0.address);
	assert_int_equal(a->tier0.size, b->tier0.size);
	assert_int_equal(a->stub, b->stub);
	assert_int_equal(a->bound.n_insns, b->bound.n_insns);
	assert_memory_equal(a->bound.insns, b->bound.insns, a->bound.n_insns * sizeof(struct insn));
	assert_int_equal(a->n_profile, b->n_profile);
	assert_int_equal(a->has_loops, b->has_loops);
	assert_int_equal(a->signature_hash, b->signature_hash);
	assert_string_equal(a->signature, b->signature);
	assert_string_equal(a->section, b->section);
}

/* @prepared: its tier 0 is counted, so the room for its stub is taken */
static void body_story(struct world *w, bool prepared)
{
	struct kept kept;
	struct host *before;
	uint32_t area;

	module_load(w, &kept, shapes_source);
	area = method_of(&kept, "area");
	prepare(&kept, "area");
	replace(&kept, first_source);
	if (prepared)
		prepare(&kept, "area");
	before = kept.host;
	assert_int_equal(before->bodies[area]->stub == 0, prepared);
	module_die(&kept);
	world_die(w);
	come_again(w, &kept);
	assert_int_equal(core_method_body(kept.module, area), 1);
	expect_same_body(host_body_current(kept.host, area), before->bodies[area]);
	prepare(&kept, "area");
	assert_int_equal(core_answer(kept.module, area).stage, TIER_STAGE_COUNTING);
	assert_int_equal(core_revert(kept.module, area), 0);
	replace(&kept, second_source);
	assert_int_equal(core_method_body(kept.module, area), 2);
	host_free(before);
}

static void a_replaced_body_comes_back_with_what_it_had(void **state)
{
	body_story(*state, true);
}

static void a_body_that_was_never_called_keeps_its_room(void **state)
{
	body_story(*state, false);
}

/* The file was put, and the daemon died before the ledger had the body: the one before is in its place. */
static void a_body_that_the_ledger_does_not_know_is_not_asked_for(void **state)
{
	struct world *w = *state;
	struct host_body *body;
	struct host *before;
	struct kept kept;
	uint32_t area;

	module_load(w, &kept, shapes_source);
	area = method_of(&kept, "area");
	replace(&kept, first_source);
	prepare(&kept, "area");
	body = body_make(&kept, second_source, false);
	before = kept.host;
	module_die(&kept);
	world_die(w);
	kept.n_bodies = 1;	/* its id may be given again */
	come_again(w, &kept);
	assert_int_equal(host_body_current(kept.host, area)->id, 1);
	host_body_free(body);
	host_free(before);
}

static void a_reverted_body_may_be_gone(void **state)
{
	struct world *w = *state;
	struct host *before;
	struct kept kept;
	uint32_t area;

	module_load(w, &kept, shapes_source);
	area = method_of(&kept, "area");
	replace(&kept, first_source);
	prepare(&kept, "area");
	assert_int_equal(core_revert(kept.module, area), 0);
	before = kept.host;
	kept.body_fd = close_fd(kept.body_fd);
	module_die(&kept);
	world_die(w);
	come_again(w, &kept);
	assert_null(host_body_current(kept.host, area));
	prepare(&kept, "area");
	host_free(before);
}

/* -- Instantiations --- */
static void instantiate(struct world *w, struct kept *kept, struct kept *base)
{
	struct host_plan plan = plan_of(w);
	struct host_knobs knobs = { .n = 0 };
	struct host_knob knob;
	struct refusal refusal;
	struct host *host;

	assert_true(host_find_knob(&knob, base->host, "knob", 99, &refusal) && host_add_knob(&knobs, base->host, &knob, &refusal));
	assert_true(host_find_knob(&knob, base->host, "small", 4, &refusal) && host_add_knob(&knobs, base->host, &knob, &refusal));
	assert_int_equal(host_instantiate(&host, &plan, base->host, &knobs, &refusal), 0);
	module_add(w, kept, host, "instance");
	base->host->n_instances++;
}

static void an_instantiation_finds_its_base_again(void **state)
{
	struct world *w = *state;
	struct host *before[2];
	struct kept base, kept;

	module_load(w, &base, shapes_source);
	instantiate(w, &kept, &base);
	prepare(&kept, "area");
	prepare(&base, "leaf");
	before[0] = base.host;
	before[1] = kept.host;
	module_die(&base);
	module_die(&kept);
	world_die(w);
	come_again(w, &base);
	come_again(w, &kept);
	assert_ptr_equal(kept.host->base, base.host);
	assert_true(host_knobs_are_equal(&kept.host->knobs, &before[1]->knobs));
	assert_memory_equal(kept.host->rodata, before[1]->rodata, base.host->image.n_rodata);
	prepare(&kept, "leaf");
	host_free(before[1]);
	host_free(before[0]);
}

static void an_instantiation_without_its_base_is_refused(void **state)
{
	struct world *w = *state;
	struct refusal refusal = { "" };
	struct host *before[2];
	struct kept base, kept;

	module_load(w, &base, shapes_source);
	instantiate(w, &kept, &base);
	before[0] = base.host;
	before[1] = kept.host;
	module_die(&base);
	module_die(&kept);
	world_die(w);
	core_module_remove(core_module_by_id(w->core, base.id));
	assert_false(module_restore(w, &kept, &refusal));
	assert_non_null(strstr(refusal.text, "whose instantiation it is"));
	core_module_remove(kept.module);
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		close(base.fds[i]);
		free(base.bytes[i]);
		free(kept.bytes[i]);
	}
	close(base.host_fd);
	free(base.own);
	free(kept.own);
	host_free(before[1]);
	host_free(before[0]);
}

/* -- Files that are not what they should be --- */
static int copy_fd(int fd, size_t n, bool is_sealed, uint64_t at, uint8_t flip)
{
	int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t *bytes = malloc(n);

	assert_int_equal(pread(fd, bytes, n, 0), n);
	if (flip)
		bytes[at] ^= flip;
	assert_int_equal(pwrite(copy, bytes, n, 0), n);
	if (is_sealed)
		assert_int_equal(fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	free(bytes);
	return copy;
}

struct damage {
	struct world *w;
	struct kept *kept;
	unsigned int n_refused;
};

/* Tries @fd, which it takes, as the module's file, or its body's. Whatever is taken works. */
static void try_file(struct damage *damage, int fd, bool is_body, const char *text)
{
	struct kept kept = *damage->kept;
	struct refusal refusal = { "" };

	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		kept.fds[i] = fcntl(kept.fds[i], F_DUPFD_CLOEXEC, 0);
	kept.host_fd = is_body ? fcntl(kept.host_fd, F_DUPFD_CLOEXEC, 0) : fd;
	kept.body_fd = is_body ? fd : fcntl(kept.body_fd, F_DUPFD_CLOEXEC, 0);
	if (module_restore(damage->w, &kept, &refusal)) {
		assert_true(!text);
		host_free(kept.host);
	} else {
		assert_int_equal(kept.result, HOST_E_LOST);
		assert_true(*refusal.text);
		if (text && !strstr(refusal.text, text))
			fail_msg("'%s' does not say '%s'", refusal.text, text);
		damage->n_refused++;
	}
	close_fd(kept.body_fd);
}

static void try_named(struct damage *damage, int fd, size_t n, bool is_body)
{
	const uint64_t id = is_body ? offsetof(struct body_file, id) : offsetof(struct host_file, id);

	try_file(damage, -1, is_body, "missing");
	try_file(damage, open("/dev/null", O_RDWR | O_CLOEXEC), is_body, "no sealed file");
	try_file(damage, copy_fd(fd, n, false, 0, 0), is_body, "no sealed file");
	try_file(damage, copy_fd(fd, 16, true, 0, 0), is_body, "too short");
	try_file(damage, copy_fd(fd, n - 1, true, 0, 0), is_body, "not so");
	try_file(damage, copy_fd(fd, n, true, 3, 1), is_body, "another version's");
	try_file(damage, copy_fd(fd, n, true, id, 1), is_body, is_body ? "it is of body" : "it is module");
	try_file(damage, copy_fd(fd, n, true, n - 9, 1), is_body, "hash");
	try_file(damage, copy_fd(fd, n, true, 0, 0), is_body, NULL);
}

static void damaged_files_are_refused_by_a_sentence(void **state)
{
	struct world *w = *state;
	struct damage damage = { .w = w };
	struct host *before;
	struct kept kept;

	module_load(w, &kept, shapes_source);
	replace(&kept, first_source);
	prepare(&kept, "area");
	before = kept.host;
	module_die(&kept);
	world_die(w);
	damage.kept = &kept;
	for (int is_body = 0; is_body < 2; is_body++) {
		const int fd = is_body ? kept.body_fd : kept.host_fd;
		const size_t n = lseek(fd, 0, SEEK_END);
		const size_t n_header = is_body ? sizeof(struct body_file) : sizeof(struct host_file);

		damage.n_refused = 0;
		try_named(&damage, fd, n, is_body);
		assert_int_equal(damage.n_refused, 8);
		for (size_t at = 0; at < n_header; at += 3)
			try_file(&damage, copy_fd(fd, n, true, at, 0x41), is_body, NULL);
		for (size_t at = n_header; at < n; at += 97)
			try_file(&damage, copy_fd(fd, n, true, at, 0x10), is_body, "");
	}
	come_again(w, &kept);
	host_free(before);
}

/* Nothing is lost then: the next start may find more. */
static void without_descriptors_it_is_for_another_time(void **state)
{
	struct world *w = *state;
	struct refusal refusal = { "" };
	struct rlimit files, none;
	struct kept kept, now;
	struct host *before;

	module_load(w, &kept, shapes_source);
	prepare(&kept, "area");
	before = kept.host;
	module_die(&kept);
	world_die(w);
	now = kept;
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		now.fds[i] = fcntl(kept.fds[i], F_DUPFD_CLOEXEC, 0);
	now.host_fd = fcntl(kept.host_fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = files.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_false(module_restore(w, &now, &refusal));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	assert_int_equal(now.result, -EMFILE);
	assert_non_null(strstr(refusal.text, "cannot be mapped"));
	come_again(w, &kept);
	host_free(before);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_module_at_every_stage_is_the_same_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_successor_may_die_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_replaced_body_comes_back_with_what_it_had, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_that_was_never_called_keeps_its_room, setup, teardown),
		cmocka_unit_test_setup_teardown(a_body_that_the_ledger_does_not_know_is_not_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reverted_body_may_be_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(an_instantiation_finds_its_base_again, setup, teardown),
		cmocka_unit_test_setup_teardown(an_instantiation_without_its_base_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_files_are_refused_by_a_sentence, setup, teardown),
		cmocka_unit_test_setup_teardown(without_descriptors_it_is_for_another_time, setup, teardown),
	};
	int r;

	window_init(&window, 0);
	folder_make();
	r = cmocka_run_group_tests_name("restore", tests, NULL, NULL);
	folder_remove();
	return r;
}
