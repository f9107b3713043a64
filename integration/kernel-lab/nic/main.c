// SPDX-License-Identifier: GPL-2.0
/*
 * A test NIC that offloads IPsec: pairs of Ethernet devices wired to each other.
 *
 * nic0a and nic0b are the ends of the first pair. nic0w is a tap on its wire: it shows every frame as it is on the wire, whatever the
 * ends make of it. Each of them may be moved to a network namespace of its own.
 */
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/if_vlan.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include "nic.h"

#define MAX_PAIRS	16
#define MAX_DEVICE_MTU	9000

static unsigned int pairs = 1;
module_param(pairs, uint, 0444);
MODULE_PARM_DESC(pairs, "how many pairs of devices to make (1 to 16)");

struct pair {
	struct net_device *end[2];
	struct net_device *tap;
};

static struct pair made[MAX_PAIRS];
struct workqueue_struct *cygnic_wq;

static const struct xfrmdev_ops packet_ops = {
	.xdo_dev_state_add = cygnic_state_add,
	.xdo_dev_state_delete = cygnic_state_delete,
	.xdo_dev_state_free = cygnic_state_free,
	.xdo_dev_offload_ok = cygnic_offload_ok,
	.xdo_dev_state_advance_esn = cygnic_advance_esn,
	.xdo_dev_state_update_stats = cygnic_update_stats,
	.xdo_dev_policy_add = cygnic_policy_add,
	.xdo_dev_policy_delete = cygnic_policy_delete,
	.xdo_dev_policy_free = cygnic_policy_free,
};

static const struct xfrmdev_ops crypto_ops = {
	.xdo_dev_state_add = cygnic_state_add,
	.xdo_dev_state_delete = cygnic_state_delete,
	.xdo_dev_state_free = cygnic_state_free,
	.xdo_dev_offload_ok = cygnic_offload_ok,
	.xdo_dev_state_advance_esn = cygnic_advance_esn,
};

/* Shows the frame on the pair's tap, where no protocol takes it for its own. */
static void show_on_tap(struct net_device *tap, struct sk_buff *frame)
{
	struct sk_buff *copy;

	if (!netif_running(tap))
		return;
	copy = skb_copy(frame, GFP_ATOMIC);
	if (!copy)
		return;
	skb_scrub_packet(copy, true);
	copy->protocol = eth_type_trans(copy, tap);
	copy->pkt_type = PACKET_OTHERHOST;
	dev_sw_netstats_rx_add(tap, copy->len + ETH_HLEN);
	netif_rx(copy);
}

/* Puts a frame on the wire: onto the peer's receive queue. */
static void wire(struct cygnic *nic, struct sk_buff *frame)
{
	struct cygnic *peer = rcu_dereference(nic->peer);
	unsigned int len = frame->len;

	if (!peer || !netif_carrier_ok(nic->dev) || !netif_running(peer->dev)) {
		cygnic_count(nic, C_drop_tx_no_link);
		goto drop;
	}
	show_on_tap(nic->tap, frame);
	dev_sw_netstats_tx_add(nic->dev, 1, len);
	if (len > peer->dev->mtu + ETH_HLEN + VLAN_HLEN) {
		cygnic_count(peer, C_drop_rx_too_big);
		goto drop;
	}
	if (skb_queue_len(&peer->rx_queue) >= CYGNIC_RX_QUEUE) {
		cygnic_count(peer, C_drop_rx_queue);
		goto drop;
	}
	skb_orphan(frame);
	skb_scrub_packet(frame, true);
	skb_queue_tail(&peer->rx_queue, frame);
	napi_schedule(&peer->napi);
	return;

drop:
	kfree_skb(frame);
}

static netdev_tx_t start_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct cygnic *nic = netdev_priv(dev);
	struct xfrm_offload *xo = xfrm_offload(skb);

	if (skb_put_padto(skb, ETH_HLEN))
		return NETDEV_TX_OK;
	rcu_read_lock();
	skb_tx_timestamp(skb);
	if (xo && xo->flags & XFRM_XMIT)
		skb = cygnic_crypto_output(nic, skb);
	else
		skb = cygnic_packet_output(nic, skb);
	if (skb)
		wire(nic, skb);
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

/* Both ends have link while both are up and neither is held down. Under RTNL. */
void cygnic_update_carrier(struct cygnic *nic)
{
	struct cygnic *peer = rtnl_dereference(nic->peer);
	bool up = peer && netif_running(nic->dev) && netif_running(peer->dev) && !nic->no_carrier && !peer->no_carrier;

	if (up) {
		netif_carrier_on(nic->dev);
		netif_carrier_on(peer->dev);
		return;
	}
	netif_carrier_off(nic->dev);
	if (peer)
		netif_carrier_off(peer->dev);
}

static int open_end(struct net_device *dev)
{
	struct cygnic *nic = netdev_priv(dev);

	napi_enable(&nic->napi);
	netif_start_queue(dev);
	cygnic_update_carrier(nic);
	return 0;
}

static int stop_end(struct net_device *dev)
{
	struct cygnic *nic = netdev_priv(dev);

	netif_stop_queue(dev);
	napi_disable(&nic->napi);
	skb_queue_purge(&nic->rx_queue);
	cygnic_update_carrier(nic);
	return 0;
}

static netdev_features_t fix_features(struct net_device *dev, netdev_features_t features)
{
	struct cygnic *nic = netdev_priv(dev);

	return READ_ONCE(nic->mode) == CYGNIC_NONE ? features & ~NETIF_F_HW_ESP : features;
}

/* Under RTNL. Refused while the core has states or policies of the device: it would call operations that are gone. */
int cygnic_set_mode(struct cygnic *nic, enum cygnic_mode mode)
{
	static const struct xfrmdev_ops *const operations[] = {
		[CYGNIC_PACKET] = &packet_ops,
		[CYGNIC_CRYPTO] = &crypto_ops,
		[CYGNIC_NONE] = NULL,
	};

	ASSERT_RTNL();
	if (atomic_read(&nic->handles))
		return -EBUSY;
	WRITE_ONCE(nic->mode, mode);
	if (operations[mode])
		WRITE_ONCE(nic->dev->xfrmdev_ops, operations[mode]);
	netdev_update_features(nic->dev);
	if (!operations[mode])
		WRITE_ONCE(nic->dev->xfrmdev_ops, NULL);
	return 0;
}

static const struct net_device_ops end_ops = {
	.ndo_open = open_end,
	.ndo_stop = stop_end,
	.ndo_start_xmit = start_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_fix_features = fix_features,
};

static netdev_tx_t tap_xmit(struct sk_buff *skb, struct net_device *dev)
{
	dev_core_stats_tx_dropped_inc(dev);
	kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops tap_ops = {
	.ndo_start_xmit = tap_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
};

static void drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
}

static const struct ethtool_ops ethtool_ops = {
	.get_drvinfo = drvinfo,
	.get_link = ethtool_op_get_link,
};

static void setup_common(struct net_device *dev, const struct net_device_ops *ops)
{
	ether_setup(dev);
	dev->netdev_ops = ops;
	dev->ethtool_ops = &ethtool_ops;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->priv_flags |= IFF_NO_QUEUE | IFF_LIVE_ADDR_CHANGE;
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->lltx = true;
	dev->max_mtu = MAX_DEVICE_MTU;
}

static void setup_end(struct net_device *dev)
{
	setup_common(dev, &end_ops);
	dev->xfrmdev_ops = &packet_ops;
	dev->features |= NETIF_F_HW_ESP;
	dev->hw_features |= NETIF_F_HW_ESP;
	dev->hw_enc_features |= NETIF_F_HW_ESP;
}

static void setup_tap(struct net_device *dev)
{
	setup_common(dev, &tap_ops);
	dev->flags |= IFF_NOARP;
	dev->flags &= ~IFF_MULTICAST;
	dev->mtu = MAX_DEVICE_MTU;
}

/* A fixed, locally administered address: 02, "CYG", the pair, the device. */
static void set_address(struct net_device *dev, unsigned int pair, u8 which)
{
	const u8 address[ETH_ALEN] = { 0x02, 'C', 'Y', 'G', pair, which };

	eth_hw_addr_set(dev, address);
}

static void end_flap(struct work_struct *work)
{
	struct cygnic *nic = container_of(to_delayed_work(work), struct cygnic, flap);

	rtnl_lock();
	nic->no_carrier = false;
	if (nic->flap_admin && nic->dev->reg_state == NETREG_REGISTERED)
		dev_open(nic->dev, NULL);
	nic->flap_admin = false;
	cygnic_update_carrier(nic);
	rtnl_unlock();
}

static void init_end(struct net_device *dev)
{
	struct cygnic *nic = netdev_priv(dev);

	nic->dev = dev;
	spin_lock_init(&nic->lock);
	skb_queue_head_init(&nic->rx_queue);
	hash_init(nic->sa_in);
	hash_init(nic->sa_out);
	INIT_LIST_HEAD(&nic->policies[0]);
	INIT_LIST_HEAD(&nic->policies[1]);
	INIT_DELAYED_WORK(&nic->flap, end_flap);
	INIT_DELAYED_WORK(&nic->poll, cygnic_sa_poll);
	nic->knobs.sa_table_size = 4096;
	nic->knobs.policy_table_size = 4096;
	nic->knobs.packet_limits = true;
	nic->knobs.udp_encap = true;
	netif_napi_add(dev, &nic->napi, cygnic_receive);
	netif_carrier_off(dev);
}

static struct net_device *allocate(unsigned int pair, u8 which)
{
	char name[IFNAMSIZ];
	bool end = which < 2;
	struct net_device *dev;

	snprintf(name, sizeof(name), "nic%u%c", pair, "abw"[which]);
	dev = alloc_netdev(end ? sizeof(struct cygnic) : 0, name, NET_NAME_PREDICTABLE, end ? setup_end : setup_tap);
	if (!dev)
		return NULL;
	set_address(dev, pair, which);
	if (end)
		init_end(dev);
	return dev;
}

static int register_pair(struct pair *pair)
{
	int i, err = register_netdev(pair->tap);

	for (i = 0; !err && i < 2; i++) {
		struct cygnic *nic = netdev_priv(pair->end[i]);

		nic->tap = pair->tap;
		err = register_netdev(pair->end[i]);
	}
	return err;
}

static int add_pair(struct pair *pair, unsigned int index)
{
	struct cygnic *a, *b;
	int err;

	pair->end[0] = allocate(index, 0);
	pair->end[1] = allocate(index, 1);
	pair->tap = allocate(index, 2);
	if (!pair->end[0] || !pair->end[1] || !pair->tap)
		return -ENOMEM;
	err = register_pair(pair);
	if (err)
		return err;
	a = netdev_priv(pair->end[0]);
	b = netdev_priv(pair->end[1]);
	rtnl_lock();
	rcu_assign_pointer(a->peer, b);
	rcu_assign_pointer(b->peer, a);
	cygnic_update_carrier(a);
	rtnl_unlock();
	cygnic_knobs_add(a, netdev_name(a->dev));
	cygnic_knobs_add(b, netdev_name(b->dev));
	return 0;
}

/* The core flushes the device's states and policies when it goes. */
static void unregister_end(struct net_device *dev)
{
	struct cygnic *nic;

	if (!dev)
		return;
	nic = netdev_priv(dev);
	cancel_delayed_work_sync(&nic->flap);
	WRITE_ONCE(nic->knobs.stats_delay_ms, 0);
	cancel_delayed_work_sync(&nic->poll);
	if (dev->reg_state == NETREG_REGISTERED)
		unregister_netdev(dev);
}

static void free_end(struct net_device *dev)
{
	struct cygnic *nic;

	if (!dev)
		return;
	nic = netdev_priv(dev);
	skb_queue_purge(&nic->rx_queue);	/* what the peer sent while this end closed */
	free_netdev(dev);
}

static void unwire(struct net_device *dev)
{
	struct cygnic *nic;

	if (!dev)
		return;
	nic = netdev_priv(dev);
	rtnl_lock();
	RCU_INIT_POINTER(nic->peer, NULL);
	rtnl_unlock();
}

static void remove_pair(struct pair *pair)
{
	unwire(pair->end[0]);
	unwire(pair->end[1]);
	synchronize_net();
	unregister_end(pair->end[0]);
	unregister_end(pair->end[1]);
	free_end(pair->end[0]);
	free_end(pair->end[1]);
	if (!pair->tap)
		return;
	if (pair->tap->reg_state == NETREG_REGISTERED)
		unregister_netdev(pair->tap);
	free_netdev(pair->tap);
}

static void remove_all(void)
{
	int i;

	cygnic_knobs_exit();	/* first: no knob may turn while its device goes */
	for (i = 0; i < MAX_PAIRS; i++)
		remove_pair(&made[i]);
	rcu_barrier();		/* SAs and policies that wait for their grace period */
	destroy_workqueue(cygnic_wq);
}

static int __init cygnic_init(void)
{
	unsigned int i;
	int err = 0;

	if (!pairs || pairs > MAX_PAIRS)
		return -EINVAL;
	cygnic_wq = alloc_workqueue(KBUILD_MODNAME, WQ_UNBOUND, 0);
	if (!cygnic_wq)
		return -ENOMEM;
	cygnic_knobs_init();
	for (i = 0; !err && i < pairs; i++)
		err = add_pair(&made[i], i);
	if (err)
		remove_all();
	return err;
}

module_init(cygnic_init);
module_exit(remove_all);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Test NIC with IPsec packet and crypto offload");
MODULE_SOFTDEP("pre: gcm ctr ghash-generic aes");
