/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ctl.h"
#include "table.h"

/* Whether a method and all that it has called are settled; a module held still, or watched whether it stands still */

/* -- settled --- */
static const char *unsettled_name(struct tier_module *module, uint32_t index)
{
	struct tier_method *method;

	return tier_method_at(module, index, &method) ? "?" : tier_method_name(method);
}

const char *unsettled_names(struct tier_module *module, const struct tier_settlement *settlement)
{
	static char text[4096];
	size_t n = 0;

	for (uint32_t i = 0; i < settlement->n && n < sizeof(text); i++)
		n += snprintf(text + n, sizeof(text) - n, "%s%s", i ? ", " : "", unsettled_name(module, settlement->unsettled[i]));
	if (n < sizeof(text) && settlement->n < settlement->n_unsettled)
		snprintf(text + n, sizeof(text) - n, ", and others");
	return text;
}

static void settled_json(const struct ctl *ctl, struct tier_module *module, const struct tier_settlement *s)
{
	printf("{\"method\": ");
	print_json_string(ctl->args[0]);
	printf(", \"settled\": %s, \"methods\": %u, \"optimizing\": %u, \"pending\": %u, \"calls\": %u, \"unsettled\": [",
	       s->is_settled ? "true" : "false", s->n_methods, s->n_unsettled, s->n_pending, s->calls);
	for (uint32_t i = 0; i < s->n; i++) {
		printf(i ? ", " : "");
		print_json_string(unsettled_name(module, s->unsettled[i]));
	}
	printf("]}\n");
}

int cmd_settled(struct ctl *ctl)
{
	struct tier_settlement s;
	struct target target;

	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	if (tier_settled(target.method, &s))
		return fail_tier(ctl->args[0]);
	if (ctl->json)
		settled_json(ctl, target.module, &s);
	else if (s.is_settled)
		printf("settled: %u method%s\n", s.n_methods, s.n_methods == 1 ? "" : "s");
	else
		printf("not settled: %u of %u methods, %u of them pending: %s\n", s.n_unsettled, s.n_methods, s.n_pending,
		       unsettled_names(target.module, &s));
	return s.is_settled ? CTL_DONE : CTL_UNMET;
}

/* -- Commands that others say --- */
static sigset_t interrupts(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

/* The command's own status, as a shell has it */
static int command_run(char **command)
{
	sigset_t set = interrupts();
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		return fail("cannot run '%s': %s", command[0], strerror(errno));
	if (!pid) {
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		execvp(command[0], command);
		fail("cannot run '%s': %s", command[0], strerror(errno));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return fail("cannot wait for '%s': %s", command[0], strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* -- freeze --- */
/* Whoever reads this knows that the module is frozen. */
static int freeze_hold(const struct ctl *ctl, const sigset_t *set)
{
	int number;

	if (ctl->json) {
		printf("{\"module\": ");
		print_json_string(ctl->args[0]);
		printf(", \"frozen\": true}\n");
	} else {
		printf("%s is frozen; interrupt to thaw it\n", ctl->args[0]);
	}
	fflush(stdout);
	sigwait(set, &number);
	return CTL_DONE;
}

/* An interrupt from the terminal is the command's; it ends, and then the freeze does. A killed tierctl thaws, too. */
int cmd_freeze(struct ctl *ctl)
{
	struct tier_module *module;
	sigset_t set = interrupts();
	int status;

	if (!target_open_module(ctl, ctl->args[0], true, &module))
		return CTL_FAILED;
	if (tier_freeze(module))		/* may take a while: an interrupt ends it */
		return fail_tier(ctl->args[0]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	ctl->args[ctl->n_args] = NULL;
	status = ctl->n_args > 1 ? command_run(ctl->args + 1) : freeze_hold(ctl, &set);
	if (tier_thaw(module))
		return fail_tier(ctl->args[0]);
	return status;
}

/* -- mark --- */
static void mark_print(const struct ctl *ctl, const struct tier_records_mark *mark)
{
	static const struct column columns[] = {
		{ "module", COLUMN_TEXT }, { "changes", COLUMN_NUMBER }, { "compiling", COLUMN_NUMBER }, { "frozen", COLUMN_BOOL },
	};
	struct table *table = table_new("marks", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);

	table_row(table);
	table_text(table, ctl->args[0]);
	table_number(table, mark->changes);
	table_number(table, mark->n_compiling);
	table_bool(table, mark->is_frozen);
	table_end(table);
}

/* A command that failed failed, whatever changed. */
int cmd_mark(struct ctl *ctl)
{
	struct tier_module *module;
	struct tier_records_mark mark;
	int status;

	if (!target_open_module(ctl, ctl->args[0], ctl->n_args > 1, &module))
		return CTL_FAILED;
	mark = tier_mark(module);
	if (ctl->n_args == 1) {
		mark_print(ctl, &mark);
		return CTL_DONE;
	}
	ctl->args[ctl->n_args] = NULL;
	status = command_run(ctl->args + 1);
	if (!tier_changed_since(module, &mark))
		return status;
	fail("%s: code of it was compiled, published or reset while the command ran", ctl->args[0]);
	return status ? status : CTL_UNMET;
}
