// SPDX-License-Identifier: GPL-2.0
/*
 * What a device does with a frame from the wire before the kernel sees it.
 */
#include <linux/etherdevice.h>
#include <linux/udp.h>
#include "nic.h"

/* The SA of a received ESP packet, in UDP or not, and where its ESP header is. */
static struct cygnic_sa *find_sa(struct cygnic *nic, struct sk_buff *skb, const struct cygnic_flow *flow, unsigned int *esp)
{
	struct cygnic_sa *sa;
	__be32 buffer, *spi;

	*esp = flow->l4;
	if (flow->proto == IPPROTO_UDP && READ_ONCE(nic->encap_count))
		*esp += sizeof(struct udphdr);
	else if (flow->proto != IPPROTO_ESP)
		return NULL;
	spi = skb_header_pointer(skb, *esp, sizeof(buffer), &buffer);
	if (!spi || !*spi)
		return NULL;
	sa = cygnic_sa_in(nic, *spi, &flow->dst, flow->family);
	if (!sa)
		return NULL;
	/* an SA in UDP takes no bare ESP, and the other way around */
	if (flow->proto == IPPROTO_UDP)
		return sa->encap_dport && sa->encap_dport == flow->dport ? sa : NULL;
	return sa->encap_dport ? NULL : sa;
}

static struct sk_buff *drop(struct cygnic *nic, struct sk_buff *skb, enum cygnic_counter why)
{
	cygnic_count(nic, why);
	dev_core_stats_rx_dropped_inc(nic->dev);
	kfree_skb(skb);
	return NULL;
}

static struct sk_buff *pass(struct cygnic *nic, struct sk_buff *skb, enum cygnic_counter how)
{
	cygnic_count(nic, how);
	return skb;
}

/* A packet in clear meets the inbound policies in the device: the kernel does not check it again. */
static struct sk_buff *receive_clear(struct cygnic *nic, struct sk_buff *skb, const struct cygnic_flow *flow)
{
	struct cygnic_policy *policy = cygnic_policy_find(nic, XFRM_DEV_OFFLOAD_IN, flow);

	if (!policy)
		return pass(nic, skb, C_rx_plain);
	if (policy->action != XFRM_POLICY_ALLOW)
		return drop(nic, skb, C_drop_rx_blocked);
	if (!policy->protects)
		return pass(nic, skb, C_rx_bypass);
	if (READ_ONCE(nic->knobs.accept_clear))
		return pass(nic, skb, C_rx_clear);
	return drop(nic, skb, flow->fragment ? C_drop_rx_fragment : C_drop_rx_clear);
}

static struct sk_buff *receive_ip(struct cygnic *nic, struct sk_buff *skb)
{
	struct cygnic_flow flow;
	struct cygnic_sa *sa;
	unsigned int esp;

	if (!cygnic_parse(skb, skb->protocol, 0, &flow))
		return list_empty(&nic->policies[0]) ? pass(nic, skb, C_rx_plain) : drop(nic, skb, C_drop_rx_malformed);
	if (flow.fragment && flow.proto == IPPROTO_ESP)
		return cygnic_sa_at(nic, &flow) ? drop(nic, skb, C_drop_rx_fragment) : pass(nic, skb, C_rx_esp_unknown);
	sa = flow.fragment ? NULL : find_sa(nic, skb, &flow, &esp);
	if (!sa)
		return flow.proto == IPPROTO_ESP ? pass(nic, skb, C_rx_esp_unknown) : receive_clear(nic, skb, &flow);
	skb = skb_unshare(skb, GFP_ATOMIC);
	if (!skb) {
		cygnic_count(nic, C_drop_memory);
		return NULL;
	}
	if (skb_linearize(skb))
		return drop(nic, skb, C_drop_memory);
	if (sa->type == XFRM_DEV_OFFLOAD_CRYPTO)
		return cygnic_crypto_input(nic, sa, skb, &flow);
	return cygnic_packet_input(nic, sa, skb, &flow, esp);
}

static void receive(struct cygnic *nic, struct sk_buff *skb)
{
	dev_sw_netstats_rx_add(nic->dev, skb->len);
	skb->protocol = eth_type_trans(skb, nic->dev);
	skb_reset_network_header(skb);
	skb_reset_mac_len(skb);
	rcu_read_lock();
	if (skb->pkt_type != PACKET_OTHERHOST && (skb->protocol == htons(ETH_P_IP) || skb->protocol == htons(ETH_P_IPV6)))
		skb = receive_ip(nic, skb);
	else
		skb = pass(nic, skb, C_rx_plain);
	rcu_read_unlock();
	if (skb)
		napi_gro_receive(&nic->napi, skb);
}

int cygnic_receive(struct napi_struct *napi, int budget)
{
	struct cygnic *nic = container_of(napi, struct cygnic, napi);
	struct sk_buff *skb;
	int done = 0;

	while (done < budget && (skb = skb_dequeue(&nic->rx_queue))) {
		receive(nic, skb);
		done++;
	}
	if (done < budget && napi_complete_done(napi, done) && !skb_queue_empty(&nic->rx_queue))
		napi_schedule(napi);
	return done;
}
