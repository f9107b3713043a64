// SPDX-License-Identifier: GPL-2.0
/*
 * The device's policy table: what the XFRM core offloads, and what a packet meets.
 */
#include <linux/rculist.h>
#include <linux/slab.h>
#include "nic.h"

static int refuse(struct cygnic *nic, struct netlink_ext_ack *extack, int err, const char *why)
{
	NL_SET_ERR_MSG_FMT_MOD(extack, "%s", why);
	cygnic_count(nic, C_policy_refused);
	return err;
}

static const char *policy_fault(struct cygnic *nic, const struct xfrm_policy *xp)
{
	const struct xfrm_selector *sel = &xp->selector;

	if (xp->type != XFRM_POLICY_TYPE_MAIN)
		return "policies of the main type only";
	if (xp->xdo.dir != XFRM_DEV_OFFLOAD_IN && xp->xdo.dir != XFRM_DEV_OFFLOAD_OUT)
		return "forward policies are not supported";
	if (xp->xfrm_nr > 1)
		return "one template at most";
	if (xp->xfrm_nr && xp->xfrm_vec[0].id.proto != IPPROTO_ESP)
		return "templates of ESP only";
	if (xp->xfrm_nr && xp->xfrm_vec[0].optional)
		return "optional templates are not supported";
	if (xp->xfrm_nr && xp->xfrm_vec[0].mode != XFRM_MODE_TUNNEL && xp->xfrm_vec[0].mode != XFRM_MODE_TRANSPORT)
		return "templates of tunnel and transport mode only";
	if (xp->xfrm_nr && !xp->xfrm_vec[0].reqid)
		return "a template needs a reqid";
	if (!xp->xfrm_nr && !sel->proto && cygnic_addr_any(&sel->saddr) && cygnic_addr_any(&sel->daddr))
		return "a policy without template needs an address or a protocol";
	if (sel->proto && sel->proto != IPPROTO_TCP && sel->proto != IPPROTO_UDP && !READ_ONCE(nic->knobs.any_protocol))
		return "selectors of TCP, UDP or any protocol only";
	if (xp->priority == U32_MAX)
		return "the policy's priority is out of range";
	return NULL;
}

/* Equal priorities: the older policy goes first, as in the kernel's own table. */
static void insert(struct cygnic *nic, struct cygnic_policy *policy)
{
	struct list_head *table = &nic->policies[policy->dir == XFRM_DEV_OFFLOAD_OUT];
	struct cygnic_policy *other;

	list_for_each_entry(other, table, node) {
		if (other->priority > policy->priority) {
			list_add_tail_rcu(&policy->node, &other->node);
			return;
		}
	}
	list_add_tail_rcu(&policy->node, table);
}

int cygnic_policy_add(struct xfrm_policy *xp, struct netlink_ext_ack *extack)
{
	struct cygnic *nic = netdev_priv(xp->xdo.dev);
	const char *fault = policy_fault(nic, xp);
	struct cygnic_policy *policy;

	if (fault)
		return refuse(nic, extack, -EINVAL, fault);
	if (cygnic_refused(nic, extack)) {
		cygnic_count(nic, C_policy_refused);
		return -EINVAL;
	}
	policy = kzalloc(sizeof(*policy), GFP_KERNEL);
	if (!policy)
		return -ENOMEM;
	policy->nic = nic;
	policy->dir = xp->xdo.dir;
	policy->action = xp->action;
	policy->protects = xp->action == XFRM_POLICY_ALLOW && xp->xfrm_nr;
	policy->priority = xp->priority;
	policy->index = xp->index;
	policy->sel = xp->selector;
	if (xp->xfrm_nr)
		policy->tmpl = xp->xfrm_vec[0];

	spin_lock_bh(&nic->lock);
	if (nic->policy_count >= nic->knobs.policy_table_size) {
		spin_unlock_bh(&nic->lock);
		kfree(policy);
		return refuse(nic, extack, -ENOSPC, "the policy table is full");
	}
	nic->policy_count++;
	policy->listed = true;
	insert(nic, policy);
	spin_unlock_bh(&nic->lock);

	atomic_inc(&nic->handles);
	cygnic_count(nic, C_policy_added);
	xp->xdo.offload_handle = (unsigned long)policy;
	return 0;
}

static void unlist(struct cygnic_policy *policy)
{
	lockdep_assert_held(&policy->nic->lock);
	if (!policy->listed)
		return;
	policy->listed = false;
	list_del_rcu(&policy->node);
	policy->nic->policy_count--;
}

void cygnic_policy_delete(struct xfrm_policy *xp)
{
	struct cygnic_policy *policy = (struct cygnic_policy *)xp->xdo.offload_handle;

	spin_lock_bh(&policy->nic->lock);
	unlist(policy);
	spin_unlock_bh(&policy->nic->lock);
}

void cygnic_policy_free(struct xfrm_policy *xp)
{
	struct cygnic_policy *policy = (struct cygnic_policy *)xp->xdo.offload_handle;

	/* an entry that was never deleted is one whose insertion the core gave up */
	cygnic_policy_delete(xp);
	atomic_dec(&policy->nic->handles);
	xp->xdo.offload_handle = 0;
	kfree_rcu(policy, rcu);
}

/* Empties the table behind the kernel's back. */
void cygnic_policy_forget(struct cygnic *nic)
{
	struct cygnic_policy *policy, *next;
	int dir;

	spin_lock_bh(&nic->lock);
	for (dir = 0; dir < ARRAY_SIZE(nic->policies); dir++)
		list_for_each_entry_safe(policy, next, &nic->policies[dir], node)
			unlist(policy);
	spin_unlock_bh(&nic->lock);
}

/* The policy of best priority that selects the packet. Under RCU. */
struct cygnic_policy *cygnic_policy_find(struct cygnic *nic, u8 dir, const struct cygnic_flow *flow)
{
	struct list_head *table = &nic->policies[dir == XFRM_DEV_OFFLOAD_OUT];
	struct cygnic_policy *policy;

	list_for_each_entry_rcu(policy, table, node) {
		if (policy->sel.family != flow->family)
			continue;
		if (policy->sel.ifindex && policy->sel.ifindex != nic->dev->ifindex)
			continue;
		if (cygnic_selects(&policy->sel, flow)) {
			atomic64_inc(&policy->packets);
			return policy;
		}
	}
	return NULL;
}

/*
 * The policy that decides on a packet that came through an SA. The device matches selector and reqid together, so a policy that
 * protects by other SAs yields to a later one that names this. Under RCU.
 */
struct cygnic_policy *cygnic_policy_find_for(struct cygnic *nic, const struct cygnic_sa *sa, const struct cygnic_flow *flow)
{
	struct cygnic_policy *policy, *other = NULL;

	list_for_each_entry_rcu(policy, &nic->policies[0], node) {
		if (policy->sel.family != flow->family)
			continue;
		if (policy->sel.ifindex && policy->sel.ifindex != nic->dev->ifindex)
			continue;
		if (!cygnic_selects(&policy->sel, flow))
			continue;
		if (policy->protects && !cygnic_policy_names(policy, sa)) {
			other = other ?: policy;
			continue;
		}
		atomic64_inc(&policy->packets);
		return policy;
	}
	return other;
}

/* Whether the SA is one that the policy's template asks for, addresses aside. */
bool cygnic_policy_names(const struct cygnic_policy *policy, const struct cygnic_sa *sa)
{
	const struct xfrm_tmpl *tmpl = &policy->tmpl;

	if (sa->reqid != tmpl->reqid || sa->mode != tmpl->mode)
		return false;
	if (sa->mode != XFRM_MODE_TUNNEL)
		return true;
	if (sa->family != tmpl->encap_family)
		return false;
	return (cygnic_addr_any(&tmpl->id.daddr) || xfrm_addr_equal(&tmpl->id.daddr, &sa->daddr, sa->family)) &&
	       (cygnic_addr_any(&tmpl->saddr) || xfrm_addr_equal(&tmpl->saddr, &sa->saddr, sa->family));
}
