/* SPDX-License-Identifier: Apache-2.0 */
#include "journal/keeper.h"

void keeper_run(struct keeper *keeper)
{
	switch (keeper->job) {
	case KEEPER_SYNC:
		keeper->r = segment_sync(keeper->folder->fd, &keeper->segment);
		break;
	case KEEPER_DEFLATE:
		keeper->r = segment_deflate(keeper->folder->fd, &keeper->segment);
		break;
	case KEEPER_REMOVE:
		keeper->r = segment_remove(keeper->folder->fd, &keeper->segment);
		break;
	case _KEEPER_N:
		break;
	}
}
