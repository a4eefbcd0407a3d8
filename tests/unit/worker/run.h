/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Running what codegen makes, inside the test: a small module of hand-written methods, placed as an arena would place it
 *
 * One memfd, mapped three times: data rw- and code r-x side by side in one span, and the code once more rw- elsewhere.
 * Nothing is ever writable and executable. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "reference/reference.h"
#include "util/base.h"
#include "worker/child/codegen.h"

#define RUN_METHODS 8
#define RUN_INSNS 4096
#define RUN_IMPORTS 4

/* the span */
#define RUN_ENTRIES 0x0000u
#define RUN_IMPORT_CELLS 0x1000u
#define RUN_RODATA 0x2000u
#define RUN_DATA 0x3000u
#define RUN_BSS 0x4000u
#define RUN_CELLS 0x5000u
#define RUN_CODE 0x10000u
#define RUN_SIZE 0x100000u
#define RUN_SEGMENT 0x1000u	/* bytes of each of .rodata, .data, .bss, and of the cells */

typedef uint64_t (*method_fn)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

struct run {
	struct insn insns[RUN_INSNS];
	struct image_method methods[RUN_METHODS];
	struct image image;
	uint8_t *span, *alias;		/* alias: of span + RUN_CODE */
	uint32_t n_code;
	uint32_t n_inlined;		/* of the last compile */
	uint32_t inlined[RUN_METHODS];
};

/* -- Instructions, by the names they have in the disassembly ------------------------------------------------------- */
#define ALU64_X(op, d, s) ((struct insn){ .code = BPF_ALU64 | (op) | BPF_X, .dst = (d), .src = (s) })
#define ALU64_K(op, d, k) ((struct insn){ .code = BPF_ALU64 | (op) | BPF_K, .dst = (d), .imm = (k) })
#define ALU32_X(op, d, s) ((struct insn){ .code = BPF_ALU | (op) | BPF_X, .dst = (d), .src = (s) })
#define ALU32_K(op, d, k) ((struct insn){ .code = BPF_ALU | (op) | BPF_K, .dst = (d), .imm = (k) })
#define MOV(d, s) ALU64_X(BPF_MOV, d, s)
#define MOV_K(d, k) ALU64_K(BPF_MOV, d, k)
#define LOAD(size, d, s, o) ((struct insn){ .code = BPF_LDX | BPF_MEM | (size), .dst = (d), .src = (s), .off = (o) })
#define LOADSX(size, d, s, o) ((struct insn){ .code = BPF_LDX | BPF_MEMSX | (size), .dst = (d), .src = (s), .off = (o) })
#define STORE(size, d, o, s) ((struct insn){ .code = BPF_STX | BPF_MEM | (size), .dst = (d), .src = (s), .off = (o) })
#define STORE_K(size, d, o, k) ((struct insn){ .code = BPF_ST | BPF_MEM | (size), .dst = (d), .off = (o), .imm = (k) })
#define ATOMIC(size, op, d, o, s) \
	((struct insn){ .code = BPF_STX | BPF_ATOMIC | (size), .dst = (d), .src = (s), .off = (o), .imm = (op) })
#define JUMP_X(op, d, s, o) ((struct insn){ .code = BPF_JMP | (op) | BPF_X, .dst = (d), .src = (s), .off = (o) })
#define JUMP_K(op, d, k, o) ((struct insn){ .code = BPF_JMP | (op) | BPF_K, .dst = (d), .imm = (k), .off = (o) })
#define JUMP(o) ((struct insn){ .code = BPF_JMP | BPF_JA, .off = (o) })
#define CALL(m) ((struct insn){ .code = BPF_JMP | BPF_CALL, .src = INSN_CALL_METHOD, .imm = (m) })
#define CALL_IMPORT(i) ((struct insn){ .code = BPF_JMP | BPF_CALL, .src = INSN_CALL_IMPORT, .imm = (i) })
#define CALLX(d) ((struct insn){ .code = BPF_JMP | BPF_CALL | BPF_X, .dst = (d) })
#define EXIT() ((struct insn){ .code = BPF_JMP | BPF_EXIT })
#define LDDW(d, ref, low, high) { .code = BPF_LDDW, .dst = (d), .src = (ref), .imm = (low) }, { .imm = (high) }

/* -- The module ---------------------------------------------------------------------------------------------------- */
static inline struct run *run_new(void)
{
	struct run *run = calloc(1, sizeof(*run));
	int fd = memfd_create("run", MFD_CLOEXEC);

	assert_non_null(run);
	assert_int_equal(ftruncate(fd, RUN_SIZE), 0);
	run->span = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(run->span, MAP_FAILED);
	assert_ptr_equal(mmap(run->span + RUN_CODE, RUN_SIZE - RUN_CODE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
			      RUN_CODE), run->span + RUN_CODE);
	run->alias = mmap(NULL, RUN_SIZE - RUN_CODE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, RUN_CODE);
	assert_ptr_not_equal(run->alias, MAP_FAILED);
	close(fd);
	run->image = (struct image){ .methods = run->methods, .insns = run->insns, .strings = "method",
				     .n_imports = RUN_IMPORTS, .n_rodata = RUN_SEGMENT, .n_data = RUN_SEGMENT,
				     .n_bss = RUN_SEGMENT };
	return run;
}

static inline void run_free(struct run *run)
{
	munmap(run->alias, RUN_SIZE - RUN_CODE);
	munmap(run->span, RUN_SIZE);
	free(run);
}

static inline uint64_t *run_entry(struct run *run, uint32_t method)
{
	return (uint64_t *)(run->span + RUN_ENTRIES) + method;
}

static inline uint64_t *run_import(struct run *run, uint32_t import)
{
	return (uint64_t *)(run->span + RUN_IMPORT_CELLS) + import;
}

/* T of a method: a jump through its entry cell, in the first bytes of the code */
static inline uint64_t run_address(struct run *run, uint32_t method)
{
	return (uint64_t)run->span + RUN_CODE + 16 * method;
}

static inline uint32_t run_add(struct run *run, const struct insn *insns, uint32_t n)
{
	uint32_t method = run->image.n_methods++;
	int32_t distance = (int32_t)(RUN_ENTRIES + 8 * method) - (int32_t)(RUN_CODE + 16 * method + 6);

	assert_true(method < RUN_METHODS && run->image.n_insns + n <= RUN_INSNS);
	run->methods[method] = (struct image_method){ .insn = run->image.n_insns, .n_insns = n };
	memcpy(run->insns + run->image.n_insns, insns, n * sizeof(*insns));
	run->image.n_insns += n;
	memcpy(run->alias + 16 * method, (uint8_t[]){ 0xff, 0x25 }, 2);		/* jmp *[rip + distance] */
	memcpy(run->alias + 16 * method + 2, &distance, 4);
	run->n_code = MAX(run->n_code, 16u * RUN_METHODS);
	return method;
}
#define RUN_ADD(run, ...) \
	({ const struct insn _insns[] = { __VA_ARGS__ }; run_add(run, _insns, ARRAY_SIZE(_insns)); })

static inline uint64_t run_target(struct run *run, const struct code_reloc *reloc)
{
	switch (reloc->target) {
	case CODE_TARGET_ENTRY:
		return (uint64_t)run_entry(run, reloc->index);
	case CODE_TARGET_METHOD:
		return run_address(run, reloc->index);
	case CODE_TARGET_IMPORT:
		return (uint64_t)run_import(run, reloc->index);
	case CODE_TARGET_RODATA:
		return (uint64_t)run->span + RUN_RODATA;
	case CODE_TARGET_DATA:
		return (uint64_t)run->span + RUN_DATA;
	case CODE_TARGET_CELLS:
		return (uint64_t)run->span + RUN_CELLS;
	default:
		assert_int_equal(reloc->target, CODE_TARGET_BSS);
		return (uint64_t)run->span + RUN_BSS;
	}
}

/* Returns where it begins. */
static inline uint64_t run_place(struct run *run, const struct code_result *code)
{
	uint32_t at = align_up(run->n_code, code->align);

	assert_true(at + code->n_bytes <= RUN_SIZE - RUN_CODE);
	memcpy(run->alias + at, code->bytes, code->n_bytes);
	for (uint32_t i = 0; i < code->n_relocs; i++) {
		uint64_t field = (uint64_t)run->span + RUN_CODE + at + code->relocs[i].offset;
		bool is_absolute = code->relocs[i].kind == CODE_RELOC_ABSOLUTE;
		int64_t value = run_target(run, &code->relocs[i]) + code->relocs[i].addend - (is_absolute ? 0 : field);

		assert_true(is_absolute || (int32_t)value == value);
		memcpy(run->alias + at + code->relocs[i].offset, &value, code_reloc_size(&code->relocs[i]));
	}
	run->n_code = at + code->n_bytes;
	return (uint64_t)run->span + RUN_CODE + at + code->entry;
}

/* @bodies: RUN_METHODS of them. @candidates: offer all other methods for inlining */
static inline struct job_compile run_job(struct run *run, uint32_t method, bool candidates, struct job_body *bodies)
{
	struct job_compile job = { .level = TIER_LEVEL_TIER1, .method = method, .n_methods = run->image.n_methods,
				   .n_imports = RUN_IMPORTS, .n_rodata = RUN_SEGMENT, .n_data = RUN_SEGMENT,
				   .n_bss = RUN_SEGMENT, .bodies = bodies };

	for (uint32_t i = 0; i < run->image.n_methods; i++) {
		uint32_t m = i == 0 ? method : i <= method ? i - 1 : i;

		bodies[job.n_bodies++] = (struct job_body){ .method = m, .n_insns = run->methods[m].n_insns,
							     .insns = run->insns + run->methods[m].insn, .name = "method" };
		if (!candidates)
			break;
	}
	return job;
}

/* Where the code begins; 0: refused */
static inline uint64_t run_compile_job(struct run *run, const struct job_compile *job, struct refusal *refusal)
{
	struct code_result code;
	uint64_t address;
	void *block;

	if (!codegen_compile(job, &code, &block, refusal))
		return 0;
	address = run_place(run, &code);
	run->n_inlined = code.n_inlined;
	for (uint32_t i = 0; i < code.n_inlined; i++)
		run->inlined[i] = code.inlined[i];
	free(block);
	return address;
}

static inline bool run_try_compile(struct run *run, uint32_t method, bool candidates, struct refusal *refusal)
{
	struct job_body bodies[RUN_METHODS];
	const struct job_compile job = run_job(run, method, candidates, bodies);
	const uint64_t address = run_compile_job(run, &job, refusal);

	if (address)
		*run_entry(run, method) = address;
	return address;
}

static inline void run_compile(struct run *run, uint32_t method, bool candidates)
{
	struct refusal refusal;

	if (!run_try_compile(run, method, candidates, &refusal))
		fail_msg("%s", refusal.text);
}

static inline void run_compile_all(struct run *run, bool candidates)
{
	for (uint32_t i = 0; i < run->image.n_methods; i++)
		run_compile(run, i, candidates);
}

static inline uint64_t run_call(struct run *run, uint32_t method, uint64_t a, uint64_t b, uint64_t c)
{
	return ((method_fn)*run_entry(run, method))(a, b, c, 0, 0);
}

static inline struct reference run_reference(struct run *run)
{
	return (struct reference){ .image = &run->image, .rodata = (uint64_t)run->span + RUN_RODATA,
				   .data = (uint64_t)run->span + RUN_DATA, .bss = (uint64_t)run->span + RUN_BSS,
				   .imports = (const reference_function *)run_import(run, 0), .n_steps = 10000000 };
}

/* What the reference interpreter says about the same call */
static inline uint64_t run_expect(struct run *run, uint32_t method, uint64_t a, uint64_t b, uint64_t c)
{
	struct reference reference = run_reference(run);
	uint64_t args[5] = { a, b, c }, ret = 0;

	if (!reference_call(&reference, method, args, &ret))
		fail_msg("reference: %s", reference.fault);
	return ret;
}
