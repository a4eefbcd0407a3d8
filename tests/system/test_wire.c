/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <tier/wire.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/offences.h"
#include "system/raw.h"
#include "system/solo.h"
#include "util/base.h"

/* Clients that speak the protocol badly
 *
 * Whatever arrives, the daemon answers with an error, or says what is wrong and hangs up where the format is broken; it
 * keeps no descriptor, believes nothing that no counter confirms, and everybody else climbs on. */

#define NOBODY 65534

/* -- A daemon, and somebody who climbs beside all this --- */
struct world {
	struct daemon daemon;
	int watch;		/* a well-behaved connection */
	pid_t climber;
	volatile uint32_t *board;	/* [0] over, [1] climbs */
	unsigned int n_fds;	/* that the daemon has open when nobody is connected but these */
};

static unsigned int count_fds(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder = opendir(path);
	assert_non_null(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static void climber(void *context)
{
	struct world *world = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = world->daemon.socket, .timeout_ns = TEST_DEADLINE_NS };
	struct workload_input *input = input_make("siphash");
	uint64_t expected = input_call(input, workload_find("siphash")->native);
	struct tier_conn *conn;

	child_assert(!tier_connect(&conn, &opts));
	while (!world->board[0] || !world->board[1]) {
		struct tier_module *module;
		struct tier_method *method;
		struct tier_climb steps;
		uint32_t n;
		int r;

		child_assert(!tier_load(conn, workload_object("siphash"), NULL, 0, &module));
		child_assert(!tier_find(module, "siphash", &method));
		steps = TIER_CLIMB(method);
		while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &n)) > 0)
			for (; n; n--)
				child_assert(input_call(input, tier_entry(method)) == expected);
		child_assert(!r && steps.answer.reason == TIER_REASON_PROMOTED);
		tier_close(module);
		child_assert(!tier_unload(conn, "siphash"));
		world->board[1]++;
	}
	tier_disconnect(conn);
}

static void world_open(struct world *world)
{
	world->board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(world->board != MAP_FAILED);
	/* workers that come and go have descriptors too */
	daemon_start(&world->daemon, ARGS("--call-counting-delay=0", "--background-worker-timeout=1h"));
	assert_int_equal(tierctl(&world->daemon, NULL, NULL, "load", workload_object("fnv1a"), NULL), 0);
	world->watch = raw_connect(&world->daemon);
	raw_hello(world->watch, NULL);
	wait_until("tierctl's session to end", raw_stats(world->watch).n_sessions == 1);
	world->n_fds = count_fds(world->daemon.pid);
	world->climber = child_start(climber, world);
}

static void world_close(struct world *world)
{
	world->board[0] = true;
	child_end(world->climber);
	wait_until("all other sessions to end", raw_stats(world->watch).n_sessions == 1);
	wait_until("the daemon to close all descriptors of others", count_fds(world->daemon.pid) == world->n_fds);
	close(world->watch);
	munmap((void *)world->board, 4096);
	daemon_stop(&world->daemon);
}

/* -- Broken messages --- */
/* A user whose descriptors are not closed yet is refused at the door; when they are is the daemon's own matter. */
static void wait_until_admitted(const struct daemon *daemon)
{
	const struct wire_hello hello = { .program = "raw" };
	struct message message;

	for (uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;; wait_until_pause("the user is admitted", deadline)) {
		int fd = raw_connect(daemon);

		raw_request(fd, WIRE_HELLO, 1, &hello, -1);
		assert_true(raw_receive(fd, &message, NULL));
		close(fd);
		if (message.header.type == WIRE_WELCOME)
			return;
	}
}

static void who_breaks_the_format_is_told_why_and_thrown_out(void **state)
{
	struct world world;

	world_open(&world);
	for (size_t i = 0; i < sizeof(offences) / sizeof(offences[0]); i++) {
		uint64_t before = raw_stats(world.watch).n_disconnected;
		int fd;

		wait_until_admitted(&world.daemon);
		fd = raw_connect(&world.daemon);
		if (!offences[i].before_hello)
			raw_hello(fd, NULL);
		offences[i].commit(fd);
		raw_check_thrown_out(fd, offences[i].what);
		close(fd);
		/* speaking another version is no offence, but ends the conversation all the same */
		if (raw_stats(world.watch).n_disconnected != before + (offences[i].commit != version_2))
			fail_msg("%s: n_disconnected is wrong", offences[i].what);
	}
	world_close(&world);
}

/* -- Well-formed nonsense --- */
static void check_refused(int fd, unsigned int type, const void *body, int passed, enum tier_error error)
{
	const struct wire_error *reply;
	struct message message;

	raw_request(fd, type, UINT64_MAX - 5, body, passed);
	assert_true(raw_receive(fd, &message, NULL));
	assert_int_equal(message.header.type, WIRE_ERROR);
	assert_int_equal(message.header.serial, UINT64_MAX - 5);
	reply = (const void *)message.body;
	if (reply->error != error)
		fail_msg("request %u: error %u (%s) instead of %u", type, reply->error, reply->text, error);
	assert_int_not_equal(reply->text[0], 0);
}

static void what_does_not_exist_is_refused_and_the_connection_goes_on(void **state)
{
	const struct wire_hello stranger = { .session = { 0x1234567890abcdefull, 42 } };
	struct world world;
	int fd;

	world_open(&world);
	fd = raw_connect(&world.daemon);
	check_refused(fd, WIRE_HELLO, &stranger, -1, TIER_ERROR_DENIED);
	raw_hello(fd, NULL);
	check_refused(fd, WIRE_PROBED, &(struct wire_probed){ .nonce = 1 }, -1, TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_ATTACH, &(struct wire_attach){ .ref = { .module = UINT64_MAX } }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_ATTACH, &(struct wire_attach){ .ref = { .name = "nowhere" } }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_ATTACH, &(struct wire_attach){ .flags = 0 }, -1, TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_DETACH, &(struct wire_module_ref){ .module = 1 }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_UNLOAD, &(struct wire_module_ref){ .module = 1ull << 63 }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_METHODS, &(struct wire_cursor){ .module = 99 }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_FIND, &(struct wire_find){ .module = 1, .method = "nothing" }, -1, TIER_ERROR_NO_METHOD);
	check_refused(fd, WIRE_PREPARE, &(struct wire_method_ref){ .module = 1, .method = UINT32_MAX }, -1, TIER_ERROR_NO_METHOD);
	check_refused(fd, WIRE_STATUS, &(struct wire_method_ref){ .module = 1, .method = 2 }, -1, TIER_ERROR_NO_METHOD);
	check_refused(fd, WIRE_WAIT, &(struct wire_wait){ .module = 99, .timeout_ns = UINT64_MAX }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_PENDING, &(struct wire_pending){ .module = 99 }, -1, TIER_ERROR_NO_MODULE);
	raw_stats(fd);
	close(fd);
	world_close(&world);
}

/* A memfd of @n bytes with @seals; a load of it is refused as @error. */
static void check_memfd_refused(int fd, size_t n, unsigned int seals, enum tier_error error)
{
	const struct wire_load load = { .name = "bad" };
	int memfd = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(memfd >= 0 && !ftruncate(memfd, n) && !fcntl(memfd, F_ADD_SEALS, seals));
	check_refused(fd, WIRE_LOAD, &load, memfd, error);
	close(memfd);
}

static void a_load_of_something_else_than_a_sealed_memfd_is_refused(void **state)
{
	const unsigned int all = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	const struct wire_load load = { .name = "bad" };
	struct world world;
	int fd, ends[2], folder, file, device;

	world_open(&world);
	fd = raw_connect(&world.daemon);
	raw_hello(fd, NULL);
	assert_int_equal(pipe(ends), 0);
	folder = open("/", O_RDONLY | O_DIRECTORY);
	file = open(workload_object("fnv1a"), O_RDONLY);
	device = open("/dev/zero", O_RDONLY);
	check_refused(fd, WIRE_LOAD, &load, ends[0], TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_LOAD, &load, folder, TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_LOAD, &load, file, TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_LOAD, &load, device, TIER_ERROR_ARGUMENT);
	check_refused(fd, WIRE_LOAD, &load, fd, TIER_ERROR_ARGUMENT);
	check_memfd_refused(fd, 4096, 0, TIER_ERROR_ARGUMENT);
	check_memfd_refused(fd, 4096, all & ~F_SEAL_WRITE, TIER_ERROR_ARGUMENT);
	check_memfd_refused(fd, 4096, all & ~F_SEAL_SHRINK, TIER_ERROR_ARGUMENT);
	check_memfd_refused(fd, 0, all, TIER_ERROR_BAD_MODULE);
	check_memfd_refused(fd, 1, all, TIER_ERROR_BAD_MODULE);
	check_memfd_refused(fd, 4096, all, TIER_ERROR_BAD_MODULE);
	check_memfd_refused(fd, 1ull << 40, all, TIER_ERROR_QUOTA);
	close(ends[0]), close(ends[1]), close(folder), close(file), close(device), close(fd);
	world_close(&world);
}

static void random_datagrams_harm_nobody(void **state)
{
	unsigned int seed = (unsigned int)test_now_ns(), n_clients = test_is_long() ? 20000 : 1000;
	struct world world;

	print_message("seed %u\n", seed);
	world_open(&world);
	for (unsigned int client = 0; client < n_clients; client++) {
		int fd = raw_connect(&world.daemon);

		if (rand_r(&seed) % 4)
			raw_hello(fd, NULL);
		for (int i = 0; i < 8; i++) {
			struct message message = message_make(1 + rand_r(&seed) % 21, rand_r(&seed), NULL);
			size_t n = message.header.size, n_max = rand_r(&seed) % 8 ? n : 600;
			unsigned char *bytes = (unsigned char *)&message;

			/* bodies are noise; headers have few faults, so that some get through */
			for (size_t at = sizeof(message.header); at < n_max; at++)
				bytes[at] = rand_r(&seed) % 4 ? 0 : rand_r(&seed);
			if (!(rand_r(&seed) % 4))
				bytes[rand_r(&seed) % sizeof(message.header)] = rand_r(&seed);
			if (!raw_send(fd, bytes, n_max, (int[]){ fd, STDERR_FILENO }, rand_r(&seed) % 8 ? 0 : 1 + rand_r(&seed) % 2))
				break;
		}
		close(fd);
		if (!(client % 100))
			raw_stats(world.watch);
	}
	world_close(&world);
}

/* -- Forged bells --- */
static void forge_bells(int fd, uint64_t module, uint32_t n_methods, uint64_t n_versions)
{
	for (uint32_t method = 0; method <= n_methods; method++)
		for (uint64_t version = 0; version <= n_versions; version++)
			raw_request(fd, WIRE_THRESHOLD, 0,
				    &(struct wire_bell){ .module = module, .method = method, .version = version }, -1);
}

static void bells_that_no_counter_confirms_change_nothing(void **state)
{
	struct tier_answer answer, before;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct wire_stats stats;
	struct daemon daemon;
	int fd;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, bpf_compile(daemon.folder, "solo", SOLO_SOURCE, ""), NULL, 0, &module));
	assert_done(tier_find(module, "solo", &method));
	fd = raw_connect(&daemon);
	raw_hello(fd, NULL);
	for (int i = 0; i < 10; i++) {		/* cold at first, then counting */
		before = tier_status(method);
		forge_bells(fd, tier_module_id(module), 1, 3);
		forge_bells(fd, UINT64_MAX, 0, 1);
		stats = raw_stats(fd);
		answer = tier_status(method);
		assert_int_equal(answer.stage, before.stage);
		assert_int_equal(answer.remaining, before.remaining);
		assert_int_equal(answer.generation, before.generation);
		assert_int_equal(tier_entry(method)(SOLO_N, 0, 0, 0, 0), solo(SOLO_N));
	}
	assert_true(stats.n_unconfirmed > 0);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_SOCKET], 0);
	climb(method, (uint64_t[5]){ SOLO_N });
	assert_int_equal(events_count(conn, module, method, TIER_EVENT_THRESHOLD), 1);
	close(fd);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* Whose connection it is, is decided when it is made. */
static int raw_connect_as(const struct daemon *daemon, uid_t uid)
{
	int fd;

	assert_int_equal(seteuid(uid), 0);
	fd = raw_connect(daemon);
	assert_int_equal(seteuid(0), 0);
	return fd;
}

/* Neither by id nor by name, nor by the session of its owner */
static void check_out_of_reach(const struct daemon *daemon, uint64_t module, const struct wire_welcome *owner)
{
	struct wire_hello hello = { .session = { owner->session[0], owner->session[1] } };
	int fd = raw_connect_as(daemon, NOBODY);

	check_refused(fd, WIRE_HELLO, &hello, -1, TIER_ERROR_DENIED);
	raw_hello(fd, NULL);
	check_refused(fd, WIRE_ATTACH, &(struct wire_attach){ .ref = { .module = module } }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_ATTACH, &(struct wire_attach){ .ref = { .name = "solo" } }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_STATUS, &(struct wire_method_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_WAIT, &(struct wire_wait){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_PREPARE, &(struct wire_method_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_UNLOAD, &(struct wire_module_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_FREEZE, &(struct wire_module_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_THAW, &(struct wire_module_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_MARK, &(struct wire_module_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	check_refused(fd, WIRE_SETTLED, &(struct wire_method_ref){ .module = module }, -1, TIER_ERROR_NO_MODULE);
	forge_bells(fd, module, 1, 3);
	raw_stats(fd);
	close(fd);
}

static void another_users_private_module_and_session_are_out_of_reach(void **state)
{
	struct tier_answer before;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct wire_welcome mine;
	struct daemon daemon;
	int fd;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, bpf_compile(daemon.folder, "solo", SOLO_SOURCE, ""), NULL, 0, &module));
	assert_done(tier_find(module, "solo", &method));
	tier_entry(method)(SOLO_N, 0, 0, 0, 0);
	before = tier_status(method);
	fd = raw_connect(&daemon);
	mine = raw_hello(fd, NULL);
	check_out_of_reach(&daemon, tier_module_id(module), &mine);
	assert_int_equal(tier_status(method).remaining, before.remaining);
	assert_int_equal(tier_status(method).generation, before.generation);
	climb(method, (uint64_t[5]){ SOLO_N });
	close(fd);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Forged kernel events --- */
typedef void (*probe_fn)(uint64_t a, uint64_t b, uint64_t c);

/* Mapped as libtier maps it: private, a free page on each side */
static uint8_t *map_probes(int page)
{
	uint8_t *guard = mmap(NULL, 3 * TIER_PROBE_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(guard != MAP_FAILED);
	assert_true(mmap(guard + TIER_PROBE_PAGE_SIZE, TIER_PROBE_PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED,
			 page, 0) != MAP_FAILED);
	return guard + TIER_PROBE_PAGE_SIZE;
}

static void probes_called_with_wrong_arguments_are_counted_and_change_nothing(void **state)
{
	struct tier_answer before;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct wire_stats stats;
	struct daemon daemon;
	int fd, page = -1;
	uint8_t *probes;
	uint64_t n = 0;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, bpf_compile(daemon.folder, "solo", SOLO_SOURCE, ""), NULL, 0, &module));
	assert_done(tier_find(module, "solo", &method));
	tier_entry(method)(SOLO_N, 0, 0, 0, 0);
	before = tier_status(method);
	fd = raw_connect(&daemon);
	raw_hello(fd, &page);
	assert_true(page >= 0);
	probes = map_probes(page);
	for (unsigned int site = 0; site < _TIER_PROBE_N; site++) {
		const probe_fn probe = (probe_fn)(uintptr_t)(probes + TIER_PROBE_OFFSET(site));

		for (uint64_t version = 0; version < 4; version++, n++)
			probe(tier_module_id(module), method_index(module, method), version);
		probe(UINT64_MAX, UINT64_MAX, UINT64_MAX);
		probe(0, 0, 0);
	}
	stats = raw_stats(fd);
	if (events_by_kernel())
		wait_until("the forged events", (stats = raw_stats(fd)).n_unconfirmed >= 2 * 6);
	assert_int_equal(stats.n_unconfirmed, events_by_kernel() ? 2 * 6 : 0);	/* thresholds and OSR requests */
	if (events_by_kernel())
		wait_until("the forged publications", (stats = raw_stats(fd)).n_kernel_refused == 6);
	assert_int_equal(stats.n_kernel_events[TIER_PROBE_PUBLISH], events_by_kernel() ? stats.n_published : 0);
	assert_int_equal(tier_status(method).remaining, before.remaining);
	assert_int_equal(tier_status(method).generation, before.generation);
	climb(method, (uint64_t[5]){ SOLO_N });
	assert_int_equal(events_count(conn, module, method, TIER_EVENT_THRESHOLD), 1);
	munmap(probes - TIER_PROBE_PAGE_SIZE, 3 * TIER_PROBE_PAGE_SIZE);
	close(page);
	close(fd);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Leaving in the middle --- */
static int sealed_copy(const char *path)
{
	int file = open(path, O_RDONLY), memfd = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char bytes[65536];
	ssize_t n = read(file, bytes, sizeof(bytes));

	assert_true(n > 0 && n < (ssize_t)sizeof(bytes) && write(memfd, bytes, n) == n);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	close(file);
	return memfd;
}

static uint32_t count_waits(struct world *world, uint64_t number)
{
	struct wire_sessions sessions;

	raw_ask(world->watch, WIRE_CLIENTS, &(struct wire_cursor){ .cursor = number - 1 }, WIRE_SESSIONS, &sessions);
	return sessions.n && sessions.rows[0].number == number ? sessions.rows[0].n_waits : 0;
}

static bool module_is_loaded(struct world *world, const char *name)
{
	struct wire_modules modules;

	raw_ask(world->watch, WIRE_LIST, &(struct wire_cursor){ 0 }, WIRE_MODULES, &modules);
	for (uint32_t i = 0; i < modules.n; i++)
		if (!strcmp(modules.rows[i].name, name))
			return true;
	return false;
}

/* Waits, an events request and a load are pending when their client goes. The workers stand, so that they stay pending. */
static void a_client_that_leaves_takes_its_waits_and_its_load_along(void **state)
{
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct wire_welcome welcome;
	struct world world;
	int fd, object;

	world_open(&world);
	world.board[0] = true;		/* whoever climbs here would stand too */
	child_end(world.climber);
	conn = daemon_connect(&world.daemon);
	assert_done(tier_load(conn, bpf_compile(world.daemon.folder, "solo", SOLO_SOURCE, ""), NULL, 0, &module));
	assert_done(tier_find(module, "solo", &method));
	workers_stop(&world.daemon);
	do
		tier_entry(method)(SOLO_N, 0, 0, 0, 0);
	while (tier_remaining(method));
	fd = raw_connect(&world.daemon);
	welcome = raw_hello(fd, NULL);
	object = sealed_copy(workload_object("crc32"));
	for (int i = 0; i < 100; i++)
		raw_request(fd, WIRE_WAIT, 100 + i,
			    &(struct wire_wait){ .module = tier_module_id(module), .method = method_index(module, method),
						 .timeout_ns = i % 2 ? UINT64_MAX : 3600000000000u }, -1);
	raw_request(fd, WIRE_EVENTS, 300, &(struct wire_events_from){ .timeout_ns = UINT64_MAX }, -1);
	raw_request(fd, WIRE_LOAD, 301, &(struct wire_load){ .name = "orphan" }, object);
	wait_until("the waits to be known", count_waits(&world, welcome.number) == 101);
	close(fd);
	wait_until("the session to end", raw_stats(world.watch).n_sessions == 2);
	workers_continue(&world.daemon);
	wait_until("the promotion", tier_status(method).stage == TIER_STAGE_FINAL);
	assert_int_equal(tier_status(method).reason, TIER_REASON_PROMOTED);
	assert_false(module_is_loaded(&world, "orphan"));	/* nobody waits for it, so it ended; its name is free */
	assert_done(tier_load(conn, workload_object("crc32"), "orphan", 0, NULL));
	assert_done(tier_unload(conn, "orphan"));
	assert_done(tier_unload(conn, "solo"));
	close(object);
	tier_close(module);
	tier_disconnect(conn);
	world.climber = child_start(climber, &world);
	world_close(&world);
}

/* While replies wait for it, none of its requests is read. */
static void a_client_that_never_reads_its_replies_holds_up_nobody(void **state)
{
	struct world world;
	uint32_t n_climbs;
	int fd;

	world_open(&world);
	fd = raw_connect(&world.daemon);
	raw_hello(fd, NULL);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 100000; i++) {
		struct message message = message_make(WIRE_STATS, i, NULL);

		if (!raw_send(fd, &message, message.header.size, NULL, 0))
			break;
	}
	assert_int_equal(errno, EAGAIN);
	n_climbs = world.board[1];
	wait_until("another client's climb", world.board[1] > n_climbs);
	close(fd);
	world_close(&world);
}

/* -- Descriptors whose close takes as long as their owner likes --- */
/* A TCP socket with more to send than its peer takes: who closes it last waits for half a minute. */
static int lingering_socket(int *ret_peer)
{
	static const char bytes[1 << 16];
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, (struct sockaddr *)&address, n), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &n), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, n), 0);
	*ret_peer = accept(listener, NULL, NULL);
	assert_true(*ret_peer >= 0);
	close(listener);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 30 }, sizeof(struct linger)), 0);
	return fd;
}

static void *close_in_thread(void *fd)
{
	close((int)(intptr_t)fd);
	return NULL;
}

/* Where the daemon has hung up before it got the socket, the last close is this process's own: it must not wait either. */
static void close_aside(int fd)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, close_in_thread, (void *)(intptr_t)fd), 0);
	pthread_detach(thread);
}

/* Sends @n_ahead broken datagrams, then one with the socket, of which @n_fds copies come along; the last ones outside. */
static int send_lingering(const struct daemon *daemon, int n_ahead, unsigned int n_fds)
{
	int fd = raw_connect(daemon), peer, passed = lingering_socket(&peer), fds[8];

	for (int i = 0; i < n_ahead; i++)
		assert_true(raw_send(fd, "x", 1, NULL, 0));
	for (unsigned int i = 0; i < n_fds; i++)
		fds[i] = passed;
	(void)raw_send(fd, "hello", 5, fds, n_fds);	/* may be hung up on already */
	close_aside(passed);
	close(fd);
	return peer;
}

/* Received and refused; more than a message may carry; never read because the connection broke before. */
static void a_descriptor_that_cannot_be_closed_holds_up_nobody(void **state)
{
	static const struct { int n_ahead; unsigned int n_fds; } cases[] = { { 0, 1 }, { 0, 8 }, { 1, 1 }, { 0, 1 } };
	int peers[ARRAY_SIZE(cases)], fd;
	struct daemon daemon;

	daemon_start(&daemon, NULL);
	fd = raw_connect(&daemon);
	raw_hello(fd, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t begin = test_now_ns();

		peers[i] = send_lingering(&daemon, cases[i].n_ahead, cases[i].n_fds);
		for (int n = 0; n < 20; n++)
			raw_stats(fd);
		assert_true(test_now_ns() - begin < TEST_DEADLINE_NS / 4);
	}
	close(fd);
	daemon_stop(&daemon);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		close(peers[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_breaks_the_format_is_told_why_and_thrown_out),
		cmocka_unit_test(what_does_not_exist_is_refused_and_the_connection_goes_on),
		cmocka_unit_test(a_load_of_something_else_than_a_sealed_memfd_is_refused),
		cmocka_unit_test(random_datagrams_harm_nobody),
		cmocka_unit_test(bells_that_no_counter_confirms_change_nothing),
		cmocka_unit_test(another_users_private_module_and_session_are_out_of_reach),
		cmocka_unit_test(probes_called_with_wrong_arguments_are_counted_and_change_nothing),
		cmocka_unit_test(a_client_that_leaves_takes_its_waits_and_its_load_along),
		cmocka_unit_test(a_client_that_never_reads_its_replies_holds_up_nobody),
		cmocka_unit_test(a_descriptor_that_cannot_be_closed_holds_up_nobody),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
