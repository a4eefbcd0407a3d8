/* SPDX-License-Identifier: Apache-2.0 */
#include "figures.h"
#include "workload.h"

/* Figures: an abstract class with sixteen virtual functions, eight classes derived from it that override some, a factory,
 * and a loop that calls all sixteen of each object. Nothing is called directly, so every call goes through a vtable slot. */

struct figure;
typedef u64 virtual(const struct figure *f, u64 x);

struct figure_class {
	virtual *area, *perimeter;	/* abstract: each kind has its own */
	virtual *scale, *shift, *weight, *cost, *rank, *left, *right, *mix, *fold, *flip, *grow, *shrink, *bound, *sum;
};
_Static_assert(sizeof(struct figure_class) == FIGURE_SLOTS * sizeof(virtual *), "as many as the header says");

struct figure FIGURE_LAYOUT(const struct figure_class *, u64);
_Static_assert(sizeof(struct figure) == FIGURE_SIZE, "as the header says");

/* What all of them do besides: some work, as methods do */
static inline u64 mixed(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* -- What the base class does --- */
method u64 base_scale(const struct figure *f, u64 x) { return mixed(x * (f->a | 1)); }
method u64 base_shift(const struct figure *f, u64 x) { return mixed(x + f->b); }
method u64 base_weight(const struct figure *f, u64 x) { return mixed(x ^ f->a * f->c); }
method u64 base_cost(const struct figure *f, u64 x) { return mixed(x + (f->a >> 3) + (f->b >> 5)); }
method u64 base_rank(const struct figure *f, u64 x) { return mixed(x > f->c ? x - f->c : f->c - x); }
method u64 base_left(const struct figure *f, u64 x) { return mixed(rotl64(x, 5) + f->a); }
method u64 base_right(const struct figure *f, u64 x) { return mixed(rotl64(x, 59) ^ f->b); }
method u64 base_mix(const struct figure *f, u64 x) { return mixed((x ^ x >> 29) * 0xbf58476d1ce4e5b9ull + f->c); }
method u64 base_fold(const struct figure *f, u64 x) { return mixed(x ^ x >> 32 ^ f->a); }
method u64 base_flip(const struct figure *f, u64 x) { return mixed(~x + f->b); }
method u64 base_grow(const struct figure *f, u64 x) { return mixed(x + f->a + f->b + f->c); }
method u64 base_shrink(const struct figure *f, u64 x) { return mixed(x - (f->a ^ f->b)); }
method u64 base_bound(const struct figure *f, u64 x) { return mixed(x & (f->c | 0xffffffffull)); }
method u64 base_sum(const struct figure *f, u64 x) { return mixed(x + f->c * 3); }

/* -- What each kind does its own way --- */
method u64 square_area(const struct figure *f, u64 x) { return mixed(x + f->a * f->a); }
method u64 square_perimeter(const struct figure *f, u64 x) { return mixed(x + 4 * f->a); }
method u64 square_cost(const struct figure *f, u64 x) { return mixed(x + f->a); }
method u64 oblong_area(const struct figure *f, u64 x) { return mixed(x + f->a * f->b); }
method u64 oblong_perimeter(const struct figure *f, u64 x) { return mixed(x + 2 * (f->a + f->b)); }
method u64 oblong_flip(const struct figure *f, u64 x) { return mixed(x ^ (f->a << 32 | f->b)); }
method u64 circle_area(const struct figure *f, u64 x) { return mixed(x + (205887 * f->a * f->a >> 16)); }
method u64 circle_perimeter(const struct figure *f, u64 x) { return mixed(x + (2 * 205887 * f->a >> 16)); }
method u64 circle_bound(const struct figure *f, u64 x) { return mixed(x | f->a); }
method u64 circle_scale(const struct figure *f, u64 x) { return mixed(x * (2 * f->a + 1)); }
method u64 ring_area(const struct figure *f, u64 x) { return mixed(x + (205887 * (f->a * f->a - f->b * f->b) >> 16)); }
method u64 ring_perimeter(const struct figure *f, u64 x) { return mixed(x + (2 * 205887 * (f->a + f->b) >> 16)); }
method u64 ring_weight(const struct figure *f, u64 x) { return mixed(x + f->a - f->b); }
method u64 wedge_area(const struct figure *f, u64 x) { return mixed(x + f->a * f->b / 2); }
method u64 wedge_perimeter(const struct figure *f, u64 x) { return mixed(x + f->a + f->b + f->c); }
method u64 wedge_rank(const struct figure *f, u64 x) { return mixed(x + (f->a > f->b)); }
method u64 wedge_sum(const struct figure *f, u64 x) { return mixed(x + f->a + f->b); }
method u64 kite_area(const struct figure *f, u64 x) { return mixed(x + (f->a + f->b) * f->c / 2); }
method u64 kite_perimeter(const struct figure *f, u64 x) { return mixed(x + 2 * (f->b + f->c)); }
method u64 kite_left(const struct figure *f, u64 x) { return mixed(rotl64(x, 11) + f->c); }
method u64 kite_right(const struct figure *f, u64 x) { return mixed(rotl64(x, 53) ^ f->c); }
method u64 star_area(const struct figure *f, u64 x) { return mixed(x + 5 * f->a * f->b / 4); }
method u64 star_perimeter(const struct figure *f, u64 x) { return mixed(x + 10 * f->c); }
method u64 star_mix(const struct figure *f, u64 x) { return mixed((x ^ x >> 31) * 0x94d049bb133111ebull + f->a); }
method u64 star_grow(const struct figure *f, u64 x) { return mixed(x + 5 * f->a); }
method u64 cross_area(const struct figure *f, u64 x) { return mixed(x + f->a * f->b * 2 - f->b * f->b); }
method u64 cross_perimeter(const struct figure *f, u64 x) { return mixed(x + 4 * (f->a + f->b)); }
method u64 cross_shrink(const struct figure *f, u64 x) { return mixed(x - 4 * f->b); }
method u64 cross_fold(const struct figure *f, u64 x) { return mixed(x ^ x >> 27 ^ f->c); }

#define DERIVED(kind, ...)                                                                                             \
	{                                                                                                              \
		.area = kind##_area, .perimeter = kind##_perimeter, .scale = base_scale, .shift = base_shift,          \
		.weight = base_weight, .cost = base_cost, .rank = base_rank, .left = base_left, .right = base_right,   \
		.mix = base_mix, .fold = base_fold, .flip = base_flip, .grow = base_grow, .shrink = base_shrink,       \
		.bound = base_bound, .sum = base_sum, __VA_ARGS__                                                      \
	}
#pragma clang diagnostic ignored "-Winitializer-overrides"
static const struct figure_class classes[FIGURE_KINDS] = {
	DERIVED(square, .cost = square_cost),
	DERIVED(oblong, .flip = oblong_flip),
	DERIVED(circle, .bound = circle_bound, .scale = circle_scale),
	DERIVED(ring, .weight = ring_weight),
	DERIVED(wedge, .rank = wedge_rank, .sum = wedge_sum),
	DERIVED(kite, .left = kite_left, .right = kite_right),
	DERIVED(star, .mix = star_mix, .grow = star_grow),
	DERIVED(cross, .shrink = cross_shrink, .fold = cross_fold),
};

/* The factory: @n figures of all kinds in an order that depends on @seed */
export u64 ENTRY(figures_make)(struct figure *pool, u64 n, u64 seed)
{
	for (u64 i = 0; i < n; i++) {
		seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9ull + 0x9e3779b97f4a7c15ull;
		pool[i].class = &classes[i < FIGURE_KINDS ? i : (seed >> 40) % FIGURE_KINDS];
		pool[i].a = (seed >> 20 & 0xfff) + 1;
		pool[i].b = (seed >> 32 & 0xff) + 1;
		pool[i].c = seed >> 44 & 0xffff;
	}
	return n;
}

/* The hot loop: every virtual function of every figure */
export u64 ENTRY(figures_run)(const struct figure *pool, u64 n, u64 x)
{
	for (u64 i = 0; i < n; i++) {
		const struct figure *f = &pool[i];
		const struct figure_class *class = f->class;

		x = class->grow(f, x);
		x = class->shrink(f, x);
		x = class->bound(f, x);
		x = class->sum(f, x);
		x = class->right(f, x);
		x = class->mix(f, x);
		x = class->fold(f, x);
		x = class->flip(f, x);
		x = class->weight(f, x);
		x = class->cost(f, x);
		x = class->rank(f, x);
		x = class->left(f, x);
		x = class->area(f, x);
		x = class->perimeter(f, x);
		x = class->scale(f, x);
		x = class->shift(f, x);
	}
	return x;
}
