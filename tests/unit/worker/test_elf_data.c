/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include "object.h"

/* What an object's symbol table tells about its variables */

static const struct image_object *variable(const struct image *image, const char *name)
{
	for (uint32_t i = 0; i < image->n_objects; i++)
		if (!strcmp(image_object_name(image, i), name))
			return &image->objects[i];
	fail_msg("no variable '%s'", name);
	return NULL;
}

static void check_variables(const char *compiler, const char *options)
{
	static const char source[] = "int shared = 7, later[3]; static long hidden = 9; const volatile int knob = 4;\n"
				     "static const char text[] = \"text\"; extern int other;\n"
				     "long f(int i) { static int calls; shared++; return hidden++ + later[i] + knob + text[i] + calls++\n"
				     "	+ other; }\n";
	struct object_file object = compile(compiler, options, source);
	const struct image_object *shared, *knob;
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	shared = variable(&image, "shared");
	assert_int_equal(shared->segment, IMAGE_DATA);
	assert_int_equal(shared->size, 4);
	assert_true(shared->is_global);
	assert_int_equal(image.data[shared->offset], 7);
	assert_int_equal(variable(&image, "later")->segment, IMAGE_BSS);
	assert_int_equal(variable(&image, "later")->size, 12);
	assert_false(variable(&image, "hidden")->is_global);
	assert_int_equal(variable(&image, "f.calls")->segment, IMAGE_BSS);
	knob = variable(&image, "knob");
	assert_int_equal(knob->segment, IMAGE_RODATA);
	assert_int_equal(image.rodata[knob->offset], 4);
	assert_ptr_equal(&image.objects[image_object_at(&image, IMAGE_DATA, shared->offset + 3)], shared);
	for (uint32_t i = 0; i < image.n_objects; i++) /* what is only declared lies elsewhere */
		assert_string_not_equal(image_object_name(&image, i), "other");
	free(bytes);
	free(object.bytes);
}

static void variables_keep_their_names_and_places(void **state)
{
	check_variables("clang", "-O0");
	check_variables("clang", "-O2 -g");
	check_variables("clang", "-O2 -fcommon -fdata-sections");
	if (!system("command -v clang-19 >/dev/null"))
		check_variables("clang-19", "-O2 -mcpu=v4");
}

static void common_variables_are_named(void **state)
{
	struct object_file object =
	        compile("clang", "-O2 -fcommon", "long a[4]; char b; long f(int i) { return a[i] + b; }");
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_int_equal(image.n_objects, 2);
	assert_int_equal(variable(&image, "a")->segment, IMAGE_BSS);
	assert_int_equal(variable(&image, "a")->size, 32);
	assert_int_equal(variable(&image, "b")->size, 1);
	assert_int_not_equal(variable(&image, "a")->offset, variable(&image, "b")->offset);
	free(bytes);
	free(object.bytes);
}

static void a_variable_whose_name_is_too_long_is_left_out(void **state)
{
	char source[1024], name[300];
	struct object_file object;
	struct image image;
	void *bytes;

	memset(name, 'v', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	snprintf(source, sizeof(source), "int %s = 3, w = 4; int f(void) { return %s++ + w++; }", name, name);
	object = compile("clang", "-O2", source);
	image = load(&object, &bytes);
	assert_int_equal(image.n_objects, 1);
	assert_string_equal(image_object_name(&image, 0), "w");
	free(bytes);
	free(object.bytes);
}

static Elf64_Sym *symbols_of(struct object_file *object, uint32_t *ret_n, const char **ret_names)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)object->bytes;
	const Elf64_Shdr *sections = (const Elf64_Shdr *)(object->bytes + header->e_shoff);

	for (uint32_t i = 1; i < header->e_shnum; i++)
		if (sections[i].sh_type == SHT_SYMTAB) {
			*ret_n = sections[i].sh_size / sizeof(Elf64_Sym);
			*ret_names = (const char *)object->bytes + sections[sections[i].sh_link].sh_offset;
			return (Elf64_Sym *)(object->bytes + sections[i].sh_offset);
		}
	fail_msg("no symbol table");
	return NULL;
}

static void a_variable_outside_its_section_is_refused(void **state)
{
	for (unsigned int spoil = 0; spoil < 2; spoil++) {
		struct object_file object = compile("clang", "-O2", "int v = 3, w = 4; int f(void) { return w++; }");
		struct refusal refusal = {};
		const char *names = NULL;
		Elf64_Sym *symbols;
		void *bytes = NULL;
		uint32_t n_symbols = 0;
		size_t n;

		symbols = symbols_of(&object, &n_symbols, &names);
		for (uint32_t i = 0; i < n_symbols; i++)
			if (!strcmp(names + symbols[i].st_name, "v"))
				*(spoil ? &symbols[i].st_size : &symbols[i].st_value) = 9;
		assert_false(elf_to_image(object.bytes, object.n, &bytes, &n, &refusal));
		assert_non_null(strstr(refusal.text, "'v'"));
		free(object.bytes);
	}
}

static int setup(void **state)
{
	folder_make();
	return 0;
}

static int teardown(void **state) { return folder_remove(); }

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(variables_keep_their_names_and_places),
	        cmocka_unit_test(common_variables_are_named),
	        cmocka_unit_test(a_variable_whose_name_is_too_long_is_left_out),
	        cmocka_unit_test(a_variable_outside_its_section_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
