/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/access.h"

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
	LLVMValueRef pointer = body_pointer(body, reg);

	return off ? body_offset(body, pointer, body_constant(body, off)) : pointer;
}

void access_load(struct body *body, const struct insn *insn, bool is_slot)
{
	LLVMTypeRef type = body_int_type(body, access_bits(insn));
	LLVMValueRef load = LLVMBuildLoad2(body->builder, type, address(body, insn->src, insn->off), "");

	LLVMSetAlignment(load, 1);
	if (is_slot) {
		body->slot = body_integer(body, insn->src);
		body->slot_offset = insn->off;
	}
	if (BPF_MODE(insn->code) == BPF_MEMSX)
		body_set(body, insn->dst, LLVMBuildSExt(body->builder, load, body->lower->i64, ""));
	else
		body_set(body, insn->dst, body_widen(body, load));
}

void access_store(struct body *body, const struct insn *insn)
{
	LLVMValueRef value = BPF_CLASS(insn->code) == BPF_ST ? body_constant(body, insn->imm) : body_integer(body, insn->src);
	LLVMValueRef store = LLVMBuildStore(body->builder, body_narrow(body, value, access_bits(insn)),
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
				      body_narrow(body, body_integer(body, INSN_R0), bits),
				      body_narrow(body, body_integer(body, insn->src), bits),
				      LLVMAtomicOrderingSequentiallyConsistent, LLVMAtomicOrderingSequentiallyConsistent, 0);
	body_set(body, INSN_R0, body_widen(body, LLVMBuildExtractValue(body->builder, pair, 0, "")));
}

/* Load-acquire and store-release are plain moves of this processor, at any alignment, if the compiler keeps the order: volatile
 * and a fence for this thread alone. LLVM's own atomic accesses promise an alignment, which SROA may break when the frame
 * is accessed in other ways as well; what is left then is a call of a library that is not there. */
static void lower_acquire(struct body *body, const struct insn *insn)
{
	LLVMTypeRef type = body_int_type(body, access_bits(insn));
	LLVMValueRef load = LLVMBuildLoad2(body->builder, type, address(body, insn->src, insn->off), "");

	LLVMSetVolatile(load, 1);
	LLVMSetAlignment(load, 1);
	LLVMBuildFence(body->builder, LLVMAtomicOrderingAcquire, 1, "");
	body_set(body, insn->dst, body_widen(body, load));
}

static void lower_release(struct body *body, const struct insn *insn)
{
	LLVMValueRef value = body_narrow(body, body_integer(body, insn->src), access_bits(insn)), store;

	LLVMBuildFence(body->builder, LLVMAtomicOrderingRelease, 1, "");
	store = LLVMBuildStore(body->builder, value, address(body, insn->dst, insn->off));
	LLVMSetVolatile(store, 1);
	LLVMSetAlignment(store, 1);
}

void access_atomic(struct body *body, const struct insn *insn)
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
					 body_narrow(body, body_integer(body, insn->src), access_bits(insn)),
					 LLVMAtomicOrderingSequentiallyConsistent, 0);
		if (insn->imm & BPF_FETCH)
			body_set(body, insn->src, body_widen(body, old));
	}
}
