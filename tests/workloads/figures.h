/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The memory of the workload figures: a pool of objects with virtual functions, made and used by it. Seen by the workload
 * (which has no libc) and by whoever calls it. */

#define FIGURE_KINDS 8
#define FIGURE_SLOTS 16		/* virtual functions of each class */

/* The class comes first, as compilers of object-oriented languages put it. */
#define FIGURE_LAYOUT(class_pointer, number)                                                                           \
	{                                                                                                              \
		class_pointer class;                                                                                   \
		number a, b, c;                                                                                        \
	}
#define FIGURE_SIZE 32
