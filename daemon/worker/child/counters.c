/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "util/base.h"
#include "worker/child/counters.h"

/* Plain loads and stores, so that LLVM may keep a counter in a register over a loop; at a call it must be in memory, since the
 * callee may look, or never return. That this is possible it learns from an alias scope of which only counters are: a method
 * that writes where they lie spoils its own profile.
 *
 * A branch that is taken is counted in a block on its way. Adding the condition would be shorter, but where that ends a loop,
 * LLVM 19's vectorizer takes such a sum for one that grows by 1 each time, and counts once too often. */

#define SCOPE "alias.scope"

static LLVMContextRef context_of(const struct counters *counters) { return LLVMGetTypeContext(LLVMTypeOf(counters->words)); }
static LLVMTypeRef type_word(const struct counters *counters) { return LLVMInt32TypeInContext(context_of(counters)); }

static unsigned int kind_of(LLVMContextRef context, const char *name)
{
	return LLVMGetMDKindIDInContext(context, name, strlen(name));
}

/* !{!scope} of a scope !{!"tier.cells", !domain}: the same for all of a context, as strings and tuples are */
static LLVMValueRef scopes(LLVMContextRef context)
{
	LLVMValueRef text = LLVMMDStringInContext(context, "tier.cells", strlen("tier.cells"));
	LLVMValueRef domain = LLVMMDNodeInContext(context, &text, 1), parts[] = { text, domain };
	LLVMValueRef scope = LLVMMDNodeInContext(context, parts, ARRAY_SIZE(parts));

	return LLVMMDNodeInContext(context, &scope, 1);
}

static LLVMValueRef mark(LLVMValueRef access, LLVMContextRef context, unsigned int align)
{
	LLVMSetAlignment(access, align);
	LLVMSetMetadata(access, kind_of(context, SCOPE), scopes(context));
	return access;
}

static LLVMValueRef address(const struct counters *counters, uint32_t word)
{
	LLVMValueRef index = LLVMConstInt(LLVMInt64TypeInContext(context_of(counters)), word, 0);

	return LLVMBuildGEP2(counters->builder, type_word(counters), counters->words, &index, 1, "");
}

static LLVMValueRef load(const struct counters *counters, LLVMTypeRef type, uint32_t word)
{
	return mark(LLVMBuildLoad2(counters->builder, type, address(counters, word), ""), context_of(counters), 4);
}

static void store(const struct counters *counters, LLVMValueRef value, uint32_t word)
{
	mark(LLVMBuildStore(counters->builder, value, address(counters, word)), context_of(counters), 4);
}

static LLVMValueRef constant(const struct counters *counters, int32_t value)
{
	return LLVMConstInt(type_word(counters), value, 1);
}

static void add(const struct counters *counters, uint32_t word)
{
	LLVMValueRef old = load(counters, type_word(counters), word);

	store(counters, LLVMBuildAdd(counters->builder, old, constant(counters, 1), ""), word);
}

void counters_execution(const struct counters *counters, const struct profile_site *site)
{
	add(counters, site->word);
}

LLVMBasicBlockRef counters_branch(const struct counters *counters, const struct profile_site *site, LLVMBasicBlockRef target)
{
	LLVMBasicBlockRef here = LLVMGetInsertBlock(counters->builder), taken;

	add(counters, site->word);
	taken = LLVMInsertBasicBlockInContext(context_of(counters), target, "");
	LLVMPositionBuilderAtEnd(counters->builder, taken);
	add(counters, site->word + 1);
	LLVMBuildBr(counters->builder, target);
	LLVMPositionBuilderAtEnd(counters->builder, here);
	return taken;
}

/* Without votes the value becomes the target and has one; else it adds one or takes one away. */
void counters_callx(const struct counters *counters, const struct profile_site *site, LLVMValueRef value)
{
	LLVMBuilderRef builder = counters->builder;
	LLVMValueRef votes = load(counters, type_word(counters), site->word + 1);
	LLVMValueRef target = load(counters, LLVMTypeOf(value), profile_target(site));
	LLVMValueRef is_target = LLVMBuildICmp(builder, LLVMIntEQ, target, value, "");
	LLVMValueRef is_free = LLVMBuildIsNull(builder, votes, "");
	LLVMValueRef step = LLVMBuildSelect(builder, is_target, constant(counters, 1), constant(counters, -1), "");

	add(counters, site->word);
	votes = LLVMBuildSelect(builder, is_free, constant(counters, 1), LLVMBuildAdd(builder, votes, step, ""), "");
	store(counters, votes, site->word + 1);
	store(counters, LLVMBuildSelect(builder, is_free, value, target, ""), profile_target(site));
}

void counters_separate(LLVMValueRef function)
{
	LLVMContextRef context = LLVMGetModuleContext(LLVMGetGlobalParent(function));
	const unsigned int scope = kind_of(context, SCOPE), noalias = kind_of(context, "noalias");

	for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(function); block; block = LLVMGetNextBasicBlock(block))
		for (LLVMValueRef i = LLVMGetFirstInstruction(block); i; i = LLVMGetNextInstruction(i))
			if ((LLVMIsALoadInst(i) || LLVMIsAStoreInst(i)) && !LLVMGetMetadata(i, scope))
				LLVMSetMetadata(i, noalias, scopes(context));
}
