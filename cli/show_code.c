/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "bpf.h"
#include "native.h"
#include "show.h"
#include "table.h"

/* -- Names of numbers --- */
static const char *method_name(void *module, uint32_t index)
{
	struct tier_method *method;

	return tier_method_at(module, index, &method) ? "?" : tier_method_name(method);
}

static const char *import_name(void *module, uint32_t index)
{
	return tier_import_name(module, index) ?: "?";
}

/* -- Bytecode --- */

/* The line that holds at @slot; *at is the line to begin looking from, and moves on with growing slots. */
static const struct tier_line *line_at(const struct show *show, uint32_t slot, unsigned int *at)
{
	while (*at < show->n_lines && show->lines[*at].insn <= slot)
		++*at;
	return *at && show->lines[*at - 1].line ? &show->lines[*at - 1] : NULL;
}

static void insn_json(uint32_t slot, const char *text, const struct tier_line *line)
{
	printf("%s\t\t{\"slot\": %u, \"text\": ", slot ? ",\n" : "", slot);
	print_json_string(text);
	printf(", \"file\": ");
	if (line)
		print_json_string(line->file);
	if (line)
		printf(", \"line\": %u, \"column\": %u}", line->line, line->column);
	else
		printf("null, \"line\": null, \"column\": null}");
}

static void insn_plain(uint32_t slot, const char *text, const struct tier_line *line, bool is_new)
{
	if (line && is_new)
		printf(line->column ? "        ; %s:%u:%u\n" : "        ; %s:%u\n", line->file, line->line, line->column);
	printf("%6u: %s\n", slot, text);
}

void show_bytecode(const struct show *show)
{
	const struct bpf_names names = { .method = method_name, .import = import_name, .context = show->target.module };
	const struct tier_line *line = NULL, *before = NULL;
	const uint32_t n = show->description.n_insns;
	unsigned int at = 0;
	char text[600];

	printf(show->ctl->json ? "\t\"bytecode\": [\n" : "\nbytecode\n");
	for (uint32_t slot = 0, size; slot < n; slot += size, before = line) {
		size = bpf_text(text, sizeof(text), &show->insns[slot], n - slot, &names);
		line = line_at(show, slot, &at);
		if (show->ctl->json)
			insn_json(slot, text, line);
		else
			insn_plain(slot, text, line, line != before);
	}
	if (show->ctl->json)
		printf("\n\t]");
}

/* -- What lies at an address --- */
struct symbols {
	struct tier_module *module;
	const struct tier_layout *layout;
	const struct show_version *version;	/* whose code is printed */
};

static bool symbol_in_code(const struct symbols *symbols, uint64_t offset, char *to, size_t n)
{
	static const char *const thunks[] = {
		[TIER_THUNK_PRESTUB] = "prestub", [TIER_THUNK_THRESHOLD] = "threshold", [TIER_THUNK_OSR] = "osr",
	};
	const uint64_t precode = offset - TIER_PRECODES_OFFSET;

	if (offset < _TIER_THUNK_N * TIER_THUNK_SIZE)
		snprintf(to, n, "<%s>", thunks[offset / TIER_THUNK_SIZE]);
	else if (offset >= TIER_PRECODES_OFFSET && precode < (uint64_t)symbols->layout->n_methods * TIER_PRECODE_SIZE)
		snprintf(to, n, precode % TIER_PRECODE_SIZE < TIER_FUNCPTR_OFFSET	? "%s"
				: precode % TIER_PRECODE_SIZE < TIER_PRECODE_PRESTUB ? "%s.pointer" : "%s.prestub",
			 method_name(symbols->module, precode / TIER_PRECODE_SIZE));
	else
		return false;
	return true;
}

static bool symbol_in_records(const struct symbols *symbols, uint64_t offset, char *to, size_t n)
{
	const uint64_t record = offset - TIER_RECORDS_OFFSET, field = record % sizeof(struct tier_record);
	const struct tier_layout *layout = symbols->layout;
	const uint64_t begin = layout->segment[TIER_SEGMENT_RECORDS].offset;
	const uint64_t rodata = layout->rodata - begin, cells = layout->call_cells - begin;

	if (offset >= TIER_RECORDS_OFFSET && record < layout->n_methods * sizeof(struct tier_record)) {
		const char *name = method_name(symbols->module, record / sizeof(struct tier_record));

		if (field == offsetof(struct tier_record, entry))
			snprintf(to, n, "%s.entry", name);
		else if (field == offsetof(struct tier_record, precode))
			snprintf(to, n, "%s.precode", name);
		else if (field == offsetof(struct tier_record, funcptr))
			snprintf(to, n, "%s.funcptr", name);
		else
			snprintf(to, n, "%s.record+0x%" PRIx64, name, field);
	} else if (layout->n_slots && offset >= cells && offset - cells < layout->n_slots) {
		snprintf(to, n, "cell of .rodata+0x%" PRIx64, offset - cells + layout->slots - layout->rodata);
	} else if (offset >= rodata && offset - rodata <= layout->n_rodata) {
		snprintf(to, n, ".rodata+0x%" PRIx64, offset - rodata);
	} else {
		return false;
	}
	return true;
}

static bool symbol_in_private(const struct symbols *symbols, uint64_t offset, char *to, size_t n)
{
	const struct tier_layout *layout = symbols->layout;
	const uint64_t begin = layout->segment[TIER_SEGMENT_PRIVATE].offset, data = layout->data - begin, bss = layout->bss - begin;
	const uint64_t import = offset - sizeof(struct tier_private);

	if (offset >= sizeof(struct tier_private) && import < layout->n_imports * sizeof(uint64_t))
		snprintf(to, n, "%s", import_name(symbols->module, import / sizeof(uint64_t)));
	else if (layout->n_bss && offset >= bss && offset - bss <= layout->n_bss)
		snprintf(to, n, ".bss+0x%" PRIx64, offset - bss);
	else if (layout->n_data && offset >= data && offset - data <= layout->n_data)
		snprintf(to, n, ".data+0x%" PRIx64, offset - data);
	else
		return false;
	return true;
}

/* False: nothing that has a name. */
static bool symbol_of(const struct symbols *symbols, uint64_t address, char *to, size_t n)
{
	const struct tier_layout *layout = symbols->layout;
	const struct wire_version_row *row = &symbols->version->row;
	unsigned int segment = 0;
	uint64_t offset;

	if (address >= row->code && address - row->code < row->size) {
		snprintf(to, n, "+0x%" PRIx64, address - row->code);
		return true;
	}
	while (segment < _TIER_SEGMENT_N && address - tier_layout_segment(layout, segment) >= layout->segment[segment].size)
		segment++;
	if (segment == _TIER_SEGMENT_N)
		return false;
	offset = address - tier_layout_segment(layout, segment);
	switch (segment) {
	case TIER_SEGMENT_CODE:
		return symbol_in_code(symbols, offset, to, n);
	case TIER_SEGMENT_RECORDS:
		return symbol_in_records(symbols, offset, to, n);
	case TIER_SEGMENT_COUNTERS:
		snprintf(to, n, "counter %" PRIu64, offset / sizeof(uint32_t));
		return true;
	default:
		return symbol_in_private(symbols, offset, to, n);
	}
}

/* -- Machine code --- */
struct native_print {
	struct symbols symbols;
	bool json, any;
};

static void native_json(const struct native_print *print, const struct native_insn *insn, const char *hex, const char *symbol)
{
	printf("%s\t\t{\"offset\": %" PRIu64 ", \"bytes\": \"%s\", \"text\": ", print->any ? ",\n" : "",
	       insn->address - print->symbols.version->row.code, hex);
	print_json_string(insn->text);
	printf(", \"symbol\": ");
	if (symbol)
		print_json_string(symbol);
	printf(symbol ? "}" : "null}");
}

static void native_insn(const struct native_insn *insn, void *context)
{
	struct native_print *print = context;
	char hex[2 * 16 + 1] = "", symbol[300] = "", offset[24];

	for (uint32_t i = 0; i < insn->n && i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", insn->bytes[i]);
	snprintf(offset, sizeof(offset), "+0x%" PRIx64, insn->address - print->symbols.version->row.code);
	for (unsigned int i = 0; i < 2 && !*symbol; i++)
		if (insn->targets[i])
			symbol_of(&print->symbols, insn->targets[i], symbol, sizeof(symbol));
	if (print->json)
		native_json(print, insn, hex, *symbol ? symbol : NULL);
	else if (*symbol)
		printf("%8s: %-22s %-44s ; %s\n", offset, hex, insn->text, symbol);
	else
		printf("%8s: %-22s %s\n", offset, hex, insn->text);
	print->any = true;
}

bool show_native(const struct show *show)
{
	const struct show_version *active = show_active(show);
	struct native_print print = {
		.symbols = { .module = show->target.module, .layout = tier_module_layout(show->target.module), .version = active },
		.json = show->ctl->json,
	};
	const void *code = NULL;

	if (active)
		code = tier_code(show->target.module, active->row.code, active->row.size);
	if (active && !code) {
		fail("%s: version %" PRIu64 " has no code in this module", show->ctl->args[0], active->row.version);
		return false;
	}
	if (print.json)
		printf("\t\"native\": [\n");
	else if (active)
		printf("\nmachine code of version %" PRIu64 ", %s, at 0x%" PRIx64 "\n", active->row.version,
		       tier_level_name(active->row.tier), active->row.code);
	else
		printf("\nmachine code: none yet\n");
	if (active && !native_each(code, active->row.size, active->row.code, native_insn, &print)) {
		fail("%s: the disassembler cannot be started", show->ctl->args[0]);
		return false;
	}
	if (print.json)
		printf("\n\t]");
	return true;
}
