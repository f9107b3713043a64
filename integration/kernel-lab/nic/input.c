// SPDX-License-Identifier: GPL-2.0
/*
 * Packet offload, inbound side: replay check, decryption, decapsulation, and the check against the device's policies.
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/dsfield.h>
#include <net/esp.h>
#include <net/inet_ecn.h>
#include "nic.h"

/* RFC 4303 appendix A2.2: the whole sequence number that the lower half stands for. False if there is none. */
static bool infer_sequence(const struct cygnic_sa *sa, u32 low, u64 *seq)
{
	u32 top = lower_32_bits(sa->seq), hi = upper_32_bits(sa->seq);
	u32 bottom = top - sa->window + 1;

	if (sa->esn) {
		if (top >= sa->window - 1) {
			if (low < bottom)
				hi++;
		} else if (low >= bottom) {
			if (!hi)
				return false;
			hi--;
		}
	}
	*seq = (u64)hi << 32 | low;
	return *seq != 0;
}

static bool seen(const struct cygnic_sa *sa, u64 seq)
{
	u32 bit;

	if (!sa->window || seq > sa->seq)
		return false;
	if (sa->seq - seq >= sa->window)
		return true;
	bit = (u32)((seq - 1) % sa->window);
	return sa->bitmap[bit / 32] & (1U << (bit % 32));
}

static void advance(struct cygnic_sa *sa, u64 seq)
{
	u32 bit;
	u64 s;

	if (!sa->window) {
		sa->seq = max(sa->seq, seq);
		return;
	}
	if (seq > sa->seq) {
		if (seq - sa->seq >= sa->window) {
			memset(sa->bitmap, 0, sizeof(sa->bitmap));
		} else {
			for (s = sa->seq + 1; s <= seq; s++) {
				bit = (u32)((s - 1) % sa->window);
				sa->bitmap[bit / 32] &= ~(1U << (bit % 32));
			}
		}
		sa->seq = seq;
	}
	bit = (u32)((seq - 1) % sa->window);
	sa->bitmap[bit / 32] |= 1U << (bit % 32);
}

static struct sk_buff *drop(struct cygnic *nic, struct sk_buff *skb, enum cygnic_counter why)
{
	cygnic_count(nic, why);
	dev_core_stats_rx_dropped_inc(nic->dev);
	kfree_skb(skb);
	return NULL;
}

/* Before decryption: may this sequence number be accepted at all? */
static bool admit(struct cygnic_sa *sa, u32 low, u64 *seq, enum cygnic_counter *why)
{
	bool fresh = false;

	spin_lock_bh(&sa->lock);
	if (sa->expired) {
		*why = C_drop_rx_hard_limit;
	} else if (!infer_sequence(sa, low, seq) || seen(sa, *seq)) {
		*why = C_drop_rx_replay;
		sa->counts.replayed++;
	} else {
		fresh = true;
	}
	spin_unlock_bh(&sa->lock);
	return fresh;
}

/* After decryption: marks the sequence number and counts the packet. */
static bool accept(struct cygnic_sa *sa, u64 seq, unsigned int octets)
{
	bool fresh, limit = false;

	spin_lock_bh(&sa->lock);
	fresh = !seen(sa, seq);
	if (fresh) {
		advance(sa, seq);
		limit = cygnic_sa_account(sa, octets);
	} else {
		sa->counts.replayed++;
	}
	spin_unlock_bh(&sa->lock);
	if (limit)
		cygnic_sa_limits(sa);
	return fresh;
}

/* Cuts the packet down to `len` octets from `start` on, and puts the Ethernet header in front of it. */
static bool cut(struct sk_buff *skb, unsigned int start, unsigned int len)
{
	struct ethhdr eth;

	memcpy(&eth, skb_mac_header(skb), ETH_HLEN);
	__skb_pull(skb, start);
	if (pskb_trim(skb, len))
		return false;
	eth.h_proto = skb->protocol;
	memcpy(skb->data - ETH_HLEN, &eth, ETH_HLEN);
	skb_set_mac_header(skb, -ETH_HLEN);
	skb_reset_network_header(skb);
	skb_reset_mac_len(skb);
	skb->ip_summed = CHECKSUM_NONE;
	return true;
}

/* RFC 6040 section 4.2. False if the combination of marks is one that must be dropped. */
static bool decapsulate_ecn(struct sk_buff *skb, u8 outer)
{
	u8 inner = skb->protocol == htons(ETH_P_IP) ? ipv4_get_dsfield(ip_hdr(skb)) : ipv6_get_dsfield(ipv6_hdr(skb));
	int verdict = __INET_ECN_decapsulate(outer, inner, NULL);

	if (verdict > 1)
		return false;
	if (INET_ECN_is_ce(outer) && !INET_ECN_is_not_ect(inner)) {
		if (skb->protocol == htons(ETH_P_IP))
			IP_ECN_set_ce(ip_hdr(skb));
		else
			IP6_ECN_set_ce(skb, ipv6_hdr(skb));
	}
	return true;
}

static bool open_tunnel(struct cygnic_sa *sa, struct sk_buff *skb, unsigned int start, unsigned int len, u8 nexthdr)
{
	u8 outer = sa->family == AF_INET ? ipv4_get_dsfield(ip_hdr(skb)) : ipv6_get_dsfield(ipv6_hdr(skb));
	unsigned int least = nexthdr == IPPROTO_IPIP ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if ((nexthdr != IPPROTO_IPIP && nexthdr != IPPROTO_IPV6) || len < least)
		return false;
	skb->protocol = htons(nexthdr == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);
	return cut(skb, start, len) && decapsulate_ecn(skb, outer);
}

/* Moves the IP header of `l4` octets up to the payload. */
static bool open_transport(struct cygnic_sa *sa, struct sk_buff *skb, unsigned int l4, unsigned int start, unsigned int len,
			   u8 nexthdr)
{
	unsigned int moved = start - l4;

	memmove(skb->data + moved, skb->data, l4);
	if (!cut(skb, moved, l4 + len))
		return false;
	if (sa->family == AF_INET) {
		ip_hdr(skb)->protocol = nexthdr;
		ip_hdr(skb)->tot_len = htons(skb->len);
		ip_send_check(ip_hdr(skb));
	} else {
		ipv6_hdr(skb)->nexthdr = nexthdr;
		ipv6_hdr(skb)->payload_len = htons(skb->len - sizeof(struct ipv6hdr));
	}
	/* RFC 3948 section 3.1.2: the addresses may not be those that the checksum was made of */
	if (sa->encap_dport)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	return true;
}

/* RFC 4301 section 5.2 step 4: the packet must have come through an SA that its policy names. */
static bool permitted(struct cygnic *nic, struct cygnic_sa *sa, const struct cygnic_flow *flow, enum cygnic_counter *why)
{
	struct cygnic_policy *policy;

	if (sa->sel.family && !cygnic_selects(&sa->sel, flow)) {
		*why = C_drop_rx_selector;
		return false;
	}
	policy = cygnic_policy_find_for(nic, sa, flow);
	*why = C_drop_rx_policy;
	if (!policy)
		return sa->mode == XFRM_MODE_TRANSPORT;
	if (policy->action != XFRM_POLICY_ALLOW) {
		*why = C_drop_rx_blocked;
		return false;
	}
	if (!policy->protects)
		return sa->mode == XFRM_MODE_TRANSPORT;
	return cygnic_policy_names(policy, sa);
}

static bool decrypt(struct cygnic *nic, struct cygnic_sa *sa, u8 *esp, u32 seq_hi, unsigned int len, enum cygnic_counter *why)
{
	int err = cygnic_gcm(sa, false, esp, seq_hi, len);

	if (!err)
		return true;
	*why = C_drop_memory;
	if (err == -EBADMSG) {
		*why = C_drop_rx_auth;
		spin_lock_bh(&sa->lock);
		sa->counts.auth_failed++;
		spin_unlock_bh(&sa->lock);
	}
	return false;
}

/* `esp` is the offset of the ESP header in the packet, which is linear and our own. */
struct sk_buff *cygnic_packet_input(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb, const struct cygnic_flow *flow,
				    unsigned int esp)
{
	int len = (int)flow->len - (int)(esp + CYGNIC_ESP_LEN);
	unsigned int start = esp + CYGNIC_ESP_LEN;
	enum cygnic_counter why = C_drop_rx_malformed;
	unsigned int padding;
	struct cygnic_flow inner;
	bool opened;
	u8 nexthdr;
	u64 seq;

	if (len < CYGNIC_ICV_LEN + 4 || len % 4 || (flow->family == AF_INET6 && flow->options))
		return drop(nic, skb, why);
	if (!admit(sa, ntohl(((struct ip_esp_hdr *)(skb->data + esp))->seq_no), &seq, &why))
		return drop(nic, skb, why);
	if (!decrypt(nic, sa, skb->data + esp, upper_32_bits(seq), len, &why))
		return drop(nic, skb, why);
	if (!accept(sa, seq, flow->len - flow->l4))
		return drop(nic, skb, C_drop_rx_replay);

	len -= CYGNIC_ICV_LEN + 2;
	padding = skb->data[start + len];
	nexthdr = skb->data[start + len + 1];
	if (padding > len)
		return drop(nic, skb, C_drop_rx_malformed);
	len -= padding;
	if (nexthdr == IPPROTO_NONE)
		return drop(nic, skb, C_drop_rx_dummy);
	opened = sa->mode == XFRM_MODE_TUNNEL ? open_tunnel(sa, skb, start, len, nexthdr) :
						open_transport(sa, skb, flow->l4, start, len, nexthdr);
	if (!opened || !cygnic_parse(skb, skb->protocol, 0, &inner))
		return drop(nic, skb, C_drop_rx_malformed);
	if (!permitted(nic, sa, &inner, &why))
		return drop(nic, skb, why);
	if (pskb_trim(skb, inner.len) || !cygnic_mark_done(skb, sa, CRYPTO_SUCCESS))
		return drop(nic, skb, C_drop_memory);
	cygnic_count(nic, C_rx_packet);
	return skb;
}
