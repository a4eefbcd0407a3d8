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
#include "worker/child/elf_object.h"

bool object_check_name(struct object *object, const char *what, const char *name)
{
	size_t n = strlen(name);

	if (!n || n > IMAGE_NAME_MAX)
		return object_refuse(object, "%s '%.40s%s': its name has %zu bytes, not 1 to %u", what, name,
				     n > 40 ? "..." : "", n, IMAGE_NAME_MAX);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return object_refuse(object, "%s '%.40s': its name has a control character", what, name);
	return true;
}

/* -- Reading the table --- */

static bool object_find_symbol_table(struct object *object)
{
	for (uint32_t i = 1; i < object->n_sections; i++) {
		const struct object_section *section = &object->sections[i];

		if (section->type != SHT_SYMTAB)
			continue;
		if (object->symbol_table)
			return object_refuse_at(object, i, 0, "a second symbol table");
		if (section->entry_size != sizeof(Elf64_Sym) || section->size % sizeof(Elf64_Sym)
		    || section->size / sizeof(Elf64_Sym) > UINT32_MAX)
			return object_refuse_at(object, i, 0, "a symbol table with entries of %" PRIu64 " bytes in 0x%" PRIx64,
						section->entry_size, section->size);
		object->symbol_table = i;
	}
	return object->symbol_table || object_refuse(object, "no symbol table, so no methods");
}

static bool object_read_symbol(struct object *object, Elf_Data *data, uint32_t index)
{
	struct object_symbol *symbol = &object->symbols[index];
	uint64_t offset = (uint64_t)index * sizeof(Elf64_Sym);
	GElf_Sym sym;

	if (!gelf_getsym(data, index, &sym))
		return object_refuse_at(object, object->symbol_table, offset, "libelf cannot read the symbol: %s",
					elf_errmsg(-1));
	*symbol = (struct object_symbol){
		.name = object_string(object, object->sections[object->symbol_table].link, sym.st_name),
		.value = sym.st_value,
		.size = sym.st_size,
		.section = sym.st_shndx,
		.type = GELF_ST_TYPE(sym.st_info),
		.bind = GELF_ST_BIND(sym.st_info),
	};
	if (!symbol->name)
		return object_refuse_at(object, object->symbol_table, offset, "the symbol's name lies outside the string table");
	if (symbol->section >= object->n_sections && symbol->section < SHN_LORESERVE)
		return object_refuse_at(object, object->symbol_table, offset, "symbol '%.80s' lies in section %" PRIu32
					" of %" PRIu32, symbol->name, symbol->section, object->n_sections);
	/* section symbols have no name of their own */
	if (symbol->type == STT_SECTION && symbol->section < object->n_sections)
		symbol->name = object->sections[symbol->section].name;
	return true;
}

bool object_read_symbols(struct object *object)
{
	uint32_t n;
	Elf_Data *data;

	if (!object_find_symbol_table(object))
		return false;
	n = object->sections[object->symbol_table].size / sizeof(Elf64_Sym);
	if (!n)
		return object_refuse_at(object, object->symbol_table, 0, "an empty symbol table");
	data = elf_getdata(elf_getscn(object->elf, object->symbol_table), NULL);
	object->symbols = calloc(n, sizeof(*object->symbols));
	if (!data || !object->symbols)
		return object_refuse_at(object, object->symbol_table, 0, "%s", data ? "out of memory" : elf_errmsg(-1));
	object->n_symbols = n;
	for (uint32_t i = 0; i < n; i++)
		if (!object_read_symbol(object, data, i))
			return false;
	return true;
}

/* -- Functions --- */

static bool object_check_function(struct object *object, uint32_t index)
{
	const struct object_symbol *symbol = &object->symbols[index];
	const struct object_section *section;

	if (!object_check_name(object, "function", symbol->name))
		return false;
	if (symbol->section >= object->n_sections || object->sections[symbol->section].kind != SECTION_CODE)
		return object_refuse(object, "function '%.80s' lies in section %" PRIu32 ", which is not executable",
				     symbol->name, symbol->section);
	section = &object->sections[symbol->section];
	if (symbol->value % sizeof(struct insn))
		return object_refuse_at(object, symbol->section, symbol->value,
					"function '%.80s' does not begin at a multiple of 8 bytes", symbol->name);
	if (!symbol->size || symbol->size % sizeof(struct insn))
		return object_refuse_at(object, symbol->section, symbol->value, "function '%.80s' has %" PRIu64
					" bytes, not a positive multiple of 8", symbol->name, symbol->size);
	if (symbol->value > section->size || symbol->size > section->size - symbol->value)
		return object_refuse_at(object, symbol->section, symbol->value,
					"function '%.80s' ends outside its section of 0x%" PRIx64 " bytes", symbol->name,
					section->size);
	return true;
}

static int compare_functions(const void *a, const void *b)
{
	const struct object_function *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->symbol < y->symbol ? -1 : x->symbol > y->symbol;
}

static bool object_check_overlaps(struct object *object)
{
	for (uint32_t i = 1; i < object->n_functions; i++) {
		const struct object_function *a = &object->functions[i - 1], *b = &object->functions[i];
		bool alias = a->offset == b->offset && a->size == b->size;

		if (a->section == b->section && !alias && b->offset < a->offset + a->size)
			return object_refuse_at(object, b->section, b->offset, "function '%.80s' overlaps '%.80s'",
						object->symbols[b->symbol].name, object->symbols[a->symbol].name);
	}
	return true;
}

/* -- Names --- */

struct named {
	const char *name;
	struct object_function *function;
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
static bool name_local(struct object *object, const struct named *all, uint32_t n, const struct named *named,
		       uint32_t *suffix)
{
	char name[IMAGE_NAME_MAX + 16];

	do {
		snprintf(name, sizeof(name), "%s.%" PRIu32, named->name, ++*suffix);
	} while (bsearch(name, all, n, sizeof(*all), compare_name));
	named->function->suffix = *suffix;
	return object_check_name(object, "function", name);
}

static bool object_name_functions(struct object *object)
{
	_cleanup_(freep) struct named *all = NULL;
	uint32_t n = object->n_functions, suffix = 0;

	all = calloc(n, sizeof(*all));
	if (!all)
		return object_refuse(object, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		const struct object_symbol *symbol = &object->symbols[object->functions[i].symbol];

		all[i] = (struct named){ symbol->name, &object->functions[i], symbol->bind == STB_LOCAL };
	}
	qsort(all, n, sizeof(*all), compare_named);
	for (uint32_t i = 1; i < n; i++) {
		if (strcmp(all[i - 1].name, all[i].name)) {
			suffix = 0;
			continue;
		}
		if (!all[i].local)
			return object_refuse_at(object, all[i].function->section, all[i].function->offset,
						"a second global function '%.80s'", all[i].name);
		if (!name_local(object, all, n, &all[i], &suffix))
			return false;
	}
	return true;
}

bool object_collect_functions(struct object *object)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i < object->n_symbols; i++)
		n += object->symbols[i].type == STT_FUNC && object->symbols[i].section != SHN_UNDEF;
	if (!n || n > IMAGE_METHODS_MAX)
		return object_refuse(object, n ? "%" PRIu32 " functions, more than %u" : "no functions", n, IMAGE_METHODS_MAX);
	object->functions = calloc(n, sizeof(*object->functions));
	if (!object->functions)
		return object_refuse(object, "out of memory");
	for (uint32_t i = 1; i < object->n_symbols; i++) {
		const struct object_symbol *symbol = &object->symbols[i];

		if (symbol->type != STT_FUNC || symbol->section == SHN_UNDEF)
			continue;
		if (!object_check_function(object, i))
			return false;
		object->functions[object->n_functions++] = (struct object_function){
			.symbol = i, .section = symbol->section, .offset = symbol->value, .size = symbol->size,
		};
	}
	qsort(object->functions, n, sizeof(*object->functions), compare_functions);
	return object_check_overlaps(object) && object_name_functions(object);
}

int64_t object_method_at(const struct object *object, uint32_t section, uint64_t target)
{
	const struct object_function key = { .section = section, .offset = target };	/* symbol 0: before all others */
	uint32_t low = 0, high = object->n_functions;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_functions(&object->functions[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == object->n_functions || object->functions[low].section != section
	    || object->functions[low].offset != target)
		return -1;
	return low;
}

/* -- Where a reference leads --- */

/* An import exists once something refers to it: what a header merely declares is nobody's business to bind. */
static bool resolve_import(struct object *object, struct object_symbol *symbol, struct object_target *ret)
{
	if (!symbol->placed) {
		if (!object_check_name(object, "import", symbol->name))
			return false;
		symbol->placed = 1 + builder_import(&object->builder, symbol->name,
						    symbol->bind == STB_WEAK ? IMAGE_IMPORT_WEAK : 0);
	}
	*ret = (struct object_target){ .ref = INSN_REF_IMPORT, .index = symbol->placed - 1 };
	return true;
}

static bool resolve_in_section(struct object *object, uint32_t section, uint64_t offset,
			       const struct object_symbol *symbol, int64_t at, struct object_target *ret)
{
	static const enum insn_ref refs[] = {
		[IMAGE_RODATA] = INSN_REF_RODATA, [IMAGE_DATA] = INSN_REF_DATA, [IMAGE_BSS] = INSN_REF_BSS,
	};
	const struct object_section *in = &object->sections[symbol->section];
	int64_t method;

	switch (in->kind) {
	case SECTION_CODE:
		method = object_method_at(object, symbol->section, at);
		if (method < 0)
			return object_refuse_at(object, section, offset, "refers to offset 0x%" PRIx64
						" of section '%.80s', where no function begins", (uint64_t)at, in->name);
		*ret = (struct object_target){ .ref = INSN_REF_METHOD, .index = method };
		return true;
	case SECTION_DATA:
		if (at < 0 || (uint64_t)at > in->size)
			return object_refuse_at(object, section, offset, "refers to offset %" PRId64
						" of section '%.80s', which has %" PRIu64 " bytes", at, in->name, in->size);
		*ret = (struct object_target){ .ref = refs[in->segment], .addend = in->base + at };
		return true;
	case SECTION_MAPS:
		return object_refuse_at(object, section, offset, "refers to kernel map '%.80s'; kernel maps are not supported",
					symbol->name);
	default:
		return object_refuse_at(object, section, offset, "refers to '%.80s' in section '%.80s', which is not loaded",
					symbol->name, in->name);
	}
}

static bool resolve_common(struct object *object, uint32_t section, uint64_t offset, const struct object_symbol *symbol,
			   int64_t addend, struct object_target *ret)
{
	if (addend < 0 || (uint64_t)addend > symbol->size)
		return object_refuse_at(object, section, offset, "refers to byte %" PRId64 " of '%.80s', which has %" PRIu64,
					addend, symbol->name, symbol->size);
	*ret = (struct object_target){ .ref = INSN_REF_BSS, .addend = symbol->placed + addend };
	return true;
}

bool object_resolve(struct object *object, uint32_t section, uint64_t offset, uint32_t index, int64_t addend,
		    struct object_target *ret)
{
	struct object_symbol *symbol = &object->symbols[index];
	int64_t at;

	switch (symbol->section) {
	case SHN_UNDEF:
		if (!index)
			return object_refuse_at(object, section, offset, "its relocation names no symbol");
		if (addend)
			return object_refuse_at(object, section, offset, "refers to import '%.80s' with offset %" PRId64,
						symbol->name, addend);
		return resolve_import(object, symbol, ret);
	case SHN_COMMON:
		return resolve_common(object, section, offset, symbol, addend, ret);
	case SHN_LORESERVE ... SHN_COMMON - 1:
	case SHN_XINDEX:
		return object_refuse_at(object, section, offset, "refers to '%.80s', a symbol of special section 0x%" PRIx32,
					symbol->name, symbol->section);
	default:
		if (__builtin_add_overflow(symbol->value, addend, &at))
			return object_refuse_at(object, section, offset, "refers to '%.80s' with offset %" PRId64,
						symbol->name, addend);
		return resolve_in_section(object, section, offset, symbol, at, ret);
	}
}
