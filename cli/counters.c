/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <tier/types.h>
#include "counters.h"

/* A row is a figure, or a group of them with a name for each: the JSON has an object there, the plain text a line each. */
struct row {
	const char *name;
	size_t field;			/* of struct wire_counters */
	unsigned int n;			/* figures; 0: one, without a name of its own */
	const char *(*name_of)(unsigned int number);
	const char *help;
};
#define ROW(name, field, help) { name, offsetof(struct wire_counters, field), 0, NULL, help }
#define GROUP(name, field, n, name_of, help) { name, offsetof(struct wire_counters, field), n, name_of, help }

static const struct row rows[] = {
	ROW("backpatch_calls", n_backpatch_calls, "invocations of the function that walks slots, also when it returns early"),
	ROW("slots_examined", n_slots_examined, "recorded slots that such a walk looked at"),
	ROW("slot_writes", n_slot_writes, "writes of vtable slots and call sites that changed them; registration is not one"),
	ROW("slots_recorded", n_slots_recorded, "vtable slots discovered, and call sites registered"),
	ROW("funcptr_writes", n_funcptr_writes, "writes of funcptr precodes' targets that changed them"),
	ROW("entry_point_transitions", n_entry_transitions, "changes of the entry point cells that direct calls use"),
	ROW("oscillations", n_oscillations, "entry point cells and slots that got a value which they had held before"),
	ROW("precode_stores", n_precode_stores, "changes of precodes' targets"),
	ROW("backpatch_ns", backpatch_ns, "nanoseconds spent in walks of slots"),
	ROW("uncounted_entries", n_uncounted_entries, "eager: entry point cells set to code past a counting stub"),
	ROW("stale_completions", n_stale_completions, "eager: countings completed that left slots at the prestub"),
	ROW("unsafe_inactive", n_unsafe_inactive, "eager: stubs said to be inactive while precodes still led to them"),
	ROW("rejits", n_rejits, "bodies replaced"),
	ROW("reverts", n_reverts, "own bodies that came back"),
	ROW("withdrawn", n_withdrawn, "versions withdrawn since a method that they had inlined was replaced"),
	ROW("client_slot_writes", n_client_slot_writes, "writes of slots in clients' own memory, as the clients say"),
	GROUP("paths", n_paths, _TIER_PATH_N, tier_path_name, "entry points set, by the path that did it"),
	GROUP("prestub_visits", n_visits, _TIER_VISIT_N, tier_visit_name, "calls that came to the prestub, by reason, as the clients say"),
	GROUP("prestub_ns", visit_ns, _TIER_VISIT_N, tier_visit_name, "nanoseconds that they spent there, waiting included"),
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static const uint64_t *row_values(const struct row *row, const struct wire_counters *counters)
{
	return (const uint64_t *)((const char *)counters + row->field);
}

static void row_print_json(const struct row *row, const uint64_t *values)
{
	printf(",\n\t\t\"%s\": ", row->name);
	if (!row->n)
		printf("%" PRIu64, *values);
	for (unsigned int i = 0; i < row->n; i++)
		printf("%s\"%s\": %" PRIu64 "%s", i ? ", " : "{", row->name_of(i), values[i], i + 1 < row->n ? "" : "}");
}

static void row_print(const struct row *row, const uint64_t *values)
{
	char name[64];

	if (!row->n)
		printf("  %-38s %" PRIu64 "\n", row->name, *values);
	for (unsigned int i = 0; i < row->n; i++) {
		snprintf(name, sizeof(name), "%s %s", row->name, row->name_of(i));
		printf("  %-38s %" PRIu64 "\n", name, values[i]);
	}
}

void counters_print(const struct wire_counters *counters, bool json)
{
	const char *policy = tier_backpatch_name(counters->policy < _TIER_BACKPATCH_N ? counters->policy : _TIER_BACKPATCH_N);

	if (json)
		printf("\t\"entry_points\": {\n\t\t\"policy\": \"%s\"", policy);
	else
		printf("\nentry points\n  %-38s %s\n", "policy", policy);
	for (size_t i = 0; i < N_ROWS; i++)
		(json ? row_print_json : row_print)(&rows[i], row_values(&rows[i], counters));
	if (json)
		printf("\n\t},\n");
}

#define VISIT_TEXT(name, number, word, text) [number] = text,
void counters_help(void)
{
	static const char *const visits[_TIER_VISIT_N] = { TIER_VISIT_LIST(VISIT_TEXT) };

	printf("\nThe figures of entry points\n  %-24s %s\n", "policy", "how they are kept: tierd's --backpatch");
	for (size_t i = 0; i < N_ROWS; i++)
		printf("  %-24s %s\n", rows[i].name, rows[i].help);
	for (unsigned int i = 0; i < _TIER_VISIT_N; i++)
		printf("    %-22s %s\n", tier_visit_name(i), visits[i]);
}
