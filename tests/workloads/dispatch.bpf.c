/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* Shapes with virtual functions: structs of function pointers in .rodata, and a callback whose address the code itself
 * takes. The first kind of call goes through a slot that tierd may patch, the second calls a value. */

struct shape_class {
	u64 (*area)(const struct shape *shape);
	u64 (*perimeter)(const struct shape *shape);
};

/* pi in 16.16 fixed point */
#define PI 205887ull

method u64 rectangle_area(const struct shape *s) { return (u64)s->a * s->b; }
method u64 rectangle_perimeter(const struct shape *s) { return 2 * ((u64)s->a + s->b); }
method u64 triangle_area(const struct shape *s) { return (u64)s->a * s->b / 2; }
method u64 circle_area(const struct shape *s) { return PI * s->a * s->a >> 16; }
method u64 circle_perimeter(const struct shape *s) { return 2 * PI * s->a >> 16; }
method u64 ring_area(const struct shape *s) { return PI * ((u64)s->a * s->a - (u64)s->b * s->b) >> 16; }
method u64 ring_perimeter(const struct shape *s) { return 2 * PI * ((u64)s->a + s->b) >> 16; }

/* of an isosceles one: the base and two sides, by Newton's square root */
method u64 triangle_perimeter(const struct shape *s)
{
	u64 square = (u64)s->a * s->a / 4 + (u64)s->b * s->b, root = (u64)s->a + s->b, next;

	while (root && (next = (root + square / root) / 2) < root)
		root = next;
	return s->a + 2 * root;
}

static const struct shape_class shape_classes[_SHAPE_N] = {
	[SHAPE_RECTANGLE] = { rectangle_area, rectangle_perimeter },
	[SHAPE_TRIANGLE] = { triangle_area, triangle_perimeter },
	[SHAPE_CIRCLE] = { circle_area, circle_perimeter },
	[SHAPE_RING] = { ring_area, ring_perimeter },
};

method u64 fold_sum(u64 total, u64 value) { return total + value; }
method u64 fold_mix(u64 total, u64 value) { return rotl64(total, 7) ^ value; }

method u64 shapes_visit(const struct shape *shapes, u64 n, u64 (*fold)(u64 total, u64 value))
{
	u64 total = 0;

	for (u64 i = 0; i < n; i++) {
		const struct shape_class *class = &shape_classes[shapes[i].kind % _SHAPE_N];

		total = fold(total, class->area(&shapes[i]));
		total = fold(total, class->perimeter(&shapes[i]));
	}
	return total;
}

/* The sum of all areas and perimeters, or, when @is_mixed, a value that depends on their order */
export u64 ENTRY(dispatch)(const struct shape *shapes, u64 n, u64 is_mixed)
{
	return shapes_visit(shapes, n, is_mixed ? fold_mix : fold_sum);
}
