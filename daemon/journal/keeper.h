/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The keeper: a thread that looks after segments while others are written and read: syncs, deflates, removes. One job at a time. */

#include "journal/folder.h"
#include "util/task.h"

enum keeper_job { KEEPER_SYNC, KEEPER_DEFLATE, KEEPER_REMOVE, _KEEPER_N };

struct keeper {
	struct task task;
	const struct folder *folder;
	enum keeper_job job;
	struct segment segment;		/* as it is, and after the job as it has become */
	int r;				/* 0 or -errno */
};

void keeper_run(struct keeper *keeper);
