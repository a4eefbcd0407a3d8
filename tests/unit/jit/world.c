/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <cmocka.h>
#include "bytecode/builder.h"
#include "bytecode/loops.h"
#include "bytecode/verify.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "reference/reference.c"
#include "util/base.h"

/* A world to run tier-0 code in: one span with all four segments, as records.h draws them, in this process only
 *
 * Code is a memfd mapped twice: r-x in the span, rw- elsewhere. Precodes for all the methods a test may use stand from the
 * beginning, behind thunks; modules come and go by world_load(), their code goes to ever new places, as the arena's does.
 * Every native call goes through world_enter(), which checks what the C convention promises a caller. */

enum {
	WORLD_METHODS = 64,
	WORLD_IMPORTS = 8,
	WORLD_CELLS = 64,		/* before those of profiles */
	WORLD_PROFILES = 8192,
	WORLD_PATCHPOINTS = 1024,
	WORLD_SEGMENT = 64 << 10,	/* records, counters, private */
	WORLD_CODE = 8 << 20,
	WORLD_DATA = 4096,		/* room for each of .rodata, .data, .bss */
};

struct world {
	void *span;
	uint8_t *code_rw;
	struct tier_layout layout;
	struct emit e;			/* over all of code */
	size_t n_fixed;			/* thunks and precodes at its start */
	void *image_bytes;
	struct image image;
	uint64_t code[WORLD_METHODS];
	size_t n_code[WORLD_METHODS];
	bool profiles;			/* what is loaded from now on counts, in cells that follow each other */
	bool patchpoints;		/* likewise has patchpoints, whose records follow each other */
	uint32_t osr_counter;
	uint32_t n_cells, n_patchpoints;	/* in use */
	struct profile_map *profile[WORLD_METHODS];
	uint32_t profile_cell[WORLD_METHODS];
	uint64_t compile_ns, n_compiled;	/* flow and baseline together; instruction slots */
};

/* -- Programs as data --- */
#define INSN(c, d, s, o, i) ((struct insn){ .code = (c), .dst = (d), .src = (s), .off = (o), .imm = (i) })
#define ALU64_X(op, d, s) INSN(BPF_ALU64 | BPF_X | (op), d, s, 0, 0)
#define ALU64_K(op, d, i) INSN(BPF_ALU64 | BPF_K | (op), d, 0, 0, i)
#define MOV(d, s) ALU64_X(BPF_MOV, d, s)
#define MOVI(d, i) ALU64_K(BPF_MOV, d, i)
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define LOAD_SIGNED(size, d, s, o) INSN(BPF_LDX | BPF_MEMSX | (size), d, s, o, 0)
#define STORE(size, d, o, s) INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define STORE_K(size, d, o, i) INSN(BPF_ST | BPF_MEM | (size), d, 0, o, i)
#define ATOMIC(size, op, d, o, s) INSN(BPF_STX | BPF_ATOMIC | (size), d, s, o, op)
#define JUMP_X(op, d, s, o) INSN(BPF_JMP | BPF_X | (op), d, s, o, 0)
#define JUMP_K(op, d, i, o) INSN(BPF_JMP | BPF_K | (op), d, 0, o, i)
#define JA(o) INSN(BPF_JMP | BPF_JA, 0, 0, o, 0)
#define LDDW(d, ref, low, high) INSN(BPF_LDDW, d, ref, 0, low), INSN(0, 0, 0, 0, high)
#define CALL(method) INSN(BPF_JMP | BPF_CALL, 0, INSN_CALL_METHOD, 0, method)
#define CALL_IMPORT(import) INSN(BPF_JMP | BPF_CALL, 0, INSN_CALL_IMPORT, 0, import)
#define CALLX(d) INSN(BPF_JMP | BPF_CALL | BPF_X, d, 0, 0, 0)
#define EXIT() INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

struct program {
	struct insn insns[1024];
	uint32_t n;
};

static _unused_ void program_add(struct program *program, const struct insn *insns, uint32_t n)
{
	assert_true(program->n + n <= ARRAY_SIZE(program->insns));
	memcpy(program->insns + program->n, insns, n * sizeof(*insns));
	program->n += n;
}
#define ADD(program, ...)                                                                                              \
	program_add((program), (const struct insn[]){ __VA_ARGS__ },                                                   \
		    sizeof((const struct insn[]){ __VA_ARGS__ }) / sizeof(struct insn))

/* -- Random numbers and corner values; the seed is printed by whoever uses them --- */
static uint64_t world_seed = 1;

static _unused_ uint64_t random_next(void)
{
	uint64_t z = world_seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static _unused_ uint32_t random_below(uint32_t n) { return random_next() % n; }

static _unused_ uint64_t random_value(void)
{
	static const uint64_t corners[] = {
		0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
		0x80000001, 0xfffffffe, 0xffffffff, 0x100000000, 0x100000001, 0x7fffffffffffffff, 0x8000000000000000,
		0x8000000000000001, 0xfffffffffffffffe, 0xffffffffffffffff, 0xffffffff80000000, 0xffffffff7fffffff,
		0xdeadbeef00000000,
	};

	switch (random_below(4)) {
	case 0: return random_next();
	case 1: return random_next() >> random_below(64);
	default: return corners[random_below(ARRAY_SIZE(corners))];
	}
}

static _unused_ bool test_is_long(void) { return getenv("TIER_TEST_LONG") != NULL; }

/* the seed of this run: TIER_TEST_SEED, or the time; printed so that a failure can be repeated */
static _unused_ int random_setup(void **state)
{
	const char *seed = getenv("TIER_TEST_SEED");

	world_seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	print_message("seed: TIER_TEST_SEED=%llu\n", (unsigned long long)world_seed);
	return 0;
}

/* -- The call from C, with everything it may expect checked --- */
static const uint64_t world_patterns[6] = {
	0x1b1b1b1b1b1b1b1b, 0x2c2c2c2c2c2c2c2c, 0x3d3d3d3d3d3d3d3d,
	0x4e4e4e4e4e4e4e4e, 0x5f5f5f5f5f5f5f5f, 0x6a6a6a6a6a6a6a6a,
};

/* rbx, rbp, r12..r15 = @patterns, the five arguments, call @code; what is in those six afterwards goes to @after.
 * r9..r11 and rax hold rubbish on the way in, as they may. */
uint64_t world_enter(uint64_t code, const uint64_t args[5], const uint64_t patterns[6], uint64_t after[6]);
__asm__(".pushsection .text\n"
	".type world_enter, @function\n"
	"world_enter:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n	push %rcx\n"
	"	mov %rdi, %r11\n	mov %rsi, %r10\n"
	"	mov (%rdx), %rbx\n	mov 8(%rdx), %rbp\n	mov 16(%rdx), %r12\n"
	"	mov 24(%rdx), %r13\n	mov 32(%rdx), %r14\n	mov 40(%rdx), %r15\n"
	"	mov (%r10), %rdi\n	mov 8(%r10), %rsi\n	mov 16(%r10), %rdx\n	mov 24(%r10), %rcx\n	mov 32(%r10), %r8\n"
	"	mov $-1, %rax\n	mov $-2, %r9\n	mov $-3, %r10\n"
	"	call *%r11\n"
	"	pop %rcx\n"
	"	mov %rbx, (%rcx)\n	mov %rbp, 8(%rcx)\n	mov %r12, 16(%rcx)\n"
	"	mov %r13, 24(%rcx)\n	mov %r14, 32(%rcx)\n	mov %r15, 40(%rcx)\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n"
	".size world_enter, . - world_enter\n"
	".popsection\n");

static uint64_t world_call(uint64_t code, const uint64_t args[5])
{
	uint64_t after[6], result;

	result = world_enter(code, args, world_patterns, after);
	assert_memory_equal(after, world_patterns, sizeof(after));
	return result;
}

/* -- The span --- */
static void world_lay_out(struct world *w)
{
	struct tier_layout *layout = &w->layout;
	uint64_t offset = 0;

	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		layout->segment[i].offset = offset;
		layout->segment[i].size = i == TIER_SEGMENT_CODE ? WORLD_CODE : WORLD_SEGMENT;
		offset += layout->segment[i].size + 4096;	/* a guard */
	}
	layout->size = offset;
	layout->n_methods = WORLD_METHODS;
	layout->n_imports = WORLD_IMPORTS;
	layout->n_cells = WORLD_CELLS + WORLD_PROFILES;
	layout->n_patchpoints = WORLD_PATCHPOINTS;
	layout->hits = layout->segment[TIER_SEGMENT_COUNTERS].offset + layout->n_cells * sizeof(uint32_t);
	layout->patchpoints = layout->segment[TIER_SEGMENT_RECORDS].offset + WORLD_SEGMENT
			    - WORLD_PATCHPOINTS * sizeof(struct tier_patchpoint);
	layout->rodata = layout->segment[TIER_SEGMENT_RECORDS].offset + 8192;	/* behind WORLD_METHODS records */
	layout->data = layout->segment[TIER_SEGMENT_PRIVATE].offset + 4096;
	layout->bss = layout->data + WORLD_DATA;
	layout->n_rodata = layout->n_data = layout->n_bss = WORLD_DATA;
}

static void world_map(struct world *w)
{
	int fd = memfd_create("world", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, WORLD_CODE), 0);
	w->span = mmap(NULL, w->layout.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w->span, MAP_FAILED);
	w->layout.base = (uintptr_t)w->span;
	w->code_rw = mmap(NULL, WORLD_CODE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(w->code_rw, MAP_FAILED);
	assert_ptr_not_equal(mmap(w->span, WORLD_CODE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0), MAP_FAILED);
	for (int i = TIER_SEGMENT_RECORDS; i < _TIER_SEGMENT_N; i++)
		assert_int_equal(mprotect((void *)tier_layout_segment(&w->layout, i), WORLD_SEGMENT, PROT_READ | PROT_WRITE), 0);
	close(fd);
}

static _unused_ struct tier_record *world_record(const struct world *w, uint32_t method)
{
	return (struct tier_record *)tier_layout_record(&w->layout, method);
}

static struct baseline_module world_module(const struct world *w)
{
	return (struct baseline_module){ .layout = &w->layout, .records = world_record(w, 0) };
}

/* P */
static void world_lead(struct world *w, uint32_t method, uint64_t target)
{
	const int32_t jump = tier_layout_precode_jump(&w->layout, method, target);

	world_record(w, method)->precode = target;
	memcpy(w->code_rw + (tier_layout_precode(&w->layout, method) + TIER_PRECODE_JUMP - w->layout.base), &jump, sizeof(jump));
}

static struct tier_private *world_private(const struct world *w)
{
	return (struct tier_private *)tier_layout_segment(&w->layout, TIER_SEGMENT_PRIVATE);
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	world_lay_out(w);
	world_map(w);
	w->e = (struct emit){ .p = w->code_rw, .n_max = WORLD_CODE, .address = w->layout.base };
	for (int thunk = 0; thunk < _TIER_THUNK_N; thunk++) {
		assert_int_equal(emit_here(&w->e), tier_layout_thunk(&w->layout, thunk));
		stubs_thunk(&w->e, &w->layout, thunk);
	}
	w->e.n = TIER_PRECODES_OFFSET;
	for (uint32_t i = 0; i < WORLD_METHODS; i++) {
		struct tier_record *record = world_record(w, i);

		assert_int_equal(emit_here(&w->e), tier_layout_precode(&w->layout, i));
		stubs_precode(&w->e, &w->layout, i);
		record->precode = tier_layout_thunk(&w->layout, TIER_THUNK_PRESTUB);
		record->entry = record->funcptr = tier_layout_precode(&w->layout, i);
	}
	w->n_fixed = w->e.n;
	return w;
}

static struct world *world_free(struct world *w)
{
	munmap(w->span, w->layout.size);
	munmap(w->code_rw, WORLD_CODE);
	free(w->image_bytes);
	for (uint32_t i = 0; i < WORLD_METHODS; i++)
		free(w->profile[i]);
	free(w);
	return NULL;
}

static _unused_ int world_setup(void **state)
{
	*state = world_new();
	return 0;
}

static int world_teardown(void **state)
{
	*state = world_free(*state);
	return 0;
}

/* -- Counts and patchpoints --- */
static _unused_ uint32_t *world_cells(const struct world *w)
{
	return (uint32_t *)tier_layout_cell(&w->layout, 0);
}

static _unused_ uint32_t *world_hits(const struct world *w)
{
	return (uint32_t *)(w->layout.base + w->layout.hits);
}

static struct tier_patchpoint *world_patchpoint(const struct world *w, uint32_t number)
{
	return (struct tier_patchpoint *)tier_layout_patchpoint(&w->layout, number);
}

static void world_add_patchpoints(struct world *w, uint32_t method, const struct insn *insns, uint32_t n_insns)
{
	const int64_t n = loops_find(insns, n_insns, NULL);
	uint32_t *heads = calloc(n + 1, sizeof(*heads));

	assert_true(n >= 0 && heads && w->n_patchpoints + n <= WORLD_PATCHPOINTS);
	assert_int_equal(loops_find(insns, n_insns, heads), n);
	for (int64_t i = 0; i < n; i++) {
		const uint32_t number = w->n_patchpoints++;

		*world_patchpoint(w, number) = (struct tier_patchpoint){
			.method = method, .pc = heads[i], .number = number, .bump = w->osr_counter,
		};
	}
	free(heads);
}

static struct baseline_extra world_extra(struct world *w, uint32_t method, const struct insn *insns, uint32_t n_insns)
{
	struct baseline_extra extra = {
		.patchpoints = w->patchpoints, .patchpoint = w->n_patchpoints, .osr_counter = w->osr_counter,
	};

	free(TAKE_PTR(w->profile[method]));
	if (w->patchpoints)
		world_add_patchpoints(w, method, insns, n_insns);
	if (w->profiles) {
		assert_int_equal(profile_map_new(&w->profile[method], insns, n_insns), 0);
		extra.profile = w->profile[method];
		extra.profile_cell = w->profile_cell[method] = w->n_cells;
		w->n_cells += extra.profile->n_words;
		assert_true(w->n_cells <= w->layout.n_cells);
	}
	return extra;
}

/* -- Modules --- */
static uint64_t world_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

/* Places that were executed are written again only here; the mapping's change makes the processor forget them. */
static void world_rewind(struct world *w)
{
	w->e.n = w->n_fixed;
	assert_int_equal(mprotect(w->span, WORLD_CODE, PROT_READ), 0);
	assert_int_equal(mprotect(w->span, WORLD_CODE, PROT_READ | PROT_EXEC), 0);
}

static void world_compile(struct world *w, uint32_t method)
{
	const struct insn *insns = image_method_insns(&w->image, method);
	const uint32_t n_insns = w->image.methods[method].n_insns;
	const struct baseline_extra extra = world_extra(w, method, insns, n_insns);
	const size_t bound = baseline_bound(insns, n_insns, &extra);
	const struct baseline_module module = world_module(w);
	struct flow *flow;
	size_t begin;
	uint64_t ns;

	if (w->e.n + bound + 64 > WORLD_CODE)
		world_rewind(w);
	w->e.n = begin = align_up(w->e.n, 16);
	ns = world_clock();
	assert_int_equal(flow_new(&flow, insns, n_insns), 0);
	assert_int_equal(baseline_compile(&w->e, insns, flow, &module, &extra), 0);
	w->compile_ns += world_clock() - ns;
	w->n_compiled += flow->n_insns;
	flow_free(flow);
	assert_true(emit_fits(&w->e));
	assert_true(w->e.n - begin <= bound);
	w->code[method] = w->e.address + begin;
	w->n_code[method] = w->e.n - begin;
	world_lead(w, method, w->code[method]);
}

/* Takes what @builder has. The program of a test must be one that a user could load. */
static void world_load(struct world *w, struct builder *builder)
{
	struct refusal refusal = { "" };
	size_t n;

	free(TAKE_PTR(w->image_bytes));
	assert_int_equal(builder_finish(builder, &w->image_bytes, &n), 0);
	builder_deinit(builder);
	if (!image_check(w->image_bytes, n, &w->image, &refusal) || !verify_image(&w->image, &refusal))
		fail_msg("%s", refusal.text);
	assert_true(w->image.n_methods <= WORLD_METHODS && w->image.n_imports <= WORLD_IMPORTS);
	memcpy((void *)(w->layout.base + w->layout.rodata), w->image.rodata, w->image.n_rodata);
	memcpy((void *)(w->layout.base + w->layout.data), w->image.data, w->image.n_data);
	w->n_cells = WORLD_CELLS;
	w->n_patchpoints = 0;
	for (uint32_t i = 0; i < w->image.n_methods; i++)
		world_compile(w, i);
}

static _unused_ uint32_t world_method(struct builder *builder, const struct program *program)
{
	return builder_method(builder, "method", builder_string(builder, ".text"), 0, IMAGE_METHOD_GLOBAL, program->insns,
			      program->n);
}

/* a module of one method */
static _unused_ void world_load_program(struct world *w, const struct program *program)
{
	struct builder builder = BUILDER_NULL;

	world_method(&builder, program);
	world_load(w, &builder);
}
#define LOAD_PROGRAM(w, ...)                                                                                           \
	do {                                                                                                           \
		struct program _program = { 0 };                                                                       \
		ADD(&_program, __VA_ARGS__);                                                                           \
		world_load_program(w, &_program);                                                                      \
	} while (0)

static _unused_ void world_bind(struct world *w, uint32_t import, reference_function function)
{
	world_private(w)->imports[import] = (uintptr_t)function;
}

/* -- The same call, by the interpreter --- */
static uint64_t world_method_address(void *userdata, uint32_t method)
{
	const struct world *w = userdata;

	return tier_layout_precode(&w->layout, method);
}

static int64_t world_method_at(void *userdata, uint64_t address)
{
	const struct world *w = userdata;
	const uint64_t distance = address - tier_layout_precode(&w->layout, 0);

	return distance % TIER_PRECODE_SIZE || distance / TIER_PRECODE_SIZE >= w->image.n_methods
		     ? -1 : (int64_t)(distance / TIER_PRECODE_SIZE);
}

static struct reference world_reference(struct world *w)
{
	return (struct reference){
		.image = &w->image,
		.rodata = w->layout.base + w->layout.rodata,
		.data = w->layout.base + w->layout.data,
		.bss = w->layout.base + w->layout.bss,
		.imports = (const reference_function *)world_private(w)->imports,
		.method_address = world_method_address,
		.method_at = world_method_at,
		.userdata = w,
		.n_steps = 10000000,
	};
}

static uint64_t world_interpret(struct world *w, uint32_t method, const uint64_t args[5])
{
	struct reference reference = world_reference(w);
	uint64_t result = 0;

	if (!reference_call(&reference, method, args, &result))
		fail_msg("the reference gave up: %s", reference.fault);
	return result;
}

static uint64_t world_run(struct world *w, uint32_t method, const uint64_t args[5])
{
	return world_call(tier_layout_precode(&w->layout, method), args);
}

/* Runs method 0 natively and returns its result, having checked that the interpreter agrees. For programs without side
 * effects on memory. The interpreter goes first: it gives up where compiled code would loop for ever. */
static _unused_ uint64_t world_agree(struct world *w, const uint64_t args[5])
{
	const uint64_t expected = world_interpret(w, 0, args), native = world_run(w, 0, args);

	assert_int_equal(native, expected);
	return native;
}
