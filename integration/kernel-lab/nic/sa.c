// SPDX-License-Identifier: GPL-2.0
/*
 * The device's SA table: what the XFRM core offloads, its counters and its limits.
 */
#include <linux/ip.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <net/ipv6.h>
#include "nic.h"

static struct cygnic_sa *sa_of(const struct xfrm_state *x)
{
	return (struct cygnic_sa *)x->xso.offload_handle;
}

/* Whether the knob `refuse_next` refuses this install; it does so once. */
bool cygnic_refused(struct cygnic *nic, struct netlink_ext_ack *extack)
{
	char why[CYGNIC_REFUSAL_LEN];

	spin_lock_bh(&nic->lock);
	strscpy(why, nic->refusal, sizeof(why));
	nic->refusal[0] = '\0';
	spin_unlock_bh(&nic->lock);
	if (!why[0])
		return false;
	NL_SET_ERR_MSG_FMT_MOD(extack, "%s", why);
	return true;
}

static const char *algorithm_fault(const struct xfrm_state *x)
{
	if (x->id.proto != IPPROTO_ESP)
		return "SAs of ESP only";
	if (x->props.aalgo != SADB_AALG_NONE || x->props.calgo != SADB_X_CALG_NONE)
		return "no separate integrity algorithm and no compression";
	if (!x->aead || x->props.ealgo != SADB_X_EALG_AES_GCM_ICV16 || x->aead->alg_icv_len != CYGNIC_ICV_LEN * 8)
		return "AES-GCM with an ICV of 16 octets only";
	if (x->aead->alg_key_len != 128 + 32 && x->aead->alg_key_len != 256 + 32)
		return "AES-GCM keys of 128 or 256 bits only";
	if (!x->geniv || strcmp(x->geniv, "seqiv"))
		return "the IV must be made from the sequence number (seqiv)";
	if (x->tfcpad)
		return "no traffic flow confidentiality padding";
	return NULL;
}

static const char *encap_fault(struct cygnic *nic, const struct xfrm_state *x)
{
	if (!x->encap)
		return NULL;
	if (!READ_ONCE(nic->knobs.udp_encap))
		return "encapsulation is not supported";
	if (x->encap->encap_type != UDP_ENCAP_ESPINUDP)
		return "encapsulation in UDP only";
	if (x->xso.type != XFRM_DEV_OFFLOAD_PACKET)
		return "encapsulation in packet offload only";
	if (x->props.mode != XFRM_MODE_TRANSPORT)
		return "encapsulation in transport mode only";
	return NULL;
}

static const char *limit_fault(struct cygnic *nic, const struct xfrm_lifetime_cfg *limits)
{
	if (!limits->soft_byte_limit || !limits->hard_byte_limit || !limits->soft_packet_limit || !limits->hard_packet_limit)
		return "a limit of 0 cannot be kept";
	if (!READ_ONCE(nic->knobs.byte_limits) &&
	    (limits->soft_byte_limit != XFRM_INF || limits->hard_byte_limit != XFRM_INF))
		return "byte limits are not supported";
	if (!READ_ONCE(nic->knobs.packet_limits) &&
	    (limits->soft_packet_limit != XFRM_INF || limits->hard_packet_limit != XFRM_INF))
		return "packet limits are not supported";
	if (limits->hard_byte_limit != XFRM_INF && limits->soft_byte_limit >= limits->hard_byte_limit)
		return "the hard byte limit must be above the soft one";
	if (limits->hard_packet_limit != XFRM_INF && limits->soft_packet_limit >= limits->hard_packet_limit)
		return "the hard packet limit must be above the soft one";
	return NULL;
}

static u32 window_of(const struct xfrm_state *x)
{
	return x->replay_esn ? x->replay_esn->replay_window : x->props.replay_window;
}

static const char *window_fault(const struct xfrm_state *x)
{
	if (x->xso.dir != XFRM_DEV_OFFLOAD_IN)
		return NULL;
	switch (window_of(x)) {
	case 32:
	case 64:
	case 128:
	case 256:
		return NULL;
	case 0:
		if (!x->replay_esn)
			return NULL;
		fallthrough;
	default:
		return "replay windows of 32, 64, 128 or 256 only";
	}
}

static const char *state_fault(struct cygnic *nic, const struct xfrm_state *x)
{
	const char *fault = algorithm_fault(x) ?: encap_fault(nic, x);
	u8 proto = x->sel.proto;

	if (fault)
		return fault;
	if (x->props.mode != XFRM_MODE_TUNNEL && x->props.mode != XFRM_MODE_TRANSPORT)
		return "tunnel and transport mode only";
	if (x->props.flags & XFRM_STATE_ESN && READ_ONCE(nic->knobs.no_esn))
		return "extended sequence numbers are not supported";
	if (proto && proto != IPPROTO_TCP && proto != IPPROTO_UDP && !READ_ONCE(nic->knobs.any_protocol))
		return "selectors of TCP, UDP or any protocol only";
	if (x->xso.type == XFRM_DEV_OFFLOAD_CRYPTO)
		return NULL;
	if (READ_ONCE(nic->mode) != CYGNIC_PACKET)
		return "packet offload is not supported";
	if (!x->props.reqid)
		return "packet offload needs a reqid";
	return window_fault(x) ?: limit_fault(nic, &x->lft);
}

/* Goes on where the state was: a state may come with its sequence number and window. */
static void copy_sequence(struct cygnic_sa *sa, const struct xfrm_state *x)
{
	const struct xfrm_replay_state_esn *esn = x->replay_esn;
	u32 i;

	if (sa->dir == XFRM_DEV_OFFLOAD_OUT) {
		sa->seq = esn ? (u64)esn->oseq_hi << 32 | esn->oseq : x->replay.oseq;
		return;
	}
	sa->window = window_of(x);
	if (esn) {
		sa->seq = (u64)esn->seq_hi << 32 | esn->seq;
		memcpy(sa->bitmap, esn->bmp, min_t(size_t, esn->bmp_len, ARRAY_SIZE(sa->bitmap)) * sizeof(u32));
		return;
	}
	sa->seq = x->replay.seq;
	for (i = 0; i < sa->window && i < sa->seq; i++) {
		if (x->replay.bitmap & (1U << i))
			sa->bitmap[0] |= 1U << ((u32)(sa->seq - 1 - i) % sa->window);
	}
}

static void copy_state(struct cygnic_sa *sa, const struct xfrm_state *x)
{
	sa->dir = x->xso.dir;
	sa->type = x->xso.type;
	sa->mode = x->props.mode;
	sa->esn = x->props.flags & XFRM_STATE_ESN;
	sa->family = x->props.family;
	sa->spi = x->id.spi;
	sa->reqid = x->props.reqid;
	sa->saddr = x->props.saddr;
	sa->daddr = x->id.daddr;
	sa->sel = x->sel;
	sa->limits = x->lft;
	sa->base = x->curlft;
	if (x->encap) {
		sa->encap_sport = x->encap->encap_sport;
		sa->encap_dport = x->encap->encap_dport;
	}
	get_random_bytes(&sa->iv_mask, sizeof(sa->iv_mask));
	if (sa->type == XFRM_DEV_OFFLOAD_PACKET)
		copy_sequence(sa, x);
}

static bool list_sa(struct cygnic *nic, struct cygnic_sa *sa)
{
	bool room;

	spin_lock_bh(&nic->lock);
	room = nic->sa_count < nic->knobs.sa_table_size;
	if (room) {
		nic->sa_count++;
		sa->listed = true;
		if (sa->dir == XFRM_DEV_OFFLOAD_IN) {
			nic->encap_count += sa->encap_dport != 0;
			hash_add_rcu(nic->sa_in, &sa->node, (__force u32)sa->spi);
		} else {
			hash_add_rcu(nic->sa_out, &sa->node, sa->reqid);
		}
	}
	spin_unlock_bh(&nic->lock);
	return room;
}

static void unlist(struct cygnic_sa *sa)
{
	struct cygnic *nic = sa->nic;

	lockdep_assert_held(&nic->lock);
	if (!sa->listed)
		return;
	sa->listed = false;
	hash_del_rcu(&sa->node);
	nic->sa_count--;
	if (sa->dir == XFRM_DEV_OFFLOAD_IN)
		nic->encap_count -= sa->encap_dport != 0;
}

/* After a grace period and in process context: freeing a transform may sleep. */
static void destroy(struct work_struct *work)
{
	struct cygnic_sa *sa = container_of(to_rcu_work(work), struct cygnic_sa, free);

	if (sa->tfm)
		crypto_free_aead(sa->tfm);
	kfree_sensitive(sa);
}

static struct cygnic_sa *new_sa(struct cygnic *nic, struct xfrm_state *x, gfp_t gfp)
{
	struct cygnic_sa *sa = kzalloc(sizeof(*sa), gfp);

	if (!sa)
		return NULL;
	sa->nic = nic;
	sa->x = x;
	spin_lock_init(&sa->lock);
	INIT_RCU_WORK(&sa->free, destroy);
	return sa;
}

/* The larval SA of an acquire: atomic context, no keys, and nothing for the device to do. */
static int add_acquire(struct cygnic *nic, struct xfrm_state *x)
{
	struct cygnic_sa *sa;

	if (READ_ONCE(nic->knobs.refuse_acquire))
		return -EOPNOTSUPP;
	sa = new_sa(nic, x, GFP_ATOMIC);
	if (!sa)
		return -ENOMEM;
	sa->acquire = true;
	cygnic_count(nic, C_acquires);
	atomic_inc(&nic->handles);
	x->xso.offload_handle = (unsigned long)sa;
	return 0;
}

static int refuse(struct cygnic *nic, struct netlink_ext_ack *extack, int err, const char *why)
{
	NL_SET_ERR_MSG_FMT_MOD(extack, "%s", why);
	cygnic_count(nic, C_sa_refused);
	return err;
}

int cygnic_state_add(struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	/* xso.real_dev is not set for the larval SA of an acquire */
	struct cygnic *nic = netdev_priv(x->xso.dev);
	const char *fault;
	struct cygnic_sa *sa;
	u8 mac[ETH_ALEN];
	int err;

	if (x->xso.flags & XFRM_DEV_OFFLOAD_FLAG_ACQ)
		return add_acquire(nic, x);
	fault = state_fault(nic, x);
	if (fault)
		return refuse(nic, extack, -EINVAL, fault);
	if (cygnic_refused(nic, extack)) {
		cygnic_count(nic, C_sa_refused);
		return -EINVAL;
	}
	sa = new_sa(nic, x, GFP_KERNEL);
	if (!sa)
		return -ENOMEM;
	copy_state(sa, x);
	err = cygnic_gcm_init(sa, x);
	if (err) {
		destroy(&sa->free.work);
		return refuse(nic, extack, err, "no AES-GCM in this kernel (module gcm)");
	}
	if (!list_sa(nic, sa)) {
		destroy(&sa->free.work);
		return refuse(nic, extack, -ENOSPC, "the SA table is full");
	}
	atomic_inc(&nic->handles);
	cygnic_count(nic, C_sa_added);
	x->xso.offload_handle = (unsigned long)sa;
	if (sa->dir == XFRM_DEV_OFFLOAD_OUT && sa->type == XFRM_DEV_OFFLOAD_PACKET && sa->mode == XFRM_MODE_TUNNEL)
		cygnic_neighbour(nic, sa, mac);	/* asks early for the address that the first packet will need */
	return 0;
}

/* Under the state's lock. */
void cygnic_state_delete(struct xfrm_state *x)
{
	struct cygnic_sa *sa = sa_of(x);

	spin_lock_bh(&sa->nic->lock);
	unlist(sa);
	spin_unlock_bh(&sa->nic->lock);
}

void cygnic_state_free(struct xfrm_state *x)
{
	struct cygnic_sa *sa = sa_of(x);

	/* an entry that was never deleted is one whose insertion the core gave up */
	cygnic_state_delete(x);
	atomic_dec(&sa->nic->handles);
	x->xso.offload_handle = 0;
	queue_rcu_work(cygnic_wq, &sa->free);
}

bool cygnic_offload_ok(struct sk_buff *skb, struct xfrm_state *x)
{
	/* skb is still the inner packet: its family need not be that of the SA */
	if (ip_hdr(skb)->version == 4)
		return ip_hdr(skb)->ihl == 5;
	return !ipv6_ext_hdr(ipv6_hdr(skb)->nexthdr);
}

/* Crypto offload only: the device asks the kernel's replay state for each packet, so there is nothing to copy. */
void cygnic_advance_esn(struct xfrm_state *x)
{
}

static void publish(struct cygnic_sa *sa)
{
	lockdep_assert_held(&sa->lock);
	sa->published = sa->counts;
	sa->published_at = jiffies;
}

/* Adds what is new to the state. Under the state's lock, or the core's. */
void cygnic_update_stats(struct xfrm_state *x)
{
	struct net *net = xs_net(x);
	struct cygnic_sa *sa = sa_of(x);
	struct cygnic_counts new;
	u32 delay;

	if (!sa || sa->acquire || sa->type != XFRM_DEV_OFFLOAD_PACKET)
		return;
	delay = READ_ONCE(sa->nic->knobs.stats_delay_ms);
	spin_lock_bh(&sa->lock);
	if (!delay || time_after_eq(jiffies, sa->published_at + msecs_to_jiffies(delay)))
		publish(sa);
	new.packets = sa->published.packets - sa->reported.packets;
	new.octets = sa->published.octets - sa->reported.octets;
	new.auth_failed = sa->published.auth_failed - sa->reported.auth_failed;
	new.replayed = sa->published.replayed - sa->reported.replayed;
	sa->reported = sa->published;
	spin_unlock_bh(&sa->lock);

	x->curlft.packets += new.packets;
	x->curlft.bytes += new.octets;
	x->stats.integrity_failed += new.auth_failed;
	x->stats.replay += new.replayed;
	XFRM_ADD_STATS(net, LINUX_MIB_XFRMINSTATEPROTOERROR, new.auth_failed);
	XFRM_ADD_STATS(net, LINUX_MIB_XFRMINSTATESEQERROR, new.replayed);
}

static bool over(const struct cygnic_sa *sa, u64 packet_limit, u64 octet_limit)
{
	return sa->base.packets + sa->counts.packets >= packet_limit ||
	       sa->base.bytes + sa->counts.octets >= octet_limit;
}

/*
 * Counts a packet. True if the packet reached a limit, so that the caller has to call cygnic_sa_limits() once it has let go of
 * the SA's lock: the state's lock is taken before it.
 */
bool cygnic_sa_account(struct cygnic_sa *sa, unsigned int octets)
{
	bool hard, soft;

	lockdep_assert_held(&sa->lock);
	sa->counts.packets++;
	sa->counts.octets += octets;
	if (READ_ONCE(sa->nic->knobs.stats_delay_ms))
		return false;	/* the poll looks at the limits */
	hard = over(sa, sa->limits.hard_packet_limit, sa->limits.hard_byte_limit);
	soft = !sa->soft && over(sa, sa->limits.soft_packet_limit, sa->limits.soft_byte_limit);
	sa->expired |= hard;
	sa->soft |= soft;
	return hard || soft;
}

/* Has the kernel look at the SA's counters. */
void cygnic_sa_limits(struct cygnic_sa *sa)
{
	struct xfrm_state *x = sa->x;

	spin_lock_bh(&x->lock);
	if (x->km.state == XFRM_STATE_VALID)
		xfrm_state_check_expire(x);
	spin_unlock_bh(&x->lock);
}

static void poll_sa(struct cygnic_sa *sa)
{
	bool look;

	if (sa->type != XFRM_DEV_OFFLOAD_PACKET)
		return;
	spin_lock_bh(&sa->lock);
	publish(sa);
	look = over(sa, sa->limits.soft_packet_limit, sa->limits.soft_byte_limit);
	if (over(sa, sa->limits.hard_packet_limit, sa->limits.hard_byte_limit))
		sa->expired = true;
	spin_unlock_bh(&sa->lock);
	if (look)
		cygnic_sa_limits(sa);
}

/* With late counters: the device looks at them, and at the limits, every stats_delay_ms. */
void cygnic_sa_poll(struct work_struct *work)
{
	struct cygnic *nic = container_of(to_delayed_work(work), struct cygnic, poll);
	u32 delay = READ_ONCE(nic->knobs.stats_delay_ms);
	struct cygnic_sa *sa;
	int bucket;

	rcu_read_lock();
	hash_for_each_rcu(nic->sa_in, bucket, sa, node)
		poll_sa(sa);
	hash_for_each_rcu(nic->sa_out, bucket, sa, node)
		poll_sa(sa);
	rcu_read_unlock();
	if (delay)
		queue_delayed_work(cygnic_wq, &nic->poll, msecs_to_jiffies(delay));
}

/* Empties the table behind the kernel's back. */
void cygnic_sa_forget(struct cygnic *nic)
{
	struct hlist_node *next;
	struct cygnic_sa *sa;
	int bucket;

	spin_lock_bh(&nic->lock);
	hash_for_each_safe(nic->sa_in, bucket, next, sa, node)
		unlist(sa);
	hash_for_each_safe(nic->sa_out, bucket, next, sa, node)
		unlist(sa);
	spin_unlock_bh(&nic->lock);
}

/* Tells the kernel that the SA is at a limit, whatever it counted. */
static void expire(struct cygnic_sa *sa, bool hard)
{
	struct xfrm_state *x = sa->x;

	if (hard) {
		spin_lock_bh(&sa->lock);
		sa->expired = true;
		spin_unlock_bh(&sa->lock);
	}
	spin_lock_bh(&x->lock);
	if (x->km.state == XFRM_STATE_VALID && hard) {
		x->km.state = XFRM_STATE_EXPIRED;
		hrtimer_start(&x->mtimer, 0, HRTIMER_MODE_REL_SOFT);
	} else if (x->km.state == XFRM_STATE_VALID && !x->km.dying) {
		x->km.dying = 1;
		km_state_expired(x, 0, 0);
	}
	spin_unlock_bh(&x->lock);
}

int cygnic_sa_expire(struct cygnic *nic, __be32 spi, bool hard)
{
	struct cygnic_sa *sa;
	int bucket, found = 0;

	rcu_read_lock();
	hash_for_each_possible_rcu(nic->sa_in, sa, node, (__force u32)spi) {
		if (sa->spi == spi) {
			expire(sa, hard);
			found++;
		}
	}
	hash_for_each_rcu(nic->sa_out, bucket, sa, node) {
		if (sa->spi == spi) {
			expire(sa, hard);
			found++;
		}
	}
	rcu_read_unlock();
	return found ? 0 : -ENOENT;
}

/* The SA of a received packet. Under RCU. */
struct cygnic_sa *cygnic_sa_in(struct cygnic *nic, __be32 spi, const xfrm_address_t *daddr, u16 family)
{
	struct cygnic_sa *sa;

	hash_for_each_possible_rcu(nic->sa_in, sa, node, (__force u32)spi) {
		if (sa->spi == spi && sa->family == family && xfrm_addr_equal(&sa->daddr, daddr, family))
			return sa;
	}
	return NULL;
}

/* Whether some packet offload SA ends where this packet goes to: then the device has to see to its fragments. Under RCU. */
bool cygnic_sa_at(struct cygnic *nic, const struct cygnic_flow *flow)
{
	struct cygnic_sa *sa;
	int bucket;

	hash_for_each_rcu(nic->sa_in, bucket, sa, node) {
		if (sa->type == XFRM_DEV_OFFLOAD_PACKET && sa->family == flow->family &&
		    xfrm_addr_equal(&sa->daddr, &flow->dst, flow->family))
			return true;
	}
	return false;
}

static bool fits(const struct cygnic_sa *sa, const struct cygnic_policy *policy, const struct cygnic_flow *flow)
{
	if (sa->type != XFRM_DEV_OFFLOAD_PACKET || !cygnic_policy_names(policy, sa))
		return false;
	if (policy->tmpl.id.spi && policy->tmpl.id.spi != sa->spi)
		return false;
	if (sa->sel.family && !cygnic_selects(&sa->sel, flow))
		return false;
	if (sa->mode == XFRM_MODE_TUNNEL)
		return true;
	return sa->family == flow->family && xfrm_addr_equal(&sa->daddr, &flow->dst, flow->family) &&
	       xfrm_addr_equal(&sa->saddr, &flow->src, flow->family);
}

/* The SA that the policy's template asks for: the newest that is good, as the kernel chooses. Under RCU. */
struct cygnic_sa *cygnic_sa_out(struct cygnic *nic, const struct cygnic_policy *policy, const struct cygnic_flow *flow)
{
	struct cygnic_sa *sa, *expired = NULL;

	/* hash_add_rcu() puts the newest in front */
	hash_for_each_possible_rcu(nic->sa_out, sa, node, policy->tmpl.reqid) {
		if (!fits(sa, policy, flow))
			continue;
		if (!READ_ONCE(sa->expired))
			return sa;
		expired = expired ?: sa;
	}
	return expired;
}
