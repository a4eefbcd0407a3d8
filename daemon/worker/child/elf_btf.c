/* SPDX-License-Identifier: Apache-2.0 */
/* Debug information: what .BTF and .BTF.ext tell about methods that are in the image already
 *
 * Nothing here is needed to run a module, so nothing here refuses one. What is malformed is left out: all of it when .BTF
 * cannot be read, lines and the exact assignment of functions when .BTF.ext cannot be; the image carries a note that says
 * which and why. Only one pass over the instructions' lines and a bounded number of bytes of text come out of it,
 * whatever the sections say.
 *
 * .BTF.ext names a function by section and offset, which tells apart local functions of one name; without it a function
 * is found by its name, if only one has it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/btf.h"
#include "worker/child/elf_loader.h"

#define DEBUG_TEXT_MAX (64u << 20)	/* bytes of signatures, tags and file names */

/* One record of .BTF.ext: at an offset of a section of code, three words */
struct record {
	uint32_t section;
	uint32_t order;		/* in the file */
	uint64_t offset;
	uint32_t word[3];	/* type | name of the file, (the line's text), line and column */
};
struct records {
	struct record *all;	/* by section, offset, order */
	uint32_t n;
};

/* A section of code, to be found by its name: lists of records have only that. */
struct code_name {
	const char *name;
	uint32_t section;
};

struct debug {
	struct loader *loader;
	struct code_name *code;		/* by name, then number */
	uint32_t n_code;
	struct btf btf;
	struct records functions, lines;
	uint32_t *files;	/* of .BTF's strings: offsets, ascending; their places are the files' indices */
	uint32_t n_files, n_tags;
	size_t n_text;
	char why[128];
};

static void debug_deinit(struct debug *debug)
{
	btf_deinit(&debug->btf);
	free(debug->code);
	free(debug->functions.all);
	free(debug->lines.all);
	free(debug->files);
}

static void debug_note(struct debug *debug, const char *section, const char *why)
{
	char note[IMAGE_NAME_MAX];

	snprintf(note, sizeof(note), "%s is left out: %s", section, why);
	builder_note(&debug->loader->builder, note);
}

/* Copies as much as fits, keeping the end (of a path it tells more); names come out of files that anybody made. */
static void copy_text(char *to, size_t n_to, const char *from)
{
	size_t n = strlen(from), skip = n < n_to ? 0 : n - (n_to - 1) + 3;

	snprintf(to, n_to, "%s%s", skip ? "..." : "", from + skip);
	for (char *c = to; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

/* Whether so much more text may go into the image. */
static bool debug_spend(struct debug *debug, const char *text)
{
	debug->n_text += strlen(text) + 1;
	return debug->n_text <= DEBUG_TEXT_MAX;
}

/* -- .BTF.ext --- */
static int compare_records(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	if (x->section != y->section)
		return x->section < y->section ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int compare_code_names(const void *a, const void *b)
{
	const struct code_name *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : x->section < y->section ? -1 : x->section > y->section;
}

static const char *debug_name_code(struct debug *debug)
{
	const struct loader *loader = debug->loader;

	debug->code = calloc(loader->n_sections, sizeof(*debug->code));
	if (!debug->code)
		return "out of memory";
	for (uint32_t i = 1; i < loader->n_sections; i++)
		if (loader->sections[i].kind == SECTION_CODE)
			debug->code[debug->n_code++] = (struct code_name){ loader->sections[i].name, i };
	qsort(debug->code, debug->n_code, sizeof(*debug->code), compare_code_names);
	return NULL;
}

/* The first section of code called @name; 0: none */
static uint32_t find_code(const struct debug *debug, const char *name)
{
	const struct code_name key = { .name = name };	/* section 0: before all others */
	uint32_t low = 0, high = debug->n_code;

	if (!name)
		return 0;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_code_names(&debug->code[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < debug->n_code && !strcmp(debug->code[low].name, name) ? debug->code[low].section : 0;
}

static void record_read(struct record *record, const uint8_t *p, uint32_t n_record, uint32_t section, uint32_t order)
{
	*record = (struct record){ .section = section, .order = order, .offset = btf_u32(p) };
	for (uint32_t i = 0; i < ARRAY_SIZE(record->word) && i * 4 + 8 <= n_record; i++)
		record->word[i] = btf_u32(p + 4 + i * 4);
}

/* A table is the size of its records, then for each section: its name, how many, the records. */
static const char *records_read(struct records *records, struct debug *debug, const uint8_t *p, uint32_t n, uint32_t n_record_min)
{
	uint32_t n_record = n >= 4 ? btf_u32(p) : 0, at = 4;

	if (!n)
		return NULL;
	if (n_record < n_record_min || n_record % 4 || n_record > n)
		return "records of an impossible size";
	records->all = calloc(n / n_record + 1, sizeof(*records->all));
	if (!records->all)
		return "out of memory";
	while (at < n) {
		uint32_t section, n_here;

		if (n - at < 8)
			return "a list of records ends early";
		section = find_code(debug, btf_string(&debug->btf, btf_u32(p + at)));
		n_here = btf_u32(p + at + 4);
		at += 8;
		if (n_here > (n - at) / n_record)
			return "more records than it has room for";
		for (; n_here; n_here--, at += n_record)
			if (section) {
				record_read(&records->all[records->n], p + at, n_record, section, records->n);
				records->n++;
			}
	}
	qsort(records->all, records->n, sizeof(*records->all), compare_records);
	return NULL;
}

static const char *debug_read_ext(struct debug *debug, const uint8_t *bytes, size_t n)
{
	uint32_t n_header = btf_header(bytes, n, 24), at, n_part;
	const char *why;

	if (!n_header)
		return "not of version 1 in little endian";
	why = debug_name_code(debug);
	if (why)
		return why;
	if (!btf_part(bytes, n, n_header, 2, &at, &n_part))
		return "its functions lie outside the section";
	why = records_read(&debug->functions, debug, bytes + at, n_part, 8);
	if (why)
		return why;
	if (!btf_part(bytes, n, n_header, 4, &at, &n_part))
		return "its lines lie outside the section";
	return records_read(&debug->lines, debug, bytes + at, n_part, 16);
}

/* Index of the first record at or behind @offset of @section */
static uint32_t records_from(const struct records *records, uint32_t section, uint64_t offset)
{
	const struct record key = { .section = section, .offset = offset };
	uint32_t low = 0, high = records->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (compare_records(&records->all[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* -- Methods --- */
static uint32_t tag_flag(const char *tag)
{
	static const struct { const char *tag; uint32_t flag; } flags[] = {
		{ "tier:no_optimization", IMAGE_METHOD_NO_OPTIMIZATION },
		{ "tier:aggressive_optimization", IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION },
		{ "tier:pinned", IMAGE_METHOD_PINNED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (!strcmp(tag, flags[i].tag))
			return flags[i].flag;
	return 0;
}

static uint32_t function_type(const struct debug *debug, const struct loader_function *function)
{
	const struct records *records = &debug->functions;
	uint32_t i = records_from(records, function->section, function->offset);

	if (i < records->n && records->all[i].section == function->section && records->all[i].offset == function->offset)
		return records->all[i].word[0];
	return btf_find_function(&debug->btf, debug->loader->symbols[function->symbol].name);
}

static void describe_method(struct debug *debug, uint32_t method)
{
	const struct loader_function *function = &debug->loader->functions[method];
	struct builder *builder = &debug->loader->builder;
	uint32_t type = function_type(debug, function), flags = 0, n;
	const struct btf_tag *tags = btf_tags(&debug->btf, type, &n);
	struct btf_signature signature;
	char text[IMAGE_SIGNATURE_MAX + 1];

	if (!type)
		return;
	btf_sign(&debug->btf, type, debug->loader->symbols[function->symbol].name, &signature);
	copy_text(text, sizeof(text), signature.text);
	if (!debug_spend(debug, text))
		return;
	for (uint32_t i = 0; i < n && debug->n_tags < IMAGE_TAGS_MAX; i++) {
		char tag[IMAGE_NAME_MAX + 1];

		copy_text(tag, sizeof(tag), tags[i].name);
		if (!debug_spend(debug, tag))
			break;
		builder_tag(builder, method, tag);
		debug->n_tags++;
		flags |= tag_flag(tag);
	}
	builder_describe(builder, method, flags, *text ? text : NULL, signature.n_params, signature.hash);
}

/* -- Lines --- */
static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Files come into the image in the order of their names' offsets in .BTF. */
static const char *debug_add_files(struct debug *debug)
{
	const struct records *lines = &debug->lines;
	uint32_t n = 0;

	debug->files = calloc(lines->n + 1, sizeof(*debug->files));
	if (!debug->files)
		return "out of memory";
	for (uint32_t i = 0; i < lines->n; i++)
		debug->files[i] = lines->all[i].word[0];
	qsort(debug->files, lines->n, sizeof(*debug->files), compare_numbers);
	for (uint32_t i = 0; i < lines->n; i++)
		if (!n || debug->files[i] != debug->files[n - 1])
			debug->files[n++] = debug->files[i];
	if (n > IMAGE_FILES_MAX)
		return "too many source files";
	for (uint32_t i = 0; i < n; i++)
		if (!btf_string(&debug->btf, debug->files[i]))
			return "a file's name lies outside the strings";
	for (uint32_t i = 0; i < n; i++) {
		char name[IMAGE_NAME_MAX + 1];

		copy_text(name, sizeof(name), btf_string(&debug->btf, debug->files[i]));
		builder_file(&debug->loader->builder, *name ? name : "?");
	}
	debug->n_files = n;
	return NULL;
}

/* One entry per instruction: of several records for one the last. */
static void add_method_lines(struct debug *debug, uint32_t method, uint32_t insn)
{
	const struct loader_function *function = &debug->loader->functions[method];
	const struct record *all = debug->lines.all;
	uint64_t end = function->offset + function->size;

	for (uint32_t i = records_from(&debug->lines, function->section, function->offset);
	     i < debug->lines.n && all[i].section == function->section && all[i].offset < end; i++) {
		const uint32_t *file;

		if (all[i].offset % sizeof(struct insn)
		    || (i + 1 < debug->lines.n && all[i + 1].section == all[i].section && all[i + 1].offset == all[i].offset))
			continue;
		file = bsearch(&all[i].word[0], debug->files, debug->n_files, sizeof(*file), compare_numbers);
		builder_line(&debug->loader->builder, &(struct image_line){
			.insn = insn + (all[i].offset - function->offset) / sizeof(struct insn),
			.file = file - debug->files,
			.line = all[i].word[2] >> 10,
			.column = all[i].word[2] & 0x3ff,
		});
	}
}

static void debug_add_lines(struct debug *debug)
{
	uint32_t insn = 0;

	for (uint32_t i = 0; i < debug->loader->n_functions; i++) {
		add_method_lines(debug, i, insn);
		insn += debug->loader->functions[i].size / sizeof(struct insn);
	}
}

static const struct loader_section *find_section(const struct loader *loader, const char *name)
{
	for (uint32_t i = 1; i < loader->n_sections; i++)
		if (loader->sections[i].type == SHT_PROGBITS && !strcmp(loader->sections[i].name, name))
			return &loader->sections[i];
	return NULL;
}

void loader_add_debug(struct loader *loader)
{
	_cleanup_(debug_deinit) struct debug debug = { .loader = loader };
	const struct loader_section *btf = find_section(loader, ".BTF"), *ext = find_section(loader, ".BTF.ext");
	const char *why;

	if (!btf)
		return;
	why = btf_read(&debug.btf, btf->bytes, btf->size, debug.why, sizeof(debug.why));
	if (why) {
		debug_note(&debug, btf->name, why);
		return;
	}
	why = ext ? debug_read_ext(&debug, ext->bytes, ext->size) : NULL;
	if (!why)
		why = debug_add_files(&debug);
	if (why) {
		debug.functions.n = debug.lines.n = 0;
		debug_note(&debug, ext ? ext->name : btf->name, why);
	}
	for (uint32_t i = 0; i < loader->n_functions; i++)
		describe_method(&debug, i);
	debug_add_lines(&debug);
	if (debug.n_text > DEBUG_TEXT_MAX)
		debug_note(&debug, btf->name, "more text than an image has room for");
}
