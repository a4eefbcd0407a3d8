/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/slots.h"
#include "worker/child/weights.h"

/* What comes of a callx whose register was loaded from base + offset:
 *
 *           all of the body's offsets from base are slots?
 *            │ yes                          │ no, rarely
 *            │                        base + offset is one?
 *            │                         │ yes        │ no
 *            │                      its cell     the value
 *            │                         └─────┬──────┘
 *   call [its cell], r10 = the cell    call that, r10 = the cell
 *            └──────────────┬───────────────┘
 *
 * The first question is the same for all calls through one table, so LLVM asks it once for all of them, and not at all where it
 * sees the table. A body whose offsets lie farther apart than any two slots calls through several things (a table here, a struct
 * in memory there), for which the answer differs: there each call asks for its own offset, and LLVM drops the second question.
 * The usual call has the cell as its operand; the value is needed only on the other way. r10 is what the attribute `nest` means
 * on this machine. Two calls that look different stay two. */

struct slot_range slot_range_of(const struct flow *flow, const struct insn *insns)
{
	struct slot_range range = { .low = INT16_MAX, .high = INT16_MIN };

	for (uint32_t pc = 0; pc < flow->n_insns; pc++) {
		if (!(flow->marks[pc] & FLOW_SLOT_LOAD))
			continue;
		range.low = MIN(range.low, insns[pc].off);
		range.high = MAX(range.high, insns[pc].off);
	}
	return range.low <= range.high ? range : (struct slot_range){ 0 };
}

void slot_load_anew(LLVMBuilderRef builder)
{
	LLVMBuildFence(builder, LLVMAtomicOrderingAcquire, 1, "");
}

static void add_attribute(LLVMValueRef call, LLVMAttributeIndex index, const char *name, uint64_t value)
{
	LLVMContextRef context = LLVMGetModuleContext(LLVMGetGlobalParent(LLVMGetBasicBlockParent(LLVMGetInstructionParent(call))));
	const unsigned int kind = LLVMGetEnumAttributeKindForName(name, strlen(name));

	LLVMAddCallSiteAttribute(call, index, LLVMCreateEnumAttribute(context, kind, value));
}

/* No memory, no way to fail: equal ones are one. */
LLVMValueRef slot_opaque(LLVMBuilderRef builder, LLVMValueRef pointer)
{
	LLVMTypeRef ptr = LLVMTypeOf(pointer), type = LLVMFunctionType(ptr, &ptr, 1, 0);
	LLVMValueRef assembly = LLVMGetInlineAsm(type, "", 0, "=r,0", 4, 0, 0, LLVMInlineAsmDialectATT, 0);
	LLVMValueRef call = LLVMBuildCall2(builder, type, assembly, &pointer, 1, "");

	add_attribute(call, LLVMAttributeFunctionIndex, "memory", 0);
	add_attribute(call, LLVMAttributeFunctionIndex, "nounwind", 0);
	add_attribute(call, LLVMAttributeFunctionIndex, "willreturn", 0);
	return call;
}

bool slot_is_opaque(LLVMValueRef value)
{
	return LLVMIsACallInst(value) && LLVMIsAInlineAsm(LLVMGetCalledValue(value));
}

bool slot_is_call(LLVMValueRef call)
{
	const unsigned int kind = LLVMGetEnumAttributeKindForName("nest", strlen("nest")), n = LLVMGetNumArgOperands(call);

	return n && LLVMGetCallSiteEnumAttribute(call, n, kind);
}

/* -- Pieces --- */
static LLVMTypeRef type_i64(const struct slot_call *call) { return LLVMTypeOf(call->base); }
static LLVMTypeRef type_ptr(const struct slot_call *call) { return LLVMTypeOf(call->rodata); }

static LLVMValueRef constant(const struct slot_call *call, int64_t value)
{
	return LLVMConstInt(type_i64(call), value, 1);
}

static LLVMBasicBlockRef add_block(const struct slot_call *call)
{
	LLVMValueRef function = LLVMGetBasicBlockParent(LLVMGetInsertBlock(call->builder));

	return LLVMAppendBasicBlockInContext(LLVMGetTypeContext(type_i64(call)), function, "");
}

static struct slot_range range_of_offset(const struct slot_call *call)
{
	return (struct slot_range){ .low = call->offset, .high = call->offset };
}

static int64_t range_size(struct slot_range range) { return (int64_t)range.high - range.low; }

/* A distance of two slots is at most this. */
static int64_t distance_max(const struct slot_call *call) { return (int64_t)call->job->n_slots - 8; }

/* Whether all of base + @range are slots: if not, their distance from the first one is a large number. The comparison is one of
 * unsigned numbers, so @range must be no larger than distance_max(). */
static LLVMValueRef are_slots(const struct slot_call *call, struct slot_range range)
{
	LLVMValueRef first = LLVMBuildPtrToInt(call->builder, call->rodata, type_i64(call), ""), distance;
	const int64_t room = distance_max(call) - range_size(range);

	assert(room >= 0);
	first = LLVMBuildAdd(call->builder, first, constant(call, (int64_t)call->job->slots - range.low), "");
	distance = LLVMBuildSub(call->builder, call->base, first, "");
	return LLVMBuildICmp(call->builder, LLVMIntULE, distance, constant(call, room), "");
}

static void branch(const struct slot_call *call, LLVMValueRef condition, LLVMBasicBlockRef usual, LLVMBasicBlockRef rare)
{
	weights_branch(LLVMBuildCondBr(call->builder, condition, usual, rare), 1000, 0);
}

/* LLVM must not see that the cell is reached from .rodata, which it takes for constant. */
static LLVMValueRef cell_of(const struct slot_call *call)
{
	LLVMValueRef base = slot_opaque(call->builder, LLVMBuildIntToPtr(call->builder, call->base, type_ptr(call), ""));
	LLVMValueRef distance = constant(call, call->offset + (int64_t)call->job->call_cells - call->job->slots);

	return LLVMBuildGEP2(call->builder, LLVMInt8TypeInContext(LLVMGetTypeContext(type_i64(call))), base, &distance, 1, "");
}

static LLVMValueRef load_target(const struct slot_call *call, LLVMValueRef cell)
{
	slot_load_anew(call->builder);
	return LLVMBuildLoad2(call->builder, type_ptr(call), cell, "");
}

static LLVMValueRef call_with(const struct slot_call *call, LLVMValueRef target, LLVMValueRef cell)
{
	LLVMValueRef arguments[SLOT_ARGUMENTS_MAX + 1], result;
	LLVMTypeRef types[SLOT_ARGUMENTS_MAX + 1];
	const unsigned int n = call->n_arguments;

	for (unsigned int i = 0; i < n; i++) {
		arguments[i] = call->arguments[i];
		types[i] = type_i64(call);
	}
	arguments[n] = cell;
	types[n] = type_ptr(call);
	result = LLVMBuildCall2(call->builder, LLVMFunctionType(type_i64(call), types, n + 1, 0), target, arguments, n + 1, "");
	add_attribute(result, n + 1, "nest", 0);
	return result;
}

/* -- The whole --- */
static LLVMValueRef lower_rare(const struct slot_call *call)
{
	LLVMBasicBlockRef through_cell = add_block(call), blocks[] = { through_cell, LLVMGetInsertBlock(call->builder) };
	LLVMBasicBlockRef both = add_block(call);
	LLVMValueRef cell = cell_of(call), value = LLVMBuildIntToPtr(call->builder, call->value, type_ptr(call), "");
	LLVMValueRef targets[] = { NULL, value }, target, result;

	LLVMBuildCondBr(call->builder, are_slots(call, range_of_offset(call)), through_cell, both);
	LLVMPositionBuilderAtEnd(call->builder, through_cell);
	targets[0] = load_target(call, cell);
	LLVMBuildBr(call->builder, both);
	LLVMPositionBuilderAtEnd(call->builder, both);
	target = LLVMBuildPhi(call->builder, type_ptr(call), "");
	LLVMAddIncoming(target, targets, blocks, ARRAY_SIZE(blocks));
	result = call_with(call, target, cell);
	add_attribute(result, LLVMAttributeFunctionIndex, "cold", 0);
	return result;
}

LLVMValueRef slot_call_lower(const struct slot_call *call)
{
	LLVMBasicBlockRef usual = add_block(call), rare = add_block(call), after = add_block(call), blocks[] = { usual, rare };
	const bool is_one_table = range_size(call->range) <= distance_max(call);
	LLVMValueRef results[2], cell, phi;

	branch(call, are_slots(call, is_one_table ? call->range : range_of_offset(call)), usual, rare);
	LLVMPositionBuilderAtEnd(call->builder, usual);
	cell = cell_of(call);
	results[0] = call_with(call, load_target(call, cell), cell);
	LLVMBuildBr(call->builder, after);

	LLVMPositionBuilderAtEnd(call->builder, rare);
	results[1] = lower_rare(call);
	blocks[1] = LLVMGetInsertBlock(call->builder);
	LLVMBuildBr(call->builder, after);

	LLVMPositionBuilderAtEnd(call->builder, after);
	phi = LLVMBuildPhi(call->builder, type_i64(call), "");
	LLVMAddIncoming(phi, results, blocks, ARRAY_SIZE(blocks));
	return phi;
}
