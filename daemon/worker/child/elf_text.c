/* SPDX-License-Identifier: Apache-2.0 */
/* Methods: the bytes of each function, with what relocations and pc-relative fields say moved into the fields that
 * bytecode/insn.h describes. Instructions are not validated here (the daemon does that, with what it trusts), but what
 * the normalized form can no longer tell apart is refused: after this file, src 1 of a lddw means "method", not "map". */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/elf_loader.h"

/* src of a lddw without relocation (RFC 9669, table 12) */
enum {
	LDDW_MAP_FD = 1,
	LDDW_MAP_VALUE = 2,
	LDDW_VARIABLE = 3,	/* of the kernel */
	LDDW_CODE = 4,		/* pc-relative, in instructions */
	LDDW_MAP_INDEX = 5,
	LDDW_MAP_INDEX_VALUE = 6,
};

/* one instruction of a function, and where it lies */
struct place {
	struct loader *loader;
	uint32_t section;
	uint64_t offset;
	struct insn *insn;
	const struct loader_reloc *reloc;	/* of this instruction, or NULL */
};

static bool refuse_reloc(const struct place *place, const char *instruction)
{
	return loader_refuse_at(place->loader, place->section, place->offset, "relocation type %" PRIu32
				" does not belong to %s (opcode 0x%02x)", place->reloc->type, instruction, place->insn->code);
}

/* -- lddw --- */

static void write_ref(struct insn *insn, const struct loader_target *target)
{
	insn[0].src = target->ref;
	insn[0].imm = target->addend;
	insn[1].imm = target->index;
}

static bool normalize_lddw_reloc(const struct place *place)
{
	struct insn *insn = place->insn;
	const struct loader_reloc *reloc = place->reloc;
	int64_t addend = reloc->has_addend ? reloc->addend : (int64_t)(insn_imm64(insn) - reloc->symbol_value);
	struct loader_target target;

	if (reloc->type != BPF_RELOC_64_64)
		return refuse_reloc(place, "a 64-bit immediate");
	if (insn->src)
		return loader_refuse_at(place->loader, place->section, place->offset,
					"a 64-bit immediate of kind %u with a relocation", insn->src);
	if (!loader_resolve(place->loader, place->section, place->offset, reloc->symbol, addend, &target))
		return false;
	write_ref(insn, &target);
	return true;
}

/* @offset is that of the instruction, @imm counts instructions from the next one. */
static bool resolve_relative(const struct place *place, struct loader_target *ret)
{
	int64_t target = (int64_t)place->offset + ((int64_t)place->insn->imm + 1) * (int64_t)sizeof(struct insn);
	int64_t method = loader_method_at(place->loader, place->section, target);

	if (method < 0)
		return loader_refuse_at(place->loader, place->section, place->offset, "refers to offset %" PRId64
					" of the section, where no function begins", target);
	*ret = (struct loader_target){ .ref = INSN_REF_METHOD, .index = method };
	return true;
}

static bool normalize_lddw(const struct place *place)
{
	struct loader_target target;

	if (place->reloc)
		return normalize_lddw_reloc(place);
	switch (place->insn->src) {
	case INSN_REF_NONE:
		return true;
	case LDDW_CODE:
		if (!resolve_relative(place, &target))
			return false;
		write_ref(place->insn, &target);
		return true;
	case LDDW_MAP_FD:
	case LDDW_MAP_VALUE:
	case LDDW_MAP_INDEX:
	case LDDW_MAP_INDEX_VALUE:
		return loader_refuse_at(place->loader, place->section, place->offset,
					"takes the address of a kernel map (kind %u); kernel maps are not supported",
					place->insn->src);
	case LDDW_VARIABLE:
		return loader_refuse_at(place->loader, place->section, place->offset,
					"takes the address of a kernel variable; import it by name instead");
	default:
		return loader_refuse_at(place->loader, place->section, place->offset,
					"unknown kind %u of 64-bit immediate", place->insn->src);
	}
}

/* -- Calls --- */

static bool normalize_call_reloc(const struct place *place)
{
	struct insn *insn = place->insn;
	const struct loader_reloc *reloc = place->reloc;
	/* the field holds (S + A) / 8 - 1: -1 for a symbol's start */
	int64_t addend = reloc->has_addend ? reloc->addend : (int64_t)(((uint64_t)insn->imm + 1 - reloc->symbol_value) * sizeof(*insn));
	struct loader_target target;

	if (reloc->type != BPF_RELOC_64_32)
		return refuse_reloc(place, "a call");
	if (!loader_resolve(place->loader, place->section, place->offset, reloc->symbol, addend, &target))
		return false;
	if (target.ref != INSN_REF_METHOD && target.ref != INSN_REF_IMPORT)
		return loader_refuse_at(place->loader, place->section, place->offset, "calls '%.80s', which is data",
					place->loader->symbols[reloc->symbol].name);
	insn->src = target.ref == INSN_REF_METHOD ? INSN_CALL_METHOD : INSN_CALL_IMPORT;
	insn->imm = target.index;
	return true;
}

static bool normalize_call(const struct place *place)
{
	struct insn *insn = place->insn;
	struct loader_target target;

	if (insn->src >= _INSN_CALL_N)
		return loader_refuse_at(place->loader, place->section, place->offset, "unknown kind %u of call", insn->src);
	if (place->reloc)
		return normalize_call_reloc(place);
	switch (insn->src) {
	case INSN_CALL_METHOD:
		if (!resolve_relative(place, &target))
			return false;
		insn->imm = target.index;
		return true;
	case INSN_CALL_IMPORT:
		return loader_refuse_at(place->loader, place->section, place->offset,
					"calls kernel function %" PRId32 " by number; import a host function by name", insn->imm);
	default:
		return true;	/* a helper: the validator decides */
	}
}

/* LLVM up to 18 writes callx's register into imm, all others into dst. */
static bool normalize_callx(const struct place *place)
{
	struct insn *insn = place->insn;

	if (!insn->imm)
		return true;
	if (insn->dst || insn->imm < 0 || insn->imm >= _INSN_REG_N)
		return loader_refuse_at(place->loader, place->section, place->offset, "callx names register r%u and r%" PRId32,
					insn->dst, insn->imm);
	insn->dst = insn->imm;
	insn->imm = 0;
	return true;
}

static bool normalize_insn(const struct place *place)
{
	const struct insn *insn = place->insn;

	if (insn_is_lddw(insn))
		return normalize_lddw(place);
	if (insn->code == (BPF_JMP | BPF_CALL))
		return normalize_call(place);
	if (place->reloc)
		return refuse_reloc(place, "this instruction");
	return insn_is_callx(insn) ? normalize_callx(place) : true;
}

/* -- Methods --- */

static bool normalize_function(struct loader *loader, const struct loader_function *function, struct insn *insns)
{
	uint32_t index = loader_relocs_from(loader, function->section, function->offset);
	const struct loader_reloc *reloc;
	uint64_t end = function->offset + function->size;
	struct place place = { .loader = loader, .section = function->section, .offset = function->offset, .insn = insns };

	while (place.offset < end) {
		uint64_t next = place.offset + insn_slots(place.insn) * sizeof(struct insn);

		if (next > end)
			return loader_refuse_at(loader, place.section, place.offset,
						"the method ends inside a 16-byte instruction");
		reloc = loader_reloc_in(loader, index, place.section);
		place.reloc = reloc && reloc->offset == place.offset ? reloc : NULL;
		if (place.reloc)
			reloc = loader_reloc_in(loader, ++index, place.section);
		if (reloc && reloc->offset < next)
			return loader_refuse_at(loader, place.section, reloc->offset,
						"a relocation in the middle of an instruction");
		if (!normalize_insn(&place))
			return false;
		place.insn += insn_slots(place.insn);
		place.offset = next;
	}
	return true;
}

static uint32_t method_flags(const struct loader_symbol *symbol)
{
	switch (symbol->bind) {
	case STB_LOCAL:
		return 0;
	case STB_WEAK:
		return IMAGE_METHOD_GLOBAL | IMAGE_METHOD_WEAK;
	default:
		return IMAGE_METHOD_GLOBAL;
	}
}

static bool add_method(struct loader *loader, const struct loader_function *function, struct insn *insns)
{
	const struct loader_symbol *symbol = &loader->symbols[function->symbol];
	struct loader_section *section = &loader->sections[function->section];
	char name[IMAGE_NAME_MAX + 1];

	if (!section->string) {
		if (!loader_check_name(loader, "section", section->name))
			return false;
		section->string = builder_string(&loader->builder, section->name);
	}
	memcpy(insns, section->bytes + function->offset, function->size);
	if (!normalize_function(loader, function, insns))
		return false;
	snprintf(name, sizeof(name), "%s", symbol->name);
	if (function->suffix)
		snprintf(name, sizeof(name), "%s.%" PRIu32, symbol->name, function->suffix);
	builder_method(&loader->builder, name, section->string, function->offset, method_flags(symbol), insns,
		       function->size / sizeof(*insns));
	return true;
}

bool loader_add_methods(struct loader *loader)
{
	_cleanup_(freep) struct insn *insns = NULL;
	uint64_t n = 0, n_max = 0;

	for (uint32_t i = 0; i < loader->n_functions; i++) {
		n += loader->functions[i].size / sizeof(*insns);
		n_max = MAX(n_max, loader->functions[i].size);
	}
	if (n > IMAGE_INSNS_MAX)
		return loader_refuse(loader, "%" PRIu64 " instructions, more than %u", n, IMAGE_INSNS_MAX);
	insns = malloc(n_max);
	if (!insns)
		return loader_refuse(loader, "out of memory");
	builder_string(&loader->builder, "");	/* so that offset 0 is nobody's name */
	for (uint32_t i = 0; i < loader->n_functions; i++)
		if (!add_method(loader, &loader->functions[i], insns))
			return false;
	return true;
}
