/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/lane.h"
#include "util/base.h"

/* What nobody may do: have memory that is writable and executable, write code or records, reach another user's modules. */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#define SOMEBODY 12345		/* a user that owns nothing here */

/* -- Clients that are processes of their own: made before this one knows the daemon --- */
struct client {
	pid_t pid;
	int begin;
};

static void client_start(struct client *client, void (*fn)(const struct daemon *daemon))
{
	struct daemon daemon;
	int ends[2];

	pipe_open(ends);
	client->pid = fork();
	if (!client->pid) {
		child_begin();
		close(ends[1]);
		child_assert(read(ends[0], &daemon, sizeof(daemon)) == sizeof(daemon));
		fn(&daemon);
		_exit(0);
	}
	close(ends[0]);
	client->begin = ends[1];
}

static void client_run(struct client *client, const struct daemon *daemon)
{
	assert_int_equal(write(client->begin, daemon, sizeof(*daemon)), sizeof(*daemon));
	close(client->begin);
	child_end(client->pid);
}

static struct tier_conn *client_connect(const struct daemon *daemon)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket };
	struct tier_conn *conn;

	child_assert(!tier_connect(&conn, &opts));
	return conn;
}

/* Along its schedule, in a process where cmocka does not belong */
static void client_climb(struct tier_method *method)
{
	struct tier_climb steps = TIER_CLIMB(method);
	uint32_t n;
	int r;

	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &n)) > 0)
		while (n--)
			child_assert(tier_entry(method)(10, 0, 0, 0, 0) == 55);
	child_assert(!r && steps.answer.reason == TIER_REASON_PROMOTED);
	child_assert(tier_entry(method)(11, 0, 0, 0, 0) == 89);
}

/* -- Memory-Deny-Write-Execute --- */
static void climb_under_mdwe(const struct daemon *daemon)
{
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *conn;
	pid_t pid;
	int status;

	child_assert(!prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0));
	conn = client_connect(daemon);
	child_assert(tier_conn_uses_kernel(conn, NULL) == events_by_kernel());
	child_assert(!tier_load(conn, workload_object("fib"), "mdwe", 0, &module));
	child_assert(!tier_find(module, "fib", &method));
	client_climb(method);
	child_assert(!tier_find(module, "fib_of", &method));
	pid = fork();
	if (!pid) {		/* inherits the rule, maps a probe page of its own under it */
		client_climb(method);
		_exit(0);
	}
	child_assert(waitpid(pid, &status, 0) == pid && !status);
	tier_close(module);
	tier_disconnect(conn);
}

static bool kernel_knows_mdwe(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0);
	return child_reap(pid) == 0;
}

static void a_client_that_may_not_write_and_execute_climbs(void **state)
{
	struct daemon daemon;
	struct client client;

	if (!kernel_knows_mdwe())
		skip();
	client_start(&client, climb_under_mdwe);
	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	client_run(&client, &daemon);
	daemon_stop(&daemon);
}

/* -- Mappings --- */
struct sampler {
	const struct daemon *daemon;
	pthread_t thread;
	bool is_over;
	unsigned int n_rounds, n_descendants;
	char found[512];	/* the first mapping that must not be */
};

static void sample(pid_t pid, void *context)
{
	struct sampler *sampler = context;
	char path[64], line[400], protection[8];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "r");
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%*s %7s", protection) == 1 && strchr(protection, 'w') && strchr(protection, 'x')
		    && !*sampler->found)
			snprintf(sampler->found, sizeof(sampler->found), "process %d: %s", (int)pid, line);
	if (maps)
		fclose(maps);
}

static void sample_descendant(pid_t pid, void *context)
{
	struct sampler *sampler = context;

	sampler->n_descendants++;
	sample(pid, context);
}

static void *sample_until_it_is_over(void *argument)
{
	struct sampler *sampler = argument;

	while (!__atomic_load_n(&sampler->is_over, __ATOMIC_ACQUIRE)) {
		sample(getpid(), sampler);
		sample(sampler->daemon->pid, sampler);
		each_descendant(sampler->daemon->pid, sample_descendant, sampler);
		sampler->n_rounds++;
	}
	return NULL;
}

static void no_mapping_is_ever_writable_and_executable(void **state)
{
	struct sampler sampler = { 0 };
	struct daemon daemon;
	struct tier_conn *conn;

	if (geteuid())
		skip();		/* the daemon's and the workers' mappings are not for everybody */
	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	sampler.daemon = &daemon;
	assert_int_equal(pthread_create(&sampler.thread, NULL, sample_until_it_is_over, &sampler), 0);
	conn = daemon_connect(&daemon);
	for (size_t i = 0; i < n_workloads; i++) {
		struct workload_input *input = input_make(workloads[i].name);
		struct tier_module *module;
		struct tier_method *method;

		assert_done(tier_load(conn, workload_object(workloads[i].file), NULL, 0, &module));
		assert_done(tier_find(module, workloads[i].entry, &method));
		climb(method, input->args);
		input_free(input);
	}
	__atomic_store_n(&sampler.is_over, true, __ATOMIC_RELEASE);
	pthread_join(sampler.thread, NULL);
	assert_string_equal(sampler.found, "");
	assert_true(sampler.n_rounds >= 5);
	assert_true(sampler.n_descendants >= sampler.n_rounds * 3 / 2);	/* the zygote and, mostly, a worker */
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void expect_protection(uint64_t address, const char *expected)
{
	char line[512], protection[8];
	unsigned long begin, end;
	FILE *maps = fopen("/proc/self/maps", "r");

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s", &begin, &end, protection) == 3 && address >= begin && address < end) {
			assert_string_equal(protection, expected);
			fclose(maps);
			return;
		}
	fail_msg("nothing is mapped at %#lx", address);
}

static struct wire_module attach(struct lane *lane, const struct tier_module *module)
{
	struct wire_attach body = { .ref.module = tier_module_id(module) };
	struct wire_module reply = lane_ask(lane, WIRE_ATTACH, &body, WIRE_MODULE).as_MODULE;

	assert_int_equal(lane->n_fds, _TIER_SEGMENT_N);
	return reply;
}

static void a_client_has_its_segments_as_they_are_meant(void **state)
{
	static const char *const protections[] = {
		[TIER_SEGMENT_CODE] = "r-xs",
		[TIER_SEGMENT_RECORDS] = "r--s",
		[TIER_SEGMENT_COUNTERS] = "rw-s",
		[TIER_SEGMENT_PRIVATE] = "rw-p",
	};
	struct wire_module reply;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	struct lane lane;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	workload_load(conn, "counter", &module);
	lane_open(&lane, &daemon);
	reply = attach(&lane, module);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		expect_protection(tier_layout_segment(&reply.layout, i), protections[i]);
	for (int i = TIER_SEGMENT_CODE; i <= TIER_SEGMENT_RECORDS; i++) {
		void *at = (void *)(uintptr_t)tier_layout_segment(&reply.layout, i);

		assert_int_equal(mprotect(at, 4096, PROT_READ | PROT_WRITE), -1);
		assert_int_equal(errno, EACCES);
	}
	lane_close(&lane);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Descriptors --- */
static void expect_read_only(int fd)
{
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(write(fd, "", 1), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(errno, EACCES);
}

static void expect_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	assert_true(seals >= 0);
	assert_int_equal(seals & (F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK), F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK);
}

/* The descriptors reach another user, who tries to get more out of them. */
static void try_to_reopen(void *context)
{
	const struct lane *lane = context;
	char path[64];

	child_assert(!setgroups(0, NULL) && !setresgid(SOMEBODY, SOMEBODY, SOMEBODY) && !setresuid(SOMEBODY, SOMEBODY, SOMEBODY));
	child_assert(!prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));	/* its own /proc */
	for (size_t i = 0; i < lane->n_fds; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", lane->fds[i]);
		child_assert(access(path, F_OK) == 0);
		child_assert(open(path, O_RDWR) < 0 && errno == EACCES);
		child_assert(open(path, O_WRONLY) < 0 && errno == EACCES);
		child_assert(fchmod(lane->fds[i], 0666) < 0 && errno == EPERM);
	}
}

static void descriptors_of_code_records_and_data_are_read_only(void **state)
{
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	struct lane lane;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	workload_load(conn, "counter", &module);
	lane_open(&lane, &daemon);
	assert_int_equal(lane.n_fds, 1);		/* the probe page */
	expect_sealed(lane.fds[0]);
	expect_read_only(lane.fds[0]);
	attach(&lane, module);
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		expect_sealed(lane.fds[i]);
		if (i != TIER_SEGMENT_COUNTERS)
			expect_read_only(lane.fds[i]);
	}
	assert_int_equal(ftruncate(lane.fds[TIER_SEGMENT_COUNTERS], 0), -1);
	assert_int_equal(errno, EPERM);
	if (!geteuid())
		child_end(child_start(try_to_reopen, &lane));
	lane_close(&lane);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Other users --- */
static char *fib_object;
static size_t n_fib_object;

static void fib_object_read(void)
{
	int fd = open(workload_object("fib"), O_RDONLY | O_CLOEXEC);

	n_fib_object = lseek(fd, 0, SEEK_END);
	fib_object = malloc(n_fib_object);
	assert_int_equal(pread(fd, fib_object, n_fib_object, 0), n_fib_object);
	close(fd);
}

struct listing {
	unsigned int n;
	bool has_shared, has_other;
};

static int listing_row(const struct tier_module_row *row, void *context)
{
	struct listing *listing = context;

	listing->n++;
	if (!strcmp(row->name, "shared") && row->uid == 0 && row->shared)
		listing->has_shared = true;
	else
		listing->has_other = true;
	return 0;
}

static void be_somebody_else(const struct daemon *daemon)
{
	struct listing listing = { 0 };
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *conn;

	child_assert(!setgroups(0, NULL) && !setresgid(SOMEBODY, SOMEBODY, SOMEBODY) && !setresuid(SOMEBODY, SOMEBODY, SOMEBODY));
	conn = client_connect(daemon);

	child_assert(tier_open(conn, "private", &module) == -ENOENT);	/* not even that it exists */
	child_assert(tier_unload(conn, "private") == -ENOENT);
	child_assert(!tier_list(conn, listing_row, &listing));
	child_assert(listing.n == 1 && listing.has_shared && !listing.has_other);

	child_assert(tier_unload(conn, "shared") == -EACCES);
	child_assert(!tier_open(conn, "shared", &module));
	child_assert(!tier_find(module, "fib", &method));
	client_climb(method);
	tier_close(module);

	child_assert(!tier_load_bytes(conn, fib_object, n_fib_object, "private", 0, &module));	/* its own of that name */
	child_assert(!tier_find(module, "fib", &method));
	client_climb(method);
	child_assert(!tier_unload(conn, "private"));
	tier_close(module);
	tier_disconnect(conn);
}

static void another_user_reaches_shared_modules_only(void **state)
{
	struct tier_module *private, *shared;
	struct tier_method *method;
	struct daemon daemon;
	struct client client;
	struct tier_conn *conn;

	if (geteuid())
		skip();		/* nobody else to be */
	fib_object_read();
	client_start(&client, be_somebody_else);
	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	assert_done(tier_load_bytes(conn, fib_object, n_fib_object, "private", 0, &private));
	assert_done(tier_load_bytes(conn, fib_object, n_fib_object, "shared", TIER_LOAD_SHARED, &shared));
	client_run(&client, &daemon);
	assert_done(tier_find(shared, "fib", &method));
	assert_int_equal(tier_status(method).status, TIER_STATUS_FINAL);	/* its climb was everybody's */
	assert_done(tier_find(private, "fib", &method));
	assert_int_equal(tier_status(method).status, TIER_STATUS_COLD);
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	free(fib_object);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* Ids are small numbers that anybody can guess: with them nothing is reached either. */
static void guess_ids(const struct daemon *daemon)
{
	struct wire_error error;
	struct lane lane;

	child_assert(!setgroups(0, NULL) && !setresgid(SOMEBODY, SOMEBODY, SOMEBODY) && !setresuid(SOMEBODY, SOMEBODY, SOMEBODY));
	lane_open(&lane, daemon);
	for (uint64_t id = 1; id < 10; id++) {
		struct wire_method_ref method = { .module = id };
		struct wire_module_ref module = { .module = id };
		struct wire_attach attach_body = { .ref.module = id };
		struct wire_wait wait_body = { .module = id };
		struct wire_cursor cursor = { .module = id };
		struct wire_find find = { .module = id, .method = "fib" };
		const struct { enum wire_type type; const void *body; } requests[] = {
			{ WIRE_PREPARE, &method }, { WIRE_STATUS, &method }, { WIRE_REMAINING, &method }, { WIRE_UNLOAD, &module },
			{ WIRE_ATTACH, &attach_body }, { WIRE_WAIT, &wait_body }, { WIRE_METHODS, &cursor },
			{ WIRE_IMPORTS, &cursor }, { WIRE_FIND, &find },
		};

		for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
			error = lane_ask(&lane, requests[i].type, requests[i].body, WIRE_ERROR).as_ERROR;
			child_assert(error.error == TIER_ERROR_NO_MODULE);
			child_assert(!lane.n_fds);
		}
	}
	lane_close(&lane);
}

static void another_user_who_guesses_ids_reaches_nothing(void **state)
{
	struct tier_method *method;
	struct daemon daemon;
	struct client client;
	struct tier_conn *conn;

	if (geteuid())
		skip();
	client_start(&client, guess_ids);
	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", NULL);
	client_run(&client, &daemon);
	assert_int_equal(tier_status(method).status, TIER_STATUS_COLD);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Quotas --- */
#define MANY 20000		/* methods: two such modules are too many for one user */
static void *many_object;
static size_t n_many_object;

static void many_object_make(void)
{
	char *source = malloc(MANY * 64), *p = source, folder[] = "/tmp/tierd-test-XXXXXX", path[64];
	int fd;

	assert_non_null(mkdtemp(folder));
	for (int i = 0; i < MANY; i++)
		p += sprintf(p, "int f%d(int a) { return a + %d; }\n", i, i);
	fd = open(bpf_compile(folder, "many", source, "-O1"), O_RDONLY | O_CLOEXEC);
	n_many_object = lseek(fd, 0, SEEK_END);
	many_object = malloc(n_many_object);
	assert_int_equal(pread(fd, many_object, n_many_object, 0), n_many_object);
	close(fd);
	snprintf(path, sizeof(path), "%s/many.c", folder);
	unlink(path);
	snprintf(path, sizeof(path), "%s/many.o", folder);
	unlink(path);
	rmdir(folder);
	free(source);
}

static void load_many_as_somebody(const struct daemon *daemon)
{
	struct tier_module *module;
	struct tier_conn *conn;

	child_assert(!setgroups(0, NULL) && !setresgid(SOMEBODY, SOMEBODY, SOMEBODY) && !setresuid(SOMEBODY, SOMEBODY, SOMEBODY));
	conn = client_connect(daemon);
	child_assert(!tier_load_bytes(conn, many_object, n_many_object, "many", 0, &module));
	tier_disconnect(conn);
}

static void a_user_who_has_too_many_methods_keeps_nobody_else_from_loading(void **state)
{
	struct tier_module *module, *second;
	struct daemon daemon;
	struct client client;
	struct tier_conn *conn;

	if (geteuid())
		skip();		/* nobody else to be */
	many_object_make();
	client_start(&client, load_many_as_somebody);
	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	assert_done(tier_load_bytes(conn, many_object, n_many_object, "first", 0, &module));
	assert_int_equal(tier_load_bytes(conn, many_object, n_many_object, "second", 0, &second), -EDQUOT);
	assert_non_null(strstr(tier_error_text(), "more than 32768 methods"));
	client_run(&client, &daemon);
	assert_done(tier_unload(conn, "first"));
	tier_close(module);
	wait_until("the first module's methods", !tier_load_bytes(conn, many_object, n_many_object, "second", 0, &second));
	free(many_object);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_that_may_not_write_and_execute_climbs),
		cmocka_unit_test(no_mapping_is_ever_writable_and_executable),
		cmocka_unit_test(a_client_has_its_segments_as_they_are_meant),
		cmocka_unit_test(descriptors_of_code_records_and_data_are_read_only),
		cmocka_unit_test(another_user_reaches_shared_modules_only),
		cmocka_unit_test(a_user_who_has_too_many_methods_keeps_nobody_else_from_loading),
		cmocka_unit_test(another_user_who_guesses_ids_reaches_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
