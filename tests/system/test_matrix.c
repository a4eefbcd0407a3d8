/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/both.h"
#include "system/harness.h"
#include "system/results.h"
#include "util/base.h"

/* Whole programs, however they were compiled
 *
 * Each workload is built by each compiler at each level for each version of the instruction set, and must give the native
 * results at tier 0, on a daemon whose methods stay there, and at the final tier, on one whose methods climb. The short run
 * takes one compiler and version for each program, in turn, at all levels; the long one takes all. */

#define SOURCES "tests/workloads"	/* tests run from the root of the tree */

/* clang 14 knows no v4. */
struct target {
	const char *compiler, *version;
};
static const struct target targets[] = {
	{ "clang", "v1" }, { "clang", "v2" }, { "clang", "v3" },
	{ "clang-19", "v1" }, { "clang-19", "v2" }, { "clang-19", "v3" }, { "clang-19", "v4" },
};
static const char *const levels[] = { "-O0", "-O1", "-O2", "-Os" };

struct fixture {
	struct both both;
	bool has_compiler[ARRAY_SIZE(targets)];
	unsigned int n_built;
};

static void object_path(char path[256], const struct fixture *f, const char *file, const char *level)
{
	snprintf(path, 256, "%s/%s%s.o", f->both.staying.folder, file, level);
}

/* At all levels, two compilers at a time */
static void build(const struct fixture *f, const struct workload *workload, const struct target *target)
{
	char command[4096], path[256];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		object_path(path, f, workload->file, levels[i]);
		n += snprintf(command + n, sizeof(command) - n, "%s -target bpf %s -mcpu=%s -c %s/%s.bpf.c -o %s & ", target->compiler,
			      levels[i], target->version, SOURCES, workload->file, path);
		if (i % 2)
			n += snprintf(command + n, sizeof(command) - n, "wait; ");
		unlink(path);
	}
	if (system(command))
		fail_msg("failed: %s", command);
}

static struct tier_method *load(struct tier_conn *conn, const struct workload *workload, const char *path,
				struct tier_module **ret_module)
{
	struct tier_method *method;

	assert_done(tier_load(conn, path, "program", 0, ret_module));
	assert_done(tier_unload(conn, "program"));	/* the name only: it lives as long as it is open */
	assert_done(tier_find(*ret_module, workload->entry, &method));
	if (!strcmp(workload->name, "imports"))
		assert_done(tier_bind(*ret_module, "host_mix", (void *)host_mix));
	return method;
}

static void check_results(const struct workload *workload, const struct tier_method *method)
{
	results_check_vectors(workload, method);
	results_check_native(workload, method);
}

static void check_at_tier0(struct fixture *f, const struct workload *workload, const char *path)
{
	struct tier_module *module;
	struct tier_method *method = load(f->both.at_tier0, workload, path, &module);

	check_results(workload, method);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER0);
	tier_close(module);
}

static void check_on_the_way(struct fixture *f, const struct workload *workload, const char *path)
{
	struct workload_input *input = input_make(workload->name);
	struct tier_module *module;
	struct tier_method *method = load(f->both.on_the_way, workload, path, &module);

	both_climb(module, method, input);
	check_results(workload, method);
	tier_close(module);
	input_free(input);
}

static void check_program(struct fixture *f, const struct workload *workload, const struct target *target)
{
	char path[256];

	build(f, workload, target);
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		object_path(path, f, workload->file, levels[i]);
		if (test_is_long())
			print_message("%s: %s %s -mcpu=%s\n", workload->name, target->compiler, levels[i], target->version);
		if (access(path, R_OK))
			fail_msg("%s: %s does not build it with %s -mcpu=%s", workload->name, target->compiler, levels[i], target->version);
		check_at_tier0(f, workload, path);
		check_on_the_way(f, workload, path);
		f->n_built++;
	}
}

static void check_programs(struct fixture *f, const struct workload *programs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned int n_targets = 0;

		for (size_t k = 0; k < ARRAY_SIZE(targets) && (test_is_long() || !n_targets); k++) {
			size_t target = (i + k) % ARRAY_SIZE(targets);

			if (!f->has_compiler[target])
				continue;
			check_program(f, &programs[i], &targets[target]);
			n_targets++;
		}
		assert_true(n_targets > 0);
	}
}

static void every_program_gives_the_native_results_however_it_was_compiled(void **state)
{
	struct fixture f = { 0 };

	if (!events_by_kernel())
		skip();	/* how events travel makes no difference to code */
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		char command[64];

		snprintf(command, sizeof(command), "command -v %s >/dev/null", targets[i].compiler);
		f.has_compiler[i] = !system(command);
		if (!f.has_compiler[i])
			print_message("no %s here: without -mcpu=%s of it\n", targets[i].compiler, targets[i].version);
	}
	both_start(&f.both);
	check_programs(&f, workloads, n_workloads);
	check_programs(&f, workload_find("imports"), 1);
	print_message("%u objects\n", f.n_built);
	both_stop(&f.both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_program_gives_the_native_results_however_it_was_compiled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
