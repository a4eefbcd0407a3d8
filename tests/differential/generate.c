/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include "differential/generate.h"
#include "util/base.h"

/* A method is a row of items, each a few instructions; jumps lead from item to item, forward freely, backward only while
 * there is fuel, so that every method ends. It calls only those behind it, so that calls end too.
 *
 *   r10-8    fuel                          r10-24        address of an array of 64 bytes, the second argument: the caller's
 *   r10-16   address of the context        r10-96..-33   the method's own array of 64 bytes
 *                                          r10-104       a pointer on its way through memory
 *
 * Where a frame lies is the one thing in which two executions may differ. So what is derived from r10 stays in a register
 * only within an item, is stored nowhere but in r10-24 and r10-104, and goes to callees only as that second argument. */

enum {
	N_ITEMS = 24, N_INSNS = 1024, N_TREE = 3, N_ARRAY = 64, N_WORDS = GENERATE_RESULTS,
	FUEL = -8, CONTEXT = -16, ARRAY = -24, OWN = -96, SPILL = -104,
};

/* .rodata: an array that programs read, then n methods' addresses in a row, n times an address and a number, and the addresses once
 * more, 3 bytes off any alignment */
#define TABLE N_ARRAY
#define TABLE_WORDS(n) (8 * 3 * (n))
#define TABLE_SIZE(n) (TABLE_WORDS(n) + 8 * ((n) + 1))

/* where memory accesses go */
enum place { PLACE_CONTEXT, PLACE_OWN, PLACE_ARRAY, PLACE_RODATA, PLACE_DATA, PLACE_BSS, _PLACE_N };

struct generator {
	struct insn insns[N_INSNS];
	uint32_t n;
	uint32_t items[N_ITEMS + 1];	/* first instruction of each */
	uint32_t n_items, n_items_max;
	struct { uint32_t pc, item; } jumps[N_ITEMS];
	uint32_t n_jumps;
	uint32_t method, end;		/* it may call those between it and end */
	uint32_t n_methods;		/* of the module */
};

uint64_t random_seed = 1;

uint64_t random_next(void)
{
	uint64_t z = random_seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t random_below(uint32_t n) { return random_next() % n; }

uint64_t random_value(void)
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

/* -- Instructions --- */
#define INSN(c, d, s, o, i) ((struct insn){ .code = (c), .dst = (d), .src = (s), .off = (o), .imm = (i) })
#define ALU_X(op, d, s) INSN(BPF_ALU64 | BPF_X | (op), d, s, 0, 0)
#define ALU_K(op, d, i) INSN(BPF_ALU64 | BPF_K | (op), d, 0, 0, i)
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STORE(size, d, o, s) INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define STORE_K(size, d, o, i) INSN(BPF_ST | BPF_MEM | (size), d, 0, o, i)
#define LDDW(d, ref, low, high) INSN(BPF_LDDW, d, ref, 0, low), INSN(0, 0, 0, 0, high)
#define CALL(kind, index) INSN(BPF_JMP | BPF_CALL, 0, kind, 0, index)
#define CALLX(d) INSN(BPF_JMP | BPF_CALL | BPF_X, d, 0, 0, 0)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define ADD(g, ...)                                                                                                    \
	generate_add((g), (const struct insn[]){ __VA_ARGS__ },                                                        \
		     sizeof((const struct insn[]){ __VA_ARGS__ }) / sizeof(struct insn))

static void generate_add(struct generator *g, const struct insn *insns, uint32_t n)
{
	assert(g->n + n <= N_INSNS);
	memcpy(g->insns + g->n, insns, n * sizeof(*insns));
	g->n += n;
}

static uint32_t any_register(void) { return random_below(10); }

static uint32_t other_register(uint32_t reg) { return (reg + 1 + random_below(9)) % 10; }

static uint32_t any_size(void)
{
	static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };

	return sizes[random_below(4)];
}

static uint32_t size_bytes(uint32_t size) { return size == BPF_B ? 1 : size == BPF_H ? 2 : size == BPF_W ? 4 : 8; }

/* -- Arithmetic --- */
/* @op of any kind on dst and src, or on dst and a constant */
static struct insn any_alu(uint32_t dst, uint32_t src)
{
	static const uint8_t ops[] = {
		BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_NEG, BPF_MOD, BPF_XOR, BPF_MOV,
		BPF_ARSH, BPF_DIV, BPF_MOD, BPF_LSH, BPF_MOV, BPF_ADD, BPF_XOR,
	};
	const uint32_t op = ops[random_below(ARRAY_SIZE(ops))], class = random_below(2) ? BPF_ALU64 : BPF_ALU;
	const bool by_register = op != BPF_NEG && random_below(3);
	struct insn insn = INSN(class | op, dst, 0, 0, 0);

	if (by_register) {
		insn.code |= BPF_X;
		insn.src = src;
	} else if (op != BPF_NEG) {
		insn.imm = random_value();
	}
	if (op == BPF_DIV || op == BPF_MOD)
		insn.off = random_below(2);
	if (op == BPF_MOV && by_register)
		insn.off = (const int16_t[]){ 0, 0, 8, 16, class == BPF_ALU64 ? 32 : 0 }[random_below(5)];
	return insn;
}

static void item_swap(struct generator *g)
{
	static const uint8_t codes[] = { BPF_ALU | BPF_END, BPF_ALU | BPF_X | BPF_END, BPF_ALU64 | BPF_END };

	ADD(g, INSN(codes[random_below(3)], any_register(), 0, 0, 16 << random_below(3)));
}

static void item_constant(struct generator *g)
{
	const uint64_t value = random_value();

	if (random_below(4))
		ADD(g, LDDW(any_register(), INSN_REF_NONE, value, value >> 32));
	else
		ADD(g, LDDW(any_register(), INSN_REF_RODATA + random_below(3), random_below(N_ARRAY), 0));
}

/* -- Memory --- */
static enum place any_place(bool writes)
{
	enum place place = random_below(_PLACE_N);

	return writes && place == PLACE_RODATA ? PLACE_CONTEXT : place;
}

/* Whether a register that points there must not outlive its item */
static bool is_secret(enum place place) { return place == PLACE_OWN || place == PLACE_ARRAY; }

static uint32_t place_bytes(enum place place) { return place == PLACE_CONTEXT ? N_WORDS * 8 : N_ARRAY; }

/* @reg = the address of the first byte there */
static void point(struct generator *g, uint32_t reg, enum place place)
{
	switch (place) {
	case PLACE_CONTEXT:
		ADD(g, LOAD(BPF_DW, reg, INSN_R10, CONTEXT));
		break;
	case PLACE_OWN:
		ADD(g, ALU_X(BPF_MOV, reg, INSN_R10), ALU_K(BPF_ADD, reg, OWN));
		break;
	case PLACE_ARRAY:
		ADD(g, LOAD(BPF_DW, reg, INSN_R10, ARRAY));
		break;
	default:
		ADD(g, LDDW(reg, INSN_REF_RODATA + (place - PLACE_RODATA), 0, 0));
	}
}

/* The end of a secret */
static void scrub(struct generator *g, uint32_t reg)
{
	if (random_below(2))
		ADD(g, ALU_K(BPF_MOV, reg, random_value()));
	else
		ADD(g, ALU_X(BPF_XOR, reg, reg));
}

static bool insn_loads(const struct insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_LDX || (BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_LOAD_ACQ);
}

/* Any access; its register operand is @value, its base is filled in later */
static struct insn any_access(uint32_t size, uint32_t value)
{
	static const int32_t ops[] = {
		BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG,
	};

	switch (random_below(8)) {
	case 0:
	case 1:
		return INSN(BPF_LDX | BPF_MEM | size, value, 0, 0, 0);
	case 2:
		return INSN(BPF_LDX | (size == BPF_DW ? BPF_MEM : BPF_MEMSX) | size, value, 0, 0, 0);
	case 3:
		return INSN(BPF_ST | BPF_MEM | size, 0, 0, 0, random_value());
	case 4:
	case 5:
		return INSN(BPF_STX | BPF_MEM | size, 0, value, 0, 0);
	case 6:
		return random_below(2) ? INSN(BPF_STX | BPF_ATOMIC | size, value, 0, 0, BPF_LOAD_ACQ)
				       : INSN(BPF_STX | BPF_ATOMIC | size, 0, value, 0, BPF_STORE_REL);
	default:
		return INSN(BPF_STX | BPF_ATOMIC | (size == BPF_W ? BPF_W : BPF_DW), 0, value, 0,
			    ops[random_below(ARRAY_SIZE(ops))]);
	}
}

/* @insn through @base. Atomics are aligned: the processor may trap on a locked access across cache lines. */
static struct insn based(struct insn insn, uint32_t base, uint32_t room)
{
	const uint32_t n = size_bytes(BPF_SIZE(insn.code));
	const bool atomic = BPF_MODE(insn.code) == BPF_ATOMIC && BPF_CLASS(insn.code) == BPF_STX;

	insn.off = atomic || random_below(2) ? n * random_below(room / n) : random_below(room - n + 1);
	if (insn_loads(&insn))
		insn.src = base;
	else
		insn.dst = base;
	return insn;
}

/* An access through any register. cmpxchg has r0 as a second operand, so that its base must not be r0. */
static void item_access(struct generator *g)
{
	const uint32_t base = 1 + random_below(9);
	const struct insn insn = any_access(any_size(), other_register(base));
	const enum place place = any_place(!insn_loads(&insn));

	point(g, base, place);
	ADD(g, based(insn, base, place_bytes(place)));
	if (is_secret(place))
		scrub(g, base);
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

/* An access with a constant offset from r10 */
static void item_frame(struct generator *g)
{
	struct insn insn = based(any_access(any_size(), any_register()), INSN_R10, N_ARRAY);

	insn.off += OWN;
	ADD(g, insn);
}

/* Two registers that are not r0, so that cmpxchg takes no pointer for its operand, and an access whose operand is neither */
static struct insn access_beside(uint32_t *p, uint32_t *q)
{
	uint32_t value;

	*p = 1 + random_below(9);
	*q = 1 + (*p + random_below(8)) % 9;
	do
		value = any_register();
	while (value == *p || value == *q);
	return any_access(any_size(), value);
}

/* An access at an index that is only known when it runs: base + index, index + base, or base - -index */
static void item_indexed(struct generator *g)
{
	uint32_t base, index;
	const struct insn insn = access_beside(&base, &index);
	const enum place place = any_place(!insn_loads(&insn));
	const uint32_t form = random_below(3);

	ADD(g, ALU_K(BPF_AND, index, random_below(4)), ALU_K(BPF_LSH, index, 3));
	point(g, base, place);
	if (form == 0)
		ADD(g, ALU_X(BPF_ADD, base, index));
	else if (form == 1)
		ADD(g, ALU_X(BPF_ADD, index, base));
	else
		ADD(g, ALU_K(BPF_NEG, index, 0), ALU_X(BPF_SUB, base, index));
	ADD(g, based(insn, form == 1 ? index : base, place_bytes(place) - 3 * 8));
	if (is_secret(place)) {
		scrub(g, base);
		scrub(g, index);
	}
}

/* A pointer that is one of two, depending on the path */
static void item_select(struct generator *g)
{
	uint32_t p, q, jump;
	const struct insn insn = access_beside(&p, &q);
	const bool writes = !insn_loads(&insn);

	point(g, p, any_place(writes));
	jump = g->n;
	ADD(g, any_condition());
	while (g->insns[jump].dst == p || g->insns[jump].src == p)
		g->insns[jump] = any_condition();
	point(g, p, any_place(writes));
	g->insns[jump].off = g->n - (jump + 1);
	ADD(g, based(insn, p, N_ARRAY));
	scrub(g, p);
}

/* A pointer that went through memory, through arithmetic that has no pointers, or was rounded down */
static void item_detour(struct generator *g)
{
	uint32_t p, q;
	const struct insn insn = access_beside(&p, &q);
	const int32_t mask = random_value();

	point(g, p, any_place(!insn_loads(&insn)));
	switch (random_below(4)) {
	case 0:
		ADD(g, STORE(BPF_DW, INSN_R10, SPILL, p), LOAD(BPF_DW, q, INSN_R10, SPILL));
		break;
	case 1:
		ADD(g, ALU_K(BPF_XOR, p, mask), ALU_X(BPF_MOV, q, p), ALU_K(BPF_XOR, q, mask));
		break;
	case 2:
		ADD(g, ALU_X(BPF_MOV, q, p), ALU_K(BPF_ADD, q, random_below(8)), ALU_K(BPF_AND, q, -8));
		break;
	default:
		ADD(g, ALU_X(BPF_MOV, q, p), ALU_K(BPF_ADD, q, mask), ALU_K(BPF_SUB, q, mask));
	}
	ADD(g, based(insn, q, N_ARRAY));
	scrub(g, p);
	scrub(g, q);
}

/* Two pointers into one array: their distance and their order are the same everywhere. */
static void item_distance(struct generator *g)
{
	const enum place place = any_place(false);
	uint32_t p, q, jump;

	access_beside(&p, &q);
	point(g, p, place);
	ADD(g, ALU_X(BPF_MOV, q, p), ALU_K(BPF_ADD, q, random_below(N_ARRAY)), ALU_K(BPF_ADD, p, random_below(N_ARRAY)));
	jump = g->n;
	ADD(g, INSN(BPF_JMP | BPF_X | (random_below(2) ? BPF_JGT : BPF_JEQ), p, q, 3, 0));
	ADD(g, ALU_X(BPF_SUB, p, q), ALU_K(BPF_MOV, q, 1), INSN(BPF_JMP | BPF_JA, 0, 0, 2, 0));
	ADD(g, ALU_X(BPF_SUB, q, p), ALU_K(BPF_MOV, p, 2));
	assert(g->n == jump + 6);
}

/* A counted loop over an array, as compilers write them: the kind that an optimizer unrolls and vectorizes */
static void item_loop(struct generator *g)
{
	const uint32_t p = 1 + random_below(9), i = other_register(p), size = any_size(), step = size_bytes(size);
	const enum place place = any_place(true);
	const uint32_t n = 1 + random_below(place_bytes(place) / 2 / step), lead = random_below(2) * place_bytes(place) / 2;
	uint32_t value, sum, head, n_extra = random_below(3);

	do
		value = any_register();
	while (value == p || value == i);
	do
		sum = any_register();
	while (sum == p || sum == i);
	point(g, p, place);
	ADD(g, ALU_K(BPF_MOV, i, 0));
	head = g->n;
	ADD(g, LOAD(size, value, p, 0), any_alu(sum, value));
	while (n_extra--)
		ADD(g, any_alu(random_below(2) ? sum : value, random_below(2) ? sum : random_below(4) ? value : i));
	if (random_below(2))
		ADD(g, STORE(size, p, lead, random_below(2) ? sum : value));
	ADD(g, ALU_K(BPF_ADD, p, step), ALU_K(BPF_ADD, i, 1));
	ADD(g, INSN((random_below(2) ? BPF_JMP : BPF_JMP32) | (random_below(2) ? BPF_JNE : BPF_JLT), i, 0, head - (g->n + 1), n));
	if (is_secret(place))
		scrub(g, p);
}

/* -- Jumps --- */
/* Leads to item @item; generate_link() fills the distance in. */
static void add_jump(struct generator *g, uint32_t item, struct insn insn)
{
	g->jumps[g->n_jumps].pc = g->n;
	g->jumps[g->n_jumps++].item = item;
	ADD(g, insn);
}

static void item_forward(struct generator *g)
{
	const uint32_t item = g->n_items + 1 + random_below(g->n_items_max - g->n_items);

	if (random_below(8))
		add_jump(g, item, any_condition());
	else
		add_jump(g, item, random_below(2) ? INSN(BPF_JMP | BPF_JA, 0, 0, 0, 0) : INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, 0));
}

static void item_backward(struct generator *g)
{
	const uint32_t reg = any_register();

	ADD(g, LOAD(BPF_DW, reg, INSN_R10, FUEL), ALU_K(BPF_SUB, reg, 1), STORE(BPF_DW, INSN_R10, FUEL, reg));
	add_jump(g, random_below(g->n_items + 1), INSN(BPF_JMP | BPF_JSGT, reg, 0, 0, 0));
}

/* -- Calls --- */
/* Something between a load and the call that may use any register but @reg, r1 and r2, and leads on in any case */
static void add_between(struct generator *g, uint32_t reg)
{
	const uint32_t other = (3 + random_below(7)) % 10;

	if (other == reg)
		return;
	if (random_below(3))
		ADD(g, any_alu(other, random_below(2) ? other : reg));
	else
		ADD(g, ALU_K(BPF_MOV, other, random_value()), INSN(BPF_JMP | BPF_JSGT | BPF_K, other, 0, 1, 0), any_alu(other, other));
}

/* The others' addresses stand only where none is aligned, so they are not backpatchable. */
static bool has_slot(uint32_t method) { return method % 5 != 4; }

/* @reg = the address of a place that holds the method's address: in .rodata aligned or not; or a copy of it, in memory that the
 * call may overwrite, which does not matter any more */
static void point_to_method(struct generator *g, uint32_t reg, uint32_t callee)
{
	const uint32_t other = (reg + 1) % 10 < 3 ? 3 + reg % 2 : (reg + 1) % 10, n = 8 * (callee + 1);

	switch (has_slot(callee) ? random_below(5) : 1) {
	case 0:		/* a copy in the frame */
		ADD(g, LDDW(other, INSN_REF_RODATA, TABLE, 0), LOAD(BPF_DW, other, other, n - 8), STORE(BPF_DW, INSN_R10, SPILL, other));
		ADD(g, ALU_X(BPF_MOV, reg, INSN_R10), ALU_K(BPF_ADD, reg, SPILL));
		break;
	case 4:		/* a copy in .data or .bss */
		ADD(g, LDDW(other, INSN_REF_RODATA, TABLE, 0), LOAD(BPF_DW, other, other, n - 8));
		ADD(g, LDDW(reg, INSN_REF_DATA + random_below(2), random_below(N_ARRAY - 8), 0), STORE(BPF_DW, reg, 0, other));
		break;
	case 1:		/* not aligned: there is no slot */
		ADD(g, LDDW(reg, INSN_REF_RODATA, TABLE + TABLE_WORDS(g->n_methods) + 3, 0), ALU_K(BPF_ADD, reg, n - 8));
		break;
	case 2:		/* by index */
		ADD(g, ALU_K(BPF_MOV, other, callee), ALU_K(BPF_LSH, other, 4), LDDW(reg, INSN_REF_RODATA, TABLE + 8 * g->n_methods, 0),
		    ALU_X(BPF_ADD, reg, other));
		break;
	default:
		ADD(g, LDDW(reg, INSN_REF_RODATA, TABLE, 0), ALU_K(BPF_ADD, reg, n - 8));
	}
}

/* Of a member from its struct, which may be larger than any table of the module */
static int16_t any_member(void)
{
	switch (random_below(6)) {
	case 0: return 8 * (int16_t)random_below(16) - 64;
	case 1: return (int16_t)random_next();
	case 2: return random_below(1024) - 512;
	default: return 0;
	}
}

/* A virtual call: r1 and r2 are set. Sometimes a second one through the register that was loaded, or the value is looked at. */
static void call_by_table(struct generator *g, uint32_t reg, uint32_t callee)
{
	const int16_t off = any_member();

	point_to_method(g, reg, callee);
	if (off)
		ADD(g, ALU_K(BPF_SUB, reg, off));
	ADD(g, LOAD(BPF_DW, reg, reg, off));
	while (!random_below(2))
		add_between(g, reg);
	if (!random_below(6))
		ADD(g, INSN(BPF_JMP | BPF_JEQ | BPF_K, reg, 0, 1, 0));	/* never */
	ADD(g, CALLX(reg));
	if (reg < INSN_R6 || random_below(4))
		return;
	point(g, INSN_R1, PLACE_CONTEXT);
	point(g, INSN_R2, any_place(true));
	ADD(g, CALLX(reg));
}

static void item_call(struct generator *g)
{
	const uint32_t n_behind = g->end - g->method - 1, callee = g->method + 1 + (n_behind ? random_below(n_behind) : 0);
	const uint32_t reg = (3 + random_below(8)) % 10;	/* neither r1 nor r2 */

	if (!n_behind || !random_below(3)) {
		const uint32_t import = random_below(GENERATE_IMPORTS);

		if (random_below(3))
			ADD(g, CALL(INSN_CALL_IMPORT, import));
		else
			ADD(g, LDDW(reg, INSN_REF_IMPORT, 0, import), CALLX(reg));
		return;
	}
	point(g, INSN_R1, PLACE_CONTEXT);
	point(g, INSN_R2, any_place(true));
	switch (random_below(8)) {
	case 0:
		ADD(g, LDDW(reg, INSN_REF_METHOD, 0, callee), CALLX(reg));
		break;
	case 1:
	case 2:
	case 3:
		call_by_table(g, reg, callee);
		break;
	default:
		ADD(g, CALL(INSN_CALL_METHOD, callee));
	}
}

/* -- Methods --- */
static void generate_item(struct generator *g)
{
	static void (*const items[])(struct generator *g) = {
		item_forward, item_forward, item_backward, item_call, item_access, item_access, item_frame, item_frame,
		item_indexed, item_select, item_detour, item_distance, item_loop, item_constant, item_swap,
	};
	const uint32_t i = random_below(ARRAY_SIZE(items) + 10);

	if (i < ARRAY_SIZE(items))
		items[i](g);
	else
		ADD(g, any_alu(any_register(), any_register()));
}

static void generate_link(struct generator *g)
{
	for (uint32_t i = 0; i < g->n_jumps; i++) {
		struct insn *insn = &g->insns[g->jumps[i].pc];
		const int32_t distance = g->items[g->jumps[i].item] - (g->jumps[i].pc + 1);

		if (insn->code == (BPF_JMP32 | BPF_JA))
			insn->imm = distance;
		else
			insn->off = distance;
	}
}

static void generate_frame(struct generator *g)
{
	ADD(g, STORE_K(BPF_DW, INSN_R10, FUEL, random_below(6)), STORE(BPF_DW, INSN_R10, CONTEXT, INSN_R1));
	ADD(g, STORE(BPF_DW, INSN_R10, ARRAY, INSN_R2), ALU_K(BPF_MOV, INSN_R2, random_value()));
	for (int i = 0; i < N_ARRAY; i += 8)
		ADD(g, STORE_K(BPF_DW, INSN_R10, OWN + i, random_value()));
}

/* A third of the methods end with everything live: all registers go to the context. */
static void generate_end(struct generator *g)
{
	if (!random_below(3)) {
		ADD(g, STORE(BPF_DW, INSN_R10, OWN, 0), LOAD(BPF_DW, 0, INSN_R10, CONTEXT));
		for (int reg = 1; reg <= 9; reg++)
			ADD(g, STORE(BPF_DW, 0, 8 * random_below(N_WORDS), reg));
		ADD(g, LOAD(BPF_DW, 0, INSN_R10, OWN));
	}
	ADD(g, EXIT);
}

static void add_method(struct builder *builder, const struct generator *g, uint32_t text)
{
	builder_method(builder, "method", text, builder->part[BUILDER_INSNS].n, 0, g->insns, g->n);
}

static void generate_method(struct builder *builder, uint32_t text, uint32_t method, uint32_t end, uint32_t n_methods)
{
	struct generator g = { .method = method, .end = end, .n_methods = n_methods, .n_items_max = 1 + random_below(N_ITEMS) };

	generate_frame(&g);
	for (; g.n_items < g.n_items_max; g.n_items++) {
		g.items[g.n_items] = g.n;
		generate_item(&g);
	}
	g.items[g.n_items] = g.n;
	generate_end(&g);
	generate_link(&g);
	add_method(builder, &g, text);
}

/* Method 0: @entries[i] is the first method of program i. */
static void generate_driver(struct builder *builder, uint32_t text, const uint32_t *entries, uint32_t n_programs)
{
	struct generator g = { 0 };

	generate_frame(&g);
	for (uint32_t i = 0; i < n_programs; i++) {
		point(&g, INSN_R1, PLACE_CONTEXT);
		for (int reg = INSN_R3; reg <= INSN_R5; reg++)
			ADD(&g, LOAD(BPF_DW, reg, INSN_R1, 8 * random_below(N_WORDS)));
		point(&g, INSN_R2, random_below(2) ? PLACE_OWN : PLACE_CONTEXT);
		ADD(&g, CALL(INSN_CALL_METHOD, entries[i]));
		point(&g, INSN_R1, PLACE_CONTEXT);
		ADD(&g, STORE(BPF_DW, INSN_R1, 8 * (GENERATE_RESULTS + i), 0));
	}
	ADD(&g, ALU_K(BPF_MOV, 0, 0), EXIT);
	add_method(builder, &g, text);
}

static void add_pointer(struct builder *builder, uint32_t offset, uint32_t method)
{
	builder_reloc(builder, &(struct image_reloc){ .segment = IMAGE_RODATA, .ref = INSN_REF_METHOD, .width = 8, .offset = offset,
						      .index = method });
}

static void generate_segments(struct builder *builder, uint32_t n_methods)
{
	uint64_t array[N_ARRAY / 8], table[TABLE_SIZE(1 + GENERATE_PROGRAMS * N_TREE) / 8] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(array); i++)
		array[i] = random_value();
	builder_segment(builder, IMAGE_RODATA, array, N_ARRAY, 8);
	for (uint32_t i = 0; i < n_methods; i++)
		table[n_methods + 2 * i + 1] = random_value();
	builder_segment(builder, IMAGE_RODATA, table, TABLE_SIZE(n_methods), 8);
	builder_segment(builder, IMAGE_DATA, array, N_ARRAY, 8);
	builder_segment(builder, IMAGE_BSS, NULL, N_ARRAY, 8);
	for (uint32_t i = 0; i < n_methods; i++)
		if (has_slot(i))
			add_pointer(builder, TABLE + 8 * i, i);
	for (uint32_t i = 0; i < n_methods; i++)
		if (has_slot(i))
			add_pointer(builder, TABLE + 8 * n_methods + 16 * i, i);
	for (uint32_t i = 0; i < n_methods; i++)
		add_pointer(builder, TABLE + TABLE_WORDS(n_methods) + 3 + 8 * i, i);
}

void generate_module(struct builder *builder, uint32_t n_programs)
{
	const uint32_t text = builder_string(builder, ".text");
	uint32_t entries[GENERATE_PROGRAMS + 1], n_methods = 1;

	for (uint32_t i = 0; i < n_programs; i++) {
		entries[i] = n_methods;
		n_methods += random_below(2) ? 1 : 1 + random_below(N_TREE);
	}
	entries[n_programs] = n_methods;
	for (uint32_t i = 0; i < GENERATE_IMPORTS; i++)
		builder_import(builder, "import", 0);
	generate_segments(builder, n_methods);
	generate_driver(builder, text, entries, n_programs);
	for (uint32_t i = 0; i < n_programs; i++)
		for (uint32_t method = entries[i]; method < entries[i + 1]; method++)
			generate_method(builder, text, method, entries[i + 1], n_methods);
}
