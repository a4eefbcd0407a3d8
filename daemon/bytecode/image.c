/* SPDX-License-Identifier: Apache-2.0 */
/* Checking a module image that an untrusted worker wrote
 *
 * The order is the trust: the header first, then that every table lies inside the bytes, and only then what the tables
 * say about each other. Everything that appears in order when a builder wrote it (methods' instructions, relocations)
 * is required to be in order, so that "disjoint" is one comparison with the predecessor. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "bytecode/image.h"
#include "util/base.h"
#include "util/hash.h"

void refuse(struct refusal *refusal, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(refusal->text, sizeof(refusal->text), format, args);
	va_end(args);
	/* names come out of files that anybody made, and the sentence ends on somebody's terminal */
	for (char *c = refusal->text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

uint64_t image_hash(const void *bytes, size_t n)
{
	const size_t head = sizeof(struct image_header);

	return hash_fnv(HASH_FNV_BASIS, (const uint8_t *)bytes + head, n > head ? n - head : 0);
}

uint64_t image_content_hash(const struct image *image)
{
	const struct image_header *header = image->header;
	const uint32_t sizes[] = {
		image->n_methods, image->n_insns, image->n_relocs, image->n_imports, header->strings.n, image->n_rodata,
		image->n_data, image->n_bss, image->n_tags, image->n_files, image->n_lines, image->n_objects,
	};
	uint64_t hash = hash_fnv(HASH_FNV_BASIS, sizes, sizeof(sizes));

	hash = hash_fnv(hash, header->align, sizeof(header->align));
	return hash_fnv(hash, header + 1, header->precompiled.offset - sizeof(*header));
}

static bool check_table(const struct image_header *header, const char *name, struct image_table table, size_t element,
			uint32_t max, struct refusal *refusal)
{
	if (table.n > max) {
		refuse(refusal, "module image: %" PRIu32 " entries of %s, more than %" PRIu32, table.n, name, max);
		return false;
	}
	if (table.offset < sizeof(*header) || table.offset % 8) {
		refuse(refusal, "module image: %s at offset %" PRIu32 ": inside the header or not aligned", name,
		       table.offset);
		return false;
	}
	if (table.offset + (uint64_t)table.n * element > header->size) {
		refuse(refusal, "module image: %s at offset %" PRIu32 " with %" PRIu32 " entries ends outside the image",
		       name, table.offset, table.n);
		return false;
	}
	return true;
}

static bool check_tables(const struct image_header *h, struct refusal *refusal)
{
	return check_table(h, "methods", h->methods, sizeof(struct image_method), IMAGE_METHODS_MAX, refusal)
	    && check_table(h, "instructions", h->insns, sizeof(struct insn), IMAGE_INSNS_MAX, refusal)
	    && check_table(h, "relocations", h->relocs, sizeof(struct image_reloc), IMAGE_RELOCS_MAX, refusal)
	    && check_table(h, "imports", h->imports, sizeof(struct image_import), IMAGE_IMPORTS_MAX, refusal)
	    && check_table(h, "strings", h->strings, 1, UINT32_MAX, refusal)
	    && check_table(h, ".rodata", h->rodata, 1, IMAGE_SEGMENT_MAX, refusal)
	    && check_table(h, ".data", h->data, 1, IMAGE_SEGMENT_MAX, refusal)
	    && check_table(h, "tags", h->tags, sizeof(uint32_t), IMAGE_TAGS_MAX, refusal)
	    && check_table(h, "source files", h->files, sizeof(uint32_t), IMAGE_FILES_MAX, refusal)
	    && check_table(h, "source lines", h->lines, sizeof(struct image_line), IMAGE_INSNS_MAX, refusal)
	    && check_table(h, "variables", h->objects, sizeof(struct image_object), IMAGE_OBJECTS_MAX, refusal)
	    && check_table(h, "precompiled code", h->precompiled, 1, IMAGE_PRECOMPILED_MAX, refusal);
}

static bool check_header(const struct image_header *header, size_t n, struct refusal *refusal)
{
	if (header->magic != IMAGE_MAGIC) {
		refuse(refusal, "module image: not a module image of this version");
		return false;
	}
	if (header->size != n) {
		refuse(refusal, "module image: says it has %" PRIu32 " bytes, has %zu", header->size, n);
		return false;
	}
	if (header->flags || header->reserved) {
		refuse(refusal, "module image: unknown flags 0x%" PRIx32, header->flags | header->reserved);
		return false;
	}
	if (header->n_bss > IMAGE_SEGMENT_MAX) {
		refuse(refusal, "module image: %" PRIu32 " bytes of .bss, more than %u", header->n_bss, IMAGE_SEGMENT_MAX);
		return false;
	}
	for (unsigned int i = 0; i < _IMAGE_SEGMENT_N; i++)
		if (!is_power_of_two(header->align[i]) || header->align[i] > IMAGE_ALIGN_MAX) {
			refuse(refusal, "module image: segment %u has alignment %" PRIu32, i, header->align[i]);
			return false;
		}
	if (!check_tables(header, refusal))
		return false;
	if (header->hash != image_hash(header, n)) {
		refuse(refusal, "module image: its hash does not match its content");
		return false;
	}
	return true;
}

/* All strings end inside the table because the table ends in a NUL; each text must also be short and printable. */
static bool check_text(const struct image *image, uint32_t offset, uint32_t n_max, const char *what, uint32_t index,
		       struct refusal *refusal)
{
	const struct image_table *strings = &image->header->strings;
	size_t n;

	if (offset >= strings->n) {
		refuse(refusal, "module image: %s %" PRIu32 ": its name lies outside the strings", what, index);
		return false;
	}
	n = strnlen(image->strings + offset, MIN(n_max + 1, strings->n - offset));
	if (!n || n > n_max) {
		refuse(refusal, n ? "module image: %s %" PRIu32 ": its name has more than %" PRIu32 " bytes"
				  : "module image: %s %" PRIu32 ": its name has no bytes", what, index, n_max);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)image->strings[offset + i];

		if (c < 0x20 || c == 0x7f) {
			refuse(refusal, "module image: %s %" PRIu32 ": its name has a control character", what, index);
			return false;
		}
	}
	return true;
}

static bool check_name(const struct image *image, uint32_t offset, const char *what, uint32_t index, struct refusal *refusal)
{
	return check_text(image, offset, IMAGE_NAME_MAX, what, index, refusal);
}

/* What debug information told about the method; @tags: where the tags of its predecessors end. */
static bool check_description(const struct image *image, uint32_t index, uint32_t tags, struct refusal *refusal)
{
	const struct image_method *method = &image->methods[index];

	if (method->signature
	    && !check_text(image, method->signature, IMAGE_SIGNATURE_MAX, "signature of method", index, refusal))
		return false;
	if (!method->signature && (method->n_params || method->signature_hash)) {
		refuse(refusal, "module image: method '%s': %" PRIu32 " parameters without a signature",
		       image_method_name(image, index), method->n_params);
		return false;
	}
	if (method->n_tags && method->tag < tags) {
		refuse(refusal, "module image: method '%s': its tags overlap", image_method_name(image, index));
		return false;
	}
	if (method->tag > image->n_tags || method->n_tags > image->n_tags - method->tag) {
		refuse(refusal, "module image: method '%s': its tags lie outside", image_method_name(image, index));
		return false;
	}
	return true;
}

static bool check_methods(const struct image *image, struct refusal *refusal)
{
	uint32_t end = 0, tags = 0;

	for (uint32_t i = 0; i < image->n_methods; i++) {
		const struct image_method *method = &image->methods[i];

		if (!check_name(image, method->name, "method", i, refusal))
			return false;
		/* methods of one section share its name: look at it once */
		if ((!i || method->section != method[-1].section)
		    && !check_name(image, method->section, "section of method", i, refusal))
			return false;
		if (method->insn < end || method->insn > image->n_insns || !method->n_insns
		    || method->n_insns > image->n_insns - method->insn) {
			refuse(refusal, "module image: method '%s': its instructions are none, overlap, or lie outside",
			       image_method_name(image, i));
			return false;
		}
		end = method->insn + method->n_insns;
		if (method->flags & ~_IMAGE_METHOD_FLAGS || method->section_offset % sizeof(struct insn)) {
			refuse(refusal, "module image: method '%s': flags 0x%" PRIx32 " at section offset %" PRIu32,
			       image_method_name(image, i), method->flags, method->section_offset);
			return false;
		}
		if (!check_description(image, i, tags, refusal))
			return false;
		tags = method->n_tags ? method->tag + method->n_tags : tags;
	}
	return true;
}

static bool check_debug(const struct image *image, struct refusal *refusal)
{
	const struct image_line *line = image->lines;

	if (image->header->note && !check_name(image, image->header->note, "note", 0, refusal))
		return false;
	for (uint32_t i = 0; i < image->n_tags; i++)
		if (!check_name(image, image->tags[i], "tag", i, refusal))
			return false;
	for (uint32_t i = 0; i < image->n_files; i++)
		if (!check_name(image, image->files[i], "source file", i, refusal))
			return false;
	for (uint32_t i = 0; i < image->n_lines; i++, line++)
		if (line->insn >= image->n_insns || line->file >= image->n_files || (i && line->insn <= line[-1].insn)) {
			refuse(refusal, "module image: source line %" PRIu32 ": instruction %" PRIu32 " or file %" PRIu32
			       " does not exist, or out of order", i, line->insn, line->file);
			return false;
		}
	return true;
}

static bool check_imports(const struct image *image, struct refusal *refusal)
{
	for (uint32_t i = 0; i < image->n_imports; i++) {
		if (!check_name(image, image->imports[i].name, "import", i, refusal))
			return false;
		if (image->imports[i].flags & ~IMAGE_IMPORT_WEAK) {
			refuse(refusal, "module image: import '%s': unknown flags 0x%" PRIx32, image_import_name(image, i),
			       image->imports[i].flags);
			return false;
		}
	}
	return true;
}

bool image_ref_exists(const struct image *image, unsigned int ref, uint32_t index, int64_t addend)
{
	switch (ref) {
	case INSN_REF_METHOD:
		return index < image->n_methods && !addend;
	case INSN_REF_IMPORT:
		return index < image->n_imports && !addend;
	case INSN_REF_RODATA:
		return !index && addend >= 0 && addend <= image->n_rodata;
	case INSN_REF_DATA:
		return !index && addend >= 0 && addend <= image->n_data;
	case INSN_REF_BSS:
		return !index && addend >= 0 && addend <= image->n_bss;
	default:
		return false;
	}
}

static bool check_relocs(const struct image *image, struct refusal *refusal)
{
	const uint32_t size[] = { [IMAGE_RODATA] = image->n_rodata, [IMAGE_DATA] = image->n_data };
	uint64_t end = 0;
	unsigned int segment = IMAGE_RODATA;

	for (uint32_t i = 0; i < image->n_relocs; i++) {
		const struct image_reloc *reloc = &image->relocs[i];

		if (reloc->segment > IMAGE_DATA || reloc->segment < segment || reloc->pad
		    || (reloc->width != 8 && reloc->width != 4)) {
			refuse(refusal, "module image: relocation %" PRIu32 ": segment %u, width %u: illegal or out of order",
			       i, reloc->segment, reloc->width);
			return false;
		}
		if (reloc->segment != segment) {
			segment = reloc->segment;
			end = 0;
		}
		if (reloc->offset < end || (uint64_t)reloc->offset + reloc->width > size[segment]) {
			refuse(refusal, "module image: relocation %" PRIu32 ": offset %" PRIu32 " lies outside %s or overlaps",
			       i, reloc->offset, segment == IMAGE_RODATA ? ".rodata" : ".data");
			return false;
		}
		end = (uint64_t)reloc->offset + reloc->width;
		if (!image_ref_exists(image, reloc->ref, reloc->index, reloc->addend)) {
			refuse(refusal, "module image: relocation %" PRIu32 ": refers to nothing (kind %u, index %" PRIu32
			       ", addend %" PRId32 ")", i, reloc->ref, reloc->index, reloc->addend);
			return false;
		}
	}
	return true;
}

static int compare_objects(const struct image_object *a, const struct image_object *b)
{
	if (a->segment != b->segment)
		return a->segment < b->segment ? -1 : 1;
	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	if (a->is_global != b->is_global)
		return a->is_global < b->is_global ? -1 : 1;
	return a->size < b->size ? -1 : a->size > b->size;
}

static bool check_objects(const struct image *image, struct refusal *refusal)
{
	const uint32_t size[] = { [IMAGE_RODATA] = image->n_rodata, [IMAGE_DATA] = image->n_data, [IMAGE_BSS] = image->n_bss };

	for (uint32_t i = 0; i < image->n_objects; i++) {
		const struct image_object *object = &image->objects[i];

		if (!check_name(image, object->name, "variable", i, refusal))
			return false;
		if (object->segment >= _IMAGE_SEGMENT_N || object->is_global > 1 || object->reserved[0] || object->reserved[1]
		    || object->offset > size[object->segment] || object->size > size[object->segment] - object->offset) {
			refuse(refusal, "module image: variable '%s': %" PRIu32 " bytes at offset %" PRIu32 " of segment %u lie outside",
			       image_object_name(image, i), object->size, object->offset, object->segment);
			return false;
		}
		if (i && compare_objects(&object[-1], object) > 0) {
			refuse(refusal, "module image: variable '%s' is out of order", image_object_name(image, i));
			return false;
		}
	}
	return true;
}

bool image_check(const void *bytes, size_t n, struct image *ret, struct refusal *refusal)
{
	const struct image_header *header = bytes;
	const char *base = bytes;
	struct image image;

	if ((uintptr_t)bytes % 8 || n < sizeof(*header)) {
		refuse(refusal, "module image: %zu bytes are too few for its header, or not aligned", n);
		return false;
	}
	if (!check_header(header, n, refusal))
		return false;
	image = (struct image){
		.header = header,
		.methods = (const struct image_method *)(base + header->methods.offset),
		.insns = (const struct insn *)(base + header->insns.offset),
		.relocs = (const struct image_reloc *)(base + header->relocs.offset),
		.imports = (const struct image_import *)(base + header->imports.offset),
		.strings = base + header->strings.offset,
		.rodata = (const uint8_t *)base + header->rodata.offset,
		.data = (const uint8_t *)base + header->data.offset,
		.tags = (const uint32_t *)(base + header->tags.offset),
		.files = (const uint32_t *)(base + header->files.offset),
		.lines = (const struct image_line *)(base + header->lines.offset),
		.objects = (const struct image_object *)(base + header->objects.offset),
		.precompiled = (const uint8_t *)base + header->precompiled.offset,
		.n_methods = header->methods.n,
		.n_insns = header->insns.n,
		.n_relocs = header->relocs.n,
		.n_imports = header->imports.n,
		.n_rodata = header->rodata.n,
		.n_data = header->data.n,
		.n_bss = header->n_bss,
		.n_tags = header->tags.n,
		.n_files = header->files.n,
		.n_lines = header->lines.n,
		.n_objects = header->objects.n,
		.n_precompiled = header->precompiled.n,
	};
	if (header->strings.n && image.strings[header->strings.n - 1]) {
		refuse(refusal, "module image: its strings do not end in a NUL");
		return false;
	}
	if (!check_methods(&image, refusal) || !check_imports(&image, refusal) || !check_relocs(&image, refusal)
	    || !check_debug(&image, refusal) || !check_objects(&image, refusal))
		return false;
	*ret = image;
	return true;
}

int64_t image_object_at(const struct image *image, enum image_segment segment, uint64_t offset)
{
	uint32_t low = 0, high = image->n_objects;
	const struct image_object *object;

	while (low < high) {	/* to the first that begins after it */
		uint32_t middle = low + (high - low) / 2;

		object = &image->objects[middle];
		if (object->segment < segment || (object->segment == segment && object->offset <= offset))
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return -1;
	object = &image->objects[--low];
	return object->segment == segment && offset - object->offset <= object->size ? (int64_t)low : -1;
}

uint32_t image_lines_from(const struct image *image, uint32_t insn)
{
	uint32_t low = 0, high = image->n_lines;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (image->lines[middle].insn < insn)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool image_reloc_is_slot(const struct image_reloc *reloc)
{
	return reloc->segment == IMAGE_RODATA && reloc->ref == INSN_REF_METHOD && reloc->width == sizeof(uint64_t)
	    && reloc->offset % sizeof(uint64_t) == 0;
}

uint32_t image_slots(const struct image *image, uint32_t *ret_n)
{
	uint32_t slots = 0, end = 0;

	for (uint32_t i = 0; i < image->n_relocs && image->relocs[i].segment == IMAGE_RODATA; i++) {
		const struct image_reloc *reloc = &image->relocs[i];

		if (!image_reloc_is_slot(reloc))
			continue;
		if (!end)
			slots = reloc->offset;
		end = reloc->offset + sizeof(uint64_t);
	}
	*ret_n = end ? end - slots : 0;
	return slots;
}

int64_t image_find_method(const struct image *image, const char *name)
{
	for (uint32_t i = 0; i < image->n_methods; i++)
		if (!strcmp(image_method_name(image, i), name))
			return i;
	return -1;
}
