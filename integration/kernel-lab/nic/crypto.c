// SPDX-License-Identifier: GPL-2.0
/*
 * Crypto offload: the kernel has framed the packet, the device encrypts it; the device decrypts a packet, the kernel unframes it.
 */
#include <net/esp.h>
#include "nic.h"

/* Tells the kernel which SA the device has used on the packet, and how that went. Under RCU. */
bool cygnic_mark_done(struct sk_buff *skb, struct cygnic_sa *sa, u32 status)
{
	struct xfrm_offload *xo;
	struct sec_path *sp;

	if (!refcount_inc_not_zero(&sa->x->refcnt))
		return false;
	sp = secpath_set(skb);
	if (!sp) {
		xfrm_state_put(sa->x);
		return false;
	}
	sp->xvec[sp->len++] = sa->x;
	sp->olen++;
	xo = xfrm_offload(skb);
	xo->flags = CRYPTO_DONE;
	xo->status = status;
	return true;
}

/* The upper half of the sequence number: the core's counter may have gone one ahead of the packet. */
static u32 sequence_hi(const struct xfrm_offload *xo, u32 seq)
{
	return xo->seq.low < seq ? xo->seq.hi - 1 : xo->seq.hi;
}

struct sk_buff *cygnic_crypto_output(struct cygnic *nic, struct sk_buff *skb)
{
	struct xfrm_state *x = xfrm_input_state(skb);
	struct cygnic_sa *sa = (struct cygnic_sa *)x->xso.offload_handle;
	unsigned int esp = skb_transport_offset(skb);
	struct ip_esp_hdr *header;
	struct sk_buff *frame;
	u32 seq, seq_hi;
	__be64 iv;
	int len, err;

	if (x->xso.dev != nic->dev || !sa || !READ_ONCE(sa->listed)) {
		cygnic_count(nic, C_drop_tx_foreign_sa);
		goto drop;
	}
	len = (int)skb->len - (int)(esp + CYGNIC_ESP_LEN + CYGNIC_ICV_LEN);
	if (len < 4) {
		cygnic_count(nic, C_drop_tx_foreign_sa);
		goto drop;
	}
	/* in one piece of our own: the payload may be shared with a socket's retransmit queue */
	frame = skb_copy(skb, GFP_ATOMIC);
	if (!frame) {
		cygnic_count(nic, C_drop_memory);
		goto drop;
	}
	header = (struct ip_esp_hdr *)(frame->data + esp);
	seq = ntohl(header->seq_no);
	seq_hi = sa->esn ? sequence_hi(xfrm_offload(skb), seq) : 0;
	iv = cpu_to_be64(((u64)seq_hi << 32 | seq) ^ sa->iv_mask);
	memcpy(header + 1, &iv, sizeof(iv));
	err = cygnic_gcm(sa, true, (u8 *)header, seq_hi, len);
	consume_skb(skb);
	if (err) {
		cygnic_count(nic, C_drop_memory);
		kfree_skb(frame);
		return NULL;
	}
	secpath_reset(frame);
	cygnic_count(nic, C_tx_crypto);
	return frame;

drop:
	kfree_skb(skb);
	return NULL;
}

static u32 auth_failure(const struct cygnic_sa *sa)
{
	return sa->mode == XFRM_MODE_TUNNEL ? CRYPTO_TUNNEL_ESP_AUTH_FAILED : CRYPTO_TRANSPORT_ESP_AUTH_FAILED;
}

struct sk_buff *cygnic_crypto_input(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb,
				    const struct cygnic_flow *flow)
{
	int len = (int)flow->len - (int)(flow->l4 + CYGNIC_ESP_LEN);
	struct xfrm_state *x = sa->x;
	struct ip_esp_hdr *header;
	u32 seq_hi = 0;
	int err;

	if (len < CYGNIC_ICV_LEN + 4 || len % 4) {
		cygnic_count(nic, C_drop_rx_malformed);
		goto drop;
	}
	header = (struct ip_esp_hdr *)(skb->data + flow->l4);
	if (sa->esn) {
		spin_lock_bh(&x->lock);
		seq_hi = xfrm_replay_seqhi(x, header->seq_no);
		spin_unlock_bh(&x->lock);
	}
	err = cygnic_gcm(sa, false, (u8 *)header, seq_hi, len);
	if (err && err != -EBADMSG) {
		cygnic_count(nic, C_drop_memory);
		goto drop;
	}
	if (!cygnic_mark_done(skb, sa, err ? auth_failure(sa) : CRYPTO_SUCCESS)) {
		cygnic_count(nic, C_drop_memory);
		goto drop;
	}
	cygnic_count(nic, C_rx_crypto);
	return skb;

drop:
	kfree_skb(skb);
	return NULL;
}
