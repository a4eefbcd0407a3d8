/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "system/harness.h"
#include "system/json.h"
#include "tier/wire.h"
#include "util/base.h"

/* tierctl show, and the functions of libtier behind it: signatures, attributes, versions, who calls whom, instructions */

static const char source[] =
	"typedef unsigned char u8; typedef unsigned long long u64;\n"
	"#define TAG(x) __attribute__((btf_decl_tag(x)))\n"
	"#define noinline __attribute__((noinline))\n"
	"extern u64 host(u64) __attribute__((weak, section(\".ksyms\")));\n"
	"u64 counter; const u64 primes[4] = { 2, 3, 5, 7 };\n"
	"static noinline u64 leaf(u64 x) { return x * 3 + primes[x & 3]; }\n"
	"noinline u64 lone(u64 x, u64 (*f)(u64)) { counter += x; return f(x); }\n"
	"TAG(\"tier:no_optimization\") TAG(\"mine\") u64 packet(const u8 *data, u64 n) {\n"
	"	u64 s = 0;\n"
	"	for (u64 i = 0; i < n; i++)\n"
	"		s += data[i];\n"
	"	return s; }\n"
	"u64 entry(u64 x) { return leaf(x) + leaf(x + 1); }\n"
	"u64 other(u64 x) { return leaf(x) + lone(x, leaf) + host(x); }\n";

static struct daemon daemon_;
static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

#define done(...)                                                                                                      \
	do {                                                                                                           \
		int done_ = tierctl(&daemon_, out, err, __VA_ARGS__, NULL);                                            \
		if (done_ || *err)                                                                                     \
			fail_msg("status %d; out: %s; err: %s", done_, out, err);                                      \
	} while (0)

static int start(void **state)
{
	daemon_start(&daemon_, ARGS("--call-counting-delay=0"));
	done("load", bpf_compile(daemon_.folder, "m", source, "-g"));
	return 0;
}

static int stop(void **state)
{
	daemon_stop(&daemon_);
	return 0;
}

static void expect_text(const char *words)
{
	if (!strstr(out, words))
		fail_msg("'%s' is missing in:\n%s", words, out);
}

/* Whether this tierctl was built with a disassembler. */
static bool has_disassembler(void)
{
	int status = tierctl(&daemon_, out, err, "show", "m:leaf", "--native", NULL);

	if (status)
		assert_non_null(strstr(err, "without a disassembler; install libcapstone-dev"));
	return !status;
}

/* -- tierctl show --- */
static void a_cold_method_is_described(void **state)
{
	done("show", "m:packet");
	assert_int_equal(strncmp(out, "u64 packet(const u8 *data, u64 n)\n\n", 35), 0);
	expect_text("module       m (1), method ");
	expect_text(".text+0x");
	expect_text("status       cold: cold, 1 call to the next tier\n");
	expect_text("tier         none, generation 0\n");
	expect_text(" instruction slots, 0 bytes of machine code\n");
	expect_text("attributes   global, no_optimization\n");
	expect_text("tags         tier:no_optimization, mine\n");
	assert_null(strstr(out, "VERSION"));
	assert_null(strstr(out, "note "));
}

static void callers_and_callees_are_known(void **state)
{
	done("show", "m:leaf");
	expect_text("\ncalled by    entry, other\n");
	assert_null(strstr(out, "calls  "));
	done("show", "m:other");
	expect_text("\ncalls        leaf, lone\n");
	expect_text("\nimports      host\n");
	expect_text("\naddresses    leaf\n");
	assert_null(strstr(out, "called by"));
}

static void versions_are_listed_newest_first(void **state)
{
	char year[8];
	time_t now = time(NULL);
	struct tm tm;

	done("drive", "m:entry", "5");
	done("show", "m:entry", "--json");
	json_expect(out, "signature", "u64 entry(u64 x)");
	json_expect(out, "status", "final");
	json_expect(out, "reason", "reached its final tier");
	assert_int_equal(json_length(out, "versions"), 2);
	json_expect(out, "versions.0.tier", "Tier1");
	json_expect(out, "versions.0.state", "live");
	assert_int_equal(strncmp(json_at(out, "versions.0.active").begin, "true", 4), 0);
	json_expect(out, "versions.0.inlined.0", "leaf");
	json_expect(out, "versions.1.tier", "Tier0");
	assert_int_equal(strncmp(json_at(out, "versions.1.active").begin, "false", 5), 0);
	assert_int_equal(json_length(out, "versions.1.inlined"), 0);
	assert_true(json_number(out, "versions.0.version") > json_number(out, "versions.1.version"));
	assert_true(json_number(out, "versions.1.stub") != 0);
	assert_int_equal(json_number(out, "versions.0.size"), json_number(out, "native_bytes"));
	assert_int_equal(json_length(out, "callees"), 1);
	gmtime_r(&now, &tm);
	strftime(year, sizeof(year), "%Y", &tm);
	done("show", "m:entry");
	expect_text("\nVERSION TIER ");
	expect_text("status       final: reached its final tier\n");
	expect_text("tier         Tier1, generation 2\n");
	expect_text(year);
}

static void bytecode_is_printed_with_its_lines(void **state)
{
	done("show", "m:packet", "--bytecode");
	expect_text("= *(u8 *)(r");
	expect_text(" goto pc");
	expect_text(": exit\n");
	expect_text("m.c:11:");
	done("show", "m:other", "--bytecode");
	expect_text(": call leaf\n");
	expect_text(": call host\n");
	expect_text(" = &leaf\n");
	done("show", "m:lone", "--bytecode");
	expect_text("= .bss+0x0\n");
	expect_text(": callx r");
	done("show", "m:leaf", "--bytecode");
	expect_text("= .rodata+0x");
}

/* code, dst, src, off, imm, and how the kernel's verifier prints them */
static const struct { unsigned int code, dst, src; int off; unsigned int imm; const char *text; } notations[] = {
	{ 0x07, 1, 0, 0, 5, "r1 += 5" },	       { 0x0c, 1, 2, 0, 0, "w1 += w2" },
	{ 0x17, 1, 0, 0, -5u, "r1 -= -5" },	       { 0x3f, 1, 2, 0, 0, "r1 /= r2" },
	{ 0x3f, 1, 2, 1, 0, "r1 s/= r2" },	       { 0x94, 1, 0, 1, 7, "w1 s%= 7" },
	{ 0x97, 1, 0, 0, 7, "r1 %= 7" },	       { 0xc7, 1, 0, 0, 3, "r1 s>>= 3" },
	{ 0x64, 1, 0, 0, 3, "w1 <<= 3" },	       { 0x84, 4, 0, 0, 0, "w4 = -w4" },
	{ 0xbf, 1, 2, 0, 0, "r1 = r2" },	       { 0xbf, 1, 2, 8, 0, "r1 = (s8)r2" },
	{ 0xbc, 1, 2, 16, 0, "w1 = (s16)w2" },	       { 0xbf, 1, 2, 32, 0, "r1 = (s32)r2" },
	{ 0xdc, 1, 0, 0, 16, "r1 = be16 r1" },	       { 0xd4, 1, 0, 0, 32, "r1 = le32 r1" },
	{ 0xd7, 1, 0, 0, 64, "r1 = bswap64 r1" },      { 0x79, 1, 2, 8, 0, "r1 = *(u64 *)(r2 +8)" },
	{ 0x71, 1, 10, -4, 0, "r1 = *(u8 *)(r10 -4)" }, { 0x81, 1, 2, 0, 0, "r1 = *(s32 *)(r2 +0)" },
	{ 0x6b, 10, 1, -8, 0, "*(u16 *)(r10 -8) = r1" }, { 0x7a, 10, 0, -8, 9, "*(u64 *)(r10 -8) = 9" },
	{ 0xdb, 1, 2, 0, 0x00, "lock *(u64 *)(r1 +0) += r2" },
	{ 0xc3, 1, 2, 4, 0x51, "r2 = atomic_fetch_and((u32 *)(r1 +4), r2)" },
	{ 0xdb, 1, 2, 0, 0xa1, "r2 = atomic64_fetch_xor((u64 *)(r1 +0), r2)" },
	{ 0xdb, 1, 2, 0, 0xe1, "r2 = atomic64_xchg((u64 *)(r1 +0), r2)" },
	{ 0xdb, 1, 2, 0, 0xf1, "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)" },
	{ 0xdb, 2, 1, 8, 0x100, "r2 = load_acquire((u64 *)(r1 +8))" },
	{ 0xc3, 1, 2, 0, 0x110, "store_release((u32 *)(r1 +0), r2)" },
	{ 0x05, 0, 0, 0, 0, "goto pc+0" },	       { 0x06, 0, 0, 0, 0, "gotol pc+0" },
	{ 0x15, 1, 0, 0, 10, "if r1 == 0xa goto pc+0" }, { 0x6d, 1, 2, 0, 0, "if r1 s> r2 goto pc+0" },
	{ 0x46, 1, 0, 0, 1, "if w1 & 0x1 goto pc+0" }, { 0xde, 1, 2, 0, 0, "if w1 s<= w2 goto pc+0" },
	{ 0x8d, 3, 0, 0, 0, "callx r3" },	       { 0x95, 0, 0, 0, 0, "exit" },
};

static void every_kind_of_instruction_has_its_notation(void **state)
{
	char *text = malloc(20000), path[64];
	int at = sprintf(text, "__attribute__((naked)) void f(void) { asm volatile(\n");

	for (size_t i = 0; i < ARRAY_SIZE(notations); i++)
		at += sprintf(text + at, "\".byte %u, %u; .short %d; .long 0x%x;\"\n", notations[i].code,
			      notations[i].src << 4 | notations[i].dst, notations[i].off, notations[i].imm);
	sprintf(text + at, "); }\n");
	done("load", bpf_compile(daemon_.folder, "kinds", text, ""));
	done("show", "kinds:f", "--bytecode", "--json");
	assert_int_equal(json_length(out, "bytecode"), ARRAY_SIZE(notations));
	for (size_t i = 0; i < ARRAY_SIZE(notations); i++) {
		snprintf(path, sizeof(path), "bytecode.%zu.text", i);
		json_expect(out, path, notations[i].text);
	}
	free(text);
}

static void bytecode_as_json_has_a_line_for_each_instruction(void **state)
{
	char path[64];
	unsigned int n;

	done("show", "m:packet", "--bytecode", "--json");
	n = json_length(out, "bytecode");
	assert_true(n > 5 && n <= json_number(out, "instruction_slots"));
	for (unsigned int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "bytecode.%u.line", i);
		assert_true(json_number(out, path) >= 8 && json_number(out, path) <= 12);
	}
	done("show", "m:packet", "--json");
	assert_null(strstr(out, "bytecode"));
}

static void machine_code_is_printed_with_names(void **state)
{
	if (!has_disassembler())
		skip();
	done("show", "m:lone", "--native");
	expect_text("\nmachine code: none yet\n");
	done("drive", "m:entry", "5");
	done("show", "m:entry", "--native");
	expect_text("machine code of version ");
	expect_text("push rbp");
	expect_text("ret");
	done("call", "m:packet", "0", "0");
	done("show", "m:packet", "--native", "--json");
	assert_true(json_length(out, "native") > 5);
	assert_int_equal(json_number(out, "native.0.offset"), 0);
	json_expect(out, "native.0.text", "push rbp");
	json_expect(out, "native.0.bytes", "55");
}

/* Tier 0 calls through the callee's entry-point cell. */
static void cells_are_called_by_their_methods_names(void **state)
{
	if (!has_disassembler())
		skip();
	done("load", bpf_compile(daemon_.folder, "cells",
				 "static __attribute__((noinline)) long leaf(long x) { return x * 3; }\n"
				 "long entry(long x) { return leaf(x) + 1; }\n", ""));
	done("call", "cells:entry", "4");
	done("show", "cells:entry", "--native");
	expect_text("; leaf.entry\n");
	assert_int_equal(strncmp(out, "entry\n\n", 7), 0);	/* without debug information there is no signature */
}

static void what_cannot_be_shown_has_a_sentence(void **state)
{
	assert_int_equal(tierctl(&daemon_, out, err, "show", "m:nothing", NULL), 2);
	assert_string_equal(err, "tierctl: module 'm' has no method 'nothing'; `tierctl status 'm'` lists what it has\n");
	assert_int_equal(tierctl(&daemon_, out, err, "show", "m", NULL), 2);
	assert_int_equal(tierctl(&daemon_, out, err, "show", NULL), 2);
	assert_int_equal(tierctl(&daemon_, out, err, "show", "m:leaf", "--count=3", NULL), 2);
}

/* -- libtier --- */
struct seen {
	uint32_t n;
	uint64_t last;
	char names[512];
};

static int see_version(const struct wire_version_row *row, void *context)
{
	struct seen *seen = context;

	if (seen->n++)
		assert_true(row->version < seen->last);
	seen->last = row->version;
	return 0;
}

static int see_name(uint32_t index, const char *name, void *context)
{
	struct seen *seen = context;

	seen->n++;
	strcat(strcat(seen->names, name), " ");
	return 0;
}

static int stop_at_once(uint32_t index, const char *name, void *context)
{
	return 7;
}

static int see_line(const struct tier_line *line, void *context)
{
	struct seen *seen = context;

	if (seen->n++)
		assert_true(line->insn > seen->last);
	seen->last = line->insn;
	assert_non_null(strstr(line->file, "m.c"));
	return 0;
}

static void libtier_tells_what_tierctl_shows(void **state)
{
	struct tier_conn *conn = daemon_connect(&daemon_);
	struct wire_description description;
	struct seen seen = { 0 };
	struct tier_module *module;
	struct tier_method *method;
	uint64_t insns[4] = { 0 };
	uint32_t n;

	assert_done(tier_open(conn, "m", &module));
	assert_done(tier_find(module, "packet", &method));
	assert_done(tier_describe(method, &description));
	assert_string_equal(description.signature, "u64 packet(const u8 *data, u64 n)");
	assert_int_equal(description.flags, WIRE_METHOD_GLOBAL | WIRE_METHOD_NO_OPTIMIZATION);
	assert_int_equal(description.n_params, 2);
	assert_true(description.signature_hash != 0);
	assert_done(tier_bytecode(method, insns, 2, &n));
	assert_int_equal(n, description.n_insns);
	assert_true(insns[0] && insns[1] && !insns[2]);
	assert_done(tier_lines(method, see_line, &seen));
	assert_true(seen.n >= 4 && seen.last < n);
	tier_entry(method)(0, 0, 0, 0, 0);
	seen = (struct seen){ 0 };
	assert_done(tier_versions(method, see_version, &seen));
	assert_true(seen.n >= 1);
	seen = (struct seen){ 0 };
	assert_done(tier_related(method, WIRE_RELATION_TAGS, 0, see_name, &seen));
	assert_string_equal(seen.names, "tier:no_optimization mine ");
	assert_int_equal(tier_related(method, WIRE_RELATION_TAGS, 0, stop_at_once, NULL), 7);
	assert_int_equal(tier_related(method, _WIRE_RELATION_N, 0, see_name, &seen), -EINVAL);
	assert_string_equal(tier_import_name(module, 0), "host");
	assert_null(tier_import_name(module, 1));
	tier_close(module);
	tier_disconnect(conn);
}

static void code_is_only_what_lies_in_the_code_segment(void **state)
{
	struct tier_conn *conn = daemon_connect(&daemon_);
	const struct tier_layout *layout;
	struct tier_module *module;
	uint64_t begin, size;

	assert_done(tier_open(conn, "m", &module));
	layout = tier_module_layout(module);
	begin = tier_layout_segment(layout, TIER_SEGMENT_CODE);
	size = layout->segment[TIER_SEGMENT_CODE].size;
	assert_ptr_equal(tier_code(module, begin, size), (void *)(uintptr_t)begin);
	assert_null(tier_code(module, begin - 1, 1));
	assert_null(tier_code(module, begin, size + 1));
	assert_null(tier_code(module, begin + size, 1));
	assert_null(tier_code(module, begin + 8, UINT64_MAX));
	assert_null(tier_code(module, tier_layout_segment(layout, TIER_SEGMENT_RECORDS), 8));
	tier_close(module);
	tier_disconnect(conn);
}

static void pages_of_a_large_method_come_whole(void **state)
{
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	uint64_t *insns = calloc(20000, sizeof(*insns));
	char *text = malloc(200000);
	struct seen seen = { 0 };
	int at;
	uint32_t n;

	at = sprintf(text, "#define noinline __attribute__((noinline))\nlong big(volatile long *p) {\n");
	for (int i = 0; i < 1000; i++)
		at += sprintf(text + at, "*p = *p * 3 + %d;\n", i * 7);
	at += sprintf(text + at, "return *p; }\n");
	for (int i = 0; i < 70; i++)
		at += sprintf(text + at, "static noinline long f%d(long x) { return x * %d; }\n", i, i + 3);
	at += sprintf(text + at, "long all(long x) { long s = 0;\n");
	for (int i = 0; i < 70; i++)
		at += sprintf(text + at, "s += f%d(x);\n", i);
	sprintf(text + at, "return s; }\n");
	done("load", bpf_compile(daemon_.folder, "large", text, "-g"));
	conn = daemon_connect(&daemon_);
	assert_done(tier_open(conn, "large", &module));
	assert_done(tier_find(module, "big", &method));
	assert_done(tier_bytecode(method, insns, 20000, &n));
	assert_true(n > 3 * WIRE_INSNS_MAX && n < 20000);
	assert_int_equal(insns[n - 1] & 0xff, 0x95);	/* exit */
	for (uint32_t i = 0; i < n; i++)
		assert_true(insns[i] != 0);
	assert_done(tier_find(module, "all", &method));
	assert_done(tier_related(method, WIRE_RELATION_CALLEES, 0, see_name, &seen));
	assert_int_equal(seen.n, 70);
	tier_close(module);
	tier_disconnect(conn);
	free(insns);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_cold_method_is_described, start, stop),
		cmocka_unit_test_setup_teardown(callers_and_callees_are_known, start, stop),
		cmocka_unit_test_setup_teardown(versions_are_listed_newest_first, start, stop),
		cmocka_unit_test_setup_teardown(bytecode_is_printed_with_its_lines, start, stop),
		cmocka_unit_test_setup_teardown(bytecode_as_json_has_a_line_for_each_instruction, start, stop),
		cmocka_unit_test_setup_teardown(every_kind_of_instruction_has_its_notation, start, stop),
		cmocka_unit_test_setup_teardown(machine_code_is_printed_with_names, start, stop),
		cmocka_unit_test_setup_teardown(cells_are_called_by_their_methods_names, start, stop),
		cmocka_unit_test_setup_teardown(what_cannot_be_shown_has_a_sentence, start, stop),
		cmocka_unit_test_setup_teardown(libtier_tells_what_tierctl_shows, start, stop),
		cmocka_unit_test_setup_teardown(code_is_only_what_lies_in_the_code_segment, start, stop),
		cmocka_unit_test_setup_teardown(pages_of_a_large_method_come_whole, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
