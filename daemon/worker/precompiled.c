/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "tier/records.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/precompiled.h"

#define PRECOMPILED_MAGIC 0x3145525052454954ull /* "TIERPRE1" */

struct precompiled_header {
	uint64_t magic;
	uint64_t hash;    /* of all bytes behind this field */
	uint64_t content; /* image_content_hash() */
	struct compiler compiler;
	uint32_t n_methods;
	uint32_t slots, n_slots, call_cells; /* as in struct job_compile */
};
static_assert(sizeof(struct precompiled_header) % 8 == 0, "rows follow aligned");

static uint64_t hash_of(const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = offsetof(struct precompiled_header, content); i < n; i++)
		hash = (hash ^ p[i]) * 0x100000001b3ull;
	return hash;
}

struct precompiled_place precompiled_place(const struct image *image)
{
	const uint64_t records = TIER_RECORDS_OFFSET + (uint64_t)image->n_methods * sizeof(struct tier_record);
	const uint64_t rodata = align_up(records, MAX(image->header->align[IMAGE_RODATA], 8u));
	struct precompiled_place place;

	place.slots = image_slots(image, &place.n_slots);
	place.call_cells = place.n_slots ? align_up(rodata + image->n_rodata, 64) - rodata : 0;
	return place;
}

/* -- Writing --- */
static uint64_t section_size(uint32_t n_methods, const size_t *sizes)
{
	uint64_t n = sizeof(struct precompiled_header) + (uint64_t)n_methods * sizeof(struct precompiled_row);

	for (uint32_t i = 0; i < n_methods; i++)
		n = align_up(n, 8) + sizes[i];
	return align_up(n, 8);
}

static void put_codes(uint8_t *bytes, uint32_t n_methods, void *const *codes, const size_t *sizes)
{
	struct precompiled_row *rows = (struct precompiled_row *)(bytes + sizeof(struct precompiled_header));
	uint64_t at = (uint8_t *)(rows + n_methods) - bytes;

	for (uint32_t i = 0; i < n_methods; i++) {
		at = align_up(at, 8);
		if (!sizes[i])
			continue;
		rows[i] = (struct precompiled_row){ .offset = at, .n = sizes[i] };
		memcpy(bytes + at, codes[i], sizes[i]);
		at += sizes[i];
	}
}

int precompiled_put(const struct image *image, const struct compiler *compiler, void *const *codes, const size_t *sizes,
		    void **ret, size_t *ret_n)
{
	const uint64_t n = section_size(image->n_methods, sizes);
	const struct precompiled_place place = precompiled_place(image);
	struct precompiled_header *header;

	if (n > IMAGE_PRECOMPILED_MAX)
		return -EFBIG;
	header = calloc(1, n);
	if (!header)
		return error_origin(-ENOMEM);
	*header = (struct precompiled_header){
		.magic = PRECOMPILED_MAGIC,
		.content = image_content_hash(image),
		.compiler = *compiler,
		.n_methods = image->n_methods,
		.slots = place.slots,
		.n_slots = place.n_slots,
		.call_cells = place.call_cells,
	};
	put_codes((uint8_t *)header, image->n_methods, codes, sizes);
	header->hash = hash_of(header, n);
	*ret = header;
	*ret_n = n;
	return 0;
}

/* -- Reading --- */
static bool unfit(struct refusal *why, const char *what)
{
	refuse(why, "%s", what);
	return false;
}

/* The texts may lack their end: a file's. */
static bool check_compiler(const struct compiler *made, const struct compiler *here, struct refusal *why)
{
	if (compiler_equals(made, here))
		return true;
	if (memcmp(made->cpu, here->cpu, sizeof(made->cpu)))
		refuse(why, "it was made for the processor '%.31s', this one is '%.31s'", made->cpu, here->cpu);
	else if (made->features != here->features)
		refuse(why, "it was made for a processor '%.31s' with other features", made->cpu);
	else if (memcmp(made->version, here->version, sizeof(made->version)) ||
		 memcmp(made->llvm, here->llvm, sizeof(made->llvm)))
		refuse(why, "it was made by tierd %.15s with LLVM %.15s, this is %.15s with %.15s", made->version,
		       made->llvm, here->version, here->llvm);
	else
		refuse(why, "it was made by another build of tierd %.15s", made->version);
	return false;
}

static bool check_header(const struct precompiled_header *header, const struct image *image,
			 const struct compiler *here, const struct precompiled_place *place, struct refusal *why)
{
	if (image->n_precompiled < sizeof(*header))
		return unfit(why, "it is damaged: shorter than its header");
	if (header->magic != PRECOMPILED_MAGIC)
		return unfit(why, "it has a format that this version does not know");
	if (header->hash != hash_of(header, image->n_precompiled))
		return unfit(why, "it is damaged: its hash does not match");
	if (header->content != image_content_hash(image) || header->n_methods != image->n_methods)
		return unfit(why, "it was made of other bytecode");
	if (!check_compiler(&header->compiler, here, why))
		return false;
	if (header->slots != place->slots || header->n_slots != place->n_slots ||
	    header->call_cells != place->call_cells)
		return unfit(why, "it was made for another place of the module's call cells");
	return true;
}

static bool check_inlined(const struct code_result *code, uint32_t method, uint32_t n_methods)
{
	for (uint32_t i = 0; i < code->n_inlined; i++)
		if (code->inlined[i] == method || code->inlined[i] >= n_methods)
			return false;
	return true;
}

static bool check_row(const struct precompiled_row *row, const struct image *image, uint32_t method,
		      struct refusal *why)
{
	struct code_result code;
	struct refusal reason;

	if (row->offset % 8 || row->offset > image->n_precompiled || row->n > image->n_precompiled - row->offset) {
		refuse(why, "it is damaged: the code of method '%s' lies outside", image_method_name(image, method));
		return false;
	}
	if (!job_get_code(&code, image->precompiled + row->offset, row->n, &reason)) {
		refuse(why, "it is damaged: the code of method '%s': %s", image_method_name(image, method),
		       reason.text);
		return false;
	}
	if (!check_inlined(&code, method, image->n_methods)) {
		refuse(why, "it is damaged: method '%s' says it inlined what does not exist",
		       image_method_name(image, method));
		return false;
	}
	return true;
}

bool precompiled_check(struct precompiled *ret, const struct image *image, const struct compiler *here,
		       const struct precompiled_place *place, struct refusal *why)
{
	const struct precompiled_header *header = (const void *)image->precompiled;
	const struct precompiled_row *rows = (const void *)(header + 1);
	struct precompiled found = { .bytes = image->precompiled, .rows = rows, .n_methods = image->n_methods };

	if (!check_header(header, image, here, place, why))
		return false;
	if ((image->n_precompiled - sizeof(*header)) / sizeof(*rows) < image->n_methods)
		return unfit(why, "it is damaged: its table ends outside");
	for (uint32_t i = 0; i < image->n_methods; i++) {
		if (rows[i].n && !check_row(&rows[i], image, i, why))
			return false;
		found.n_codes += rows[i].n != 0;
	}
	*ret = found;
	return true;
}

void precompiled_get(const struct precompiled *precompiled, uint32_t method, struct code_result *ret)
{
	const struct precompiled_row *row = &precompiled->rows[method];
	struct refusal refusal;
	bool is_sound = job_get_code(ret, precompiled->bytes + row->offset, row->n, &refusal);

	assert(is_sound); /* precompiled_check() saw to it */
	(void)is_sound;
}
