/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The workloads, each written once
 *
 * A row: name, module file (build/workloads/FILE.bpf.o), entry method, maker of its usual input (bench/inputs.c).
 * WORKLOAD_LIST has those whose result depends on their arguments alone: they are measured, and any tier must agree
 * with the native build on the result and on every byte written. WORKLOAD_TEST_LIST has what only tests look at:
 * methods with state that lives as long as the process, or that call functions of the host. */

#include <stdint.h>

#define WORKLOAD_LIST(_)                                                                                               \
	_(fnv1a, "fnv1a", fnv1a, input_fnv1a)                                                                          \
	_(xxhash64, "xxhash64", xxhash64, input_xxhash64)                                                              \
	_(crc32, "crc32", crc32, input_crc32)                                                                          \
	_(siphash, "siphash", siphash, input_siphash)                                                                  \
	_(sha256, "sha256", sha256, input_sha256)                                                                      \
	_(base64, "base64", base64, input_base64)                                                                      \
	_(lz4, "lz4", lz4, input_lz4)                                                                                  \
	_(strsearch, "strsearch", strsearch, input_strsearch)                                                          \
	_(bsearch, "bsearch", bsearch, input_bsearch)                                                                  \
	_(json, "json", json, input_json)                                                                              \
	_(insertsort, "insertsort", insertsort, input_insertsort)                                                      \
	_(quicksort, "quicksort", quicksort, input_quicksort)                                                          \
	_(rbtree, "rbtree", rbtree, input_rbtree)                                                                      \
	_(matmul, "matmul", matmul, input_matmul)                                                                      \
	_(sieve, "sieve", sieve, input_sieve)                                                                          \
	_(fib, "fib", fib, input_fib)                                                                                  \
	_(packet, "packet", packet, input_packet)                                                                      \
	_(interp, "interp", interp, input_interp)                                                                      \
	_(dispatch, "dispatch", dispatch, input_dispatch)

#define WORKLOAD_TEST_LIST(_)                                                                                          \
	_(counter, "counter", counter, input_counter)                                                                  \
	_(counter_past, "counter", counter_past, input_counter)                                                        \
	_(counter_use, "counter", counter_use, input_counter)                                                          \
	_(imports, "imports", imports, input_imports)

/* How every method is called, whatever types its source gives its arguments: five registers, unused ones are ignored */
typedef uint64_t workload_function(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

#define WORKLOAD_NATIVE(name, file, entry, input) workload_function native_##entry;
WORKLOAD_LIST(WORKLOAD_NATIVE)
WORKLOAD_TEST_LIST(WORKLOAD_NATIVE)
