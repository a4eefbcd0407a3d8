/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Intrusive doubly linked list. A node that is not linked points to itself; list_remove() leaves it so. */

#include <stdbool.h>
#include "util/base.h"

struct list {
	struct list *next, *previous;
};
#define LIST_INIT(name) { &(name), &(name) }

static inline void list_init(struct list *l) { l->next = l->previous = l; }
static inline bool list_is_empty(const struct list *l) { return l->next == l; }
static inline bool list_is_linked(const struct list *l) { return l->next != l; }
static inline void list_insert_before(struct list *where, struct list *node)
{
	node->next = where;
	node->previous = where->previous;
	where->previous->next = node;
	where->previous = node;
}
static inline void list_append(struct list *head, struct list *node) { list_insert_before(head, node); }
static inline void list_prepend(struct list *head, struct list *node) { list_insert_before(head->next, node); }
static inline void list_remove(struct list *node)
{
	node->previous->next = node->next;
	node->next->previous = node->previous;
	list_init(node);
}
static inline struct list *list_first(struct list *head) { return list_is_empty(head) ? NULL : head->next; }

#define list_entry(node, type, member) container_of(node, type, member)
#define list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
/* the current node may be removed inside */
#define list_for_each_safe(pos, after, head)                                                                           \
	for ((pos) = (head)->next, (after) = (pos)->next; (pos) != (head); (pos) = (after), (after) = (pos)->next)

/* -- Order --- */
typedef bool (*list_before_fn)(const struct list *a, const struct list *b); /* whether @a belongs before @b */
/* At most n log2 n comparisons, no memory; equal nodes keep their order. */
void list_sort(struct list *head, list_before_fn is_before);
