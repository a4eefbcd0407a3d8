/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A BPF interpreter to compare both tiers with
 *
 * It says what an instruction means, as plainly as C can, and shares no code with the compilers: not even the decoding of
 * jumps. Slow, single-threaded (its atomics are not atomic), for tests only: #include "reference/reference.c".
 *
 * Every activation has its own 512-byte frame. r0 and r6..r9 start as 0, and a call leaves r1..r5 as 0. Memory accesses go
 * where the program says, as they do in compiled code. */

#include "bytecode/image.h"

typedef uint64_t (*reference_function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

struct reference {
	const struct image *image;			/* checked and verified */
	uint64_t rodata, data, bss;			/* where the segments lie */
	const reference_function *imports;		/* image->n_imports of them; NULL: weak and absent */
	/* The program-visible address of a method, and back: the method whose address this is, or -1 for a host function, which
	 * callx then calls natively. Needed only by programs that use addresses of methods. */
	uint64_t (*method_address)(void *userdata, uint32_t method);
	int64_t (*method_at)(void *userdata, uint64_t address);
	/* NULL, or told when an activation begins */
	void (*entered)(void *userdata, uint32_t method);
	/* NULL, or asked before each instruction, of any activation: true ends the activation, with *ret for its r0. Its registers
	 * may be looked at, and its frame, which ends at r10. */
	bool (*leave)(void *userdata, uint32_t method, uint32_t pc, const uint64_t reg[_INSN_REG_N], uint64_t *ret);
	void *userdata;
	uint64_t n_steps;				/* instructions left before it gives up */
	const char *fault;				/* why reference_call() returned false */
};

/* Runs @method on its five arguments. Returns true and r0 in @ret; or false and @fault: out of steps, or an instruction
 * that is not of RFC 9669. */
bool reference_call(struct reference *reference, uint32_t method, const uint64_t args[5], uint64_t *ret);
/* The same for an activation that somebody else began: it goes on at slot @pc with @registers (r0..r9) and the frame that ends
 * at @frame. */
bool reference_resume(struct reference *reference, uint32_t method, uint32_t pc, const uint64_t registers[10], uint64_t frame,
		      uint64_t *ret);
