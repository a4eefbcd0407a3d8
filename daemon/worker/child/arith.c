/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/arith.h"

/* A division by what may be zero is undefined in LLVM whatever a later select makes of its result. So the divisor is
 * made safe first. */

static LLVMValueRef constant(LLVMValueRef like, int64_t value)
{
	return LLVMConstInt(LLVMTypeOf(like), value, 1);
}

static LLVMValueRef is_equal(LLVMBuilderRef builder, LLVMValueRef a, int64_t value)
{
	return LLVMBuildICmp(builder, LLVMIntEQ, a, constant(a, value), "");
}

static LLVMValueRef alu_unsigned(LLVMBuilderRef builder, uint8_t op, LLVMValueRef a, LLVMValueRef b)
{
	LLVMValueRef zero = is_equal(builder, b, 0);
	LLVMValueRef safe = LLVMBuildSelect(builder, zero, constant(b, 1), b, "");

	if (op == BPF_DIV)
		return LLVMBuildSelect(builder, zero, constant(a, 0), LLVMBuildUDiv(builder, a, safe, ""), "");
	return LLVMBuildSelect(builder, zero, a, LLVMBuildURem(builder, a, safe, ""), "");
}

/* 0 and -1 are the divisors that have no quotient for every dividend. */
static LLVMValueRef alu_signed(LLVMBuilderRef builder, uint8_t op, LLVMValueRef a, LLVMValueRef b)
{
	LLVMValueRef zero = is_equal(builder, b, 0), minus = is_equal(builder, b, -1);
	LLVMValueRef special = LLVMBuildOr(builder, zero, minus, "");
	LLVMValueRef safe = LLVMBuildSelect(builder, special, constant(b, 1), b, "");
	LLVMValueRef result;

	if (op == BPF_DIV) {
		result = LLVMBuildSelect(builder, minus, LLVMBuildNeg(builder, a, ""), LLVMBuildSDiv(builder, a, safe, ""), "");
		return LLVMBuildSelect(builder, zero, constant(a, 0), result, "");
	}
	result = LLVMBuildSelect(builder, minus, constant(a, 0), LLVMBuildSRem(builder, a, safe, ""), "");
	return LLVMBuildSelect(builder, zero, a, result, "");
}

static LLVMValueRef alu_shift(LLVMBuilderRef builder, uint8_t op, LLVMValueRef a, LLVMValueRef b)
{
	LLVMValueRef count = LLVMBuildAnd(builder, b, constant(b, LLVMGetIntTypeWidth(LLVMTypeOf(b)) - 1), "");

	switch (op) {
	case BPF_LSH:
		return LLVMBuildShl(builder, a, count, "");
	case BPF_RSH:
		return LLVMBuildLShr(builder, a, count, "");
	default:
		return LLVMBuildAShr(builder, a, count, "");
	}
}

/* off: 0, or the width to sign-extend from */
static LLVMValueRef alu_move(LLVMBuilderRef builder, int16_t off, LLVMValueRef b)
{
	LLVMTypeRef narrow;

	if (!off)
		return b;
	narrow = LLVMIntTypeInContext(LLVMGetTypeContext(LLVMTypeOf(b)), off);
	return LLVMBuildSExt(builder, LLVMBuildTrunc(builder, b, narrow, ""), LLVMTypeOf(b), "");
}

static LLVMValueRef byte_swap(LLVMBuilderRef builder, LLVMValueRef a)
{
	LLVMModuleRef module = LLVMGetGlobalParent(LLVMGetBasicBlockParent(LLVMGetInsertBlock(builder)));
	LLVMTypeRef type = LLVMTypeOf(a);
	unsigned int id = LLVMLookupIntrinsicID("llvm.bswap", 10);
	LLVMValueRef swap = LLVMGetIntrinsicDeclaration(module, id, &type, 1);

	return LLVMBuildCall2(builder, LLVMFunctionType(type, &type, 1, 0), swap, &a, 1, "");
}

/* le16..le64 (ALU, K) truncate here, be16..be64 (ALU, X) and bswap (ALU64) swap. imm: the width. */
static LLVMValueRef alu_end(LLVMBuilderRef builder, const struct insn *insn, LLVMValueRef a)
{
	LLVMTypeRef type = LLVMIntTypeInContext(LLVMGetTypeContext(LLVMTypeOf(a)), insn->imm);
	LLVMValueRef narrow = LLVMBuildTruncOrBitCast(builder, a, type, "");

	if (BPF_CLASS(insn->code) == BPF_ALU64 || BPF_SRC(insn->code) == BPF_X)
		narrow = byte_swap(builder, narrow);
	return LLVMBuildZExtOrBitCast(builder, narrow, LLVMTypeOf(a), "");
}

LLVMValueRef arith_alu(LLVMBuilderRef builder, const struct insn *insn, LLVMValueRef a, LLVMValueRef b)
{
	uint8_t op = BPF_OP(insn->code);

	switch (op) {
	case BPF_ADD:
		return LLVMBuildAdd(builder, a, b, "");
	case BPF_SUB:
		return LLVMBuildSub(builder, a, b, "");
	case BPF_MUL:
		return LLVMBuildMul(builder, a, b, "");
	case BPF_OR:
		return LLVMBuildOr(builder, a, b, "");
	case BPF_AND:
		return LLVMBuildAnd(builder, a, b, "");
	case BPF_XOR:
		return LLVMBuildXor(builder, a, b, "");
	case BPF_NEG:
		return LLVMBuildNeg(builder, a, "");
	case BPF_MOV:
		return alu_move(builder, insn->off, b);
	case BPF_END:
		return alu_end(builder, insn, a);
	case BPF_DIV:
	case BPF_MOD:
		return insn->off ? alu_signed(builder, op, a, b) : alu_unsigned(builder, op, a, b);
	default:
		return alu_shift(builder, op, a, b);
	}
}

LLVMValueRef arith_condition(LLVMBuilderRef builder, const struct insn *insn, LLVMValueRef a, LLVMValueRef b)
{
	static const LLVMIntPredicate predicates[16] = {
		[BPF_JEQ >> 4] = LLVMIntEQ,   [BPF_JNE >> 4] = LLVMIntNE,   [BPF_JGT >> 4] = LLVMIntUGT,
		[BPF_JGE >> 4] = LLVMIntUGE,  [BPF_JLT >> 4] = LLVMIntULT,  [BPF_JLE >> 4] = LLVMIntULE,
		[BPF_JSGT >> 4] = LLVMIntSGT, [BPF_JSGE >> 4] = LLVMIntSGE, [BPF_JSLT >> 4] = LLVMIntSLT,
		[BPF_JSLE >> 4] = LLVMIntSLE,
	};

	if (BPF_OP(insn->code) == BPF_JSET)
		return LLVMBuildICmp(builder, LLVMIntNE, LLVMBuildAnd(builder, a, b, ""), constant(a, 0), "");
	return LLVMBuildICmp(builder, predicates[BPF_OP(insn->code) >> 4], a, b, "");
}
