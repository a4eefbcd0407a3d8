/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "host_kept.h"
#include "parts.h"
#include "tiering/ledger.h"
#include "unit/worker/object.h"

/* What a successor makes of what it finds: modules that are whole, some of whose descriptors are missing, wrong, or somebody
 * else's, and what no ledger names. The store is the test's. */

#define UID 1000
#define KEPT_MAX 64

struct store {
	struct { char name[STORE_NAME_MAX]; int fd; bool is_taken; } kept[KEPT_MAX];
	uint32_t n;
	bool refuses;
};

struct world {
	struct store store;
	struct tierd tierd;
	void *ledger;
	uint32_t n_unloaded;	/* events */
};

static struct window window;

void server_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text) { }

/* -- The store --- */
bool store_is_kept(const struct store *store) { return true; }

int store_put(struct store *store, const char *name, int fd)
{
	if (store->refuses)
		return -E2BIG;
	assert_true(store->n < KEPT_MAX);
	strcpy(store->kept[store->n].name, name);
	store->kept[store->n].is_taken = false;
	store->kept[store->n++].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static int64_t place_of(const struct store *store, const char *name)
{
	for (uint32_t i = 0; i < store->n; i++)
		if (!strcmp(store->kept[i].name, name))
			return i;
	return -1;
}

void store_remove(struct store *store, const char *name)
{
	int64_t at = place_of(store, name);

	if (at < 0)
		return;
	close(store->kept[at].fd);
	store->kept[at] = store->kept[--store->n];
}

int store_take(struct store *store, const char *name)
{
	int64_t at = place_of(store, name);

	if (at < 0)
		return -1;
	assert_false(store->kept[at].is_taken);
	store->kept[at].is_taken = true;
	return fcntl(store->kept[at].fd, F_DUPFD_CLOEXEC, 0);
}

/* -- The core's outside --- */
static uint64_t op_now(void *context) { return 1000000000; }
static void op_arm(void *context, uint64_t deadline_ns) { }
static int op_first(void *context, void *host, const struct core_compile *compile, struct core_result *ret)
{
	return host_first(host, compile, ret);
}
static int op_stub(void *context, void *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret)
{
	return host_stub(host, method, cell, version, code, ret);
}
static void *op_alias(void *context, void *host, uint64_t address) { return host_alias(host, address); }
static int op_compile(void *context, void *host, const struct core_compile *compile) { return CORE_E_TOO_LARGE; }
static void op_event(void *context, const struct tier_event *event)
{
	((struct world *)context)->n_unloaded += event->kind == TIER_EVENT_MODULE_UNLOADED;
}
static void op_changed(void *context, struct module *module, uint32_t method) { }

static void world_start(struct world *w)
{
	static const struct core_ops ops = {
		.now = op_now, .wall = op_now, .arm = op_arm, .first = op_first, .stub = op_stub, .alias = op_alias,
		.compile = op_compile, .event = op_event, .changed = op_changed,
	};
	const struct core_config config = {
		.threshold = 30, .call_counting = true, .jobs_per_uid = 1, .jobs_total = 1, .sweep_ns = 1000000000,
	};

	w->tierd = (struct tierd){ .store = &w->store };
	assert_int_equal(core_new(&w->tierd.core, &config, &ops, w, w->ledger, ledger_size()), 0);
	loading_init(&w->tierd.loading);
	w->tierd.loading.core = w->tierd.core;
	w->tierd.loading.store = &w->store;
}

static void world_stop(struct world *w, bool dies)
{
	struct module *module = NULL, *next;

	for (module = core_module_next(w->tierd.core, NULL); module; module = next) {
		struct host *host = core_module_context(module);

		next = core_module_next(w->tierd.core, module);
		if (!dies)
			core_module_remove(module);
		if (!dies)
			host_unkeep(host);
		host_free(host);
	}
	core_free(w->tierd.core);
	charge_table_deinit(&w->tierd.loading.charges);	/* all was given back */
	for (uint32_t i = 0; i < w->store.n; i++)
		w->store.kept[i].is_taken = false;
}

static void succeed(struct world *w)
{
	world_stop(w, true);
	world_start(w);
	takeover_modules(&w->tierd);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->ledger = mmap(NULL, ledger_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w->ledger, MAP_FAILED);
	world_start(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	world_stop(w, false);
	while (w->store.n)
		store_remove(&w->store, w->store.kept[0].name);
	munmap(w->ledger, ledger_size());
	free(w);
	return 0;
}

/* -- Modules --- */
static const char source[] = "typedef unsigned long long u64; const volatile u64 knob = 5;\n"
			     "__attribute__((noinline)) u64 area(u64 x) { return x * knob; } u64 outer(u64 x) { return area(x) + 1; }\n";
static const char body_source[] = "typedef unsigned long long u64; u64 area(u64 x) { return x + 77; }\n";

static struct host_plan plan_of(struct world *w)
{
	return (struct host_plan){ .id = core_take_module_id(w->tierd.core), .window = &window };
}

static struct host *add(struct world *w, struct host *host, const char *name)
{
	struct module *module;
	struct refusal refusal = { "" };

	host_keep(host, &w->store);
	if (loading_add(&w->tierd.loading, &module, host, UID, name, false, &refusal))
		fail_msg("%s", refusal.text);
	return host;
}

static struct host *load_module(struct world *w, const char *name)
{
	struct object_file object = compile("clang", "-O2 -g", source);
	struct host_plan plan = plan_of(w);
	struct refusal refusal = { "" };
	struct host *host = NULL;
	void *bytes;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal) || host_build(&host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(object.bytes);
	return add(w, host, name);
}

static struct host *instantiate(struct world *w, struct host *base, const char *name)
{
	struct host_plan plan = plan_of(w);
	struct host_knobs knobs = { .n = 0 };
	struct host_knob knob;
	struct refusal refusal;
	struct host *host;

	assert_true(host_find_knob(&knob, base, "knob", 99, &refusal) && host_add_knob(&knobs, base, &knob, &refusal));
	assert_int_equal(host_instantiate(&host, &plan, base, &knobs, &refusal), 0);
	base->n_instances++;
	return add(w, host, name);
}

static void replace(struct world *w, struct host *host)
{
	struct object_file object = compile("clang", "-O2 -g", body_source);
	const uint32_t method = symtab_find(host->symtab, "area");
	struct host_body *body;
	struct refusal refusal;
	struct image image;
	void *bytes;
	int64_t index;

	image = load(&object, &bytes);
	index = image_find_method(&image, "area");
	assert_int_equal(host_bind(&body, host, method, &image, index, true, &refusal), 0);
	assert_int_equal(loading_charge_body(&w->tierd.loading.charges, body, UID), 0);
	assert_int_equal(host_body_reserve(host, body, &image), 0);
	host_body_fill(body, &image, index);
	assert_int_equal(host_body_compile(host, body), 0);
	assert_int_equal(host_bodies_reserve(host), 0);
	host_keep_body(host, method, body, bytes, image.header->size, index);
	assert_true(body->is_kept);
	assert_null(host_body_exchange(host, method, body));
	assert_int_equal(core_rejit(host->module, method, body->id), 0);
	free(object.bytes);
	free(bytes);
}

static uint32_t n_kept_of(const struct world *w, uint64_t id)
{
	char prefix[STORE_NAME_MAX];
	uint32_t n = 0;

	host_kept_name(prefix, id, "");
	for (uint32_t i = 0; i < w->store.n; i++)
		n += !strncmp(w->store.kept[i].name, prefix, strlen(prefix));
	return n;
}

static void lose(struct world *w, uint64_t id, const char *part)
{
	char name[STORE_NAME_MAX];

	host_kept_name(name, id, part);
	assert_true(place_of(&w->store, name) >= 0);
	store_remove(&w->store, name);
}

static struct host *host_by_id(const struct world *w, uint64_t id)
{
	struct module *module = core_module_by_id(w->tierd.core, id);

	return module ? core_module_context(module) : NULL;
}

/* -- Cases --- */
static void what_is_whole_is_taken_over_and_charged(void **state)
{
	struct world *w = *state;
	struct host *first = load_module(w, "first");
	const uint64_t ids[] = { first->id, instantiate(w, first, "instance")->id, load_module(w, "second")->id };
	uint64_t n_methods, n_bytes;

	replace(w, first);
	n_methods = charge_used(&w->tierd.loading.charges, UID, LOADING_SLOT_METHODS);
	n_bytes = charge_used(&w->tierd.loading.charges, UID, LOADING_SLOT_MEMORY);
	for (int i = 0; i < 2; i++) {
		succeed(w);
		assert_int_equal(w->tierd.takeover.n_modules, 3);
		assert_int_equal(w->tierd.takeover.n_methods, 6);
		assert_int_equal(w->tierd.takeover.n_lost, 0);
		assert_int_equal(charge_used(&w->tierd.loading.charges, UID, LOADING_SLOT_METHODS), n_methods);
		assert_int_equal(charge_used(&w->tierd.loading.charges, UID, LOADING_SLOT_MEMORY), n_bytes);
		assert_ptr_equal(host_by_id(w, ids[1])->base, host_by_id(w, ids[0]));
		assert_int_equal(host_by_id(w, ids[0])->n_instances, 1);
		assert_int_equal(core_prepare(core_module_by_id(w->tierd.core, ids[2]), 0), 0);
		assert_null(core_check(w->tierd.core));
	}
	assert_int_equal(w->n_unloaded, 0);
	assert_int_equal(n_kept_of(w, ids[0]), 6);
	assert_int_equal(n_kept_of(w, ids[1]), 5);
}

static void a_module_with_a_missing_descriptor_is_lost_alone(void **state)
{
	static const char *const parts[] = { "code", "records", "counters", "private", "host", "b1" };
	struct world *w = *state;
	const uint64_t whole = load_module(w, "whole")->id;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		struct host *host = load_module(w, "torn");
		const uint64_t id = host->id;

		replace(w, host);
		lose(w, id, parts[i]);
		succeed(w);
		assert_int_equal(w->tierd.takeover.n_lost, 1);
		assert_int_equal(w->tierd.takeover.n_modules, 1);
		assert_null(core_module_by_id(w->tierd.core, id));
		assert_int_equal(w->n_unloaded, i + 1);
		assert_int_equal(n_kept_of(w, id), 0);
		assert_non_null(host_by_id(w, whole));
		assert_int_equal(n_kept_of(w, whole), 5);
		assert_null(core_check(w->tierd.core));
	}
}

static void instantiations_go_with_what_they_were_made_of(void **state)
{
	struct world *w = *state;
	struct host *base = load_module(w, "base");
	const uint64_t instance = instantiate(w, base, "instance")->id;

	lose(w, base->id, "records");
	succeed(w);
	assert_int_equal(w->tierd.takeover.n_lost, 2);
	assert_null(core_module_next(w->tierd.core, NULL));
	assert_int_equal(n_kept_of(w, instance), 0);
	assert_int_equal(w->n_unloaded, 2);
	load_module(w, "base");		/* the name is free, and there is a new id */
	succeed(w);
	assert_int_equal(w->tierd.takeover.n_modules, 1);
}

static void descriptors_of_another_module_are_not_taken_for_its_own(void **state)
{
	struct world *w = *state;
	const uint64_t a = load_module(w, "a")->id, b = load_module(w, "b")->id;
	char name[STORE_NAME_MAX], other[STORE_NAME_MAX];
	int64_t i, k;

	host_kept_name(name, a, "records");
	host_kept_name(other, b, "records");
	i = place_of(&w->store, name);
	k = place_of(&w->store, other);
	strcpy(w->store.kept[i].name, other);
	strcpy(w->store.kept[k].name, name);
	succeed(w);
	assert_int_equal(w->tierd.takeover.n_lost, 2);
	assert_int_equal(w->store.n, 0);
}

static void what_no_ledger_names_is_not_looked_at(void **state)
{
	struct world *w = *state;
	const uint64_t id = load_module(w, "m")->id;
	struct host other = { .id = id + 7, .store = &w->store };

	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		char name[STORE_NAME_MAX];

		host_kept_name(name, other.id, host_kept_segment(i));
		store_put(&w->store, name, STDIN_FILENO);
	}
	succeed(w);
	assert_int_equal(w->tierd.takeover.n_modules, 1);
	assert_int_equal(w->tierd.takeover.n_lost, 0);
	assert_int_equal(n_kept_of(w, other.id), 4);	/* store_drop_rest()'s */
	host_unkeep(&other);
}

static void what_cannot_be_kept_works_and_is_lost_with_its_daemon(void **state)
{
	struct world *w = *state;
	struct host *host;

	w->store.refuses = true;
	host = load_module(w, "m");
	assert_null(host->store);
	assert_int_equal(core_prepare(host->module, 0), 0);
	w->store.refuses = false;
	succeed(w);
	assert_int_equal(w->tierd.takeover.n_lost, 1);
	assert_int_equal(w->store.n, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_whole_is_taken_over_and_charged, setup, teardown),
		cmocka_unit_test_setup_teardown(a_module_with_a_missing_descriptor_is_lost_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(instantiations_go_with_what_they_were_made_of, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_of_another_module_are_not_taken_for_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(what_no_ledger_names_is_not_looked_at, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_kept_works_and_is_lost_with_its_daemon, setup, teardown),
	};
	int r;

	window_init(&window, 0);
	folder_make();
	r = cmocka_run_group_tests_name("takeover", tests, NULL, NULL);
	folder_remove();
	return r;
}
