/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include "bench/inputs.h"

/* What clang's own profile-guided optimization learns from: each workload, built with counters, on its usual input. The counts go
 * where LLVM_PROFILE_FILE says. */

#define N_CALLS 300

int main(void)
{
	for (size_t i = 0; i < n_workloads; i++) {
		struct workload_input *input = workloads[i].make();

		if (!input) {
			fprintf(stderr, "train: no memory for %s\n", workloads[i].name);
			return 1;
		}
		for (unsigned int k = 0; k < N_CALLS; k++)
			input_call(input, workloads[i].native);
		input_free(input);
	}
	return 0;
}
