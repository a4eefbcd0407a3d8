/* SPDX-License-Identifier: Apache-2.0 */
/* What the loader takes out of .BTF and .BTF.ext, and that nothing in them can refuse a module */
#include "object.h"
#include <elf.h>
#include "worker/child/btf.h"

static const char source[] =
	"typedef unsigned char u8; typedef unsigned long long u64;\n"
	"struct ops { u64 (*f)(u64); }; enum e { A, B };\n"
	"#define noinline __attribute__((noinline))\n"
	"static noinline u64 help(const struct ops *o, u64 (*cb)(u64, const char *const *), int n) {\n"
	"	return cb(n, 0) + o->f(1); }\n"
	"#define TAG(x) __attribute__((btf_decl_tag(x)))\n"
	"TAG(\"tier:no_optimization\") TAG(\"mine\") u64 packet(const u8 *data, u64 n) {\n"
	"	u64 s = 0;\n"
	"	for (u64 i = 0; i < n; i++)\n"
	"		s += data[i];\n"
	"	return s; }\n"
	"TAG(\"tier:aggressive_optimization\") u64 call(const struct ops *o, u64 (*cb)(u64, const char *const *)) {\n"
	"	return help(o, cb, 3); }\n"
	"TAG(\"tier:pinned\") __attribute__((section(\"x\"))) void *nothing(void) { return 0; }\n"
	"int rows(enum e x, const volatile int (*arr)[4], signed char c) { return x + (*arr)[1] + c; }\n";

static struct object_file with_debug;	/* source, clang -O2 -g -mcpu=v3 */

static int group_setup(void **state)
{
	folder_make();
	with_debug = compile("clang", "-O2 -g -mcpu=v3", source);
	return 0;
}

static int group_teardown(void **state)
{
	free(with_debug.bytes);
	return folder_remove();
}

static uint32_t find(const struct image *image, const char *name)
{
	int64_t index = image_find_method(image, name);

	if (index < 0)
		fail_msg("no method '%s'", name);
	return index;
}

static void assert_signature(const struct image *image, const char *name, const char *signature)
{
	assert_string_equal(image_method_signature(image, find(image, name)), signature);
}

/* -- Signatures --- */
static void check_signatures(const struct image *image)
{
	assert_int_equal(image->header->note, 0);
	assert_signature(image, "packet", "u64 packet(const u8 *data, u64 n)");
	assert_signature(image, "help", "u64 help(const struct ops *o, u64 (*cb)(u64, const char *const *), int n)");
	assert_signature(image, "nothing", "void *nothing(void)");
	assert_signature(image, "rows", "int rows(enum e x, const volatile int (*arr)[4], signed char c)");
	assert_int_equal(image->methods[find(image, "packet")].n_params, 2);
	assert_int_equal(image->methods[find(image, "nothing")].n_params, 0);
}

static void signatures_are_those_of_the_source(void **state)
{
	static const char *const compilers[] = { "clang", "clang-19" }, *const levels[] = { "-O1 -g", "-O2 -g", "-Os -g" };

	for (size_t c = 0; c < 1 + !system("command -v clang-19 >/dev/null"); c++)
		for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
			struct object_file object = compile(compilers[c], levels[i], source);
			void *bytes;
			struct image image = load(&object, &bytes);

			check_signatures(&image);
			free(bytes);
			free(object.bytes);
		}
}

/* Without optimization clang forgets what parameters are called. */
static void parameters_may_have_no_names(void **state)
{
	struct object_file object = compile("clang", "-O0 -g", source);
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_signature(&image, "packet", "u64 packet(const u8 *, u64)");
	assert_signature(&image, "rows", "int rows(enum e, const volatile int (*)[4], signed char)");
	assert_int_equal(image.methods[find(&image, "packet")].n_params, 2);
	free(bytes);
	free(object.bytes);
}

static uint64_t hash_of(const char *declaration)
{
	char text[512];
	struct object_file object;
	struct image image;
	uint64_t hash;
	void *bytes;

	snprintf(text, sizeof(text), "typedef unsigned long u64; typedef u64 word; struct s; enum e { A };\n%s", declaration);
	object = compile("clang", "-O2 -g", text);
	image = load(&object, &bytes);
	hash = image.methods[find(&image, "f")].signature_hash;
	free(bytes);
	free(object.bytes);
	return hash;
}

static void signatures_hash_alike_when_their_values_do(void **state)
{
	uint64_t hash = hash_of("u64 f(u64 a, char *b) { return a; }");

	assert_true(hash != 0);
	assert_true(hash == hash_of("word f(const word x, struct s *y) { return x; }"));
	assert_true(hash == hash_of("unsigned long long f(u64 a, u64 (*fn)(int)) { return a; }"));
	assert_false(hash == hash_of("u64 f(u64 a) { return a; }"));
	assert_false(hash == hash_of("u64 f(char *b, u64 a) { return a; }"));
	assert_false(hash == hash_of("long f(u64 a, char *b) { return a; }"));
	assert_false(hash == hash_of("void f(u64 a, char *b) { }"));
	assert_true(hash_of("u64 f(unsigned x) { return x; }") == hash_of("u64 f(enum e x) { return x; }"));
}

static void objects_without_debug_information_have_none(void **state)
{
	struct object_file plain = compile("clang", "-O2 -mcpu=v3", source);
	struct image image;
	void *bytes;

	image = load(&plain, &bytes);
	assert_signature(&image, "packet", "");
	assert_int_equal(image.n_lines + image.n_files + image.n_tags + image.header->note, 0);
	free(bytes);
	free(plain.bytes);
}

static void assert_same_to_run(const struct image *a, const struct image *b)
{
	assert_int_equal(a->n_methods, b->n_methods);
	for (uint32_t i = 0; i < a->n_methods; i++)
		assert_string_equal(image_method_name(a, i), image_method_name(b, i));
	assert_int_equal(a->n_insns, b->n_insns);
	assert_memory_equal(a->insns, b->insns, a->n_insns * sizeof(*a->insns));
	assert_int_equal(a->n_relocs, b->n_relocs);
	assert_int_equal(a->n_rodata, b->n_rodata);
}

static void what_runs_is_the_same_without(void **state)
{
	struct object_file plain = compile("clang", "-O2 -mcpu=v3", source);
	void *bytes[2];
	struct image images[2];

	images[0] = load(&with_debug, &bytes[0]);
	images[1] = load(&plain, &bytes[1]);
	assert_same_to_run(&images[0], &images[1]);
	free(bytes[0]);
	free(bytes[1]);
	free(plain.bytes);
}

/* -- Tags and lines --- */
static void tags_become_attributes(void **state)
{
	const struct image_method *method;
	struct image image;
	void *bytes;

	image = load(&with_debug, &bytes);
	method = &image.methods[find(&image, "packet")];
	assert_int_equal(method->flags, IMAGE_METHOD_GLOBAL | IMAGE_METHOD_NO_OPTIMIZATION);
	assert_int_equal(method->n_tags, 2);
	assert_string_equal(image.strings + image.tags[method->tag], "tier:no_optimization");
	assert_string_equal(image.strings + image.tags[method->tag + 1], "mine");
	method = &image.methods[find(&image, "call")];
	assert_int_equal(method->flags, IMAGE_METHOD_GLOBAL | IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION);
	method = &image.methods[find(&image, "nothing")];
	assert_int_equal(method->flags, IMAGE_METHOD_GLOBAL | IMAGE_METHOD_PINNED);
	assert_int_equal(image.methods[find(&image, "rows")].n_tags, 0);
	free(bytes);
}

static void instructions_have_their_lines(void **state)
{
	const struct image_method *method;
	uint32_t seen = 0;
	struct image image;
	void *bytes;

	image = load(&with_debug, &bytes);
	method = &image.methods[find(&image, "packet")];
	for (uint32_t i = image_lines_from(&image, method->insn);
	     i < image.n_lines && image.lines[i].insn < method->insn + method->n_insns; i++) {
		assert_true(image.lines[i].line >= 7 && image.lines[i].line <= 11);
		assert_non_null(strstr(image.strings + image.files[image.lines[i].file], "snippet.c"));
		seen |= 1u << image.lines[i].line;
	}
	assert_int_equal(seen, 1u << 7 | 1u << 9 | 1u << 10 | 1u << 11);
	free(bytes);
}

static void local_functions_of_one_name_have_their_own(void **state)
{
	char command[512], path[128];
	struct object_file object;
	struct image image;
	void *bytes;

	compile_as("one", "clang", "-O2 -g",
		   "static __attribute__((noinline)) long twin(long a) { return a * 3; }\nlong one(long a) { return twin(a); }\n");
	compile_as("two", "clang", "-O2 -g",
		   "static __attribute__((noinline)) int twin(char *p, int b) { return *p + b; }\n"
		   "int two(char *p) { return twin(p, 4); }\n");
	snprintf(command, sizeof(command), "PATH=$PATH:/usr/sbin bpftool gen object %s/linked.o %s/one.o %s/two.o", folder, folder,
		 folder);
	assert_int_equal(system(command), 0);
	snprintf(path, sizeof(path), "%s/linked.o", folder);
	object = read_object(path);
	image = load(&object, &bytes);
	assert_signature(&image, "twin", "long twin(long a)");
	assert_signature(&image, "twin.1", "int twin(char *p, int b)");
	assert_int_equal(image.header->note, 0);
	free(bytes);
	free(object.bytes);
}

/* -- Spoiled sections --- */
static Elf64_Shdr *section_of(const struct object_file *object, const char *name)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)object->bytes;
	Elf64_Shdr *sections = (Elf64_Shdr *)(object->bytes + header->e_shoff);
	const char *names = (const char *)object->bytes + sections[header->e_shstrndx].sh_offset;

	for (unsigned int i = 0; i < header->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, name))
			return &sections[i];
	fail_msg("no section %s", name);
	return NULL;
}

static void functions_are_found_by_name_without_ext(void **state)
{
	struct object_file object = copy_of(&with_debug);
	struct image image;
	void *bytes;

	section_of(&object, ".BTF.ext")->sh_type = SHT_NOTE;
	image = load(&object, &bytes);
	check_signatures(&image);
	assert_int_equal(image.n_lines, 0);
	free(bytes);
	free(object.bytes);
}

static void check_note(const char *section, uint32_t word, uint32_t value, const char *note)
{
	struct object_file object = copy_of(&with_debug);
	struct image image;
	void *bytes;

	memcpy(object.bytes + section_of(&object, section)->sh_offset + word * 4, &value, sizeof(value));
	image = load(&object, &bytes);
	assert_true(image.header->note != 0);
	if (!strstr(image.strings + image.header->note, note))
		fail_msg("'%s' does not say '%s'", image.strings + image.header->note, note);
	assert_int_equal(image.n_lines, 0);
	free(bytes);
	free(object.bytes);
}

static void what_is_left_out_has_a_note(void **state)
{
	check_note(".BTF", 0, 0x0001eb9e, ".BTF is left out: not BTF of version 1");
	check_note(".BTF", 0, 0x0002eb9f, "not BTF of version 1");
	check_note(".BTF", 1, 8, "not BTF of version 1");
	check_note(".BTF", 3, 0x7fffffff, "outside the section");
	check_note(".BTF", 5, 2, "begin and end");
	check_note(".BTF", 5, 1, "type 3 is of an unknown kind");	/* its name lies outside */
	check_note(".BTF", 7, 0x1f000000, "its type 1 is of an unknown kind");
	check_note(".BTF.ext", 0, 0, ".BTF.ext is left out: not of version 1");
	check_note(".BTF.ext", 3, 0xffffffff, "functions lie outside");
	check_note(".BTF.ext", 5, 0xffffffff, "lines lie outside");
	check_note(".BTF.ext", 8, 2, "impossible size");
	check_note(".BTF.ext", 10, 0x10000000, "more records");
}

/* A changed byte may change a signature, never whether and what runs. */
static void no_flipped_byte_of_debug_information_refuses_a_module(void **state)
{
	static const char *const sections[] = { ".BTF", ".BTF.ext" };
	static const uint8_t flips[] = { 0x01, 0x08, 0x80, 0xff };
	struct object_file object = copy_of(&with_debug);
	struct image original, image;
	void *original_bytes, *bytes;

	original = load(&with_debug, &original_bytes);
	for (size_t s = 0; s < ARRAY_SIZE(sections); s++) {
		const Elf64_Shdr *section = section_of(&object, sections[s]);

		for (size_t i = 0; i < section->sh_size; i++)
			for (size_t f = 0; f < ARRAY_SIZE(flips); f++) {
				object.bytes[section->sh_offset + i] ^= flips[f];
				image = load(&object, &bytes);
				assert_same_to_run(&original, &image);
				object.bytes[section->sh_offset + i] ^= flips[f];
				free(bytes);
			}
	}
	free(original_bytes);
	free(object.bytes);
}

/* -- Types that no compiler makes --- */
struct made {
	uint32_t words[2048];
	size_t n;
	struct btf btf;
};

static void made_begin(struct made *made)
{
	*made = (struct made){ .words = { 0x0001eb9f, 24 }, .n = 6 };
}

static void made_type(struct made *made, uint32_t kind, uint32_t vlen, uint32_t refers_to)
{
	made->words[made->n++] = 1;	/* "f" */
	made->words[made->n++] = kind << 24 | vlen;
	made->words[made->n++] = refers_to;
}

static void made_param(struct made *made, uint32_t type)
{
	made->words[made->n++] = 1;
	made->words[made->n++] = type;
}

static void made_end(struct made *made)
{
	char why[128];
	const char *wrong;

	made->words[3] = (made->n - 6) * 4;
	made->words[4] = made->words[3];
	made->words[5] = 4;
	memcpy(&made->words[made->n++], "\0f\0", 4);
	wrong = btf_read(&made->btf, (uint8_t *)made->words, made->n * 4, why, sizeof(why));
	if (wrong)
		fail_msg("%s", wrong);
}

enum { INT = 1, PTR, CONST = 10, FUNC = 12, PROTO = 13, TAG = 17 };

static void assert_unknown(struct made *made, uint32_t type)
{
	struct btf_signature signature;

	made_end(made);
	btf_sign(&made->btf, type, "f", &signature);
	assert_string_equal(signature.text, "");
	assert_int_equal(signature.n_params, 0);
	assert_true(signature.hash == 0);
	btf_deinit(&made->btf);
}

static void references_in_circles_or_nowhere_end_as_unknown(void **state)
{
	for (uint32_t kind = PTR; kind <= CONST; kind += CONST - PTR)
		for (uint32_t to = 3; to <= 4; to++) {
			struct made made;

			made_begin(&made);
			made_type(&made, FUNC, 1, 2);
			made_type(&made, PROTO, 0, 3);
			made_type(&made, kind, 0, to);	/* itself, or a type that does not exist */
			assert_unknown(&made, 1);
		}
}

static void functions_that_are_none_are_unknown(void **state)
{
	struct made made;

	made_begin(&made);
	made_type(&made, FUNC, 1, 1);	/* its prototype is itself */
	assert_unknown(&made, 1);
	made_begin(&made);
	made_type(&made, CONST, 0, 0);
	assert_unknown(&made, 1);
	made_begin(&made);
	made_type(&made, FUNC, 1, 2);
	assert_unknown(&made, 7);
}

static void prototypes_within_prototypes_take_bounded_time(void **state)
{
	struct made made;

	made_begin(&made);
	made_type(&made, FUNC, 1, 2);
	made_type(&made, PROTO, 20, 0);
	for (int i = 0; i < 20; i++)
		made_param(&made, 3);
	made_type(&made, PTR, 0, 2);	/* to the prototype: twenty of them in each of twenty */
	assert_unknown(&made, 1);
}

static void a_signature_has_at_most_32_parameters(void **state)
{
	for (uint32_t n = BTF_PARAMS_MAX; n <= BTF_PARAMS_MAX + 1; n++) {
		struct btf_signature signature;
		struct made made;

		made_begin(&made);
		made_type(&made, FUNC, 1, 2);
		made_type(&made, PROTO, n, 0);
		for (uint32_t i = 0; i < n; i++)
			made_param(&made, 3);
		made_type(&made, PTR, 0, 0);
		made_end(&made);
		btf_sign(&made.btf, 1, "f", &signature);
		assert_int_equal(signature.n_params, n > BTF_PARAMS_MAX ? 0 : n);
		btf_deinit(&made.btf);
	}
}

static void a_function_has_at_most_16_tags(void **state)
{
	struct made made;
	uint32_t n;

	made_begin(&made);
	made_type(&made, FUNC, 1, 2);
	made_type(&made, PROTO, 0, 0);
	for (uint32_t i = 0; i <= BTF_TAGS_MAX; i++) {
		made_type(&made, TAG, 0, 1);
		made.words[made.n++] = UINT32_MAX;
	}
	made_type(&made, TAG, 0, 2);
	made.words[made.n++] = 0;	/* on a parameter: none of the function's */
	made_end(&made);
	btf_tags(&made.btf, 1, &n);
	assert_int_equal(n, BTF_TAGS_MAX);
	btf_tags(&made.btf, 2, &n);
	assert_int_equal(n, 0);
	btf_deinit(&made.btf);
}

static void a_name_that_two_functions_have_finds_neither(void **state)
{
	struct made made;

	made_begin(&made);
	made_type(&made, FUNC, 1, 2);
	made_type(&made, PROTO, 0, 0);
	made_end(&made);
	assert_int_equal(btf_find_function(&made.btf, "f"), 1);
	assert_int_equal(btf_find_function(&made.btf, "g"), 0);
	btf_deinit(&made.btf);
	made_begin(&made);
	made_type(&made, FUNC, 1, 2);
	made_type(&made, PROTO, 0, 0);
	made_type(&made, FUNC, 0, 2);
	made_end(&made);
	assert_int_equal(btf_find_function(&made.btf, "f"), 0);
	btf_deinit(&made.btf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signatures_are_those_of_the_source),
		cmocka_unit_test(parameters_may_have_no_names),
		cmocka_unit_test(signatures_hash_alike_when_their_values_do),
		cmocka_unit_test(objects_without_debug_information_have_none),
		cmocka_unit_test(what_runs_is_the_same_without),
		cmocka_unit_test(tags_become_attributes),
		cmocka_unit_test(instructions_have_their_lines),
		cmocka_unit_test(local_functions_of_one_name_have_their_own),
		cmocka_unit_test(functions_are_found_by_name_without_ext),
		cmocka_unit_test(what_is_left_out_has_a_note),
		cmocka_unit_test(no_flipped_byte_of_debug_information_refuses_a_module),
		cmocka_unit_test(references_in_circles_or_nowhere_end_as_unknown),
		cmocka_unit_test(functions_that_are_none_are_unknown),
		cmocka_unit_test(prototypes_within_prototypes_take_bounded_time),
		cmocka_unit_test(a_signature_has_at_most_32_parameters),
		cmocka_unit_test(a_function_has_at_most_16_tags),
		cmocka_unit_test(a_name_that_two_functions_have_finds_neither),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
