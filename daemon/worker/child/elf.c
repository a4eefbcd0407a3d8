/* SPDX-License-Identifier: Apache-2.0 */
/* From an object file to a module image
 *
 *   open → sections → symbols → relocations → segments → functions → methods → pointers in data → image
 *
 * The file is hostile. libelf decodes headers, symbols and relocations; every offset and index is compared here before
 * it is followed, and work and memory stay proportional to the file, whatever its tables say (sections may overlap, so
 * the limits of the image count, not those of the file). Whatever is not understood is refused by a sentence. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/elf.h"
#include "worker/child/elf_object.h"

bool object_refuse(struct object *object, const char *format, ...)
{
	char text[sizeof(object->refusal->text)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	refuse(object->refusal, "%s", text);
	return false;
}

bool object_refuse_at(struct object *object, uint32_t section, uint64_t offset, const char *format, ...)
{
	char reason[256];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	return object_refuse(object, "section '%.80s', offset 0x%" PRIx64 ": %s", object->sections[section].name, offset,
			     reason);
}

static void object_deinit(struct object *object)
{
	builder_deinit(&object->builder);
	free(object->functions);
	free(object->relocs);
	free(object->symbols);
	free(object->sections);
	if (object->elf)
		elf_end(object->elf);
}

/* -- The file's header --- */

/* Says in words what libelf would only decline. */
static bool object_check_ident(struct object *object)
{
	const uint8_t *ident = object->file;

	if (object->n_file < sizeof(Elf64_Ehdr) || memcmp(ident, ELFMAG, SELFMAG))
		return object_refuse(object, "not an ELF object file (%zu bytes)", object->n_file);
	if (object->n_file > UINT32_MAX)
		return object_refuse(object, "%zu bytes, more than 4 GiB", object->n_file);
	if (ident[EI_CLASS] != ELFCLASS64)
		return object_refuse(object, "not a 64-bit ELF file (class %u)", ident[EI_CLASS]);
	if (ident[EI_DATA] != ELFDATA2LSB)
		return object_refuse(object, "a byte-swapped (big-endian) object: compile for -target bpfel");
	if (ident[EI_VERSION] != EV_CURRENT)
		return object_refuse(object, "unknown ELF version %u", ident[EI_VERSION]);
	return true;
}

static bool object_check_header(struct object *object, const GElf_Ehdr *header)
{
	if (header->e_machine != EM_BPF)
		return object_refuse(object, "an object for machine %u, not for BPF (%u): compile with -target bpf",
				     header->e_machine, EM_BPF);
	if (header->e_type != ET_REL)
		return object_refuse(object, "not a relocatable object (ELF type %u, not %u)", header->e_type, ET_REL);
	if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shoff >= object->n_file)
		return object_refuse(object, "no section headers at offset 0x%" PRIx64 " (%u bytes each) of %zu bytes",
				     (uint64_t)header->e_shoff, header->e_shentsize, object->n_file);
	if (header->e_shnum > (object->n_file - header->e_shoff) / sizeof(Elf64_Shdr))
		return object_refuse(object, "its %u section headers at offset 0x%" PRIx64 " end after the file's %zu bytes",
				     header->e_shnum, (uint64_t)header->e_shoff, object->n_file);
	if (!header->e_shnum || header->e_shnum >= SHN_LORESERVE || header->e_shstrndx >= header->e_shnum)
		return object_refuse(object, "%u sections, names in section %u: none, or more than %u", header->e_shnum,
				     header->e_shstrndx, SHN_LORESERVE - 1);
	return true;
}

static bool object_open(struct object *object, void *file)
{
	GElf_Ehdr header;

	if (!object_check_ident(object))
		return false;
	elf_version(EV_CURRENT);
	object->elf = elf_memory(file, object->n_file);
	if (!object->elf || elf_kind(object->elf) != ELF_K_ELF || !gelf_getehdr(object->elf, &header))
		return object_refuse(object, "libelf cannot read it: %s", elf_errmsg(-1));
	return object_check_header(object, &header);
}

/* -- Sections --- */

const char *object_string(const struct object *object, uint32_t table, uint64_t offset)
{
	const struct object_section *section;

	if (table >= object->n_sections)
		return NULL;
	section = &object->sections[table];
	/* a table that ends in NUL ends all its strings */
	if (section->type != SHT_STRTAB || offset >= section->size || section->bytes[section->size - 1])
		return NULL;
	return (const char *)section->bytes + offset;
}

static bool object_read_section(struct object *object, uint32_t index)
{
	struct object_section *section = &object->sections[index];
	Elf_Scn *scn = elf_getscn(object->elf, index);
	GElf_Shdr header;

	if (!scn || !gelf_getshdr(scn, &header))
		return object_refuse(object, "section %" PRIu32 ": libelf cannot read its header: %s", index, elf_errmsg(-1));
	*section = (struct object_section){
		.name = "?",
		.size = header.sh_size,
		.align = MAX(header.sh_addralign, (uint64_t)1),
		.flags = header.sh_flags,
		.type = header.sh_type,
		.link = header.sh_link,
		.info = header.sh_info,
		.entry_size = header.sh_entsize,
	};
	if (section->type == SHT_NOBITS || section->type == SHT_NULL)
		return true;
	if (header.sh_offset > object->n_file || header.sh_size > object->n_file - header.sh_offset)
		return object_refuse(object, "section %" PRIu32 ": its bytes (offset 0x%" PRIx64 ", size 0x%" PRIx64
				     ") end after the file's %zu", index, (uint64_t)header.sh_offset,
				     (uint64_t)header.sh_size, object->n_file);
	section->bytes = object->file + header.sh_offset;
	return true;
}

static bool object_read_sections(struct object *object)
{
	size_t n, names;

	if (elf_getshdrnum(object->elf, &n) || elf_getshdrstrndx(object->elf, &names) || !n)
		return object_refuse(object, "libelf cannot read its section headers: %s", elf_errmsg(-1));
	object->sections = calloc(n, sizeof(*object->sections));
	if (!object->sections)
		return object_refuse(object, "out of memory");
	object->n_sections = n;
	for (uint32_t i = 0; i < n; i++)
		if (!object_read_section(object, i))
			return false;
	for (uint32_t i = 1; i < n; i++) {
		GElf_Shdr header;

		gelf_getshdr(elf_getscn(object->elf, i), &header);
		object->sections[i].name = object_string(object, names, header.sh_name);
		if (!object->sections[i].name) {
			object->sections[i].name = "?";
			return object_refuse(object, "section %" PRIu32 ": its name lies outside the table of names", i);
		}
		if (!object_classify(object, i))
			return false;
	}
	return true;
}

/* -- Relocations --- */

static int compare_relocs(const void *a, const void *b)
{
	const struct object_reloc *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

const struct object_reloc *object_relocs_from(const struct object *object, uint32_t section, uint64_t offset)
{
	const struct object_reloc key = { .section = section, .offset = offset };
	uint32_t low = 0, high = object->n_relocs;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_relocs(&object->relocs[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return object->relocs + low;
}

/* Only relocations of sections that can reach the image are of interest: not BTF's, not debug information's. */
static bool is_relocated(const struct object *object, const struct object_section *table)
{
	enum object_section_kind kind;

	if ((table->type != SHT_REL && table->type != SHT_RELA) || table->info >= object->n_sections)
		return false;
	kind = object->sections[table->info].kind;
	return kind == SECTION_CODE || kind == SECTION_DATA || kind == SECTION_LAZY;
}

static bool object_read_reloc(struct object *object, uint32_t table, Elf_Data *data, int index)
{
	const struct object_section *section = &object->sections[table];
	struct object_reloc reloc = { .section = section->info, .has_addend = section->type == SHT_RELA };
	GElf_Rela rela;
	GElf_Rel rel;

	if (reloc.has_addend ? !gelf_getrela(data, index, &rela) : !gelf_getrel(data, index, &rel))
		return object_refuse_at(object, table, index * section->entry_size, "libelf cannot read the relocation: %s",
					elf_errmsg(-1));
	reloc.offset = reloc.has_addend ? rela.r_offset : rel.r_offset;
	reloc.addend = reloc.has_addend ? rela.r_addend : 0;
	reloc.type = GELF_R_TYPE(reloc.has_addend ? rela.r_info : rel.r_info);
	reloc.symbol = GELF_R_SYM(reloc.has_addend ? rela.r_info : rel.r_info);
	if (reloc.type == BPF_RELOC_NONE)
		return true;
	if (reloc.symbol >= object->n_symbols)
		return object_refuse_at(object, reloc.section, reloc.offset, "its relocation names symbol %" PRIu32
					" of %" PRIu32, reloc.symbol, object->n_symbols);
	object->relocs[object->n_relocs++] = reloc;
	return true;
}

static bool object_read_reloc_table(struct object *object, uint32_t table)
{
	const struct object_section *section = &object->sections[table];
	uint64_t entry = section->type == SHT_RELA ? sizeof(Elf64_Rela) : sizeof(Elf64_Rel), n = section->size / entry;
	struct object_reloc *relocs;
	Elf_Data *data;

	if (section->entry_size != entry || section->size % entry || section->link != object->symbol_table)
		return object_refuse_at(object, table, 0, "a relocation table with entries of %" PRIu64
					" bytes in 0x%" PRIx64 " bytes, for the symbols in section %" PRIu32,
					section->entry_size, section->size, section->link);
	if (!n)
		return true;
	if (n > IMAGE_RELOCS_MAX - object->n_relocs)
		return object_refuse_at(object, table, 0, "more than %u relocations in the object", IMAGE_RELOCS_MAX);
	data = elf_getdata(elf_getscn(object->elf, table), NULL);
	relocs = reallocarray(object->relocs, object->n_relocs + n, sizeof(*relocs));
	if (relocs)
		object->relocs = relocs;
	if (!data || !relocs)
		return object_refuse_at(object, table, 0, "%s", relocs ? elf_errmsg(-1) : "out of memory");
	for (uint64_t i = 0; i < n; i++)
		if (!object_read_reloc(object, table, data, i))
			return false;
	return true;
}

static bool object_read_relocs(struct object *object)
{
	for (uint32_t i = 1; i < object->n_sections; i++)
		if (is_relocated(object, &object->sections[i]) && !object_read_reloc_table(object, i))
			return false;
	if (object->n_relocs)
		qsort(object->relocs, object->n_relocs, sizeof(*object->relocs), compare_relocs);
	for (uint32_t i = 1; i < object->n_relocs; i++)
		if (!compare_relocs(&object->relocs[i - 1], &object->relocs[i]))
			return object_refuse_at(object, object->relocs[i].section, object->relocs[i].offset,
						"two relocations of one field");
	return true;
}

/* -- The whole --- */

static bool object_finish(struct object *object, void **ret, size_t *ret_n)
{
	_cleanup_(freep) void *bytes = NULL;
	struct image image;
	size_t n;
	int r;

	r = builder_finish(&object->builder, &bytes, &n);
	if (r == -EFBIG)
		return object_refuse(object, "too large: more than %u instructions, %u imports, %u pointers in data, or %u MiB"
				     " of .rodata, .data or .bss", IMAGE_INSNS_MAX, IMAGE_IMPORTS_MAX, IMAGE_RELOCS_MAX,
				     IMAGE_SEGMENT_MAX >> 20);
	if (r)
		return object_refuse(object, "out of memory");
	/* The daemon will say it again; said here, a mistake of ours has a place where it can be seen. */
	if (!image_check(bytes, n, &image, object->refusal))
		return false;
	*ret = TAKE_PTR(bytes);
	*ret_n = n;
	return true;
}

bool elf_to_image(void *file, size_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	_cleanup_(object_deinit) struct object object = {
		.file = file,
		.n_file = n,
		.builder = BUILDER_NULL,
		.refusal = refusal,
	};

	return object_open(&object, file)
	    && object_read_sections(&object)
	    && object_read_symbols(&object)
	    && object_read_relocs(&object)
	    && object_place_data(&object)
	    && object_collect_functions(&object)
	    && object_add_methods(&object)
	    && object_relocate_data(&object)
	    && object_finish(&object, ret, ret_n);
}
