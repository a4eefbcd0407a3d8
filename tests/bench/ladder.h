/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* ns per call of every workload at every tier, beside the same source built natively with and without a profile; and what
 * on-stack replacement does for a method that is called once. Both print, and write build/bench/ladder.json and osr.json. */

void ladder_speed(void);
void ladder_osr(void);
