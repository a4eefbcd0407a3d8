/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system/harness.h"
#include "tier/wire.h"
#include "util/base.h"

/* Instantiations: a module with other constants beside itself. What reads a knob gives the same result called and
 * inlined, at each tier; tiers, counts, code and function pointers are each one's own; .data is shared. */

static const char source[] =
	"typedef unsigned long long u64;\n"
	"#define noinline __attribute__((noinline))\n"
	"const volatile u64 knob = 5; const volatile int small = -2; const volatile unsigned char flag = 0;\n"
	"const volatile u64 a_knob_with_a_name_that_takes_a_lot_of_room = 1;\n"
	"const volatile u64 many[4] = { 1, 2, 3, 4 };\n"
	"u64 counter, word = 3; u64 *volatile to_word = &word;\n"
	"noinline u64 leaf(u64 x) { return x * knob + small; }\n"
	"noinline u64 other(u64 x) { return x + flag; }\n"
	"struct ops { u64 (*f)(u64); u64 kind; };\n"
	"const struct ops ops[2] = { { leaf, 7 }, { other, 8 } };\n"
	"u64 (*volatile kept)(u64) = leaf;\n"
	"u64 caller(u64 x) { return leaf(x) + knob; }\n"
	"u64 by_slot(u64 x, u64 i) { return ops[i & 1].f(x) + ops[i & 1].kind + many[i & 3]; }\n"
	"u64 by_value(u64 x) { u64 (*f)(u64) = leaf; asm volatile(\"\" : \"+r\"(f)); return f(x); }\n"
	"u64 by_data(u64 x) { return kept(x); }\n"
	"u64 count(u64 n) { counter += n; return counter; }\n"
	"u64 words(void) { return *to_word * 1000 + word; }\n"
	"u64 set_word(u64 x) { word = x; return 0; }\n"
	"u64 address_of(u64 which) { return which ? (u64)ops[0].f : (u64)leaf; }\n"
	"u64 named(void) { return a_knob_with_a_name_that_takes_a_lot_of_room; }\n"
	"u64 branchy(u64 x)\n"
	"{\n"
	"	if (!flag)\n"
	"		return x + 1;\n"
	"	for (u64 i = 0, n = x & 15; i < n; i++) x = (x ^ (i * 0x9e3779b97f4a7c15ull)) + (x >> 7) + leaf(i);\n"
	"	return x;\n"
	"}\n"
	"u64 looped(u64 n) { u64 sum = 0; for (u64 i = 0; i < n; i++) sum = (sum ^ leaf(i)) + knob; return sum; }\n";

struct fixture {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
};

static void begin(struct fixture *f, const char *const *args)
{
	daemon_start(&f->daemon, args);
	f->conn = daemon_connect(&f->daemon);
	assert_done(tier_load(f->conn, bpf_compile(f->daemon.folder, "m", source, "-g"), NULL, 0, &f->module));
}

static void end(struct fixture *f)
{
	tier_disconnect(f->conn);
	daemon_stop(&f->daemon);
}

#define LONG "a_knob_with_a_name_that_takes_a_lot_of_room"
#define VALUES(...)                                                                                                    \
	((const struct tier_value[]){__VA_ARGS__}),                                                                    \
		sizeof((const struct tier_value[]){__VA_ARGS__}) / sizeof(struct tier_value)

static struct tier_module *instance(struct fixture *f, const char *knob, uint64_t value)
{
	struct tier_module *module;

	assert_done(tier_module_instantiate(f->module, VALUES({knob, value}), &module));
	return module;
}

static struct tier_method *method_of(struct tier_module *module, const char *name)
{
	struct tier_method *method;

	assert_done(tier_find(module, name, &method));
	return method;
}

static unsigned int events_of(struct fixture *f, struct tier_module *module, enum tier_event_kind kind)
{
	static struct tier_event events[1024];
	size_t n = events_read(f->conn, tier_module_id(module), UINT32_MAX, events, ARRAY_SIZE(events));
	unsigned int n_kind = 0;

	for (size_t i = 0; i < n; i++)
		n_kind += events[i].kind == kind;
	return n_kind;
}

static uint64_t call(struct tier_module *module, const char *name, uint64_t a, uint64_t b)
{
	return tier_entry(method_of(module, name))(a, b, 0, 0, 0);
}

/* -- What a knob is for --- */
static uint64_t leaf(uint64_t x, uint64_t knob) { return x * knob - 2; }
static uint64_t looped(uint64_t n, uint64_t knob)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < n; i++)
		sum = (sum ^ leaf(i, knob)) + knob;
	return sum;
}

static void results_are_those_of(struct tier_module *module, uint64_t knob)
{
	for (uint64_t x = 0; x < 3; x++) {
		assert_int_equal(call(module, "leaf", x, 0), leaf(x, knob));
		assert_int_equal(call(module, "caller", x, 0), leaf(x, knob) + knob);
		assert_int_equal(call(module, "by_slot", x, 0), leaf(x, knob) + 7 + 1);
		assert_int_equal(call(module, "by_slot", x, 1), x + 8 + 2);
		assert_int_equal(call(module, "by_value", x, 0), leaf(x, knob));
		assert_int_equal(call(module, "looped", x, 0), looped(x, knob));
	}
}

static void climb_all(struct tier_module *module)
{
	static const char *const names[] = {"leaf", "caller", "by_slot", "by_value", "looped"};
	const uint64_t args[5] = {2};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		climb(method_of(module, names[i]), args);
}

static void each_reads_its_own_knob_at_every_tier(const char *const *args)
{
	struct fixture f;
	struct tier_module *seven, *nine, *all[3];

	begin(&f, args);
	seven = instance(&f, "knob", 7);
	nine = instance(&f, "knob", 9);
	all[0] = f.module, all[1] = seven, all[2] = nine;
	assert_string_equal(tier_module_name(seven), "m<knob=7>");
	for (uint64_t i = 0; i < 3; i++)
		results_are_those_of(all[i], 5 + 2 * i);
	for (uint64_t i = 0; i < 3; i++) {
		climb_all(all[i]);
		for (uint64_t k = 0; k < 3; k++)
			results_are_those_of(all[k], 5 + 2 * k);
	}
	assert_int_equal(tier_status(method_of(nine, "caller")).tier, TIER_LEVEL_TIER1);
	tier_close(seven);
	tier_close(nine);
	end(&f);
}

static void what_reads_a_knob_gives_the_same_called_and_inlined(void **state)
{
	each_reads_its_own_knob_at_every_tier(ARGS("--call-counting-delay=0"));
}

static void profiles_and_osr_change_nothing_about_it(void **state)
{
	each_reads_its_own_knob_at_every_tier(ARGS("--call-counting-delay=0", "--tiered-pgo=on", "--osr=on"));
}

static void frames_enter_optimized_code_of_their_own_instantiation(void **state)
{
	struct fixture f;
	struct tier_module *module;

	begin(&f, ARGS("--osr=on", "--call-counting-delay=0"));
	module = instance(&f, "knob", 7);
	assert_int_equal(call(module, "looped", 30000000, 0), looped(30000000, 7));
	wait_until("OSR code", events_of(&f, module, TIER_EVENT_OSR_READY));
	assert_int_equal(call(module, "looped", 30000000, 0), looped(30000000, 7));
	assert_int_equal(call(f.module, "looped", 1000, 0), looped(1000, 5));
	end(&f);
}

static int newest_size(const struct wire_version_row *row, void *context)
{
	*(uint64_t *)context = row->size;
	return 1;
}

static uint64_t optimized_size(struct tier_module *module, const char *name)
{
	struct tier_method *method = method_of(module, name);
	const uint64_t args[5] = {2};
	uint64_t size = 0;

	climb(method, args);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER1);
	tier_versions(method, newest_size, &size);
	assert_true(size);
	return size;
}

static void tier1_takes_knobs_for_constants(void **state)
{
	struct fixture f;
	struct tier_module *off, *on;
	uint64_t n_off, n_on;

	begin(&f, ARGS("--call-counting-delay=0"));
	off = instance(&f, "flag", 0);
	on = instance(&f, "flag", 1);
	n_off = optimized_size(off, "branchy");
	n_on = optimized_size(on, "branchy");
	if (n_off > 16 || n_on < 32)
		fail_msg("%llu bytes without the loop, %llu with it", (unsigned long long)n_off,
			 (unsigned long long)n_on);
	assert_int_equal(call(off, "branchy", 4, 0), 5);
	assert_int_not_equal(call(on, "branchy", 4, 0), 5);
	end(&f);
}

/* -- What is its own, and what is not --- */
static void tiers_and_counts_are_its_own(void **state)
{
	struct fixture f;
	struct tier_module *module;
	struct tier_method *mine;

	begin(&f, ARGS("--call-counting-delay=0"));
	module = instance(&f, "knob", 7);
	mine = method_of(module, "other");
	climb(method_of(f.module, "other"), NULL);
	assert_int_equal(tier_status(mine).status, TIER_STATUS_COLD);
	assert_int_equal(tier_remaining(mine), 1);
	call(module, "other", 1, 0);
	for (uint32_t i = 0; i < 10; i++)
		call(module, "other", 1, 0);
	assert_int_equal(tier_remaining(mine), 20);
	assert_int_equal(tier_status(method_of(f.module, "other")).status, TIER_STATUS_FINAL);
	assert_int_not_equal(tier_module_id(module), tier_module_id(f.module));
	assert_int_equal(events_of(&f, module, TIER_EVENT_MODULE_LOADED), 1);
	end(&f);
}

static void function_pointers_stay_inside(void **state)
{
	struct fixture f;
	struct tier_module *module;

	begin(&f, ARGS("--call-counting-delay=0"));
	module = instance(&f, "knob", 7);
	for (uint64_t which = 0; which < 2; which++) {
		assert_int_equal(call(module, "address_of", which, 0),
				 (uintptr_t)tier_entry(method_of(module, "leaf")));
		assert_int_equal(call(f.module, "address_of", which, 0),
				 (uintptr_t)tier_entry(method_of(f.module, "leaf")));
	}
	assert_ptr_not_equal(tier_entry(method_of(module, "leaf")), tier_entry(method_of(f.module, "leaf")));
	/* those in shared data are the module's */
	assert_int_equal(call(module, "by_data", 3, 0), leaf(3, 5));
	climb(method_of(module, "by_data"), (const uint64_t[5]){3});
	assert_int_equal(call(module, "by_data", 3, 0), leaf(3, 5));
	end(&f);
}

static void data_is_shared_within_a_process(void **state)
{
	struct fixture f;
	struct tier_module *seven, *nine;

	begin(&f, ARGS("--call-counting-delay=0"));
	seven = instance(&f, "knob", 7);
	nine = instance(&f, "knob", 9);
	assert_int_equal(call(f.module, "count", 1, 0), 1);
	assert_int_equal(call(seven, "count", 10, 0), 11);
	assert_int_equal(call(nine, "count", 100, 0), 111);
	climb(method_of(seven, "count"), NULL);
	assert_int_equal(call(seven, "count", 1000, 0), 1111);
	assert_int_equal(call(f.module, "count", 0, 0), 1111);
	call(nine, "set_word", 8, 0);
	assert_int_equal(call(seven, "words", 0, 0), 8008);
	climb(method_of(seven, "words"), NULL);
	call(f.module, "set_word", 9, 0);
	assert_int_equal(call(seven, "words", 0, 0), 9009);
	/* it stays as long as an instantiation is open */
	tier_close(f.module);
	assert_int_equal(call(nine, "count", 0, 0), 1111);
	end(&f);
}

/* -- Which one it is --- */
static void equal_values_give_the_same_instantiation(void **state)
{
	struct fixture f;
	struct tier_module *a, *b, *c;

	begin(&f, NULL);
	assert_done(tier_module_instantiate(f.module, VALUES({"small", 3}, {"knob", 7}), &a));
	assert_string_equal(tier_module_name(a), "m<knob=7,small=3>");
	assert_done(tier_module_instantiate(f.module, VALUES({"knob", 7}, {"small", 3}), &b));
	assert_ptr_equal(a, b);
	assert_done(tier_module_instance(f.module, VALUES({"knob", 7}, {"small", 3}), &c));
	assert_ptr_equal(a, c);
	assert_done(tier_module_instantiate(f.module, VALUES({"small", -1ull}), &b));
	assert_string_equal(tier_module_name(b), "m<small=4294967295>");
	assert_done(tier_module_instantiate(f.module, VALUES({"small", 0xffffffff}), &c));
	assert_ptr_equal(b, c);
	assert_int_equal(tier_module_instance(f.module, VALUES({"knob", 8}), &c), -ENOENT);
	assert_non_null(strstr(tier_error_text(), "m<knob=8>"));
	assert_done(tier_module_instantiate(f.module, VALUES({"knob", 0x123456789abcdefull}, {LONG, 12345}), &c));
	assert_int_equal(strlen(tier_module_name(c)), sizeof("m<0123456789abcdef>") - 1);
	assert_done(tier_module_instance(f.module, VALUES({LONG, 12345}, {"knob", 0x123456789abcdefull}), &b));
	assert_ptr_equal(b, c);
	assert_int_equal(call(c, "named", 0, 0), 12345);
	assert_done(tier_open(f.conn, tier_module_name(c), &b));
	assert_ptr_equal(b, c);
	end(&f);
}

struct asker {
	struct tier_conn *conn;
	struct tier_module *module;
	pthread_barrier_t *barrier;
	uint64_t ids[20];
};

static void *ask(void *context)
{
	struct asker *asker = context;
	struct tier_module *module;

	for (uint64_t i = 0; i < ARRAY_SIZE(asker->ids); i++) {
		pthread_barrier_wait(asker->barrier);
		if (!tier_module_instantiate(asker->module, VALUES({ "knob", 1000 + i }), &module)) {
			asker->ids[i] = tier_module_id(module);
			tier_close(module);
		}
	}
	return NULL;
}

static void who_asks_at_the_same_time_gets_the_same(void **state)
{
	struct fixture f;
	struct asker askers[4];
	pthread_t threads[4];
	pthread_barrier_t barrier;

	begin(&f, NULL);
	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 4; i++) {
		askers[i] = (struct asker){ .conn = daemon_connect(&f.daemon), .barrier = &barrier };
		assert_done(tier_open(askers[i].conn, "m", &askers[i].module));
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < ARRAY_SIZE(askers[0].ids); i++) {
		assert_int_not_equal(askers[0].ids[i], 0);
		for (int k = 1; k < 4; k++)
			assert_int_equal(askers[k].ids[i], askers[0].ids[i]);
	}
	for (int i = 0; i < 4; i++)
		tier_disconnect(askers[i].conn);
	pthread_barrier_destroy(&barrier);
	end(&f);
}

static void what_is_no_knob_is_refused_with_a_sentence(void **state)
{
	static const struct {
		struct tier_value value;
		const char *words;
	} wrong[] = {
		{{"knop", 1}, "no variable 'knop'; knobs are variables of .rodata, among them knob"},
		{{"", 1}, "no variable ''"},
		{{"counter", 1}, "'counter'"},
		{{"many", 1}, "it has 32 bytes"},
		{{"ops", 1}, "it has 32 bytes"},
		{{"leaf", 1}, "no variable 'leaf'"},
		{{"flag", 256}, "256 (0x100) does not fit knob 'flag', which has 1 byte"},
		{{"small", 1ull << 32}, "does not fit knob 'small', which has 4 bytes"},
	};
	struct fixture f;
	struct tier_module *module, *seven;
	struct tier_value many[TIER_VALUES_MAX + 1];

	begin(&f, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(tier_module_instantiate(f.module, &wrong[i].value, 1, &module), -EINVAL);
		if (!strstr(tier_error_text(), wrong[i].words))
			fail_msg("%s: %s", wrong[i].value.name, tier_error_text());
	}
	assert_int_equal(tier_module_instantiate(f.module, VALUES({"knob", 1}, {"knob", 1}), &module), -EINVAL);
	assert_non_null(strstr(tier_error_text(), "knob 'knob' is given twice"));
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct tier_value){"knob", 1};
	assert_int_equal(tier_module_instantiate(f.module, many, ARRAY_SIZE(many), &module), -EINVAL);
	assert_int_equal(tier_module_instantiate(f.module, many, 0, &module), -EINVAL);
	seven = instance(&f, "knob", 7);
	assert_int_equal(tier_module_instantiate(seven, VALUES({"flag", 1}), &module), -EINVAL);
	assert_non_null(strstr(tier_error_text(), "is an instantiation"));
	end(&f);
}

/* -- Lives --- */
static unsigned int n_modules;
static int count_module(const struct tier_module_row *row, void *context)
{
	n_modules++;
	return 0;
}
static unsigned int modules_of(struct tier_conn *conn)
{
	n_modules = 0;
	assert_done(tier_list(conn, count_module, NULL));
	return n_modules;
}

static void the_module_stays_until_its_last_instantiation_is_gone(void **state)
{
	struct fixture f;
	struct tier_module *seven, *nine, *again;

	begin(&f, NULL);
	seven = instance(&f, "knob", 7);
	nine = instance(&f, "knob", 9);
	tier_close(nine);
	assert_int_equal(modules_of(f.conn), 3);
	assert_done(tier_unload(f.conn, "m"));
	wait_until("the one that nobody holds to go", modules_of(f.conn) == 2);
	assert_int_equal(tier_module_instantiate(f.module, VALUES({"knob", 1}), &again), -ENOENT);
	assert_int_equal(tier_open(f.conn, "m<knob=7>", &again), -ENOENT);
	tier_close(f.module);
	assert_int_equal(modules_of(f.conn), 2);
	assert_int_equal(call(seven, "leaf", 2, 0), leaf(2, 7));
	assert_int_equal(call(seven, "count", 2, 0), 2);
	/* the names are free again */
	assert_done(tier_load(f.conn, bpf_compile(f.daemon.folder, "m", source, "-g"), NULL, 0, &f.module));
	again = instance(&f, "knob", 7);
	assert_int_not_equal(tier_module_id(again), tier_module_id(seven));
	tier_close(seven);
	wait_until("both to go", modules_of(f.conn) == 2);
	tier_close(again);
	assert_done(tier_unload(f.conn, "m<knob=7>"));
	assert_int_equal(modules_of(f.conn), 1);
	tier_close(f.module);
	assert_done(tier_unload(f.conn, "m"));
	assert_int_equal(modules_of(f.conn), 0);
	end(&f);
}

struct child {
	struct fixture *f;
	int to_child[2], to_parent[2];
};

static void child_runs(void *context)
{
	struct child *child = context;
	struct fixture *f = child->f;
	struct tier_module *module, *seven;
	struct tier_conn *conn = daemon_connect(&f->daemon);
	char byte;

	child_assert(!tier_open(conn, "m", &module) && !tier_open(conn, "m<knob=7>", &seven));
	child_assert(call(module, "leaf", 2, 0) == leaf(2, 5) && call(seven, "leaf", 2, 0) == leaf(2, 7));
	child_assert(call(seven, "count", 3, 0) == 53 &&
		     call(module, "count", 0, 0) == 53); /* from the fork on it is its own */
	child_assert(write(child->to_parent[1], "x", 1) == 1);
	child_assert(read(child->to_child[0], &byte, 1) == 1);
	child_assert(call(seven, "caller", 2, 0) == leaf(2, 7) + 7); /* optimized meanwhile */
}

static void processes_share_its_code_and_not_its_data(void **state)
{
	struct fixture f;
	struct child child = {.f = &f};
	struct tier_module *seven;
	char byte;
	pid_t pid;

	begin(&f, ARGS("--call-counting-delay=0"));
	seven = instance(&f, "knob", 7);
	assert_int_equal(call(seven, "count", 50, 0), 50);
	pipe_open(child.to_child);
	pipe_open(child.to_parent);
	pid = child_start(child_runs, &child);
	close(child.to_parent[1]);
	assert_int_equal(read(child.to_parent[0], &byte, 1), 1);
	climb_all(seven);
	assert_int_equal(write(child.to_child[1], "x", 1), 1);
	child_end(pid);
	results_are_those_of(seven, 7);
	assert_int_equal(call(seven, "count", 0, 0), 50);
	end(&f);
}

/* The handles are the parent's: its first call there opens a session of its own. */
static void fork_calls(void *context)
{
	struct tier_module *const *modules = context;

	child_assert(call(modules[1], "caller", 2, 0) == leaf(2, 7) + 7);
	child_assert(call(modules[1], "count", 1, 0) == 1);
	child_assert(call(modules[0], "count", 1, 0) == 2);
}

static void a_fork_goes_on_with_it(void **state)
{
	struct tier_module *modules[2];
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=0"));
	modules[0] = f.module;
	modules[1] = instance(&f, "knob", 7);
	child_end(child_start(fork_calls, modules));
	assert_int_equal(call(f.module, "count", 0, 0), 0);
	end(&f);
}

static void child_holds(void *context)
{
	struct child *child = context;
	struct tier_conn *conn = daemon_connect(&child->f->daemon);
	struct tier_module *module, *instance_;

	child_assert(!tier_open(conn, "m", &module));
	for (uint64_t i = 100; i < 110; i++) {
		child_assert(!tier_module_instantiate(module, VALUES({"knob", i}), &instance_));
		call(instance_, "leaf", 1, 0);
	}
	child_assert(write(child->to_parent[1], "x", 1) == 1);
	for (;;)
		pause();
}

static void killed_clients_leave_what_has_a_name_and_hold_nothing(void **state)
{
	struct fixture f;
	struct child child = {.f = &f};
	char byte;
	pid_t pid;

	begin(&f, NULL);
	pipe_open(child.to_parent);
	pid = child_start(child_holds, &child);
	close(child.to_parent[1]);
	assert_int_equal(read(child.to_parent[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	child_reap(pid);
	assert_int_equal(modules_of(f.conn), 11);
	tier_close(f.module);
	assert_done(tier_unload(f.conn, "m"));
	wait_until("all to go", !modules_of(f.conn));
	end(&f);
}

static void they_count_like_modules(void **state)
{
	struct tier_module *module;
	struct fixture f;
	int r = 0;
	uint64_t i;

	begin(&f, NULL);
	for (i = 0; !r && i < 2000; i++) {
		r = tier_module_instantiate(f.module, VALUES({"knob", i}), &module);
		if (!r)
			tier_close(module);
	}
	assert_int_equal(r, -EDQUOT);
	assert_int_equal(modules_of(f.conn), i);
	tier_close(f.module);
	assert_done(tier_unload(f.conn, "m"));
	wait_until("all to go", !modules_of(f.conn));
	end(&f);
}

/* -- Bodies --- */
static void a_new_body_is_for_one_of_them(void **state)
{
	static const char body[] = "typedef unsigned long long u64;\n"
				   "extern u64 counter; extern u64 leaf(u64);\n"
				   "u64 other(u64 x) { counter += 1; return leaf(x) + counter; }\n";
	struct fixture f;
	struct tier_module *seven;

	begin(&f, ARGS("--call-counting-delay=0"));
	seven = instance(&f, "knob", 7);
	assert_int_equal(call(seven, "count", 5, 0), 5);
	assert_done(tier_rejit(method_of(seven, "other"), bpf_compile(f.daemon.folder, "body", body, "-g"), NULL, 0));
	assert_int_equal(call(seven, "other", 3, 0), leaf(3, 7) + 6);
	assert_int_equal(call(f.module, "other", 3, 0), 3);
	climb(method_of(seven, "other"), NULL);
	call(f.module, "count", 100, 0);
	assert_int_equal(call(seven, "other", 3, 0) - call(seven, "count", 0, 0), leaf(3, 7));
	end(&f);
}

/* -- The command line --- */
static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
#define done(...)                                                                                                      \
	do {                                                                                                           \
		if (tierctl(&f.daemon, out, err, __VA_ARGS__, NULL) || *err)                                           \
			fail_msg("out: %s; err: %s", out, err);                                                        \
	} while (0)
#define fails(words, ...)                                                                                              \
	do {                                                                                                           \
		if (tierctl(&f.daemon, out, err, __VA_ARGS__, NULL) != 2 || !strstr(err, words))                       \
			fail_msg("out: %s; err: %s", out, err);                                                        \
	} while (0)

static void verbs_take_values_in_any_form(void **state)
{
	struct fixture f;

	begin(&f, ARGS("--call-counting-delay=0"));
	fails("no module named", "status", "m<knob=7>:leaf");
	done("call", "m<knob=0x7>:leaf", "2");
	assert_string_equal(out, "12 (0xc)\n");
	done("status", "m<knob=07>:leaf");
	assert_non_null(strstr(out, "optimizing"));
	done("call", "m<small=-1,knob=3>:leaf", "2");
	assert_string_equal(out, "5 (0x5)\n");
	done("list");
	assert_non_null(strstr(out, "m<knob=3,small=4294967295>"));
	done("drive", "m<knob=7>:leaf", "2");
	done("show", "m<knob=7>:leaf");
	done("wait", "m<knob=7>:leaf");
	assert_non_null(strstr(out, "final"));
	done("settled", "m<knob=7>:leaf");
	done("pending", "--module", "m<knob=0x7>");
	done("events", "--module", "m<knob=0x7>");
	fails("is not KNOB=VALUE", "call", "m<knob=x>:leaf");
	fails("is not KNOB=VALUE", "call", "m<knob=1,=2>:leaf");
	fails("does not end with >", "call", "m<knob=1:leaf");
	fails("among them knob", "call", "m<knop=1>:leaf");
	fails("is not a module's name", "load", bpf_compile(f.daemon.folder, "m", source, "-g"), "--name", "m<knob=1>");
	done("unload", "m<small=-1,knob=0x3>");
	fails("no module named", "status", "m<knob=3,small=-1>:leaf");
	done("unload", "m");
	tier_close(f.module);
	wait_until("all to go", !modules_of(f.conn));
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_reads_a_knob_gives_the_same_called_and_inlined),
		cmocka_unit_test(profiles_and_osr_change_nothing_about_it),
		cmocka_unit_test(frames_enter_optimized_code_of_their_own_instantiation),
		cmocka_unit_test(tier1_takes_knobs_for_constants),
		cmocka_unit_test(tiers_and_counts_are_its_own),
		cmocka_unit_test(function_pointers_stay_inside),
		cmocka_unit_test(data_is_shared_within_a_process),
		cmocka_unit_test(equal_values_give_the_same_instantiation),
		cmocka_unit_test(who_asks_at_the_same_time_gets_the_same),
		cmocka_unit_test(what_is_no_knob_is_refused_with_a_sentence),
		cmocka_unit_test(the_module_stays_until_its_last_instantiation_is_gone),
		cmocka_unit_test(processes_share_its_code_and_not_its_data),
		cmocka_unit_test(a_fork_goes_on_with_it),
		cmocka_unit_test(killed_clients_leave_what_has_a_name_and_hold_nothing),
		cmocka_unit_test(they_count_like_modules),
		cmocka_unit_test(a_new_body_is_for_one_of_them),
		cmocka_unit_test(verbs_take_values_in_any_form),
	};

	return cmocka_run_group_tests_name("instances", tests, NULL, NULL);
}
