/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/prctl.h>
#include "client.h"

/* Opening modules: one span, one mapping, nothing half done */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

/* Protections of the mappings in [from, to), as in /proc/self/maps, in order; and whether any is writable and executable. */
static void maps_read(uint64_t from, uint64_t to, char *ret, size_t n, bool *ret_has_wx)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char line[512], protection[8];
	unsigned long begin, end;

	assert_non_null(file);
	*ret = 0;
	*ret_has_wx = false;
	while (fgets(line, sizeof(line), file)) {
		assert_int_equal(sscanf(line, "%lx-%lx %7s", &begin, &end, protection), 3);
		*ret_has_wx |= protection[1] == 'w' && protection[2] == 'x';
		if (begin < to && end > from && strlen(ret) + 6 < n)
			strcat(strcat(ret, protection), " ");
	}
	fclose(file);
}

static void assert_mapped(struct fake *fake, unsigned int module, const char *expected)
{
	const struct tier_layout *layout = &fake->modules[module].info.layout;
	char found[256];
	bool has_wx;

	maps_read(layout->base, layout->base + layout->size, found, sizeof(found), &has_wx);
	assert_string_equal(found, expected);
	assert_false(has_wx);
}

#define WHOLE "r-xs ---p r--s ---p rw-s ---p rw-p ---p "

static void segments_have_their_protections_and_guards(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	client_call(client_method(module, 0), FAKE_THRESHOLD + 5);
	assert_mapped(fake, 0, WHOLE);
	tier_close(module);
	assert_mapped(fake, 0, "");
	tier_disconnect(conn);
}

static void opening_twice_gives_the_same_module_and_data(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo"), *again = client_open(conn, "demo");

	assert_ptr_equal(module, again);
	assert_int_equal(fake->sessions[0].n_held[0], 1);
	tier_close(again);
	assert_mapped(fake, 0, WHOLE);
	assert_int_equal(fake->sessions[0].n_held[0], 1);
	client_call(client_method(module, 0), 1);
	tier_close(module);
	assert_mapped(fake, 0, "");
	assert_int_equal(fake->sessions[0].n_held[0], 0);
	module = client_open(conn, "demo");
	client_call(client_method(module, 0), 1);
	tier_close(module);
	tier_disconnect(conn);
}

static uint64_t host_answer(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return 42; }

static void two_connections_share_one_mapping(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *first = client_connect(fake), *second = client_connect(fake);
	struct tier_module *one = client_open(first, "demo"), *two = client_open(second, "demo");

	assert_ptr_not_equal(one, two);
	assert_ptr_equal(tier_entry(client_method(one, 1)), tier_entry(client_method(two, 1)));
	assert_int_equal(tier_bind(one, "host0", host_answer), 0);
	assert_int_equal(tier_entry(client_method(two, 1))(1, 2, 3, 4, 5), 42);
	assert_int_equal(fake->sessions[1].n_held[0], 1);
	/* whichever stays serves the first calls */
	tier_disconnect(first);
	client_call(client_method(two, 0), 1);
	tier_close(one);
	client_call(client_method(two, 2), 1);
	tier_close(two);
	assert_mapped(fake, 0, "");
	tier_disconnect(second);
}

static void a_module_outlives_its_connection_as_far_as_it_has_code(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_method *warm = client_method(module, 0), *cold = client_method(module, 2), *found;

	client_call(warm, 1);
	tier_disconnect(conn);
	client_call(warm, FAKE_THRESHOLD + 2);
	assert_int_equal(tier_remaining(warm), 0);
	assert_true(call_fails(tier_entry(cold)));
	assert_non_null(strstr(failure_text, "closed"));
	assert_int_equal(tier_find(module, "method3", &found), -ENOTCONN);
	tier_close(module);
	assert_mapped(fake, 0, "");
}

static void a_span_that_is_taken_is_a_clear_error(void **state)
{
	struct fake *fake = fake_of(state);
	const struct tier_layout *layout = &fake->modules[0].info.layout;
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module;
	void *taken = mmap((void *)(layout->base + 66 * FAKE_PAGE), FAKE_PAGE, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	assert_true(taken != MAP_FAILED);
	assert_int_equal(tier_open(conn, "demo", &module), -EADDRINUSE);
	assert_non_null(strstr(tier_error_text(), "'demo'"));
	assert_non_null(strstr(tier_error_text(), "0x300000000000-0x30000005"));
	assert_mapped(fake, 0, "r--p ");
	assert_int_equal(fake->sessions[0].n_held[0], 0);
	munmap(taken, FAKE_PAGE);
	tier_close(client_open(conn, "demo"));
	tier_disconnect(conn);
}

static void wrong_answer_leaves_nothing(void **state, enum twist twist, const char *text)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module;

	fake_set_twist(fake, WIRE_ATTACH, twist);
	assert_int_equal(tier_open(conn, "demo", &module), -EPROTO);
	if (!strstr(tier_error_text(), text))
		fail_msg("'%s' does not say '%s'", tier_error_text(), text);
	assert_mapped(fake, 0, "");
	assert_int_equal(fake->sessions[0].n_held[0], 0);
	fake_set_twist(fake, WIRE_ATTACH, TWIST_NONE);
	tier_close(client_open(conn, "demo"));
	tier_disconnect(conn);
}

static void too_few_descriptors_are_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_FEW_FDS, "sent 3 descriptors");
}

static void a_file_that_is_too_short_is_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_SMALL_FILE, "counters");
}

static void a_descriptor_that_is_no_file_is_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_PIPE, "records");
}

static void a_layout_that_overlaps_is_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_LAYOUT, "in order");
}

static void patchpoints_among_other_things_are_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_PATCHPOINTS, "patchpoints lie outside");
	wrong_answer_leaves_nothing(state, TWIST_HITS, "hits lie outside");
}

static void records_of_another_module_are_refused(void **state)
{
	wrong_answer_leaves_nothing(state, TWIST_OTHER_RECORDS, "another module");
}

static int child_under_mdwe(void *context)
{
	struct fake *fake = context;
	struct tier_conn *conn;
	struct tier_module *module;
	char found[256];
	bool has_wx;

	if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0)
		return errno == EINVAL ? 0 : 1;		/* before Linux 6.3 */
	conn = client_connect(fake);
	module = client_open(conn, "demo");
	client_call(client_method(module, 0), 1 + FAKE_THRESHOLD);
	maps_read(0, 0, found, sizeof(found), &has_wx);
	return !has_wx && fake->hits[TIER_PROBE_THRESHOLD].n == 1 ? 0 : 2;
}

static void a_process_that_may_not_gain_execution_is_served(void **state)
{
	fake_of(state)->is_kernel = true;
	assert_int_equal(child_run(BY_FORK, child_under_mdwe, fake_of(state)), 0);
}

static void data_are_private_and_start_as_loaded(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	char *data = (char *)(fake->modules[0].info.layout.base + fake->modules[0].info.layout.data);

	assert_string_equal(data, "initial");
	strcpy(data, "mine");
	assert_string_equal((char *)fake->modules[0].alias[TIER_SEGMENT_PRIVATE] + 3 * FAKE_PAGE, "initial");
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Imports --- */
static void *lookup_even(const char *name, void *context)
{
	unsigned int number;

	(*(uint32_t *)context)++;
	return sscanf(name, "host%u", &number) == 1 && number % 2 == 0 ? (void *)(uintptr_t)host_answer : NULL;
}

static uint64_t import_cell(struct fake *fake, unsigned int module, uint32_t import)
{
	return *(uint64_t *)tier_layout_import(&fake->modules[module].info.layout, import);
}

static void many_imports_bind_by_name(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "wide");
	uint32_t n_asked = 0;

	assert_int_equal(import_cell(fake, 2, 1), 0);	/* weak */
	assert_true(import_cell(fake, 2, 0) != import_cell(fake, 2, 254));
	assert_int_equal(import_cell(fake, 2, 255), import_cell(fake, 2, 299));
	assert_int_equal(tier_bind(module, "host299", host_answer), 0);
	assert_int_equal(import_cell(fake, 2, 299), (uintptr_t)host_answer);
	assert_int_equal(tier_bind(module, "host300", host_answer), -ENOENT);
	assert_string_equal(tier_error_text(), "module 'wide' has no import 'host300'");
	/* 300 imports: 150 even ones get bound, 299 is, 1 is weak */
	assert_int_equal(tier_bind_all(module, lookup_even, &n_asked), 148);
	assert_int_equal(n_asked, 299);
	assert_int_equal(tier_entry(client_method(module, 1))(1, 2, 3, 4, 5), 42);
	tier_close(module);
	tier_disconnect(conn);
}

static void an_import_that_is_called_beyond_the_table_fails_all_the_same(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "wide");

	assert_int_equal(tier_bind(module, "host0", (void *)(uintptr_t)import_cell(fake, 2, 299)), 0);
	assert_true(call_fails(tier_entry(client_method(module, 1))));
	assert_string_equal(failure_module, "wide");
	assert_string_equal(failure_method, "#?");
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Methods --- */
static void methods_are_found_by_name_and_number(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "other");
	struct tier_method *method, *same;

	assert_string_equal(tier_module_name(module), "other");
	assert_int_equal(tier_module_id(module), 101);
	assert_int_equal(tier_module_n_methods(module), 40);
	assert_int_equal(tier_find(module, "method39", &method), 0);
	assert_string_equal(tier_method_name(method), "method39");
	assert_int_equal(tier_method_at(module, 39, &same), 0);
	assert_ptr_equal(method, same);
	assert_int_equal((uintptr_t)tier_entry(method), tier_layout_precode(&fake->modules[1].info.layout, 39));
	assert_int_equal(tier_method_at(module, 40, &method), -ENOENT);
	assert_int_equal(tier_find(module, "method40", &method), -ENOENT);
	assert_string_equal(tier_error_text(), "no such method here");
	assert_int_equal(tier_find(module, "", &method), -ENOENT);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Loading --- */
static void loading_sends_a_sealed_copy_under_the_files_name(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module;
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/demo.bpf.o", fake->folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "ELF bytes", 9), 9);
	close(fd);
	assert_int_equal(tier_load(conn, path, NULL, 0, &module), 0);
	assert_string_equal(fake->load.name, "demo");
	assert_int_equal(fake->load.flags, 0);
	assert_int_equal(fake->n_object, 9);
	assert_memory_equal(fake->object, "ELF bytes", 9);
	assert_int_equal(fake->object_seals & 15, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	tier_close(module);
	assert_int_equal(tier_load(conn, path, "other", TIER_LOAD_SHARED, NULL), 0);
	assert_string_equal(fake->load.name, "other");
	assert_int_equal(fake->load.flags, WIRE_LOAD_SHARED);
	unlink(path);
	assert_int_equal(tier_load(conn, path, NULL, 0, &module), -ENOENT);
	assert_non_null(strstr(tier_error_text(), path));
	assert_int_equal(tier_load(conn, fake->folder, "demo", 0, &module), -EISDIR);
	assert_int_equal(tier_load(conn, "/dev/null", "demo", 0, &module), -ENOEXEC);
	assert_int_equal(tier_load_bytes(conn, "bytes", 5, "demo", 0, &module), 0);
	tier_close(module);
	assert_int_equal(tier_load_bytes(conn, "bytes", 5, "broken", 0, &module), -ENOEXEC);
	assert_string_equal(tier_error_text(), "section '.text': not a module, offset 16");
	assert_int_equal(tier_load_bytes(conn, "bytes", 5, NULL, 0, &module), -EINVAL);
	assert_int_equal(tier_load_bytes(conn, "bytes", 5, "demo", 8, &module), -EINVAL);
	assert_int_equal(tier_load_bytes(conn, "", 0, "demo", 0, &module), -ENOEXEC);
	tier_disconnect(conn);
}

static void a_load_that_cannot_be_opened_leaves_no_name(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module;
	void *taken = mmap((void *)fake->modules[0].info.layout.base, FAKE_PAGE, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	assert_int_equal(tier_load_bytes(conn, "bytes", 5, "demo", 0, &module), -EADDRINUSE);
	assert_non_null(strstr(tier_error_text(), "which this process uses"));
	assert_int_equal(fake->n_requests[WIRE_UNLOAD], 1);
	munmap(taken, FAKE_PAGE);
	tier_disconnect(conn);
}

static void module_names_have_limits(void **state)
{
	struct tier_conn *conn = client_connect(fake_of(state));
	struct tier_module *module;
	char name[100];

	memset(name, 'x', sizeof(name));
	name[99] = 0;
	assert_int_equal(tier_open(conn, name, &module), -EINVAL);
	assert_int_equal(tier_open(conn, "", &module), -EINVAL);
	assert_int_equal(tier_unload(conn, ""), -EINVAL);
	assert_int_equal(tier_unload(conn, "demo"), 0);
	assert_int_equal(tier_open(conn, "nothing", &module), -ENOENT);
	assert_string_equal(tier_error_text(), "no such module here");
	tier_disconnect(conn);
}

/* -- Instantiations --- */
static void an_instantiation_opens_what_it_was_made_of(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module, *instance, *again;
	const struct tier_value values[] = { { "knob", 7 }, { "other", -1ull } };

	fake->modules[1].info.base = fake->modules[0].info.module;
	module = client_open(conn, "demo");
	assert_int_equal(tier_module_instantiate(module, values, 2, &instance), 0);
	assert_int_equal(fake->instantiate.module, fake->modules[0].info.module);
	assert_int_equal(fake->instantiate.n, 2);
	assert_string_equal(fake->instantiate.values[1].name, "other");
	assert_int_equal(fake->instantiate.values[1].value, -1ull);
	assert_int_equal(fake->instantiate.flags, 0);
	assert_int_equal(tier_module_id(instance), fake->modules[1].info.module);
	assert_int_equal(tier_module_instance(module, values, 1, &again), 0);
	assert_ptr_equal(again, instance);
	assert_int_equal(fake->instantiate.flags, WIRE_INSTANTIATE_FIND);
	tier_close(module);
	tier_close(again);
	assert_mapped(fake, 0, WHOLE);	/* its .data is in use */
	client_call(client_method(instance, 0), 1);
	tier_close(instance);
	assert_mapped(fake, 0, "");
	assert_mapped(fake, 1, "");
	assert_int_equal(fake->sessions[0].n_held[0], 0);
	assert_int_equal(fake->sessions[0].n_held[1], 0);
	tier_disconnect(conn);
}

static void an_instantiation_that_cannot_be_opened_leaves_nothing(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo"), *instance = NULL;
	const struct tier_value knob = { "knob", 7 };

	fake->modules[1].info.base = 12345;
	assert_int_equal(tier_module_instantiate(module, &knob, 1, &instance), -ENOENT);
	fake->modules[1].info.base = fake->modules[2].info.module;
	fake->modules[2].info.base = fake->modules[0].info.module;
	assert_int_equal(tier_module_instantiate(module, &knob, 1, &instance), -EPROTO);
	assert_non_null(strstr(tier_error_text(), "which was made of another one"));
	assert_null(instance);
	for (int i = 1; i < 3; i++) {
		assert_mapped(fake, i, "");
		assert_int_equal(fake->sessions[0].n_held[i], 0);
	}
	tier_close(module);
	tier_disconnect(conn);
}

static void values_have_limits(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo"), *instance;
	struct tier_value values[TIER_VALUES_MAX + 1];
	char longest[WIRE_KNOB_NAME_MAX + 1];

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	for (uint32_t i = 0; i <= TIER_VALUES_MAX; i++)
		values[i] = (struct tier_value){ longest, i };
	assert_int_equal(tier_module_instantiate(module, values, 0, &instance), -EINVAL);
	assert_int_equal(tier_module_instantiate(module, values, TIER_VALUES_MAX + 1, &instance), -EINVAL);
	assert_int_equal(tier_module_instantiate(module, values, 1, &instance), -EINVAL);
	assert_non_null(strstr(tier_error_text(), "has more than 63 characters"));
	longest[WIRE_KNOB_NAME_MAX - 1] = 0;
	assert_int_equal(tier_module_instantiate(module, values, TIER_VALUES_MAX, &instance), 0);
	tier_close(instance);
	tier_close(module);
	tier_disconnect(conn);
}

static void *open_and_close(void *context)
{
	struct tier_conn *conn = context;

	for (int i = 0; i < 50; i++) {
		struct tier_module *module = client_open(conn, "demo");

		client_call(client_method(module, 0), 1);
		tier_close(module);
	}
	return NULL;
}

static void threads_open_and_close_at_will(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conns[2] = { client_connect(fake), client_connect(fake) };
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, conns[i % 2]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_mapped(fake, 0, "");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fake->sessions[i].n_held[0], 0);
		tier_disconnect(conns[i]);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(segments_have_their_protections_and_guards),
		CASE(opening_twice_gives_the_same_module_and_data),
		CASE(two_connections_share_one_mapping),
		CASE(a_module_outlives_its_connection_as_far_as_it_has_code),
		CASE(a_span_that_is_taken_is_a_clear_error),
		CASE(too_few_descriptors_are_refused),
		CASE(a_file_that_is_too_short_is_refused),
		CASE(a_descriptor_that_is_no_file_is_refused),
		CASE(a_layout_that_overlaps_is_refused),
		CASE(patchpoints_among_other_things_are_refused),
		CASE(records_of_another_module_are_refused),
		CASE(a_process_that_may_not_gain_execution_is_served),
		CASE(data_are_private_and_start_as_loaded),
		CASE(many_imports_bind_by_name),
		CASE(an_import_that_is_called_beyond_the_table_fails_all_the_same),
		CASE(methods_are_found_by_name_and_number),
		CASE(loading_sends_a_sealed_copy_under_the_files_name),
		CASE(a_load_that_cannot_be_opened_leaves_no_name),
		CASE(module_names_have_limits),
		CASE(an_instantiation_opens_what_it_was_made_of),
		CASE(an_instantiation_that_cannot_be_opened_leaves_nothing),
		CASE(values_have_limits),
		CASE(threads_open_and_close_at_will),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
