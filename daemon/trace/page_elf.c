/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <elf.h>
#include <string.h>
#include "trace/page.h"
#include "util/base.h"

/* The probe page as a shared object, for tools that know places in code by file and symbol
 *
 *   Ehdr · Phdr (the page, r-x, at 0) · Shdr (none, .text, .symtab, .strtab) · symbols · names
 *
 * An address is the offset in the file, so whoever computes one from the other, by whichever header, gets it right. */

enum { SECTION_NONE, SECTION_TEXT, SECTION_SYMTAB, SECTION_STRTAB, N_SECTIONS };

#define N_SYMBOLS (1 + _TIER_PROBE_N)	/* the first is none */

struct names {
	char text[512];
	uint32_t n;
};

struct page_elf {
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	Elf64_Shdr sections[N_SECTIONS];
	Elf64_Sym symbols[N_SYMBOLS];
	struct names names;
};
static_assert(sizeof(struct page_elf) <= TIER_PROBE_HEADER_OFFSET, "what describes the sites lies before them");

static uint32_t names_add(struct names *names, const char *name)
{
	const uint32_t at = names->n;

	names->n += strlen(name) + 1;
	assert(names->n <= sizeof(names->text));
	memcpy(names->text + at, name, names->n - at);
	return at;
}

static void page_symbols(struct page_elf *elf, uint32_t n_code)
{
	static const char *const sites[] = {
#define SITE_NAME(name, number, text) [number] = text,
		TIER_PROBE_LIST(SITE_NAME)
	};

	for (uint32_t i = 0; i < _TIER_PROBE_N; i++)
		elf->symbols[1 + i] = (Elf64_Sym){
			.st_name = names_add(&elf->names, sites[i]), .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
			.st_shndx = SECTION_TEXT, .st_value = TIER_PROBE_OFFSET(i), .st_size = n_code,
		};
}

static void page_sections(struct page_elf *elf)
{
	elf->sections[SECTION_TEXT] = (Elf64_Shdr){
		.sh_name = names_add(&elf->names, ".text"), .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
		.sh_addr = TIER_PROBE_SITES_OFFSET, .sh_offset = TIER_PROBE_SITES_OFFSET,
		.sh_size = TIER_PROBE_PAGE_SIZE - TIER_PROBE_SITES_OFFSET, .sh_addralign = TIER_PROBE_SITE_SIZE,
	};
	elf->sections[SECTION_SYMTAB] = (Elf64_Shdr){
		.sh_name = names_add(&elf->names, ".symtab"), .sh_type = SHT_SYMTAB, .sh_offset = offsetof(struct page_elf, symbols),
		.sh_size = sizeof(elf->symbols), .sh_link = SECTION_STRTAB, .sh_info = 1, .sh_addralign = 8,
		.sh_entsize = sizeof(elf->symbols[0]),
	};
	elf->sections[SECTION_STRTAB] = (Elf64_Shdr){
		.sh_name = names_add(&elf->names, ".strtab"), .sh_type = SHT_STRTAB, .sh_offset = offsetof(struct page_elf, names.text),
		.sh_size = elf->names.n, .sh_addralign = 1,
	};
}

void page_describe(uint8_t page[TIER_PROBE_PAGE_SIZE], uint16_t machine, uint32_t n_code)
{
	const struct tier_probe_header header = {
		.magic = TIER_PROBE_MAGIC, .version = TIER_PROBE_VERSION, .n_slots = TIER_PROBE_SLOTS,
	};
	struct page_elf elf = {
		.header = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_DYN, .e_machine = machine, .e_version = EV_CURRENT,
			.e_phoff = offsetof(struct page_elf, segment), .e_shoff = offsetof(struct page_elf, sections),
			.e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
			.e_shentsize = sizeof(Elf64_Shdr), .e_shnum = N_SECTIONS, .e_shstrndx = SECTION_STRTAB,
		},
		.segment = {
			.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = TIER_PROBE_PAGE_SIZE,
			.p_memsz = TIER_PROBE_PAGE_SIZE, .p_align = TIER_PROBE_PAGE_SIZE,
		},
		.names.n = 1,	/* the first name is "" */
	};

	page_symbols(&elf, n_code);
	page_sections(&elf);
	memcpy(page, &elf, sizeof(elf));
	memcpy(page + TIER_PROBE_HEADER_OFFSET, &header, sizeof(header));
}
