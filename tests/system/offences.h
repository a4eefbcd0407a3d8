/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Messages that break the protocol's format (tier-wire(7)): whoever sends one is told why, and thrown out. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <tier/wire.h>
#include <unistd.h>
#include "system/raw.h"

static void send_fds(int fd, unsigned int type, const void *body, unsigned int n_said, unsigned int n_sent)
{
	struct message message = message_make(type, 7, body);
	int fds[253];

	for (unsigned int i = 0; i < n_sent; i++)
		fds[i] = STDERR_FILENO;
	message.header.n_fds = n_said;
	raw_send(fd, &message, message.header.size, fds, n_sent);
}

static void send_sized(int fd, unsigned int type, uint32_t said, size_t sent)
{
	unsigned char *bytes = calloc(1, sent + sizeof(struct message));
	struct message message = message_make(type, 7, NULL);

	memcpy(bytes, &message, message.header.size);
	memcpy(bytes + offsetof(struct wire_header, size), &said, sizeof(said));
	assert_true(raw_send(fd, bytes, sent, NULL, 0));
	free(bytes);
}

static void send_header(int fd, struct wire_header header)
{
	struct message message = { .header = header };

	assert_true(raw_send(fd, &message, header.size, NULL, 0));
}

#define STATS_SIZE (sizeof(struct wire_header) + sizeof(struct wire_empty))
#define HEADER(v, t) ((struct wire_header){ .magic = WIRE_MAGIC, .version = (v), .type = (t), .size = STATS_SIZE })

static void one_byte(int fd) { raw_send(fd, "x", 1, NULL, 0); }
static void half_a_header(int fd) { send_sized(fd, WIRE_STATS, STATS_SIZE, 12); }
static void another_magic(int fd) { send_header(fd, (struct wire_header){ .magic = 0x48545450, .size = STATS_SIZE }); }
static void version_2(int fd) { send_header(fd, HEADER(2, WIRE_STATS)); }
static void type_0(int fd) { send_header(fd, HEADER(1, 0)); }
static void type_65535(int fd) { send_header(fd, HEADER(1, 65535)); }
static void a_reply(int fd) { send_header(fd, HEADER(1, WIRE_DONE)); }
static void shorter_than_it_says(int fd) { send_sized(fd, WIRE_STATS, STATS_SIZE, STATS_SIZE - 1); }
static void longer_than_it_says(int fd) { send_sized(fd, WIRE_STATS, STATS_SIZE, STATS_SIZE + 1); }
static void another_size(int fd) { send_sized(fd, WIRE_STATS, STATS_SIZE + 8, STATS_SIZE + 8); }
static void size_of_4_gib(int fd) { send_sized(fd, WIRE_STATS, UINT32_MAX, STATS_SIZE); }
static void a_huge_datagram(int fd) { send_sized(fd, WIRE_STATS, 100000, 100000); }
static void a_descriptor_too_many(int fd) { send_fds(fd, WIRE_STATS, NULL, 1, 1); }
static void a_hidden_descriptor(int fd) { send_fds(fd, WIRE_STATS, NULL, 0, 1); }
static void many_descriptors(int fd) { send_fds(fd, WIRE_STATS, NULL, 0, 253); }
static void many_descriptors_said(int fd) { send_fds(fd, WIRE_STATS, NULL, 253, 253); }
static void a_load_without_a_descriptor(int fd) { send_fds(fd, WIRE_LOAD, &(struct wire_load){ .name = "x" }, 0, 0); }
static void a_load_that_forgot_its_descriptor(int fd) { send_fds(fd, WIRE_LOAD, &(struct wire_load){ .name = "x" }, 1, 0); }
static void a_load_with_two(int fd) { send_fds(fd, WIRE_LOAD, &(struct wire_load){ .name = "x" }, 1, 2); }
static void a_second_hello(int fd) { raw_request(fd, WIRE_HELLO, 9, &(struct wire_hello){ .program = "twice" }, -1); }
static void an_endless_name(int fd)
{
	struct wire_module_ref ref;

	memset(ref.name, 'a', sizeof(ref.name));
	ref.module = 0;
	raw_request(fd, WIRE_UNLOAD, 9, &ref, -1);
}
static void a_name_with_a_tail(int fd)
{
	raw_request(fd, WIRE_UNLOAD, 9, &(struct wire_module_ref){ .name = "fnv1a\0secret" }, -1);
}
static void an_unknown_scope(int fd) { raw_request(fd, WIRE_PENDING, 9, &(struct wire_pending){ .scope = 77 }, -1); }

static void a_request_before_hello(int fd) { raw_request(fd, WIRE_STATS, 9, NULL, -1); }
static void an_unknown_lane(int fd) { raw_request(fd, WIRE_HELLO, 9, &(struct wire_hello){ .lane = 99 }, -1); }
static void unknown_flags(int fd) { raw_request(fd, WIRE_HELLO, 9, &(struct wire_hello){ .flags = 1 }, -1); }

struct offence {
	const char *what;
	void (*commit)(int fd);
	bool before_hello;
};
#define OFFENCE(fn) { #fn, fn, false }
#define EARLY_OFFENCE(fn) { #fn, fn, true }
static const struct offence offences[] = {
	OFFENCE(one_byte), OFFENCE(half_a_header), OFFENCE(another_magic), OFFENCE(version_2), OFFENCE(type_0),
	OFFENCE(type_65535), OFFENCE(a_reply), OFFENCE(shorter_than_it_says), OFFENCE(longer_than_it_says),
	OFFENCE(another_size), OFFENCE(size_of_4_gib), OFFENCE(a_huge_datagram), OFFENCE(a_descriptor_too_many),
	OFFENCE(a_hidden_descriptor), OFFENCE(many_descriptors), OFFENCE(many_descriptors_said),
	OFFENCE(a_load_without_a_descriptor), OFFENCE(a_load_that_forgot_its_descriptor), OFFENCE(a_load_with_two),
	OFFENCE(a_second_hello), OFFENCE(an_endless_name), OFFENCE(a_name_with_a_tail), OFFENCE(an_unknown_scope),
	EARLY_OFFENCE(one_byte), EARLY_OFFENCE(another_magic), EARLY_OFFENCE(version_2), EARLY_OFFENCE(many_descriptors),
	EARLY_OFFENCE(a_request_before_hello), EARLY_OFFENCE(an_unknown_lane), EARLY_OFFENCE(unknown_flags),
};
