/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What crosses the pipe between the daemon and a worker
 *
 * One SOCK_SEQPACKET datagram each way per job, each with one memfd that holds the bulk:
 *
 *   request   struct job_request  + input memfd    (LOAD, PRECOMPILE: the object file as the client sent it; COMPILE: job_put_compile())
 *   reply     struct job_reply    + output memfd   (LOAD: a module image; COMPILE: job_put_code(); PRECOMPILE: the object
 *                                                with code inside), none on failure
 *
 * job_put_*() and job_get_*() are mirrors: get accepts exactly what put writes, checks everything, and is the daemon's
 * (or the worker's) only reader. The daemon first copies the output into memory that the worker cannot reach. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bytecode/code.h"
#include "bytecode/image.h"
#include "bytecode/profile.h"
#include "tier/types.h"

enum job_kind { JOB_LOAD = 1, JOB_COMPILE = 2, JOB_PRECOMPILE = 3 };

struct job_request {
	uint32_t kind;		/* enum job_kind */
	uint32_t reserved;
	uint64_t id;		/* echoed in the reply */
	uint64_t n_input;	/* bytes in the input memfd */
};

enum job_reply_flags {
	JOB_REPLY_LAST = 1u << 0,	/* the worker ends after this reply: it has grown, or its compiler gave up */
};

struct job_reply {
	uint64_t id;
	uint32_t ok;		/* 1: an output memfd of n_output bytes follows */
	uint32_t flags;		/* enum job_reply_flags */
	uint64_t n_output;
	struct refusal refusal;	/* why not ok */
};

/* How a worker that cannot go on says so; any other end is a death. */
enum worker_exit {
	WORKER_EXIT_MEMORY = 77,	/* an allocation failed */
	WORKER_EXIT_SANDBOX = 78,	/* it could not confine itself, so it took no job */
};

/* The most bytes that the output of a job may have: an image is at most so many times larger than its file (names that
 * the file shares are repeated), code with relocations at most twice CODE_BYTES_MAX. */
#define JOB_OUTPUT_MAX (512ull << 20)
static inline uint64_t job_output_max(enum job_kind kind, uint64_t n_input)
{
	uint64_t n = 2 * (uint64_t)CODE_BYTES_MAX;

	if (kind == JOB_LOAD)
		n = 16 * n_input + 65536;
	else if (kind == JOB_PRECOMPILE)	/* an object and code: any method may take in what others are */
		n = 256 * n_input + (1u << 20);
	return n < JOB_OUTPUT_MAX ? n : JOB_OUTPUT_MAX;
}
_Static_assert(CODE_RELOCS_MAX * sizeof(struct code_reloc) + 65536 < CODE_BYTES_MAX, "beside them, who was inlined fits");

/* What compiles in a third of the default time limit: any method of up to JOB_INSNS_SURE slots, and one of up to JOB_INSNS_MAX
 * if its jumps and calls let it: LLVM's time for those grows with the square of their number. */
#define JOB_INSNS_SURE 10240u
#define JOB_INSNS_MAX 32768u
bool job_is_too_large(const struct insn *insns, uint32_t n_insns);

/* A method of more slots than this is never inlined: no use in sending it along. */
#define JOB_CANDIDATE_INSNS_MAX 256u
#define JOB_BODIES_MAX 64u	/* bodies in a job, that of the method included: more are not sent */

/* What a JOB_PRECOMPILE may take beside the time limit of a load, for each 8 bytes of the object: so large is an instruction */
#define JOB_PRECOMPILE_NS 1000000u

/* Between .rodata and the call cells is but a gap for alignment. */
#define JOB_CALL_CELLS_MAX (IMAGE_SEGMENT_MAX + 4096u)

/* A module's span is smaller than 2 GiB, and no process has memory above 128 TiB. */
#define JOB_CELLS_MAX (1u << 29)
#define JOB_ADDRESS_MAX ((1ull << 47) - 1)

/* A compile job names one method and carries the bytecode of every method that may be inlined into it. */
struct job_compile {
	uint32_t level;			/* enum tier_level to compile for: TIER1, OPTIMIZED, READY_TO_RUN, TIER1_INSTRUMENTED or OSR */
	uint32_t method;		/* index in the module of the method to compile */
	uint32_t osr_pc;		/* OSR: slot of the loop head in bodies[0] at which the code goes on; else 0 */
	uint32_t profile, n_cells;	/* TIER1_INSTRUMENTED: the first cell that it counts in, and how many the module has; else 0 */
	uint32_t n_methods, n_imports;	/* of the module: bounds for indices */
	uint32_t n_rodata, n_data, n_bss;
	uint32_t slots, n_slots;	/* the part of .rodata that holds vtable slots: offset, a multiple of 8, and bytes; 0: none */
	uint32_t call_cells;		/* offset from .rodata's start of the copy whose words calls through slots use; behind .rodata */
	uint64_t data, bss;		/* addresses of .data and .bss where they are another module's (an instantiation's are those of
					 * the module that it was made of); 0: they lie in the module's span */
	const uint8_t *rodata;		/* n_rodata bytes, relocated fields as 0; NULL: not sent, nothing is folded */
	const struct image_reloc *relocs;	/* the pointers in it (segment IMAGE_RODATA), as the image has them */
	uint32_t n_relocs;
	struct job_body {
		uint32_t method;	/* index in the module */
		uint32_t n_insns;
		const struct insn *insns;	/* verified by the daemon */
		const char *name;
		const struct profile_count *profile;	/* what was counted, its entry first, in the order of bytecode/profile.h; a hint */
		uint32_t n_profile;			/* 0: nothing is known */
	} *bodies;			/* bodies[0] is the method itself; others are candidates for inlining, each once */
	uint32_t n_bodies;
};

/* Each returns a malloc()ed block in *ret_bytes of *ret_n bytes, or -ENOMEM. job_put_code() wants relocs by ascending
 * offset, disjoint, and inlined in ascending order, as codegen_compile() delivers them. */
int job_put_compile(const struct job_compile *job, void **ret_bytes, size_t *ret_n);
int job_put_code(const struct code_result *code, void **ret_bytes, size_t *ret_n);

/* Each borrows from @bytes (8-byte aligned), except job->bodies, which the caller frees with free(). False: @refusal.
 * What job_get_compile() accepts is all in range; profiles keep the promises of bytecode/profile.h, but need not fit the
 * instructions. */
bool job_get_compile(struct job_compile *ret, const void *bytes, size_t n, struct refusal *refusal);
bool job_get_code(struct code_result *ret, const void *bytes, size_t n, struct refusal *refusal);
