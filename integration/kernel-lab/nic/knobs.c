// SPDX-License-Identifier: GPL-2.0
/*
 * What tests turn and read: /sys/kernel/debug/cygnic/<device>/.
 */
#include <linux/debugfs.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include "nic.h"

static struct dentry *root;

static const char *const mode_names[] = {
	[CYGNIC_PACKET] = "packet",
	[CYGNIC_CRYPTO] = "crypto",
	[CYGNIC_NONE] = "none",
};

static const char *const counter_names[] = {
#define CYGNIC_NAME(name) #name,
	CYGNIC_COUNTERS(CYGNIC_NAME)
#undef CYGNIC_NAME
};

/* One line of text as written to a knob, without its end. */
static int read_line(const char __user *from, size_t count, char *to, size_t size)
{
	if (count >= size)
		return -EINVAL;
	if (copy_from_user(to, from, count))
		return -EFAULT;
	to[count] = '\0';
	to[strcspn(to, "\n")] = '\0';
	return 0;
}

static struct cygnic *nic_of(struct file *file)
{
	struct seq_file *seq = file->private_data;

	return seq->private;
}

static int mode_show(struct seq_file *out, void *unused)
{
	struct cygnic *nic = out->private;

	seq_printf(out, "%s\n", mode_names[READ_ONCE(nic->mode)]);
	return 0;
}

static ssize_t mode_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	char line[16];
	int mode, err = read_line(from, count, line, sizeof(line));

	if (err)
		return err;
	mode = match_string(mode_names, ARRAY_SIZE(mode_names), line);
	if (mode < 0)
		return mode;
	rtnl_lock();
	err = cygnic_set_mode(nic_of(file), mode);
	rtnl_unlock();
	return err ?: count;
}
DEFINE_SHOW_STORE_ATTRIBUTE(mode);

static int refuse_next_show(struct seq_file *out, void *unused)
{
	struct cygnic *nic = out->private;

	spin_lock_bh(&nic->lock);
	seq_printf(out, "%s\n", nic->refusal);
	spin_unlock_bh(&nic->lock);
	return 0;
}

static ssize_t refuse_next_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct cygnic *nic = nic_of(file);
	char line[CYGNIC_REFUSAL_LEN];
	int err = read_line(from, count, line, sizeof(line));

	if (err)
		return err;
	spin_lock_bh(&nic->lock);
	strscpy(nic->refusal, line, sizeof(nic->refusal));
	spin_unlock_bh(&nic->lock);
	return count;
}
DEFINE_SHOW_STORE_ATTRIBUTE(refuse_next);

/* "0x1234 soft" or "0x1234 hard" */
static ssize_t force_expire_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct cygnic *nic = file->private_data;
	char line[32], what[8];
	int err = read_line(from, count, line, sizeof(line));
	u32 spi;

	if (err)
		return err;
	if (sscanf(line, "%i %7s", &spi, what) != 2 || (strcmp(what, "soft") && strcmp(what, "hard")))
		return -EINVAL;
	return cygnic_sa_expire(nic, htonl(spi), !strcmp(what, "hard")) ?: count;
}

static const struct file_operations force_expire_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = force_expire_write,
};

/* "sa", "policy" or "all" */
static ssize_t reset_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct cygnic *nic = file->private_data;
	char line[16];
	int err = read_line(from, count, line, sizeof(line));
	bool all;

	if (err)
		return err;
	all = !strcmp(line, "all");
	if (!all && strcmp(line, "sa") && strcmp(line, "policy"))
		return -EINVAL;
	if (all || !strcmp(line, "sa"))
		cygnic_sa_forget(nic);
	if (all || !strcmp(line, "policy"))
		cygnic_policy_forget(nic);
	return count;
}

static const struct file_operations reset_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = reset_write,
};

/* "carrier MS" takes the link away for that long, "admin MS" the device */
static ssize_t flap_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct cygnic *nic = file->private_data;
	char line[32], what[8];
	int err = read_line(from, count, line, sizeof(line));
	bool admin;
	u32 ms;

	if (err)
		return err;
	if (sscanf(line, "%7s %u", what, &ms) != 2)
		return -EINVAL;
	admin = !strcmp(what, "admin");
	if (!admin && strcmp(what, "carrier"))
		return -EINVAL;
	rtnl_lock();
	if (admin && netif_running(nic->dev)) {
		nic->flap_admin = true;
		dev_close(nic->dev);
	} else if (!admin) {
		nic->no_carrier = true;
		cygnic_update_carrier(nic);
	}
	rtnl_unlock();
	mod_delayed_work(cygnic_wq, &nic->flap, msecs_to_jiffies(ms));
	return count;
}

static const struct file_operations flap_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = flap_write,
};

static int stats_delay_get(void *data, u64 *value)
{
	struct cygnic *nic = data;

	*value = READ_ONCE(nic->knobs.stats_delay_ms);
	return 0;
}

static int stats_delay_set(void *data, u64 value)
{
	struct cygnic *nic = data;

	if (value > 60000)
		return -EINVAL;
	WRITE_ONCE(nic->knobs.stats_delay_ms, value);
	mod_delayed_work(cygnic_wq, &nic->poll, msecs_to_jiffies(value));
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(stats_delay_fops, stats_delay_get, stats_delay_set, "%llu\n");

static int counters_show(struct seq_file *out, void *unused)
{
	struct cygnic *nic = out->private;
	int i;

	for (i = 0; i < CYGNIC_COUNTER_COUNT; i++)
		seq_printf(out, "%s %llu\n", counter_names[i], (u64)atomic64_read(&nic->counters[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

static const char *direction(u8 dir)
{
	return dir == XFRM_DEV_OFFLOAD_IN ? "in" : "out";
}

static const char *mode_of(u8 mode)
{
	return mode == XFRM_MODE_TUNNEL ? "tunnel" : "transport";
}

static void show_address(struct seq_file *out, const char *what, const xfrm_address_t *address, u16 family)
{
	if (family == AF_INET)
		seq_printf(out, " %s=%pI4", what, address);
	else
		seq_printf(out, " %s=%pI6c", what, address);
}

static void show_sa(struct seq_file *out, struct cygnic_sa *sa)
{
	seq_printf(out, "sa %s offload=%s mode=%s spi=0x%08x", direction(sa->dir),
		   sa->type == XFRM_DEV_OFFLOAD_PACKET ? "packet" : "crypto", mode_of(sa->mode), ntohl(sa->spi));
	show_address(out, "src", &sa->saddr, sa->family);
	show_address(out, "dst", &sa->daddr, sa->family);
	spin_lock_bh(&sa->lock);
	seq_printf(out, " reqid=%u esn=%d window=%u seq=%llu packets=%llu octets=%llu auth_failed=%llu replayed=%llu expired=%d",
		   sa->reqid, sa->esn, sa->window, sa->seq, sa->counts.packets, sa->counts.octets, sa->counts.auth_failed,
		   sa->counts.replayed, sa->expired);
	spin_unlock_bh(&sa->lock);
	if (sa->encap_dport)
		seq_printf(out, " encap=%u:%u", ntohs(sa->encap_sport), ntohs(sa->encap_dport));
	seq_putc(out, '\n');
}

static void show_policy(struct seq_file *out, struct cygnic_policy *policy)
{
	const struct xfrm_selector *sel = &policy->sel;

	seq_printf(out, "policy %s priority=%u action=%s", direction(policy->dir), policy->priority,
		   policy->action != XFRM_POLICY_ALLOW ? "block" : policy->protects ? "protect" : "allow");
	show_address(out, "src", &sel->saddr, sel->family);
	seq_printf(out, "/%u", sel->prefixlen_s);
	show_address(out, "dst", &sel->daddr, sel->family);
	seq_printf(out, "/%u proto=%u sport=%u/0x%x dport=%u/0x%x", sel->prefixlen_d, sel->proto, ntohs(sel->sport),
		   ntohs(sel->sport_mask), ntohs(sel->dport), ntohs(sel->dport_mask));
	if (policy->protects)
		seq_printf(out, " mode=%s reqid=%u spi=0x%08x", mode_of(policy->tmpl.mode), policy->tmpl.reqid,
			   ntohl(policy->tmpl.id.spi));
	seq_printf(out, " packets=%llu\n", (u64)atomic64_read(&policy->packets));
}

static int tables_show(struct seq_file *out, void *unused)
{
	struct cygnic *nic = out->private;
	struct cygnic_policy *policy;
	struct cygnic_sa *sa;
	int i;

	rcu_read_lock();
	hash_for_each_rcu(nic->sa_in, i, sa, node)
		show_sa(out, sa);
	hash_for_each_rcu(nic->sa_out, i, sa, node)
		show_sa(out, sa);
	for (i = 0; i < ARRAY_SIZE(nic->policies); i++)
		list_for_each_entry_rcu(policy, &nic->policies[i], node)
			show_policy(out, policy);
	rcu_read_unlock();
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(tables);

void cygnic_knobs_add(struct cygnic *nic, const char *name)
{
	struct cygnic_knobs *knobs = &nic->knobs;
	struct dentry *dir = debugfs_create_dir(name, root);

	debugfs_create_file("mode", 0600, dir, nic, &mode_fops);
	debugfs_create_file("refuse_next", 0600, dir, nic, &refuse_next_fops);
	debugfs_create_file("force_expire", 0200, dir, nic, &force_expire_fops);
	debugfs_create_file("reset", 0200, dir, nic, &reset_fops);
	debugfs_create_file("flap", 0200, dir, nic, &flap_fops);
	debugfs_create_file("stats_delay_ms", 0600, dir, nic, &stats_delay_fops);
	debugfs_create_u32("sa_table_size", 0600, dir, &knobs->sa_table_size);
	debugfs_create_u32("policy_table_size", 0600, dir, &knobs->policy_table_size);
	debugfs_create_bool("no_esn", 0600, dir, &knobs->no_esn);
	debugfs_create_bool("byte_limits", 0600, dir, &knobs->byte_limits);
	debugfs_create_bool("packet_limits", 0600, dir, &knobs->packet_limits);
	debugfs_create_bool("leak", 0600, dir, &knobs->leak);
	debugfs_create_bool("accept_clear", 0600, dir, &knobs->accept_clear);
	debugfs_create_bool("refuse_acquire", 0600, dir, &knobs->refuse_acquire);
	debugfs_create_bool("udp_encap", 0600, dir, &knobs->udp_encap);
	debugfs_create_bool("any_protocol", 0600, dir, &knobs->any_protocol);
	debugfs_create_file("tables", 0400, dir, nic, &tables_fops);
	debugfs_create_file("counters", 0400, dir, nic, &counters_fops);
}

void cygnic_knobs_init(void)
{
	root = debugfs_create_dir(KBUILD_MODNAME, NULL);
}

void cygnic_knobs_exit(void)
{
	debugfs_remove_recursive(root);
}
