/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "code.h"

/* -- A fresh image, spoiled in one place and signed again --- */

static struct image_header *image_new(void)
{
	const struct insn insns[] = { MOV_K(0, 1), EXIT };
	void *bytes;

	code_image(&bytes, insns, 2);
	return bytes;
}

static bool accepts(struct image_header *header, size_t n, struct refusal *refusal)
{
	struct image image;

	if (n >= sizeof(*header))
		header->hash = image_hash(header, n);
	return image_check(header, n, &image, refusal);
}

#define assert_refused(header, word)                                                                                   \
	do {                                                                                                           \
		struct refusal _refusal = {};                                                                          \
		size_t _n = (header)->size;                                                                            \
		assert_false(accepts(header, _n, &_refusal));                                                          \
		if (!strstr(_refusal.text, word))                                                                      \
			fail_msg("'%s' does not say '%s'", _refusal.text, word);                                       \
		free(header);                                                                                          \
	} while (0)

/* the same with one statement about it */
#define spoil(statement, word)                                                                                         \
	do {                                                                                                           \
		struct image_header *h = image_new();                                                                  \
		statement;                                                                                             \
		assert_refused(h, word);                                                                               \
	} while (0)

static void *at(struct image_header *header, struct image_table table, size_t element, uint32_t index)
{
	return (char *)header + table.offset + element * index;
}
#define METHOD(i) ((struct image_method *)at(h, h->methods, sizeof(struct image_method), i))
#define IMPORT(i) ((struct image_import *)at(h, h->imports, sizeof(struct image_import), i))
#define RELOC(i) ((struct image_reloc *)at(h, h->relocs, sizeof(struct image_reloc), i))
#define TAG(i) ((uint32_t *)at(h, h->tags, sizeof(uint32_t), i))
#define FILE_NAME(i) ((uint32_t *)at(h, h->files, sizeof(uint32_t), i))
#define LINE(i) ((struct image_line *)at(h, h->lines, sizeof(struct image_line), i))
#define OBJECT(i) ((struct image_object *)at(h, h->objects, sizeof(struct image_object), i))
#define STRING(i) ((char *)at(h, h->strings, 1, i))

static void what_a_builder_wrote_is_read_back(void **state)
{
	const struct insn insns[] = { MOV_K(0, 1), EXIT };
	struct image image;
	void *bytes;

	image = code_image(&bytes, insns, 2);
	assert_int_equal(image.n_methods, 2);
	assert_int_equal(image.n_insns, 4);
	assert_int_equal(image.n_rodata, 64);
	assert_int_equal(image.n_data, 32);
	assert_int_equal(image.n_bss, 16);
	assert_int_equal(image.header->align[IMAGE_RODATA], 16);
	assert_string_equal(image_method_name(&image, 1), "other");
	assert_string_equal(image.strings + image.methods[0].section, ".text");
	assert_memory_equal(image_method_insns(&image, 0), insns, sizeof(insns));
	assert_string_equal(image_import_name(&image, 1), "maybe");
	assert_int_equal(image.imports[1].flags, IMAGE_IMPORT_WEAK);
	assert_int_equal(image.n_relocs, 3);
	assert_int_equal(image_find_method(&image, "other"), 1);
	assert_int_equal(image_find_method(&image, "othe"), -1);
	free(bytes);
}

static void what_debug_information_told_is_read_back(void **state)
{
	const struct insn insns[] = { MOV_K(0, 1), EXIT };
	struct image image;
	void *bytes;

	image = code_image(&bytes, insns, 2);
	assert_int_equal(image.methods[0].flags, IMAGE_METHOD_GLOBAL | IMAGE_METHOD_NO_OPTIMIZATION);
	assert_string_equal(image_method_signature(&image, 0), "u64 m(u64 n)");
	assert_string_equal(image_method_signature(&image, 1), "");
	assert_int_equal(image.methods[0].n_params, 1);
	assert_int_equal(image.methods[0].signature_hash, 0x1234);
	assert_int_equal(image.methods[0].n_tags, 2);
	assert_string_equal(image.strings + image.tags[image.methods[0].tag + 1], "mine");
	assert_int_equal(image.methods[1].n_tags, 1);
	assert_string_equal(image.strings + image.tags[image.methods[1].tag], "mine, too");
	assert_int_equal(image.n_lines, 3);
	assert_int_equal(image_lines_from(&image, 0), 0);
	assert_int_equal(image_lines_from(&image, 1), 1);
	assert_int_equal(image_lines_from(&image, image.methods[1].insn), 1);
	assert_int_equal(image_lines_from(&image, 4), 3);
	assert_string_equal(image.strings + image.files[image.lines[1].file], "other.h");
	assert_int_equal(image.header->note, 0);
	free(bytes);
}

static void a_variable_is_found_by_its_bytes(void **state)
{
	const struct insn insns[] = { MOV_K(0, 1), EXIT };
	struct image image;
	void *bytes;

	image = code_image(&bytes, insns, 2);
	assert_int_equal(image.n_objects, 5);
	assert_string_equal(image_object_name(&image, 0), "table");
	assert_int_equal(image_object_at(&image, IMAGE_RODATA, 0), 0);
	assert_int_equal(image_object_at(&image, IMAGE_RODATA, 15), 0);
	assert_int_equal(image_object_at(&image, IMAGE_RODATA, 16), 0);	/* just behind it */
	assert_int_equal(image_object_at(&image, IMAGE_RODATA, 17), -1);
	assert_int_equal(image_object_at(&image, IMAGE_DATA, 7), -1);
	assert_string_equal(image_object_name(&image, image_object_at(&image, IMAGE_DATA, 8)), "limit");	/* the global one */
	assert_int_equal(image_object_at(&image, IMAGE_DATA, 17), -1);
	assert_string_equal(image_object_name(&image, image_object_at(&image, IMAGE_DATA, 32)), "end");
	assert_string_equal(image_object_name(&image, image_object_at(&image, IMAGE_BSS, 4)), "count");
	assert_int_equal(image_object_at(&image, IMAGE_BSS, UINT64_MAX), -1);
	free(bytes);
}

static void hostile_variables_are_refused(void **state)
{
	spoil(OBJECT(0)->name = h->strings.n, "name");
	spoil(OBJECT(0)->segment = _IMAGE_SEGMENT_N, "outside");
	spoil(OBJECT(0)->is_global = 2, "outside");
	spoil(OBJECT(0)->reserved[1] = 1, "outside");
	spoil(OBJECT(0)->offset = 65, "outside");
	spoil(OBJECT(4)->size = 17, "outside");
	spoil(OBJECT(4)->size = UINT32_MAX, "outside");
	spoil(OBJECT(3)->offset = 7, "out of order");
	spoil(OBJECT(2)->is_global = 0, "out of order");
	spoil(OBJECT(1)->segment = IMAGE_BSS; OBJECT(1)->offset = 0, "out of order");
	spoil(h->objects.n = IMAGE_OBJECTS_MAX + 1, "variables");
	spoil(h->objects.offset = h->size, "variables");
	spoil(h->precompiled.n = IMAGE_PRECOMPILED_MAX + 1, "precompiled code");
	spoil(h->precompiled.n = h->size, "precompiled code");
	spoil(h->precompiled.offset = 8, "precompiled code");
}

static void a_note_says_what_is_missing(void **state)
{
	struct builder builder = BUILDER_NULL;
	struct refusal refusal;
	struct image image;
	void *bytes;
	size_t n;

	builder_method(&builder, "f", builder_string(&builder, "s"), 0, 0, &EXIT, 1);
	builder_note(&builder, ".BTF is left out: no reason");
	assert_int_equal(builder_finish(&builder, &bytes, &n), 0);
	assert_true(image_check(bytes, n, &image, &refusal));
	assert_string_equal(image.strings + image.header->note, ".BTF is left out: no reason");
	builder_deinit(&builder);
	free(bytes);
}

static void precompiled_code_is_handed_on_and_does_not_change_what_the_image_is(void **state)
{
	static const char code[] = "anything";
	struct refusal refusal = {};
	struct image plain, image;
	void *bytes[2];
	size_t n;

	for (int i = 0; i < 2; i++) {
		struct builder builder = BUILDER_NULL;

		builder_method(&builder, "m", builder_string(&builder, ".text"), 0, 0, (struct insn[]){ MOV_K(0, 7), EXIT }, 2);
		if (i)
			builder_precompiled(&builder, code, sizeof(code));
		assert_int_equal(builder_finish(&builder, &bytes[i], &n), 0);
		assert_true(image_check(bytes[i], n, i ? &image : &plain, &refusal));
		builder_deinit(&builder);
	}
	assert_int_equal(plain.n_precompiled, 0);
	assert_int_equal(image.n_precompiled, sizeof(code));
	assert_memory_equal(image.precompiled, code, sizeof(code));
	assert_int_equal((uintptr_t)image.precompiled % 8, 0);
	assert_int_not_equal(image.header->hash, plain.header->hash);
	assert_int_equal(image_content_hash(&image), image_content_hash(&plain));
	for (int i = 0; i < 2; i++)
		free(bytes[i]);
}

static void segments_are_merged_at_their_alignment(void **state)
{
	struct builder builder = BUILDER_NULL;
	struct refusal refusal;
	struct image image;
	void *bytes;
	size_t n;

	assert_int_equal(builder_segment(&builder, IMAGE_RODATA, "abc", 3, 1), 0);
	assert_int_equal(builder_segment(&builder, IMAGE_RODATA, "12345678", 8, 8), 8);
	assert_int_equal(builder_segment(&builder, IMAGE_BSS, NULL, 5, 4), 0);
	assert_int_equal(builder_segment(&builder, IMAGE_BSS, NULL, 1, 64), 64);
	builder_method(&builder, "f", builder_string(&builder, "s"), 0, 0, &EXIT, 1);
	assert_int_equal(builder_finish(&builder, &bytes, &n), 0);
	assert_true(image_check(bytes, n, &image, &refusal));
	assert_memory_equal(image.rodata, "abc\0\0\0\0\00012345678", 16);
	assert_int_equal(image.n_bss, 65);
	assert_int_equal(image.header->align[IMAGE_BSS], 64);
	builder_deinit(&builder);
	free(bytes);
}

static void a_builder_remembers_that_a_limit_was_passed(void **state)
{
	struct builder builder = BUILDER_NULL;
	void *bytes = NULL;
	size_t n;

	builder_segment(&builder, IMAGE_BSS, NULL, IMAGE_SEGMENT_MAX, 1);
	assert_int_equal(builder.error, 0);
	builder_segment(&builder, IMAGE_BSS, NULL, 1, 1);
	builder_string(&builder, "ignored from now on");
	assert_null(builder_bytes(&builder, IMAGE_DATA, 0, 1));
	assert_int_equal(builder_finish(&builder, &bytes, &n), -EFBIG);
	assert_null(bytes);
	builder_deinit(&builder);
	for (uint32_t i = 0; i <= IMAGE_IMPORTS_MAX; i++) {
		assert_int_equal(builder.error, 0);
		builder_import(&builder, "x", 0);
	}
	assert_int_equal(builder_finish(&builder, &bytes, &n), -EFBIG);
	builder_deinit(&builder);
}

static void the_hash_is_that_of_the_content(void **state)
{
	struct image_header *h = image_new();
	struct refusal refusal = {};
	struct image image;

	h->hash ^= 1;
	assert_false(image_check(h, h->size, &image, &refusal));
	assert_non_null(strstr(refusal.text, "hash"));
	free(h);
}

static void every_header_field_is_checked(void **state)
{
	spoil(h->magic ^= 1, "not a module image");
	spoil(h->flags = 1, "flags");
	spoil(h->reserved = 1, "flags");
	spoil(h->note = h->strings.n, "outside the strings");
	spoil(h->n_bss = IMAGE_SEGMENT_MAX + 1, ".bss");
	spoil(h->align[0] = 0, "alignment 0");
	spoil(h->align[1] = 24, "alignment 24");
	spoil(h->align[2] = IMAGE_ALIGN_MAX * 2, "alignment");
}

static void the_size_must_be_that_of_the_bytes(void **state)
{
	struct image_header *h = image_new();
	struct refusal refusal = {};
	uint32_t n = h->size;

	assert_true(accepts(h, n, &refusal));
	h->size = n - 8;
	assert_false(accepts(h, n, &refusal));
	h->size = n;
	for (uint32_t less = 0; less < n; less++)
		assert_false(accepts(h, less, &refusal));
	assert_true(accepts(h, n, &refusal));
	free(h);
}

static void bytes_that_are_not_aligned_are_refused(void **state)
{
	struct image_header *h = image_new();
	struct refusal refusal = {};
	uint32_t n = h->size;
	struct image image;
	char *shifted = malloc(n + 8);

	memcpy(shifted + 4, h, n);
	assert_false(image_check(shifted + 4, n, &image, &refusal));
	assert_non_null(strstr(refusal.text, "aligned"));
	free(shifted);
	free(h);
}

static void every_table_lies_inside_the_image(void **state)
{
	const size_t tables[] = {
		offsetof(struct image_header, methods), offsetof(struct image_header, insns),
		offsetof(struct image_header, relocs),	offsetof(struct image_header, imports),
		offsetof(struct image_header, strings), offsetof(struct image_header, rodata),
		offsetof(struct image_header, data),	offsetof(struct image_header, tags),
		offsetof(struct image_header, files),	offsetof(struct image_header, lines),
	};

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
#define TABLE ((struct image_table *)((char *)h + tables[i]))
		spoil(TABLE->offset = 0, "inside the header");
		spoil(TABLE->offset = sizeof(*h) - 8, "inside the header");
		spoil(TABLE->offset += 4, "aligned");
		spoil((TABLE->offset = h->size, TABLE->n = 1), "outside");
		spoil(TABLE->offset = 0xfffffff8u, "outside");
		spoil(TABLE->n = h->size, "");
		spoil(TABLE->n = UINT32_MAX, "");
#undef TABLE
	}
}

static void counts_beyond_the_limits_are_refused(void **state)
{
	spoil(h->methods.n = IMAGE_METHODS_MAX + 1, "more than");
	spoil(h->insns.n = IMAGE_INSNS_MAX + 1, "more than");
	spoil(h->relocs.n = IMAGE_RELOCS_MAX + 1, "more than");
	spoil(h->imports.n = IMAGE_IMPORTS_MAX + 1, "more than");
	spoil(h->rodata.n = IMAGE_SEGMENT_MAX + 1, "more than");
	spoil(h->data.n = IMAGE_SEGMENT_MAX + 1, "more than");
	spoil(h->tags.n = IMAGE_TAGS_MAX + 1, "more than");
	spoil(h->files.n = IMAGE_FILES_MAX + 1, "more than");
	spoil(h->lines.n = IMAGE_INSNS_MAX + 1, "more than");
}

static void names_are_terminated_short_and_printable(void **state)
{
	spoil(STRING(h->strings.n - 1)[0] = 'x', "NUL");
	spoil(METHOD(0)->name = h->strings.n, "outside the strings");
	spoil(METHOD(0)->section = UINT32_MAX, "outside the strings");
	spoil(METHOD(1)->section = UINT32_MAX, "outside the strings");
	spoil(IMPORT(0)->name = h->strings.n, "outside the strings");
	spoil(METHOD(0)->name = h->strings.n - 1, "no bytes");
	spoil(STRING(METHOD(1)->name)[0] = '\033', "control character");
	spoil(STRING(IMPORT(1)->name)[2] = 0x7f, "control character");
	spoil(METHOD(0)->signature = h->strings.n, "outside the strings");
	spoil(METHOD(0)->signature = h->strings.n - 1, "no bytes");
	spoil(STRING(METHOD(0)->signature)[3] = '\n', "control character");
	spoil(*TAG(2) = h->strings.n, "outside the strings");
	spoil(STRING(*TAG(0))[0] = 1, "control character");
	spoil(*FILE_NAME(1) = UINT32_MAX, "outside the strings");
	spoil(STRING(*FILE_NAME(0))[0] = 0, "no bytes");
}

static void a_name_has_at_most_255_bytes(void **state)
{
	struct builder builder = BUILDER_NULL;
	struct refusal refusal;
	struct image image;
	char name[258];
	void *bytes;
	size_t n;

	for (size_t length = 255; length <= 256; length++) {
		memset(name, 'n', length);
		name[length] = 0;
		builder_method(&builder, name, builder_string(&builder, "s"), 0, 0, &EXIT, 1);
		assert_int_equal(builder_finish(&builder, &bytes, &n), 0);
		assert_int_equal(image_check(bytes, n, &image, &refusal), length == 255);
		builder_deinit(&builder);
		free(bytes);
	}
}

static void methods_have_instructions_of_their_own(void **state)
{
	spoil(METHOD(0)->n_insns = 0, "none");
	spoil(METHOD(0)->n_insns = 3, "overlap");
	spoil(METHOD(1)->insn = 1, "overlap");
	spoil(METHOD(1)->insn = 5, "outside");
	spoil(METHOD(1)->n_insns = 3, "outside");
	spoil(METHOD(1)->n_insns = UINT32_MAX, "outside");
	spoil(METHOD(0)->flags = _IMAGE_METHOD_FLAGS + 1, "flags");
	spoil(METHOD(0)->section_offset = 4, "section offset 4");
	spoil(IMPORT(0)->flags = 2, "flags");
}

static void a_method_has_tags_of_its_own(void **state)
{
	spoil(METHOD(1)->tag = 1, "overlap");
	spoil(METHOD(1)->tag = 3, "outside");
	spoil(METHOD(1)->n_tags = 2, "outside");
	spoil(METHOD(1)->n_tags = UINT32_MAX, "outside");
	spoil((METHOD(1)->n_tags = 0, METHOD(1)->tag = UINT32_MAX), "outside");
	spoil(METHOD(1)->n_params = 1, "without a signature");
	spoil(METHOD(1)->signature_hash = 1, "without a signature");
}

static void lines_name_instructions_and_files_in_order(void **state)
{
	spoil(LINE(2)->insn = 4, "does not exist");
	spoil(LINE(1)->insn = 3, "out of order");
	spoil(LINE(0)->insn = 2, "out of order");
	spoil(LINE(1)->file = 2, "does not exist");
}

static void relocations_lie_in_their_segment_in_order(void **state)
{
	spoil(RELOC(0)->segment = IMAGE_BSS, "illegal");
	spoil(RELOC(0)->segment = 200, "illegal");
	spoil(RELOC(2)->segment = IMAGE_RODATA, "overlaps");
	spoil(RELOC(0)->segment = IMAGE_DATA, "out of order");
	spoil(RELOC(0)->width = 2, "illegal");
	spoil(RELOC(0)->pad = 1, "illegal");
	spoil(RELOC(1)->offset = 7, "overlaps");
	spoil(RELOC(1)->offset = 57, "outside");
	spoil(RELOC(1)->offset = UINT32_MAX, "outside");
	spoil(RELOC(2)->offset = 25, "outside");
}

static void relocations_refer_to_what_exists(void **state)
{
	spoil(RELOC(0)->ref = INSN_REF_NONE, "nothing");
	spoil(RELOC(0)->ref = _INSN_REF_N, "nothing");
	spoil(RELOC(0)->index = 2, "nothing");
	spoil(RELOC(0)->addend = 8, "nothing");
	spoil(RELOC(1)->index = 1, "nothing");
	spoil(RELOC(1)->addend = 33, "nothing");
	spoil(RELOC(1)->addend = -1, "nothing");
	spoil((RELOC(1)->ref = INSN_REF_BSS, RELOC(1)->addend = 17), "nothing");
	spoil((RELOC(1)->ref = INSN_REF_RODATA, RELOC(1)->addend = 65), "nothing");
	spoil(RELOC(2)->index = 2, "nothing");
}

/* Whatever a worker sends: an answer, and an image that may be walked when the answer is yes. */
static void no_single_changed_byte_leads_astray(void **state)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	struct image_header *h = image_new();
	uint32_t n = h->size;
	struct image image;

	for (uint32_t i = 0; i < n; i++)
		for (size_t v = 0; v < sizeof(values); v++) {
			struct refusal refusal = {};
			uint8_t *byte = (uint8_t *)h + i, saved = *byte;
			uint64_t hash = h->hash;

			*byte = values[v];
			if (i < offsetof(struct image_header, hash) || i >= sizeof(*h))
				h->hash = image_hash(h, n);
			if (!image_check(h, n, &image, &refusal))
				assert_true(strlen(refusal.text) > 0);
			else
				for (uint32_t m = 0; m < image.n_methods; m++)
					assert_true(strlen(image_method_name(&image, m)) <= IMAGE_NAME_MAX
						    && strlen(image_method_signature(&image, m)) <= IMAGE_SIGNATURE_MAX);
			*byte = saved;
			h->hash = hash;
		}
	free(h);
}

static void a_refusal_never_carries_control_characters(void **state)
{
	struct refusal refusal;

	refuse(&refusal, "method '%s'", "a\033[31m\nb");
	assert_string_equal(refusal.text, "method 'a?[31m?b'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_builder_wrote_is_read_back),
		cmocka_unit_test(what_debug_information_told_is_read_back),
		cmocka_unit_test(a_variable_is_found_by_its_bytes),
		cmocka_unit_test(hostile_variables_are_refused),
		cmocka_unit_test(a_note_says_what_is_missing),
		cmocka_unit_test(precompiled_code_is_handed_on_and_does_not_change_what_the_image_is),
		cmocka_unit_test(segments_are_merged_at_their_alignment),
		cmocka_unit_test(a_builder_remembers_that_a_limit_was_passed),
		cmocka_unit_test(the_hash_is_that_of_the_content),
		cmocka_unit_test(every_header_field_is_checked),
		cmocka_unit_test(the_size_must_be_that_of_the_bytes),
		cmocka_unit_test(bytes_that_are_not_aligned_are_refused),
		cmocka_unit_test(every_table_lies_inside_the_image),
		cmocka_unit_test(counts_beyond_the_limits_are_refused),
		cmocka_unit_test(names_are_terminated_short_and_printable),
		cmocka_unit_test(a_name_has_at_most_255_bytes),
		cmocka_unit_test(methods_have_instructions_of_their_own),
		cmocka_unit_test(a_method_has_tags_of_its_own),
		cmocka_unit_test(lines_name_instructions_and_files_in_order),
		cmocka_unit_test(relocations_lie_in_their_segment_in_order),
		cmocka_unit_test(relocations_refer_to_what_exists),
		cmocka_unit_test(no_single_changed_byte_leads_astray),
		cmocka_unit_test(a_refusal_never_carries_control_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
