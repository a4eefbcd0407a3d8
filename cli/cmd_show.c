/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "native.h"
#include "show.h"
#include "table.h"

/* One method: what it is, where it stands, whom it has to do with, its versions. */

static const char *const attribute_names[] = { "global", "weak", "no_optimization", "aggressive_optimization", "pinned" };

/* What there is one of each of in the output */
struct relation {
	const char *heading, *key;
	enum wire_relation relation;
};
static const struct relation relations[] = {
	{ "tags", "\"tags\":", WIRE_RELATION_TAGS },
	{ "called by", "\"callers\":", WIRE_RELATION_CALLERS },
	{ "calls", "\"callees\":", WIRE_RELATION_CALLEES },
	{ "imports", "\"imports\":", WIRE_RELATION_IMPORTS },
	{ "addresses", "\"addresses\":", WIRE_RELATION_ADDRESSES },
};
#define N(a) (sizeof(a) / sizeof((a)[0]))

/* -- Gathering --- */
static void *need(void *p)
{
	if (!p)
		exit(fail("out of memory"));
	return p;
}

/* Room for one more element behind @n: grows at powers of two. */
static void *grow(void *array, unsigned int n, size_t size)
{
	return n & (n - 1) ? array : need(reallocarray(array, n ? 2 * (size_t)n : 1, size));
}

static int names_add(uint32_t index, const char *name, void *context)
{
	struct names *names = context;

	names->all = grow(names->all, names->n, sizeof(*names->all));
	names->all[names->n++] = need(strdup(name));
	return 0;
}

static void names_free(struct names *names)
{
	for (unsigned int i = 0; i < names->n; i++)
		free(names->all[i]);
	free(names->all);
}

static int versions_add(const struct wire_version_row *row, void *context)
{
	struct show *show = context;

	show->versions = grow(show->versions, show->n_versions, sizeof(*show->versions));
	show->versions[show->n_versions++] = (struct show_version){ .row = *row };
	return 0;
}

static int lines_add(const struct tier_line *line, void *context)
{
	struct show *show = context;
	struct tier_line *last = show->n_lines ? &show->lines[show->n_lines - 1] : NULL;
	struct tier_line copy = *line;

	/* mostly the same file again: one copy of its name */
	copy.file = last && !strcmp(last->file, line->file) ? last->file : need(strdup(line->file));
	show->lines = grow(show->lines, show->n_lines, sizeof(*show->lines));
	show->lines[show->n_lines++] = copy;
	return 0;
}

static int gather_code(struct show *show)
{
	const uint32_t n_max = show->description.n_insns;
	uint32_t n;
	int r;

	show->insns = need(calloc(n_max + 1u, sizeof(*show->insns)));
	r = tier_bytecode(show->target.method, show->insns, n_max, &n);
	if (r)
		return r;
	show->description.n_insns = n;	/* its body may have been replaced since */
	return tier_lines(show->target.method, lines_add, show);
}

static int gather(struct show *show)
{
	const struct tier_method *method = show->target.method;
	int r;

	r = tier_describe(method, &show->description);
	if (!r)
		r = tier_versions(method, versions_add, show);
	if (!r)
		r = tier_status_ask(method, &show->answer);
	for (unsigned int i = 0; !r && i < N(relations); i++)
		r = tier_related(method, relations[i].relation, 0, names_add, &show->related[relations[i].relation]);
	for (unsigned int i = 0; !r && i < show->n_versions; i++)
		r = tier_related(method, WIRE_RELATION_INLINED, show->versions[i].row.version, names_add, &show->versions[i].inlined);
	if (!r && show->ctl->bytecode)
		r = gather_code(show);
	return r;
}

static void show_deinit(struct show *show)
{
	for (unsigned int i = 0; i < _WIRE_RELATION_N; i++)
		names_free(&show->related[i]);
	for (unsigned int i = 0; i < show->n_versions; i++)
		names_free(&show->versions[i].inlined);
	for (unsigned int i = 0; i < show->n_lines; i++)
		if (!i || show->lines[i].file != show->lines[i - 1].file)
			free((char *)show->lines[i].file);
	free(show->versions);
	free(show->insns);
	free(show->lines);
}

const struct show_version *show_active(const struct show *show)
{
	for (unsigned int i = 0; i < show->n_versions; i++)
		if (show->versions[i].row.flags & WIRE_VERSION_ACTIVE)
			return &show->versions[i];
	return NULL;
}

static struct names attributes_of(const struct show *show)
{
	struct names names = { 0 };

	for (unsigned int i = 0; i < N(attribute_names); i++)
		if (show->description.flags & 1u << i)
			names_add(i, attribute_names[i], &names);
	return names;
}

static const char *answer_tier(const struct tier_answer *answer)
{
	return answer->stage == TIER_STAGE_COLD ? "none" : tier_level_name(answer->tier);
}

static uint64_t native_bytes(const struct show *show)
{
	const struct show_version *active = show_active(show);

	return active ? active->row.size : 0;
}

/* -- For people --- */
static void names_join(const struct names *names, char *to, size_t n_to)
{
	size_t n = 0;

	*to = '\0';
	for (unsigned int i = 0; i < names->n && n < n_to; i++)
		n += snprintf(to + n, n_to - n, "%s%s", i ? ", " : "", names->all[i]);
}

static void plain_names(const char *heading, const struct names *names)
{
	if (!names->n)
		return;
	printf("%-12s", heading);
	for (unsigned int i = 0; i < names->n; i++)
		printf("%s %s", i ? "," : "", names->all[i]);
	putchar('\n');
}

static void plain_versions(const struct show *show)
{
	static const struct column columns[] = {
		{ "version", COLUMN_NUMBER }, { "tier", COLUMN_TEXT }, { "state", COLUMN_TEXT }, { "active", COLUMN_BOOL },
		{ "code", COLUMN_TEXT }, { "size", COLUMN_NUMBER }, { "published", COLUMN_TEXT }, { "inlined", COLUMN_TEXT },
		{ "body", COLUMN_NUMBER },
	};
	struct table *table;

	if (!show->n_versions)
		return;
	table = table_new("versions", columns, N(columns), false, false);
	putchar('\n');
	for (unsigned int i = 0; i < show->n_versions; i++) {
		const struct wire_version_row *row = &show->versions[i].row;
		char text[1024];

		table_row(table);
		table_number(table, row->version);
		table_text(table, tier_level_name(row->tier));
		table_text(table, tier_version_state_name(row->state));
		table_bool(table, row->flags & WIRE_VERSION_ACTIVE);
		snprintf(text, sizeof(text), "0x%" PRIx64, row->code);
		table_text(table, row->code ? text : NULL);
		table_number(table, row->size);
		format_time_ms(text, sizeof(text), row->published_ns);
		table_text(table, row->published_ns ? text : NULL);
		names_join(&show->versions[i].inlined, text, sizeof(text));
		table_text(table, *text ? text : NULL);
		table_number(table, row->body);
	}
	table_end(table);
}

static void plain_answer(const struct tier_answer *answer)
{
	printf("%-12s %s: ", "status", tier_status_name(answer->status));
	if (answer->status == TIER_STATUS_FINAL)
		printf("%s\n", tier_reason_name(answer->reason));
	else if (answer->is_frozen)
		printf("%s, frozen\n", tier_stage_name(answer->stage));
	else
		printf("%s, %u call%s to the next tier\n", tier_stage_name(answer->stage), answer->remaining,
		       answer->remaining == 1 ? "" : "s");
	printf("%-12s %s, generation %" PRIu64 "\n", "tier", answer_tier(answer), answer->generation);
}

static void plain(const struct show *show)
{
	const struct wire_description *d = &show->description;
	struct names attributes = attributes_of(show);

	printf("%s\n\n", *d->signature ? d->signature : tier_method_name(show->target.method));
	printf("%-12s %s (%" PRIu64 "), method %u, %s+0x%x\n", "module", tier_module_name(show->target.module), d->module, d->method,
	       d->section, d->section_offset);
	printf("%-12s 0x%" PRIx64 "\n", "address", (uint64_t)(uintptr_t)tier_entry(show->target.method));
	printf("%-12s %u instruction slots, %" PRIu64 " bytes of machine code\n", "size", d->n_insns, native_bytes(show));
	if (d->body)
		printf("%-12s replaced (#%u)\n", "body", d->body);
	plain_answer(&show->answer);
	plain_names("attributes", &attributes);
	for (unsigned int i = 0; i < N(relations); i++)
		plain_names(relations[i].heading, &show->related[relations[i].relation]);
	if (*d->note)
		printf("%-12s %s\n", "note", d->note);
	plain_versions(show);
	names_free(&attributes);
}

/* -- JSON --- */
static void json_text(const char *key, const char *text)
{
	printf("\t%s ", key);
	if (*text)
		print_json_string(text);
	printf(*text ? ",\n" : "null,\n");
}

static void json_names(const struct names *names)
{
	putchar('[');
	for (unsigned int i = 0; i < names->n; i++) {
		printf("%s", i ? ", " : "");
		print_json_string(names->all[i]);
	}
	putchar(']');
}

static void json_version(const struct show_version *version)
{
	const struct wire_version_row *row = &version->row;
	char time[64];

	format_time_ms(time, sizeof(time), row->published_ns);
	printf("\t\t{\"version\": %" PRIu64 ", \"tier\": \"%s\", \"state\": \"%s\", \"active\": %s, \"code\": %" PRIu64
	       ", \"size\": %" PRIu64 ", \"stub\": %" PRIu64 ", \"threshold\": %u, \"body\": %u, \"published\": ", row->version,
	       tier_level_name(row->tier), tier_version_state_name(row->state),
	       row->flags & WIRE_VERSION_ACTIVE ? "true" : "false", row->code, row->size, row->stub, row->threshold, row->body);
	if (row->published_ns)
		printf("\"%s\"", time);
	else
		printf("null");
	printf(", \"inlined\": ");
	json_names(&version->inlined);
	putchar('}');
}

static void json_answer(const struct tier_answer *answer)
{
	json_text("\"status\":", tier_status_name(answer->status));
	json_text("\"stage\":", tier_stage_name(answer->stage));
	json_text("\"tier\":", answer_tier(answer));
	json_text("\"reason\":", tier_reason_name(answer->reason));
	printf("\t\"remaining\": %u,\n\t\"generation\": %" PRIu64 ",\n", answer->remaining, answer->generation);
	printf("\t\"frozen\": %s,\n", answer->is_frozen ? "true" : "false");
}

static void json(const struct show *show)
{
	const struct wire_description *d = &show->description;
	struct names attributes = attributes_of(show);

	printf("{\n");
	json_text("\"method\":", show->ctl->args[0]);
	json_text("\"signature\":", d->signature);
	json_text("\"module\":", tier_module_name(show->target.module));
	printf("\t\"module_id\": %" PRIu64 ",\n\t\"method_index\": %u,\n", d->module, d->method);
	json_text("\"section\":", d->section);
	printf("\t\"section_offset\": %u,\n\t\"address\": %" PRIu64 ",\n", d->section_offset,
	       (uint64_t)(uintptr_t)tier_entry(show->target.method));
	printf("\t\"instruction_slots\": %u,\n\t\"native_bytes\": %" PRIu64 ",\n\t\"body\": %u,\n", d->n_insns, native_bytes(show),
	       d->body);
	json_answer(&show->answer);
	printf("\t\"attributes\": ");
	json_names(&attributes);
	for (unsigned int i = 0; i < N(relations); i++) {
		printf(",\n\t%s ", relations[i].key);
		json_names(&show->related[relations[i].relation]);
	}
	printf(",\n");
	json_text("\"note\":", d->note);
	printf("\t\"versions\": [");
	for (unsigned int i = 0; i < show->n_versions; i++) {
		printf(i ? ",\n" : "\n");
		json_version(&show->versions[i]);
	}
	printf("\n\t]");
	names_free(&attributes);
}

static int show_print(const struct show *show)
{
	const struct ctl *ctl = show->ctl;

	if (ctl->json)
		json(show);
	else
		plain(show);
	if (ctl->bytecode) {
		printf("%s", ctl->json ? ",\n" : "");
		show_bytecode(show);
	}
	if (ctl->native) {
		printf("%s", ctl->json ? ",\n" : "");
		if (!show_native(show))
			return CTL_FAILED;
	}
	printf("%s", ctl->json ? "\n}\n" : "");
	return CTL_DONE;
}

int cmd_show(struct ctl *ctl)
{
	struct show show = { .ctl = ctl };
	int r;

	if (ctl->native && !native_is_there())
		return fail("--native: this tierctl was built without a disassembler; install libcapstone-dev and build it again");
	if (!target_open(ctl, ctl->args[0], &show.target))
		return CTL_FAILED;
	r = gather(&show) ? fail_tier(ctl->args[0]) : show_print(&show);
	show_deinit(&show);
	tier_close(show.target.module);
	return r;
}
