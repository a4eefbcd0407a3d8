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
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <tier/wire.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"

/* Bad input through tierctl
 *
 * Each kind gets its own sentence, which names what is wrong and where, and exit status 2; the daemon serves the next
 * request, and no worker dies of it. Bytecode that no compiler emits is assembled here. */

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
};

static void world_open(struct world *world, const char *const *args)
{
	daemon_start(&world->daemon, args);
	world->conn = daemon_connect(&world->daemon);
}

static void world_close(struct world *world)
{
	struct wire_stats stats;

	assert_done(tier_stats(world->conn, &stats));
	assert_int_equal(stats.n_workers_died, 0);
	assert_int_equal(stats.n_disconnected, 0);
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

/* The last run of tierctl failed with exit status 2, one line, and all of @words in it. */
static void check_sentence(const struct world *world, const char *what, int status, const char *const *words)
{
	size_t n = strlen(world->err);

	if (status != 2 || strncmp(world->err, "tierctl: ", 9) || strchr(world->err, '\n') != world->err + n - 1)
		fail_msg("%s: exit status %d, '%s'", what, status, world->err);
	for (; *words; words++)
		if (!strstr(world->err, *words))
			fail_msg("%s: '%s' is not in '%s'", what, *words, world->err);
}

#define CHECK_DONE(world, ...)                                                                                         \
	do {                                                                                                           \
		if (tierctl(&(world)->daemon, (world)->out, (world)->err, __VA_ARGS__, NULL))                          \
			fail_msg("%s: '%s'", #__VA_ARGS__, (world)->err);                                              \
	} while (0)

static void check_serves(struct world *world)
{
	CHECK_DONE(world, "load", workload_object("crc32"));
	CHECK_DONE(world, "unload", "crc32");
}

#define CHECK_REFUSED(world, words, ...)                                                                               \
	do {                                                                                                           \
		int status_ = tierctl(&(world)->daemon, (world)->out, (world)->err, __VA_ARGS__, NULL);                \
		check_sentence(world, #__VA_ARGS__, status_, words);                                                   \
	} while (0)

/* -- Files --- */
static const char *file_make(const struct world *world, const char *name, const void *bytes, size_t n)
{
	static char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", world->daemon.folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
	return path;
}

static void files_that_are_no_modules_are_refused_by_name(void **state)
{
	static const unsigned char noise[300] = "\177ELG this is no ELF file";
	struct world world;
	char command[512];
	const char *path;

	world_open(&world, NULL);
	path = file_make(&world, "empty.o", "", 0);
	CHECK_REFUSED(&world, ARGS(path, "empty"), "load", path);
	path = file_make(&world, "noise.o", noise, sizeof(noise));
	CHECK_REFUSED(&world, ARGS(path, "not an ELF"), "load", path);
	path = file_make(&world, "stub.o", "\177ELF\2\1\1", 7);
	CHECK_REFUSED(&world, ARGS(path, "7 bytes"), "load", path);
	CHECK_REFUSED(&world, ARGS("/nowhere/x.o", strerror(ENOENT)), "load", "/nowhere/x.o");
	CHECK_REFUSED(&world, ARGS("/tmp", strerror(EISDIR)), "load", "/tmp");
	path = file_make(&world, "host.c", "int f(void) { return 1; }", 25);
	snprintf(command, sizeof(command), "clang -c %s -o %s/host.o && clang -shared -fPIC %s -o %s/host.so", path,
		 world.daemon.folder, path, world.daemon.folder);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s/host.o", world.daemon.folder);
	CHECK_REFUSED(&world, ARGS(command, "machine 62", "-target bpf"), "load", command);
	snprintf(command, sizeof(command), "%s/host.so", world.daemon.folder);
	CHECK_REFUSED(&world, ARGS(command, "machine 62"), "load", command);
	path = bpf_compile(world.daemon.folder, "nothing", "int only_data = 1;", "");
	CHECK_REFUSED(&world, ARGS(path, "function"), "load", path);
	check_serves(&world);
	world_close(&world);
}

/* -- Bytecode --- */
struct bad_code {
	const char *name;
	const char *body;	/* assembly of method "bad" */
	const char *words[4];
};

#define LDDW "r1 = 0x1122334455667788 ll\n"
#define BYTES(b) ".byte " b "\n"

static const struct bad_code bad_codes[] = {
	{ "unknown_opcode", BYTES("0xfb,0,0,0,0,0,0,0") "exit", { "'bad'", "offset 0x0", "unknown opcode", "0xfb" } },
	{ "unknown_opcode_behind", "r0 = 1\n" BYTES("0xff,0,0,0,0,0,0,0") "exit", { "'bad'", "offset 0x8", "unknown opcode" } },
	{ "jump_beyond_the_end", "r0 = 1\ngoto +100\nexit", { "'bad'", "offset 0x8", "outside the method" } },
	{ "jump_to_the_end", "r0 = 1\nif r0 == 0 goto +1\nexit", { "'bad'", "offset 0x8", "outside the method" } },
	{ "jump_before_the_beginning", "r0 = 1\nif r0 == 0 goto -3\nexit", { "'bad'", "offset 0x8", "outside the method" } },
	{ "jump_into_lddw", "r0 = 1\ngoto +1\n" LDDW "exit", { "'bad'", "offset 0x8", "second half", "16-byte" } },
	{ "half_a_lddw", "r0 = 1\n" BYTES("0x18,1,0,0,0,0,0,0"), { "offset 0x8", "16-byte" } },
	{ "no_end", "r0 = 1\nr0 += 1", { "'bad'", "offset 0x8", "runs off the end" } },
	{ "conditional_end", "r0 = 1\nif r0 == 1 goto -1", { "'bad'", "runs off the end" } },
	{ "frame_pointer_move", "r10 = 1\nexit", { "'bad'", "offset 0x0", "r10", "read-only" } },
	{ "frame_pointer_add", "r10 += 8\nexit", { "'bad'", "r10", "read-only" } },
	{ "frame_pointer_load", "r10 = *(u64 *)(r1 + 0)\nexit", { "'bad'", "r10", "read-only" } },
	{ "no_such_register", BYTES("0xbf,0x0c,0,0,0,0,0,0") "exit", { "'bad'", "no register r12" } },
	{ "below_the_frame", "*(u64 *)(r10 - 520) = r1\nr0 = 0\nexit", { "'bad'", "outside the frame", "512" } },
	{ "above_the_frame", "r0 = *(u64 *)(r10 + 0)\nexit", { "'bad'", "outside the frame" } },
	{ "helper_call", "call 6\nexit", { "'bad'", "helper 6", "import" } },
	{ "packet_absolute", "r6 = r1\nr0 = *(u8 *)skb[4]\nexit", { "'bad'", "legacy packet access" } },
	{ "packet_indirect", "r6 = r1\nr0 = *(u8 *)skb[r2]\nexit", { "'bad'", "legacy packet access" } },
	{ "map_by_number", BYTES("0x18,0x11,0,0,3,0,0,0,0,0,0,0,0,0,0,0") "r0 = 0\nexit", { "offset 0x0", "map" } },
	{ "map_by_name",
	  "r1 = things ll\nr0 = 0\nexit\n.section .maps,\"aw\",@progbits\n.globl things\n.type things,@object\n.p2align 3\n"
	  "things: .quad 0\n.size things, 8\n.text\n", { "things", "map" } },
	{ "call_by_number", BYTES("0x85,0x20,0,0,7,0,0,0") "exit", { "function 7 by number", "import" } },
	{ "bits_that_mean_nothing", BYTES("0x95,0,0,0,1,0,0,0"), { "'bad'", "offset 0x0", "immediate", "not 0" } },
	{ "odd_swap", BYTES("0xdc,0,0,0,24,0,0,0") "exit", { "'bad'", "24 bits" } },
	{ "atomic_byte", BYTES("0xd3,0x21,0,0,0,0,0,0") "exit", { "'bad'", "opcode 0xd3" } },
	{ "unknown_atomic", BYTES("0xdb,0x21,0,0,0x77,0,0,0") "exit", { "'bad'", "unknown atomic operation 0x77" } },
};

static const char *assemble(const struct world *world, const char *name, const char *body)
{
	char text[2048];

	snprintf(text, sizeof(text),
		 "\t.section code,\"ax\",@progbits\n\t.globl bad\n\t.type bad,@function\nbad:\n%s\n\t.section code\n"
		 ".Lend:\n\t.size bad, .Lend-bad\n", body);
	return bpf_compile(world->daemon.folder, name, text, "-x assembler");
}

static void bytecode_that_cannot_run_is_refused_with_section_offset_and_reason(void **state)
{
	struct world world;

	world_open(&world, NULL);
	for (size_t i = 0; i < sizeof(bad_codes) / sizeof(bad_codes[0]); i++) {
		const struct bad_code *code = &bad_codes[i];
		const char *words[] = { code->words[0], code->words[1], code->words[2], code->words[3], NULL };
		const char *path = assemble(&world, code->name, code->body);

		check_sentence(&world, code->name, tierctl(&world.daemon, world.out, world.err, "load", path, NULL), words);
		check_sentence(&world, code->name, 2, ARGS(path, "section 'code'", "offset 0x"));
		check_serves(&world);
	}
	world_close(&world);
}

/* -- Damaged files --- */
struct object {
	unsigned char *bytes;
	size_t n;
};

static struct object object_read(const char *path)
{
	struct object object = { 0 };
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0 && !fstat(fd, &st));
	object.n = st.st_size;
	object.bytes = malloc(object.n);
	assert_true(object.bytes && read(fd, object.bytes, object.n) == (ssize_t)object.n);
	close(fd);
	return object;
}

/* Loads damaged bytes: a module all the same, or refused as no module, with a sentence. True when it was loaded. */
static bool check_damaged(struct world *world, const struct object *object, size_t n)
{
	int r = tier_load_bytes(world->conn, object->bytes, n, "damaged", 0, NULL);

	if (!r) {
		assert_done(tier_unload(world->conn, "damaged"));
		return true;
	}
	if (r != -ENOEXEC || !*tier_error_text())
		fail_msg("%zu bytes: %d: %s", n, r, tier_error_text());
	return false;
}

static void truncated_objects_are_refused_at_every_length(void **state)
{
	static const char *const names[] = { "fib", "dispatch" };
	struct world world;

	world_open(&world, NULL);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct object object = object_read(workload_object(names[i]));
		size_t step = test_is_long() ? 1 : object.n / 200;
		const char *path;

		for (size_t n = 1; n < object.n; n += step)
			assert_false(check_damaged(&world, &object, n));	/* the section headers come last */
		path = file_make(&world, "half.o", object.bytes, object.n / 2);
		CHECK_REFUSED(&world, ARGS(path, "section header"), "load", path);
		assert_true(check_damaged(&world, &object, object.n));
		free(object.bytes);
	}
	check_serves(&world);
	world_close(&world);
}

static void corrupted_objects_are_loaded_or_refused_and_nothing_else(void **state)
{
	unsigned int seed = (unsigned int)test_now_ns(), n_each = test_is_long() ? 3000 : 60, n_refused = 0;
	struct world world;

	print_message("seed %u\n", seed);
	world_open(&world, NULL);
	for (size_t i = 0; i < n_workloads; i++) {
		struct object object = object_read(workload_object(workloads[i].file));

		for (unsigned int round = 0; round < n_each; round++) {
			unsigned int n_flips = 1 + rand_r(&seed) % 4;
			size_t at[4];
			unsigned char was[4];

			for (unsigned int flip = 0; flip < n_flips; flip++) {
				/* every second one in the headers and tables, which are few bytes of many */
				at[flip] = rand_r(&seed) % 2 ? rand_r(&seed) % object.n
					 : rand_r(&seed) % 2 ? (unsigned int)rand_r(&seed) % 64
							     : object.n - 1 - rand_r(&seed) % (object.n / 3);
				was[flip] = object.bytes[at[flip]];
				object.bytes[at[flip]] = rand_r(&seed) % 2 ? rand_r(&seed) : was[flip] ^ 1 << rand_r(&seed) % 8;
			}
			n_refused += !check_damaged(&world, &object, object.n);
			while (n_flips--)
				object.bytes[at[n_flips]] = was[n_flips];
		}
		free(object.bytes);
	}
	assert_true(n_refused > 0);
	check_serves(&world);
	world_close(&world);
}

/* -- Names --- */
static void names_that_are_taken_wrong_or_unknown_are_refused(void **state)
{
	char endless[80];
	struct world world;
	const char *fib;

	world_open(&world, NULL);
	fib = workload_object("fib");
	memset(endless, 'a', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	CHECK_DONE(&world, "load", fib);
	CHECK_REFUSED(&world, ARGS("'fib'", "already loaded"), "load", fib);
	CHECK_REFUSED(&world, ARGS("'a b'", "name"), "load", fib, "--name", "a b");
	CHECK_REFUSED(&world, ARGS("'../x'", "name"), "load", fib, "--name", "../x");
	CHECK_REFUSED(&world, ARGS("'a:b'", "name"), "load", fib, "--name", "a:b");
	CHECK_REFUSED(&world, ARGS("name"), "load", fib, "--name", "");
	CHECK_REFUSED(&world, ARGS(endless, "name"), "load", fib, "--name", endless);
	CHECK_REFUSED(&world, ARGS("'nowhere'"), "unload", "nowhere");
	CHECK_REFUSED(&world, ARGS("'nowhere'"), "status", "nowhere:fib");
	CHECK_REFUSED(&world, ARGS("fib", "nothing"), "status", "fib:nothing");
	CHECK_REFUSED(&world, ARGS("fib", "nothing"), "call", "fib:nothing");
	CHECK_REFUSED(&world, ARGS("fib", "nothing"), "drive", "fib:nothing");
	CHECK_REFUSED(&world, ARGS("'fib'", "MODULE:METHOD"), "wait", "fib");
	CHECK_REFUSED(&world, ARGS("':fib'", "MODULE:METHOD"), "remaining", ":fib");
	CHECK_REFUSED(&world, ARGS("'fib:'", "MODULE:METHOD"), "remaining", "fib:");
	CHECK_REFUSED(&world, ARGS("'nowhere'"), "pending", "--module", "nowhere");
	CHECK_REFUSED(&world, ARGS("'ten'", "integer"), "call", "fib:fib", "ten");
	CHECK_REFUSED(&world, ARGS("/nowhere", strerror(ENOENT)), "call", "fib:fib", "@/nowhere");
	CHECK_REFUSED(&world, ARGS("at most 5"), "call", "fib:fib", "1", "2", "3", "4", "5", "6");
	check_serves(&world);
	world_close(&world);
}

/* -- Imports --- */
static void a_missing_import_is_named_before_anything_runs(void **state)
{
	struct world world;

	world_open(&world, NULL);
	CHECK_DONE(&world, "load", workload_object("imports"));
	CHECK_REFUSED(&world, ARGS("imports:imports", "'host_mix'", "--library"), "call", "imports:imports", "1", "2");
	CHECK_REFUSED(&world, ARGS("imports:imports", "'host_mix'"), "drive", "imports:imports", "1", "2");
	CHECK_REFUSED(&world, ARGS("/nowhere.so"), "call", "imports:imports", "1", "2", "--library", "/nowhere.so");
	CHECK_DONE(&world, "status", "imports:imports");
	assert_non_null(strstr(world.out, "cold"));
	check_serves(&world);
	world_close(&world);
}

static struct {
	jmp_buf env;
	char module[64], method[256], text[512];
} failed;

static void on_failure(const char *module, const char *method, const char *text)
{
	snprintf(failed.module, sizeof(failed.module), "%s", module);
	snprintf(failed.method, sizeof(failed.method), "%s", method);
	snprintf(failed.text, sizeof(failed.text), "%s", text);
	siglongjmp(failed.env, 1);
}

/* False, with @failed filled, when the call cannot be served. */
static bool call_or_fail(const struct tier_method *method, uint64_t a, uint64_t b)
{
	bool ok = !sigsetjmp(failed.env, 1);

	tier_set_failure_handler(on_failure);
	if (ok)
		tier_entry(method)(a, b, 0, 0, 0);
	tier_set_failure_handler(NULL);
	return ok;
}

static void a_call_of_an_unbound_import_goes_to_the_failure_handler(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct world world;

	world_open(&world, NULL);
	method = workload_load(world.conn, "imports", &module);
	assert_false(call_or_fail(method, 1, 2));
	assert_string_equal(failed.module, "imports");
	assert_non_null(strstr(failed.method, "host_mix"));
	assert_int_not_equal(failed.text[0], 0);
	assert_done(tier_bind(module, "host_mix", (void *)host_mix));
	assert_true(call_or_fail(method, 1, 2));
	tier_close(module);
	world_close(&world);
}

/* -- Addresses --- */
#define WINDOW 0x300000000000ull
#define WINDOW_TEXT "0x300000000000"

static void a_span_in_use_is_an_error_and_nothing_is_left_mapped(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct world world;
	void *taken;

	world_open(&world, ARGS("--window", WINDOW_TEXT));
	CHECK_DONE(&world, "load", workload_object("fib"));
	for (int i = 0; i < 3; i++) {
		char *at = (char *)WINDOW + i * 4096;

		taken = mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		assert_ptr_equal(taken, at);
		assert_int_equal(tier_open(world.conn, "fib", &module), -EADDRINUSE);
		assert_non_null(strstr(tier_error_text(), "'fib'"));
		assert_non_null(strstr(tier_error_text(), WINDOW_TEXT));
		assert_int_equal(munmap(taken, 4096), 0);
	}
	assert_done(tier_open(world.conn, "fib", &module));
	assert_done(tier_find(module, "fib", &method));
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	tier_close(module);
	world_close(&world);
}

/* With the old memory layout and no randomization libraries lie from a third of the address space on. */
#define LIBRARIES_TEXT "0x2aaaaaa00000"

static void tierctl_tells_that_a_span_is_in_use(void **state)
{
	int before = personality(0xffffffff), status;
	struct world world;

	world_open(&world, ARGS("--window", LIBRARIES_TEXT, "--code-size=8M"));
	assert_true(personality(ADDR_NO_RANDOMIZE | ADDR_COMPAT_LAYOUT) >= 0);
	status = tierctl(&world.daemon, world.out, world.err, "load", workload_object("fib"), NULL);
	personality(before);
	check_sentence(&world, "load", status, ARGS("fib", LIBRARIES_TEXT));
	CHECK_DONE(&world, "load", workload_object("fib"));	/* the name is free: a load is opened, or it was none */
	CHECK_DONE(&world, "call", "fib:fib", "10");
	world_close(&world);
}

/* -- Code segments --- */
static void a_cold_call_without_room_for_code_fails_in_a_sentence(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct world world;

	world_open(&world, ARGS("--code-size=1", "--call-counting-delay=0"));
	method = workload_load(world.conn, "sha256", &module);
	CHECK_REFUSED(&world, ARGS("sha256:", "code segment is full"), "call", "sha256:sha256", "0", "0", "0");
	assert_false(call_or_fail(method, 0, 0));
	assert_string_equal(failed.module, "sha256");
	assert_non_null(strstr(failed.text, "code segment is full"));
	assert_done(tier_find(module, failed.method, &method));		/* a callee, too large for what its caller left */
	assert_int_equal(tier_status(method).stage, TIER_STAGE_COLD);
	tier_close(module);
	check_serves(&world);
	world_close(&world);
}

/* One method whose optimized code is large, and many small ones to fill what tier 0 of it left of the segment */
static const char *crowded_object(const struct world *world, int n_small)
{
	char *source = malloc(200000);
	const char *path;
	int n = 0;

	n += sprintf(source + n, "typedef unsigned long u64;\nu64 large(u64 a, u64 b) {\n");
	for (int i = 1; i <= 60; i++)
		n += sprintf(source + n, "if (a %% %d == b) { a ^= b * %du; b += a << %d; }\n", i + 1, i * 7919, i % 31);
	n += sprintf(source + n, "return a + b; }\n");
	for (int i = 0; i < n_small; i++)
		n += sprintf(source + n, "u64 small%d(u64 a) { return a * %d + 1; }\n", i, i + 3);
	path = bpf_compile(world->daemon.folder, "crowded", source, "");
	free(source);
	return path;
}

static void a_promotion_without_room_for_code_is_final_where_it_is(void **state)
{
	struct tier_module *module;
	struct tier_method *large, *small;
	struct tier_answer answer;
	struct world world;
	uint64_t expected;
	char name[16];
	int n = 0;

	world_open(&world, ARGS("--code-size=96K", "--call-counting-delay=0"));
	assert_done(tier_load(world.conn, crowded_object(&world, 1000), NULL, 0, &module));
	assert_done(tier_find(module, "large", &large));
	expected = tier_entry(large)(123456789, 7, 0, 0, 0);
	do {
		assert_true(n < 1000);
		snprintf(name, sizeof(name), "small%d", n++);
		assert_done(tier_find(module, name, &small));
	} while (call_or_fail(small, 5, 0));
	assert_non_null(strstr(failed.text, "code segment is full"));
	assert_int_equal(tier_status(small).stage, TIER_STAGE_COLD);
	while (tier_remaining(large))
		assert_int_equal(tier_entry(large)(123456789, 7, 0, 0, 0), expected);
	assert_done(tier_wait(large, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.stage, TIER_STAGE_FINAL);
	assert_int_equal(answer.tier, TIER_LEVEL_TIER0);
	assert_int_equal(answer.reason, TIER_REASON_ARENA_FULL);
	assert_int_equal(tier_entry(large)(123456789, 7, 0, 0, 0), expected);
	assert_int_equal(tierctl(&world.daemon, world.out, world.err, "drive", "crowded:large", "1", NULL), 1);
	assert_non_null(strstr(world.err, "code segment is full"));
	tier_close(module);
	check_serves(&world);
	world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_that_are_no_modules_are_refused_by_name),
		cmocka_unit_test(bytecode_that_cannot_run_is_refused_with_section_offset_and_reason),
		cmocka_unit_test(truncated_objects_are_refused_at_every_length),
		cmocka_unit_test(corrupted_objects_are_loaded_or_refused_and_nothing_else),
		cmocka_unit_test(names_that_are_taken_wrong_or_unknown_are_refused),
		cmocka_unit_test(a_missing_import_is_named_before_anything_runs),
		cmocka_unit_test(a_call_of_an_unbound_import_goes_to_the_failure_handler),
		cmocka_unit_test(a_span_in_use_is_an_error_and_nothing_is_left_mapped),
		cmocka_unit_test(tierctl_tells_that_a_span_is_in_use),
		cmocka_unit_test(a_cold_call_without_room_for_code_fails_in_a_sentence),
		cmocka_unit_test(a_promotion_without_room_for_code_is_final_where_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
