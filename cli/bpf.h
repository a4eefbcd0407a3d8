/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* BPF instructions as text, in the notation of the kernel's verifier and of llvm-objdump */

#include <stddef.h>
#include <stdint.h>

/* Looks up what a method's or an import's number stands for; never NULL. */
typedef const char *(*bpf_name_fn)(void *context, uint32_t index);
struct bpf_names {
	bpf_name_fn method, import;
	void *context;
};

/* Prints the instruction at @insns (of @n slots, at least 1; see struct wire_insns of tier/wire.h) into @to. Returns how
 * many slots it takes. What is no instruction prints as its bytes. */
uint32_t bpf_text(char *to, size_t n_to, const uint64_t *insns, uint32_t n, const struct bpf_names *names);
