/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "system/both.h"
#include "system/harness.h"
#include "util/base.h"

/* What an object file may refer to, run for real
 *
 * Each feature is a small source whose f(x) depends on references being right: calls and addresses, in code and in data,
 * across sections and files. It is built by each compiler at hand, with and without optimization, loaded, and called at
 * tier 0 and at the final tier; gcc 12 and its assembler have relocations of their own. f may be called any number of times:
 * it writes what it reads. The results are those of the same source in a native program. */

#define TYPES                                                                                                          \
	"typedef unsigned long long u64; typedef unsigned int u32; typedef unsigned char u8;\n"                        \
	"#define noinline __attribute__((noinline))\n"                                                                 \
	"#define in_section(name) __attribute__((section(name)))\n"                                                    \
	"#define weak __attribute__((weak))\n"

struct feature {
	const char *name, *flags, *source;
	uint64_t results[2];	/* of f(3) and f(4) */
	const char *not_gcc;	/* why gcc 12 cannot build it */
};

static const struct feature features[] = {
	{ "calls_between_sections", "", TYPES
	  "static noinline u64 in_text(u64 x) { return x * 3; }\n"
	  "static noinline u64 behind(u64 x) { return x ^ 0x55; }\n"
	  "in_section(\"a\") static noinline u64 in_a(u64 x) { return in_text(x) + 1; }\n"
	  "in_section(\"b\") noinline u64 in_b(u64 x) { return in_a(x) * 2 + in_text(x); }\n"
	  "in_section(\"a\") u64 f(u64 x) { return in_b(x) + behind(x) + in_a(x); }\n",
	  { 125, 132 }, NULL },

	{ "functions_as_values", "", TYPES
	  "struct ops { u64 (*run)(u64); u64 tag; };\n"
	  "static noinline u64 twice(u64 x) { return x + x; }\n"
	  "in_section(\"other\") static noinline u64 cube(u64 x) { return x * x * x; }\n"
	  "in_section(\"other\") static noinline u64 square(u64 x) { return x * x; }\n"
	  "const struct ops table[3] = { { twice, 1 }, { square, 2 }, { twice, 3 } };\n"
	  "static u64 (*volatile current)(u64) = cube;\n"
	  "u64 (*volatile fixed)(u64) = cube;\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	u64 sum = 0;\n"
	  "	for (u32 i = 0; i < 3; i++) sum = sum * 10 + table[i].run(x) + table[i].tag;\n"
	  "	current = x & 1 ? twice : square;\n"
	  "	return (sum * 100 + current(x)) * 100 + fixed(x) + (table[0].run == table[2].run) + (fixed == cube)\n"
	  "		+ (table[1].run == fixed);\n"
	  "}\n",
	  { 8190629, 10911666 }, "indirect calls" },

	{ "data_of_every_kind", "-fcommon", TYPES
	  "volatile u64 named in_section(\".data.mine\") = 5;\n"
	  "volatile u64 zeroed in_section(\".bss.mine\");\n"
	  "const volatile u64 fixed[3] in_section(\".rodata.mine\") = { 7, 8, 9 };\n"
	  "volatile u64 common, commons[3]; static volatile u64 zeroes[4];\n"
	  "volatile u8 odd = 3; static volatile u64 aligned __attribute__((aligned(256))) = 11;\n"
	  "static volatile u64 more = 13, most[2] = { 17, 19 };\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	zeroed = x; zeroes[x & 3] = x + 1; common = x * 2; commons[x % 3] = 0x10000 * x;\n"
	  "	return named + zeroed * 100 + fixed[x % 3] + common + commons[x % 3] + zeroes[x & 3] * 10 + odd + aligned\n"
	  "		+ more + most[x & 1] + ((u64)&aligned & 255) * 1000000 + ((u64)&fixed & 7) * 1000000;\n"
	  "}\n",
	  { 197012, 262659 }, NULL },

	{ "strings", "", TYPES
	  "static noinline u64 hash(const char *s)\n"
	  "{\n"
	  "	u64 h = 5381;\n"
	  "	while (*s) h = h * 33 ^ (u8)*s++;\n"
	  "	return h;\n"
	  "}\n"
	  "const char *const volatile names[] = { \"three\", \"one\", \"two\" };\n"
	  "const char *volatile changing[] = { \"a\", \"bc\" };\n"
	  "static const char text[] = \"array\";\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	return hash(names[x % 3]) + hash(changing[x & 1]) + hash(\"one\") + hash(text + 1) + hash(&names[1][1]);\n"
	  "}\n",
	  { 217224980987, 6776129041 }, NULL },

	{ "data_that_points_to_data", "", TYPES
	  "struct node { struct node *next; u64 value; volatile u64 *at; };\n"
	  "static volatile u64 numbers[4] = { 1, 2, 3, 4 }; volatile u64 zeroes[8];\n"
	  "extern struct node first;\n"
	  "static struct node third = { &first, 30, &zeroes[5] }, second = { &third, 20, &numbers[3] };\n"
	  "struct node first = { &second, 10, numbers };\n"
	  "struct node *const volatile start = &second; struct node **const volatile link = &first.next;\n"
	  "volatile u64 *const volatile both[2] = { &numbers[2], (volatile u64 *)((char *)&zeroes[1] + 8) };\n"
	  "const u64 deep[4] = { 41, 42, 43, 44 }; static const u64 *const rows[2] = { deep, deep + 2 };\n"
	  "const u64 *const *const volatile top = &rows[1]; void *volatile self = &self;\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	u64 sum = 0;\n"
	  "	struct node *node = start;\n"
	  "	zeroes[5] = x; zeroes[2] = x * 1000;\n"
	  "	for (u32 i = 0; i < 5; i++, node = node->next) sum = sum * 7 + node->value + *node->at;\n"
	  "	return sum + *both[0] + *both[1] + (*link)->value + (*top)[1] + (self == (void *)&self);\n"
	  "}\n",
	  { 72751, 74095 }, NULL },

	{ "weak_symbols", "", TYPES
	  "weak noinline u64 replaceable(u64 x) { return x + 1; }\n"
	  "weak volatile u64 number = 9; weak volatile u64 nothing;\n"
	  "extern u64 absent(u64) weak; extern volatile u64 absent_number weak;\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	nothing = x;\n"
	  "	return replaceable(x) * number + nothing + (absent ? absent(x) : 100) + (&absent_number ? absent_number : 1000);\n"
	  "}\n",
	  { 1139, 1149 }, NULL },

	{ "imports", "", TYPES
	  "extern u64 host_twice(u64) in_section(\".ksyms\"); extern u64 host_add(u64, u64);\n"
	  "extern u64 host_maybe(u64) weak; extern volatile u64 host_numbers[4];\n"
	  "u64 (*volatile through)(u64); u64 (*volatile table[2])(u64);\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	through = table[0] = host_twice; table[1] = host_maybe;\n"
	  "	return host_add(host_twice(x), 1) * 10000 + through(x) * 1000 + table[x & 1](x) * 10 + host_numbers[2]\n"
	  "		+ (host_maybe ? 5 : 0) + (through == host_twice) + (table[1] == host_maybe);\n"
	  "}\n",
	  { 76407, 98387 }, "indirect calls" },

	{ "functions_of_libc", "-fno-builtin", TYPES
	  "extern void *memcpy(void *, const void *, u64); extern void *memset(void *, int, u64);\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	u64 from[5] = { 1, 2, 3, 4, 5 }, to[8]; u64 sum = 0;\n"
	  "	memset(to, 1, sizeof(to)); memcpy(to + 1, from, x * 8);\n"
	  "	for (u32 i = 0; i < 8; i++) sum = sum * 3 + to[i] % 1000;\n"
	  "	return sum;\n"
	  "}\n",
	  { 1500229, 1482166 }, NULL },

	{ "a_frame_for_each_call", "", TYPES
	  "static noinline void mix(u64 *a, u64 n, u64 x)\n"
	  "{\n"
	  "	volatile u64 mine[16];\n"
	  "	for (u32 i = 0; i < 16; i++) mine[i] = x * i;\n"
	  "	for (u64 i = 0; i < n; i++) a[i] += mine[15 - i];\n"
	  "}\n"
	  "static noinline u64 deep(u64 n, u64 x)\n"
	  "{\n"
	  "	u64 a[8], below = 0;\n"
	  "	for (u32 i = 0; i < 8; i++) a[i] = x + i;\n"
	  "	mix(a, 8, n);\n"
	  "	if (n) below = deep(n - 1, x * 3);\n"
	  "	mix(a, 4, x);\n"
	  "	for (u32 i = 0; i < 8; i++) below = below * 3 + a[i];\n"
	  "	return below;\n"
	  "}\n"
	  "u64 f(u64 x) { return deep(x * 3, x); }\n",
	  { 17008902768886696492u, 2299067707681875156 }, NULL },

	{ "aggregates", "", TYPES
	  "struct small { u32 a; u8 b[5]; unsigned short c : 5, d : 11; } __attribute__((packed));\n"
	  "struct large { u64 words[9]; struct small small; };\n"
	  "static const struct large origin = { { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 10, { 1, 2, 3, 4, 5 }, 17, 1025 } };\n"
	  "static noinline void change(struct small *s, u32 x) { s->a += x; s->b[x % 5] += x; s->d ^= x; }\n"
	  "static noinline void store(struct large *to, const struct large *from) { *to = *from; }\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	struct large copy = { 0 }, other = { .words = { [3] = x } };\n"
	  "	u64 sum = 0;\n"
	  "	store(&copy, &origin);\n"
	  "	change(&copy.small, x);\n"
	  "	for (u32 i = 0; i < 9; i++) sum = sum * 5 + copy.words[i] + other.words[i];\n"
	  "	for (u32 i = 0; i < 5; i++) sum = sum * 5 + copy.small.b[i];\n"
	  "	return sum * 7 + copy.small.a + copy.small.c * 3 + copy.small.d;\n"
	  "}\n",
	  { 13556470520, 13624829822 }, NULL },

	{ "switches", "", TYPES
	  "static noinline u64 sparse(u64 x)\n"
	  "{\n"
	  "	switch (x) { case 3: return 1; case 4: return 10; case 1000: return 2; case 1ull << 40: return 3; default: return x; }\n"
	  "}\n"
	  "static noinline u32 dense(u32 x)\n"
	  "{\n"
	  "	switch (x) { case 0: return 11; case 1: return 77; case 2: return 8; case 3: return 99; case 4: return 3;\n"
	  "		case 5: return 17; case 6: return 1234567; default: return 0; }\n"
	  "}\n"
	  "static noinline const char *name(u32 x)\n"
	  "{\n"
	  "	switch (x) { case 0: return \"zero\"; case 1: return \"one\"; case 2: return \"two\"; case 3: return \"three\";\n"
	  "		case 4: return \"four\"; default: return \"many\"; }\n"
	  "}\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	u64 sum = sparse(x) + sparse(1ull << 40) * 100 + sparse(x * 300);\n"
	  "	for (u32 i = 0; i < 9; i++) sum = sum * 3 + dense(i + x) + name(i + x)[1];\n"
	  "	return sum;\n"
	  "}\n",
	  { 325338679, 930823966 }, NULL },

	{ "atomics_on_data", "-mcpu=v3", TYPES
	  "static u64 wide; u32 narrow = 7; static u64 other = 5;\n"
	  "u64 f(u64 x)\n"
	  "{\n"
	  "	u64 sum;\n"
	  "	wide = x; narrow = 0xfffffffe;\n"
	  "	sum = __sync_fetch_and_add(&wide, 5) + __sync_fetch_and_add(&narrow, x);\n"
	  "	sum = sum * 3 + __sync_fetch_and_or(&wide, 0x100) + __sync_fetch_and_and(&narrow, 0xff);\n"
	  "	__sync_fetch_and_xor(&wide, 0x30);\n"
	  "	sum = sum * 3 + __sync_val_compare_and_swap(&other, 5, 6) + __sync_val_compare_and_swap(&other, 6, 5);\n"
	  "	return sum * 3 + wide + narrow + other + __sync_lock_test_and_set(&wide, 1);\n"
	  "}\n",
	  { 115964117763, 115964117811 }, "atomic operations" },
};

/* -- Building and calling --- */
static const struct build {
	const char *compiler, *options;
} builds[] = {
	{ "clang", "-target bpf -O0 -mcpu=v1" },
	{ "clang", "-target bpf -O2 -mcpu=v3 -g" },
	{ "clang-19", "-target bpf -O0 -mcpu=v3 -g" },
	{ "clang-19", "-target bpf -O2 -mcpu=v4" },
	{ "bpf-gcc", "-O0" },
	{ "bpf-gcc", "-O2" },
};

static bool is_gcc(const struct build *by)
{
	return !strcmp(by->compiler, "bpf-gcc");
}

static struct both both;

static bool have(const char *program)
{
	char command[128];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	if (!system(command))
		return true;
	print_message("no %s here\n", program);
	return false;
}

__attribute__((format(printf, 1, 2))) static void run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command))
		fail_msg("failed: %s", command);
}

static const char *folder(void)
{
	return both.staying.folder;
}

/* FOLDER/@name.o from @source */
static void build(const struct build *by, const char *name, const char *flags, const char *source)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.c", folder(), name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(source, file);
	fclose(file);
	run("%s %s -w %s -c %s -o %s/%s.o", by->compiler, by->options, flags, path, folder(), name);
}

static uint64_t host_twice(uint64_t x) { return x + x; }
static uint64_t host_add(uint64_t x, uint64_t y) { return x + y; }
static uint64_t host_maybe(uint64_t x) { return x + 7; }
static const uint64_t host_numbers[4] = { 100, 200, 300, 400 };

static void *lookup(const char *name, void *context)
{
	static const struct { const char *name; const void *at; } known[] = {
		{ "host_twice", (void *)host_twice }, { "host_add", (void *)host_add }, { "host_maybe", (void *)host_maybe },
		{ "host_numbers", host_numbers }, { "memcpy", (void *)memcpy }, { "memset", (void *)memset },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].name, name))
			return (void *)known[i].at;
	return NULL;
}

static struct tier_method *load(struct tier_conn *conn, const char *name, struct tier_module **ret)
{
	struct tier_method *method;
	char path[256];

	snprintf(path, sizeof(path), "%s/%s.o", folder(), name);
	assert_done(tier_load(conn, path, "object", 0, ret));
	assert_done(tier_unload(conn, "object"));	/* the name only */
	assert_done(tier_bind_all(*ret, lookup, NULL));
	assert_done(tier_find(*ret, "f", &method));
	return method;
}

static void check_calls(const struct tier_method *method, const char *what, const uint64_t results[2])
{
	for (uint64_t x = 3; x <= 4; x++) {
		uint64_t result = tier_entry(method)(x, 0, 0, 0, 0);

		if (result != results[x - 3])
			fail_msg("%s at %s: f(%lu) is %lu instead of %lu", what, tier_level_name(tier_status(method).tier), x, result,
				 results[x - 3]);
	}
}

static void check_object(const char *name, const char *what, const uint64_t results[2])
{
	const struct workload_input input = { .args = { 3 } };
	struct tier_module *module;
	struct tier_method *method = load(both.at_tier0, name, &module);

	check_calls(method, what, results);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER0);
	tier_close(module);

	method = load(both.on_the_way, name, &module);
	both_climb(module, method, &input);
	check_calls(method, what, results);
	tier_close(module);
}

/* Every feature is a case of its own. */
static void a_feature(void **state)
{
	const struct feature *feature = *state;

	for (size_t i = 0; i < ARRAY_SIZE(builds); i++) {
		if (!have(builds[i].compiler))
			continue;
		if (is_gcc(&builds[i]) && feature->not_gcc) {
			print_message("%s knows no %s\n", builds[i].compiler, feature->not_gcc);
			continue;
		}
		build(&builds[i], feature->name, feature->flags, feature->source);
		check_object(feature->name, builds[i].options, feature->results);
	}
}

/* -- Objects of several files --- */
static const char one_source[] = TYPES
	"extern u64 two(u64); volatile u64 shared = 5; static volatile u64 own = 7;\n"
	"static noinline u64 helper(u64 x) { return x * shared + own; }\n"
	"weak noinline u64 either(u64 x) { return x * 1000; }\n"
	"noinline u64 one(u64 x) { return helper(x) + two(x) + either(x); }\n"
	"u64 (*const volatile table[2])(u64) = { one, either };\n"
	"u64 f(u64 x) { return one(x) * 10 + table[x & 1](x); }\n";
static const char two_source[] = TYPES
	"extern volatile u64 shared; u64 one(u64); static volatile u64 own = 11;\n"
	"static noinline u64 helper(u64 x) { return (x ^ shared) + own; }\n"
	"noinline u64 either(u64 x) { return x * 100; }\n"
	"noinline u64 two(u64 x) { return x ? helper(x) ^ one(x - 1) : 0; }\n";
static const uint64_t linked_results[2] = { 6900, 12001 };

/* The one linker for such objects. It needs BTF of whatever is extern (clang 14 writes none at -O0), and knows no pointers to
 * static things in data. */
static void linked_objects_keep_their_static_functions_apart(void **state)
{
	if (!have("/usr/sbin/bpftool"))
		skip();
	for (size_t i = 1; i < ARRAY_SIZE(builds); i++) {
		if (is_gcc(&builds[i]) || !have(builds[i].compiler))
			continue;
		build(&builds[i], "one", "-g", one_source);
		build(&builds[i], "two", "-g", two_source);
		run("/usr/sbin/bpftool gen object %s/linked.o %s/one.o %s/two.o", folder(), folder(), folder());
		check_object("linked", builds[i].options, linked_results);
	}
}

/* -- Refusals --- */
static void assert_load_refused(const char *name, const char *word)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s.o", folder(), name);
	assert_true(tier_load(both.at_tier0, path, "object", 0, NULL) < 0);
	if (!strstr(tier_error_text(), word))
		fail_msg("'%s' does not say '%s'", tier_error_text(), word);
}

static void what_cannot_be_is_refused_by_name(void **state)
{
	build(&builds[0], "narrow", "-x assembler",
	      "\t.globl f\n\t.type f,@function\nf:\n\tr0 = 1\n\texit\n.Lend:\n\t.size f, .Lend-f\n"
	      "\t.section .rodata,\"a\"\n\t.long f\n");
	assert_load_refused("narrow", "a pointer of 4 bytes cannot hold an address");
	build(&builds[0], "address", "-O1", TYPES
	      "extern u64 host(u64); u64 (*const volatile table[1])(u64) = { host }; u64 f(u64 x) { return table[0](x); }\n");
	assert_load_refused("address", "import 'host' differs from process to process");
	build(&builds[0], "variable", "-O1", TYPES
	      "extern u64 host(u64); u64 (*table[1])(u64) = { host }; u64 f(u64 x) { return table[0](x); }\n");
	assert_load_refused("variable", "import 'host' differs from process to process");
}

/* -- Main --- */
static int group_setup(void **state)
{
	both_start(&both);
	return 0;
}

static int group_teardown(void **state)
{
	both_stop(&both);
	return 0;
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(features) + 2] = {
		cmocka_unit_test(linked_objects_keep_their_static_functions_apart),
		cmocka_unit_test(what_cannot_be_is_refused_by_name),
	};

	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		tests[2 + i] = (struct CMUnitTest){ .name = features[i].name, .test_func = a_feature,
						    .initial_state = (void *)&features[i] };
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
