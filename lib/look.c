/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"

/* Looking into a method. Everything comes in pages, and each page is checked before a program sees a row of it. */

static struct wire_look look_at(const struct tier_method *method)
{
	return (struct wire_look){ .module = method->module->mapping->module, .method = method->index };
}

static int look_wrong(const struct tier_method *method, const char *what)
{
	return error_set(-EPROTO, "module '%s', method %u: the daemon sent %s", method->module->mapping->name, method->index, what);
}

int tier_describe(const struct tier_method *method, struct wire_description *ret)
{
	const struct wire_method_ref ref = { .module = method->module->mapping->module, .method = method->index };
	int r;

	r = conn_ask_about(method->module, WIRE_DESCRIBE, &ref, WIRE_DESCRIPTION, ret);
	if (r < 0)
		return r;
	ret->signature[sizeof(ret->signature) - 1] = ret->section[sizeof(ret->section) - 1] = ret->note[sizeof(ret->note) - 1] = 0;
	return 0;
}

int tier_versions(const struct tier_method *method, int (*fn)(const struct wire_version_row *row, void *context), void *context)
{
	struct wire_look look = look_at(method);
	struct wire_versions page;
	int r;

	do {
		r = conn_ask_about(method->module, WIRE_HISTORY, &look, WIRE_VERSIONS, &page);
		if (r < 0)
			return r;
		if (page.n > WIRE_VERSIONS_MAX || (page.more && !page.n))
			return look_wrong(method, "an impossible number of versions");
		for (uint32_t i = 0; i < page.n; i++) {
			/* descending, so that the pages come to an end */
			if (look.cursor && page.rows[i].version >= look.cursor)
				return look_wrong(method, "versions out of order");
			look.cursor = page.rows[i].version;
			r = fn(&page.rows[i], context);
			if (r)
				return r;
		}
	} while (page.more && look.cursor);
	return 0;
}

static int related_page(const struct tier_method *method, const struct wire_look *look, struct wire_names *ret)
{
	int r;

	r = conn_ask_about(method->module, WIRE_RELATED, look, WIRE_NAMES, ret);
	if (r < 0)
		return r;
	if (ret->n > WIRE_NAMES_MAX || (ret->more && !ret->n))
		return look_wrong(method, "an impossible number of names");
	for (uint32_t i = 0; i < ret->n; i++)
		ret->rows[i].name[sizeof(ret->rows[i].name) - 1] = 0;
	return 0;
}

int tier_related(const struct tier_method *method, unsigned int relation, uint64_t version,
		 int (*fn)(uint32_t index, const char *name, void *context), void *context)
{
	struct wire_look look = look_at(method);
	struct wire_names page;
	int r;

	look.relation = relation;
	look.version = version;
	if (relation >= _WIRE_RELATION_N)
		return error_set(-EINVAL, "there is no relation %u", relation);
	do {
		r = related_page(method, &look, &page);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < page.n; i++) {
			r = fn(page.rows[i].index, page.rows[i].name, context);
			if (r)
				return r;
		}
		look.cursor += page.n;
	} while (page.more);
	return 0;
}

int tier_bytecode(const struct tier_method *method, uint64_t *insns, uint32_t n_max, uint32_t *ret_n)
{
	struct wire_look look = look_at(method);
	struct wire_insns page;
	int r;

	*ret_n = 0;
	do {
		r = conn_ask_about(method->module, WIRE_BYTECODE, &look, WIRE_INSNS, &page);
		if (r < 0)
			return r;
		if (page.n > WIRE_INSNS_MAX || (page.more && !page.n) || page.n > UINT32_MAX - *ret_n)
			return look_wrong(method, "an impossible number of instructions");
		if (*ret_n < n_max)
			memcpy(insns + *ret_n, page.insns, sizeof(*insns) * (page.n < n_max - *ret_n ? page.n : n_max - *ret_n));
		*ret_n += page.n;
		look.cursor = *ret_n;
	} while (page.more);
	return 0;
}

/* The name of source file @index, from @names if the page that was fetched last has it. */
static int file_name(const struct tier_method *method, uint32_t index, struct wire_names *names, const char **ret)
{
	struct wire_look look = look_at(method);
	int r;

	for (uint32_t again = 0; again < 2; again++) {
		for (uint32_t i = 0; i < names->n; i++)
			if (names->rows[i].index == index) {
				*ret = names->rows[i].name;
				return 0;
			}
		look.relation = WIRE_RELATION_FILES;
		look.cursor = index;
		r = again ? 0 : related_page(method, &look, names);
		if (r < 0)
			return r;
	}
	return look_wrong(method, "a source line without its file");
}

int tier_lines(const struct tier_method *method, int (*fn)(const struct tier_line *line, void *context), void *context)
{
	struct wire_look look = look_at(method);
	struct wire_names names = { 0 };
	struct wire_source page;
	int r;

	do {
		r = conn_ask_about(method->module, WIRE_LINES, &look, WIRE_SOURCE, &page);
		if (r < 0)
			return r;
		if (page.n > WIRE_LINES_MAX || (page.more && !page.n))
			return look_wrong(method, "an impossible number of source lines");
		for (uint32_t i = 0; i < page.n; i++) {
			const struct wire_line_row *row = &page.rows[i];
			struct tier_line line = { .insn = row->insn, .line = row->line, .column = row->column };

			if (row->insn < look.cursor)
				return look_wrong(method, "source lines out of order");
			look.cursor = row->insn + 1ull;
			r = file_name(method, row->file, &names, &line.file);
			if (!r)
				r = fn(&line, context);
			if (r)
				return r;
		}
	} while (page.more);
	return 0;
}

/* -- What is mapped --- */
const void *tier_code(const struct tier_module *module, uint64_t address, uint64_t n)
{
	const struct tier_layout *layout = &module->mapping->layout;
	const uint64_t begin = tier_layout_segment(layout, TIER_SEGMENT_CODE), size = layout->segment[TIER_SEGMENT_CODE].size;

	if (address < begin || address - begin > size || n > size - (address - begin))
		return NULL;
	return (const void *)(uintptr_t)address;
}

const struct tier_layout *tier_module_layout(const struct tier_module *module)
{
	return &module->mapping->layout;
}

const char *tier_import_name(const struct tier_module *module, uint32_t index)
{
	return index < module->mapping->layout.n_imports ? module->mapping->imports[index].name : NULL;
}
