/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A test NIC that offloads IPsec: shared types of the module.
 *
 * Two Ethernet devices are wired to each other. Each one has tables of SAs and policies which the kernel's XFRM core fills
 * through xfrmdev_ops, and does ESP itself on its way to and from the wire.
 */
#ifndef CYGNIC_H
#define CYGNIC_H

#include <linux/debugfs.h>
#include <linux/hashtable.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/workqueue.h>
#include <crypto/aead.h>
#include <net/xfrm.h>

#define CYGNIC_ICV_LEN		16
#define CYGNIC_IV_LEN		8
#define CYGNIC_SALT_LEN		4
#define CYGNIC_ESP_LEN		(sizeof(struct ip_esp_hdr) + CYGNIC_IV_LEN)
#define CYGNIC_MAX_WINDOW	256
#define CYGNIC_RX_QUEUE		4096
#define CYGNIC_REFUSAL_LEN	64

/* What became of a packet. Every packet that a device drops has exactly one reason here. */
#define CYGNIC_COUNTERS(C)		\
	C(tx_plain)			/* sent as it was: no policy */			\
	C(tx_bypass)			/* sent as it was: allowed by a policy */	\
	C(tx_packet)			/* protected, packet offload */			\
	C(tx_crypto)			/* protected, crypto offload */			\
	C(tx_leaked)			/* sent in clear because of the knob leak */	\
	C(rx_plain)			\
	C(rx_bypass)			\
	C(rx_clear)			/* in clear in spite of a policy: knob accept_clear */ \
	C(rx_packet)			\
	C(rx_crypto)			\
	C(rx_esp_unknown)		/* ESP of no SA here: left to the kernel */	\
	C(drop_tx_no_sa)		\
	C(drop_tx_blocked)		\
	C(drop_tx_fragment)		\
	C(drop_tx_options)		/* IPv4 options, IPv6 extension headers */	\
	C(drop_tx_malformed)		\
	C(drop_tx_too_big)		\
	C(drop_tx_hard_limit)		\
	C(drop_tx_sequence)		/* the sequence numbers are used up */		\
	C(drop_tx_no_neighbour)		\
	C(drop_tx_foreign_sa)		/* framed for an SA that this device lacks */	\
	C(drop_tx_no_link)		\
	C(drop_rx_queue)		\
	C(drop_rx_too_big)		\
	C(drop_rx_malformed)		\
	C(drop_rx_fragment)		\
	C(drop_rx_replay)		\
	C(drop_rx_auth)			\
	C(drop_rx_dummy)		/* RFC 4303 section 2.6 */			\
	C(drop_rx_hard_limit)		\
	C(drop_rx_clear)		/* in clear, but a policy wants protection */	\
	C(drop_rx_blocked)		\
	C(drop_rx_policy)		/* protected by an SA its policy does not name */ \
	C(drop_rx_selector)		/* outside of the selector of its SA */		\
	C(drop_memory)			\
	C(sa_added)			\
	C(sa_refused)			\
	C(policy_added)			\
	C(policy_refused)		\
	C(acquires)

enum cygnic_counter {
#define CYGNIC_ENUM(name) C_##name,
	CYGNIC_COUNTERS(CYGNIC_ENUM)
#undef CYGNIC_ENUM
	CYGNIC_COUNTER_COUNT
};

enum cygnic_mode {
	CYGNIC_PACKET,		/* packet and crypto offload */
	CYGNIC_CRYPTO,		/* crypto offload only */
	CYGNIC_NONE,		/* a plain Ethernet device */
};

struct cygnic_knobs {
	u32 sa_table_size;
	u32 policy_table_size;
	u32 stats_delay_ms;
	bool no_esn;
	bool byte_limits;
	bool packet_limits;
	bool leak;
	bool accept_clear;
	bool refuse_acquire;
	bool udp_encap;
	bool any_protocol;
};

/* One end of a pair. */
struct cygnic {
	struct net_device *dev;
	struct cygnic __rcu *peer;
	struct net_device *tap;
	struct napi_struct napi;
	struct sk_buff_head rx_queue;

	spinlock_t lock;		/* writers of the tables */
	DECLARE_HASHTABLE(sa_in, 8);	/* by SPI */
	DECLARE_HASHTABLE(sa_out, 8);	/* by reqid */
	struct list_head policies[2];	/* [0] in, [1] out; best priority first */
	u32 sa_count;
	u32 policy_count;
	u32 encap_count;		/* inbound SAs in UDP */
	atomic_t handles;		/* states and policies the core still has */

	enum cygnic_mode mode;
	struct cygnic_knobs knobs;
	char refusal[CYGNIC_REFUSAL_LEN];	/* of the next install, or empty; under lock */
	bool no_carrier;
	bool flap_admin;
	struct delayed_work flap;
	struct delayed_work poll;

	atomic64_t counters[CYGNIC_COUNTER_COUNT];
};

/* A packet as selectors see it. */
struct cygnic_flow {
	u16 family;
	u8 proto;
	bool fragment;
	bool options;
	bool has_ports;
	xfrm_address_t src;
	xfrm_address_t dst;
	__be16 sport;
	__be16 dport;
	unsigned int l4;		/* offset from the network header */
	unsigned int len;		/* of the IP packet, as its header says */
};

struct cygnic_counts {
	u64 packets;
	u64 octets;
	u64 auth_failed;
	u64 replayed;
};

/* One SA in the device. `x` is valid for as long as the entry can be found in a table under RCU. */
struct cygnic_sa {
	struct hlist_node node;
	struct rcu_work free;
	struct cygnic *nic;
	struct xfrm_state *x;
	struct crypto_aead *tfm;
	bool acquire;			/* a larval SA: no keys, in no table */
	bool listed;
	u8 dir;
	u8 type;
	u8 mode;
	bool esn;
	u16 family;
	__be32 spi;
	u32 reqid;
	xfrm_address_t saddr;
	xfrm_address_t daddr;
	struct xfrm_selector sel;
	__be16 encap_sport;
	__be16 encap_dport;
	u8 salt[CYGNIC_SALT_LEN];
	u64 iv_mask;
	struct xfrm_lifetime_cfg limits;
	struct xfrm_lifetime_cur base;

	spinlock_t lock;		/* everything below */
	u64 seq;			/* out: last one used; in: highest one received */
	u32 window;
	u32 bitmap[CYGNIC_MAX_WINDOW / 32];
	bool expired;			/* the hard limit is reached */
	bool soft;			/* the soft limit is reached and told */
	struct cygnic_counts counts;
	struct cygnic_counts published;	/* what stats_delay_ms lets the kernel see */
	struct cygnic_counts reported;	/* what the kernel has added up */
	unsigned long published_at;
};

struct cygnic_policy {
	struct list_head node;
	struct rcu_head rcu;
	struct cygnic *nic;
	bool listed;
	u8 dir;
	u8 action;
	bool protects;
	u32 priority;
	u32 index;
	struct xfrm_selector sel;
	struct xfrm_tmpl tmpl;
	atomic64_t packets;
};

static inline void cygnic_count(struct cygnic *nic, enum cygnic_counter counter)
{
	atomic64_inc(&nic->counters[counter]);
}

static inline bool cygnic_addr_any(const xfrm_address_t *addr)
{
	return !(addr->a6[0] | addr->a6[1] | addr->a6[2] | addr->a6[3]);
}

/* main.c */
extern struct workqueue_struct *cygnic_wq;
void cygnic_update_carrier(struct cygnic *nic);
int cygnic_set_mode(struct cygnic *nic, enum cygnic_mode mode);

/* receive.c */
int cygnic_receive(struct napi_struct *napi, int budget);

/* flow.c */
bool cygnic_parse(struct sk_buff *skb, __be16 protocol, unsigned int offset, struct cygnic_flow *flow);
bool cygnic_selects(const struct xfrm_selector *sel, const struct cygnic_flow *flow);

/* sa.c */
int cygnic_state_add(struct xfrm_state *x, struct netlink_ext_ack *extack);
void cygnic_state_delete(struct xfrm_state *x);
void cygnic_state_free(struct xfrm_state *x);
bool cygnic_offload_ok(struct sk_buff *skb, struct xfrm_state *x);
void cygnic_advance_esn(struct xfrm_state *x);
void cygnic_update_stats(struct xfrm_state *x);
bool cygnic_refused(struct cygnic *nic, struct netlink_ext_ack *extack);
struct cygnic_sa *cygnic_sa_in(struct cygnic *nic, __be32 spi, const xfrm_address_t *daddr, u16 family);
struct cygnic_sa *cygnic_sa_out(struct cygnic *nic, const struct cygnic_policy *policy, const struct cygnic_flow *flow);
bool cygnic_sa_at(struct cygnic *nic, const struct cygnic_flow *flow);
void cygnic_sa_limits(struct cygnic_sa *sa);
bool cygnic_sa_account(struct cygnic_sa *sa, unsigned int octets);
void cygnic_sa_poll(struct work_struct *work);
void cygnic_sa_forget(struct cygnic *nic);
int cygnic_sa_expire(struct cygnic *nic, __be32 spi, bool hard);

/* policy.c */
int cygnic_policy_add(struct xfrm_policy *xp, struct netlink_ext_ack *extack);
void cygnic_policy_delete(struct xfrm_policy *xp);
void cygnic_policy_free(struct xfrm_policy *xp);
struct cygnic_policy *cygnic_policy_find(struct cygnic *nic, u8 dir, const struct cygnic_flow *flow);
struct cygnic_policy *cygnic_policy_find_for(struct cygnic *nic, const struct cygnic_sa *sa, const struct cygnic_flow *flow);
bool cygnic_policy_names(const struct cygnic_policy *policy, const struct cygnic_sa *sa);
void cygnic_policy_forget(struct cygnic *nic);

/* gcm.c */
int cygnic_gcm_init(struct cygnic_sa *sa, struct xfrm_state *x);
int cygnic_gcm(struct cygnic_sa *sa, bool encrypt, u8 *esp, u32 seq_hi, unsigned int len);

/* esp.c, input.c: packet offload. Each takes over the skb and returns what goes on, or NULL. */
struct sk_buff *cygnic_packet_output(struct cygnic *nic, struct sk_buff *skb);
struct sk_buff *cygnic_packet_input(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb,
				    const struct cygnic_flow *flow, unsigned int esp);
bool cygnic_neighbour(struct cygnic *nic, const struct cygnic_sa *sa, u8 *mac);

/* crypto.c: crypto offload, alike. */
struct sk_buff *cygnic_crypto_output(struct cygnic *nic, struct sk_buff *skb);
struct sk_buff *cygnic_crypto_input(struct cygnic *nic, struct cygnic_sa *sa, struct sk_buff *skb,
				    const struct cygnic_flow *flow);
bool cygnic_mark_done(struct sk_buff *skb, struct cygnic_sa *sa, u32 status);

/* knobs.c */
void cygnic_knobs_init(void);
void cygnic_knobs_exit(void);
void cygnic_knobs_add(struct cygnic *nic, const char *name);

#endif
