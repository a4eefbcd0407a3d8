/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A program whose method `victim` is reached in every way there is, and bodies to replace its own with.
 *
 * Body v makes victim(x) return v in the upper half and v * 7 + x in the lower: so what ran can be told, and half of one and
 * half of another would show. Its own body is number 0. */

#include <stdio.h>
#include <string.h>
#include "system/harness.h"

#define BODY_RESULT(v, x) ((uint64_t)(v) << 32 | (uint32_t)((v) * 7 + (x)))

#define BODIES_TYPES "typedef unsigned long long u64;\n#define noinline __attribute__((noinline))\n"
#define BODIES_PROGRAM                                                                                                 \
	BODIES_TYPES                                                                                                   \
	"struct ops { u64 (*other)(u64); u64 (*run)(u64); };\n"                                                       \
	"u64 counted; const u64 bias = 5;\n"                                                                           \
	"noinline u64 other(u64 x) { return x ^ 1; }\n"                                                               \
	"noinline u64 victim(u64 x) { return x & 0xffffffff; }\n"                                                     \
	"const struct ops table[3] = { { other, other }, { other, victim }, { victim, other } };\n"                   \
	"u64 (*volatile pointer)(u64) = victim; u64 (*volatile copied)(u64);\n"                                       \
	"struct holder { const struct ops *ops; };\n"                                                                  \
	"u64 by_slot(u64 x, u64 row) { return table[row].run(x); }\n"                                                 \
	"u64 by_constant_slot(u64 x) { return table[1].run(x); }\n"                                                   \
	"u64 by_call(u64 x) { return victim(x); }\n"                                                                   \
	"noinline u64 between(u64 x) { return victim(x) + 0; }\n"                                                     \
	"u64 by_nested_call(u64 x) { return between(x); }\n"                                                          \
	"u64 by_data(u64 x) { return pointer(x); }\n"                                                                 \
	"u64 by_copy(u64 x) { struct ops mine = table[1]; copied = mine.run; return copied(x); }\n"                   \
	"u64 by_value(u64 x) { u64 (*f)(u64) = victim; asm volatile(\"\" : \"+r\"(f)); return f(x); }\n"             \
	"u64 kept_over_a_loop(u64 x, u64 n)\n"                                                                         \
	"{\n"                                                                                                          \
	"	u64 (*f)(u64) = pointer; u64 r = 0;\n"                                                                \
	"	for (u64 i = 0; i < n; i++) { r = f(x); if (f != victim) return ~0ull; }\n"                          \
	"	return r;\n"                                                                                          \
	"}\n"                                                                                                          \
	"u64 watch(volatile u64 *m) { u64 (*f)(u64) = pointer; while (!m[0]) m[1] = f(1); return m[1]; }\n"          \
	"u64 address_of(u64 which) { return which ? (u64)pointer : (u64)table[1].run; }\n"                           \
	"u64 pointers_are_equal(void)\n"                                                                               \
	"{\n"                                                                                                          \
	"	struct ops mine = table[1]; u64 (*f)(u64) = victim;\n"                                                \
	"	asm volatile(\"\" : \"+r\"(f));\n"                                                                    \
	"	return (pointer == f) + (mine.run == f) * 2 + (table[2].other == f) * 4 + (mine.other != f) * 8;\n"  \
	"}\n"
#define POINTERS_EQUAL 15

/* @name: of the function, as bodies may have another name than what they replace */
static inline const char *body_compile(const char *folder, const char *name, unsigned int number)
{
	char source[512], file[64];

	snprintf(source, sizeof(source), BODIES_TYPES "u64 %s(u64 x) { return %lluull << 32 | (unsigned)(%u * 7 + x); }\n", name,
		 (unsigned long long)number, number);
	snprintf(file, sizeof(file), "body%u", number);
	return bpf_compile(folder, file, source, "-g");
}

/* The ways to victim(x) inside the program, by method; two take a second argument. */
static const struct way {
	const char *method;
	uint64_t more;
} ways[] = {
	{ "victim", 0 }, { "by_slot", 1 }, { "by_constant_slot", 0 }, { "by_call", 0 }, { "by_nested_call", 0 },
	{ "by_data", 0 }, { "by_copy", 0 }, { "by_value", 0 }, { "kept_over_a_loop", 3 },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* A daemon with the program, and its methods */
struct bodies {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *victim, *methods[WAYS];	/* methods[0] is the victim */
};

static inline void bodies_start(struct bodies *bodies, const char *const *args)
{
	daemon_start(&bodies->daemon, args);
	bodies->conn = daemon_connect(&bodies->daemon);
	assert_done(tier_load(bodies->conn, bpf_compile(bodies->daemon.folder, "program", BODIES_PROGRAM, "-g"), NULL, 0,
			      &bodies->module));
	for (size_t i = 0; i < WAYS; i++)
		assert_done(tier_find(bodies->module, ways[i].method, &bodies->methods[i]));
	bodies->victim = bodies->methods[0];
}

static inline void bodies_end(struct bodies *bodies)
{
	tier_disconnect(bodies->conn);
	daemon_stop(&bodies->daemon);
}
