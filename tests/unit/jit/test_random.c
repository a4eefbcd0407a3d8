/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/jit/world.c"
#include "unit/jit/census.c"
#include "unit/jit/osr.c"

/* Random modules, compiled and interpreted
 *
 * A program is a row of items, each a few instructions; jumps lead from item to item, forward freely, backward only while
 * there is fuel (a word of the frame), so that every program ends. Methods call those behind them, so that calls end too.
 *
 *   r10-8   fuel     r10-16  address of the context, the first argument     r10-24..r10-88  the program's own
 *
 * Memory accesses go to the context or to the own part of the frame; values of r10 are kept out of registers, since they
 * are the one thing in which both executions may differ. */

enum { N_ITEMS_MAX = 40, N_METHODS = 3, N_OWN = 8, N_CONTEXT = 64 };

static uint64_t context[N_CONTEXT] __attribute__((aligned(64)));

struct generator {
	struct program program;
	uint32_t item[N_ITEMS_MAX + 1];	/* first instruction of each */
	uint32_t n_items, n_items_max;
	struct { uint32_t pc, item; } jumps[N_ITEMS_MAX];
	uint32_t n_jumps;
	uint32_t method, n_methods;
};

static uint32_t any_register(void) { return random_below(10); }
static uint32_t any_class(void) { return random_below(2) ? BPF_ALU64 : BPF_ALU; }
static uint32_t any_size(void)
{
	static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };

	return sizes[random_below(4)];
}
static int16_t any_own(void) { return -24 - 8 * (int)random_below(N_OWN); }

static void generate_alu(struct generator *g)
{
	static const uint8_t ops[] = {
		BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_NEG, BPF_MOD, BPF_XOR, BPF_MOV,
		BPF_ARSH, BPF_DIV, BPF_MOD, BPF_LSH, BPF_MOV,
	};
	const uint32_t op = ops[random_below(ARRAY_SIZE(ops))], class = any_class();
	const bool by_register = op != BPF_NEG && random_below(2);
	struct insn insn = INSN(class | op, any_register(), 0, 0, 0);

	if (by_register) {
		insn.code |= BPF_X;
		insn.src = any_register();
	} else if (op != BPF_NEG) {
		insn.imm = random_value();
	}
	if (op == BPF_DIV || op == BPF_MOD)
		insn.off = random_below(2);
	if (op == BPF_MOV && by_register)
		insn.off = (const int16_t[]){ 0, 0, 8, 16, class == BPF_ALU64 ? 32 : 0 }[random_below(5)];
	ADD(&g->program, insn);
}

static void generate_swap(struct generator *g)
{
	static const uint8_t codes[] = { BPF_ALU | BPF_END, BPF_ALU | BPF_X | BPF_END, BPF_ALU64 | BPF_END };

	ADD(&g->program, INSN(codes[random_below(3)], any_register(), 0, 0, 16 << random_below(3)));
}

static void generate_constant(struct generator *g)
{
	const uint64_t value = random_value();

	if (random_below(4))
		ADD(&g->program, LDDW(any_register(), INSN_REF_NONE, value, value >> 32));
	else
		ADD(&g->program, LDDW(any_register(), INSN_REF_RODATA + random_below(3), random_below(64), 0));
}

/* An access to the context through any register, or to the frame. */
static void generate_access(struct generator *g, struct insn insn)
{
	const bool load = BPF_CLASS(insn.code) == BPF_LDX || (BPF_MODE(insn.code) == BPF_ATOMIC && insn.imm == BPF_LOAD_ACQ);
	uint32_t base = INSN_R10;

	insn.off = any_own();
	if (random_below(2)) {
		base = any_register();
		insn.off = 8 * random_below(N_CONTEXT);
		ADD(&g->program, LOAD(BPF_DW, base, 10, -16));
	}
	if (load)
		insn.src = base;
	else
		insn.dst = base;
	ADD(&g->program, insn);
}

static void generate_memory(struct generator *g)
{
	const uint32_t size = any_size();

	switch (random_below(4)) {
	case 0:
		generate_access(g, INSN(BPF_LDX | BPF_MEM | size, any_register(), 0, 0, 0));
		break;
	case 1:
		generate_access(g, INSN(BPF_LDX | (size == BPF_DW ? BPF_MEM : BPF_MEMSX) | size, any_register(), 0, 0, 0));
		break;
	case 2:
		generate_access(g, INSN(BPF_ST | BPF_MEM | size, 0, 0, 0, random_value()));
		break;
	default:
		generate_access(g, INSN(BPF_STX | BPF_MEM | size, 0, any_register(), 0, 0));
	}
}

static void generate_atomic(struct generator *g)
{
	static const int32_t ops[] = {
		BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ, BPF_STORE_REL,
	};
	const int32_t op = ops[random_below(ARRAY_SIZE(ops))];
	const uint32_t size = op >= BPF_LOAD_ACQ ? any_size() : random_below(2) ? BPF_W : BPF_DW;

	generate_access(g, INSN(BPF_STX | BPF_ATOMIC | size, any_register(), any_register(), 0, op));
}

/* Leads to item @item; generate_link() fills the distance in. */
static void generate_jump(struct generator *g, uint32_t item, struct insn insn)
{
	g->jumps[g->n_jumps].pc = g->program.n;
	g->jumps[g->n_jumps++].item = item;
	ADD(&g->program, insn);
}

static struct insn any_condition(void)
{
	static const uint8_t conditions[] = {
		BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE,
	};
	const uint32_t code = conditions[random_below(ARRAY_SIZE(conditions))] | (random_below(2) ? BPF_JMP : BPF_JMP32);

	return random_below(2) ? INSN(code | BPF_X, any_register(), any_register(), 0, 0)
			       : INSN(code, any_register(), 0, 0, random_below(2) ? 0 : random_value());
}

static void generate_forward(struct generator *g)
{
	const uint32_t item = g->n_items + 1 + random_below(g->n_items_max - g->n_items);

	if (random_below(8))
		generate_jump(g, item, any_condition());
	else
		generate_jump(g, item, random_below(2) ? JA(0) : INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, 0));
}

static void generate_backward(struct generator *g)
{
	const uint32_t reg = any_register();

	ADD(&g->program, LOAD(BPF_DW, reg, 10, -8), ALU64_K(BPF_SUB, reg, 1), STORE(BPF_DW, 10, -8, reg));
	generate_jump(g, random_below(g->n_items + 1), JUMP_K(BPF_JSGT, reg, 0, 0));
}

static void generate_call(struct generator *g)
{
	const uint32_t n_behind = g->n_methods - g->method - 1, reg = any_register();

	if (!n_behind || !random_below(3)) {
		ADD(&g->program, CALL_IMPORT(random_below(2)));
		return;
	}
	ADD(&g->program, LOAD(BPF_DW, 1, 10, -16));
	if (random_below(2))
		ADD(&g->program, CALL(g->method + 1 + random_below(n_behind)));
	else if (reg != INSN_R1)
		ADD(&g->program, LDDW(reg, INSN_REF_METHOD, 0, g->method + 1 + random_below(n_behind)), CALLX(reg));
}

static void generate_item(struct generator *g)
{
	switch (random_below(16)) {
	case 0:
	case 1:
		generate_forward(g);
		break;
	case 2:
		generate_backward(g);
		break;
	case 3:
		generate_call(g);
		break;
	case 4:
	case 5:
		generate_memory(g);
		break;
	case 6:
		generate_atomic(g);
		break;
	case 7:
		generate_constant(g);
		break;
	case 8:
		generate_swap(g);
		break;
	default:
		generate_alu(g);
	}
}

static void generate_link(struct generator *g)
{
	for (uint32_t i = 0; i < g->n_jumps; i++) {
		struct insn *insn = &g->program.insns[g->jumps[i].pc];
		const int32_t distance = g->item[g->jumps[i].item] - (g->jumps[i].pc + 1);

		if (insn->code == (BPF_JMP32 | BPF_JA))
			insn->imm = distance;
		else
			insn->off = distance;
	}
}

/* Half of the programs end with everything live: all registers go to the context. */
static void generate_end(struct generator *g)
{
	if (random_below(2)) {
		ADD(&g->program, STORE(BPF_DW, 10, -24, 0), LOAD(BPF_DW, 0, 10, -16));
		for (int reg = 1; reg <= 9; reg++)
			ADD(&g->program, STORE(BPF_DW, 0, 8 * (g->method * 10 + reg), reg));
		ADD(&g->program, LOAD(BPF_DW, 0, 10, -24));
	}
	ADD(&g->program, EXIT());
}

static void generate_method(struct generator *g)
{
	ADD(&g->program, STORE_K(BPF_DW, 10, -8, random_below(20)), STORE(BPF_DW, 10, -16, 1));
	for (int i = 0; i < N_OWN; i++)
		ADD(&g->program, STORE_K(BPF_DW, 10, -24 - 8 * i, random_value()));
	for (g->n_items = 0; g->n_items < g->n_items_max; g->n_items++) {
		g->item[g->n_items] = g->program.n;
		generate_item(g);
	}
	g->item[g->n_items] = g->program.n;
	generate_end(g);
	generate_link(g);
}

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return ((a * 31 + b) * 31 + c) * 31 + (d ^ e);
}

static uint64_t store_sum(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	context[N_CONTEXT - 1] += a;
	return context[N_CONTEXT - 1] ^ b;
}

static void load_random_module(struct world *w)
{
	struct builder builder = BUILDER_NULL;
	const uint32_t n_methods = 1 + random_below(N_METHODS);

	builder_import(&builder, "mix", 0);
	builder_import(&builder, "store_sum", 0);
	for (int i = 0; i < _IMAGE_SEGMENT_N; i++)
		builder_segment(&builder, i, NULL, 64, 8);
	for (uint32_t method = 0; method < n_methods; method++) {
		struct generator g = { .method = method, .n_methods = n_methods, .n_items_max = 1 + random_below(N_ITEMS_MAX) };

		generate_method(&g);
		world_method(&builder, &g.program);
	}
	world_load(w, &builder);
}

/* A module's run, and what it should come to */
struct run {
	uint64_t args[5], before[N_CONTEXT], expected[N_CONTEXT], result;
};

static void interpret(struct world *w, struct run *run)
{
	run->args[0] = (uintptr_t)context;
	for (size_t i = 1; i < ARRAY_SIZE(run->args); i++)
		run->args[i] = random_value();
	for (size_t i = 0; i < N_CONTEXT; i++)
		run->before[i] = context[i] = random_value();
	run->result = census_take(w, run->args);
	memcpy(run->expected, context, sizeof(context));
}

static void compare(struct world *w, const struct run *run, uint64_t seed)
{
	const uint64_t *expected = run->expected, result = run->result;
	uint64_t native;

	memcpy(context, run->before, sizeof(context));
	native = world_run(w, 0, run->args);
	if (native != result || memcmp(context, expected, sizeof(context)))
		fail_msg("TIER_TEST_SEED=%llu: native 0x%llx, reference 0x%llx, memory %s", (unsigned long long)seed,
			 (unsigned long long)native, (unsigned long long)result,
			 memcmp(context, expected, sizeof(context)) ? "differs" : "agrees");
}

static void random_modules_agree_with_the_reference(void **state)
{
	const uint32_t n_modules = test_is_long() ? 200000 : 8000;
	struct world *w = *state;
	struct run run;

	world_bind(w, 0, mix);
	world_bind(w, 1, store_sum);
	for (uint32_t i = 0; i < n_modules; i++) {
		const uint64_t seed = world_seed;	/* of this module: it comes first when given */

		load_random_module(w);
		for (int i_run = 0; i_run < 3; i_run++) {
			interpret(w, &run);
			compare(w, &run, seed);
		}
	}
	print_message("%u modules, %llu instructions; flow and tier 0 take %.1f ns per instruction\n", n_modules,
		      (unsigned long long)w->n_compiled, (double)w->compile_ns / (double)w->n_compiled);
}

static void compare_counts(struct world *w, uint64_t seed)
{
	const int64_t cell = census_difference(w);

	if (cell >= 0)
		fail_msg("TIER_TEST_SEED=%llu: cell %lld is %u, by the reference %u", (unsigned long long)seed, (long long)cell,
			 world_cells(w)[cell], census.cells[cell]);
	for (uint32_t i = 0; i < w->n_patchpoints; i++)
		if (world_hits(w)[i] != census.hits[i])
			fail_msg("TIER_TEST_SEED=%llu: patchpoint %u was hit %u times, by the reference %u",
				 (unsigned long long)seed, i, world_hits(w)[i], census.hits[i]);
}

/* Every head that is reached is a hit, which goes on in the same code. */
static void random_modules_count_what_the_reference_counts(void **state)
{
	const uint32_t n_modules = test_is_long() ? 100000 : 4000;
	struct world *w = *state;
	uint64_t n_hits = 0;
	struct run run;

	osr_begin(w, 1);
	for (uint32_t i = 0; i < n_modules; i++) {
		const uint64_t seed = world_seed;

		w->profiles = i % 3 != 1;
		w->patchpoints = i % 3 != 0;
		load_random_module(w);
		for (int i_run = 0; i_run < 2; i_run++) {
			interpret(w, &run);
			compare(w, &run, seed);
			compare_counts(w, seed);
		}
	}
	n_hits = osr.n_hits;
	w->profiles = w->patchpoints = false;
	assert_true(n_hits > n_modules);
}

/* Some hit of the run leads into the interpreter, which goes on with what it finds. */
static void random_modules_go_on_elsewhere_from_any_hit(void **state)
{
	const uint32_t n_modules = test_is_long() ? 100000 : 4000;
	struct world *w = *state;
	uint32_t n_entered = 0;
	struct run run;

	for (uint32_t i = 0; i < n_modules; i++) {
		const uint64_t seed = world_seed;
		uint32_t n_hits = 0;

		osr_begin(w, 1);
		load_random_module(w);
		interpret(w, &run);
		for (uint32_t number = 0; number < w->n_patchpoints; number++)
			n_hits += census.hits[number];
		for (uint32_t stays = 0; stays < n_hits && stays < 8; stays++) {
			osr_begin(w, 1);
			osr.code = osr_interpret;
			osr.n_stays = stays < 4 ? stays : random_below(n_hits);
			compare(w, &run, seed);
			n_entered += osr.n_entered;
		}
	}
	w->patchpoints = false;
	assert_true(n_entered > n_modules / 2);
	print_message("%u modules, %u steps into other code\n", n_modules, n_entered);
}

static int compare_ns(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median(uint64_t *ns, size_t n)
{
	qsort(ns, n, sizeof(*ns), compare_ns);
	return ns[n / 2];
}

/* A figure, not a test: a large method as compilers write them, without the cost of starting. */
static void load_large(struct world *w)
{
	const struct insn body[] = {
		LOAD(BPF_W, 2, 1, 8), ALU64_K(BPF_ADD, 2, 100), ALU64_X(BPF_XOR, 0, 2), ALU64_K(BPF_LSH, 2, 3),
		MOV(6, 2), STORE(BPF_DW, 10, -16, 6), JUMP_K(BPF_JGT, 2, 1000, 2), LOAD(BPF_B, 3, 1, 1),
		ALU64_X(BPF_MUL, 0, 3), MOVI(4, 77),
	};
	struct insn *insns = calloc(1000 * ARRAY_SIZE(body) + 1, sizeof(*insns));
	struct builder builder = BUILDER_NULL;
	uint32_t n = 0;

	assert_non_null(insns);
	for (; n < 1000 * ARRAY_SIZE(body); n += ARRAY_SIZE(body))
		memcpy(insns + n, body, sizeof(body));
	insns[n++] = EXIT();
	builder_method(&builder, "large", builder_string(&builder, ".text"), 0, 0, insns, n);
	free(insns);
	world_load(w, &builder);
}

static void print_compile_time(struct world *w, const struct baseline_extra *extra)
{
	enum { N_ROUNDS = 50 };
	_cleanup_(freep) uint8_t *code = malloc(1 << 20);
	struct emit e = { .p = code, .n_max = 1 << 20, .address = w->layout.base + TIER_PRECODES_OFFSET };
	uint64_t flow_ns[N_ROUNDS], baseline_ns[N_ROUNDS];
	const uint32_t n = w->image.n_insns;

	assert_non_null(code);
	for (int round = 0; round < N_ROUNDS; round++) {
		const struct baseline_module module = world_module(w);
		struct flow *flow;

		e.n = 0;
		flow_ns[round] = world_clock();
		assert_int_equal(flow_new(&flow, w->image.insns, w->image.n_insns), 0);
		flow_ns[round] = world_clock() - flow_ns[round];
		baseline_ns[round] = world_clock();
		assert_int_equal(baseline_compile(&e, w->image.insns, flow, &module, extra), 0);
		baseline_ns[round] = world_clock() - baseline_ns[round];
		flow_free(flow);
		assert_true(emit_fits(&e));
	}
	print_message("%u instructions to %zu bytes%s: flow %.1f, tier 0 %.1f ns per instruction\n", n, e.n,
		      extra ? ", counted" : "", median(flow_ns, N_ROUNDS) / n, median(baseline_ns, N_ROUNDS) / n);
}

static void compile_time_is_printed(void **state)
{
	struct world *w = *state;
	struct baseline_extra extra = { .profile_cell = WORLD_CELLS, .patchpoints = true, .osr_counter = 1000 };
	struct profile_map *map;

	load_large(w);
	print_compile_time(w, NULL);
	assert_int_equal(profile_map_new(&map, w->image.insns, w->image.n_insns), 0);
	extra.profile = map;
	print_compile_time(w, &extra);
	free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_modules_agree_with_the_reference),
		cmocka_unit_test(random_modules_count_what_the_reference_counts),
		cmocka_unit_test(random_modules_go_on_elsewhere_from_any_hit),
		cmocka_unit_test(compile_time_is_printed),
	};

	random_setup(NULL);
	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
