/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "ctl.h"

/* Replacing a method's body. Status 1: it is replaced, but a process with slots of its own has not answered in time, so not
 * every call may run it; whatever was refused is a failure. */

static int rejit_status(const struct ctl *ctl, int r)
{
	if (!r)
		return CTL_DONE;
	fail_tier(ctl->args[0]);
	return r == -ETIMEDOUT ? CTL_UNMET : CTL_FAILED;
}

/* FILE[:SYMBOL]; a file whose name has a colon is that file. Cuts @text; NULL: no symbol. */
static const char *rejit_symbol(char *text)
{
	char *colon = strrchr(text, ':');

	if (!colon || access(text, F_OK) == 0)
		return NULL;
	*colon = '\0';
	return colon + 1;
}

int cmd_rejit(struct ctl *ctl)
{
	const char *symbol = rejit_symbol(ctl->args[1]);
	struct target target;
	int r;

	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	r = tier_rejit(target.method, ctl->args[1], symbol, ctl->force ? TIER_REJIT_FORCE : 0);
	if (r && r != -ETIMEDOUT)	/* mostly it is the file's fault */
		return fail_tier(ctl->args[1]);
	return rejit_status(ctl, r);
}

int cmd_revert(struct ctl *ctl)
{
	struct target target;

	if (!target_open(ctl, ctl->args[0], &target))
		return CTL_FAILED;
	return rejit_status(ctl, tier_revert(target.method));
}
