// SPDX-License-Identifier: GPL-2.0
/*
 * Packet offload: ESP (RFC 4303) with AES-GCM (RFC 4106) in tunnel and transport mode, done by the device, outbound side.
 *
 * The kernel hands over plaintext; which SA it goes through is for the device's own tables to say.
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <net/arp.h>
#include <net/dsfield.h>
#include <net/esp.h>
#include <net/inet_ecn.h>
#include <net/ip6_route.h>
#include <net/neighbour.h>
#include <net/route.h>
#include "nic.h"

#define HOP_LIMIT 64

/* Where the parts of an ESP packet lie, as lengths. */
struct layout {
	unsigned int outer;	/* IP header in front of ESP */
	unsigned int udp;
	unsigned int inner;	/* offset of the payload in the plaintext packet */
	unsigned int payload;
	unsigned int padding;
	unsigned int total;	/* of the IP packet */
	u8 nexthdr;
};

static struct dst_entry *route_to_peer(struct cygnic *nic, const struct cygnic_sa *sa)
{
	struct net *net = dev_net(nic->dev);

	if (sa->family == AF_INET) {
		struct flowi4 fl4 = {
			.flowi4_oif = nic->dev->ifindex,
			.daddr = sa->daddr.a4,
			.saddr = sa->saddr.a4,
		};
		/* without a protocol in the flow no XFRM policy is looked up */
		struct rtable *rt = ip_route_output_key(net, &fl4);

		return IS_ERR(rt) ? NULL : &rt->dst;
	} else {
		struct flowi6 fl6 = { .flowi6_oif = nic->dev->ifindex };
		struct dst_entry *dst;

		memcpy(&fl6.daddr, &sa->daddr, sizeof(fl6.daddr));
		memcpy(&fl6.saddr, &sa->saddr, sizeof(fl6.saddr));
		dst = ip6_route_output(net, NULL, &fl6);
		if (!dst->error)
			return dst;
		dst_release(dst);
		return NULL;
	}
}

/*
 * The next hop's link layer address on the way to the SA's peer. The kernel does not fill the Ethernet header of tunnel packets that
 * it forwards, and resolves the inner address for those of its own. False while the address is not known; it is asked for then.
 */
bool cygnic_neighbour(struct cygnic *nic, const struct cygnic_sa *sa, u8 *mac)
{
	struct dst_entry *dst = route_to_peer(nic, sa);
	struct neighbour *neighbour = NULL;
	bool known;

	if (!dst)
		return false;
	if (dst->dev == nic->dev)
		neighbour = dst_neigh_lookup(dst, &sa->daddr);
	dst_release(dst);
	if (!neighbour)
		return false;
	neigh_event_send(neighbour, NULL);
	known = READ_ONCE(neighbour->nud_state) & NUD_VALID;
	if (known)
		neigh_ha_snapshot(mac, neighbour, nic->dev);
	neigh_release(neighbour);
	return known;
}

static struct layout lay_out(const struct cygnic_sa *sa, const struct cygnic_flow *flow)
{
	struct layout at = {};

	if (sa->mode == XFRM_MODE_TUNNEL) {
		at.outer = sa->family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
		at.payload = flow->len;
		at.nexthdr = flow->family == AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6;
	} else {
		at.outer = flow->l4;
		at.inner = flow->l4;
		at.payload = flow->len - flow->l4;
		at.nexthdr = flow->proto;
	}
	at.udp = sa->encap_dport ? sizeof(struct udphdr) : 0;
	at.padding = ALIGN(at.payload + 2, 4) - at.payload - 2;
	at.total = at.outer + at.udp + CYGNIC_ESP_LEN + at.payload + at.padding + 2 + CYGNIC_ICV_LEN;
	return at;
}

/* Takes a sequence number and counts the packet; the reason to drop it, if it may not go, is in `drop`. */
static bool next_sequence(struct cygnic_sa *sa, unsigned int octets, u64 *seq, bool *limit, enum cygnic_counter *drop)
{
	u64 last = sa->esn ? U64_MAX : U32_MAX;
	bool granted = false;

	spin_lock_bh(&sa->lock);
	if (sa->expired) {
		*drop = C_drop_tx_hard_limit;
	} else if (sa->seq >= last) {
		*drop = C_drop_tx_sequence;	/* RFC 4303 section 3.3.3: never cycles */
	} else {
		*seq = ++sa->seq;
		*limit = cygnic_sa_account(sa, octets);
		granted = true;
	}
	spin_unlock_bh(&sa->lock);
	return granted;
}

/* RFC 4301 section 5.1.2 and RFC 6040: traffic class and DF of the outer header. */
static u8 outer_class(const struct cygnic_sa *sa, u8 inner)
{
	u8 class = sa->x->props.extra_flags & XFRM_SA_XFLAG_DONT_ENCAP_DSCP ? 0 : inner;

	class = INET_ECN_encapsulate(class, inner);
	if (sa->x->props.flags & XFRM_STATE_NOECN)
		class &= ~INET_ECN_MASK;
	return class;
}

static void write_tunnel_header(u8 *at, const struct cygnic_sa *sa, const u8 *inner, unsigned int total)
{
	bool inner_v4 = inner[0] >> 4 == 4;
	u8 inner_class = inner_v4 ? ipv4_get_dsfield((const struct iphdr *)inner) :
				    ipv6_get_dsfield((const struct ipv6hdr *)inner);
	__be16 df = inner_v4 ? ((const struct iphdr *)inner)->frag_off & htons(IP_DF) : htons(IP_DF);

	if (sa->family == AF_INET) {
		struct iphdr *ip = (struct iphdr *)at;

		memset(ip, 0, sizeof(*ip));
		ip->version = 4;
		ip->ihl = 5;
		ip->tos = outer_class(sa, inner_class);
		ip->tot_len = htons(total);
		ip->frag_off = sa->x->props.flags & XFRM_STATE_NOPMTUDISC ? 0 : df;
		if (!ip->frag_off)
			ip->id = htons(get_random_u16());
		ip->ttl = HOP_LIMIT;
		ip->protocol = IPPROTO_ESP;
		ip->saddr = sa->saddr.a4;
		ip->daddr = sa->daddr.a4;
		ip_send_check(ip);
	} else {
		struct ipv6hdr *ip = (struct ipv6hdr *)at;

		memset(ip, 0, sizeof(*ip));
		ip6_flow_hdr(ip, outer_class(sa, inner_class), 0);
		ip->payload_len = htons(total - sizeof(*ip));
		ip->nexthdr = IPPROTO_ESP;
		ip->hop_limit = HOP_LIMIT;
		memcpy(&ip->saddr, &sa->saddr, sizeof(ip->saddr));
		memcpy(&ip->daddr, &sa->daddr, sizeof(ip->daddr));
	}
}

static void write_transport_header(u8 *at, const u8 *plain, const struct layout *lay, u16 family)
{
	u8 proto = lay->udp ? IPPROTO_UDP : IPPROTO_ESP;

	memcpy(at, plain, lay->outer);
	if (family == AF_INET) {
		struct iphdr *ip = (struct iphdr *)at;

		ip->protocol = proto;
		ip->tot_len = htons(lay->total);
		ip_send_check(ip);
	} else {
		struct ipv6hdr *ip = (struct ipv6hdr *)at;

		ip->nexthdr = proto;
		ip->payload_len = htons(lay->total - sizeof(*ip));
	}
}

/* RFC 3948 section 2.1: no UDP checksum. */
static void write_udp(u8 *at, const struct cygnic_sa *sa, const struct layout *lay)
{
	struct udphdr *udp = (struct udphdr *)at;

	udp->source = sa->encap_sport;
	udp->dest = sa->encap_dport;
	udp->len = htons(lay->total - lay->outer);
	udp->check = 0;
}

static u8 *write_esp(u8 *at, const struct cygnic_sa *sa, u64 seq)
{
	struct ip_esp_hdr *header = (struct ip_esp_hdr *)at;
	__be64 iv = cpu_to_be64(seq ^ sa->iv_mask);	/* RFC 4106 section 3.1: unique for the key, as seq is */

	header->spi = sa->spi;
	header->seq_no = htonl(lower_32_bits(seq));
	memcpy(at + sizeof(*header), &iv, sizeof(iv));
	return at + CYGNIC_ESP_LEN;
}

static void write_trailer(u8 *at, const struct layout *lay)
{
	unsigned int i;

	for (i = 0; i < lay->padding; i++)
		at[i] = i + 1;
	at[lay->padding] = lay->padding;
	at[lay->padding + 1] = lay->nexthdr;
}

static struct sk_buff *encapsulate(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb, unsigned int offset,
				   const struct layout *lay, u64 seq)
{
	struct sk_buff *frame = netdev_alloc_skb(nic->dev, ETH_HLEN + lay->total);
	u8 *ip, *esp, *payload;

	if (!frame)
		return NULL;
	skb_put(frame, ETH_HLEN + lay->total);
	skb_reset_mac_header(frame);
	skb_set_network_header(frame, ETH_HLEN);
	frame->protocol = htons(sa->family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	ip = skb_network_header(frame);
	if (sa->mode == XFRM_MODE_TUNNEL)
		write_tunnel_header(ip, sa, skb->data + offset, lay->total);
	else
		write_transport_header(ip, skb->data + offset, lay, sa->family);
	if (lay->udp)
		write_udp(ip + lay->outer, sa, lay);
	esp = ip + lay->outer + lay->udp;
	payload = write_esp(esp, sa, seq);
	memcpy(payload, skb->data + offset + lay->inner, lay->payload);
	write_trailer(payload + lay->payload, lay);
	if (cygnic_gcm(sa, true, esp, upper_32_bits(seq), lay->payload + lay->padding + 2)) {
		kfree_skb(frame);
		return NULL;
	}
	return frame;
}

/* The Ethernet header of a protected packet: the kernel's own in transport mode, the way to the peer in tunnel mode. */
static bool link_header(struct cygnic *nic, const struct cygnic_sa *sa, const struct sk_buff *skb, struct ethhdr *eth)
{
	if (sa->mode == XFRM_MODE_TRANSPORT) {
		memcpy(eth, skb->data, ETH_HLEN);
	} else {
		if (!cygnic_neighbour(nic, sa, eth->h_dest))
			return false;
		ether_addr_copy(eth->h_source, nic->dev->dev_addr);
	}
	eth->h_proto = htons(sa->family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	return true;
}

static struct sk_buff *drop(struct cygnic *nic, struct sk_buff *skb, enum cygnic_counter why)
{
	cygnic_count(nic, why);
	dev_core_stats_tx_dropped_inc(nic->dev);
	kfree_skb(skb);
	return NULL;
}

static struct sk_buff *protect(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb, unsigned int offset,
			       const struct cygnic_flow *flow)
{
	struct layout lay = lay_out(sa, flow);
	enum cygnic_counter why = C_drop_memory;
	struct sk_buff *frame;
	struct ethhdr eth;
	bool limit = false;
	u64 seq;

	if (flow->fragment && sa->mode == XFRM_MODE_TRANSPORT)
		return drop(nic, skb, C_drop_tx_fragment);
	if (lay.total > nic->dev->mtu)
		return drop(nic, skb, C_drop_tx_too_big);
	if (skb_linearize(skb))
		return drop(nic, skb, C_drop_memory);
	if (!link_header(nic, sa, skb, &eth))
		return drop(nic, skb, C_drop_tx_no_neighbour);
	if (!next_sequence(sa, lay.total - lay.outer, &seq, &limit, &why))
		return drop(nic, skb, why);
	frame = encapsulate(nic, sa, skb, offset, &lay, seq);
	if (limit)
		cygnic_sa_limits(sa);
	if (!frame)
		return drop(nic, skb, C_drop_memory);
	memcpy(frame->data, &eth, ETH_HLEN);
	cygnic_count(nic, C_tx_packet);
	consume_skb(skb);
	return frame;
}

/* What a broken device does: the packet goes out as it came, towards the peer. */
static struct sk_buff *leak(struct cygnic *nic, const struct cygnic_sa *sa, struct sk_buff *skb, const struct cygnic_flow *flow)
{
	struct sk_buff *frame = skb_copy(skb, GFP_ATOMIC);
	struct ethhdr *eth;

	if (!frame)
		return drop(nic, skb, C_drop_memory);
	consume_skb(skb);
	eth = (struct ethhdr *)frame->data;
	if (sa && sa->mode == XFRM_MODE_TUNNEL && cygnic_neighbour(nic, sa, eth->h_dest)) {
		ether_addr_copy(eth->h_source, nic->dev->dev_addr);
		eth->h_proto = htons(flow->family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
	}
	cygnic_count(nic, C_tx_leaked);
	return frame;
}

static struct sk_buff *pass(struct cygnic *nic, struct sk_buff *skb, enum cygnic_counter how)
{
	cygnic_count(nic, how);
	return skb;
}

struct sk_buff *cygnic_packet_output(struct cygnic *nic, struct sk_buff *skb)
{
	unsigned int offset = max_t(int, skb_network_offset(skb), ETH_HLEN);
	struct cygnic_policy *policy;
	struct cygnic_flow flow;
	struct cygnic_sa *sa;

	if (list_empty(&nic->policies[1]))
		return pass(nic, skb, C_tx_plain);
	if (skb->protocol != htons(ETH_P_IP) && skb->protocol != htons(ETH_P_IPV6))
		return pass(nic, skb, C_tx_plain);
	if (!cygnic_parse(skb, skb->protocol, offset, &flow))
		return drop(nic, skb, C_drop_tx_malformed);
	policy = cygnic_policy_find(nic, XFRM_DEV_OFFLOAD_OUT, &flow);
	if (!policy)
		return pass(nic, skb, C_tx_plain);
	if (policy->action != XFRM_POLICY_ALLOW)
		return drop(nic, skb, C_drop_tx_blocked);
	if (!policy->protects)
		return pass(nic, skb, C_tx_bypass);
	sa = cygnic_sa_out(nic, policy, &flow);
	if (READ_ONCE(nic->knobs.leak))
		return leak(nic, sa, skb, &flow);
	if (!sa)
		return drop(nic, skb, C_drop_tx_no_sa);
	if (flow.options)
		return drop(nic, skb, C_drop_tx_options);
	return protect(nic, sa, skb, offset, &flow);
}
