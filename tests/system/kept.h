/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The harness's own: what it does for kept daemons */

#include "system/harness.h"

/* A daemon does not die with who keeps it, so nobody but this test can end all when the test itself dies: a process
 * that waits for that, and knows them by their session, which is the keeper's. */
void kept_guard(struct daemon *daemon);
void kept_end(struct daemon *daemon); /* whoever is left is killed; the guard is gone */
