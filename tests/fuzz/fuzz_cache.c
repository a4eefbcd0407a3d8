/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "cache/agree.h"
#include "cache/entry.h"
#include "util/base.h"

/* What a folder of the code cache may hold: a file whose sum is right is damaged, or its parts lie in it and can be put again;
 * and profiles of whatever counts agree or not, and keep their promises when they are added up. The first byte chooses. */

enum { SUM_AT = 8, SIZES_AT = 16, PARTS_AT = 40 };

static void expect_inside(const struct entry_part *part, const uint8_t *bytes, size_t n)
{
	const uint8_t *p = part->bytes;

	assert(p >= bytes + PARTS_AT && part->n <= n && p <= bytes + n - part->n);
}

/* Magic and sum are put right: guessing them would be all it ever did. */
static void fuzz_entry(uint8_t *bytes, size_t n)
{
	struct entry_part key = { bytes + PARTS_AT, 0 };
	struct entry entry;
	uint64_t n_key, sum;
	void *again;
	size_t n_again;

	assert(entry_get(&entry, bytes, n, &key) != ENTRY_FOUND || n >= PARTS_AT);
	if (n < PARTS_AT)
		return;
	memcpy(bytes, "TIERCCH1", 8);
	sum = entry_name(bytes + SIZES_AT, n - SIZES_AT).hash[1];
	memcpy(bytes + SUM_AT, &sum, sizeof(sum));
	memcpy(&n_key, bytes + SIZES_AT, sizeof(n_key));
	key.n = MIN(n_key, (uint64_t)(n - PARTS_AT));
	if (entry_get(&entry, bytes, n, &key) != ENTRY_FOUND)
		return;
	expect_inside(&entry.key, bytes, n);
	expect_inside(&entry.profiles, bytes, n);
	expect_inside(&entry.code, bytes, n);
	assert(!entry_put(&entry, &again, &n_again) && n_again == n);
	free(again);
}

static void fuzz_profiles(uint8_t *bytes, size_t n)
{
	const uint32_t n_counts = n / 2 / sizeof(struct profile_count);
	struct profile_count *own = (void *)bytes, *old = own + n_counts;

	for (uint32_t i = 0; i < n_counts; i++)
		own[i].m = MIN(own[i].m, own[i].n);
	for (uint32_t i = 0; n & 1 && i < n_counts; i++) {	/* else hardly any are of the same sites */
		own[i].kind %= _PROFILE_KIND_N;
		old[i] = (struct profile_count){ .pc = own[i].pc, .kind = own[i].kind, .n = old[i].n, .m = MIN(old[i].m, old[i].n),
						 .method = own[i].kind == PROFILE_CALLX ? old[i].method : own[i].method };
	}
	if (!n_counts || !agree_sites(own, old, n_counts))
		return;
	agree(own, old, n_counts);
	agree_add(own, old, n_counts);
	for (uint32_t i = 0; i < n_counts; i++)
		assert(own[i].m <= own[i].n && own[i].n >= old[i].n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(freep) uint8_t *aligned = NULL;

	if (!size)
		return 0;
	aligned = malloc(MAX(size - 1, (size_t)1));
	if (!aligned)
		return 0;
	memcpy(aligned, data + 1, size - 1);
	if (data[0] & 1)
		fuzz_profiles(aligned, size - 1);
	else
		fuzz_entry(aligned, size - 1);
	return 0;
}
