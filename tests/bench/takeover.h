/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How long nobody serves when a kept daemon is killed, with many methods and with none, in one run */

void takeover_time(void);
