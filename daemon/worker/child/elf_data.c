/* SPDX-License-Identifier: Apache-2.0 */
/* Data: which section goes to which segment, and the pointers in it
 *
 * All sections of a kind lie one after another in their segment, each at its alignment, in the file's order; then, in
 * .bss, the common symbols. What a section is follows from its flags; names count only where flags say too little.
 *
 * Variables are the symbols that lie there and say that they are data. One whose name an image cannot hold is left out:
 * nobody could bind to it. */
#include <inttypes.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/elf_loader.h"

static bool begins_with(const char *name, const char *prefix)
{
	return !strncmp(name, prefix, strlen(prefix));
}

static bool is_one_of(const char *name, const char *const names[], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static enum image_segment segment_of(const struct loader_section *section)
{
	if (section->type == SHT_NOBITS)
		return IMAGE_BSS;
	/* .data.rel.ro is writable only until its pointers are in place */
	if (!(section->flags & SHF_WRITE) || begins_with(section->name, ".data.rel.ro")
	    || begins_with(section->name, ".rodata"))
		return IMAGE_RODATA;
	return IMAGE_DATA;
}

static enum loader_section_kind data_kind(const struct loader_section *section)
{
	static const char *const lazy[] = { "license", "version" };
	static const char *const maps[] = { ".maps", "maps" };

	if (is_one_of(section->name, maps, ARRAY_SIZE(maps)))
		return SECTION_MAPS;
	if (section->type == SHT_NOTE || is_one_of(section->name, lazy, ARRAY_SIZE(lazy)))
		return SECTION_LAZY;
	if (!strcmp(section->name, ".eh_frame"))
		return SECTION_IGNORED;
	return section->type == SHT_PROGBITS || section->type == SHT_NOBITS ? SECTION_DATA : SECTION_IGNORED;
}

static bool is_constructor(const struct loader_section *section)
{
	return section->type == SHT_INIT_ARRAY || section->type == SHT_FINI_ARRAY || section->type == SHT_PREINIT_ARRAY
	    || begins_with(section->name, ".ctors") || begins_with(section->name, ".dtors");
}

bool loader_classify(struct loader *loader, uint32_t index)
{
	struct loader_section *section = &loader->sections[index];

	if (!(section->flags & SHF_ALLOC))
		return true;
	if (section->flags & (SHF_TLS | SHF_COMPRESSED))
		return loader_refuse_at(loader, index, 0, "%s data are not supported",
					section->flags & SHF_TLS ? "thread-local" : "compressed");
	if (is_constructor(section))
		return loader_refuse_at(loader, index, 0, "constructors and destructors would never run");
	if (!is_power_of_two(section->align) || section->align > IMAGE_ALIGN_MAX)
		return loader_refuse_at(loader, index, 0, "alignment %" PRIu64 " is no power of two up to %u", section->align,
					IMAGE_ALIGN_MAX);
	if (!(section->flags & SHF_EXECINSTR)) {
		section->kind = data_kind(section);
		section->segment = segment_of(section);
		return true;
	}
	if (section->type != SHT_PROGBITS)
		return loader_refuse_at(loader, index, 0, "an executable section of type 0x%" PRIx32 ", without code",
					section->type);
	section->kind = SECTION_CODE;
	return true;
}

/* -- Segments --- */

static bool place_section(struct loader *loader, uint32_t index)
{
	struct loader_section *section = &loader->sections[index];

	if (section->size > IMAGE_SEGMENT_MAX)
		return loader_refuse_at(loader, index, 0, "0x%" PRIx64 " bytes, more than 0x%x", section->size,
					IMAGE_SEGMENT_MAX);
	section->base = builder_segment(&loader->builder, section->segment, section->bytes, section->size, section->align);
	return true;
}

static bool place_common(struct loader *loader, struct loader_symbol *symbol)
{
	if (!is_power_of_two(symbol->value) || symbol->value > IMAGE_ALIGN_MAX || symbol->size > IMAGE_SEGMENT_MAX)
		return loader_refuse(loader, "common symbol '%.80s': 0x%" PRIx64 " bytes with alignment %" PRIu64,
				     symbol->name, symbol->size, symbol->value);
	symbol->placed = builder_segment(&loader->builder, IMAGE_BSS, NULL, symbol->size, symbol->value);
	return true;
}

bool loader_place_data(struct loader *loader)
{
	for (uint32_t i = 0; i < loader->n_relocs; i++) {
		uint32_t target = loader->symbols[loader->relocs[i].symbol].section;

		if (target < loader->n_sections && loader->sections[target].kind == SECTION_LAZY)
			loader->sections[target].kind = SECTION_DATA;
	}
	for (uint32_t i = 1; i < loader->n_sections; i++)
		if (loader->sections[i].kind == SECTION_DATA && !place_section(loader, i))
			return false;
	for (uint32_t i = 1; i < loader->n_symbols; i++)
		if (loader->symbols[i].section == SHN_COMMON && !place_common(loader, &loader->symbols[i]))
			return false;
	return true;
}

/* -- Pointers --- */

static bool relocate_field(struct loader *loader, const struct loader_reloc *reloc, uint64_t *end)
{
	const struct loader_section *section = &loader->sections[reloc->section];
	uint8_t width = reloc->type == BPF_RELOC_64_ABS64 ? 8 : 4;
	struct loader_target target;
	int64_t addend = reloc->addend;
	uint8_t *field;

	if (reloc->type != BPF_RELOC_64_ABS64 && reloc->type != BPF_RELOC_64_ABS32)
		return loader_refuse_at(loader, reloc->section, reloc->offset, "relocation type %" PRIu32
					" is not known in data", reloc->type);
	if (section->segment == IMAGE_BSS || reloc->offset < *end || reloc->offset > section->size
	    || width > section->size - reloc->offset)
		return loader_refuse_at(loader, reloc->section, reloc->offset,
					"its relocation lies outside the section's bytes or overlaps another");
	*end = reloc->offset + width;
	field = builder_bytes(&loader->builder, section->segment, section->base + reloc->offset, width);
	if (!field)
		return true;	/* the builder has failed before and will say so */
	if (!reloc->has_addend && width == 8)
		memcpy(&addend, field, sizeof(addend));
	if (!reloc->has_addend && width == 4)
		addend = (int32_t)((uint32_t)field[0] | field[1] << 8 | field[2] << 16 | (uint32_t)field[3] << 24);
	memset(field, 0, width);
	addend = (uint64_t)addend - reloc->symbol_value;
	if (!loader_resolve(loader, reloc->section, reloc->offset, reloc->symbol, addend, &target))
		return false;
	builder_reloc(&loader->builder, &(struct image_reloc){
		.segment = section->segment, .ref = target.ref, .width = width, .offset = section->base + reloc->offset,
		.index = target.index, .addend = target.addend,
	});
	return true;
}

static bool relocate_segment(struct loader *loader, enum image_segment segment)
{
	for (uint32_t i = 1; i < loader->n_sections; i++) {
		uint32_t index = loader_relocs_from(loader, i, 0);
		const struct loader_reloc *reloc;
		uint64_t end = 0;

		if (loader->sections[i].kind != SECTION_DATA || loader->sections[i].segment != segment)
			continue;
		for (; (reloc = loader_reloc_in(loader, index, i)); index++)
			if (!relocate_field(loader, reloc, &end))
				return false;
	}
	return true;
}

bool loader_relocate_data(struct loader *loader)
{
	/* in the order of the image's table; a relocation in .bss ends in a refusal */
	return relocate_segment(loader, IMAGE_RODATA) && relocate_segment(loader, IMAGE_DATA)
	    && relocate_segment(loader, IMAGE_BSS);
}

/* -- Variables --- */

/* As image_check() wants names */
static bool is_name(const char *name)
{
	size_t n = strnlen(name, IMAGE_NAME_MAX + 1);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return false;
	return n && n <= IMAGE_NAME_MAX;
}

struct variable {
	const char *name;
	struct image_object object;
	uint32_t symbol;
};

/* as struct image_object tells; then in the symbol table's order */
static int compare_variables(const void *a, const void *b)
{
	const struct variable *x = a, *y = b;

	if (x->object.segment != y->object.segment)
		return x->object.segment < y->object.segment ? -1 : 1;
	if (x->object.offset != y->object.offset)
		return x->object.offset < y->object.offset ? -1 : 1;
	if (x->object.is_global != y->object.is_global)
		return x->object.is_global < y->object.is_global ? -1 : 1;
	if (x->object.size != y->object.size)
		return x->object.size < y->object.size ? -1 : 1;
	return x->symbol < y->symbol ? -1 : x->symbol > y->symbol;
}

static bool is_variable(const struct loader *loader, const struct loader_symbol *symbol)
{
	if (!is_name(symbol->name))
		return false;
	if (symbol->section == SHN_COMMON)
		return true;
	return symbol->type == STT_OBJECT && symbol->section < loader->n_sections
	    && loader->sections[symbol->section].kind == SECTION_DATA;
}

static bool name_variable(struct loader *loader, uint32_t index, struct variable *ret)
{
	const struct loader_symbol *symbol = &loader->symbols[index];
	const struct loader_section *section;

	*ret = (struct variable){ .name = symbol->name, .symbol = index };
	ret->object.is_global = symbol->bind != STB_LOCAL;
	ret->object.size = symbol->size;
	if (symbol->section == SHN_COMMON) {
		ret->object.segment = IMAGE_BSS;
		ret->object.offset = symbol->placed;
		return true;
	}
	section = &loader->sections[symbol->section];
	if (symbol->value > section->size || symbol->size > section->size - symbol->value)
		return loader_refuse_at(loader, symbol->section, symbol->value, "variable '%.80s' (0x%" PRIx64
					" bytes) ends outside its section of 0x%" PRIx64 " bytes", symbol->name, symbol->size,
					section->size);
	ret->object.segment = section->segment;
	ret->object.offset = section->base + symbol->value;
	return true;
}

bool loader_name_data(struct loader *loader)
{
	_cleanup_(freep) struct variable *variables = NULL;
	uint32_t n = 0;

	for (uint32_t i = 1; i < loader->n_symbols; i++)
		n += is_variable(loader, &loader->symbols[i]);
	if (!n)
		return true;
	variables = calloc(n, sizeof(*variables));
	if (!variables)
		return loader_refuse(loader, "out of memory");
	n = 0;
	for (uint32_t i = 1; i < loader->n_symbols; i++)
		if (is_variable(loader, &loader->symbols[i]) && !name_variable(loader, i, &variables[n++]))
			return false;
	qsort(variables, n, sizeof(*variables), compare_variables);
	for (uint32_t i = 0; i < n; i++)
		builder_object(&loader->builder, variables[i].name, &variables[i].object);
	return true;
}
