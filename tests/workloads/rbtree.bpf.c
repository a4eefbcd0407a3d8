/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* A red-black tree whose nodes lie in a pool that the caller provides: insertion, removal, and a check of all that makes
 * a tree red-black. Pointers in memory lead to memory that leads to more of it.
 *
 * "side" is the index of a child; a step that textbooks give twice, mirrored, is written once. */

struct node {
	struct node *children[2], *parent;
	u64 key, red;
};

_Static_assert(sizeof(struct node) == RBTREE_NODE, "whoever provides the pool counts with this");

struct tree {
	struct node *root;
	struct node *pool;
	u64 n_used, n_pool;
};

/* An empty tree is black, like all that hangs below a leaf. */
static inline u64 is_red(const struct node *node) { return node && node->red; }
static inline u64 side_of(const struct node *node) { return node->parent->children[1] == node; }

/* Puts @to (which may be NULL) where @from hangs. */
method void replace(struct tree *tree, const struct node *from, struct node *to)
{
	if (from->parent)
		from->parent->children[side_of(from)] = to;
	else
		tree->root = to;
	if (to)
		to->parent = from->parent;
}

/* @node goes down on @side, its child on the other side takes its place. */
method void rotate(struct tree *tree, struct node *node, u64 side)
{
	struct node *child = node->children[!side];

	replace(tree, node, child);
	node->children[!side] = child->children[side];
	if (node->children[!side])
		node->children[!side]->parent = node;
	child->children[side] = node;
	node->parent = child;
}

/* A red @node may hang below a red one. */
method void mend_insertion(struct tree *tree, struct node *node)
{
	while (is_red(node->parent)) {
		struct node *parent = node->parent, *above = parent->parent;
		u64 side = side_of(parent);
		struct node *uncle = above->children[!side];

		if (is_red(uncle)) {
			parent->red = uncle->red = 0;
			above->red = 1;
			node = above;
			continue;
		}
		if (side_of(node) != side) {
			rotate(tree, parent, side);
			node = parent;
			parent = node->parent;
		}
		parent->red = 0;
		above->red = 1;
		rotate(tree, above, !side);
	}
	tree->root->red = 0;
}

/* Returns whether the key is new and the pool had room. */
method u64 insert(struct tree *tree, u64 key)
{
	struct node *parent = 0, *node = tree->root;
	u64 side = 0;

	for (; node; node = node->children[side]) {
		if (node->key == key)
			return 0;
		parent = node;
		side = node->key < key;
	}
	if (tree->n_used == tree->n_pool)
		return 0;
	node = &tree->pool[tree->n_used++];
	node->children[0] = node->children[1] = 0;
	node->parent = parent;
	node->key = key;
	node->red = 1;
	if (parent)
		parent->children[side] = node;
	else
		tree->root = node;
	mend_insertion(tree, node);
	return 1;
}

/* One black node is missing on the way to @node, which is child @side of @parent and may be NULL. */
method void mend_removal(struct tree *tree, struct node *node, struct node *parent, u64 side)
{
	while (parent && !is_red(node)) {
		struct node *other = parent->children[!side];

		if (other->red) {
			other->red = 0;
			parent->red = 1;
			rotate(tree, parent, side);
			other = parent->children[!side];
		}
		if (!is_red(other->children[0]) && !is_red(other->children[1])) {
			other->red = 1;
			node = parent;
			parent = node->parent;
			side = parent ? side_of(node) : 0;
			continue;
		}
		if (!is_red(other->children[!side])) {
			other->children[side]->red = 0;
			other->red = 1;
			rotate(tree, other, !side);
			other = parent->children[!side];
		}
		other->red = parent->red;
		parent->red = 0;
		other->children[!side]->red = 0;
		rotate(tree, parent, side);
		return;
	}
	if (node)
		node->red = 0;
}

method struct node *find(const struct tree *tree, u64 key)
{
	struct node *node = tree->root;

	while (node && node->key != key)
		node = node->children[node->key < key];
	return node;
}

/* Removes the node with that key, or, when two children hang from it, the next one, whose key it takes first. Returns
 * whether there was one. */
method u64 erase(struct tree *tree, u64 key)
{
	struct node *node = find(tree, key), *next;
	struct node *child;
	u64 side;

	if (!node)
		return 0;
	if (node->children[0] && node->children[1]) {
		for (next = node->children[1]; next->children[0]; next = next->children[0])
			;
		node->key = next->key;
		node = next;
	}
	child = node->children[!node->children[0]];
	side = node->parent ? side_of(node) : 0;
	replace(tree, node, child);
	if (!node->red)
		mend_removal(tree, child, node->parent, side);
	return 1;
}

/* How many black nodes lie on every way down from @node, itself included, plus 1; 0 if that is not the same number, if red
 * hangs below red, if a pointer up is wrong, or if a key is not between @low and @high. */
method u64 black_height(const struct node *node, const struct node *parent, u64 low, u64 high)
{
	u64 left, right;

	if (!node)
		return 1;
	if (node->parent != parent || node->key < low || node->key > high || (node->red && is_red(parent)))
		return 0;
	left = black_height(node->children[0], node, low, node->key - 1);
	right = black_height(node->children[1], node, node->key + 1, high);
	return left && left == right ? left + !node->red : 0;
}

/* Writes the keys in their order; returns how many. */
method u64 list_keys(const struct node *node, u64 *keys)
{
	u64 n = 0;

	while (node && node->children[0])
		node = node->children[0];
	while (node) {
		const struct node *from = node;

		keys[n++] = node->key;
		if (node->children[1]) {
			for (node = node->children[1]; node->children[0]; node = node->children[0])
				;
			continue;
		}
		for (node = node->parent; node && node->children[1] == from; node = node->parent)
			from = node;
	}
	return n;
}

/* Inserts the @n @keys (above 0), then removes the multiples of @divisor. @sorted: room for @n keys of
 * 8 bytes, where it writes those that are left, sorted; then the pool, RBTREE_NODE bytes for each. Returns how many they are, times 256,
 * plus the number of black nodes on each way down; RBTREE_FAILED if the tree was out of order before or after. */
export u64 ENTRY(rbtree)(const u32 *keys, u64 n, u64 *sorted, u64 divisor)
{
	struct tree tree = { 0, (struct node *)(sorted + n), 0, n };
	u64 height;

	for (u64 i = 0; i < n; i++)
		insert(&tree, keys[i]);
	height = black_height(tree.root, 0, 1, ~0ull);
	for (u64 i = 0; i < n && height; i++)
		if (keys[i] % divisor == 0)
			erase(&tree, keys[i]);
	height = height ? black_height(tree.root, 0, 1, ~0ull) : 0;
	return height ? list_keys(tree.root, sorted) * 256 + height - 1 : RBTREE_FAILED;
}
