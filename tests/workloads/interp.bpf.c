/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* A stack machine: one loop around one switch, opcodes in formats.h
 *
 * clang makes no jump table for BPF, so the switch is a tree of comparisons in the module; what the optimizer makes of
 * it is its own affair. The machine's stack and locals lie in the BPF frame and are addressed by variables. */

#define STACK_SIZE 16u		/* a power of two: an index that runs away wraps around */
#define N_LOCALS 8u

struct machine {
	u64 stack[STACK_SIZE], locals[N_LOCALS];
	u64 sp;
};

static inline void push(struct machine *m, u64 value) { m->stack[m->sp++ % STACK_SIZE] = value; }
static inline u64 pop(struct machine *m) { return m->stack[--m->sp % STACK_SIZE]; }

/* The operators that take two values and leave one */
method u64 operate(u64 op, u64 a, u64 b)
{
	switch (op) {
	case INTERP_ADD:
		return a + b;
	case INTERP_SUB:
		return a - b;
	case INTERP_MUL:
		return a * b;
	case INTERP_XOR:
		return a ^ b;
	case INTERP_SHR:
		return a >> (b & 63);
	default:
		return a < b;
	}
}

method void machine_clear(struct machine *m)
{
	for (u64 i = 0; i < STACK_SIZE; i++)
		m->stack[i] = 0;
	for (u64 i = 0; i < N_LOCALS; i++)
		m->locals[i] = 0;
	m->sp = 0;
}

/* @fuel: how many instructions may run */
export u64 ENTRY(interp)(const u8 *code, u64 n, u64 arg, u64 fuel)
{
	struct machine m;
	u64 pc = 0, a, b;

	machine_clear(&m);
	for (; fuel && pc < n; fuel--) {
		u8 op = code[pc++], operand = pc < n ? code[pc] : 0;

		switch (op) {
		case INTERP_HALT:
			return pop(&m);
		case INTERP_PUSH:
			push(&m, operand);
			pc++;
			break;
		case INTERP_ARG:
			push(&m, arg);
			break;
		case INTERP_LOAD:
			push(&m, m.locals[operand % N_LOCALS]);
			pc++;
			break;
		case INTERP_STORE:
			m.locals[operand % N_LOCALS] = pop(&m);
			pc++;
			break;
		case INTERP_ADD:
		case INTERP_SUB:
		case INTERP_MUL:
		case INTERP_XOR:
		case INTERP_SHR:
		case INTERP_LESS:
			b = pop(&m);
			a = pop(&m);
			push(&m, operate(op, a, b));
			break;
		case INTERP_DUP:
			a = pop(&m);
			push(&m, a);
			push(&m, a);
			break;
		case INTERP_DROP:
			pop(&m);
			break;
		case INTERP_JUMP:
			pc = operand;
			break;
		case INTERP_JUMP_IF:
			pc = pop(&m) ? operand : pc + 1;
			break;
		default:
			return INTERP_FAILED;
		}
	}
	return INTERP_FAILED;
}
