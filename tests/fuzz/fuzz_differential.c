/* SPDX-License-Identifier: Apache-2.0 */
/* The differential test at length: the input is nothing but a seed, so it is the sanitizers and the time that count.
 *
 * links: daemon/worker/child/lower.c daemon/worker/child/arith.c daemon/worker/child/plan.c
 * links: daemon/worker/child/body.c daemon/worker/child/entry.c daemon/worker/child/access.c daemon/worker/child/call.c
 * links: daemon/worker/child/provenance.c daemon/worker/child/codegen.c daemon/worker/child/object.c daemon/worker/child/slots.c
 * links: tests/differential/generate.c tests/differential/check.c tests/differential/osr.c tests/tiers/tiers.c tests/reference/reference.c
 * links: daemon/jit/alu.c daemon/jit/baseline.c daemon/jit/memory.c daemon/jit/stubs.c daemon/jit/x86.c daemon/worker/job.c
 * links: daemon/jit/instrument.c daemon/jit/patchpoint.c
 * links: daemon/worker/child/hints.c daemon/worker/child/weights.c daemon/worker/child/counters.c daemon/worker/child/guard.c
 * links: daemon/worker/child/outside.c daemon/worker/child/fold.c
 * links: -lelf llvm */
#include <stdio.h>
#include <stdlib.h>
#include "differential/check.h"
#include "differential/generate.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return check_setup();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct refusal why;
	enum check_kind kind;

	random_seed = n;
	for (size_t i = 0; i < n; i++)
		random_seed = (random_seed ^ data[i]) * 0x100000001b3ull;
	kind = random_below(_CHECK_KIND_N);
	if (!check_module(kind == CHECK_BATCH || kind == CHECK_RUBBISH ? 1 + random_below(8) : 1, kind, &why)) {
		fprintf(stderr, "%s\n", why.text);
		abort();
	}
	return 0;
}
