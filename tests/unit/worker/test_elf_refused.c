/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF loader on what compilers never would emit: the main object with a field changed, cut, or with a byte flipped */
#include "bytecode/flow.h"
#include "main_object.h"

/* -- What is refused --- */

static void other_files_are_refused(void **state)
{
	struct object_file text = { .bytes = malloc(100), .n = 100 };

	memset(text.bytes, 'x', text.n);
	assert_refused(text, "not an ELF object file");
	spoil(o->n = 63, "not an ELF object file");
	spoil(o->bytes[EI_CLASS] = ELFCLASS32, "not a 64-bit ELF file");
	spoil(o->bytes[EI_DATA] = ELFDATA2MSB, "big-endian");
	spoil(o->bytes[EI_VERSION] = 2, "ELF version 2");
	spoil(header_of(o)->e_machine = EM_X86_64, "machine 62");
	spoil(header_of(o)->e_type = ET_EXEC, "not a relocatable object");
	assert_refused(compile("clang", "-O2 -mbig-endian", "int f(void) { return 1; }"), "big-endian");
	assert_refused(compile("clang", "-target x86_64", "int f(void) { return 1; }"), "not for BPF");
}

static void bad_section_headers_are_refused(void **state)
{
	spoil(header_of(o)->e_shoff = o->n, "no section headers");
	spoil(header_of(o)->e_shentsize = 40, "no section headers");
	spoil(header_of(o)->e_shnum += 1, "end after the file");
	spoil(header_of(o)->e_shnum = 0, "");
	spoil(header_of(o)->e_shstrndx = 500, "names in section 500");
	spoil(header_of(o)->e_shstrndx = 2, "name lies outside");
	spoil(section(o, ".text")->sh_name = 0xffffff, "its name lies outside");
	spoil(section(o, ".text")->sh_offset = o->n, "end after the file");
	spoil(section(o, ".text")->sh_size = UINT64_MAX, "end after the file");
	spoil(section(o, ".rodata")->sh_addralign = 24, "section '.rodata', offset 0x0: alignment 24");
	spoil(section(o, ".rodata")->sh_addralign = 8192, "alignment 8192");
	spoil(section(o, ".text")->sh_type = SHT_NOBITS, "executable section");
	spoil(section(o, ".bss")->sh_size = 1ull << 40, "section '.bss', offset 0x0: 0x10000000000 bytes");
	spoil(section(o, ".data")->sh_flags |= SHF_TLS, "thread-local");
	spoil(section(o, ".data")->sh_flags |= SHF_COMPRESSED, "compressed");
	spoil(section(o, ".data")->sh_type = SHT_INIT_ARRAY, "constructors");
}

static void bad_symbol_tables_are_refused(void **state)
{
	spoil(section(o, ".symtab")->sh_type = SHT_PROGBITS, "no symbol table");
	spoil((section(o, ".BTF")->sh_type = SHT_SYMTAB, section(o, ".BTF")->sh_entsize = section(o, ".BTF")->sh_size = 24),
	      "second symbol table");
	spoil(section(o, ".symtab")->sh_entsize = 16, "entries of 16 bytes");
	spoil(section(o, ".symtab")->sh_size -= 8, "entries of 24 bytes");
	spoil(section(o, ".symtab")->sh_link = 2, "name lies outside the string table");
	spoil(symbol(o, "leaf")->st_name = 0xffffff, "name lies outside the string table");
	spoil(symbol(o, "leaf")->st_shndx = 200, "in section 200");
	spoil(o->bytes[section(o, ".strtab")->sh_offset + section(o, ".strtab")->sh_size - 1] = 'x', "name lies outside");
}

static void bad_functions_are_refused(void **state)
{
	spoil(symbol(o, "leaf")->st_value += 4, "section '.text', offset 0x3c: function 'leaf' does not begin at a multiple of 8");
	spoil(symbol(o, "leaf")->st_size -= 4, "not a positive multiple of 8");
	spoil(symbol(o, "leaf")->st_size = 0, "has 0 bytes");
	spoil(symbol(o, "leaf")->st_size += 8, "ends outside its section");
	spoil(symbol(o, "leaf")->st_value = 1ull << 60, "ends outside its section");
	spoil(symbol(o, "outer")->st_size += 8, "function 'leaf' overlaps 'outer'");
	spoil(symbol(o, "leaf")->st_shndx = section_index(o, ".data"), "not executable");
	spoil(symbol(o, "leaf")->st_shndx = SHN_ABS, "not executable");
	spoil(symbol(o, "leaf")->st_name = 0, "function '': its name has 0 bytes");
	spoil(symbol(o, "entry")->st_name = symbol(o, "outer")->st_name, "second global function 'outer'");
	spoil(symbol(o, "host")->st_name = 0, "import ''");
	assert_source_refused("int x = 1;", "no functions");
}

static void names_are_bounded(void **state)
{
	char source[400] = "int ";

	memset(source + 4, 'f', 255);
	strcpy(source + 259, "(void) { return 1; }");
	free(compile("clang", "-O2", source).bytes);
	{
		struct object_file object = compile("clang", "-O2", source);
		void *bytes;

		load(&object, &bytes);
		free(bytes);
		free(object.bytes);
	}
	memset(source + 4, 'f', 256);
	strcpy(source + 260, "(void) { return 1; }");
	assert_source_refused(source, "name has 256 bytes");
	spoil(*((char *)section_bytes(o, ".strtab") + symbol(o, "leaf")->st_name) = '\033', "control character");
}

static void bad_relocations_are_refused(void **state)
{
	Elf64_Rel *r;

	spoil(section(o, ".rel.text")->sh_entsize = 24, "a relocation table with entries of 24 bytes");
	spoil(section(o, ".rel.text")->sh_link = 1, "for the symbols in section 1");
	spoil(section(o, ".rel.text")->sh_size -= 1, "a relocation table");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(9999, 10)),
	      "section '.text', offset 0x20: its relocation names symbol 9999");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(0, 10)), "names no symbol");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 1)),
	      "relocation type 1 does not belong to a call");
	spoil((r = reloc(o, ".rel.text", 1), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 10)),
	      "does not belong to a 64-bit immediate");
	spoil((r = reloc(o, ".rel.text", 1), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 77)), "relocation type 77");
	spoil(reloc(o, ".rel.text", 0)->r_offset += 4, "in the middle of an instruction");
	spoil(reloc(o, ".rel.text", 1)->r_offset += 8, "in the middle of an instruction");
	spoil(reloc(o, ".rel.text", 0)->r_offset = 0, "does not belong to this instruction");
	spoil(reloc(o, ".rel.text", 1)->r_offset = reloc(o, ".rel.text", 0)->r_offset, "two relocations");
	spoil((r = reloc(o, ".rel.rodata", 0), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 1)),
	      "type 1 is not known in data");
	spoil(reloc(o, ".rel.rodata", 0)->r_offset = 1 << 20, "outside the section's bytes");
	spoil(reloc(o, ".rel.rodata", 1)->r_offset -= 4, "overlaps");
	spoil(section(o, ".rel.rodata")->sh_info = section_index(o, ".bss"), "section '.bss'");
}

static void references_outside_are_refused(void **state)
{
	Elf64_Rel *r;

	/* leaf is reached through the section's symbol and the call's imm, .bss through its symbol and the lddw's */
	spoil((r = reloc(o, ".reltc", 1), insn_in(o, "tc", r->r_offset)->imm += 1), "where no function begins");
	spoil((r = reloc(o, ".reltc", 1), insn_in(o, "tc", r->r_offset)->imm = -100), "where no function begins");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 1)->r_offset)->imm = 17,
	      "refers to offset 17 of section '.bss', which has 16 bytes");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 1)->r_offset)[1].imm = 1, "which has 16 bytes");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 0)->r_offset)->imm = 0, "import 'host' with offset 8");
	spoil(symbol(o, "ops")->st_shndx = SHN_ABS, "special section 0xfff1");
	spoil(symbol(o, "ops")->st_shndx = 0xfff3, "special section 0xfff3");
	spoil(symbol(o, "ops")->st_shndx = SHN_XINDEX, "special section 0xffff");
	spoil(symbol(o, "ops")->st_shndx = section_index(o, ".BTF"), "which is not loaded");
	spoil(symbol(o, "host")->st_shndx = section_index(o, ".data"), "which is data");
	spoil(insn_in(o, ".text", 8)->imm += 1, "section '.text', offset 0x8: refers to offset 64 of the section");
	spoil(insn_in(o, ".text", 8)->src = 2, "calls kernel function 5 by number");
	spoil(insn_in(o, ".text", 8)->src = 3, "unknown kind 3 of call");
	spoil(symbol(o, "leaf")->st_size = 8, "ends inside a 16-byte instruction");
}

/* -- Anything at all --- */

static void load_anything(struct object_file object)
{
	struct refusal refusal = {};
	void *bytes = NULL;
	struct image image;
	struct flow *flow;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal)) {
		assert_true(strlen(refusal.text) > 0);
		assert_null(bytes);
		return;
	}
	assert_true(image_check(bytes, n, &image, &refusal));
	for (uint32_t m = 0; m < image.n_methods; m++)
		if (verify_method(&image, m, &refusal)) {
			assert_int_equal(flow_new(&flow, image_method_insns(&image, m), image.methods[m].n_insns), 0);
			flow_free(flow);
		}
	free(bytes);
}

static void a_file_cut_anywhere_is_an_image_or_a_refusal(void **state)
{
	for (size_t n = 0; n < main_object.n; n += 8) {
		struct object_file cut = { .bytes = malloc(n + 1), .n = n };

		memcpy(cut.bytes, main_object.bytes, n);
		load_anything(cut);
		free(cut.bytes);
	}
}

static void a_flipped_byte_gives_an_image_or_a_refusal(void **state)
{
	static const uint8_t flips[] = { 0x01, 0x08, 0x80, 0xff };
	struct object_file object = copy_of(&main_object);
	size_t step = getenv("TIER_TEST_LONG") ? 1 : 3;

	for (size_t i = 0; i < object.n; i += step)
		for (size_t f = 0; f < sizeof(flips); f++) {
			object.bytes[i] ^= flips[f];
			load_anything(object);
			object.bytes[i] ^= flips[f];
		}
	free(object.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_files_are_refused),
		cmocka_unit_test(bad_section_headers_are_refused),
		cmocka_unit_test(bad_symbol_tables_are_refused),
		cmocka_unit_test(bad_functions_are_refused),
		cmocka_unit_test(names_are_bounded),
		cmocka_unit_test(bad_relocations_are_refused),
		cmocka_unit_test(references_outside_are_refused),
		cmocka_unit_test(a_file_cut_anywhere_is_an_image_or_a_refusal),
		cmocka_unit_test(a_flipped_byte_gives_an_image_or_a_refusal),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
