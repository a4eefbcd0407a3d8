/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "bytecode/bind.h"
#include "bytecode/verify.h"
#include "code.h"

/* Two images: the target, as one of a module, and the source, whose first method becomes the body of the target's method
 * "area". What the target's things have for addresses is made up here, so that a pointer tells what it leads to. */

#define RODATA_PLACE 0x200000300000ull

struct pair {
	struct bind_target target;
	struct image target_image, source;
	void *target_bytes, *source_bytes;
	struct bound_body body;
	struct refusal refusal;
};

static struct image image_of(struct builder *builder, void **ret_bytes)
{
	struct refusal refusal;
	struct image image;
	size_t n;

	assert_int_equal(builder_finish(builder, ret_bytes, &n), 0);
	builder_deinit(builder);
	if (!image_check(*ret_bytes, n, &image, &refusal) || !verify_image(&image, &refusal))
		fail_msg("%s", refusal.text);
	return image;
}

/* -- The target --- */
static int64_t find_method(void *context, const char *name)
{
	return image_find_method(context, name);
}

static int64_t find_import(void *context, const char *name)
{
	const struct image *image = context;

	for (uint32_t i = 0; i < image->n_imports; i++)
		if (!strcmp(image_import_name(image, i), name))
			return i;
	return -1;
}

static int64_t find_object(void *context, const char *name)
{
	const struct image *image = context;

	if (!strcmp(name, "twice"))
		return BIND_AMBIGUOUS;
	for (uint32_t i = 0; i < image->n_objects; i++)
		if (!strcmp(image_object_name(image, i), name))
			return i;
	return -1;
}

static uint64_t address(void *context, unsigned int ref, uint32_t index, int64_t offset)
{
	return (uint64_t)ref << 32 | index << 16 | (uint64_t)offset;
}

static struct image target_image(void **ret_bytes)
{
	const struct insn insns[] = { MOV_K(0, 7), EXIT };
	struct builder builder = BUILDER_NULL;
	uint32_t section = builder_string(&builder, ".text");

	builder_method(&builder, "first", section, 0, IMAGE_METHOD_GLOBAL, insns, 2);
	builder_method(&builder, "area", section, 16, IMAGE_METHOD_GLOBAL, insns, 2);
	builder_method(&builder, "helper", section, 32, 0, insns, 2);
	builder_describe(&builder, 1, 0, "u64 area(struct shape *s)", 1, 0x77);
	builder_import(&builder, "host", 0);
	builder_import(&builder, "print", 0);
	builder_segment(&builder, IMAGE_RODATA, NULL, 16, 8);
	builder_segment(&builder, IMAGE_DATA, NULL, 64, 8);
	builder_segment(&builder, IMAGE_BSS, NULL, 32, 8);
	builder_object(&builder, "limits", &(struct image_object){ .segment = IMAGE_RODATA, .offset = 8, .size = 8 });
	builder_object(&builder, "count", &(struct image_object){ .segment = IMAGE_DATA, .offset = 16, .size = 8, .is_global = 1 });
	builder_object(&builder, "narrow", &(struct image_object){ .segment = IMAGE_DATA, .offset = 24, .size = 4 });
	builder_object(&builder, "table", &(struct image_object){ .segment = IMAGE_BSS, .offset = 8, .size = 24 });
	return image_of(&builder, ret_bytes);
}

/* -- The source --- */
enum { SELF, HELPER, STRANGER, PRINT_DEFINED };
enum { IMPORT_FIRST, IMPORT_COUNT, IMPORT_PRINT, IMPORT_LIMITS, IMPORT_ABSENT, IMPORT_TWICE, IMPORT_AREA };
enum { DATA_TABLE = 0, DATA_NARROW = 24, DATA_UNNAMED = 36, DATA_LIMITS = 40, DATA_LOST = 48, BSS_COUNT = 8 };

static void source_tables(struct builder *builder)
{
	builder_import(builder, "first", 0);
	builder_import(builder, "count", 0);
	builder_import(builder, "print", 0);
	builder_import(builder, "limits", 0);
	builder_import(builder, "absent", IMAGE_IMPORT_WEAK);
	builder_import(builder, "twice", 0);
	builder_import(builder, "area", 0);
	builder_segment(builder, IMAGE_RODATA, "0123456789abcdef\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32, 16);
	builder_segment(builder, IMAGE_DATA, NULL, 56, 8);
	builder_segment(builder, IMAGE_BSS, NULL, 24, 8);
	builder_object(builder, "table", &(struct image_object){ .segment = IMAGE_DATA, .offset = DATA_TABLE, .size = 24 });
	builder_object(builder, "narrow", &(struct image_object){ .segment = IMAGE_DATA, .offset = DATA_NARROW, .size = 8 });
	builder_object(builder, "limits", &(struct image_object){ .segment = IMAGE_DATA, .offset = DATA_LIMITS, .size = 8 });
	builder_object(builder, "lost", &(struct image_object){ .segment = IMAGE_DATA, .offset = DATA_LOST, .size = 8 });
	builder_object(builder, "count", &(struct image_object){ .segment = IMAGE_BSS, .offset = BSS_COUNT, .size = 8 });
}

/* The source's method SELF, called "area_v2", has @insns. */
static void pair_init(struct pair *pair, const struct insn *insns, uint32_t n, const struct image_reloc *reloc)
{
	const struct insn other[] = { MOV_K(0, 7), EXIT };
	struct builder builder = BUILDER_NULL;
	uint32_t section;

	*pair = (struct pair){ .target = { .method = 1 } };
	pair->target_image = target_image(&pair->target_bytes);
	section = builder_string(&builder, "new");
	builder_method(&builder, "area_v2", section, 0x100, IMAGE_METHOD_GLOBAL, insns, n);
	builder_method(&builder, "helper", section, 0x200, 0, other, 2);
	builder_method(&builder, "stranger", section, 0x300, 0, other, 2);
	builder_method(&builder, "print", section, 0x400, IMAGE_METHOD_GLOBAL, other, 2);
	builder_describe(&builder, SELF, 0, "u64 area_v2(struct shape *s)", 1, 0x77);
	builder_describe(&builder, HELPER, 0, "u64 helper(void)", 0, 0x77);
	builder_describe(&builder, STRANGER, 0, "u64 stranger(u32 s)", 1, 0x78);
	source_tables(&builder);
	if (reloc)
		builder_reloc(&builder, reloc);
	pair->source = image_of(&builder, &pair->source_bytes);
	pair->target.image = &pair->target_image;
	pair->target.context = &pair->target_image;
	pair->target.find_method = find_method;
	pair->target.find_import = find_import;
	pair->target.find_object = find_object;
	pair->target.address = address;
}

static void pair_deinit(struct pair *pair)
{
	bound_body_deinit(&pair->body);
	free(pair->target_bytes);
	free(pair->source_bytes);
}

static int pair_bind(struct pair *pair)
{
	int r = bind_body(&pair->body, &pair->target, &pair->source, SELF, &pair->refusal);

	if (!r)
		bound_body_place(&pair->body, &pair->source, SELF, RODATA_PLACE);
	return r;
}

/* One instruction, then an exit */
static int bind_one(struct pair *pair, struct insn insn, struct insn second)
{
	const struct insn insns[] = { insn, second, MOV_K(0, 0), EXIT };

	if (insn_is_lddw(&insn)) {
		pair_init(pair, insns, 4, NULL);
	} else {
		const struct insn narrow[] = { insn, EXIT };

		pair_init(pair, narrow, 2, NULL);
	}
	return pair_bind(pair);
}

#define assert_unbound(insn, result, word)                                                                             \
	do {                                                                                                           \
		struct pair _pair;                                                                                     \
		assert_int_equal(bind_one(&_pair, insn), result);                                                      \
		if (!strstr(_pair.refusal.text, word))                                                                 \
			fail_msg("'%s' does not say '%s'", _pair.refusal.text, word);                                  \
		assert_null(_pair.body.insns);                                                                         \
		pair_deinit(&_pair);                                                                                   \
	} while (0)
#define NARROW(insn) insn, EXIT

static void assert_bound_lddw(struct insn insn, struct insn second, unsigned int ref, uint32_t index, int32_t offset)
{
	struct pair pair;

	if (bind_one(&pair, insn, second))
		fail_msg("%s", pair.refusal.text);
	assert_int_equal(pair.body.insns[0].src, ref);
	assert_int_equal(pair.body.insns[0].imm, offset);
	assert_int_equal(pair.body.insns[0].dst, insn.dst);
	assert_int_equal(pair.body.insns[1].imm, index);
	pair_deinit(&pair);
}

static void assert_bound_call(struct insn insn, unsigned int kind, uint32_t index)
{
	struct pair pair;

	if (bind_one(&pair, insn, EXIT))
		fail_msg("%s", pair.refusal.text);
	assert_int_equal(pair.body.insns[0].src, kind);
	assert_int_equal(pair.body.insns[0].imm, index);
	pair_deinit(&pair);
}

/* -- What references become --- */
static void a_method_is_that_of_its_name(void **state)
{
	assert_bound_call(CALL(INSN_CALL_METHOD, HELPER), INSN_CALL_METHOD, 2);
	assert_bound_lddw(LDDW(3, INSN_REF_METHOD, 0, HELPER), INSN_REF_METHOD, 2, 0);
}

static void the_replaced_function_is_the_method_itself(void **state)
{
	assert_bound_call(CALL(INSN_CALL_METHOD, SELF), INSN_CALL_METHOD, 1);
	assert_bound_lddw(LDDW(3, INSN_REF_METHOD, 0, SELF), INSN_REF_METHOD, 1, 0);
	assert_bound_call(CALL(INSN_CALL_IMPORT, IMPORT_AREA), INSN_CALL_METHOD, 1);
}

static void a_function_may_be_an_import_of_the_target(void **state)
{
	assert_bound_call(CALL(INSN_CALL_METHOD, PRINT_DEFINED), INSN_CALL_IMPORT, 1);
}

static void an_import_is_a_method_a_variable_or_an_import(void **state)
{
	assert_bound_call(CALL(INSN_CALL_IMPORT, IMPORT_FIRST), INSN_CALL_METHOD, 0);
	assert_bound_call(CALL(INSN_CALL_IMPORT, IMPORT_PRINT), INSN_CALL_IMPORT, 1);
	assert_bound_lddw(LDDW(2, INSN_REF_IMPORT, 0, IMPORT_FIRST), INSN_REF_METHOD, 0, 0);
	assert_bound_lddw(LDDW(2, INSN_REF_IMPORT, 0, IMPORT_COUNT), INSN_REF_DATA, 0, 16);
	assert_bound_lddw(LDDW(2, INSN_REF_IMPORT, 0, IMPORT_LIMITS), INSN_REF_RODATA, 0, 8);
	assert_bound_lddw(LDDW(2, INSN_REF_IMPORT, 0, IMPORT_PRINT), INSN_REF_IMPORT, 1, 0);
}

static void a_variable_is_that_of_its_name_wherever_it_lies(void **state)
{
	assert_bound_lddw(LDDW(1, INSN_REF_DATA, DATA_TABLE, 0), INSN_REF_BSS, 0, 8);
	assert_bound_lddw(LDDW(1, INSN_REF_DATA, DATA_TABLE + 20, 0), INSN_REF_BSS, 0, 28);
	assert_bound_lddw(LDDW(1, INSN_REF_BSS, BSS_COUNT, 0), INSN_REF_DATA, 0, 16);
	assert_bound_lddw(LDDW(1, INSN_REF_BSS, BSS_COUNT + 8, 0), INSN_REF_DATA, 0, 24);	/* its end */
}

static void its_own_rodata_becomes_a_constant(void **state)
{
	struct pair pair;

	assert_int_equal(bind_one(&pair, LDDW(4, INSN_REF_RODATA, 9, 0)), 0);
	assert_int_equal(pair.body.insns[0].src, INSN_REF_NONE);
	assert_int_equal(insn_imm64(pair.body.insns), RODATA_PLACE + 9);
	assert_int_equal(pair.body.n_rodata, 32);
	assert_memory_equal(pair.body.rodata, "0123456789abcdef", 16);
	bound_body_place(&pair.body, &pair.source, SELF, 0x400000000000ull);	/* once more, elsewhere */
	assert_int_equal(insn_imm64(pair.body.insns), 0x400000000009ull);
	pair_deinit(&pair);
}

static void all_other_instructions_stay(void **state)
{
	const struct insn insns[] = { LDDW(2, INSN_REF_NONE, 0x55, 0x66), MOV_X(6, 1), CALLX(6), ST(BPF_W, 10, -4, 9), EXIT };
	struct pair pair;

	pair_init(&pair, insns, 6, NULL);
	assert_int_equal(pair_bind(&pair), 0);
	assert_int_equal(pair.body.n_insns, 6);
	assert_memory_equal(pair.body.insns, insns, sizeof(insns));
	pair_deinit(&pair);
}

static void a_body_without_rodata_has_none(void **state)
{
	const struct insn insns[] = { MOV_K(0, 3), EXIT };
	struct builder builder = BUILDER_NULL;
	struct pair pair;

	pair_init(&pair, insns, 2, NULL);
	free(pair.source_bytes);
	builder_method(&builder, "area", builder_string(&builder, "s"), 0, 0, insns, 2);
	pair.source = image_of(&builder, &pair.source_bytes);
	assert_int_equal(pair_bind(&pair), 0);
	assert_null(pair.body.rodata);
	assert_int_equal(pair.body.n_rodata, 0);
	pair_deinit(&pair);
}

/* -- Pointers in .rodata --- */
static uint64_t bound_pointer(unsigned int ref, uint32_t index, int32_t addend, int result, const char *word)
{
	const struct insn insns[] = { MOV_K(0, 3), EXIT };
	const struct image_reloc reloc = { .segment = IMAGE_RODATA, .ref = ref, .width = 8, .offset = 20, .index = index,
					   .addend = addend };
	struct pair pair;
	uint64_t value = 0;

	pair_init(&pair, insns, 2, &reloc);
	assert_int_equal(pair_bind(&pair), result);
	if (!result)
		memcpy(&value, pair.body.rodata + 20, sizeof(value));
	else if (!strstr(pair.refusal.text, word))
		fail_msg("'%s' does not say '%s'", pair.refusal.text, word);
	pair_deinit(&pair);
	return value;
}

static void pointers_in_rodata_lead_into_the_target_or_to_its_own(void **state)
{
	assert_int_equal(bound_pointer(INSN_REF_METHOD, HELPER, 0, 0, NULL), address(NULL, INSN_REF_METHOD, 2, 0));
	assert_int_equal(bound_pointer(INSN_REF_METHOD, SELF, 0, 0, NULL), address(NULL, INSN_REF_METHOD, 1, 0));
	assert_int_equal(bound_pointer(INSN_REF_IMPORT, IMPORT_FIRST, 0, 0, NULL), address(NULL, INSN_REF_METHOD, 0, 0));
	assert_int_equal(bound_pointer(INSN_REF_IMPORT, IMPORT_LIMITS, 0, 0, NULL), address(NULL, INSN_REF_RODATA, 0, 8));
	assert_int_equal(bound_pointer(INSN_REF_DATA, 0, DATA_TABLE + 4, 0, NULL), address(NULL, INSN_REF_BSS, 0, 12));
	assert_int_equal(bound_pointer(INSN_REF_BSS, 0, BSS_COUNT, 0, NULL), address(NULL, INSN_REF_DATA, 0, 16));
	assert_int_equal(bound_pointer(INSN_REF_RODATA, 0, 10, 0, NULL), RODATA_PLACE + 10);
}

static void pointers_that_differ_by_process_are_refused(void **state)
{
	bound_pointer(INSN_REF_IMPORT, IMPORT_PRINT, 0, BIND_E_REFUSED, "'print'");
	bound_pointer(INSN_REF_IMPORT, IMPORT_ABSENT, 0, BIND_E_UNBOUND, "'absent'");
}

static void a_narrow_pointer_is_refused(void **state)
{
	const struct insn insns[] = { MOV_K(0, 3), EXIT };
	const struct image_reloc reloc = { .segment = IMAGE_RODATA, .ref = INSN_REF_RODATA, .width = 4, .offset = 20 };
	struct pair pair;

	pair_init(&pair, insns, 2, &reloc);
	assert_int_equal(pair_bind(&pair), BIND_E_REFUSED);
	assert_non_null(strstr(pair.refusal.text, ".rodata+0x14"));
	pair_deinit(&pair);
}

static void initial_values_of_variables_are_ignored(void **state)
{
	const struct insn insns[] = { MOV_K(0, 3), EXIT };
	const struct image_reloc reloc = { .segment = IMAGE_DATA, .ref = INSN_REF_IMPORT, .width = 8, .index = IMPORT_ABSENT };
	struct pair pair;

	pair_init(&pair, insns, 2, &reloc);
	assert_int_equal(pair_bind(&pair), 0);
	pair_deinit(&pair);
}

/* -- Refusals --- */
static void names_that_the_target_lacks_are_told(void **state)
{
	assert_unbound(NARROW(CALL(INSN_CALL_METHOD, STRANGER)), BIND_E_UNBOUND, "function 'stranger'");
	assert_unbound(LDDW(1, INSN_REF_METHOD, 0, STRANGER), BIND_E_UNBOUND, "function 'stranger'");
	assert_unbound(NARROW(CALL(INSN_CALL_IMPORT, IMPORT_ABSENT)), BIND_E_UNBOUND, "'absent'");
	assert_unbound(LDDW(1, INSN_REF_IMPORT, 0, IMPORT_ABSENT), BIND_E_UNBOUND, "'absent'");
	assert_unbound(LDDW(1, INSN_REF_DATA, DATA_LOST, 0), BIND_E_UNBOUND, "variable 'lost'");
	assert_unbound(LDDW(1, INSN_REF_DATA, DATA_UNNAMED, 0), BIND_E_UNBOUND, "byte 36 of its .data");
	assert_unbound(LDDW(1, INSN_REF_BSS, 0, 0), BIND_E_UNBOUND, "byte 0 of its .bss");
	assert_unbound(LDDW(1, INSN_REF_IMPORT, 0, IMPORT_TWICE), BIND_E_UNBOUND, "several variables 'twice'");
}

static void variables_of_another_kind_are_refused(void **state)
{
	assert_unbound(LDDW(1, INSN_REF_DATA, DATA_NARROW, 0), BIND_E_REFUSED, "4 bytes in the module, and 8");
	assert_unbound(LDDW(1, INSN_REF_DATA, DATA_LIMITS, 0), BIND_E_REFUSED, "'limits' is constant");
}

static void a_call_of_a_variable_is_refused(void **state)
{
	assert_unbound(NARROW(CALL(INSN_CALL_IMPORT, IMPORT_COUNT)), BIND_E_REFUSED, "'count', which is a variable");
}

static void signatures_must_be_known_and_equal(void **state)
{
	const struct insn insns[] = { MOV_K(0, 3), EXIT };
	struct pair pair;

	pair_init(&pair, insns, 2, NULL);
	assert_int_equal(bind_signature(&pair.target, &pair.source, SELF, &pair.refusal), 0);
	assert_int_equal(bind_signature(&pair.target, &pair.source, HELPER, &pair.refusal), BIND_E_SIGNATURE);
	assert_int_equal(bind_signature(&pair.target, &pair.source, STRANGER, &pair.refusal), BIND_E_SIGNATURE);
	assert_non_null(strstr(pair.refusal.text, "u64 area(struct shape *s)"));
	assert_non_null(strstr(pair.refusal.text, "u64 stranger(u32 s)"));
	assert_int_equal(bind_signature(&pair.target, &pair.source, PRINT_DEFINED, &pair.refusal), BIND_E_SIGNATURE);
	assert_non_null(strstr(pair.refusal.text, "unknown"));
	pair.target.method = 0;
	assert_int_equal(bind_signature(&pair.target, &pair.source, SELF, &pair.refusal), BIND_E_SIGNATURE);
	pair_deinit(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_method_is_that_of_its_name),
		cmocka_unit_test(the_replaced_function_is_the_method_itself),
		cmocka_unit_test(a_function_may_be_an_import_of_the_target),
		cmocka_unit_test(an_import_is_a_method_a_variable_or_an_import),
		cmocka_unit_test(a_variable_is_that_of_its_name_wherever_it_lies),
		cmocka_unit_test(its_own_rodata_becomes_a_constant),
		cmocka_unit_test(all_other_instructions_stay),
		cmocka_unit_test(a_body_without_rodata_has_none),
		cmocka_unit_test(pointers_in_rodata_lead_into_the_target_or_to_its_own),
		cmocka_unit_test(pointers_that_differ_by_process_are_refused),
		cmocka_unit_test(a_narrow_pointer_is_refused),
		cmocka_unit_test(initial_values_of_variables_are_ignored),
		cmocka_unit_test(names_that_the_target_lacks_are_told),
		cmocka_unit_test(variables_of_another_kind_are_refused),
		cmocka_unit_test(a_call_of_a_variable_is_refused),
		cmocka_unit_test(signatures_must_be_known_and_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
