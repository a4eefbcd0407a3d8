/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/builder.h"
#include "util/base.h"
#include "worker/precompiled.h"

/* An object's precompiled code, as anybody could write it: left out by a sentence, or each method's code can be taken. The
 * input is what comes behind the section's header, which is put right, like its hash. */

enum { HASH_AT = 8, CONTENT_AT = 16, ROWS_AT = 120 };
#define N_METHODS 3u

static const struct compiler compiler = { .version = "1" };

/* An image whose precompiled code is the @n bytes of @section */
static void *image_of(struct image *ret, const void *section, size_t n)
{
	static const struct insn insns[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K }, { .code = BPF_JMP | BPF_EXIT } };
	struct builder builder = BUILDER_NULL;
	struct refusal refusal;
	uint32_t text;
	size_t n_bytes;
	void *bytes;

	text = builder_string(&builder, ".text");
	for (uint32_t i = 0; i < N_METHODS; i++)
		builder_method(&builder, "m", text, 0, 0, insns, 2);
	builder_precompiled(&builder, section, n);
	if (builder_finish(&builder, &bytes, &n_bytes) || !image_check(bytes, n_bytes, ret, &refusal))
		abort();
	builder_deinit(&builder);
	return bytes;
}

static void *section_of(const uint8_t *data, size_t size)
{
	_cleanup_(freep) void *empty = NULL;
	_cleanup_(freep) void *bytes = NULL;
	void *const codes[N_METHODS] = { NULL };
	const size_t sizes[N_METHODS] = { 0 };
	uint64_t hash = 0xcbf29ce484222325ull;
	struct image image;
	uint8_t *section;
	size_t n;

	bytes = image_of(&image, "", 0);
	if (precompiled_put(&image, &compiler, codes, sizes, &empty, &n))
		abort();
	assert(n == ROWS_AT + N_METHODS * sizeof(struct precompiled_row));
	section = malloc(ROWS_AT + size);
	assert(section);
	memcpy(section, empty, ROWS_AT);
	memcpy(section + ROWS_AT, data, size);
	for (size_t i = CONTENT_AT; i < ROWS_AT + size; i++)
		hash = (hash ^ section[i]) * 0x100000001b3ull;
	memcpy(section + HASH_AT, &hash, sizeof(hash));
	return section;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(freep) void *section = section_of(data, size);
	_cleanup_(freep) void *bytes = NULL;
	struct precompiled precompiled;
	struct precompiled_place place;
	struct refusal why = { "" };
	struct image image;

	bytes = image_of(&image, section, ROWS_AT + size);
	place = precompiled_place(&image);
	if (!precompiled_check(&precompiled, &image, &compiler, &place, &why)) {
		assert(strstr(why.text, "damaged"));
		return 0;
	}
	for (uint32_t i = 0; i < N_METHODS; i++) {
		struct code_result code;

		if (!precompiled_has(&precompiled, i))
			continue;
		precompiled_get(&precompiled, i, &code);
		for (uint32_t k = 0; k < code.n_inlined; k++)
			assert(code.inlined[k] != i && code.inlined[k] < N_METHODS);
		assert(code.bytes + code.n_bytes <= image.precompiled + image.n_precompiled);
	}
	return 0;
}
