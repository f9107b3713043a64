// SPDX-License-Identifier: GPL-2.0
/*
 * Packets as selectors see them.
 */
#include <linux/icmp.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include "nic.h"

static void parse_ports(struct sk_buff *skb, unsigned int offset, struct cygnic_flow *flow)
{
	u8 buffer[4];
	const u8 *head;

	switch (flow->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		break;
	default:
		return;
	}
	head = skb_header_pointer(skb, offset + flow->l4, sizeof(buffer), buffer);
	if (!head)
		return;
	if (flow->proto == IPPROTO_ICMP || flow->proto == IPPROTO_ICMPV6) {
		/* XFRM keeps type and code where other protocols have their ports */
		flow->sport = htons(head[0]);
		flow->dport = htons(head[1]);
	} else {
		memcpy(&flow->sport, head, 2);
		memcpy(&flow->dport, head + 2, 2);
	}
	flow->has_ports = true;
}

static bool parse_ipv4(struct sk_buff *skb, unsigned int offset, struct cygnic_flow *flow)
{
	struct iphdr buffer;
	const struct iphdr *ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return false;
	flow->family = AF_INET;
	flow->proto = ip->protocol;
	flow->src.a4 = ip->saddr;
	flow->dst.a4 = ip->daddr;
	flow->l4 = ip->ihl * 4;
	flow->options = ip->ihl > 5;
	flow->len = ntohs(ip->tot_len);
	flow->fragment = ip_is_fragment(ip);
	if (!(ip->frag_off & htons(IP_OFFSET)))
		parse_ports(skb, offset, flow);
	return flow->len >= flow->l4;
}

static bool parse_ipv6(struct sk_buff *skb, unsigned int offset, struct cygnic_flow *flow)
{
	struct ipv6hdr buffer;
	const struct ipv6hdr *ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	__be16 frag_off = 0;
	u8 nexthdr;
	int l4;

	if (!ip || ip->version != 6)
		return false;
	flow->family = AF_INET6;
	memcpy(&flow->src, &ip->saddr, sizeof(flow->src));
	memcpy(&flow->dst, &ip->daddr, sizeof(flow->dst));
	flow->len = sizeof(*ip) + ntohs(ip->payload_len);
	nexthdr = ip->nexthdr;
	flow->options = ipv6_ext_hdr(nexthdr) && nexthdr != NEXTHDR_NONE;
	l4 = ipv6_skip_exthdr(skb, offset + sizeof(*ip), &nexthdr, &frag_off);
	if (l4 < 0)
		return false;
	flow->proto = nexthdr;
	flow->l4 = l4 - offset;
	flow->fragment = frag_off != 0;
	if (!(frag_off & htons(IP6_OFFSET)))
		parse_ports(skb, offset, flow);
	return true;
}

/* Reads the IP packet at `offset`. False if it is not IP, or is too broken to tell. */
bool cygnic_parse(struct sk_buff *skb, __be16 protocol, unsigned int offset, struct cygnic_flow *flow)
{
	bool parsed;

	memset(flow, 0, sizeof(*flow));
	if (protocol == htons(ETH_P_IP))
		parsed = parse_ipv4(skb, offset, flow);
	else if (protocol == htons(ETH_P_IPV6))
		parsed = parse_ipv6(skb, offset, flow);
	else
		return false;
	return parsed && flow->len <= skb->len - offset;
}

static bool ports_match(const struct xfrm_selector *sel, const struct cygnic_flow *flow)
{
	if (!sel->sport_mask && !sel->dport_mask)
		return true;
	/* a device does not reassemble: what shows no ports matches no selector that asks for them */
	return flow->has_ports && !((flow->sport ^ sel->sport) & sel->sport_mask) &&
	       !((flow->dport ^ sel->dport) & sel->dport_mask);
}

/* The selector's family is the caller's business: an SA's selector of any to any may serve both. */
bool cygnic_selects(const struct xfrm_selector *sel, const struct cygnic_flow *flow)
{
	if (sel->proto && sel->proto != flow->proto)
		return false;
	if (flow->family == AF_INET) {
		if (!addr4_match(flow->dst.a4, sel->daddr.a4, sel->prefixlen_d) ||
		    !addr4_match(flow->src.a4, sel->saddr.a4, sel->prefixlen_s))
			return false;
	} else {
		if (!addr_match(&flow->dst, &sel->daddr, sel->prefixlen_d) ||
		    !addr_match(&flow->src, &sel->saddr, sel->prefixlen_s))
			return false;
	}
	return ports_match(sel, flow);
}
