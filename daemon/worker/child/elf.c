/* SPDX-License-Identifier: Apache-2.0 */
/* From an object file to a module image
 *
 *   open → sections → symbols → relocations → segments → functions → methods → pointers in data → variables
 *        → debug information → image
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
#include "worker/child/elf_loader.h"
#include "worker/precompiled.h"

bool loader_refuse(struct loader *loader, const char *format, ...)
{
	char text[sizeof(loader->refusal->text)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	refuse(loader->refusal, "%s", text);
	return false;
}

bool loader_refuse_at(struct loader *loader, uint32_t section, uint64_t offset, const char *format, ...)
{
	char reason[256];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	return loader_refuse(loader, "section '%.80s', offset 0x%" PRIx64 ": %s", loader->sections[section].name, offset,
			     reason);
}

static void loader_deinit(struct loader *loader)
{
	builder_deinit(&loader->builder);
	free(loader->functions);
	free(loader->relocs);
	free(loader->symbols);
	free(loader->sections);
	if (loader->elf)
		elf_end(loader->elf);
}

/* -- The file's header --- */

/* Says in words what libelf would only decline. */
static bool loader_check_ident(struct loader *loader)
{
	const uint8_t *ident = loader->file;

	if (loader->n_file < sizeof(Elf64_Ehdr) || memcmp(ident, ELFMAG, SELFMAG))
		return loader_refuse(loader, "not an ELF object file (%zu bytes)", loader->n_file);
	if (loader->n_file > UINT32_MAX)
		return loader_refuse(loader, "%zu bytes, more than 4 GiB", loader->n_file);
	if (ident[EI_CLASS] != ELFCLASS64)
		return loader_refuse(loader, "not a 64-bit ELF file (class %u)", ident[EI_CLASS]);
	if (ident[EI_DATA] != ELFDATA2LSB)
		return loader_refuse(loader, "a byte-swapped (big-endian) object: compile for -target bpfel");
	if (ident[EI_VERSION] != EV_CURRENT)
		return loader_refuse(loader, "unknown ELF version %u", ident[EI_VERSION]);
	return true;
}

static bool loader_check_header(struct loader *loader, const GElf_Ehdr *header)
{
	if (header->e_machine != EM_BPF)
		return loader_refuse(loader, "an object for machine %u, not for BPF (%u): compile with -target bpf",
				     header->e_machine, EM_BPF);
	if (header->e_type != ET_REL)
		return loader_refuse(loader, "not a relocatable object (ELF type %u, not %u)", header->e_type, ET_REL);
	if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shoff >= loader->n_file)
		return loader_refuse(loader, "no section headers at offset 0x%" PRIx64 " (%u bytes each) of %zu bytes",
				     (uint64_t)header->e_shoff, header->e_shentsize, loader->n_file);
	if (header->e_shnum > (loader->n_file - header->e_shoff) / sizeof(Elf64_Shdr))
		return loader_refuse(loader, "its %u section headers at offset 0x%" PRIx64 " end after the file's %zu bytes",
				     header->e_shnum, (uint64_t)header->e_shoff, loader->n_file);
	if (!header->e_shnum || header->e_shnum >= SHN_LORESERVE || header->e_shstrndx >= header->e_shnum)
		return loader_refuse(loader, "%u sections, names in section %u: none, or more than %u", header->e_shnum,
				     header->e_shstrndx, SHN_LORESERVE - 1);
	return true;
}

static bool loader_open(struct loader *loader, void *file)
{
	GElf_Ehdr header;

	if (!loader_check_ident(loader))
		return false;
	elf_version(EV_CURRENT);
	loader->elf = elf_memory(file, loader->n_file);
	if (!loader->elf || elf_kind(loader->elf) != ELF_K_ELF || !gelf_getehdr(loader->elf, &header))
		return loader_refuse(loader, "libelf cannot read it: %s", elf_errmsg(-1));
	loader->file_flags = header.e_flags;
	return loader_check_header(loader, &header);
}

/* -- Sections --- */

const char *loader_string(const struct loader *loader, uint32_t table, uint64_t offset)
{
	const struct loader_section *section;

	if (table >= loader->n_sections)
		return NULL;
	section = &loader->sections[table];
	/* a table that ends in NUL ends all its strings */
	if (section->type != SHT_STRTAB || offset >= section->size || section->bytes[section->size - 1])
		return NULL;
	return (const char *)section->bytes + offset;
}

static bool loader_read_section(struct loader *loader, uint32_t index)
{
	struct loader_section *section = &loader->sections[index];
	Elf_Scn *scn = elf_getscn(loader->elf, index);
	GElf_Shdr header;

	if (!scn || !gelf_getshdr(scn, &header))
		return loader_refuse(loader, "section %" PRIu32 ": libelf cannot read its header: %s", index, elf_errmsg(-1));
	*section = (struct loader_section){
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
	if (header.sh_offset > loader->n_file || header.sh_size > loader->n_file - header.sh_offset)
		return loader_refuse(loader, "section %" PRIu32 ": its bytes (offset 0x%" PRIx64 ", size 0x%" PRIx64
				     ") end after the file's %zu", index, (uint64_t)header.sh_offset,
				     (uint64_t)header.sh_size, loader->n_file);
	section->bytes = loader->file + header.sh_offset;
	return true;
}

static bool loader_read_sections(struct loader *loader)
{
	size_t n, names;

	if (elf_getshdrnum(loader->elf, &n) || elf_getshdrstrndx(loader->elf, &names) || !n)
		return loader_refuse(loader, "libelf cannot read its section headers: %s", elf_errmsg(-1));
	loader->sections = calloc(n, sizeof(*loader->sections));
	if (!loader->sections)
		return loader_refuse(loader, "out of memory");
	loader->n_sections = n;
	for (uint32_t i = 0; i < n; i++)
		if (!loader_read_section(loader, i))
			return false;
	for (uint32_t i = 1; i < n; i++) {
		GElf_Shdr header;

		gelf_getshdr(elf_getscn(loader->elf, i), &header);
		loader->sections[i].name = loader_string(loader, names, header.sh_name);
		if (!loader->sections[i].name) {
			loader->sections[i].name = "?";
			return loader_refuse(loader, "section %" PRIu32 ": its name lies outside the table of names", i);
		}
		if (!loader_classify(loader, i))
			return false;
	}
	return true;
}

/* -- Relocations --- */

static int compare_relocs(const void *a, const void *b)
{
	const struct loader_reloc *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

uint32_t loader_relocs_from(const struct loader *loader, uint32_t section, uint64_t offset)
{
	const struct loader_reloc key = { .section = section, .offset = offset };
	uint32_t low = 0, high = loader->n_relocs;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_relocs(&loader->relocs[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Only relocations of sections that can reach the image are of interest: not BTF's, not debug information's. */
static bool is_relocated(const struct loader *loader, const struct loader_section *table)
{
	enum loader_section_kind kind;

	if ((table->type != SHT_REL && table->type != SHT_RELA) || table->info >= loader->n_sections)
		return false;
	kind = loader->sections[table->info].kind;
	return kind == SECTION_CODE || kind == SECTION_DATA || kind == SECTION_LAZY;
}

/* gcc's objects say so in .comment; GNU as 2.41 and later says in the header for which version of the instructions. */
static bool is_old_gnu(const struct loader *loader)
{
	for (uint32_t i = 1; i < loader->n_sections; i++) {
		const struct loader_section *section = &loader->sections[i];

		if (section->bytes && !strcmp(section->name, ".comment") && memmem(section->bytes, section->size, "GCC: (", 6))
			return !loader->file_flags;
	}
	return false;
}

/* GNU as before 2.41 had numbers of its own for pointers in data, and added the value of a symbol (other than a section's)
 * to the field, in a call as if it counted instructions. */
static void reloc_translate(const struct loader *loader, struct loader_reloc *reloc)
{
	enum { OLD_DATA_32 = 11, OLD_DATA_64 = 12 };
	const struct loader_symbol *symbol = &loader->symbols[reloc->symbol];

	if (reloc->type == OLD_DATA_64)
		reloc->type = BPF_RELOC_64_ABS64;
	else if (reloc->type == OLD_DATA_32)
		reloc->type = BPF_RELOC_64_ABS32;
	if (symbol->type != STT_SECTION && symbol->section < loader->n_sections)
		reloc->symbol_value = symbol->value;
}

static bool loader_read_reloc(struct loader *loader, uint32_t table, Elf_Data *data, int index)
{
	const struct loader_section *section = &loader->sections[table];
	struct loader_reloc reloc = { .section = section->info, .has_addend = section->type == SHT_RELA };
	GElf_Rela rela;
	GElf_Rel rel;

	if (reloc.has_addend ? !gelf_getrela(data, index, &rela) : !gelf_getrel(data, index, &rel))
		return loader_refuse_at(loader, table, index * section->entry_size, "libelf cannot read the relocation: %s",
					elf_errmsg(-1));
	reloc.offset = reloc.has_addend ? rela.r_offset : rel.r_offset;
	reloc.addend = reloc.has_addend ? rela.r_addend : 0;
	reloc.type = GELF_R_TYPE(reloc.has_addend ? rela.r_info : rel.r_info);
	reloc.symbol = GELF_R_SYM(reloc.has_addend ? rela.r_info : rel.r_info);
	if (reloc.type == BPF_RELOC_NONE)
		return true;
	if (reloc.symbol >= loader->n_symbols)
		return loader_refuse_at(loader, reloc.section, reloc.offset, "its relocation names symbol %" PRIu32
					" of %" PRIu32, reloc.symbol, loader->n_symbols);
	if (loader->is_old_gnu && !reloc.has_addend)
		reloc_translate(loader, &reloc);
	loader->relocs[loader->n_relocs++] = reloc;
	return true;
}

static bool loader_read_reloc_table(struct loader *loader, uint32_t table)
{
	const struct loader_section *section = &loader->sections[table];
	uint64_t entry = section->type == SHT_RELA ? sizeof(Elf64_Rela) : sizeof(Elf64_Rel), n = section->size / entry;
	struct loader_reloc *relocs;
	Elf_Data *data;

	if (section->entry_size != entry || section->size % entry || section->link != loader->symbol_table)
		return loader_refuse_at(loader, table, 0, "a relocation table with entries of %" PRIu64
					" bytes in 0x%" PRIx64 " bytes, for the symbols in section %" PRIu32,
					section->entry_size, section->size, section->link);
	if (!n)
		return true;
	if (n > IMAGE_RELOCS_MAX - loader->n_relocs)
		return loader_refuse_at(loader, table, 0, "more than %u relocations in the object", IMAGE_RELOCS_MAX);
	data = elf_getdata(elf_getscn(loader->elf, table), NULL);
	relocs = reallocarray(loader->relocs, loader->n_relocs + n, sizeof(*relocs));
	if (relocs)
		loader->relocs = relocs;
	if (!data || !relocs)
		return loader_refuse_at(loader, table, 0, "%s", relocs ? elf_errmsg(-1) : "out of memory");
	for (uint64_t i = 0; i < n; i++)
		if (!loader_read_reloc(loader, table, data, i))
			return false;
	return true;
}

static bool loader_read_relocs(struct loader *loader)
{
	loader->is_old_gnu = is_old_gnu(loader);
	for (uint32_t i = 1; i < loader->n_sections; i++)
		if (is_relocated(loader, &loader->sections[i]) && !loader_read_reloc_table(loader, i))
			return false;
	if (loader->n_relocs)
		qsort(loader->relocs, loader->n_relocs, sizeof(*loader->relocs), compare_relocs);
	for (uint32_t i = 1; i < loader->n_relocs; i++)
		if (!compare_relocs(&loader->relocs[i - 1], &loader->relocs[i]))
			return loader_refuse_at(loader, loader->relocs[i].section, loader->relocs[i].offset,
						"two relocations of one field");
	return true;
}

/* -- Precompiled code: only handed on --- */
static void loader_add_precompiled(struct loader *loader)
{
	for (uint32_t i = 1; i < loader->n_sections; i++) {
		const struct loader_section *section = &loader->sections[i];

		if (section->type != SHT_PROGBITS || strcmp(section->name, PRECOMPILED_SECTION) || section->size > IMAGE_PRECOMPILED_MAX)
			continue;
		builder_precompiled(&loader->builder, section->bytes, section->size);
		return;
	}
}

/* -- The whole --- */

static bool loader_finish(struct loader *loader, void **ret, size_t *ret_n)
{
	_cleanup_(freep) void *bytes = NULL;
	struct image image;
	size_t n;
	int r;

	loader_add_debug(loader);
	loader_add_precompiled(loader);
	r = builder_finish(&loader->builder, &bytes, &n);
	if (r == -EFBIG)
		return loader_refuse(loader, "too large: more than %u instructions, %u imports, %u pointers in data, %u"
				     " variables, or %u MiB of .rodata, .data or .bss", IMAGE_INSNS_MAX, IMAGE_IMPORTS_MAX,
				     IMAGE_RELOCS_MAX, IMAGE_OBJECTS_MAX, IMAGE_SEGMENT_MAX >> 20);
	if (r)
		return loader_refuse(loader, "out of memory");
	/* The daemon will say it again; said here, a mistake of ours has a place where it can be seen. */
	if (!image_check(bytes, n, &image, loader->refusal))
		return false;
	*ret = TAKE_PTR(bytes);
	*ret_n = n;
	return true;
}

bool elf_to_image(void *file, size_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	_cleanup_(loader_deinit) struct loader loader = {
		.file = file,
		.n_file = n,
		.builder = BUILDER_NULL,
		.refusal = refusal,
	};

	return loader_open(&loader, file)
	    && loader_read_sections(&loader)
	    && loader_read_symbols(&loader)
	    && loader_read_relocs(&loader)
	    && loader_place_data(&loader)
	    && loader_collect_functions(&loader)
	    && loader_add_methods(&loader)
	    && loader_relocate_data(&loader)
	    && loader_name_data(&loader)
	    && loader_finish(&loader, ret, ret_n);
}
