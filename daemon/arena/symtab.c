/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/random.h>
#include "arena/symtab.h"
#include "util/base.h"
#include "util/error.h"

/* An open-addressed table, at most half full, filled once and never changed.
 *
 * The names come from whoever made the module, and building the table happens on the daemon's one thread: names chosen
 * to collide must not make it quadratic. Hence a keyed hash (SipHash-1-3) with a key per table. */

struct symtab_slot {
	uint32_t hash;		/* its upper half, so that most misses do not touch the name */
	uint32_t index;		/* + 1; 0: empty */
};
#define SYMTAB_SEVERAL 0x80000000u	/* in index: variables of that name, none global */
_Static_assert(IMAGE_OBJECTS_MAX < SYMTAB_SEVERAL && IMAGE_METHODS_MAX < SYMTAB_SEVERAL, "indices leave that bit free");

struct symtab {
	struct image image;
	uint64_t key[2];
	enum symtab_kind kind;
	uint32_t mask;
	struct symtab_slot slots[];
};

static uint64_t rotate_left(uint64_t x, unsigned int n)
{
	return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[0] = rotate_left(v[0], 32);
	v[2] += v[3];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[2] = rotate_left(v[2], 32);
}

static uint64_t sip_hash(const uint64_t key[2], const char *name, size_t n)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			  key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
	uint64_t word, last = (uint64_t)n << 56;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		memcpy(&word, name + i, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	memcpy(&last, name + i, n - i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const char *symtab_name(const struct symtab *symtab, uint32_t index)
{
	switch (symtab->kind) {
	case SYMTAB_IMPORTS:
		return image_import_name(&symtab->image, index);
	case SYMTAB_OBJECTS:
		return image_object_name(&symtab->image, index);
	default:
		return image_method_name(&symtab->image, index);
	}
}

static uint32_t symtab_count(const struct image *image, enum symtab_kind kind)
{
	switch (kind) {
	case SYMTAB_IMPORTS:
		return image->n_imports;
	case SYMTAB_OBJECTS:
		return image->n_objects;
	default:
		return image->n_methods;
	}
}

/* The slot that holds @name, or the empty one where it would go. */
static uint32_t symtab_probe(const struct symtab *symtab, const char *name, uint64_t hash)
{
	uint32_t i = hash & symtab->mask;

	for (;; i = (i + 1) & symtab->mask) {
		const struct symtab_slot *slot = &symtab->slots[i];

		if (!slot->index)
			return i;
		if (slot->hash == hash >> 32 && strcmp(symtab_name(symtab, (slot->index & ~SYMTAB_SEVERAL) - 1), name) == 0)
			return i;
	}
}

/* A second variable of a name */
static void symtab_meet(const struct symtab *symtab, struct symtab_slot *slot, uint32_t index)
{
	const struct image_object *was = &symtab->image.objects[(slot->index & ~SYMTAB_SEVERAL) - 1];
	const struct image_object *is = &symtab->image.objects[index];

	if (is->is_global)
		slot->index = index + 1;
	else if (!was->is_global && (was->segment != is->segment || was->offset != is->offset))
		slot->index |= SYMTAB_SEVERAL;
}

static void symtab_add(struct symtab *symtab, uint32_t index)
{
	const char *name = symtab_name(symtab, index);
	uint64_t hash = sip_hash(symtab->key, name, strlen(name));
	struct symtab_slot *slot = &symtab->slots[symtab_probe(symtab, name, hash)];

	if (!slot->index)
		*slot = (struct symtab_slot){ hash >> 32, index + 1 };
	else if (symtab->kind == SYMTAB_OBJECTS)
		symtab_meet(symtab, slot, index);
}

int symtab_new(struct symtab **ret, const struct image *image, enum symtab_kind kind)
{
	const uint32_t n = symtab_count(image, kind);
	struct symtab *symtab;
	uint32_t n_slots = 16;

	while (n_slots < 2 * n)
		n_slots *= 2;
	symtab = calloc(1, sizeof(*symtab) + n_slots * sizeof(struct symtab_slot));
	if (!symtab)
		return error_origin(-ENOMEM);
	symtab->image = *image;
	symtab->kind = kind;
	symtab->mask = n_slots - 1;
	(void)!getrandom(symtab->key, sizeof(symtab->key), GRND_NONBLOCK);
	for (uint32_t index = 0; index < n; index++)
		symtab_add(symtab, index);
	*ret = symtab;
	return 0;
}

struct symtab *symtab_free(struct symtab *symtab)
{
	free(symtab);
	return NULL;
}

int64_t symtab_find(const struct symtab *symtab, const char *name)
{
	uint32_t i = symtab_probe(symtab, name, sip_hash(symtab->key, name, strlen(name)));

	if (symtab->slots[i].index & SYMTAB_SEVERAL)
		return SYMTAB_AMBIGUOUS;
	return (int64_t)symtab->slots[i].index - 1;
}
