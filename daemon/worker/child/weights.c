/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "util/base.h"
#include "worker/child/weights.h"

static LLVMContextRef context_of(LLVMValueRef function) { return LLVMGetModuleContext(LLVMGetGlobalParent(function)); }

static LLVMValueRef name(LLVMContextRef context, const char *text)
{
	return LLVMMDStringInContext(context, text, strlen(text));
}

static unsigned int kind_prof(LLVMContextRef context) { return LLVMGetMDKindIDInContext(context, "prof", strlen("prof")); }

/* Weights have 32 bits and are never 0: what was not seen may still happen, and a branch of no weight at all means nothing. */
void weights_branch(LLVMValueRef branch, uint64_t first, uint64_t second)
{
	LLVMContextRef context = context_of(LLVMGetBasicBlockParent(LLVMGetInstructionParent(branch)));
	LLVMTypeRef i32 = LLVMInt32TypeInContext(context);
	LLVMValueRef values[] = { name(context, "branch_weights"), NULL, NULL };

	while (MAX(first, second) >= UINT32_MAX) {
		first >>= 1;
		second >>= 1;
	}
	values[1] = LLVMConstInt(i32, first + 1, 0);
	values[2] = LLVMConstInt(i32, second + 1, 0);
	LLVMSetMetadata(branch, kind_prof(context), LLVMMDNodeInContext(context, values, ARRAY_SIZE(values)));
}

void weights_entry(LLVMValueRef function, uint64_t n)
{
	LLVMContextRef context = context_of(function);
	LLVMValueRef values[] = { name(context, "function_entry_count"), LLVMConstInt(LLVMInt64TypeInContext(context), n, 0) };
	LLVMValueRef node = LLVMMDNodeInContext(context, values, ARRAY_SIZE(values));

	LLVMGlobalSetMetadata(function, kind_prof(context), LLVMValueAsMetadata(node));
}
