/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Child processes that were told to end are reaped when they have: nobody waits for a kill to take effect */

#include "util/dispatch.h"
#include "util/list.h"

struct graveyard {
	struct dispatch *dispatch;
	struct list graves;
};

void graveyard_init(struct graveyard *graveyard, struct dispatch *dispatch);
/* Kills the child behind @pidfd and reaps it later; takes @pidfd (-1: nothing to do). */
void graveyard_bury(struct graveyard *graveyard, int pidfd);
/* Waits for those that are still ending: they have been killed, so not for long. */
void graveyard_deinit(struct graveyard *graveyard);

/* Reaps the ended child behind @pidfd if it has ended: true, and how in @ret_code (CLD_EXITED, CLD_KILLED...) and
 * @ret_status. A child that somebody else reaped counts as ended, with code 0. */
bool child_has_ended(int pidfd, int *ret_code, int *ret_status);
