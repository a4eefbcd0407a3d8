/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "arena/symtab.h"
#include "util/base.h"

/* An image needs only names here: the table looks at nothing else of it. */
struct names {
	struct image image;
	struct image_method *methods;
	char *strings;
};

static void names_init(struct names *names, uint32_t n, void (*name)(char text[32], uint32_t i))
{
	names->methods = calloc(n + 1, sizeof(*names->methods));
	names->strings = calloc(n + 1, 32);
	assert_non_null(names->methods);
	assert_non_null(names->strings);
	for (uint32_t i = 0; i < n; i++) {
		names->methods[i].name = i * 32;
		name(names->strings + i * 32, i);
	}
	names->image = (struct image){ .methods = names->methods, .strings = names->strings, .n_methods = n };
}

static void names_deinit(struct names *names)
{
	free(names->methods);
	free(names->strings);
}

static void number_name(char text[32], uint32_t i) { snprintf(text, 32, "method_%u", i); }
static void twin_name(char text[32], uint32_t i) { snprintf(text, 32, "method_%u", i / 2); }
static void long_name(char text[32], uint32_t i) { memset(text, 'a', i % 32); }

static void every_name_finds_its_method_and_no_other_does(void **state)
{
	struct symtab *symtab;
	struct names names;
	char text[32];

	names_init(&names, 1000, number_name);
	assert_int_equal(symtab_new(&symtab, &names.image, SYMTAB_METHODS), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		number_name(text, i);
		assert_int_equal(symtab_find(symtab, text), i);
	}
	assert_int_equal(symtab_find(symtab, "method_1000"), -1);
	assert_int_equal(symtab_find(symtab, "method_"), -1);
	assert_int_equal(symtab_find(symtab, ""), -1);
	symtab_free(symtab);
	names_deinit(&names);
}

static void of_two_methods_with_one_name_the_first_is_found(void **state)
{
	struct symtab *symtab;
	struct names names;
	char text[32];

	names_init(&names, 100, twin_name);
	assert_int_equal(symtab_new(&symtab, &names.image, SYMTAB_METHODS), 0);
	for (uint32_t i = 0; i < 100; i++) {
		twin_name(text, i);
		assert_int_equal(symtab_find(symtab, text), i & ~1u);
		assert_int_equal(symtab_find(symtab, text), image_find_method(&names.image, text));
	}
	symtab_free(symtab);
	names_deinit(&names);
}

static void names_of_every_length_are_told_apart(void **state)
{
	struct symtab *symtab;
	struct names names;

	names_init(&names, 32, long_name);
	assert_int_equal(symtab_new(&symtab, &names.image, SYMTAB_METHODS), 0);
	for (uint32_t i = 0; i < 32; i++)
		assert_int_equal(symtab_find(symtab, names.strings + i * 32), i);
	symtab_free(symtab);
	names_deinit(&names);
}

static void imports_have_names_too(void **state)
{
	const struct image_import imports[] = { { .name = 0 }, { .name = 2 } };
	const struct image image = { .imports = imports, .n_imports = 2, .strings = "a\0b" };
	struct symtab *symtab;

	assert_int_equal(symtab_new(&symtab, &image, SYMTAB_IMPORTS), 0);
	assert_int_equal(symtab_find(symtab, "b"), 1);
	assert_int_equal(symtab_find(symtab, "c"), -1);
	symtab_free(symtab);
}

static void of_variables_the_global_one_is_found_and_several_others_are_ambiguous(void **state)
{
	const struct image_object objects[] = {
		{ .name = 0, .offset = 0 }, { .name = 2, .offset = 8 }, { .name = 2, .offset = 8, .size = 8 },
		{ .name = 0, .offset = 16, .is_global = 1 }, { .name = 4, .offset = 24 }, { .name = 4, .offset = 32 },
		{ .name = 4, .offset = 32 }, { .name = 0, .segment = IMAGE_BSS },
	};
	const struct image image = { .objects = objects, .n_objects = 8, .strings = "a\0b\0c" };
	struct symtab *symtab;

	assert_int_equal(symtab_new(&symtab, &image, SYMTAB_OBJECTS), 0);
	assert_int_equal(symtab_find(symtab, "a"), 3);
	assert_int_equal(objects[symtab_find(symtab, "b")].offset, 8);
	assert_int_equal(symtab_find(symtab, "c"), SYMTAB_AMBIGUOUS);
	assert_int_equal(symtab_find(symtab, "d"), -1);
	symtab_free(symtab);
}

static void a_module_without_methods_has_no_names(void **state)
{
	struct symtab *symtab;
	struct names names;

	names_init(&names, 0, number_name);
	assert_int_equal(symtab_new(&symtab, &names.image, SYMTAB_METHODS), 0);
	assert_int_equal(symtab_find(symtab, "main"), -1);
	assert_null(symtab_free(symtab));
	assert_null(symtab_free(NULL));
	names_deinit(&names);
}

static void the_time_for_twenty_thousand_names_is_printed(void **state)
{
	struct symtab *symtab;
	struct names names;
	clock_t before;

	names_init(&names, 20000, number_name);
	before = clock();
	assert_int_equal(symtab_new(&symtab, &names.image, SYMTAB_METHODS), 0);
	print_message("20000 names: table made in %.2f ms\n", (clock() - before) * 1e3 / CLOCKS_PER_SEC);
	assert_int_equal(symtab_find(symtab, "method_19999"), 19999);
	symtab_free(symtab);
	names_deinit(&names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_name_finds_its_method_and_no_other_does),
		cmocka_unit_test(of_two_methods_with_one_name_the_first_is_found),
		cmocka_unit_test(names_of_every_length_are_told_apart),
		cmocka_unit_test(imports_have_names_too),
		cmocka_unit_test(of_variables_the_global_one_is_found_and_several_others_are_ambiguous),
		cmocka_unit_test(a_module_without_methods_has_no_names),
		cmocka_unit_test(the_time_for_twenty_thousand_names_is_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
