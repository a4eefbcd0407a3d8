/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "options.h"
#include "util/base.h"

/* The knobs that people are shown: what is in force, in the words of the command line. */

static struct options options_of(int n, char **args)
{
	struct options options;

	assert_int_equal(options_parse(&options, n, args), OPTIONS_RUN);
	return options;
}
#define OPTIONS(...)                                                                                                   \
	options_of(sizeof((char *[]){ "tierd", ##__VA_ARGS__ }) / sizeof(char *), (char *[]){ "tierd", ##__VA_ARGS__ })

static struct options_knob knob_of(const struct options *options, const char *name)
{
	struct options_knob knob;

	for (uint32_t i = 0; options_knob(options, i, &knob); i++)
		if (!strcmp(knob.name, name))
			return knob;
	fail_msg("no knob '%s'", name);
	return knob;
}

static void every_knob_is_at_its_default_until_somebody_says_otherwise(void **state)
{
	const struct options options = OPTIONS();
	struct options_knob knob;
	uint32_t n = 0;

	for (; options_knob(&options, n, &knob); n++) {
		assert_string_equal(knob.value, knob.standard);
		assert_true(*knob.value);
		assert_true(*knob.range || !strcmp(knob.name, "log-to"));
	}
	assert_in_range(n, 30, 60);
	assert_false(options_knob(&options, n, &knob));
	assert_false(options_knob(&options, UINT32_MAX, &knob));
}

static void what_is_in_force_is_said_as_on_the_command_line(void **state)
{
	const struct options options = OPTIONS("--call-count-threshold=0x4d", "--call-counting-delay", "1500us", "--osr=off",
					       "--worker-memory=1024M", "--backpatch=eager", "--events=socket", "--sweep=90s");
	static const char *const rows[][4] = {
		{ "call-count-threshold", "77", "30", "TC_CallCountThreshold" },
		{ "call-counting-delay", "1500us", "100ms", "TC_CallCountingDelayMs" },
		{ "osr", "off", "on", "TC_OnStackReplacement" },
		{ "worker-memory", "1G", "2G", "" },
		{ "backpatch", "eager", "lazy", "" },
		{ "events", "socket", "auto", "" },
		{ "sweep", "90s", "1s", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct options_knob knob = knob_of(&options, rows[i][0]);

		assert_string_equal(knob.value, rows[i][1]);
		assert_string_equal(knob.standard, rows[i][2]);
		assert_string_equal(knob.mirrors, rows[i][3]);
	}
	assert_string_equal(knob_of(&options, "osr").range, "on, off");
	assert_string_equal(knob_of(&options, "osr-hit-limit").range, "1 to 2147483647");
	assert_string_equal(knob_of(&options, "sweep").range, "1ms to 3600s");
}

static void aggressive_tiering_overrules_threshold_and_delay(void **state)
{
	const struct options options = OPTIONS("--aggressive-tiering=on", "--call-count-threshold=50", "--call-counting-delay=1s");

	assert_string_equal(knob_of(&options, "call-count-threshold").value, "1");
	assert_string_equal(knob_of(&options, "call-counting-delay").value, "0ms");
	assert_string_equal(knob_of(&options, "aggressive-tiering").value, "on");
}

static void a_mirrored_knobs_prefix_is_understood(void **state)
{
	const struct options options = OPTIONS("--tc-call-counting=off", "--tc-quick-jit", "off");

	assert_false(options.call_counting);
	assert_false(options.quick_jit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_knob_is_at_its_default_until_somebody_says_otherwise),
		cmocka_unit_test(what_is_in_force_is_said_as_on_the_command_line),
		cmocka_unit_test(aggressive_tiering_overrules_threshold_and_delay),
		cmocka_unit_test(a_mirrored_knobs_prefix_is_understood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
