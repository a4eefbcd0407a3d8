/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <tier/wire.h>
#include "bench/measure.h"
#include "bench/sizes.h"

/* A method of n instructions:
 *
 *   r0 = r1; r3 = table[0]                                       4, with the lddw's two
 *   r0 = r0 * 31 + 7, to the frame and back as r2;               8 a block, as many as there is room for
 *   if (r2 <= 1000) r0++; r0 = (r0 << 1) ^ r3
 *   r0 *= 3                                                      up to 7, to fill up
 *   exit                                                         1
 *
 * Blocks are given in numbers: clang's assembler takes 6 µs for an instruction in words. */

#define N_HEAD 4u
#define N_BLOCK 8u
#define SEED 0x1234567u
#define BLOCK                                                                                                          \
	"0x1f00000027, 0x0700000007, 0xfff80a7b, 0xfff8a279, 0x3e800010225, 0x0100000007, 0x0100000067, 0x30af"
#define FILLER "0x0300000027"

#define ROUNDS 5

static unsigned int n_blocks(unsigned int n_insns) { return (n_insns - N_HEAD - 1) / N_BLOCK; }
static unsigned int n_fillers(unsigned int n_insns) { return (n_insns - N_HEAD - 1) % N_BLOCK; }

static int method_print(char *to, size_t n_max, unsigned int index, unsigned int n_insns)
{
	return snprintf(to, n_max,
			"\t.globl m%u\n\t.type m%u,@function\nm%u:\n"
			"\tr0 = r1\n\tr3 = table ll\n\tr3 = *(u64 *)(r3 + 0)\n"
			"\t.rept %u\n\t.quad " BLOCK "\n\t.endr\n"
			"\t.rept %u\n\t.quad " FILLER "\n\t.endr\n"
			"\texit\n.Lend%u:\n\t.size m%u, .Lend%u-m%u\n",
			index, index, index, n_blocks(n_insns), n_fillers(n_insns), index, index, index, index);
}

uint64_t sizes_result(unsigned int n_insns, uint64_t x)
{
	for (unsigned int i = 0; i < n_blocks(n_insns); i++) {
		x = x * 31 + 7;
		x = (x > 1000 ? x : x + 1) << 1 ^ SEED;
	}
	for (unsigned int i = 0; i < n_fillers(n_insns); i++)
		x *= 3;
	return x;
}

const char *sizes_object(const struct daemon *daemon, const char *name, unsigned int n_methods, unsigned int n_insns)
{
	size_t n_max = 600ul * n_methods + 200, n;
	char *text = malloc(n_max);
	const char *path;

	if (!text)
		abort();
	n = snprintf(text, n_max, "\t.section .rodata,\"a\"\n\t.p2align 3\ntable:\n\t.quad %u\n\t.text\n", SEED);
	for (unsigned int i = 0; i < n_methods; i++)
		n += method_print(text + n, n_max - n, i, n_insns);
	path = bpf_compile(daemon->folder, name, text, "-x assembler");
	free(text);
	return path;
}

/* -- Figures --- */
static void require(int r, const char *what)
{
	if (r) {
		fprintf(stderr, "%s: %s\n", what, tier_error_text());
		exit(1);
	}
}

void sizes_of_loads(const struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);
	struct wire_stats stats;

	printf("\nloading a module of methods of 100 instructions, medians of %d\n", ROUNDS);
	for (unsigned int n_insns = 1000; n_insns <= 1000000; n_insns *= 10) {
		const char *path = sizes_object(daemon, "sized", n_insns / 100, 100);
		struct series series = { .n = 0 };
		struct tier_module *module;

		for (int round = 0; round < ROUNDS; round++) {
			uint64_t begin = measure_now_ns();

			require(tier_load(conn, path, "sized", 0, &module), path);
			series_add(&series, measure_now_ns() - begin);
			tier_close(module);
			require(tier_unload(conn, "sized"), "sized");
		}
		require(tier_stats(conn, &stats), "stats");
		printf("  %8u instructions %10.2f ms %10.1f ns each   the daemon's longest turn so far: %.2f ms, in %s\n", n_insns,
		       series_median(&series) / 1e6, series_median(&series) / n_insns, stats.longest_turn_ns / 1e6,
		       stats.longest_turn_name);
	}
	tier_disconnect(conn);
}

void sizes_of_methods(const struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);

	printf("\ncompiling one method\n");
	for (unsigned int n_insns = 100; n_insns <= 10000; n_insns *= 10) {
		const char *path = sizes_object(daemon, "long", 1, n_insns);
		struct tier_module *module;
		struct tier_method *method;
		uint64_t begin, tier0;

		require(tier_load(conn, path, "long", 0, &module), path);
		require(tier_find(module, "m0", &method), "m0");
		begin = measure_now_ns();
		tier_entry(method)(1, 0, 0, 0, 0);
		tier0 = measure_now_ns() - begin;
		begin = measure_now_ns();
		climb(method, NULL);
		printf("  %8u instructions %10.2f ms at tier 0, first call included %10.1f ms to tier 1\n", n_insns, tier0 / 1e6,
		       (measure_now_ns() - begin) / 1e6);
		tier_close(module);
		require(tier_unload(conn, "long"), "long");
	}
	tier_disconnect(conn);
}
