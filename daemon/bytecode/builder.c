/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a module image
 *
 * One growing block per table; builder_finish() lays them one after another behind the header:
 *
 *   header | methods | insns | relocs | imports | strings | .rodata | .data | tags | files | lines | objects
 *   | precompiled
 *
 * each at a multiple of 8. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "bytecode/builder.h"
#include "util/base.h"

static const struct {
	size_t element;		/* bytes */
	uint64_t max;		/* elements */
} parts[] = {
	[BUILDER_METHODS] = { sizeof(struct image_method), IMAGE_METHODS_MAX },
	[BUILDER_INSNS] = { sizeof(struct insn), IMAGE_INSNS_MAX },
	[BUILDER_RELOCS] = { sizeof(struct image_reloc), IMAGE_RELOCS_MAX },
	[BUILDER_IMPORTS] = { sizeof(struct image_import), IMAGE_IMPORTS_MAX },
	[BUILDER_STRINGS] = { 1, 1u << 30 },
	[BUILDER_RODATA] = { 1, IMAGE_SEGMENT_MAX },
	[BUILDER_DATA] = { 1, IMAGE_SEGMENT_MAX },
	[BUILDER_TAGS] = { sizeof(uint32_t), IMAGE_TAGS_MAX },
	[BUILDER_FILES] = { sizeof(uint32_t), IMAGE_FILES_MAX },
	[BUILDER_LINES] = { sizeof(struct image_line), IMAGE_INSNS_MAX },
	[BUILDER_OBJECTS] = { sizeof(struct image_object), IMAGE_OBJECTS_MAX },
	[BUILDER_PRECOMPILED] = { 1, IMAGE_PRECOMPILED_MAX },
};
_Static_assert(ARRAY_SIZE(parts) == _BUILDER_PART_N, "a limit for every table");

static int builder_fail(struct builder *builder, int error)
{
	if (!builder->error)
		builder->error = error;
	return builder->error;
}

/* Makes room for @n more bytes and returns where they start, zeroed; NULL after an error. */
static void *builder_grow(struct builder *builder, enum builder_part part, uint64_t n)
{
	struct builder_table *table = &builder->part[part];
	uint8_t *bytes;

	if (builder->error)
		return NULL;
	if (n > parts[part].max * parts[part].element - table->n) {
		builder_fail(builder, -EFBIG);
		return NULL;
	}
	if (table->n + n > table->n_max || !table->bytes) {
		size_t n_max = MAX(table->n + n, table->n_max * 2 + 256);

		bytes = realloc(table->bytes, n_max);
		if (!bytes) {
			builder_fail(builder, -ENOMEM);
			return NULL;
		}
		table->bytes = bytes;
		table->n_max = n_max;
	}
	bytes = table->bytes + table->n;
	memset(bytes, 0, n);
	table->n += n;
	return bytes;
}

static uint32_t builder_append(struct builder *builder, enum builder_part part, const void *bytes, size_t n)
{
	uint32_t index = builder->part[part].n / parts[part].element;
	void *place = builder_grow(builder, part, n);

	if (place && n)
		memcpy(place, bytes, n);
	return index;
}

void builder_deinit(struct builder *builder)
{
	for (unsigned int i = 0; i < _BUILDER_PART_N; i++)
		free(builder->part[i].bytes);
	*builder = (struct builder)BUILDER_NULL;
}

uint32_t builder_string(struct builder *builder, const char *name)
{
	return builder_append(builder, BUILDER_STRINGS, name, strlen(name) + 1);
}

uint32_t builder_method(struct builder *builder, const char *name, uint32_t section, uint32_t section_offset,
			uint32_t flags, const struct insn *insns, uint32_t n)
{
	struct image_method method = {
		.name = builder_string(builder, name),
		.section = section,
		.section_offset = section_offset,
		.insn = builder_append(builder, BUILDER_INSNS, insns, (size_t)n * sizeof(*insns)),
		.n_insns = n,
		.flags = flags,
	};

	return builder_append(builder, BUILDER_METHODS, &method, sizeof(method));
}

/* -- What debug information tells --- */
/* NULL after an error */
static struct image_method *builder_method_at(struct builder *builder, uint32_t method)
{
	return builder->error ? NULL : (struct image_method *)builder->part[BUILDER_METHODS].bytes + method;
}

void builder_describe(struct builder *builder, uint32_t method, uint32_t flags, const char *signature, uint32_t n_params,
		      uint64_t signature_hash)
{
	uint32_t text = signature ? builder_string(builder, signature) : 0;
	struct image_method *place = builder_method_at(builder, method);

	if (!place)
		return;
	place->flags |= flags;
	place->signature = text;
	place->n_params = signature ? n_params : 0;
	place->signature_hash = signature ? signature_hash : 0;
}

void builder_tag(struct builder *builder, uint32_t method, const char *tag)
{
	uint32_t text = builder_string(builder, tag);
	uint32_t index = builder_append(builder, BUILDER_TAGS, &text, sizeof(text));
	struct image_method *place = builder_method_at(builder, method);

	if (!place)
		return;
	if (!place->n_tags++)
		place->tag = index;
}

uint32_t builder_file(struct builder *builder, const char *name)
{
	uint32_t text = builder_string(builder, name);

	return builder_append(builder, BUILDER_FILES, &text, sizeof(text));
}

void builder_line(struct builder *builder, const struct image_line *line)
{
	builder_append(builder, BUILDER_LINES, line, sizeof(*line));
}

void builder_note(struct builder *builder, const char *note)
{
	builder->note = builder_string(builder, note);
}

uint32_t builder_import(struct builder *builder, const char *name, uint32_t flags)
{
	struct image_import import = { .name = builder_string(builder, name), .flags = flags };

	return builder_append(builder, BUILDER_IMPORTS, &import, sizeof(import));
}

void builder_reloc(struct builder *builder, const struct image_reloc *reloc)
{
	builder_append(builder, BUILDER_RELOCS, reloc, sizeof(*reloc));
}

void builder_object(struct builder *builder, const char *name, const struct image_object *object)
{
	struct image_object named = *object;

	named.name = builder_string(builder, name);
	builder_append(builder, BUILDER_OBJECTS, &named, sizeof(named));
}

void builder_precompiled(struct builder *builder, const void *bytes, size_t n)
{
	builder_append(builder, BUILDER_PRECOMPILED, bytes, n);
}

static enum builder_part segment_part(enum image_segment segment)
{
	return segment == IMAGE_RODATA ? BUILDER_RODATA : BUILDER_DATA;
}

uint32_t builder_segment(struct builder *builder, enum image_segment segment, const void *bytes, uint64_t n,
			 uint32_t align)
{
	uint64_t used = segment == IMAGE_BSS ? builder->n_bss : builder->part[segment_part(segment)].n;
	uint64_t offset = align_up(used, align);
	uint8_t *place;

	builder->align[segment] = MAX(builder->align[segment], align);
	if (n > IMAGE_SEGMENT_MAX || offset > IMAGE_SEGMENT_MAX - n) {
		builder_fail(builder, -EFBIG);
		return 0;
	}
	if (segment == IMAGE_BSS) {
		builder->n_bss = offset + n;
		return offset;
	}
	place = builder_grow(builder, segment_part(segment), offset - used + n);
	if (place && bytes && n)
		memcpy(place + (offset - used), bytes, n);
	return offset;
}

uint8_t *builder_bytes(struct builder *builder, enum image_segment segment, uint32_t offset, uint32_t n)
{
	struct builder_table *table = &builder->part[segment_part(segment)];

	if (builder->error || (uint64_t)offset + n > table->n)
		return NULL;
	return table->bytes + offset;
}

int builder_finish(struct builder *builder, void **ret, size_t *ret_n)
{
	struct image_table place[_BUILDER_PART_N];
	struct image_header *header;
	uint32_t size = sizeof(*header);
	uint8_t *bytes;

	if (builder->error)
		return builder->error;
	for (unsigned int i = 0; i < _BUILDER_PART_N; i++) {
		place[i] = (struct image_table){ .offset = size, .n = builder->part[i].n / parts[i].element };
		size = align_up(size + builder->part[i].n, 8);
	}
	bytes = calloc(1, size);
	if (!bytes)
		return builder_fail(builder, -ENOMEM);
	for (unsigned int i = 0; i < _BUILDER_PART_N; i++)
		if (builder->part[i].n)
			memcpy(bytes + place[i].offset, builder->part[i].bytes, builder->part[i].n);
	header = (struct image_header *)bytes;
	*header = (struct image_header){
		.magic = IMAGE_MAGIC,
		.size = size,
		.methods = place[BUILDER_METHODS],
		.insns = place[BUILDER_INSNS],
		.relocs = place[BUILDER_RELOCS],
		.imports = place[BUILDER_IMPORTS],
		.strings = place[BUILDER_STRINGS],
		.rodata = place[BUILDER_RODATA],
		.data = place[BUILDER_DATA],
		.tags = place[BUILDER_TAGS],
		.files = place[BUILDER_FILES],
		.lines = place[BUILDER_LINES],
		.objects = place[BUILDER_OBJECTS],
		.precompiled = place[BUILDER_PRECOMPILED],
		.n_bss = builder->n_bss,
		.note = builder->note,
		.hash = image_hash(bytes, size),
	};
	memcpy(header->align, builder->align, sizeof(header->align));
	*ret = bytes;
	*ret_n = size;
	return 0;
}
