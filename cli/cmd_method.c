/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "answer.h"
#include "ctl.h"

/* Questions about one method, and plain calls */

static void print_answer(const struct ctl *ctl, const struct tier_answer *answer)
{
	static const struct column columns[] = { { "method", COLUMN_TEXT }, ANSWER_COLUMNS };
	struct table *table = table_new("methods", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);

	table_row(table);
	table_text(table, ctl->args[0]);
	answer_cells(table, answer);
	table_end(table);
}

/* All methods of a module: how one learns their names */
static int status_of_module(struct ctl *ctl)
{
	static const struct column columns[] = { { "method", COLUMN_TEXT }, ANSWER_COLUMNS };
	struct tier_module *module;
	struct table *table;
	int r = 0;

	if (!target_open_module(ctl, ctl->args[0], false, &module))
		return CTL_FAILED;
	table = table_new("methods", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	for (uint32_t i = 0; i < tier_module_n_methods(module); i++) {
		struct tier_method *method;
		struct tier_answer answer;
		char *name;

		r = tier_method_at(module, i, &method);
		if (!r)
			r = tier_status_ask(method, &answer);
		if (r)
			break;
		if (asprintf(&name, "%s:%s", ctl->args[0], tier_method_name(method)) < 0)
			return fail("out of memory");
		table_row(table);
		table_text(table, name);
		answer_cells(table, &answer);
		free(name);
	}
	table_end(table);
	return r ? fail_tier(ctl->args[0]) : CTL_DONE;
}

int cmd_status(struct ctl *ctl)
{
	struct tier_answer answer;
	struct target target;

	if (!strchr(ctl->args[0], ':'))
		return status_of_module(ctl);
	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	if (tier_status_ask(target.method, &answer))
		return fail_tier(ctl->args[0]);
	print_answer(ctl, &answer);
	return CTL_DONE;
}

int cmd_remaining(struct ctl *ctl)
{
	struct tier_answer answer;
	struct target target;

	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	if (tier_status_ask(target.method, &answer))
		return fail_tier(ctl->args[0]);
	if (ctl->json)
		printf("{\"remaining\":%u}\n", answer.remaining);
	else
		printf("%u\n", answer.remaining);
	return CTL_DONE;
}

int cmd_wait(struct ctl *ctl)
{
	struct tier_answer answer;
	struct target target;
	int r;

	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	r = tier_wait(target.method, ctl->timeout_ns, NULL, &answer);
	if (r && r != -ETIMEDOUT)
		return fail_tier(ctl->args[0]);
	if (r)
		answer = tier_status(target.method);
	print_answer(ctl, &answer);
	return r ? CTL_UNMET : CTL_DONE;
}

int cmd_call(struct ctl *ctl)
{
	struct call_args args;
	struct target target;
	uint64_t result = 0;

	if (!ctl->count)
		return fail("--count: at least one call");
	if (!call_args_parse(&args, ctl->args + 1, ctl->n_args - 1) || !target_open_callable(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	for (uint64_t i = 0; i < ctl->count; i++)
		result = call_method(&target, &args);
	if (ctl->json)
		printf("{\"result\":%" PRIu64 ",\"calls\":%" PRIu64 "}\n", result, ctl->count);
	else
		printf("%" PRIu64 " (0x%" PRIx64 ")\n", result, result);
	call_args_free(&args);
	return CTL_DONE;
}
