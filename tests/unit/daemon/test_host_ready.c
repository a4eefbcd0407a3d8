/* SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"
#include "host.h"
#include "tier/wire.h"
#include "unit/worker/object.h"
#include "worker/child/codegen.h"
#include "worker/child/identity.h"
#include "worker/child/precompile.h"

/* Hosted modules of objects that bring code along, without a core: which of it is used, and what the core is told of
 * it. */

struct module {
	uint32_t method, body; /* all others have their own */
};

uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return method == module->method ? module->body : 0;
}

bool core_profile(const struct module *module, uint32_t method, uint32_t *ret_cell)
{
	return false;
}

static const char source[] =
	"typedef unsigned long long u64;\n"
	"u64 leaf(u64 x) { return x * 3; }\n"
	"__attribute__((noinline)) u64 far(u64 x) {\n"
	"	u64 sum = 0;\n"
	"	for (u64 i = 0; i < x; i++) { sum += i * sum; sum ^= x >> (i & 63); }\n"
	"	return sum; }\n"
	"u64 near(u64 x);\n"
	"__attribute__((noinline)) u64 area(u64 x) { u64 (*volatile f)(u64) = leaf; return f(x) + near(x); }\n"
	"__attribute__((noinline)) u64 near(u64 x) { return x + 5; }\n"
	"u64 again(u64 n) { return n ? again(n - 1) * n + near(n) : 1; }\n"
	"struct ops { u64 (*f)(u64); };\n"
	"const struct ops ops[2] = { { leaf }, { far } };\n"
	"u64 outer(u64 i) { return ops[i & 1].f(i); }\n"
	"__attribute__((btf_decl_tag(\"tier:no_optimization\"))) u64 slow(u64 x) { return x - 1; }\n";

static struct window window;
static struct object_file object; /* with code */

static struct host *host_of(const struct compiler *compiler, bool ready_to_run, uint64_t n_code, struct module *module)
{
	struct object_file copy = copy_of(&object);
	struct host_plan plan = {
		.id = 1, .window = &window, .n_code = n_code, .ready_to_run = ready_to_run, .compiler = *compiler};
	struct refusal refusal = {""};
	struct host *host = NULL;
	void *bytes;
	size_t n;

	if (!elf_to_image(copy.bytes, copy.n, &bytes, &n, &refusal) || host_build(&host, &plan, bytes, n, &refusal))
		fail_msg("%s", refusal.text);
	free(copy.bytes);
	host->module = module;
	return host;
}

static uint32_t method_of(const struct host *host, const char *name)
{
	int64_t method = symtab_find(host->symtab, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

static const char *note_of(const struct host *host)
{
	static struct wire_description description;

	description = (struct wire_description){};
	describe_method((void *)host, 0, &description);
	return description.note;
}

static void code_that_fits_is_placed_with_its_inlinees_and_call_sites(void **state)
{
	struct module module = {0};
	struct host *host = host_of(identity(), true, 0, &module);
	const uint32_t area = method_of(host, "area"), near = method_of(host, "near"), again = method_of(host, "again");
	struct core_result result = {};

	assert_string_equal(note_of(host), "");
	assert_true(host_has_precompiled(host, area));
	assert_false(host_has_precompiled(host, method_of(host, "slow")));
	assert_int_equal(host_ready_to_run(host, area, &result), 0);
	assert_true(result.code.address && result.code.size);
	assert_int_equal(result.code.code_used, arena_code_used(host->arena));
	assert_int_equal(result.n_inlined, 1);
	assert_int_equal(result.inlined[0], near);
	assert_int_equal(host_ready_to_run(host, again, &result), 0);
	for (uint32_t i = 0; i < result.n_sites; i++)
		assert_int_equal(result.sites[i].method, again);
	host_free(host);
}

static void code_whose_inlinee_is_replaced_is_not_offered(void **state)
{
	struct module module = {0};
	struct host *host = host_of(identity(), true, 0, &module);
	const uint32_t near = method_of(host, "near"), area = method_of(host, "area");
	struct host_body body = { .id = 7 };

	assert_int_equal(host_bodies_reserve(host), 0);
	assert_null(host_body_exchange(host, near, &body));
	assert_true(host_has_precompiled(host, area));
	module = (struct module){near, 7};
	assert_false(host_has_precompiled(host, area));
	assert_false(host_has_precompiled(host, near));
	assert_true(host_has_precompiled(host, method_of(host, "far")));
	module.body = 0; /* reverted */
	assert_true(host_has_precompiled(host, area));
	assert_ptr_equal(host_body_exchange(host, near, NULL), &body);
	host_free(host);
}

static void code_of_another_compiler_is_left_out_and_the_note_says_so(void **state)
{
	struct compiler other = *identity();
	struct module module = {0};
	struct host *host;

	strcpy(other.cpu, "abacus");
	host = host_of(&other, true, 0, &module);
	for (uint32_t i = 0; i < host->image.n_methods; i++)
		assert_false(host_has_precompiled(host, i));
	assert_non_null(strstr(note_of(host), "its precompiled code is not used: it was made for the processor"));
	host_free(host);
}

static void code_is_ignored_without_a_word_when_it_is_off(void **state)
{
	struct module module = {0};
	struct host *host = host_of(identity(), false, 0, &module);

	for (uint32_t i = 0; i < host->image.n_methods; i++)
		assert_false(host_has_precompiled(host, i));
	assert_string_equal(note_of(host), "");
	host_free(host);
}

static void code_leaves_what_first_calls_take(void **state)
{
	struct module module = {0};
	struct host *host = host_of(identity(), true, 4096, &module);
	struct core_result result;
	uint32_t n_full = 0;

	for (uint32_t round = 0; round < 64; round++)
		for (uint32_t i = 0; i < host->image.n_methods; i++)
			n_full += host_has_precompiled(host, i) && host_ready_to_run(host, i, &result) == CORE_E_FULL;
	assert_true(n_full > 0);
	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		const struct core_compile compile = { .method = i, .level = TIER_LEVEL_TIER0 };

		result = (struct core_result){};
		assert_int_equal(host_first(host, &compile, &result), 0);
	}
	host_free(host);
}

static int setup(void **state)
{
	struct object_file plain;
	struct refusal refusal;
	void *bytes;

	folder_make();
	window_init(&window, 0);
	assert_int_equal(codegen_init(), 0);
	assert_int_equal(identity_init(), 0);
	plain = compile("clang", "-O1 -g", source);
	if (!precompile(plain.bytes, plain.n, &bytes, &object.n, &refusal))
		fail_msg("%s", refusal.text);
	object.bytes = bytes;
	free(plain.bytes);
	return 0;
}

static int teardown(void **state)
{
	free(object.bytes);
	return folder_remove();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_that_fits_is_placed_with_its_inlinees_and_call_sites),
		cmocka_unit_test(code_whose_inlinee_is_replaced_is_not_offered),
		cmocka_unit_test(code_of_another_compiler_is_left_out_and_the_note_says_so),
		cmocka_unit_test(code_is_ignored_without_a_word_when_it_is_off),
		cmocka_unit_test(code_leaves_what_first_calls_take),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
