/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's handle on the zygote: started, asked for workers, watched, started again */

#include <stdbool.h>
#include "util/dispatch.h"
#include "worker/channel.h"
#include "worker/grave.h"

struct nursery;

/* Called from the loop; none may deinit the nursery. */
struct nursery_events {
	void (*ready)(struct nursery *nursery);
	/* The answer to nursery_ask(@id): takes @fd and @pidfd; or error (positive errno), then both are -1. */
	void (*born)(struct nursery *nursery, const struct zygote_reply *reply, int fd, int pidfd);
	/* The zygote is gone and all open questions with it. @hopeless: it failed several times in a row. A new one is on its way. */
	void (*lost)(struct nursery *nursery, bool hopeless);
};

struct nursery {
	struct dispatch *dispatch;
	struct graveyard *graveyard;
	const struct nursery_events *events;
	const char *path;		/* of tierd-worker */
	struct dispatch_file file;	/* the channel */
	struct dispatch_timer timer;	/* alive: patience for its next answer; gone: the pause before the next start */
	int fd, pidfd;
	pid_t pid;			/* 0: none */
	bool ready;
	struct compiler compiler;	/* the newest zygote's; zeroes before the first is ready */
	uint32_t n_asked;		/* answers outstanding */
	uint32_t n_failed;		/* in a row, without having lived for a while */
	uint64_t started_ns;
};
#define NURSERY_NULL { .fd = -1, .pidfd = -1 }

/* Starts the first zygote; that it does not start is reported like its death. @path stays the caller's. */
void nursery_init(struct nursery *nursery, struct dispatch *dispatch, struct graveyard *graveyard,
		  const struct nursery_events *events, const char *path);
void nursery_deinit(struct nursery *nursery);

/* Asks for a worker. A zygote that cannot be asked any more is about to be reported lost. */
void nursery_ask(struct nursery *nursery, uint64_t id, uid_t uid, uint64_t memory_limit);
