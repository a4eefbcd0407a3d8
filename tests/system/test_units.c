/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "util/base.h"

/* The units: systemd understands them, and what they leave to the daemon is enough. The second is tried without
 * systemd: a process takes from itself what the unit would take away, as the unit's own text says it, and runs a whole
 * ladder. */

#define UNIT "systemd/tierd.service" /* tests run from the root of the tree */
#define USER_UNIT "systemd/user/tierd.service"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static bool have(const char *program)
{
	char command[128];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	return !system(command);
}

/* -- What systemd says of them --- */
static void verify(const char *folder, const char *mode)
{
	char command[8192], build[4096];

	assert_non_null(realpath(build_folder(), build));
	/* ExecStart must be there, as it would be once installed */
	snprintf(command, sizeof(command),
		 "set -e; t=$(mktemp -d \"${TMPDIR:-/tmp}/units-XXXXXX\"); trap 'rm -rf $t' EXIT; export "
		 "XDG_RUNTIME_DIR=$t\n"
		 "for unit in tierd.service tierd.socket; do sed \"s|/usr/local/sbin/|%s/|\" %s/$unit > $t/$unit; done\n"
		 "said=$(systemd-analyze verify %s --man=no $t/tierd.service $t/tierd.socket 2>&1) || { echo \"$said\"; "
		 "exit 1; }\n"
		 "[ -z \"$said\" ] || { echo \"$said\"; exit 1; }",
		 build, folder, mode);
	assert_int_equal(system(command), 0);
}

static void systemd_has_nothing_to_say_about_them(void **state)
{
	if (!have("systemd-analyze"))
		skip();
	verify("systemd", "");
	verify("systemd/user", "--user");
}

/* -- What they take away --- */
static bool unit_line(const char *unit, const char *name, char *value, size_t n)
{
	FILE *file = fopen(unit, "r");
	char line[1024];
	bool found = false;

	assert_non_null(file);
	while (!found && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == '=') {
			snprintf(value, n, "%.*s", (int)strcspn(line + strlen(name) + 1, "\n"), line + strlen(name) + 1);
			found = true;
		}
	fclose(file);
	return found;
}

static void keep_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {
		{ .effective = (uint32_t)kept, .permitted = (uint32_t)kept },
		{ .effective = kept >> 32, .permitted = kept >> 32 },
	};

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!(kept >> cap & 1))
			child_assert(!prctl(PR_CAPBSET_DROP, cap));
	child_assert(!syscall(SYS_capset, &header, sets));
}

static void take_capabilities(const char *unit)
{
	static const struct {
		const char *name;
		int number;
	} known[] = { { "CAP_BPF", CAP_BPF }, { "CAP_PERFMON", CAP_PERFMON }, { "CAP_SYS_ADMIN", CAP_SYS_ADMIN } };
	char value[1024];
	uint64_t kept = 0;

	if (geteuid() || !unit_line(unit, "CapabilityBoundingSet", value, sizeof(value)))
		return;
	for (char *word = strtok(value, " "); word; word = strtok(NULL, " ")) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(known[i].name, word))
			i++;
		child_assert(i < ARRAY_SIZE(known));
		kept |= UINT64_C(1) << known[i].number;
	}
	keep_capabilities(kept);
}

/* Adds a call, or a set of systemd's with all that is in it. */
static void allow(scmp_filter_ctx filter, const char *name)
{
	char command[128], line[256];
	FILE *members;
	int number;

	if (*name != '@') {
		number = seccomp_syscall_resolve_name(name);
		if (number >= 0)
			seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
		return;
	}
	snprintf(command, sizeof(command), "systemd-analyze syscall-filter %s", name);
	members = popen(command, "r");
	child_assert(members);
	while (fgets(line, sizeof(line), members))
		if (*line == ' ' && line[strspn(line, " ")] != '#') {
			line[strcspn(line, "\n")] = '\0';
			allow(filter, line + strspn(line, " "));
		}
	child_assert(!pclose(members));
}

static void take_calls(const char *unit)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	char value[1024];

	child_assert(filter && unit_line(unit, "SystemCallFilter", value, sizeof(value)));
	for (char *save, *word = strtok_r(value, " ", &save); word; word = strtok_r(NULL, " ", &save))
		allow(filter, word);
	child_assert(!seccomp_load(filter));
	seccomp_release(filter);
}

static void take_executable_memory(const char *unit)
{
	char value[64];

	child_assert(unit_line(unit, "MemoryDenyWriteExecute", value, sizeof(value)) && !strcmp(value, "yes"));
	(void)!prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); /* an older kernel does not know it */
}

/* PrivateNetwork and ProtectKernelTunables */
static void take_network_and_tunables(void)
{
	if (geteuid() || unshare(CLONE_NEWNET | CLONE_NEWNS))
		return;
	child_assert(!mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	child_assert(!mount("/sys", "/sys", NULL, MS_BIND | MS_REC, NULL));
	child_assert(!mount(NULL, "/sys", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	child_assert(!mount("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL));
	child_assert(!mount(NULL, "/proc/sys", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
}

/* A life that needs everything: objects, workers, probes, the optimizer, a journal and a cache on disk */
static void live(const char *const *args)
{
	struct tier_module *module;
	struct tier_method *method;
	struct wire_stats stats;
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, args);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", &module);
	climb(method, (uint64_t[5]){ 10 });
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.kernel, events_by_kernel());
	assert_true(events_count(conn, module, method, TIER_EVENT_FINAL) == 1);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

struct confined {
	const char *unit;
	bool is_private;
};

static void live_confined(void *context)
{
	const struct confined *confined = context;
	char journal[160], cache[160], folder[128];

	snprintf(folder, sizeof(folder), "%.32s/tierd-test-XXXXXX", temporary_folder());
	child_assert(mkdtemp(folder));
	snprintf(journal, sizeof(journal), "--journal=%s/journal", folder);
	snprintf(cache, sizeof(cache), "--code-cache=%s/cache", folder);
	if (confined->is_private)
		take_network_and_tunables();
	take_capabilities(confined->unit);
	child_assert(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	take_executable_memory(confined->unit);
	take_calls(confined->unit);
	live(ARGS(journal, cache));
	snprintf(cache, sizeof(cache), "rm -rf %s", folder);
	child_assert(!system(cache));
}

static void the_systems_unit_leaves_the_daemon_what_it_needs(void **state)
{
	if (!have("systemd-analyze") || geteuid())
		skip();
	child_end(child_start(live_confined, &(struct confined){ UNIT, true }));
}

static void a_users_unit_leaves_the_daemon_what_it_needs(void **state)
{
	if (!have("systemd-analyze"))
		skip();
	child_end(child_start(live_confined, &(struct confined){ USER_UNIT, false }));
}

/* -- Refusing --- */
/* Runs what the unit has to be done after a daemon that ended so; false: it could not, where nothing but the shell's
 * own words is to be found. */
static bool stop_post(const char *unit, const char *code, const char *status, bool has_programs)
{
	char value[1024], command[1200];
	size_t n;

	assert_true(unit_line(unit, "ExecStopPost", value, sizeof(value)));
	assert_int_equal(*value, '-'); /* it is no failure of the service's */
	n = snprintf(command, sizeof(command), "EXIT_CODE=%s EXIT_STATUS=%s %s ", code, status,
		     has_programs ? "" : "PATH=/nowhere");
	for (const char *at = value + 1; *at; at++)
		if (at[0] != '$' || at[1] != '$') /* systemd's way to write one */
			command[n++] = *at;
	command[n] = '\0';
	return !system(command);
}

/* Where the start limit is reached, systemd drops the store, with all that another program could still take over. */
static void a_daemon_that_refuses_never_reaches_the_start_limit(void **state)
{
	static const char *const units[] = { UNIT, USER_UNIT };
	char interval[64], burst[64];
	uint64_t begin;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		assert_true(unit_line(units[i], "StartLimitIntervalSec", interval, sizeof(interval)));
		assert_true(unit_line(units[i], "StartLimitBurst", burst, sizeof(burst)));
		begin = test_now_ns();
		assert_true(stop_post(units[i], "exited", "2", true));
		assert_true(test_now_ns() - begin > 1000000000ull * atoi(interval) / atoi(burst));
		assert_false(stop_post(units[i], "exited", "3", false));
		/* who dies has its successor at once */
		assert_true(stop_post(units[i], "killed", "9", false));
		assert_true(stop_post(units[i], "exited", "0", false));
	}
}

/* -- Installing --- */
static void every_option_in_them_is_the_daemons(void **state)
{
	static const char *const units[] = { UNIT, USER_UNIT };
	char line[1024], command[4400];

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		assert_true(unit_line(units[i], "ExecStart", line, sizeof(line)));
		assert_int_equal(strncmp(line, "/usr/local/sbin/tierd ", 22), 0); /* which make install replaces */
		snprintf(command, sizeof(command), "%s/tierd %s --help >/dev/null", build_folder(), line + 22);
		assert_int_equal(system(command), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(systemd_has_nothing_to_say_about_them),
		cmocka_unit_test(the_systems_unit_leaves_the_daemon_what_it_needs),
		cmocka_unit_test(a_users_unit_leaves_the_daemon_what_it_needs),
		cmocka_unit_test(a_daemon_that_refuses_never_reaches_the_start_limit),
		cmocka_unit_test(every_option_in_them_is_the_daemons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
