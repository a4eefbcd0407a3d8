/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/results.h"
#include "util/base.h"

/* Precompiled code: `tierctl compile` puts it into an object, and a module that is loaded from that starts there. What does
 * not fit is left out with a warning, and the module runs all the same. */

static const char source[] =
	"typedef unsigned long long u64;\n"
	"#define noinline __attribute__((noinline))\n"
	"noinline u64 near(u64 x) { return x + 5; }\n"
	"noinline u64 area(u64 x) { u64 sum = 0; for (u64 i = 0; i < x; i++) sum = (sum ^ near(i)) + (sum << 1); return sum; }\n"
	"noinline u64 plain(u64 x) { return x * 3; }\n"
	"__attribute__((btf_decl_tag(\"tier:pinned\"))) noinline u64 pinned(u64 x) { return x * 7; }\n"
	"__attribute__((btf_decl_tag(\"tier:no_optimization\"))) noinline u64 slow(u64 x) { return x - 1; }\n";
static const char near_source[] =
	"typedef unsigned long long u64;\n"
	"u64 near(u64 x) { return x + 100; }\n";

static uint64_t area(uint64_t x, uint64_t more)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < x; i++)
		sum = (sum ^ (i + more)) + (sum << 1);
	return sum;
}

struct fixture {
	struct daemon daemon;
	struct tier_conn *conn;
	char object[128];	/* with code inside */
};

static void begin(struct fixture *f, const char *const *args)
{
	daemon_start(&f->daemon, args);
	f->conn = daemon_connect(&f->daemon);
	snprintf(f->object, sizeof(f->object), "%s/area.tier.o", f->daemon.folder);
	assert_int_equal(tierctl(&f->daemon, NULL, NULL, "compile", bpf_compile(f->daemon.folder, "area", source, "-g"), NULL), 0);
	assert_int_equal(access(f->object, R_OK), 0);
}

static void end(struct fixture *f)
{
	tier_disconnect(f->conn);
	daemon_stop(&f->daemon);
}

static struct tier_module *load(struct fixture *f, const char *path)
{
	struct tier_module *module;

	assert_done(tier_load(f->conn, path, NULL, 0, &module));
	return module;
}

static struct tier_method *method_of(struct tier_module *module, const char *name)
{
	struct tier_method *method;

	assert_done(tier_find(module, name, &method));
	return method;
}

/* Climbs, and says which tiers were published on the way. */
#define TIERS_MAX 8
static unsigned int tiers_of_climb(struct fixture *f, struct tier_module *module, const char *name, enum tier_level *tiers)
{
	const uint64_t args[5] = { 10 };
	struct tier_method *method = method_of(module, name);
	struct tier_event events[64];
	unsigned int n = 0;
	size_t n_events;

	climb(method, args);
	n_events = events_read(f->conn, tier_module_id(module), method_index(module, method), events, ARRAY_SIZE(events));
	for (size_t i = 0; i < n_events; i++)
		if (events[i].kind == TIER_EVENT_PUBLISHED) {
			assert_true(n < TIERS_MAX);
			tiers[n++] = events[i].to;
		}
	return n;
}

static void precompiled_code_is_the_first_and_climbs_to_tier1(void **state)
{
	enum tier_level tiers[TIERS_MAX];
	struct tier_module *module;
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=0", "--tiered-pgo=off"));
	module = load(&f, f.object);
	assert_string_equal(tier_module_name(module), "area");
	assert_int_equal(tiers_of_climb(&f, module, "area", tiers), 2);
	assert_int_equal(tiers[0], TIER_LEVEL_READY_TO_RUN);
	assert_int_equal(tiers[1], TIER_LEVEL_TIER1);
	assert_int_equal(tier_entry(method_of(module, "area"))(10, 0, 0, 0, 0), area(10, 5));
	end(&f);
}

static void with_profiles_it_is_instrumented_in_between(void **state)
{
	enum tier_level tiers[TIERS_MAX];
	struct tier_module *module;
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=0", "--tiered-pgo=on"));
	module = load(&f, f.object);
	assert_int_equal(tiers_of_climb(&f, module, "area", tiers), 3);
	assert_int_equal(tiers[0], TIER_LEVEL_READY_TO_RUN);
	assert_int_equal(tiers[1], TIER_LEVEL_TIER1_INSTRUMENTED);
	assert_int_equal(tiers[2], TIER_LEVEL_TIER1);
	assert_int_equal(tier_entry(method_of(module, "area"))(10, 0, 0, 0, 0), area(10, 5));
	end(&f);
}

static void a_pinned_method_is_final_after_one_call(void **state)
{
	struct tier_climb steps;
	struct tier_module *module;
	struct tier_method *pinned;
	struct fixture f;
	uint32_t calls;

	begin(&f, ARGS("--call-counting-delay=0"));
	module = load(&f, f.object);
	pinned = method_of(module, "pinned");
	steps = TIER_CLIMB(pinned);
	assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 1);
	assert_int_equal(calls, 1);
	assert_int_equal(tier_entry(pinned)(6, 0, 0, 0, 0), 42);
	assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 0);
	assert_int_equal(steps.answer.status, TIER_STATUS_FINAL);
	assert_int_equal(steps.answer.tier, TIER_LEVEL_READY_TO_RUN);
	assert_int_equal(steps.answer.reason, TIER_REASON_PINNED);
	end(&f);
}

static void what_must_not_be_optimized_has_no_code_inside(void **state)
{
	struct tier_module *module;
	struct tier_method *slow;
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=0"));
	module = load(&f, f.object);
	slow = method_of(module, "slow");
	assert_int_equal(tier_entry(slow)(6, 0, 0, 0, 0), 5);
	assert_int_equal(tier_status(slow).tier, TIER_LEVEL_MIN_OPT_JITTED);
	end(&f);
}

/* A rejit of what it inlined takes effect in precompiled code as everywhere. */
static void code_that_inlined_a_replaced_method_is_given_up(void **state)
{
	struct tier_module *module;
	struct tier_method *method, *pinned;
	struct fixture f;
	const char *body;

	begin(&f, ARGS("--call-counting-delay=1h"));
	module = load(&f, f.object);
	method = method_of(module, "area");
	pinned = method_of(module, "pinned");
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), area(10, 5));
	assert_int_equal(tier_entry(pinned)(1, 0, 0, 0, 0), 7);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_READY_TO_RUN);
	body = bpf_compile(f.daemon.folder, "near", near_source, "-g");
	assert_done(tier_rejit(method_of(module, "near"), body, NULL, 0));
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), area(10, 100));
	assert_int_equal(tier_status(pinned).tier, TIER_LEVEL_READY_TO_RUN);
	end(&f);
}

/* Replaced before the first call: the code is never used. */
static void code_that_inlined_a_method_replaced_before_is_not_begun_with(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=1h"));
	module = load(&f, f.object);
	method = method_of(module, "area");
	assert_done(tier_rejit(method_of(module, "near"), bpf_compile(f.daemon.folder, "near", near_source, "-g"), NULL, 0));
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), area(10, 100));
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER0);
	end(&f);
}

/* -- What does not fit --- */
/* Where the section's bytes begin: at its format's word */
static off_t section_of(const char *path, size_t *ret_n)
{
	static const char word[] = "TIERPRE1";
	static char bytes[1 << 20];
	int fd = open(path, O_RDONLY);
	char *found;

	*ret_n = read(fd, bytes, sizeof(bytes));
	close(fd);
	found = memmem(bytes, *ret_n, word, sizeof(word) - 1);
	assert_non_null(found);
	return found - bytes;
}

static void write_at(const char *path, off_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, n, at), n);
	close(fd);
}

/* Written behind the hash, which is put right again */
static void forge(const char *path, size_t at, const void *bytes, size_t n)
{
	enum { HASH_AT = 8, CONTENT_AT = 16 };
	static uint8_t section[1 << 20];
	uint64_t hash = 0xcbf29ce484222325ull;
	size_t n_file, n_section;
	off_t begin_ = section_of(path, &n_file);
	int fd = open(path, O_RDWR);

	/* sections' headers follow it; its size stands in the last of them */
	assert_int_equal(pread(fd, &n_section, sizeof(n_section), n_file - 64 + 32), sizeof(n_section));
	assert_int_equal(pread(fd, section, n_section, begin_), n_section);
	memcpy(section + at, bytes, n);
	for (size_t i = CONTENT_AT; i < n_section; i++)
		hash = (hash ^ section[i]) * 0x100000001b3ull;
	memcpy(section + HASH_AT, &hash, sizeof(hash));
	assert_int_equal(pwrite(fd, section, n_section, begin_), n_section);
	close(fd);
}

static void is_ignored(struct fixture *f, const char *word)
{
	struct tier_module *module = load(f, f->object);
	struct tier_method *method = method_of(module, "area");
	char out[RUN_TEXT_MAX];

	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), area(10, 5));
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER0);
	assert_int_equal(tierctl(&f->daemon, out, NULL, "show", "area:area", NULL), 0);
	if (!strstr(out, "its precompiled code is not used") || !strstr(out, word))
		fail_msg("'%s' does not say '%s'", out, word);
	tier_close(module);
	assert_done(tier_unload(f->conn, "area"));
}

static void log_has(const struct daemon *daemon, const char *word)
{
	static char text[1 << 16];
	FILE *file = fopen(daemon->log, "re");
	size_t n;

	assert_non_null(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	if (!strstr(text, word))
		fail_msg("the log does not say '%s'", word);
}

static void what_is_damaged_or_of_others_is_ignored_with_a_warning(void **state)
{
	enum { CPU_AT = 24 + 32, FEATURES_AT = 24 + 64, VERSION_AT = 24, BUILD_AT = 24 + 72, CONTENT_AT = 16 };
	char err[RUN_TEXT_MAX];
	struct fixture f;
	size_t n;

	begin(&f, ARGS("--call-counting-delay=1h"));
	forge(f.object, CPU_AT, "abacus\0", 8);
	is_ignored(&f, "'abacus'");
	assert_int_equal(tierctl(&f.daemon, NULL, err, "load", f.object, NULL), 0);
	assert_non_null(strstr(err, "its precompiled code is not used"));
	assert_done(tier_unload(f.conn, "area"));
	log_has(&f.daemon, "its precompiled code is not used: it was made for the processor 'abacus");
	assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", f.object, "-o", f.object, NULL), 0);	/* made anew */
	assert_int_equal(tier_status(method_of(load(&f, f.object), "area")).status, TIER_STATUS_COLD);
	assert_done(tier_unload(f.conn, "area"));
	forge(f.object, FEATURES_AT, "?", 1);
	is_ignored(&f, "other features");
	assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", f.object, "-o", f.object, NULL), 0);
	forge(f.object, VERSION_AT, "9.9.9\0", 6);
	is_ignored(&f, "tierd 9.9.9");
	assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", f.object, "-o", f.object, NULL), 0);
	forge(f.object, BUILD_AT, "?", 1);
	is_ignored(&f, "another build");
	assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", f.object, "-o", f.object, NULL), 0);
	forge(f.object, CONTENT_AT, "?", 1);
	is_ignored(&f, "other bytecode");
	assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", f.object, "-o", f.object, NULL), 0);
	write_at(f.object, section_of(f.object, &n) + 200, "?", 1);
	is_ignored(&f, "damaged");
	end(&f);
}

static void it_is_ignored_when_it_is_turned_off(void **state)
{
	struct tier_module *module;
	struct fixture f;
	char out[RUN_TEXT_MAX];

	begin(&f, ARGS("--ready-to-run=off", "--call-counting-delay=1h"));
	module = load(&f, f.object);
	assert_int_equal(tier_entry(method_of(module, "area"))(10, 0, 0, 0, 0), area(10, 5));
	assert_int_equal(tier_status(method_of(module, "area")).tier, TIER_LEVEL_TIER0);
	assert_int_equal(tierctl(&f.daemon, out, NULL, "show", "area:area", NULL), 0);
	assert_null(strstr(out, "not used"));
	end(&f);
}

/* -- All workloads --- */
static void workloads_give_their_results_from_the_first_call_on(void **state)
{
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=1h"));
	for (size_t i = 0; i < n_workloads; i++) {
		struct tier_module *module;
		struct tier_method *method;
		char path[128];

		snprintf(path, sizeof(path), "%s/w%zu.tier.o", f.daemon.folder, i);
		assert_int_equal(tierctl(&f.daemon, NULL, NULL, "compile", workload_object(workloads[i].file), "-o", path, NULL), 0);
		module = load(&f, path);
		method = method_of(module, workloads[i].entry);
		assert_true(results_check_vectors(&workloads[i], method) > 0);
		results_check_native(&workloads[i], method);
		assert_int_equal(tier_status(method).tier, TIER_LEVEL_READY_TO_RUN);
	}
	end(&f);
}

/* -- The verb --- */
static void compile_says_what_is_wrong_and_leaves_nothing(void **state)
{
	struct fixture f;
	char path[160], err[RUN_TEXT_MAX];
	FILE *file;

	begin(&f, NULL);
	snprintf(path, sizeof(path), "%s/text.o", f.daemon.folder);
	file = fopen(path, "we");
	fputs("this is a text and no object, however long it may be, so it will be refused", file);
	fclose(file);
	assert_int_equal(tierctl(&f.daemon, NULL, err, "compile", path, NULL), 2);
	assert_non_null(strstr(err, "not an ELF object"));
	snprintf(path, sizeof(path), "%s/text.tier.o", f.daemon.folder);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(tierctl(&f.daemon, NULL, err, "compile", "/nonexistent.o", NULL), 2);
	assert_non_null(strstr(err, "/nonexistent.o"));
	assert_int_equal(tierctl(&f.daemon, NULL, err, "compile", f.object, "-o", "/nonexistent/x.o", NULL), 2);
	assert_non_null(strstr(err, "/nonexistent/x.o"));
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(precompiled_code_is_the_first_and_climbs_to_tier1),
		cmocka_unit_test(with_profiles_it_is_instrumented_in_between),
		cmocka_unit_test(a_pinned_method_is_final_after_one_call),
		cmocka_unit_test(what_must_not_be_optimized_has_no_code_inside),
		cmocka_unit_test(code_that_inlined_a_replaced_method_is_given_up),
		cmocka_unit_test(code_that_inlined_a_method_replaced_before_is_not_begun_with),
		cmocka_unit_test(what_is_damaged_or_of_others_is_ignored_with_a_warning),
		cmocka_unit_test(it_is_ignored_when_it_is_turned_off),
		cmocka_unit_test(workloads_give_their_results_from_the_first_call_on),
		cmocka_unit_test(compile_says_what_is_wrong_and_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
