/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the ELF loader: any file is refused by a sentence or becomes an image that the daemon's own checks accept,
 * and a method of it that verifies has a flow.
 *
 * links: daemon/worker/child/elf*.c daemon/worker/child/btf.c -lelf */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/flow.h"
#include "bytecode/verify.h"
#include "worker/child/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct refusal refusal = {};
	void *file = malloc(n + 1), *bytes = NULL;
	struct image image;
	size_t n_image = 0;

	assert(file);
	memcpy(file, data, n);
	if (elf_to_image(file, n, &bytes, &n_image, &refusal)) {
		assert(image_check(bytes, n_image, &image, &refusal));
		for (uint32_t method = 0; method < image.n_methods; method++) {
			struct flow *flow = NULL;

			if (verify_method(&image, method, &refusal)
			    && !flow_new(&flow, image_method_insns(&image, method), image.methods[method].n_insns))
				flow_free(flow);
		}
	} else {
		assert(refusal.text[0] && !bytes);
	}
	assert(!memcmp(file, data, n));
	free(bytes);
	free(file);
	return 0;
}
