/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which compiler this program is: its version, LLVM's, and the processor as LLVM sees it */

#include "worker/compiler.h"

/* Once per process, in the zygote, before it confines anybody: reads its own program. 0 or -errno. */
int identity_init(void);
/* All zeroes before identity_init() */
const struct compiler *identity(void);
