/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* A packet filter: Ethernet (one VLAN tag), IPv4 with its header checksum, TCP or UDP ports, a hash of the flow
 *
 * Goes through a capture (formats.h), counts each verdict and returns a digest of the flows that passed. Many short
 * branches, loads at odd offsets, byte swaps, and a struct in the caller's frame that another method fills. What knows
 * IPv4 lies in a section of its own. */

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_VLAN 0x8100
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

struct ethernet { u8 target[6], source[6]; u16 type; };
struct vlan { u16 tag, type; };
struct ipv4 {
	u8 version_length, tos;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 source, target;
};
struct ports { u16 source, target; };

struct flow { u64 addresses, rest; };

static inline u64 swap16(u16 x) { return __builtin_bswap16(x); }

/* The one's complement sum over a header is all ones exactly when its checksum is right. */
in_section("ipv4") method u64 ipv4_checksum_is_good(const u8 *header, u64 n)
{
	const u16_alias *words = (const u16_alias *)header;
	u64 sum = 0;

	for (u64 i = 0; i < n / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

in_section("ipv4") method enum packet_verdict ipv4_parse(const u8 *packet, u64 n, struct flow *flow)
{
	const struct ipv4 *ip = (const struct ipv4 *)packet;
	u64 n_header;

	if (n < sizeof(*ip))
		return PACKET_SHORT;
	n_header = (ip->version_length & 15) * 4ull;
	if (ip->version_length >> 4 != 4 || n_header < sizeof(*ip) || swap16(ip->length) < n_header)
		return PACKET_MALFORMED;
	if (n < n_header || n < swap16(ip->length))
		return PACKET_SHORT;
	if (!ipv4_checksum_is_good(packet, n_header))
		return PACKET_BAD_CHECKSUM;
	if (swap16(ip->fragment) & 0x1fff)
		return PACKET_FRAGMENT;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return PACKET_OTHER;
	if (swap16(ip->length) < n_header + sizeof(struct ports))
		return PACKET_SHORT;
	flow->addresses = (u64)__builtin_bswap32(ip->source) << 32 | __builtin_bswap32(ip->target);
	flow->rest = (u64)__builtin_bswap32(load32(packet + n_header)) << 8 | ip->protocol;
	return PACKET_PASS;
}

method enum packet_verdict frame_parse(const u8 *frame, u64 n, struct flow *flow)
{
	const struct ethernet *ethernet = (const struct ethernet *)frame;
	u64 n_header = sizeof(*ethernet), type;

	if (n < n_header)
		return PACKET_SHORT;
	type = swap16(ethernet->type);
	if (type == ETHERTYPE_VLAN) {
		if (n < n_header + sizeof(struct vlan))
			return PACKET_SHORT;
		type = swap16(((const struct vlan *)(frame + n_header))->type);
		n_header += sizeof(struct vlan);
	}
	if (type != ETHERTYPE_IPV4)
		return PACKET_NOT_IPV4;
	return ipv4_parse(frame + n_header, n - n_header, flow);
}

method u64 flow_hash(const struct flow *flow)
{
	u64 hash = flow->addresses * 0x9e3779b97f4a7c15ull ^ flow->rest;

	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ull;
	return hash ^ hash >> 32;
}

/* @counts: _PACKET_N of them, one for each verdict. A record that runs past the capture ends it. */
export u64 ENTRY(packet)(const u8 *capture, u64 n, u64 *counts)
{
	u64 digest = 0, at = 0;

	for (u64 i = 0; i < _PACKET_N; i++)
		counts[i] = 0;
	while (at + 2 <= n) {
		u64 n_frame = *(const u16_alias *)(capture + at);
		enum packet_verdict verdict;
		struct flow flow;

		if (n_frame > n - at - 2)
			break;
		verdict = frame_parse(capture + at + 2, n_frame, &flow);
		counts[verdict]++;
		if (verdict == PACKET_PASS)
			digest = rotl64(digest, 5) ^ flow_hash(&flow);
		at += (2 + n_frame + 7) & ~7ull;
	}
	return digest;
}
