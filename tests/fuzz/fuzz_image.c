/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the daemon's side of a module image, as a subverted worker could send it: any bytes are refused by a sentence
 * or can be walked from end to end. Magic, size and hash are put right first; guessing them would be all it ever did. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/flow.h"
#include "bytecode/verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk(const struct image *image)
{
	struct refusal refusal;
	size_t sum = 0;

	for (uint32_t i = 0; i < image->n_methods; i++) {
		struct flow *flow = NULL;

		sum += strlen(image_method_name(image, i)) + strlen(image->strings + image->methods[i].section)
		     + strlen(image_method_signature(image, i));
		for (uint32_t t = 0; t < image->methods[i].n_tags; t++)
			sum += strlen(image->strings + image->tags[image->methods[i].tag + t]);
		if (verify_method(image, i, &refusal)
		    && !flow_new(&flow, image_method_insns(image, i), image->methods[i].n_insns))
			flow_free(flow);
	}
	for (uint32_t i = 0; i < image->n_imports; i++)
		sum += strlen(image_import_name(image, i));
	for (uint32_t i = 0; i < image->n_relocs; i++)
		sum += (image->relocs[i].segment == IMAGE_RODATA ? image->rodata : image->data)[image->relocs[i].offset];
	for (uint32_t i = 0; i < image->n_lines; i++)
		sum += strlen(image->strings + image->files[image->lines[i].file]) + image->insns[image->lines[i].insn].code;
	for (uint32_t i = 0; i < image->n_objects; i++) {
		const struct image_object *object = &image->objects[i];
		int64_t found = image_object_at(image, object->segment, object->offset);

		assert(found >= i && image->objects[found].offset == object->offset);
		sum += strlen(image_object_name(image, i));
	}
	for (uint32_t i = 0; i < image->n_rodata; i++)
		sum += image->rodata[i];
	for (uint32_t i = 0; i < image->n_data; i++)
		sum += image->data[i];
	for (uint32_t i = 0; i < image->n_precompiled; i++)
		sum += image->precompiled[i];
	sum += image_content_hash(image) == image->header->hash;
	assert(image_find_method(image, "no such method") <= (int64_t)sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct image_header *header = malloc(n + 1);
	struct refusal refusal = {};
	struct image image;

	assert(header);
	memcpy(header, data, n);
	if (n >= sizeof(*header)) {
		header->magic = IMAGE_MAGIC;
		header->size = n;
		header->hash = image_hash(header, n);
	}
	if (image_check(header, n, &image, &refusal))
		walk(&image);
	else
		assert(refusal.text[0]);
	free(header);
	return 0;
}
