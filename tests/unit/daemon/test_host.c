/* SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"
#include "host.h"
#include "tier/wire.h"
#include "unit/worker/object.h"
#include "worker/job.h"

/* Hosted modules without a core: what they are made of from objects that clang builds, and the bodies they are given.
 * Which body is in use would be the core's to say; here the test does. */

struct module {
	uint32_t method, body;	/* all others have their own */
};

uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return method == module->method ? module->body : 0;
}

bool core_profile(const struct module *module, uint32_t method, uint32_t *ret_cell)
{
	return false;
}

static const char shapes_source[] =
	"typedef unsigned long long u64;\n"
	"extern u64 host(u64);\n"
	"u64 counter; static u64 hidden = 3; const volatile u64 knob = 5;\n"
	"__attribute__((noinline)) u64 leaf(u64 x) { hidden += x; return x * 3; }\n"
	"__attribute__((noinline)) u64 area(u64 x) { counter += leaf(x); return host(x) + knob; }\n"
	"__attribute__((noinline)) u64 plain(u64 x) { return x + hidden; }\n"
	"struct ops { u64 (*f)(u64); u64 kind; u64 (*g)(u64); };\n"
	"const struct ops ops[2] = { { leaf, 0x1122, area }, { area, 0x3344, leaf } };\n"
	"u64 outer(u64 i) { return ops[i & 1].f(i) + ops[i & 1].kind + plain(i) + area(i); }\n";

static const char area_source[] =
	"typedef unsigned long long u64;\n"
	"extern u64 host(u64), counter, plain(u64);\n"
	"static u64 hidden = 77;\n"
	"static const u64 own[4] = { 7, 8, 9, 10 };\n"
	"struct mine { u64 (*f)(u64); const u64 *at; };\n"
	"u64 area(u64 x);\n"
	"const struct mine mine[2] = { { plain, own + 1 }, { area, own + 2 } };\n"
	"u64 area(u64 x) { hidden += counter; return host(x) + mine[x & 1].f(x) + *mine[x & 1].at + plain(x); }\n"
	"u64 other(u64 x, u64 y) { return x + y; }\n"
	"u64 lost(u64 x) { extern u64 nowhere; return nowhere + x; }\n";

static struct window window;

/* -- Building --- */
static struct host *host_of(const char *source, const char *options, struct module *module)
{
	struct object_file object = compile("clang", options, source);
	struct host_plan plan = { .id = 1, .window = &window };
	struct refusal refusal = { "" };
	struct host *host = NULL;
	void *bytes;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal) || host_build(&host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(object.bytes);
	host->module = module;
	return host;
}

static uint32_t method_of(const struct host *host, const char *name)
{
	int64_t method = symtab_find(host->symtab, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

static int tier0(struct host *host, uint32_t method, uint32_t body, struct core_code *ret)
{
	const struct core_compile compile = { .method = method, .body = body, .level = TIER_LEVEL_TIER0 };
	struct core_result result = {};
	int r = host_first(host, &compile, &result);

	*ret = result.code;
	return r;
}

static bool is_backpatchable(const struct host *host, const char *name)
{
	return arena_record(host->arena, method_of(host, name))->flags & TIER_RECORD_BACKPATCHABLE;
}

static uint64_t word_at(const uint8_t *bytes, uint64_t offset)
{
	uint64_t word;

	memcpy(&word, bytes + offset, sizeof(word));
	return word;
}

/* -- Vtable slots --- */
static void a_method_whose_address_stands_in_rodata_is_backpatchable(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);

	assert_true(is_backpatchable(host, "leaf"));
	assert_true(is_backpatchable(host, "area"));
	assert_false(is_backpatchable(host, "plain"));
	assert_false(is_backpatchable(host, "outer"));
	host_free(host);
}

static void call_cells_hold_entry_points_and_what_rodata_holds(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	const struct tier_layout *layout = arena_layout(host->arena);
	const uint32_t leaf = method_of(host, "leaf"), area = method_of(host, "area");
	const uint32_t methods[] = { leaf, UINT32_MAX, area, area, UINT32_MAX, leaf };
	const uint8_t *rodata = arena_rodata(host->arena) + (layout->slots - layout->rodata);

	assert_int_equal(layout->n_slots, sizeof(methods) / sizeof(methods[0]) * 8);
	for (uint32_t i = 0; i < layout->n_slots / 8; i++) {
		uint64_t cell = word_at(arena_call_cells(host->arena), 8 * i), address = layout->base + layout->call_cells + 8 * i;

		assert_int_equal(tier_layout_call_cell(layout, layout->base + layout->slots + 8 * i), address);
		if (methods[i] == UINT32_MAX) {
			assert_int_equal(cell, i == 1 ? 0x1122 : 0x3344);
			assert_int_equal(host_slot_method(host, address), -1);
		} else {
			assert_int_equal(cell, tier_layout_precode(layout, methods[i]));
			assert_int_equal(word_at(rodata, 8 * i), tier_layout_funcptr(layout, methods[i]));
			assert_int_equal(host_slot_method(host, address), methods[i]);
		}
		assert_int_equal(host_slot_method(host, address + 4), -1);
	}
	host_free(host);
}

static void an_address_outside_the_call_cells_is_nobodys(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2", &module);
	const struct tier_layout *layout = arena_layout(host->arena);

	assert_int_equal(host_slot_method(host, 0), -1);
	assert_int_equal(host_slot_method(host, UINT64_MAX), -1);
	assert_int_equal(host_slot_method(host, layout->base + layout->slots), -1);
	assert_int_equal(host_slot_method(host, layout->base + layout->call_cells - 8), -1);
	assert_int_equal(host_slot_method(host, layout->base + layout->call_cells + layout->n_slots), -1);
	host_free(host);
}

static void an_unaligned_pointer_is_no_slot(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of("typedef unsigned long long u64; u64 f(u64 x) { return x; } u64 g(u64 x) { return x + 1; }\n"
				    "struct __attribute__((packed, aligned(8))) odd { char c; u64 (*f)(u64); char pad[7]; u64 (*g)(u64); };\n"
				    "const struct odd odd = { 1, f, { 0 }, g };\n", "-O2", &module);
	const struct tier_layout *layout = arena_layout(host->arena);

	assert_false(is_backpatchable(host, "f"));
	assert_true(is_backpatchable(host, "g"));
	assert_int_equal(layout->slots - layout->rodata, 16);
	assert_int_equal(layout->n_slots, 8);
	assert_int_equal(word_at(arena_rodata(host->arena), 1), tier_layout_precode(layout, method_of(host, "f")));
	host_free(host);
}

static void pointers_in_data_are_the_methods_addresses_and_no_slots(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of("typedef unsigned long long u64; u64 f(u64 x) { return x; } u64 (*at)(u64) = f;\n", "-O2", &module);
	struct host *both = host_of("typedef unsigned long long u64; u64 f(u64 x) { return x; } u64 (*at)(u64) = f;\n"
				    "u64 (*const table[])(u64) = { f };\n", "-O2", &module);

	assert_false(is_backpatchable(host, "f"));
	assert_int_equal(arena_layout(host->arena)->n_slots, 0);
	assert_int_equal(host_slot_method(host, arena_layout(host->arena)->base), -1);
	assert_int_equal(word_at(arena_data(host->arena), 0), tier_layout_precode(arena_layout(host->arena), 0));
	assert_int_equal(word_at(arena_data(both->arena), 0), tier_layout_funcptr(arena_layout(both->arena), 0));
	host_free(host);
	host_free(both);
}

/* -- Bodies --- */
struct source {
	void *bytes;
	struct image image;
};

static struct source source_of(const char *text, const char *options)
{
	struct object_file object = compile("clang", options, text);
	struct source source;

	source.image = load(&object, &source.bytes);
	free(object.bytes);
	return source;
}

static enum tier_error bind_to(struct host *host, const char *method, const struct source *source, const char *symbol, bool force,
			       struct host_body **ret, struct refusal *refusal)
{
	int64_t index = image_find_method(&source->image, symbol);

	assert_true(index >= 0);
	return host_bind(ret, host, method_of(host, method), &source->image, index, force, refusal);
}

/* Binds, places and gives it to the method, as the core would then say. */
static const struct host_body *replace(struct host *host, const char *method, const struct source *source, const char *symbol)
{
	struct host_body *body;
	struct refusal refusal;

	if (bind_to(host, method, source, symbol, false, &body, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(host_body_reserve(host, body, &source->image), 0);
	host_body_fill(body, &source->image, image_find_method(&source->image, symbol));
	assert_int_equal(host_body_compile(host, body), 0);
	assert_int_equal(host_bodies_reserve(host), 0);
	host_body_free(host_body_exchange(host, method_of(host, method), body));
	host->module->method = method_of(host, method);
	host->module->body = body->id;
	return body;
}

static void a_bodys_rodata_lies_in_the_code_segment(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct host_body *body = replace(host, "area", &source, "area");
	const uint8_t *rodata = arena_alias(host->arena, body->rodata, body->bound.n_rodata);
	unsigned int n_methods = 0, n_own = 0;

	assert_non_null(rodata);
	assert_int_equal(body->id, 1);
	for (uint32_t at = 0; at < body->bound.n_rodata; at += 8) {
		uint64_t word = word_at(rodata, at);

		n_methods += word == tier_layout_funcptr(layout, method_of(host, "area"))
			   || word == tier_layout_precode(layout, method_of(host, "plain"));
		if (word - body->rodata < body->bound.n_rodata) {
			n_own++;
			assert_in_range(word_at(rodata, word - body->rodata), 8, 9);
		}
	}
	assert_int_equal(n_methods, 2);
	assert_int_equal(n_own, 2);
	free(source.bytes);
	host_free(host);
}

static void each_method_compiles_its_current_body(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	const uint32_t area = method_of(host, "area"), outer = method_of(host, "outer");
	const struct host_body *body = replace(host, "area", &source, "area");
	const struct core_compile promotion = { .method = outer, .level = TIER_LEVEL_TIER1 };
	struct job_compile job;
	struct host_bodies bodies;
	struct refusal refusal;
	struct core_code own, other;
	uint8_t *input;
	size_t n;
	int fd;

	assert_int_equal(tier0(host, area, 0, &own), 0);
	assert_int_equal(tier0(host, area, body->id, &other), 0);
	assert_int_not_equal(own.size, other.size);
	assert_true(other.address > body->rodata && other.code_used == arena_code_used(host->arena));

	/* as a candidate for inlining too */
	assert_int_equal(host_compile_job(host, &promotion, &bodies, &fd, &n), 0);
	input = malloc(n);
	assert_int_equal(pread(fd, input, n, 0), n);
	assert_true(job_get_compile(&job, input, n, &refusal));
	for (uint32_t i = 0; i < job.n_bodies; i++)
		if (job.bodies[i].method == area) {
			assert_int_equal(job.bodies[i].n_insns, body->bound.n_insns);
			assert_memory_equal(job.bodies[i].insns, body->bound.insns, body->bound.n_insns * sizeof(struct insn));
		}
	assert_int_equal(bodies.methods[0], outer);
	free(job.bodies);
	free(input);
	close(fd);
	free(source.bytes);
	host_free(host);
}

static void a_refused_body_says_why(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g"), bare = source_of(area_source, "-O2");
	struct host_body *body = NULL;
	struct refusal refusal;

	assert_int_equal(bind_to(host, "area", &source, "other", false, &body, &refusal), TIER_ERROR_SIGNATURE);
	assert_non_null(strstr(refusal.text, "area(u64 x)"));
	assert_int_equal(bind_to(host, "area", &bare, "area", false, &body, &refusal), TIER_ERROR_SIGNATURE);
	assert_non_null(strstr(refusal.text, "unknown"));
	assert_int_equal(bind_to(host, "area", &source, "lost", false, &body, &refusal), TIER_ERROR_UNBOUND);
	assert_non_null(strstr(refusal.text, "'nowhere'"));
	assert_null(body);
	assert_int_equal(bind_to(host, "area", &source, "other", true, &body, &refusal), TIER_ERROR_NONE);
	host_body_free(body);
	free(bare.bytes);
	free(source.bytes);
	host_free(host);
}

static void large_bodies_are_refused(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source rodata = source_of("const char big[(1 << 20) + 8] = { 1 }; long area(long x) { return big[x]; }", "-O2 -g");
	struct source insns = source_of("#define A(x) x x x x x x x x\nlong area(long x) {\n"
					"A(A(A(A(A(asm volatile(\"%0 += 1\" : \"+r\"(x)););););)) return x; }", "-O2 -g");
	struct host_body *body = NULL;
	struct refusal refusal;

	assert_int_equal(bind_to(host, "area", &rodata, "area", true, &body, &refusal), TIER_ERROR_BAD_MODULE);
	assert_non_null(strstr(refusal.text, "at most 1 MiB"));
	assert_int_equal(bind_to(host, "area", &insns, "area", true, &body, &refusal), TIER_ERROR_BAD_MODULE);
	assert_non_null(strstr(refusal.text, "at most 16384"));
	assert_null(body);
	free(insns.bytes);
	free(rodata.bytes);
	host_free(host);
}

static void a_body_for_which_there_is_no_room_leaves_all_as_it_was(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	uint64_t used = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size - 16;
	struct host_body *body;
	struct refusal refusal;

	assert_int_equal(bind_to(host, "area", &source, "area", false, &body, &refusal), 0);
	arena_code_resume(host->arena, used);
	assert_int_equal(host_body_reserve(host, body, &source.image), TIER_ERROR_CODE_FULL);
	assert_int_equal(arena_code_used(host->arena), used);
	assert_null(host_body_current(host, method_of(host, "area")));
	host_body_free(body);
	free(source.bytes);
	host_free(host);
}

static void a_body_for_which_room_is_gone_meanwhile_is_told_so(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	uint64_t used = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size - host->n_owed - 128;
	struct host_body *body;
	struct refusal refusal;

	assert_int_equal(bind_to(host, "area", &source, "area", false, &body, &refusal), 0);
	assert_int_equal(host_body_reserve(host, body, &source.image), 0);
	host_body_fill(body, &source.image, image_find_method(&source.image, "area"));
	arena_code_resume(host->arena, used);
	assert_int_equal(host_body_compile(host, body), CORE_E_FULL);
	assert_int_equal(arena_code_used(host->arena), used);
	host_body_free(body);
	free(source.bytes);
	host_free(host);
}

static void a_new_body_is_called_and_counted_in_a_full_segment(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	const uint32_t area = method_of(host, "area");
	const struct host_body *body = replace(host, "area", &source, "area");
	const uint64_t used = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size;
	struct core_code code, stub;

	arena_code_resume(host->arena, used);
	assert_int_equal(tier0(host, area, body->id, &code), 0);
	assert_int_equal(code.address, body->tier0.address);
	assert_true(code.size > 0);
	assert_int_equal(code.code_used, used);
	assert_int_equal(host_stub(host, area, 0, 1, code.address + 16, &stub), CORE_E_FULL);	/* other code */
	assert_int_equal(host_stub(host, area, 0, 1, code.address, &stub), 0);
	assert_int_equal(stub.address % 16, 0);
	assert_true(stub.address >= code.address + code.size && stub.address + stub.size <= used + arena_layout(host->arena)->base);
	assert_int_equal(stub.code_used, used);
	assert_int_equal(host_stub(host, area, 0, 1, code.address, &stub), CORE_E_FULL);	/* the room is taken */
	free(source.bytes);
	host_free(host);
}

static void bodies_leave_what_first_calls_take(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	const uint64_t size = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size;
	struct host_body *body;
	struct refusal refusal;
	struct core_code code;

	assert_int_equal(bind_to(host, "area", &source, "area", false, &body, &refusal), 0);
	arena_code_resume(host->arena, size - host->n_owed);
	assert_true(host_has_room(host, 0));
	assert_int_equal(host_body_reserve(host, body, &source.image), TIER_ERROR_CODE_FULL);
	for (uint32_t method = 0; method < host->image.n_methods; method++) {
		assert_int_equal(tier0(host, method, 0, &code), 0);
		assert_int_equal(host_stub(host, method, method, method + 1, code.address, &code), 0);
		assert_true(host_has_room(host, 0));
	}
	assert_int_equal(host->n_owed, 0);
	host_body_free(body);
	free(source.bytes);
	host_free(host);
}

static bool has_name(const struct wire_names *names, const char *name)
{
	for (uint32_t i = 0; i < names->n; i++)
		if (!strcmp(names->rows[i].name, name))
			return true;
	return false;
}

static bool is_related(struct host *host, const char *method, enum wire_relation relation, const char *name)
{
	struct wire_names names = {};

	describe_related(host, method_of(host, method), relation, 0, &names);
	return has_name(&names, name);
}

static void what_is_told_of_a_method_is_its_current_bodys(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2 -g", &module);
	struct source source = source_of(area_source, "-O2 -g");
	const struct host_body *body;
	struct wire_description own = {}, now = {};
	struct wire_insns insns = {};
	struct wire_source lines = {};
	const uint32_t area = method_of(host, "area");

	assert_true(is_related(host, "leaf", WIRE_RELATION_CALLERS, "area"));
	assert_false(is_related(host, "plain", WIRE_RELATION_CALLERS, "area"));
	describe_method(host, area, &own);
	assert_int_equal(own.body, 0);
	body = replace(host, "area", &source, "area");
	describe_method(host, area, &now);
	assert_int_equal(now.body, body->id);
	assert_int_equal(now.n_insns, body->bound.n_insns);
	assert_string_equal(now.signature, own.signature);
	describe_insns(host, area, 0, &insns);
	assert_int_equal(insns.n, body->bound.n_insns);
	assert_memory_equal(insns.insns, body->bound.insns, insns.n * sizeof(struct insn));
	describe_lines(host, area, 0, &lines);
	assert_int_equal(lines.n, 0);
	assert_false(is_related(host, "leaf", WIRE_RELATION_CALLERS, "area"));
	assert_true(is_related(host, "plain", WIRE_RELATION_CALLERS, "area"));
	assert_true(is_related(host, "plain", WIRE_RELATION_CALLERS, "outer"));
	assert_true(is_related(host, "area", WIRE_RELATION_CALLEES, "plain"));
	assert_false(is_related(host, "area", WIRE_RELATION_CALLEES, "leaf"));
	assert_true(is_related(host, "area", WIRE_RELATION_IMPORTS, "host"));

	module.body = 0;	/* reverted */
	assert_true(is_related(host, "leaf", WIRE_RELATION_CALLERS, "area"));
	assert_false(is_related(host, "plain", WIRE_RELATION_CALLERS, "area"));
	now = (struct wire_description){};
	describe_method(host, area, &now);
	assert_memory_equal(&now, &own, sizeof(now));
	free(source.bytes);
	host_free(host);
}

static void a_forwarder_leads_where_its_target_says(void **state)
{
	struct module module = { 0 };
	struct host *host = host_of(shapes_source, "-O2", &module);
	const struct tier_layout *layout = arena_layout(host->arena);
	struct core_code code;
	uint64_t *target;

	assert_int_equal(host_forwarder(host, tier_layout_precode(layout, 2), &code), 0);
	assert_int_equal(code.address % 16, 0);
	target = host_alias(host, code.address + 8);
	assert_int_equal(*target, tier_layout_precode(layout, 2));
	assert_int_equal(code.code_used, arena_code_used(host->arena));
	assert_ptr_equal(host_alias(host, layout->base + layout->call_cells), arena_call_cells(host->arena));
	assert_null(host_alias(host, tier_layout_cell(layout, 0)));
	assert_null(host_alias(host, 0));
	host_free(host);
}

static int setup(void **state)
{
	folder_make();
	window_init(&window, 0);
	return 0;
}

static int teardown(void **state)
{
	return folder_remove();
}

/* -- Instantiations --- */
static struct host *instance_of(struct host *base, const char *name, uint64_t value, struct module *module)
{
	struct host_plan plan = { .id = 2, .window = &window, .config = base->config };
	struct refusal refusal = { "" };
	struct host_knobs knobs = { .n = 0 };
	struct host_knob knob;
	struct host *host = NULL;

	if (!host_find_knob(&knob, base, name, value, &refusal) || !host_add_knob(&knobs, base, &knob, &refusal)
	    || host_instantiate(&host, &plan, base, &knobs, &refusal))
		fail_msg("%s", refusal.text);
	host->module = module;
	return host;
}

static bool contains_word(const uint8_t *bytes, uint64_t n, uint64_t word)
{
	for (uint64_t i = 0; i + sizeof(word) <= n; i++)
		if (word_at(bytes, i) == word)
			return true;
	return false;
}

static void an_instantiation_has_its_own_constants_and_functions(void **state)
{
	struct module module = { 0 };
	struct host *base = host_of(shapes_source, "-O2 -g", &module), *host = instance_of(base, "knob", 0x1234567, &module);
	const struct tier_layout *layout = arena_layout(host->arena);
	const uint32_t leaf = method_of(host, "leaf");
	const struct image_object *knob = &host->image.objects[symtab_find(host->objects, "knob")];

	assert_int_equal(word_at(arena_rodata(host->arena), knob->offset), 0x1234567);
	assert_int_equal(word_at(arena_rodata(base->arena), knob->offset), 5);
	assert_int_equal(word_at(base->image.rodata, knob->offset), 5);
	assert_int_equal(word_at(arena_rodata(host->arena), layout->slots - layout->rodata),
			 tier_layout_funcptr(layout, leaf));
	assert_int_equal(word_at(arena_call_cells(host->arena), 0), tier_layout_precode(layout, leaf));
	assert_int_equal(layout->n_data, 0);
	assert_int_equal(layout->n_bss, 0);
	assert_int_equal(host_data(host), host_data(base));
	host_free(host);
	host_free(base);
}

static void its_code_reaches_the_data_of_the_other_span(void **state)
{
	struct module module = { 0 };
	struct host *base = host_of(shapes_source, "-O2 -g", &module), *host = instance_of(base, "knob", 7, &module);
	const struct image_object *hidden = &host->image.objects[symtab_find(host->objects, "hidden")];
	const uint64_t address = host_data(base) + hidden->offset;
	const uint32_t plain = method_of(host, "plain");
	struct core_code code;

	assert_int_equal(tier0(base, plain, 0, &code), 0);
	assert_false(contains_word(host_alias(base, code.address), code.size, address));
	assert_int_equal(tier0(host, plain, 0, &code), 0);
	assert_true(contains_word(host_alias(host, code.address), code.size, address));
	host_free(host);
	host_free(base);
}

static void refused(struct host *host, const char *name, uint64_t value, const char *words)
{
	struct refusal refusal = { "" };
	struct host_knob knob;

	assert_false(host_find_knob(&knob, host, name, value, &refusal));
	if (!strstr(refusal.text, words))
		fail_msg("%s", refusal.text);
}

static void knobs_are_named_numbers_of_rodata(void **state)
{
	static const char source[] =
		"typedef unsigned long long u64;\n"
		"const volatile u64 wide = 1; const volatile int word = 2; const volatile char byte = 3; u64 written = 4;\n"
		"const volatile u64 several[3] = { 1, 2, 3 }; u64 f(u64 x);\n"
		"u64 (*const volatile pointer)(u64) = f;\n"
		"u64 f(u64 x) { return wide + word + byte + several[x & 1] + written++ + (u64)pointer; }\n";
	struct module module = { 0 };
	struct host *host = host_of(source, "-O2 -g", &module);
	struct host_knob knob, other;
	struct host_knobs knobs = { .n = 0 };
	struct refusal refusal = { "" };

	refused(host, "wife", 1, "no variable 'wife'; knobs are variables of .rodata, among them wide");
	refused(host, "written", 1, "'written'");
	refused(host, "several", 1, "it has 24 bytes");
	refused(host, "pointer", 1, "it holds a pointer");
	refused(host, "byte", 256, "256 (0x100) does not fit knob 'byte', which has 1 byte");
	refused(host, "byte", -129ull, "does not fit");
	refused(host, "word", 1ull << 32, "which has 4 bytes");
	assert_true(host_find_knob(&knob, host, "byte", -128ull, &refusal));
	assert_int_equal(knob.value, 128);
	assert_true(host_find_knob(&other, host, "wide", UINT64_MAX, &refusal));
	assert_true(host_add_knob(&knobs, host, &other, &refusal) && host_add_knob(&knobs, host, &knob, &refusal));
	assert_int_equal(knobs.knobs[0].object, knob.object);	/* in order of names */
	assert_false(host_add_knob(&knobs, host, &knob, &refusal));
	assert_non_null(strstr(refusal.text, "knob 'byte' is given twice"));
	host_free(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_method_whose_address_stands_in_rodata_is_backpatchable),
		cmocka_unit_test(call_cells_hold_entry_points_and_what_rodata_holds),
		cmocka_unit_test(an_address_outside_the_call_cells_is_nobodys),
		cmocka_unit_test(an_unaligned_pointer_is_no_slot),
		cmocka_unit_test(pointers_in_data_are_the_methods_addresses_and_no_slots),
		cmocka_unit_test(an_instantiation_has_its_own_constants_and_functions),
		cmocka_unit_test(its_code_reaches_the_data_of_the_other_span),
		cmocka_unit_test(knobs_are_named_numbers_of_rodata),
		cmocka_unit_test(a_bodys_rodata_lies_in_the_code_segment),
		cmocka_unit_test(each_method_compiles_its_current_body),
		cmocka_unit_test(a_refused_body_says_why),
		cmocka_unit_test(large_bodies_are_refused),
		cmocka_unit_test(a_body_for_which_there_is_no_room_leaves_all_as_it_was),
		cmocka_unit_test(a_body_for_which_room_is_gone_meanwhile_is_told_so),
		cmocka_unit_test(a_new_body_is_called_and_counted_in_a_full_segment),
		cmocka_unit_test(bodies_leave_what_first_calls_take),
		cmocka_unit_test(what_is_told_of_a_method_is_its_current_bodys),
		cmocka_unit_test(a_forwarder_leads_where_its_target_says),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
