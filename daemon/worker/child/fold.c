/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "tier/types.h"
#include "util/base.h"
#include "worker/child/fold.h"
#include "worker/child/outside.h"
#include "worker/child/slots.h"

/* LLVM could do this by itself if .rodata were a constant with a value. But it takes a load beyond a constant's end for
 * undefined, and deletes what leads there; for a program, something lies there like anywhere else. So LLVM knows no value, and we
 * look at loads whose address has become .rodata and a number:
 *
 *   inside .rodata, no pointer among the bytes     the bytes
 *   just one pointer, whole                        the address of what it points to, which the daemon fills in
 *   anything else                                  the load stays
 *
 * A slot's call has its cell for an operand, whose distance from its slot is the same for all. If the slot is known and holds a
 * method, the call goes through the method's entry cell, like a direct one, and no longer through the slot. */

#define DEPTH_MAX 16u	/* of constant expressions */

/* -- Addresses: what they are computed from, and how far away they are --------------------------------------------- */
struct place {
	LLVMValueRef base;
	int64_t offset;		/* modulo 2^64, as addresses are */
};

static LLVMOpcode opcode_of(LLVMValueRef value)
{
	if (LLVMIsAConstantExpr(value))
		return LLVMGetConstOpcode(value);
	return LLVMIsAInstruction(value) ? LLVMGetInstructionOpcode(value) : 0;
}

static bool constant_of(LLVMValueRef value, int64_t *ret)
{
	if (!LLVMIsAConstantInt(value) || LLVMGetIntTypeWidth(LLVMTypeOf(value)) > 64)
		return false;
	*ret = LLVMConstIntGetSExtValue(value);
	return true;
}

/* Bytes that the first index of a GEP counts; the others count bytes, or it is none of ours: 0. */
static uint64_t stride_of(LLVMValueRef gep)
{
	LLVMTypeRef type = LLVMGetGEPSourceElementType(gep);
	uint64_t n = 1;

	if (LLVMGetTypeKind(type) == LLVMArrayTypeKind) {
		n = LLVMGetArrayLength(type);
		type = LLVMGetElementType(type);
	}
	return LLVMGetTypeKind(type) == LLVMIntegerTypeKind && LLVMGetIntTypeWidth(type) == 8 ? n : 0;
}

static bool add_indices(LLVMValueRef gep, int64_t *offset)
{
	uint64_t stride = stride_of(gep), sum = *offset;
	int64_t index;

	for (int i = 1; stride && i < LLVMGetNumOperands(gep); i++, stride = 1) {
		if (!constant_of(LLVMGetOperand(gep, i), &index))
			return false;
		sum += index * stride;
	}
	*offset = sum;
	return stride;
}

/* One step from @place towards what it is computed from; false: it is that, or computed from something unknown. */
static bool place_step(struct place *place)
{
	LLVMValueRef value = place->base;
	int64_t number;

	switch (opcode_of(value)) {
	case LLVMIntToPtr:
	case LLVMPtrToInt:
	case LLVMBitCast:
		break;
	case LLVMGetElementPtr:
		if (!add_indices(value, &place->offset))
			return false;
		break;
	case LLVMAdd:
		if (!constant_of(LLVMGetOperand(value, 1), &number))
			return false;
		place->offset = (uint64_t)place->offset + number;
		break;
	default:
		return false;
	}
	place->base = LLVMGetOperand(value, 0);
	return true;
}

static struct place place_of(LLVMValueRef address)
{
	struct place place = { .base = address };

	for (unsigned int i = 0; i < DEPTH_MAX && place_step(&place); i++)
		;
	return place;
}

/* A place in .rodata, or at whatever distance from it */
static bool is_in_rodata(const struct place *place)
{
	uint32_t index;

	return outside_is(place->base, CODE_TARGET_RODATA, &index);
}

/* -- .rodata ------------------------------------------------------------------------------------------------------- */

/* The first pointer that ends behind @offset; NULL: none does */
static const struct image_reloc *pointer_behind(const struct job_compile *job, uint64_t offset)
{
	uint32_t low = 0, high = job->n_relocs;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if ((uint64_t)job->relocs[middle].offset + job->relocs[middle].width <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < job->n_relocs ? &job->relocs[low] : NULL;
}

/* What an import is bound to differs from process to process. */
static LLVMValueRef pointer_value(LLVMModuleRef module, const struct job_compile *job, const struct image_reloc *reloc)
{
	static const uint8_t targets[_INSN_REF_N] = {
		[INSN_REF_METHOD] = CODE_TARGET_METHOD, [INSN_REF_RODATA] = CODE_TARGET_RODATA, [INSN_REF_DATA] = CODE_TARGET_DATA,
		[INSN_REF_BSS] = CODE_TARGET_BSS,
	};
	LLVMContextRef context = LLVMGetModuleContext(module);
	LLVMValueRef addend = LLVMConstInt(LLVMInt64TypeInContext(context), reloc->addend, 1), address;

	if (reloc->width != 8 || reloc->ref == INSN_REF_IMPORT)
		return NULL;
	address = outside_address(module, job, targets[reloc->ref], reloc->index);
	return LLVMConstGEP2(LLVMInt8TypeInContext(context), address, &addend, 1);
}

static LLVMValueRef bytes_value(LLVMModuleRef module, const uint8_t *bytes, uint32_t n)
{
	uint64_t value = 0;

	memcpy(&value, bytes, n);
	return LLVMConstInt(LLVMIntTypeInContext(LLVMGetModuleContext(module), 8 * n), value, 0);
}

/* The @n bytes at @offset as a number or a ptr; NULL: not known */
static LLVMValueRef value_at(LLVMModuleRef module, const struct job_compile *job, int64_t offset, uint32_t n)
{
	const struct image_reloc *reloc;

	if (offset < 0 || offset > (int64_t)job->n_rodata - n)
		return NULL;
	reloc = pointer_behind(job, offset);
	if (!reloc || reloc->offset >= offset + n)
		return bytes_value(module, job->rodata + offset, n);
	return reloc->offset == offset && n == 8 ? pointer_value(module, job, reloc) : NULL;
}

/* -- Loads --------------------------------------------------------------------------------------------------------- */

/* Bytes of what a program's load can have become; else 0 */
static uint32_t loaded_bytes(LLVMTypeRef type)
{
	if (LLVMGetTypeKind(type) == LLVMPointerTypeKind)
		return 8;
	if (LLVMGetTypeKind(type) != LLVMIntegerTypeKind || LLVMGetIntTypeWidth(type) > 64 || LLVMGetIntTypeWidth(type) % 8)
		return 0;
	return LLVMGetIntTypeWidth(type) / 8;
}

static LLVMValueRef as_type(LLVMValueRef value, LLVMTypeRef type)
{
	const bool is_pointer = LLVMGetTypeKind(LLVMTypeOf(value)) == LLVMPointerTypeKind;

	if (LLVMTypeOf(value) == type)
		return value;
	return is_pointer ? LLVMConstPtrToInt(value, type) : LLVMConstIntToPtr(value, type);
}

static bool fold_load(LLVMModuleRef module, const struct job_compile *job, LLVMValueRef load)
{
	const uint32_t n = loaded_bytes(LLVMTypeOf(load));
	const struct place place = place_of(LLVMGetOperand(load, 0));
	LLVMValueRef value;

	if (!n || LLVMGetVolatile(load) || LLVMGetOrdering(load) != LLVMAtomicOrderingNotAtomic || !is_in_rodata(&place))
		return false;
	value = value_at(module, job, place.offset, n);
	if (!value)
		return false;
	LLVMReplaceAllUsesWith(load, as_type(value, LLVMTypeOf(load)));
	LLVMInstructionEraseFromParent(load);
	return true;
}

/* -- Calls --------------------------------------------------------------------------------------------------------- */

/* The method that stands in the slot whose cell @target is loaded from */
static bool method_of_cell(const struct job_compile *job, LLVMValueRef target, uint32_t *ret)
{
	const struct image_reloc *reloc;
	struct place place, base;
	int64_t slot;

	if (opcode_of(target) != LLVMLoad)
		return false;
	place = place_of(LLVMGetOperand(target, 0));
	if (!slot_is_opaque(place.base))
		return false;
	base = place_of(LLVMGetOperand(place.base, 0));
	slot = (uint64_t)place.offset + base.offset + job->slots - job->call_cells;
	if (!is_in_rodata(&base) || slot < job->slots || slot >= (int64_t)job->slots + job->n_slots || slot % 8)
		return false;
	reloc = pointer_behind(job, slot);
	if (!reloc || reloc->offset != slot || reloc->ref != INSN_REF_METHOD || reloc->width != 8 || reloc->addend)
		return false;
	*ret = reloc->index;
	return true;
}

static bool method_called(const struct job_compile *job, LLVMValueRef call, uint32_t *ret)
{
	LLVMValueRef target = LLVMGetCalledValue(call);
	const struct place place = place_of(target);

	if (!place.offset && outside_is(place.base, CODE_TARGET_METHOD, ret))
		return true;
	return slot_is_call(call) && method_of_cell(job, target, ret);
}

/* The same arguments, but for the cell's address of a call through a slot */
static LLVMValueRef build_call(LLVMBuilderRef builder, LLVMValueRef call, LLVMValueRef target)
{
	LLVMValueRef arguments[SLOT_ARGUMENTS_MAX];
	LLVMTypeRef types[SLOT_ARGUMENTS_MAX], type = LLVMTypeOf(call);
	const unsigned int n = LLVMGetNumArgOperands(call) - slot_is_call(call);

	for (unsigned int i = 0; i < n; i++) {
		arguments[i] = LLVMGetOperand(call, i);
		types[i] = LLVMTypeOf(arguments[i]);
	}
	return LLVMBuildCall2(builder, LLVMFunctionType(type, types, n, 0), target, arguments, n, "");
}

static bool fold_call(LLVMModuleRef module, const struct job_compile *job, LLVMBuilderRef builder, LLVMValueRef call)
{
	LLVMTypeRef ptr = LLVMPointerTypeInContext(LLVMGetModuleContext(module), 0);
	LLVMValueRef target, direct;
	uint32_t method;

	if (LLVMGetNumArgOperands(call) > SLOT_ARGUMENTS_MAX + 1 || !method_called(job, call, &method))
		return false;
	LLVMPositionBuilderBefore(builder, call);
	target = outside_load_cell(builder, module, job, CODE_TARGET_ENTRY, method);
	direct = build_call(builder, call, LLVMBuildIntToPtr(builder, target, ptr, ""));
	LLVMSetTailCall(direct, LLVMIsTailCall(call));
	LLVMReplaceAllUsesWith(call, direct);
	LLVMInstructionEraseFromParent(call);
	return true;
}

/* -- The whole ----------------------------------------------------------------------------------------------------- */
static bool fold_insn(LLVMModuleRef module, const struct job_compile *job, LLVMBuilderRef builder, LLVMValueRef insn)
{
	switch (LLVMGetInstructionOpcode(insn)) {
	case LLVMLoad:
		return fold_load(module, job, insn);
	case LLVMCall:
		return fold_call(module, job, builder, insn);
	default:
		return false;
	}
}

static bool fold_function(LLVMModuleRef module, const struct job_compile *job, LLVMBuilderRef builder, LLVMValueRef function)
{
	bool changed = false;

	for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(function); block; block = LLVMGetNextBasicBlock(block))
		for (LLVMValueRef insn = LLVMGetFirstInstruction(block), next; insn; insn = next) {
			next = LLVMGetNextInstruction(insn);
			changed |= fold_insn(module, job, builder, insn);
		}
	return changed;
}

bool fold_applies(LLVMModuleRef module, const struct job_compile *job)
{
	uint32_t index;

	if (!job->rodata || job->level == TIER_LEVEL_READY_TO_RUN)
		return false;
	for (LLVMValueRef global = LLVMGetFirstGlobal(module); global; global = LLVMGetNextGlobal(global))
		if (outside_is(global, CODE_TARGET_RODATA, &index))
			return true;
	return false;
}

bool fold(LLVMModuleRef module, const struct job_compile *job)
{
	LLVMBuilderRef builder = LLVMCreateBuilderInContext(LLVMGetModuleContext(module));
	bool changed = false;

	for (LLVMValueRef function = LLVMGetFirstFunction(module); function; function = LLVMGetNextFunction(function))
		changed |= fold_function(module, job, builder, function);
	LLVMDisposeBuilder(builder);
	return changed;
}
