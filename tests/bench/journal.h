/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the journal takes on the disk, and what it costs a follower, on daemons of its own */

void journal_bytes(void);
