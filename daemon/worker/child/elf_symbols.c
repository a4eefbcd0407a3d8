/* SPDX-License-Identifier: Apache-2.0 */
/* Symbols: which are methods, what they are called, and what a reference leads to
 *
 * Methods are numbered in the order of their code, so a method is found by bisecting its section and offset; names are
 * never compared for that, and two local functions with one name (as linked objects have them) don't get mixed up.
 * Seen from outside names must differ: a global keeps its name, of local ones the first in the symbol table does if no
 * global has it, and the others become NAME.1, NAME.2, ... (the first number that no symbol has).
 *
 * Two function symbols for the same bytes (aliases) are two methods with instructions of their own; references inside
 * the module lead to the first of them in the symbol table, so that pointers to either compare equal. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/elf_loader.h"

bool loader_check_name(struct loader *loader, const char *what, const char *name)
{
	size_t n = strlen(name);

	if (!n || n > IMAGE_NAME_MAX)
		return loader_refuse(loader, "%s '%.40s%s': its name has %zu bytes, not 1 to %u", what, name,
				     n > 40 ? "..." : "", n, IMAGE_NAME_MAX);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return loader_refuse(loader, "%s '%.40s': its name has a control character", what, name);
	return true;
}

/* -- Reading the table --- */

static bool loader_find_symbol_table(struct loader *loader)
{
	for (uint32_t i = 1; i < loader->n_sections; i++) {
		const struct loader_section *section = &loader->sections[i];

		if (section->type != SHT_SYMTAB)
			continue;
		if (loader->symbol_table)
			return loader_refuse_at(loader, i, 0, "a second symbol table");
		if (section->entry_size != sizeof(Elf64_Sym) || section->size % sizeof(Elf64_Sym)
		    || section->size / sizeof(Elf64_Sym) > UINT32_MAX)
			return loader_refuse_at(loader, i, 0, "a symbol table with entries of %" PRIu64 " bytes in 0x%" PRIx64,
						section->entry_size, section->size);
		loader->symbol_table = i;
	}
	return loader->symbol_table || loader_refuse(loader, "no symbol table, so no methods");
}

static bool loader_read_symbol(struct loader *loader, Elf_Data *data, uint32_t index)
{
	struct loader_symbol *symbol = &loader->symbols[index];
	uint64_t offset = (uint64_t)index * sizeof(Elf64_Sym);
	GElf_Sym sym;

	if (!gelf_getsym(data, index, &sym))
		return loader_refuse_at(loader, loader->symbol_table, offset, "libelf cannot read the symbol: %s",
					elf_errmsg(-1));
	*symbol = (struct loader_symbol){
		.name = loader_string(loader, loader->sections[loader->symbol_table].link, sym.st_name),
		.value = sym.st_value,
		.size = sym.st_size,
		.section = sym.st_shndx,
		.type = GELF_ST_TYPE(sym.st_info),
		.bind = GELF_ST_BIND(sym.st_info),
	};
	if (!symbol->name)
		return loader_refuse_at(loader, loader->symbol_table, offset, "the symbol's name lies outside the string table");
	if (symbol->section >= loader->n_sections && symbol->section < SHN_LORESERVE)
		return loader_refuse_at(loader, loader->symbol_table, offset, "symbol '%.80s' lies in section %" PRIu32
					" of %" PRIu32, symbol->name, symbol->section, loader->n_sections);
	/* section symbols have no name of their own */
	if (symbol->type == STT_SECTION && symbol->section < loader->n_sections)
		symbol->name = loader->sections[symbol->section].name;
	return true;
}

bool loader_read_symbols(struct loader *loader)
{
	uint32_t n;
	Elf_Data *data;

	if (!loader_find_symbol_table(loader))
		return false;
	n = loader->sections[loader->symbol_table].size / sizeof(Elf64_Sym);
	if (!n)
		return loader_refuse_at(loader, loader->symbol_table, 0, "an empty symbol table");
	data = elf_getdata(elf_getscn(loader->elf, loader->symbol_table), NULL);
	loader->symbols = calloc(n, sizeof(*loader->symbols));
	if (!data || !loader->symbols)
		return loader_refuse_at(loader, loader->symbol_table, 0, "%s", data ? "out of memory" : elf_errmsg(-1));
	loader->n_symbols = n;
	for (uint32_t i = 0; i < n; i++)
		if (!loader_read_symbol(loader, data, i))
			return false;
	return true;
}

/* -- Functions --- */

static bool loader_check_function(struct loader *loader, uint32_t index)
{
	const struct loader_symbol *symbol = &loader->symbols[index];
	const struct loader_section *section;

	if (!loader_check_name(loader, "function", symbol->name))
		return false;
	if (symbol->section >= loader->n_sections || loader->sections[symbol->section].kind != SECTION_CODE)
		return loader_refuse(loader, "function '%.80s' lies in section %" PRIu32 ", which is not executable",
				     symbol->name, symbol->section);
	section = &loader->sections[symbol->section];
	if (symbol->value % sizeof(struct insn))
		return loader_refuse_at(loader, symbol->section, symbol->value,
					"function '%.80s' does not begin at a multiple of 8 bytes", symbol->name);
	if (!symbol->size || symbol->size % sizeof(struct insn))
		return loader_refuse_at(loader, symbol->section, symbol->value, "function '%.80s' has %" PRIu64
					" bytes, not a positive multiple of 8", symbol->name, symbol->size);
	if (symbol->value > section->size || symbol->size > section->size - symbol->value)
		return loader_refuse_at(loader, symbol->section, symbol->value,
					"function '%.80s' ends outside its section of 0x%" PRIx64 " bytes", symbol->name,
					section->size);
	return true;
}

static int compare_functions(const void *a, const void *b)
{
	const struct loader_function *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->symbol < y->symbol ? -1 : x->symbol > y->symbol;
}

static bool loader_check_overlaps(struct loader *loader)
{
	for (uint32_t i = 1; i < loader->n_functions; i++) {
		const struct loader_function *a = &loader->functions[i - 1], *b = &loader->functions[i];
		bool alias = a->offset == b->offset && a->size == b->size;

		if (a->section == b->section && !alias && b->offset < a->offset + a->size)
			return loader_refuse_at(loader, b->section, b->offset, "function '%.80s' overlaps '%.80s'",
						loader->symbols[b->symbol].name, loader->symbols[a->symbol].name);
	}
	return true;
}

/* -- Names --- */

struct named {
	const char *name;
	struct loader_function *function;
	bool local;
};

/* by name; globals first, then in the symbol table's order */
static int compare_named(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order)
		return order;
	if (x->local != y->local)
		return x->local ? 1 : -1;
	return x->function->symbol < y->function->symbol ? -1 : 1;
}

static int compare_name(const void *key, const void *element)
{
	return strcmp(key, ((const struct named *)element)->name);
}

/* A made name cannot meet another made one: without its last component it is the original. */
static bool name_local(struct loader *loader, const struct named *all, uint32_t n, const struct named *named,
		       uint32_t *suffix)
{
	char name[IMAGE_NAME_MAX + 16];

	do {
		snprintf(name, sizeof(name), "%s.%" PRIu32, named->name, ++*suffix);
	} while (bsearch(name, all, n, sizeof(*all), compare_name));
	named->function->suffix = *suffix;
	return loader_check_name(loader, "function", name);
}

static bool loader_name_functions(struct loader *loader)
{
	_cleanup_(freep) struct named *all = NULL;
	uint32_t n = loader->n_functions, suffix = 0;

	all = calloc(n, sizeof(*all));
	if (!all)
		return loader_refuse(loader, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		const struct loader_symbol *symbol = &loader->symbols[loader->functions[i].symbol];

		all[i] = (struct named){ symbol->name, &loader->functions[i], symbol->bind == STB_LOCAL };
	}
	qsort(all, n, sizeof(*all), compare_named);
	for (uint32_t i = 1; i < n; i++) {
		if (strcmp(all[i - 1].name, all[i].name)) {
			suffix = 0;
			continue;
		}
		if (!all[i].local)
			return loader_refuse_at(loader, all[i].function->section, all[i].function->offset,
						"a second global function '%.80s'", all[i].name);
		if (!name_local(loader, all, n, &all[i], &suffix))
			return false;
	}
	return true;
}

bool loader_collect_functions(struct loader *loader)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i < loader->n_symbols; i++)
		n += loader->symbols[i].type == STT_FUNC && loader->symbols[i].section != SHN_UNDEF;
	if (!n || n > IMAGE_METHODS_MAX)
		return loader_refuse(loader, n ? "%" PRIu32 " functions, more than %u" : "no functions", n, IMAGE_METHODS_MAX);
	loader->functions = calloc(n, sizeof(*loader->functions));
	if (!loader->functions)
		return loader_refuse(loader, "out of memory");
	for (uint32_t i = 1; i < loader->n_symbols; i++) {
		const struct loader_symbol *symbol = &loader->symbols[i];

		if (symbol->type != STT_FUNC || symbol->section == SHN_UNDEF)
			continue;
		if (!loader_check_function(loader, i))
			return false;
		loader->functions[loader->n_functions++] = (struct loader_function){
			.symbol = i, .section = symbol->section, .offset = symbol->value, .size = symbol->size,
		};
	}
	qsort(loader->functions, n, sizeof(*loader->functions), compare_functions);
	return loader_check_overlaps(loader) && loader_name_functions(loader);
}

int64_t loader_method_at(const struct loader *loader, uint32_t section, uint64_t target)
{
	const struct loader_function key = { .section = section, .offset = target };	/* symbol 0: before all others */
	uint32_t low = 0, high = loader->n_functions;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_functions(&loader->functions[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == loader->n_functions || loader->functions[low].section != section
	    || loader->functions[low].offset != target)
		return -1;
	return low;
}

/* -- Where a reference leads --- */

/* An import exists once something refers to it: what a header merely declares is nobody's business to bind. */
static bool resolve_import(struct loader *loader, struct loader_symbol *symbol, struct loader_target *ret)
{
	if (!symbol->placed) {
		if (!loader_check_name(loader, "import", symbol->name))
			return false;
		symbol->placed = 1 + builder_import(&loader->builder, symbol->name,
						    symbol->bind == STB_WEAK ? IMAGE_IMPORT_WEAK : 0);
	}
	*ret = (struct loader_target){ .ref = INSN_REF_IMPORT, .index = symbol->placed - 1 };
	return true;
}

static bool resolve_in_section(struct loader *loader, uint32_t section, uint64_t offset,
			       const struct loader_symbol *symbol, int64_t at, struct loader_target *ret)
{
	static const enum insn_ref refs[] = {
		[IMAGE_RODATA] = INSN_REF_RODATA, [IMAGE_DATA] = INSN_REF_DATA, [IMAGE_BSS] = INSN_REF_BSS,
	};
	const struct loader_section *in = &loader->sections[symbol->section];
	int64_t method;

	switch (in->kind) {
	case SECTION_CODE:
		method = loader_method_at(loader, symbol->section, at);
		if (method < 0)
			return loader_refuse_at(loader, section, offset, "refers to offset 0x%" PRIx64
						" of section '%.80s', where no function begins", (uint64_t)at, in->name);
		*ret = (struct loader_target){ .ref = INSN_REF_METHOD, .index = method };
		return true;
	case SECTION_DATA:
		if (at < 0 || (uint64_t)at > in->size)
			return loader_refuse_at(loader, section, offset, "refers to offset %" PRId64
						" of section '%.80s', which has %" PRIu64 " bytes", at, in->name, in->size);
		*ret = (struct loader_target){ .ref = refs[in->segment], .addend = in->base + at };
		return true;
	case SECTION_MAPS:
		return loader_refuse_at(loader, section, offset, "refers to kernel map '%.80s'; kernel maps are not supported",
					symbol->name);
	default:
		return loader_refuse_at(loader, section, offset, "refers to '%.80s' in section '%.80s', which is not loaded",
					symbol->name, in->name);
	}
}

static bool resolve_common(struct loader *loader, uint32_t section, uint64_t offset, const struct loader_symbol *symbol,
			   int64_t addend, struct loader_target *ret)
{
	if (addend < 0 || (uint64_t)addend > symbol->size)
		return loader_refuse_at(loader, section, offset, "refers to byte %" PRId64 " of '%.80s', which has %" PRIu64,
					addend, symbol->name, symbol->size);
	*ret = (struct loader_target){ .ref = INSN_REF_BSS, .addend = symbol->placed + addend };
	return true;
}

bool loader_resolve(struct loader *loader, uint32_t section, uint64_t offset, uint32_t index, int64_t addend,
		    struct loader_target *ret)
{
	struct loader_symbol *symbol = &loader->symbols[index];
	int64_t at;

	switch (symbol->section) {
	case SHN_UNDEF:
		if (!index)
			return loader_refuse_at(loader, section, offset, "its relocation names no symbol");
		if (addend)
			return loader_refuse_at(loader, section, offset, "refers to import '%.80s' with offset %" PRId64,
						symbol->name, addend);
		return resolve_import(loader, symbol, ret);
	case SHN_COMMON:
		return resolve_common(loader, section, offset, symbol, addend, ret);
	default:
		if (symbol->section >= loader->n_sections)
			return loader_refuse_at(loader, section, offset, "refers to '%.80s', a symbol of special section 0x%"
						PRIx32, symbol->name, symbol->section);
		if (__builtin_add_overflow(symbol->value, addend, &at))
			return loader_refuse_at(loader, section, offset, "refers to '%.80s' with offset %" PRId64,
						symbol->name, addend);
		return resolve_in_section(loader, section, offset, symbol, at, ret);
	}
}
