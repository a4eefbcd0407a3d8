/* SPDX-License-Identifier: Apache-2.0 */
#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/ErrorHandling.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <llvm/Config/llvm-config.h>
#include <string.h>
#include "tier/records.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/child/codegen.h"
#include "worker/child/fold.h"
#include "worker/child/lower.h"
#include "worker/child/object.h"
#include "worker/child/plan.h"

/* One LLVM context per compile, one target machine per process: the machine knows the processor and holds nothing of a
 * method. The pipeline runs with that machine and its data layout, without which the vectorizers stay out. */

/* Inlining is over before the pipeline begins; it finds single functions. Long ones, and those of many loops, get what makes
 * values of registers and frame, what simplifies them, and what finds values again: nothing is unrolled or vectorized. Questions
 * that were answered are gone before values are found again: thousands of slot calls through one table ask the same one, and GVN
 * would look at each for each. */
#define CODEGEN_PASSES "always-inline,default<O2>"
#define CODEGEN_LONG_PASSES                                                                                            \
	"always-inline,function(sroa,early-cse<memssa>,simplifycfg," CODEGEN_COMBINE ",jump-threading,simplifycfg,gvn,loop-mssa(licm),"    \
	"dse,simplifycfg,instsimplify)"
/* Code that counts, of such a method: thousands of loads and stores of counters between calls, of which GVN finds none again */
#define CODEGEN_COUNT_PASSES                                                                                           \
	"always-inline,function(sroa,early-cse<memssa>,simplifycfg," CODEGEN_COMBINE ",simplifycfg,instsimplify)"
#if LLVM_VERSION_MAJOR >= 18	/* where it would otherwise check that a second round finds nothing */
#define CODEGEN_COMBINE "instcombine<no-verify-fixpoint>"
#else
#define CODEGEN_COMBINE "instcombine"
#endif
#define CODEGEN_LONG 4096u	/* instruction slots, with all that is inlined, or half as many that count; */
#define CODEGEN_LOOP 16u	/* as many as a jump backward counts, which stands for an unrolled loop */

/* What .rodata says is looked up (fold.h) once known addresses are constants, and again with what follows from it. */
#define CODEGEN_EARLY_PASSES "always-inline,function(sroa,instsimplify)"
#define CODEGEN_FOLD_PASSES "function(instsimplify,simplifycfg)"
#define CODEGEN_FOLD_ROUNDS 8u

/* How far from what it refers to a reference is sure to lie in the module's span (tier/records.h): before a segment's data come
 * whole pages of others, behind it at least a guard page; before methods come only the thunks */
#define CODEGEN_NEAR_SEGMENT 4096
#define CODEGEN_NEAR_METHOD ((int64_t)TIER_PRECODES_OFFSET)

static LLVMTargetMachineRef machine;
static void (*fatal)(const char *reason);

void codegen_set_fatal(void (*fn)(const char *reason))
{
	fatal = fn;
}

static void on_fatal(const char *reason)
{
	if (fatal)
		fatal(reason);
	abort();
}

/* What LLVM reports as an error while it goes on; the first one is the reason for the refusal. */
static void on_diagnostic(LLVMDiagnosticInfoRef info, void *context)
{
	struct refusal *refusal = context;
	char *text;

	if (LLVMGetDiagInfoSeverity(info) != LLVMDSError || refusal->text[0])
		return;
	text = LLVMGetDiagInfoDescription(info);
	refuse(refusal, "LLVM: %s", text);
	LLVMDisposeMessage(text);
}

static bool machine_new(LLVMTargetMachineRef *ret)
{
	char *triple = LLVMGetDefaultTargetTriple(), *error = NULL;
	char *cpu = LLVMGetHostCPUName(), *features = LLVMGetHostCPUFeatures();
	LLVMTargetRef target;
	bool ok = !LLVMGetTargetFromTriple(triple, &target, &error);

	if (ok)
		*ret = LLVMCreateTargetMachine(target, triple, cpu, features, LLVMCodeGenLevelDefault, LLVMRelocPIC,
					       LLVMCodeModelSmall);
	LLVMDisposeMessage(error);
	LLVMDisposeMessage(features);
	LLVMDisposeMessage(cpu);
	LLVMDisposeMessage(triple);
	return ok && *ret;
}

static bool optimize(LLVMModuleRef module, const char *passes, struct refusal *refusal)
{
	LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
	LLVMErrorRef error;
	char *text;

	LLVMPassBuilderOptionsSetSLPVectorization(options, 1);
	error = LLVMRunPasses(module, passes, machine, options);
	LLVMDisposePassBuilderOptions(options);
	if (!error)
		return true;
	text = LLVMGetErrorMessage(error);
	refuse(refusal, "LLVM's optimizer: %s", text);
	LLVMDisposeErrorMessage(text);
	return false;
}

/* The code generator looks at a loop through all that came before it, other loops as well: for a thousand in a row that takes
 * minutes. So what paths bring together is made something unknown, which costs nothing at run time. */
static void cut_block(LLVMBuilderRef builder, LLVMBasicBlockRef block)
{
	LLVMValueRef first = LLVMGetFirstInstruction(block);

	while (first && LLVMIsAPHINode(first))
		first = LLVMGetNextInstruction(first);
	LLVMPositionBuilderBefore(builder, first);
	for (LLVMValueRef phi = LLVMGetFirstInstruction(block); LLVMIsAPHINode(phi); phi = LLVMGetNextInstruction(phi)) {
		LLVMValueRef freeze;

		freeze = LLVMBuildFreeze(builder, LLVMGetUndef(LLVMTypeOf(phi)), "");
		LLVMReplaceAllUsesWith(phi, freeze);
		LLVMSetOperand(freeze, 0, phi);
	}
}

static void cut(LLVMModuleRef module)
{
	LLVMValueRef function = LLVMGetNamedFunction(module, OBJECT_ENTRY);
	LLVMBuilderRef builder = LLVMCreateBuilderInContext(LLVMGetModuleContext(module));

	for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(function); block; block = LLVMGetNextBasicBlock(block))
		cut_block(builder, block);
	LLVMDisposeBuilder(builder);
}

/* The plan said what is inlined. A callee that is still there would be code that nobody counts. */
static bool only_the_method(LLVMModuleRef module, struct refusal *refusal)
{
	for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f)) {
		size_t n;
		const char *name = LLVMGetValueName2(f, &n);

		if (LLVMIsDeclaration(f) || !strcmp(name, OBJECT_ENTRY))
			continue;
		refuse(refusal, "LLVM did not inline '%s'", name);
		return false;
	}
	return true;
}

static bool emit(LLVMModuleRef module, struct code_result *ret, void **ret_block, struct refusal *refusal)
{
	LLVMMemoryBufferRef buffer = NULL;
	char *error = NULL;
	bool ok;

	if (LLVMTargetMachineEmitToMemoryBuffer(machine, module, LLVMObjectFile, &error, &buffer)) {
		refuse(refusal, "LLVM's code generator: %s", error);
		LLVMDisposeMessage(error);
		return false;
	}
	ok = !refusal->text[0]
	  && object_flatten(LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer), ret, ret_block, refusal);
	LLVMDisposeMemoryBuffer(buffer);
	return ok;
}

static bool verify(LLVMModuleRef module, struct refusal *refusal)
{
	char *error = NULL;
	bool broken = LLVMVerifyModule(module, LLVMReturnStatusAction, &error);

	if (broken)
		refuse(refusal, "the lowering made invalid IR: %s", error);
	LLVMDisposeMessage(error);
	return !broken;
}

/* Each round may make the address of another load, or another condition, a number. */
static bool fold_all(LLVMModuleRef module, const struct job_compile *job, struct refusal *refusal)
{
	for (unsigned int i = 0; i < CODEGEN_FOLD_ROUNDS && fold(module, job); i++)
		if (!optimize(module, CODEGEN_FOLD_PASSES, refusal))
			return false;
	return true;
}

/* What .rodata says is folded before all else, and once more for the loops that were unrolled. */
static bool optimize_all(LLVMModuleRef module, const struct job_compile *job, const char *passes, struct refusal *refusal)
{
	if (!fold_applies(module, job))
		return optimize(module, passes, refusal);
	return optimize(module, CODEGEN_EARLY_PASSES, refusal) && fold_all(module, job, refusal)
	    && optimize(module, passes, refusal) && fold_all(module, job, refusal);
}

static const char *passes_of(const struct job_compile *job, bool is_long)
{
	if (!is_long)
		return CODEGEN_PASSES;
	return job->level == TIER_LEVEL_TIER1_INSTRUMENTED ? CODEGEN_COUNT_PASSES : CODEGEN_LONG_PASSES;
}

static bool compile_module(LLVMModuleRef module, const struct job_compile *job, const struct plan *plan, bool opaque,
			   struct code_result *ret, void **ret_block, struct refusal *refusal)
{
	const uint32_t size = plan->size + CODEGEN_LOOP * plan->n_loops;
	bool is_long = (job->level == TIER_LEVEL_TIER1_INSTRUMENTED ? 2 * size : size) >= CODEGEN_LONG;
	LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
	char *triple = LLVMGetTargetMachineTriple(machine);
	int r;

	LLVMSetModuleDataLayout(module, layout);
	LLVMSetTarget(module, triple);
	LLVMDisposeTargetData(layout);
	LLVMDisposeMessage(triple);
	r = lower_job(module, job, plan, opaque);
	if (r == LOWER_E_NO_LOOP) {
		refuse(refusal, "slot %u is not the head of a loop", job->osr_pc);
		return false;
	}
	if (r) {
		refuse(refusal, "out of memory");
		return false;
	}
	if (!verify(module, refusal) || !optimize_all(module, job, passes_of(job, is_long), refusal)
	    || !only_the_method(module, refusal))
		return false;
	if (is_long)
		cut(module);
	return emit(module, ret, ret_block, refusal);
}

static int index_compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint32_t collect_inlined(uint32_t *ret, const struct job_compile *job, const struct plan *plan)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i < job->n_bodies; i++)
		if (plan->used[i])
			ret[n++] = job->bodies[i].method;
	qsort(ret, n, sizeof(*ret), index_compare);
	return n;
}

static bool compile_in_context(LLVMContextRef context, const struct job_compile *job, bool opaque, struct code_result *ret,
			       void **ret_block, struct refusal *refusal)
{
	_cleanup_(freep) uint32_t *inlined = malloc(sizeof(*inlined) * job->n_bodies);
	struct code_result code = { .inlined = inlined };
	struct plan *plan = NULL;
	LLVMModuleRef module;
	bool ok;

	if (!inlined || plan_new(&plan, job)) {
		refuse(refusal, "out of memory");
		return false;
	}
	code.n_inlined = collect_inlined(inlined, job, plan);
	module = LLVMModuleCreateWithNameInContext(job->bodies[0].name, context);
	ok = compile_module(module, job, plan, opaque, &code, ret_block, refusal);
	LLVMDisposeModule(module);
	plan_free(plan);
	if (ok)
		*ret = code;
	return ok;
}

/* Whether the daemon will place every reference, wherever in the span that is: the optimizer folds constants that a program adds
 * to an address into the reference, and those may be anything. */
static bool is_near(const struct code_result *code, const struct job_compile *job)
{
	const uint32_t sizes[_CODE_TARGET_N] = {
		[CODE_TARGET_RODATA] = job->n_rodata, [CODE_TARGET_DATA] = job->n_data, [CODE_TARGET_BSS] = job->n_bss,
		[CODE_TARGET_CELLS] = job->n_cells * (uint32_t)sizeof(uint32_t),
	};

	for (uint32_t i = 0; i < code->n_relocs; i++) {
		const struct code_reloc *reloc = &code->relocs[i];
		const int64_t near = reloc->target >= CODE_TARGET_RODATA ? CODEGEN_NEAR_SEGMENT : CODEGEN_NEAR_METHOD;

		if (reloc->addend < -near || reloc->addend > (int64_t)sizes[reloc->target] + near)
			return false;
	}
	return true;
}

static bool compile(const struct job_compile *job, bool opaque, struct code_result *ret, void **ret_block,
		    struct refusal *refusal)
{
	struct refusal reason = { .text = "" };
	LLVMContextRef context = LLVMContextCreate();
	bool ok;

	LLVMContextSetDiagnosticHandler(context, on_diagnostic, &reason);
	ok = compile_in_context(context, job, opaque, ret, ret_block, &reason);
	LLVMContextDispose(context);
	if (ok && !is_near(ret, job)) {
		refuse(&reason, "an address lies too far from what it is computed from");
		free(*ret_block);
		ok = false;
	}
	if (!ok)
		refuse(refusal, "method '%s': %s", job->bodies[0].name, reason.text);
	return ok;
}

static bool level_check(const struct job_compile *job, struct refusal *refusal)
{
	const struct job_body *body = &job->bodies[0];

	switch (job->level) {
	case TIER_LEVEL_TIER1:
	case TIER_LEVEL_OPTIMIZED:
	case TIER_LEVEL_READY_TO_RUN:
	case TIER_LEVEL_OSR:
		return true;
	case TIER_LEVEL_TIER1_INSTRUMENTED:
		if (job->profile <= job->n_cells && profile_n_words(body->insns, body->n_insns) <= job->n_cells - job->profile)
			return true;
		refuse(refusal, "method '%s': the module has fewer cells than the method counts in", body->name);
		return false;
	default:
		refuse(refusal, "no compiler for tier %s", tier_level_name(job->level));
		return false;
	}
}

bool codegen_compile(const struct job_compile *job, struct code_result *ret, void **ret_block, struct refusal *refusal)
{
	if (!level_check(job, refusal))
		return false;
	return compile(job, false, ret, ret_block, refusal) || compile(job, true, ret, ret_block, refusal);
}

/* A sum over memory: enough to run the vectorizers, the register allocator and the object writer once. */
static const struct insn warm_insns[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst = 0 },
	{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst = 2, .off = 5 },
	{ .code = BPF_LDX | BPF_MEM | BPF_DW, .dst = 3, .src = 1 },
	{ .code = BPF_ALU64 | BPF_ADD | BPF_X, .dst = 0, .src = 3 },
	{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst = 1, .imm = 8 },
	{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst = 2, .imm = -1 },
	{ .code = BPF_JMP | BPF_JNE | BPF_K, .dst = 2, .off = -5 },
	{ .code = BPF_JMP | BPF_EXIT },
};

static int warm_up(void)
{
	struct job_body body = { .n_insns = ARRAY_SIZE(warm_insns), .insns = warm_insns, .name = "warm-up" };
	struct job_compile job = { .level = TIER_LEVEL_TIER1, .n_methods = 1, .bodies = &body, .n_bodies = 1 };
	struct code_result code;
	struct refusal refusal;
	void *block;

	if (!codegen_compile(&job, &code, &block, &refusal))
		return error_origin(-ENOTSUP);
	free(block);
	return 0;
}

/* On machines with AVX-512, a pass that moves integers to mask registers where that saves copies takes time that grows with
 * the square of a method's length (17 of 20 s at 10,000 instructions), and bytecode gives it nothing to move.
 *
 * With a profile the vectorizer takes the average for how often a loop goes round, which some long rounds among many short ones
 * belie: it leaves loops alone that take most of the time (a copy of 31 bytes, on average), or makes vectors of short ones. */
static const char *const llvm_options[] = {
	"tierd-worker", "-disable-x86-domain-reassignment", "-loop-vectorize-with-block-frequency=0",
	/* from here on only where has_slow_boundaries() */
	"-x86-align-branch-boundary=32", "-x86-align-branch=fused+jcc+jmp+call+ret+indirect",
};

/* Whether this processor decodes a branch anew each time if it touches the end of 32 bytes: Intel's erratum SKX102 and its like.
 * A call through a slot takes up to twice as long then. */
static bool has_slow_boundaries(void)
{
	static const char *const names[] = { "skylake", "skylake-avx512", "cascadelake" };
	char *cpu = LLVMGetHostCPUName();
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		found |= !strcmp(cpu, names[i]);
	LLVMDisposeMessage(cpu);
	return found;
}

int codegen_init(void)
{
	LLVMInstallFatalErrorHandler(on_fatal);
	if (!machine)	/* twice would be an error */
		LLVMParseCommandLineOptions(has_slow_boundaries() ? ARRAY_SIZE(llvm_options) : 3, llvm_options, NULL);
	LLVMInitializeX86TargetInfo();
	LLVMInitializeX86Target();
	LLVMInitializeX86TargetMC();
	LLVMInitializeX86AsmPrinter();
	if (!machine && !machine_new(&machine))
		return error_origin(-ENOTSUP);
	return error_fold(warm_up());
}
