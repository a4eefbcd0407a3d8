/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "conformance/datafile.h"
#include "tiers/program.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

/* Every file of the folder, by tier 0, by tier 1 and by the reference interpreter. A file that fails says so by its name;
 * the others run all the same. What does not return runs in a child. */

#define FOLDER "tests/conformance"
#define NEVER_US 50000		/* of the processor's time: what runs longer than that never ends */

static struct tiers *tiers;
static bool inlines;		/* at tier 1 */
static bool enters;		/* tier 0 goes on in optimized code at the first loop */
static char current[512];	/* for the signal handler */

static void on_fault(int number)
{
	static const char text[] = ": crashed\n";

	if (write(STDERR_FILENO, current, strlen(current)) < 0 || write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	signal(number, SIG_DFL);
	raise(number);
}

static uint64_t first_argument(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return a; }

/* -- One file --- */
static const char *call(enum tiers_kind kind, const uint64_t args[5], uint64_t *ret)
{
	return kind == TIERS_REFERENCE ? tiers_interpret(tiers, 0, args, ret) : tiers_call(tiers, 0, args, ret);
}

static void run_in_child(enum tiers_kind kind, const uint64_t args[5])
{
	const struct itimerval timer = { .it_value.tv_usec = NEVER_US };
	const struct rlimit no_core = { 0 };
	uint64_t result;

	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGSEGV, SIG_DFL);
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
	tiers->n_steps = UINT64_MAX;
	call(kind, args, &result);
	_exit(0);
}

/* The reference is C, and what it does at address 0 is up to its compiler. */
static bool check_end(enum tiers_kind kind, const struct datafile *file, const uint64_t args[5], struct refusal *why)
{
	int status;
	pid_t pid;

	if (kind == TIERS_REFERENCE && file->signal == SIGSEGV)
		return true;
	pid = fork();
	if (!pid)
		run_in_child(kind, args);
	if (waitpid(pid, &status, 0) != pid)
		refuse(why, "no child");
	else if (!WIFSIGNALED(status))
		refuse(why, "it returned");
	else if (WTERMSIG(status) != file->signal)
		refuse(why, "it ended by signal %d, not %d", WTERMSIG(status), file->signal);
	else
		return true;
	return false;
}

static bool check_run(enum tiers_kind kind, const struct datafile *file, struct refusal *why)
{
	uint8_t mem[8192] __attribute__((aligned(64)));
	const uint64_t args[5] = { (uintptr_t)mem, file->n_mem };
	const char *fault;
	uint64_t result = 0;

	assert_true(file->n_mem <= sizeof(mem));
	if (file->n_mem)
		memcpy(mem, file->mem, file->n_mem);
	if (kind != TIERS_REFERENCE && !tiers_compile_all(tiers, kind, inlines, why))
		return false;
	for (uint32_t i = 0; enters && i < tiers->image.n_methods; i++)
		if (!tiers_compile_patchpoints(tiers, i, inlines, why))
			return false;
	if (file->signal)
		return check_end(kind, file, args, why);
	fault = call(kind, args, &result);
	if (fault)
		refuse(why, "%s", fault);
	else if (result != file->result)
		refuse(why, "r0 is 0x%" PRIx64 ", not 0x%" PRIx64, result, file->result);
	else if (file->mem_after && memcmp(mem, file->mem_after, file->n_mem))
		refuse(why, "the memory differs");
	else
		return true;
	return false;
}

static bool load(const struct datafile *file, void **ret_plain, void **ret_bound, struct refusal *refusal)
{
	const reference_function imports[] = { first_argument };
	struct image plain, bound;
	size_t n;

	return program_to_image(file->insns, file->n_insns, ret_plain, &n, refusal)
	    && image_check(*ret_plain, n, &plain, refusal)
	    && program_bind_helper(&plain, 5, ret_bound, &bound, refusal) && tiers_load(tiers, &bound, imports, refusal);
}

static bool check_file(enum tiers_kind kind, const struct datafile *file, struct refusal *why)
{
	_cleanup_(freep) void *plain = NULL;
	_cleanup_(freep) void *bound = NULL;
	struct refusal refusal = { "" };

	if (load(file, &plain, &bound, &refusal)) {
		if (!file->refused)
			return check_run(kind, file, why);
		refuse(why, "was not refused");
		return false;
	}
	if (file->refused && strstr(refusal.text, file->refused))
		return true;
	refuse(why, "refused: %.300s", refusal.text);
	return false;
}

static bool check_path(enum tiers_kind kind, const char *path)
{
	struct datafile file = DATAFILE_NULL;
	struct refusal why = { "" };
	bool ok;

	snprintf(current, sizeof(current), "%s", path);
	ok = datafile_read(&file, path, &why) && check_file(kind, &file, &why);
	if (!ok)
		print_error("%s: %s\n", path, why.text);
	datafile_deinit(&file);
	return ok;
}

/* -- All of them --- */
static int is_data(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && !strcmp(dot, ".data");
}

static void check_folder(enum tiers_kind kind)
{
	struct dirent **entries;
	const int n = scandir(FOLDER, &entries, is_data, alphasort);
	int n_failed = 0;

	assert_true(n >= 250);
	for (int i = 0; i < n; i++) {
		char path[512];

		snprintf(path, sizeof(path), FOLDER "/%s", entries[i]->d_name);
		n_failed += !check_path(kind, path);
		free(entries[i]);
	}
	free(entries);
	print_message("%d files at tier %s\n", n, tiers_names[kind]);
	if (n_failed)
		fail_msg("%d of %d files failed", n_failed, n);
}

static void every_file_passes_at_tier_0(void **state) { check_folder(TIERS_0); }
static void every_file_passes_at_tier_1(void **state) { check_folder(TIERS_1); }
static void every_file_passes_in_the_reference(void **state) { check_folder(TIERS_REFERENCE); }

static void every_file_passes_at_tier_1_with_callees_inlined(void **state)
{
	inlines = true;
	check_folder(TIERS_1);
	inlines = false;
}

static void every_file_passes_at_both_tiers_while_they_count(void **state)
{
	tiers->counts = true;
	check_folder(TIERS_0);
	check_folder(TIERS_1);
	tiers->counts = false;
}

static void every_file_passes_with_patchpoints_that_lead_nowhere(void **state)
{
	tiers->patchpoints = tiers->counts = true;
	check_folder(TIERS_0);
	tiers->patchpoints = tiers->counts = false;
	assert_true(tiers->n_hits);
}

static void every_file_passes_when_its_loops_are_left_at_once(void **state)
{
	tiers->patchpoints = enters = true;
	check_folder(TIERS_0);
	tiers->patchpoints = enters = false;
}

static int setup(void **state)
{
	signal(SIGSEGV, on_fault);
	signal(SIGILL, on_fault);
	signal(SIGFPE, on_fault);
	signal(SIGALRM, on_fault);
	alarm(200);
	tiers = tiers_new();
	return tiers ? codegen_init() : -1;
}

static int teardown(void **state)
{
	tiers = tiers_free(tiers);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_file_passes_in_the_reference),
		cmocka_unit_test(every_file_passes_at_tier_0),
		cmocka_unit_test(every_file_passes_at_tier_1),
		cmocka_unit_test(every_file_passes_at_tier_1_with_callees_inlined),
		cmocka_unit_test(every_file_passes_at_both_tiers_while_they_count),
		cmocka_unit_test(every_file_passes_with_patchpoints_that_lead_nowhere),
		cmocka_unit_test(every_file_passes_when_its_loops_are_left_at_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
