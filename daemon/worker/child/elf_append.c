/* SPDX-License-Identifier: Apache-2.0 */
/* Everything new goes behind the file:
 *
 *   the file as it was | names, with one more | the section's bytes | section headers
 *
 * so that no offset in it moves. The old table of names may be that of symbols too: its copy begins with all of it.
 * Headers may lie anywhere in a file that somebody made, so they are copied rather than pointed at. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/elf_append.h"

struct append {
	const uint8_t *file;
	size_t n_file, n_base;	/* base: bytes of it that stay */
	Elf64_Ehdr header;
	Elf64_Shdr names;                        /* the old table's header */
	uint32_t found;                          /* index of a section of that name; 0: none */
	uint64_t names_at, bytes_at, headers_at; /* offsets in the new file */
	uint64_t n_names, n_headers;             /* names: bytes; headers: how many */
};

static Elf64_Shdr section_header(const struct append *append, uint32_t index)
{
	Elf64_Shdr header;

	memcpy(&header, append->file + append->header.e_shoff + (uint64_t)index * sizeof(header), sizeof(header));
	return header;
}

/* elf_to_image() has seen that the names end in NUL, and that they lie in the file. */
static const char *section_name(const struct append *append, uint32_t index)
{
	return (const char *)append->file + append->names.sh_offset + section_header(append, index).sh_name;
}

/* How much of the file stays: what an earlier call has put behind it does not, if it is still there as it was put. */
static size_t append_base(const struct append *append)
{
	const uint64_t headers_at = append->header.e_shoff;
	Elf64_Shdr section;

	if (!append->found)
		return append->n_file;
	section = section_header(append, append->found);
	if (align_up(append->names.sh_offset + append->names.sh_size, 8) != section.sh_offset
	    || align_up(section.sh_offset + section.sh_size, 8) != headers_at
	    || headers_at + append->header.e_shnum * sizeof(section) != append->n_file)
		return append->n_file;
	return append->names.sh_offset;
}

static void append_plan(struct append *append, const char *name, size_t n_bytes)
{
	for (uint32_t i = 1; i < append->header.e_shnum && !append->found; i++)
		if (!strcmp(section_name(append, i), name))
			append->found = i;
	append->n_names = append->names.sh_size + (append->found ? 0 : strlen(name) + 1);
	append->n_headers = append->header.e_shnum + !append->found;
	append->n_base = append_base(append);
	append->names_at = align_up(append->n_base, 8);
	append->bytes_at = align_up(append->names_at + append->n_names, 8);
	append->headers_at = align_up(append->bytes_at + n_bytes, 8);
}

static void put_section_header(uint8_t *to, const struct append *append, uint32_t index, const Elf64_Shdr *header)
{
	memcpy(to + append->headers_at + (uint64_t)index * sizeof(*header), header, sizeof(*header));
}

static void append_write(uint8_t *to, const struct append *append, const char *name, const void *bytes, size_t n_bytes)
{
	const uint32_t index = append->found ? append->found : append->header.e_shnum;
	Elf64_Shdr names = append->names, section = { .sh_name = append->names.sh_size };
	Elf64_Ehdr header = append->header;

	memcpy(to, append->file, append->n_base);
	memcpy(to + append->names_at, append->file + names.sh_offset, names.sh_size);
	if (!append->found)
		memcpy(to + append->names_at + names.sh_size, name, strlen(name) + 1);
	memcpy(to + append->bytes_at, bytes, n_bytes);
	memcpy(to + append->headers_at, append->file + header.e_shoff, (size_t)header.e_shnum * sizeof(section));
	if (append->found)
		section.sh_name = section_header(append, append->found).sh_name;
	section.sh_type = SHT_PROGBITS;
	section.sh_offset = append->bytes_at;
	section.sh_size = n_bytes;
	section.sh_addralign = 8;
	put_section_header(to, append, index, &section);
	names.sh_offset = append->names_at;
	names.sh_size = append->n_names;
	put_section_header(to, append, header.e_shstrndx, &names);
	header.e_shoff = append->headers_at;
	header.e_shnum = append->n_headers;
	memcpy(to, &header, sizeof(header));
}

bool elf_append(const void *file, size_t n, const char *name, const void *bytes, size_t n_bytes, void **ret,
		size_t *ret_n, struct refusal *refusal)
{
	struct append append = { .file = file, .n_file = n };
	uint8_t *to;

	memcpy(&append.header, file, sizeof(append.header));
	append.names = section_header(&append, append.header.e_shstrndx);
	if (append.names.sh_type != SHT_STRTAB) {
		refuse(refusal, "the object has no table of names");
		return false;
	}
	append_plan(&append, name, n_bytes);
	if (append.n_headers >= SHN_LORESERVE) {
		refuse(refusal, "the object has %u sections: no room for another", append.header.e_shnum);
		return false;
	}
	if (append.found == append.header.e_shstrndx) {
		refuse(refusal, "the object's table of names is its section '%s'", name);
		return false;
	}
	*ret_n = append.headers_at + append.n_headers * sizeof(Elf64_Shdr);
	to = calloc(1, *ret_n);
	if (!to)
		abort();
	append_write(to, &append, name, bytes, n_bytes);
	*ret = to;
	return true;
}
