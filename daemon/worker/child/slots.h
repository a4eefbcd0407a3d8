/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A call through what may be a vtable slot, as LLVM IR: through its call cell if it is one (DESIGN §2), which the callee is
 * told, else to the value that was loaded. */

#include <llvm-c/Core.h>
#include <stdbool.h>
#include <stdint.h>
#include "bytecode/flow.h"
#include "worker/job.h"

/* Offsets of a body's slot loads from their bases: lowest and highest. Programs call through many slots of a table. */
struct slot_range {
	int16_t low, high;
};

/* The offsets of the FLOW_SLOT_LOADs among @insns, whose flow it is; all 0 when there are none. */
struct slot_range slot_range_of(const struct flow *flow, const struct insn *insns);

#define SLOT_ARGUMENTS_MAX 5u

struct slot_call {
	const struct job_compile *job;		/* n_slots is not 0 */
	LLVMBuilderRef builder;			/* at the call's place; afterwards at a place behind it */
	LLVMValueRef rodata;			/* address of .rodata, a ptr */
	LLVMValueRef base;			/* base + offset is where value was loaded from; an i64 */
	int16_t offset;
	struct slot_range range;		/* of the body */
	LLVMValueRef value;			/* an i64 */
	LLVMValueRef *arguments;		/* n_arguments i64 */
	unsigned int n_arguments;
};

/* Returns r0, an i64. */
LLVMValueRef slot_call_lower(const struct slot_call *call);

/* What is loaded behind this is loaded after everything before it, so that a call finds its cell as it is when it begins. A
 * volatile load would do as well, but becomes no operand of a call instruction. */
void slot_load_anew(LLVMBuilderRef builder);
/* The same pointer, of which LLVM knows nothing: the result of an empty piece of assembly */
LLVMValueRef slot_opaque(LLVMBuilderRef builder, LLVMValueRef pointer);
bool slot_is_opaque(LLVMValueRef value);
/* Whether @call, an instruction, goes through a slot (or by its value, with the slot in doubt): its last argument is the cell. */
bool slot_is_call(LLVMValueRef call);
