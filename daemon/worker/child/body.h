/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One body on its way into LLVM IR: what the parts of the lowering share
 *
 *   lower.c    instruction after instruction          entry.c   how a body begins: registers, frame
 *   access.c   loads, stores, atomics                 call.c    calls of all kinds
 *
 * body.c has what all of them need: registers, values, and the names of what lies outside the method. hints.c says what a
 * profile knows of a place, weights.c tells LLVM, counters.c makes the code that counts. */

#include <llvm-c/Core.h>
#include <stdbool.h>
#include "bytecode/flow.h"
#include "worker/child/counters.h"
#include "worker/child/plan.h"
#include "worker/child/provenance.h"
#include "worker/child/slots.h"
#include "worker/job.h"

#define BODY_ARGUMENTS 5	/* r1..r5 */

/* The whole job */
struct lower {
	LLVMModuleRef module;
	LLVMContextRef context;
	LLVMBuilderRef builder;
	const struct job_compile *job;
	const struct plan *plan;
	LLVMTypeRef i8, i64, ptr, function_type, osr_type;
	LLVMValueRef *functions;	/* per body, NULL: not used */
	bool opaque;
};

struct body {
	struct lower *lower;
	LLVMBuilderRef builder;		/* lower's */
	uint32_t index;
	bool is_osr;			/* entered at job->osr_pc, by code that runs already */
	const struct insn *insns;
	uint32_t n_insns;
	struct provenance *provenance;
	const struct flow *flow;
	struct slot_range slot_range;
	LLVMBasicBlockRef *blocks;	/* per slot that starts a block, else NULL */
	LLVMValueRef function, frame_end;
	LLVMValueRef integers[INSN_R10], pointers[INSN_R10];
	uint16_t known;			/* registers that keep their base before the current instruction */
	LLVMValueRef slot;		/* base of the newest FLOW_SLOT_LOAD, an i64 */
	int16_t slot_offset;
	uint32_t n_calls;		/* lowered so far */
	const struct profile_map *map;	/* what the code counts; NULL: nothing */
	struct counters counters;
	uint32_t site;			/* index in map of the next site */
};

/* registers: r10 is a pointer only */
LLVMValueRef body_pointer(struct body *body, unsigned int reg);
LLVMValueRef body_integer(struct body *body, unsigned int reg);
void body_set(struct body *body, unsigned int reg, LLVMValueRef value);
void body_set_pointer(struct body *body, unsigned int reg, LLVMValueRef pointer);	/* a register that keeps its base */

/* values: 64 bits wide where nothing else is said */
LLVMTypeRef body_int_type(struct body *body, unsigned int bits);
LLVMValueRef body_constant(struct body *body, int64_t value);
LLVMValueRef body_operand(struct body *body, const struct insn *insn);	/* src or the immediate */
LLVMValueRef body_narrow(struct body *body, LLVMValueRef value, unsigned int bits);
LLVMValueRef body_widen(struct body *body, LLVMValueRef value);
LLVMValueRef body_offset(struct body *body, LLVMValueRef pointer, LLVMValueRef offset);

/* Where what is lowered at @pc counts, if it does. Each is asked for once, in the order of instructions. */
const struct profile_site *body_site(struct body *body, uint32_t pc);

/* what lies outside the method */
LLVMValueRef body_load_cell(struct body *body, enum code_target target, uint32_t index);
/* The cell where instrumented code's words begin */
LLVMValueRef body_words(struct body *body);
/* The address of what @target and @index name, as the program gets it */
LLVMValueRef body_address_of(struct body *body, enum code_target target, uint32_t index);
