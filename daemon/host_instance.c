/* SPDX-License-Identifier: Apache-2.0 */
/* Knobs: the variables of .rodata that an instantiation gives values to
 *
 * What a `const volatile` variable holds is not known to the compiler that made the bytecode, so each reads it out of
 * .rodata, and one that knows the module's .rodata may take it for a constant. Which variables are volatile no object
 * tells; so any that has a name and a number's size can be given a value, but for pointers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "host.h"
#include "util/base.h"

#define NEAR_LOOKED_AT 4096u /* a sentence is worth no more than a fraction of a millisecond */
#define NEAR_NAMED     3u

/* -- Sentences --- */
/* How alike names are: what they begin and end with */
static uint32_t likeness(const char *a, const char *b)
{
	const size_t n_a = strlen(a), n_b = strlen(b), n = MIN(n_a, n_b);
	size_t head = 0, tail = 0;

	while (head < n && a[head] == b[head])
		head++;
	while (tail < n - head && a[n_a - 1 - tail] == b[n_b - 1 - tail])
		tail++;
	return head + tail;
}

static bool has_number_size(uint32_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

/* The variables of .rodata whose names are most like @name, the best first. Returns how many. */
static uint32_t find_near(const struct image *image, const char *name, uint32_t objects[NEAR_NAMED])
{
	uint32_t scores[NEAR_NAMED], n = 0;

	for (uint32_t i = 0; i < image->n_objects && i < NEAR_LOOKED_AT; i++) {
		const struct image_object *object = &image->objects[i];
		uint32_t score, at;

		if (object->segment != IMAGE_RODATA || !has_number_size(object->size) || !*image_object_name(image, i))
			continue;
		score = likeness(name, image_object_name(image, i));
		for (at = n; at > 0 && scores[at - 1] < score; at--)
			;
		if (at == NEAR_NAMED)
			continue;
		n = MIN(n + 1, NEAR_NAMED);
		memmove(&scores[at + 1], &scores[at], (n - at - 1) * sizeof(scores[0]));
		memmove(&objects[at + 1], &objects[at], (n - at - 1) * sizeof(objects[0]));
		scores[at] = score;
		objects[at] = i;
	}
	return n;
}

static bool refuse_name(const struct image *image, const char *name, const char *what, struct refusal *refusal)
{
	uint32_t near[NEAR_NAMED];
	const uint32_t n = find_near(image, name, near);
	char list[NEAR_NAMED * 68] = "";

	for (uint32_t i = 0; i < n; i++) {
		strcat(list, i ? ", " : "");
		strncat(list, image_object_name(image, near[i]), 63);
	}
	refuse(refusal, "%s '%.63s'; knobs are variables of .rodata%s%s", what, name,
	       n ? ", among them " : ", of which this module has none", list);
	return false;
}

/* -- Checks --- */
/* Pointers in .rodata come first among the relocations, in order, and none overlap. */
static bool holds_pointer(const struct image *image, const struct image_object *object)
{
	uint32_t low = 0, high = image->n_relocs;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		const struct image_reloc *reloc = &image->relocs[middle];

		if (reloc->segment == IMAGE_RODATA && reloc->offset + reloc->width <= object->offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < image->n_relocs && image->relocs[low].segment == IMAGE_RODATA &&
	       image->relocs[low].offset < object->offset + object->size;
}

/* Also negative numbers are written with all their bits. */
static bool value_fits(uint64_t value, uint32_t size)
{
	const unsigned int bits = 8 * size;

	return bits == 64 || !(value >> bits) || (int64_t)value >> (bits - 1) == -1;
}

static uint64_t value_cut(uint64_t value, uint32_t size)
{
	return size == 8 ? value : value & ((1ull << 8 * size) - 1);
}

bool host_find_knob(struct host_knob *ret, const struct host *host, const char *name, uint64_t value,
		    struct refusal *refusal)
{
	const struct image *image = &host->image;
	const int64_t found = symtab_find(host->objects, name);
	const struct image_object *object;

	if (found == SYMTAB_AMBIGUOUS)
		return refuse_name(image, name, "several static variables of the module are called", refusal);
	if (found < 0)
		return refuse_name(image, name, "the module has no variable", refusal);
	object = &image->objects[found];
	if (object->segment != IMAGE_RODATA)
		return refuse_name(image, name, "no constant, but a variable that is written to, is", refusal);
	if (!has_number_size(object->size)) {
		refuse(refusal, "'%.63s' is no knob: it has %u bytes, a number has 1, 2, 4 or 8", name, object->size);
		return false;
	}
	if (holds_pointer(image, object)) {
		refuse(refusal, "'%.63s' is no knob: it holds a pointer", name);
		return false;
	}
	if (!value_fits(value, object->size)) {
		refuse(refusal, "%llu (0x%llx) does not fit knob '%.63s', which has %u byte%s",
		       (unsigned long long)value, (unsigned long long)value, name, object->size,
		       object->size == 1 ? "" : "s");
		return false;
	}
	*ret = (struct host_knob){.object = found, .value = value_cut(value, object->size)};
	return true;
}

static bool overlap(const struct image_object *a, const struct image_object *b)
{
	return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

bool host_add_knob(struct host_knobs *knobs, const struct host *host, const struct host_knob *knob,
		   struct refusal *refusal)
{
	const struct image *image = &host->image;
	const char *name = image_object_name(image, knob->object);
	uint32_t at = 0;

	for (uint32_t i = 0; i < knobs->n; i++) {
		const char *other = image_object_name(image, knobs->knobs[i].object);

		if (overlap(&image->objects[knobs->knobs[i].object], &image->objects[knob->object])) {
			if (!strcmp(name, other))
				refuse(refusal, "knob '%.63s' is given twice", name);
			else
				refuse(refusal, "knobs '%.63s' and '%.63s' are names of the same place", other, name);
			return false;
		}
		at += strcmp(other, name) < 0;
	}
	if (knobs->n == HOST_KNOBS_MAX) {
		refuse(refusal, "more than %u knobs are given", HOST_KNOBS_MAX);
		return false;
	}
	memmove(&knobs->knobs[at + 1], &knobs->knobs[at], (knobs->n - at) * sizeof(knobs->knobs[0]));
	knobs->knobs[at] = *knob;
	knobs->n++;
	return true;
}

/* -- What they come to --- */
bool host_knobs_are_equal(const struct host_knobs *a, const struct host_knobs *b)
{
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (a->knobs[i].object != b->knobs[i].object || a->knobs[i].value != b->knobs[i].value)
			return false;
	return true;
}

uint8_t *host_rodata_with(const struct image *image, const struct host_knobs *knobs)
{
	uint8_t *rodata = malloc(image->n_rodata);

	if (!rodata)
		return NULL;
	memcpy(rodata, image->rodata, image->n_rodata);
	for (uint32_t i = 0; i < knobs->n; i++) {
		const struct image_object *object = &image->objects[knobs->knobs[i].object];

		memcpy(rodata + object->offset, &knobs->knobs[i].value, object->size); /* little endian */
	}
	return rodata;
}
