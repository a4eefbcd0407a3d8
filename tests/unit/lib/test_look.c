/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* Looking into a method: pages are put together, and what a daemon should never send is refused by a sentence */

struct look {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct fake_looks *first, *second;	/* the fake's pages */
	uint32_t n_seen;
};

static void look_begin(struct look *look, void **state)
{
	*look = (struct look){ .fake = fake_of(state) };
	look->conn = client_connect(look->fake);
	look->module = client_open(look->conn, "demo");
	look->method = client_method(look->module, 0);
	look->first = &look->fake->looks[0];
	look->second = &look->fake->looks[1];
}

static void look_end(struct look *look)
{
	tier_close(look->module);
	tier_disconnect(look->conn);
}

static int see_version(const struct wire_version_row *row, void *context)
{
	((struct look *)context)->n_seen++;
	return 0;
}

static int see_name(uint32_t index, const char *name, void *context)
{
	assert_true(strlen(name) < WIRE_METHOD_NAME_MAX);
	((struct look *)context)->n_seen++;
	return 0;
}

static int see_line(const struct tier_line *line, void *context)
{
	assert_string_equal(line->file, "file.c");
	((struct look *)context)->n_seen++;
	return 0;
}

#define assert_refused(call, words)                                                                                    \
	do {                                                                                                           \
		assert_int_equal(call, -EPROTO);                                                                       \
		if (!strstr(tier_error_text(), words))                                                                 \
			fail_msg("'%s' does not say '%s'", tier_error_text(), words);                                  \
	} while (0)

static void a_description_is_terminated(void **state)
{
	struct wire_description description;
	struct look look;

	look_begin(&look, state);
	assert_int_equal(tier_describe(look.method, &description), 0);
	assert_int_equal(strlen(description.signature), sizeof(description.signature) - 1);
	look_end(&look);
}

static void versions_descend_from_page_to_page(void **state)
{
	struct look look;

	look_begin(&look, state);
	look.first->versions = (struct wire_versions){ .n = 2, .more = 1, .rows = { { .version = 9 }, { .version = 7 } } };
	look.second->versions = (struct wire_versions){ .n = 1, .rows = { { .version = 3 } } };
	assert_int_equal(tier_versions(look.method, see_version, &look), 0);
	assert_int_equal(look.n_seen, 3);
	look.second->versions.rows[0].version = 7;
	assert_refused(tier_versions(look.method, see_version, &look), "versions out of order");
	look.second->versions = (struct wire_versions){ .more = 1 };
	assert_refused(tier_versions(look.method, see_version, &look), "impossible number of versions");
	look.first->versions.n = WIRE_VERSIONS_MAX + 1;
	assert_refused(tier_versions(look.method, see_version, &look), "impossible number of versions");
	look_end(&look);
}

static void names_come_from_all_pages(void **state)
{
	struct look look;

	look_begin(&look, state);
	look.first->names = (struct wire_names){ .n = WIRE_NAMES_MAX, .more = 1 };
	memset(look.first->names.rows[0].name, 'x', sizeof(look.first->names.rows[0].name));	/* not terminated */
	look.second->names.n = 1;
	assert_int_equal(tier_related(look.method, WIRE_RELATION_CALLERS, 0, see_name, &look), 0);
	assert_int_equal(look.n_seen, WIRE_NAMES_MAX + 1);
	look.second->names.n = WIRE_NAMES_MAX + 1;
	assert_refused(tier_related(look.method, WIRE_RELATION_CALLERS, 0, see_name, &look), "impossible number of names");
	look.first->names.n = 0;
	assert_refused(tier_related(look.method, WIRE_RELATION_CALLERS, 0, see_name, &look), "impossible number of names");
	assert_int_equal(tier_related(look.method, 99, 0, see_name, &look), -EINVAL);
	look_end(&look);
}

static void instructions_stop_at_the_callers_room(void **state)
{
	uint64_t insns[WIRE_INSNS_MAX + 4];
	struct look look;
	uint32_t n;

	look_begin(&look, state);
	memset(insns, 0xee, sizeof(insns));
	look.first->insns = (struct wire_insns){ .n = WIRE_INSNS_MAX, .more = 1, .insns = { [0] = 1, [WIRE_INSNS_MAX - 1] = 2 } };
	look.second->insns = (struct wire_insns){ .n = 3, .insns = { 3, 4, 5 } };
	assert_int_equal(tier_bytecode(look.method, insns, WIRE_INSNS_MAX + 2, &n), 0);
	assert_int_equal(n, WIRE_INSNS_MAX + 3);
	assert_true(insns[0] == 1 && insns[WIRE_INSNS_MAX - 1] == 2 && insns[WIRE_INSNS_MAX] == 3 && insns[WIRE_INSNS_MAX + 1] == 4);
	assert_true(insns[WIRE_INSNS_MAX + 2] == 0xeeeeeeeeeeeeeeee);
	assert_int_equal(tier_bytecode(look.method, NULL, 0, &n), 0);
	assert_int_equal(n, WIRE_INSNS_MAX + 3);
	look.second->insns.n = WIRE_INSNS_MAX + 1;
	assert_refused(tier_bytecode(look.method, insns, 1, &n), "impossible number of instructions");
	look.second->insns = (struct wire_insns){ .more = 1 };
	assert_refused(tier_bytecode(look.method, insns, 1, &n), "impossible number of instructions");
	look_end(&look);
}

static void lines_ascend_and_have_their_files(void **state)
{
	struct look look;

	look_begin(&look, state);
	look.first->source = (struct wire_source){ .n = 2, .more = 1, .rows = { { .insn = 0, .file = 3 }, { .insn = 5, .file = 70 } } };
	look.second->source = (struct wire_source){ .n = 1, .rows = { { .insn = 6, .file = 3 } } };
	assert_int_equal(tier_lines(look.method, see_line, &look), 0);
	assert_int_equal(look.n_seen, 3);
	look.second->source.rows[0].insn = 5;
	assert_refused(tier_lines(look.method, see_line, &look), "out of order");
	look.second->source.n = WIRE_LINES_MAX + 1;
	assert_refused(tier_lines(look.method, see_line, &look), "impossible number of source lines");
	look_end(&look);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_description_is_terminated),
		CASE(versions_descend_from_page_to_page),
		CASE(names_come_from_all_pages),
		CASE(instructions_stop_at_the_callers_room),
		CASE(lines_ascend_and_have_their_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
