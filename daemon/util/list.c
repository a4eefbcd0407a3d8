/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include "util/list.h"

#define PARTS 64 /* of 2^i nodes each: more than memory holds */

/* Of two sorted chains that end in NULL one. @first's nodes come before equal ones of @second. */
static struct list *chain_merge(struct list *first, struct list *second, list_before_fn is_before)
{
	struct list *merged = NULL, **end = &merged;

	while (first && second) {
		struct list **from = is_before(second, first) ? &second : &first;

		*end = *from;
		end = &(*end)->next;
		*from = *end;
	}
	*end = first ? first : second;
	return merged;
}

void list_sort(struct list *head, list_before_fn is_before)
{
	struct list *parts[PARTS] = {NULL}; /* [i]: a sorted chain of 2^i nodes, or none */
	struct list *chain, *next;
	int i;

	if (list_is_empty(head))
		return;
	head->previous->next = NULL;
	for (struct list *node = head->next; node; node = next) {
		next = node->next;
		node->next = NULL;
		for (chain = node, i = 0; parts[i]; parts[i++] = NULL)
			chain = chain_merge(parts[i], chain, is_before);
		parts[i] = chain;
	}
	for (chain = NULL, i = 0; i < PARTS; i++)
		chain = chain_merge(parts[i], chain, is_before);
	list_init(head);
	for (; chain; chain = next) {
		next = chain->next;
		list_append(head, chain);
	}
}
