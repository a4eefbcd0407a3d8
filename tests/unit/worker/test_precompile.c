/* SPDX-License-Identifier: Apache-2.0 */
/* Objects with code inside: made by the worker, checked as the daemon does, and spoiled in every place */
#include "main_object.h"
#include "worker/child/codegen.h"
#include "worker/child/elf_append.h"
#include "worker/child/identity.h"
#include "worker/child/precompile.h"
#include "worker/precompiled.h"

static struct object_file with_code; /* main_object, precompiled */

static struct object_file precompiled_of(const struct object_file *object)
{
	struct object_file copy = copy_of(object), ret;
	struct refusal refusal = {};
	void *bytes;

	if (!precompile(copy.bytes, copy.n, &bytes, &ret.n, &refusal))
		fail_msg("%s", refusal.text);
	ret.bytes = bytes;
	free(copy.bytes);
	return ret;
}

static int setup(void **state)
{
	assert_int_equal(codegen_init(), 0);
	assert_int_equal(identity_init(), 0);
	assert_int_equal(group_setup(state), 0);
	with_code = precompiled_of(&main_object);
	return 0;
}

static int teardown(void **state)
{
	free(with_code.bytes);
	return group_teardown(state);
}

static bool fits(const struct image *image, const struct compiler *here, struct precompiled *ret, struct refusal *why)
{
	const struct precompiled_place place = precompiled_place(image);

	return precompiled_check(ret, image, here, &place, why);
}

static void assert_unfit(const struct image *image, const struct compiler *here, const char *word)
{
	struct precompiled precompiled;
	struct refusal why = {};

	assert_false(fits(image, here, &precompiled, &why));
	if (!strstr(why.text, word))
		fail_msg("'%s' does not say '%s'", why.text, word);
}

/* -- Making it --- */
static void every_method_gets_code_that_names_whom_it_inlined(void **state)
{
	void *bytes;
	struct image image = load(&with_code, &bytes);
	struct precompiled precompiled;
	struct refusal why = {};
	struct code_result code;

	if (!fits(&image, identity(), &precompiled, &why))
		fail_msg("%s", why.text);
	assert_int_equal(precompiled.n_methods, image.n_methods);
	assert_int_equal(precompiled.n_codes, image.n_methods);
	for (uint32_t i = 0; i < image.n_methods; i++)
		assert_true(precompiled_has(&precompiled, i));
	assert_false(precompiled_has(&precompiled, image.n_methods));
	precompiled_get(&precompiled, find(&image, "outer"), &code);
	assert_true(code.n_bytes > 0);
	assert_int_equal(code.n_inlined, 1);
	assert_int_equal(code.inlined[0], find(&image, "leaf"));
	free(bytes);
}

static void the_object_gives_the_same_image_otherwise(void **state)
{
	void *bytes, *plain_bytes;
	struct image image = load(&with_code, &bytes), plain = load(&main_object, &plain_bytes);

	assert_int_equal(plain.n_precompiled, 0);
	assert_true(image.n_precompiled > 0);
	assert_int_equal((uintptr_t)image.precompiled % 8, 0);
	assert_int_equal(image_content_hash(&image), image_content_hash(&plain));
	assert_memory_equal(image.header + 1, plain.header + 1,
			    plain.header->precompiled.offset - sizeof(*plain.header));
	free(plain_bytes);
	free(bytes);
}

static void what_the_object_had_stays_where_it_was(void **state)
{
	const size_t head = sizeof(Elf64_Ehdr);

	assert_memory_equal(with_code.bytes + head, main_object.bytes + head, main_object.n - head);
}

static void code_that_was_there_is_replaced(void **state)
{
	struct object_file again = precompiled_of(&with_code);
	void *bytes, *first_bytes;
	struct image image = load(&again, &bytes), first = load(&with_code, &first_bytes);
	Elf64_Ehdr header, first_header;

	memcpy(&header, again.bytes, sizeof(header));
	memcpy(&first_header, with_code.bytes, sizeof(first_header));
	assert_int_equal(header.e_shnum, first_header.e_shnum);
	assert_int_equal(image.n_precompiled, first.n_precompiled);
	assert_memory_equal(image.precompiled, first.precompiled, image.n_precompiled);
	assert_int_equal(again.n, with_code.n);		/* and nothing of it stays behind */
	assert_memory_equal(again.bytes, with_code.bytes, again.n);
	free(first_bytes);
	free(bytes);
	free(again.bytes);
}

static void who_must_not_be_optimized_has_none(void **state)
{
	struct object_file object = compile("clang", "-O2 -g",
					    "__attribute__((btf_decl_tag(\"tier:no_optimization\")))\n"
					    "unsigned long long slow(unsigned long long x) { return x + 1; }\n"
					    "unsigned long long fast(unsigned long long x) { return x + 2; }\n");
	struct object_file made = precompiled_of(&object);
	void *bytes;
	struct image image = load(&made, &bytes);
	struct precompiled precompiled;
	struct refusal why;

	assert_true(fits(&image, identity(), &precompiled, &why));
	assert_false(precompiled_has(&precompiled, find(&image, "slow")));
	assert_true(precompiled_has(&precompiled, find(&image, "fast")));
	assert_int_equal(precompiled.n_codes, 1);
	free(bytes);
	free(made.bytes);
	free(object.bytes);
}

static void what_is_no_object_is_refused(void **state)
{
	struct refusal refusal = {};
	void *bytes;
	size_t n;

	assert_false(precompile("not an object, but long enough for a header of one: sixty-four!!", 64, &bytes, &n,
				&refusal));
	assert_non_null(strstr(refusal.text, "not an ELF object"));
}

/* -- Checking it --- */
static void another_compiler_is_named(void **state)
{
	void *bytes;
	struct image image = load(&with_code, &bytes);
	struct compiler other = *identity();

	strcpy(other.cpu, "abacus");
	assert_unfit(&image, &other, "this one is 'abacus'");
	other = *identity();
	other.features++;
	assert_unfit(&image, &other, "other features");
	other = *identity();
	strcpy(other.version, "0.0.9");
	assert_unfit(&image, &other, "this is 0.0.9");
	other = *identity();
	strcpy(other.llvm, "7.0");
	assert_unfit(&image, &other, "with 7.0");
	other = *identity();
	other.build++;
	assert_unfit(&image, &other, "another build");
	free(bytes);
}

/* The section of @from in an object that has other bytecode */
static void code_of_other_bytecode_does_not_fit(void **state)
{
	struct object_file other = compile("clang", "-O2",
					   "unsigned long long f(unsigned long long x) { return x; }\n"),
			   mixed;
	struct refusal refusal;
	void *bytes, *mixed_bytes, *image_bytes;
	struct image image = load(&with_code, &bytes), spoiled;

	assert_true(elf_append(other.bytes, other.n, PRECOMPILED_SECTION, image.precompiled, image.n_precompiled,
			       &mixed_bytes, &mixed.n, &refusal));
	mixed.bytes = mixed_bytes;
	spoiled = load(&mixed, &image_bytes);
	assert_unfit(&spoiled, identity(), "other bytecode");
	free(image_bytes);
	free(mixed.bytes);
	free(bytes);
	free(other.bytes);
}

static void a_module_with_other_call_cells_does_not_fit(void **state)
{
	void *bytes;
	struct image image = load(&with_code, &bytes);
	struct precompiled_place place = precompiled_place(&image);
	struct precompiled precompiled;
	struct refusal why = {};

	assert_int_equal(place.n_slots % 8, 0);
	assert_true(place.n_slots && place.call_cells >= image.n_rodata);
	place.call_cells += 64;
	assert_false(precompiled_check(&precompiled, &image, identity(), &place, &why));
	assert_non_null(strstr(why.text, "call cells"));
	free(bytes);
}

/* A copy of the image whose code may be spoiled */
static uint8_t *code_of(struct image *image, void *bytes)
{
	return (uint8_t *)bytes + image->header->precompiled.offset;
}

static void no_changed_byte_is_believed(void **state)
{
	void *bytes;
	struct image image = load(&with_code, &bytes);
	uint8_t *code = code_of(&image, bytes);
	struct precompiled precompiled;
	struct refusal why;

	for (uint32_t i = 0; i < image.n_precompiled; i++) {
		code[i] ^= 0x41;
		assert_false(fits(&image, identity(), &precompiled, &why));
		code[i] ^= 0x41;
	}
	for (uint32_t n = 0; n < image.n_precompiled; n += 1 + n / 7) {
		struct image cut = image;

		cut.n_precompiled = n;
		assert_false(fits(&cut, identity(), &precompiled, &why));
	}
	assert_true(fits(&image, identity(), &precompiled, &why));
	free(bytes);
}

/* A hash is no security: whoever signs again what he spoiled still gets a sentence, or sound code. */
static void what_is_spoiled_and_signed_again_is_checked(void **state)
{
	enum { HASH_AT = 8, CONTENT_AT = 16, ROWS_AT = 120 };
	void *bytes;
	struct image image = load(&with_code, &bytes);
	uint8_t *code = code_of(&image, bytes);
	struct precompiled precompiled;
	struct code_result result;
	struct refusal why;

	for (uint32_t i = ROWS_AT; i < image.n_precompiled; i++) {
		uint64_t hash = 0xcbf29ce484222325ull, saved;
		uint8_t byte = code[i];

		code[i] = byte ^ (1 << i % 8);
		memcpy(&saved, code + HASH_AT, 8);
		for (uint32_t k = CONTENT_AT; k < image.n_precompiled; k++)
			hash = (hash ^ code[k]) * 0x100000001b3ull;
		memcpy(code + HASH_AT, &hash, 8);
		why.text[0] = '\0';
		if (fits(&image, identity(), &precompiled, &why)) {
			for (uint32_t m = 0; m < image.n_methods; m++)
				if (precompiled_has(&precompiled, m))
					precompiled_get(&precompiled, m, &result);
		} else {
			assert_non_null(strstr(why.text, "damaged"));
		}
		code[i] = byte;
		memcpy(code + HASH_AT, &saved, 8);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_method_gets_code_that_names_whom_it_inlined),
		cmocka_unit_test(the_object_gives_the_same_image_otherwise),
		cmocka_unit_test(what_the_object_had_stays_where_it_was),
		cmocka_unit_test(code_that_was_there_is_replaced),
		cmocka_unit_test(who_must_not_be_optimized_has_none),
		cmocka_unit_test(what_is_no_object_is_refused),
		cmocka_unit_test(another_compiler_is_named),
		cmocka_unit_test(code_of_other_bytecode_does_not_fit),
		cmocka_unit_test(a_module_with_other_call_cells_does_not_fit),
		cmocka_unit_test(no_changed_byte_is_believed),
		cmocka_unit_test(what_is_spoiled_and_signed_again_is_checked),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
