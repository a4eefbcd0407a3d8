/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A small assembler for BPF in the notation of LLVM and the kernel, so that the conformance files need no tool to run
 *
 *   r0 = 5            w1 s/= w2         r0 = (s8)r1        r0 = bswap32 r0        r1 = 0x123456789 ll
 *   r2 = *(u16 *)(r1 + 4)               *(u64 *)(r10 - 8) = r2                    *(u8 *)(r1 + 0) = 7
 *   if w1 s> -1 goto out                goto +1            gotol out              out:
 *   lock *(u32 *)(r1 + 0) += w2         r2 = atomic_fetch_or((u64 *)(r1 + 0), r2)
 *   r2 = xchg_64(r1 + 0, r2)            w0 = cmpxchg32_32(r1 + 0, w0, w2)
 *   w0 = load_acquire((u8 *)(r1 + 0))   store_release((u64 *)(r1 + 0), r2)
 *   call function     call 5            r1 = function ll   callx r1               exit
 *   .rept 1000 ... .endr                # a comment
 *
 * One instruction a line. Calls and code addresses are in the kernel's conventions: program.h. */

#include <stdbool.h>
#include "bytecode/image.h"

/* On success the caller frees *ret with free(). On refusal the sentence names the line. */
bool assemble(const char *text, struct insn **ret, uint32_t *ret_n, struct refusal *refusal);
