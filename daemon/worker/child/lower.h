/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* BPF bytecode → LLVM IR
 *
 * A method becomes `i64 @method(i64, i64, i64, i64, i64)`; at level OSR `i64 @method(ptr registers, ptr frame)`, which goes on
 * at the head of a loop, with r0..r9 as the array has them and in the BPF frame that ends at @frame, the caller's. What LLVM must
 * know to do as well as on C is kept: a register that is provably a pointer with a known origin also lives as a pointer
 * (provenance.h), and the BPF frame is one alloca. Everything lives in allocas here; SROA makes values of them.
 *
 * What bytecode defines LLVM is told with nothing undefined: any address may be accessed and faults if it must, arithmetic
 * wraps, counts are masked, divisors are made safe, what nobody wrote has a value, loops need not end. Only a load whose value
 * nobody uses may be left out, with its fault. */

#include <llvm-c/Core.h>
#include <stdbool.h>
#include "worker/child/plan.h"
#include "worker/job.h"

enum {
	_LOWER_E_SUCCESS,
	LOWER_E_NO_LOOP,	/* OSR: no backward jump leads to osr_pc */
};

/* Fills @module, whose data layout is set, with bodies[0] of @job and with every body that @plan inlines, the latter as internal
 * functions that must be inlined. With @opaque LLVM cannot see through addresses of methods and segments, so that it folds no
 * constant into them. Returns 0, LOWER_E_NO_LOOP or -ENOMEM. */
int lower_job(LLVMModuleRef module, const struct job_compile *job, const struct plan *plan, bool opaque);
