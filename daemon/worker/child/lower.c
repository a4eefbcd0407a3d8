/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include "bytecode/flow.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/child/arith.h"
#include "worker/child/lower.h"
#include "worker/child/object.h"
#include "worker/child/provenance.h"
#include "worker/child/slots.h"

/* One body at a time, one instruction after the other
 *
 *   registers  r0..r9: an i64 alloca each, and a ptr alloca each that holds the same value as long as the register keeps its
 *              base. While it does, reads go to the pointer; the integer copy is for places where the paths disagree.
 *   frame      one 512-byte alloca per activation, inlined or not; r10 points to its end. What the method may read of it is
 *              cleared first: a byte that nobody wrote has one value, whichever, and a jump that asks for it goes somewhere.
 *   memory     alignment 1: the bytecode promises none, and the processor asks for none. Read-modify-write is natural.
 *   calls      through the callee's entry cell, read anew by every call, through the import's cell, or through the register's
 *              value. r1..r5 are 0 afterwards, as at tier 0.
 *   slots      a callx whose register was loaded just before goes through the slot's call cell (slots.c).
 *   outside    cells, addresses and segments are hidden external symbols: pc-relative, filled in by the daemon. */

#define ARGUMENTS 5

struct lower {
	LLVMModuleRef module;
	LLVMContextRef context;
	LLVMBuilderRef builder;
	const struct job_compile *job;
	const struct plan *plan;
	LLVMTypeRef i8, i64, ptr, function_type;
	LLVMValueRef *functions;	/* per body, NULL: not used */
	bool opaque;
};

#define CALLS_IN_BLOCK 128u

struct body {
	struct lower *lower;
	LLVMBuilderRef builder;		/* lower's */
	uint32_t index;
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
};

/* -- Registers ----------------------------------------------------------------------------------------------------- */
static LLVMValueRef reg_pointer(struct body *body, unsigned int reg)
{
	if (reg == INSN_R10)
		return body->frame_end;
	if (body->known >> reg & 1)
		return LLVMBuildLoad2(body->builder, body->lower->ptr, body->pointers[reg], "");
	return LLVMBuildIntToPtr(body->builder, LLVMBuildLoad2(body->builder, body->lower->i64, body->integers[reg], ""),
				 body->lower->ptr, "");
}

static LLVMValueRef reg_integer(struct body *body, unsigned int reg)
{
	if (body->known >> reg & 1)
		return LLVMBuildPtrToInt(body->builder, reg_pointer(body, reg), body->lower->i64, "");
	return LLVMBuildLoad2(body->builder, body->lower->i64, body->integers[reg], "");
}

static void reg_set(struct body *body, unsigned int reg, LLVMValueRef value)
{
	LLVMBuildStore(body->builder, value, body->integers[reg]);
}

static void reg_set_pointer(struct body *body, unsigned int reg, LLVMValueRef pointer)
{
	LLVMBuildStore(body->builder, pointer, body->pointers[reg]);
	reg_set(body, reg, LLVMBuildPtrToInt(body->builder, pointer, body->lower->i64, ""));
}

static LLVMValueRef constant(struct body *body, int64_t value)
{
	return LLVMConstInt(body->lower->i64, value, 1);
}

static LLVMTypeRef type_of_bits(struct body *body, unsigned int bits)
{
	return LLVMIntTypeInContext(body->lower->context, bits);
}

/* src or the immediate, 64 bits wide */
static LLVMValueRef operand(struct body *body, const struct insn *insn)
{
	return BPF_SRC(insn->code) == BPF_X ? reg_integer(body, insn->src) : constant(body, insn->imm);
}

static LLVMValueRef narrow(struct body *body, LLVMValueRef value, unsigned int bits)
{
	return bits == 64 ? value : LLVMBuildTrunc(body->builder, value, type_of_bits(body, bits), "");
}

static LLVMValueRef widen(struct body *body, LLVMValueRef value)
{
	return LLVMBuildZExtOrBitCast(body->builder, value, body->lower->i64, "");
}

static LLVMValueRef offset_pointer(struct body *body, LLVMValueRef pointer, LLVMValueRef offset)
{
	return LLVMBuildGEP2(body->builder, body->lower->i8, pointer, &offset, 1, "");
}

/* -- What lies outside the method ---------------------------------------------------------------------------------- */
static LLVMValueRef outside(struct lower *lower, enum code_target target, uint32_t index, uint32_t size)
{
	char name[OBJECT_SYMBOL_MAX];
	LLVMValueRef global;

	object_symbol(name, target, index);
	global = LLVMGetNamedGlobal(lower->module, name);
	if (global)
		return global;
	global = LLVMAddGlobal(lower->module, LLVMArrayType(lower->i8, size), name);
	LLVMSetVisibility(global, LLVMHiddenVisibility);
	LLVMSetAlignment(global, 1);
	LLVMSetGlobalConstant(global, target == CODE_TARGET_RODATA);
	return global;
}

static LLVMValueRef load_cell(struct body *body, enum code_target target, uint32_t index)
{
	LLVMValueRef load;

	if (target == CODE_TARGET_ENTRY)
		slot_load_anew(body->builder);
	load = LLVMBuildLoad2(body->builder, body->lower->i64, outside(body->lower, target, index, 8), "");
	LLVMSetAlignment(load, 8);
	return load;
}

/* The address of what @outside names, as the program gets it */
static LLVMValueRef address_of(struct body *body, enum code_target target, uint32_t index, uint32_t size)
{
	LLVMValueRef pointer = outside(body->lower, target, index, size);

	return body->lower->opaque ? slot_opaque(body->builder, pointer) : pointer;
}

static void lower_lddw(struct body *body, const struct insn *insn)
{
	const struct job_compile *job = body->lower->job;
	uint32_t index = insn[1].imm;
	LLVMValueRef value;

	switch (insn->src) {
	case INSN_REF_METHOD:
		value = LLVMBuildPtrToInt(body->builder, address_of(body, CODE_TARGET_METHOD, index, 1), body->lower->i64, "");
		reg_set(body, insn->dst, LLVMBuildAdd(body->builder, value, constant(body, insn->imm), ""));
		return;
	case INSN_REF_IMPORT:
		value = load_cell(body, CODE_TARGET_IMPORT, index);
		reg_set(body, insn->dst, LLVMBuildAdd(body->builder, value, constant(body, insn->imm), ""));
		return;
	case INSN_REF_RODATA:
		value = address_of(body, CODE_TARGET_RODATA, 0, job->n_rodata);
		break;
	case INSN_REF_DATA:
		value = address_of(body, CODE_TARGET_DATA, 0, job->n_data);
		break;
	case INSN_REF_BSS:
		value = address_of(body, CODE_TARGET_BSS, 0, job->n_bss);
		break;
	default:
		reg_set(body, insn->dst, constant(body, insn_imm64(insn)));
		return;
	}
	reg_set_pointer(body, insn->dst, offset_pointer(body, value, constant(body, insn->imm)));
}

/* -- Arithmetic ---------------------------------------------------------------------------------------------------- */

/* MOV, ADD or SUB whose result keeps a base: on pointers, the integer operand becomes an offset */
static LLVMValueRef pointer_result(struct body *body, const struct insn *insn)
{
	bool dst_is_base = body->known >> insn->dst & 1;
	LLVMValueRef offset;

	if (BPF_OP(insn->code) == BPF_MOV)
		return reg_pointer(body, insn->src);
	if (!dst_is_base)
		return offset_pointer(body, reg_pointer(body, insn->src), reg_integer(body, insn->dst));
	offset = operand(body, insn);
	if (BPF_OP(insn->code) == BPF_SUB)
		offset = LLVMBuildNeg(body->builder, offset, "");
	return offset_pointer(body, reg_pointer(body, insn->dst), offset);
}

static void lower_alu(struct body *body, const struct insn *insn)
{
	bool is_end = BPF_OP(insn->code) == BPF_END;
	unsigned int bits = BPF_CLASS(insn->code) == BPF_ALU64 || is_end ? 64 : 32;
	LLVMValueRef a, b, result;

	if (provenance_after(body->known, insn) >> insn->dst & 1) {
		reg_set_pointer(body, insn->dst, pointer_result(body, insn));
		return;
	}
	a = narrow(body, reg_integer(body, insn->dst), bits);
	b = is_end ? a : narrow(body, operand(body, insn), bits);
	result = arith_alu(body->builder, insn, a, b);
	reg_set(body, insn->dst, widen(body, result));
}

/* -- Memory -------------------------------------------------------------------------------------------------------- */
static unsigned int access_bits(const struct insn *insn)
{
	switch (BPF_SIZE(insn->code)) {
	case BPF_B:
		return 8;
	case BPF_H:
		return 16;
	case BPF_W:
		return 32;
	default:
		return 64;
	}
}

static LLVMValueRef address(struct body *body, unsigned int reg, int16_t off)
{
	LLVMValueRef pointer = reg_pointer(body, reg);

	return off ? offset_pointer(body, pointer, constant(body, off)) : pointer;
}

static void lower_load(struct body *body, const struct insn *insn, bool is_slot)
{
	LLVMTypeRef type = type_of_bits(body, access_bits(insn));
	LLVMValueRef load = LLVMBuildLoad2(body->builder, type, address(body, insn->src, insn->off), "");

	LLVMSetAlignment(load, 1);
	if (is_slot) {
		body->slot = reg_integer(body, insn->src);
		body->slot_offset = insn->off;
	}
	if (BPF_MODE(insn->code) == BPF_MEMSX)
		reg_set(body, insn->dst, LLVMBuildSExt(body->builder, load, body->lower->i64, ""));
	else
		reg_set(body, insn->dst, widen(body, load));
}

static void lower_store(struct body *body, const struct insn *insn)
{
	LLVMValueRef value = BPF_CLASS(insn->code) == BPF_ST ? constant(body, insn->imm) : reg_integer(body, insn->src);
	LLVMValueRef store = LLVMBuildStore(body->builder, narrow(body, value, access_bits(insn)),
					    address(body, insn->dst, insn->off));

	LLVMSetAlignment(store, 1);
}

static LLVMAtomicRMWBinOp atomic_operation(int32_t imm)
{
	switch (imm & ~BPF_FETCH) {
	case BPF_ADD:
		return LLVMAtomicRMWBinOpAdd;
	case BPF_OR:
		return LLVMAtomicRMWBinOpOr;
	case BPF_AND:
		return LLVMAtomicRMWBinOpAnd;
	case BPF_XOR:
		return LLVMAtomicRMWBinOpXor;
	default:
		return LLVMAtomicRMWBinOpXchg;
	}
}

static void lower_compare_exchange(struct body *body, const struct insn *insn)
{
	unsigned int bits = access_bits(insn);
	LLVMValueRef pair;

	pair = LLVMBuildAtomicCmpXchg(body->builder, address(body, insn->dst, insn->off),
				      narrow(body, reg_integer(body, INSN_R0), bits),
				      narrow(body, reg_integer(body, insn->src), bits),
				      LLVMAtomicOrderingSequentiallyConsistent, LLVMAtomicOrderingSequentiallyConsistent, 0);
	reg_set(body, INSN_R0, widen(body, LLVMBuildExtractValue(body->builder, pair, 0, "")));
}

/* Load-acquire and store-release are plain moves of this processor, at any alignment, if the compiler keeps the order: volatile
 * and a fence for this thread alone. LLVM's own atomic accesses promise an alignment, which SROA may break when the frame
 * is accessed in other ways as well; what is left then is a call of a library that is not there. */
static void lower_acquire(struct body *body, const struct insn *insn)
{
	LLVMTypeRef type = type_of_bits(body, access_bits(insn));
	LLVMValueRef load = LLVMBuildLoad2(body->builder, type, address(body, insn->src, insn->off), "");

	LLVMSetVolatile(load, 1);
	LLVMSetAlignment(load, 1);
	LLVMBuildFence(body->builder, LLVMAtomicOrderingAcquire, 1, "");
	reg_set(body, insn->dst, widen(body, load));
}

static void lower_release(struct body *body, const struct insn *insn)
{
	LLVMValueRef value = narrow(body, reg_integer(body, insn->src), access_bits(insn)), store;

	LLVMBuildFence(body->builder, LLVMAtomicOrderingRelease, 1, "");
	store = LLVMBuildStore(body->builder, value, address(body, insn->dst, insn->off));
	LLVMSetVolatile(store, 1);
	LLVMSetAlignment(store, 1);
}

static void lower_atomic(struct body *body, const struct insn *insn)
{
	LLVMValueRef old;

	switch (insn->imm) {
	case BPF_CMPXCHG:
		lower_compare_exchange(body, insn);
		return;
	case BPF_LOAD_ACQ:
		lower_acquire(body, insn);
		return;
	case BPF_STORE_REL:
		lower_release(body, insn);
		return;
	default:
		old = LLVMBuildAtomicRMW(body->builder, atomic_operation(insn->imm), address(body, insn->dst, insn->off),
					 narrow(body, reg_integer(body, insn->src), access_bits(insn)),
					 LLVMAtomicOrderingSequentiallyConsistent, 0);
		if (insn->imm & BPF_FETCH)
			reg_set(body, insn->src, widen(body, old));
	}
}

/* -- Calls and jumps ----------------------------------------------------------------------------------------------- */
static LLVMValueRef callee_of(struct body *body, const struct insn *insn, uint32_t pc)
{
	int64_t inlined = plan_callee(body->lower->plan, body->lower->job, body->index, pc);
	LLVMValueRef target;

	if (inlined >= 0)
		return body->lower->functions[inlined];
	if (insn_is_callx(insn))
		target = reg_integer(body, insn->dst);
	else if (insn->src == INSN_CALL_METHOD)
		target = load_cell(body, CODE_TARGET_ENTRY, insn->imm);
	else
		target = load_cell(body, CODE_TARGET_IMPORT, insn->imm);
	return LLVMBuildIntToPtr(body->builder, target, body->lower->ptr, "");
}

static LLVMValueRef call_slot(struct body *body, const struct insn *insn, LLVMValueRef arguments[ARGUMENTS])
{
	const struct job_compile *job = body->lower->job;

	return slot_call_lower(&(struct slot_call){
		.job = job,
		.builder = body->builder,
		.rodata = address_of(body, CODE_TARGET_RODATA, 0, job->n_rodata),
		.base = body->slot,
		.offset = body->slot_offset,
		.range = body->slot_range,
		.value = reg_integer(body, insn->dst),
		.arguments = arguments,
		.n_arguments = ARGUMENTS,
	});
}

/* For the code generator, calls in a row take time that grows with the square of those in one block. So a block ends after some,
 * by a branch that is never taken: LLVM does not know that the number is not 0, and takes no two of them for one. */
static void end_block(struct body *body)
{
	LLVMContextRef context = body->lower->context;
	LLVMBasicBlockRef next = LLVMAppendBasicBlockInContext(context, body->function, "");
	LLVMBasicBlockRef never = LLVMAppendBasicBlockInContext(context, body->function, "");
	LLVMValueRef number = LLVMConstIntToPtr(constant(body, body->n_calls), body->lower->ptr);

	LLVMBuildCondBr(body->builder, LLVMBuildIsNull(body->builder, slot_opaque(body->builder, number), ""), never, next);
	LLVMPositionBuilderAtEnd(body->builder, never);
	LLVMBuildRet(body->builder, constant(body, 0));
	LLVMPositionBuilderAtEnd(body->builder, next);
}

static void lower_call(struct body *body, const struct insn *insn, uint32_t pc)
{
	LLVMValueRef arguments[ARGUMENTS], result;

	if (++body->n_calls % CALLS_IN_BLOCK == 0)
		end_block(body);

	for (unsigned int i = 0; i < ARGUMENTS; i++)
		arguments[i] = reg_integer(body, INSN_R1 + i);
	if (body->flow->marks[pc] & FLOW_SLOT_CALL && body->lower->job->n_slots)
		result = call_slot(body, insn, arguments);
	else
		result = LLVMBuildCall2(body->builder, body->lower->function_type, callee_of(body, insn, pc), arguments, ARGUMENTS, "");
	reg_set(body, INSN_R0, result);
	for (unsigned int i = 0; i < ARGUMENTS; i++)
		reg_set(body, INSN_R1 + i, constant(body, 0));
}

static void lower_jump(struct body *body, const struct insn *insn, uint32_t pc)
{
	LLVMBasicBlockRef target = body->blocks[flow_jump_target(body->insns, pc)];
	unsigned int bits = BPF_CLASS(insn->code) == BPF_JMP ? 64 : 32;
	LLVMValueRef a, b;

	if (!insn_is_conditional(insn)) {
		LLVMBuildBr(body->builder, target);
		return;
	}
	a = narrow(body, reg_integer(body, insn->dst), bits);
	b = narrow(body, operand(body, insn), bits);
	LLVMBuildCondBr(body->builder, arith_condition(body->builder, insn, a, b), target, body->blocks[pc + 1]);
}

static void lower_insn(struct body *body, const struct insn *insn, uint32_t pc)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		lower_lddw(body, insn);
		return;
	case BPF_LDX:
		lower_load(body, insn, body->flow->marks[pc] & FLOW_SLOT_LOAD);
		return;
	case BPF_ST:
		lower_store(body, insn);
		return;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			lower_atomic(body, insn);
		else
			lower_store(body, insn);
		return;
	case BPF_ALU:
	case BPF_ALU64:
		lower_alu(body, insn);
		return;
	default:
		if (insn_is_jump(insn))
			lower_jump(body, insn, pc);
		else if (BPF_OP(insn->code) == BPF_EXIT)
			LLVMBuildRet(body->builder, reg_integer(body, INSN_R0));
		else
			lower_call(body, insn, pc);
	}
}

/* -- Bodies -------------------------------------------------------------------------------------------------------- */

/* A block begins wherever a jump leads, and after every jump and exit. */
static void body_blocks(struct body *body)
{
	LLVMContextRef context = body->lower->context;

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		const struct insn *insn = &body->insns[pc];
		bool is_jump = insn_is_jump(insn);
		uint32_t target = is_jump ? flow_jump_target(body->insns, pc) : 0;

		if (is_jump && !body->blocks[target])
			body->blocks[target] = LLVMAppendBasicBlockInContext(context, body->function, "");
		if ((is_jump || insn->code == (BPF_JMP | BPF_EXIT)) && pc + 1 < body->n_insns && !body->blocks[pc + 1])
			body->blocks[pc + 1] = LLVMAppendBasicBlockInContext(context, body->function, "");
	}
}

/* How far below r10 the method gets: by constant offsets, from r10 itself or from a copy of it where that is made. */
static uint32_t frame_reach(const struct insn *insns, uint32_t n_insns)
{
	int32_t low = 0;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		const struct insn *insn = &insns[pc];
		unsigned int class = BPF_CLASS(insn->code);

		if (!(insn_registers(insn).reads >> INSN_R10 & 1))
			continue;
		if (class == BPF_LDX || class == BPF_ST || (class == BPF_STX && insn->src != INSN_R10))
			low = MIN(low, insn->off);
		else if (insn->code == (BPF_ALU64 | BPF_MOV | BPF_X) && insn[1].code == (BPF_ALU64 | BPF_ADD | BPF_K)
			 && insn[1].dst == insn->dst && insn[1].imm < 0)
			low = MIN(low, insn[1].imm);
		else
			return INSN_FRAME_SIZE;
	}
	return MIN((uint32_t)-low, INSN_FRAME_SIZE);
}

/* Never a call of memset(), which is not there. SROA and DSE take away what is written before it is read. */
static void clear_frame(struct body *body)
{
	struct lower *lower = body->lower;
	uint32_t n = frame_reach(body->insns, body->n_insns);
	LLVMTypeRef types[] = { lower->ptr, lower->i64 };
	unsigned int id = LLVMLookupIntrinsicID("llvm.memset.inline", strlen("llvm.memset.inline"));
	LLVMValueRef clear = LLVMGetIntrinsicDeclaration(lower->module, id, types, ARRAY_SIZE(types));
	LLVMValueRef arguments[] = {
		offset_pointer(body, body->frame_end, constant(body, -(int64_t)n)), LLVMConstNull(lower->i8), constant(body, n),
		LLVMConstNull(LLVMInt1TypeInContext(lower->context)),
	};

	if (n)
		LLVMBuildCall2(body->builder, LLVMGlobalGetValueType(clear), clear, arguments, ARRAY_SIZE(arguments), "");
}

/* The entry block: allocas, arguments, and 0 in the registers that hold none */
static void body_prologue(struct body *body)
{
	struct lower *lower = body->lower;
	LLVMValueRef frame;

	LLVMPositionBuilderAtEnd(body->builder, LLVMAppendBasicBlockInContext(lower->context, body->function, ""));
	frame = LLVMBuildAlloca(body->builder, LLVMArrayType(lower->i8, INSN_FRAME_SIZE), "");
	LLVMSetAlignment(frame, 16);
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		body->integers[reg] = LLVMBuildAlloca(body->builder, lower->i64, "");
		body->pointers[reg] = LLVMBuildAlloca(body->builder, lower->ptr, "");
	}
	body->frame_end = offset_pointer(body, frame, constant(body, INSN_FRAME_SIZE));
	clear_frame(body);
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		bool is_argument = reg >= INSN_R1 && reg < INSN_R1 + ARGUMENTS;
		LLVMValueRef value = is_argument ? LLVMGetParam(body->function, reg - INSN_R1) : constant(body, 0);

		reg_set(body, reg, value);
		if (body->provenance->arguments >> reg & 1)
			LLVMBuildStore(body->builder, LLVMBuildIntToPtr(body->builder, value, lower->ptr, ""), body->pointers[reg]);
	}
}

static void body_lower(struct body *body)
{
	body_prologue(body);
	body_blocks(body);
	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		if (body->blocks[pc]) {
			if (!LLVMGetBasicBlockTerminator(LLVMGetInsertBlock(body->builder)))
				LLVMBuildBr(body->builder, body->blocks[pc]);
			LLVMMoveBasicBlockAfter(body->blocks[pc], LLVMGetInsertBlock(body->builder));
			LLVMPositionBuilderAtEnd(body->builder, body->blocks[pc]);
		}
		body->known = body->provenance->before[pc];
		lower_insn(body, &body->insns[pc], pc);
	}
}

DEFINE_CLEANUP(struct flow *, flow_free)

static int lower_body(struct lower *lower, uint32_t index)
{
	_cleanup_(freep) struct provenance *provenance = NULL;
	_cleanup_(flow_freep) struct flow *flow = NULL;
	_cleanup_(freep) LLVMBasicBlockRef *blocks = NULL;
	const struct job_body *source = &lower->job->bodies[index];
	struct body body = { .lower = lower, .builder = lower->builder, .index = index, .insns = source->insns,
			     .n_insns = source->n_insns, .function = lower->functions[index] };
	int r;

	r = provenance_new(&provenance, source->insns, source->n_insns);
	if (r)
		return error_fold(r);
	r = flow_new(&flow, source->insns, source->n_insns);
	if (r)
		return error_fold(r);
	blocks = calloc(source->n_insns, sizeof(*blocks));
	if (!blocks)
		return error_origin(-ENOMEM);
	body.provenance = provenance;
	body.flow = flow;
	body.slot_range = slot_range_of(flow, source->insns);
	body.blocks = blocks;
	body_lower(&body);
	return 0;
}

static void add_flag(struct lower *lower, LLVMValueRef function, const char *name)
{
	unsigned int kind = LLVMGetEnumAttributeKindForName(name, strlen(name));

	LLVMAddAttributeAtIndex(function, LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(lower->context, kind, 0));
}

static void add_string(struct lower *lower, LLVMValueRef function, const char *name, const char *value)
{
	LLVMAddAttributeAtIndex(function, LLVMAttributeFunctionIndex,
				LLVMCreateStringAttribute(lower->context, name, strlen(name), value, strlen(value)));
}

/* No mustprogress: a method may loop forever. No builtins: there is no library to call, so a loop that clears memory
 * stays a loop. Address 0 is like any other: LLVM keeps what goes through it, so that it faults as at tier 0. */
static LLVMValueRef add_function(struct lower *lower, uint32_t index)
{
	char name[OBJECT_SYMBOL_MAX] = OBJECT_ENTRY;
	LLVMValueRef function;

	if (index)
		snprintf(name, sizeof(name), "inlined.%u", index);
	function = LLVMAddFunction(lower->module, name, lower->function_type);
	add_flag(lower, function, "nounwind");
	add_flag(lower, function, "null_pointer_is_valid");
	add_string(lower, function, "frame-pointer", "all");
	add_string(lower, function, "no-builtins", "");
	if (index) {
		add_flag(lower, function, "alwaysinline");
		LLVMSetLinkage(function, LLVMInternalLinkage);
	}
	return function;
}

static int lower_bodies(struct lower *lower)
{
	int r;

	for (uint32_t i = 0; i < lower->job->n_bodies; i++)
		if (lower->plan->used[i])
			lower->functions[i] = add_function(lower, i);
	for (uint32_t i = 0; i < lower->job->n_bodies; i++) {
		if (!lower->functions[i])
			continue;
		r = lower_body(lower, i);
		if (r)
			return error_fold(r);
	}
	return 0;
}

int lower_job(LLVMModuleRef module, const struct job_compile *job, const struct plan *plan, bool opaque)
{
	LLVMContextRef context = LLVMGetModuleContext(module);
	struct lower lower = {
		.module = module,
		.context = context,
		.job = job,
		.plan = plan,
		.opaque = opaque,
		.i8 = LLVMInt8TypeInContext(context),
		.i64 = LLVMInt64TypeInContext(context),
		.ptr = LLVMPointerTypeInContext(context, 0),
	};
	LLVMTypeRef arguments[ARGUMENTS] = { lower.i64, lower.i64, lower.i64, lower.i64, lower.i64 };
	int r;

	lower.function_type = LLVMFunctionType(lower.i64, arguments, ARGUMENTS, 0);
	lower.functions = calloc(job->n_bodies, sizeof(*lower.functions));
	if (!lower.functions)
		return error_origin(-ENOMEM);
	lower.builder = LLVMCreateBuilderInContext(context);
	r = lower_bodies(&lower);
	LLVMDisposeBuilder(lower.builder);
	free(lower.functions);
	return error_fold(r);
}
