/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/object.h"
#include "worker/child/outside.h"
#include "worker/child/slots.h"

static uint32_t size_of(const struct job_compile *job, enum code_target target)
{
	switch (target) {
	case CODE_TARGET_ENTRY:
	case CODE_TARGET_IMPORT:
		return 8;
	case CODE_TARGET_RODATA:
		return job->n_rodata;
	case CODE_TARGET_DATA:
		return job->n_data;
	case CODE_TARGET_BSS:
		return job->n_bss;
	case CODE_TARGET_CELLS:
		return job->n_cells * (uint32_t)sizeof(uint32_t);
	default:
		return 1;
	}
}

/* 0: in the span of the module */
static uint64_t elsewhere(const struct job_compile *job, enum code_target target)
{
	return target == CODE_TARGET_DATA ? job->data : target == CODE_TARGET_BSS ? job->bss : 0;
}

static LLVMValueRef add_symbol(LLVMModuleRef module, const char *name, uint32_t size, bool is_constant)
{
	LLVMTypeRef i8 = LLVMInt8TypeInContext(LLVMGetModuleContext(module));
	LLVMValueRef global = LLVMAddGlobal(module, LLVMArrayType(i8, size), name);

	LLVMSetVisibility(global, LLVMHiddenVisibility);
	LLVMSetAlignment(global, 1);
	LLVMSetGlobalConstant(global, is_constant);
	return global;
}

LLVMValueRef outside_address(LLVMModuleRef module, const struct job_compile *job, enum code_target target, uint32_t index)
{
	LLVMContextRef context = LLVMGetModuleContext(module);
	const uint64_t address = elsewhere(job, target);
	char name[OBJECT_SYMBOL_MAX];

	if (address)
		return LLVMConstIntToPtr(LLVMConstInt(LLVMInt64TypeInContext(context), address, 0), LLVMPointerTypeInContext(context, 0));
	object_symbol(name, target, index);
	return LLVMGetNamedGlobal(module, name) ?: add_symbol(module, name, size_of(job, target), target == CODE_TARGET_RODATA);
}

LLVMValueRef outside_load_cell(LLVMBuilderRef builder, LLVMModuleRef module, const struct job_compile *job,
			       enum code_target target, uint32_t index)
{
	LLVMTypeRef i64 = LLVMInt64TypeInContext(LLVMGetModuleContext(module));
	LLVMValueRef load;

	if (target == CODE_TARGET_ENTRY)
		slot_load_anew(builder);
	load = LLVMBuildLoad2(builder, i64, outside_address(module, job, target, index), "");
	LLVMSetAlignment(load, 8);
	return load;
}

bool outside_is(LLVMValueRef value, enum code_target target, uint32_t *ret_index)
{
	struct code_reloc named;
	size_t n;

	if (!LLVMIsAGlobalVariable(value) || !object_symbol_parse(LLVMGetValueName2(value, &n), &named))
		return false;
	*ret_index = named.index;
	return named.target == target;
}
