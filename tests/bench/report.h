/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The figures of a run, for programs: build/bench/NAME.json. Whoever cannot write them ends the benchmark with 2. */

#include <stdio.h>

FILE *report_open(const char *name);
void report_close(FILE *file, const char *name);	/* says where it is */
void report_number(FILE *file, double value);		/* null for NaN */
