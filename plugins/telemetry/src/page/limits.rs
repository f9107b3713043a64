//! How far a CHILD SA is from its limits.

use ike_model::ChildSaSnapshot;
use serde::Serialize;

/// One unit of limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Limit {
    /// `seconds`, `bytes` or `packets`.
    pub(super) unit: &'static str,
    /// Where a rekey is due.
    pub(super) soft: Option<u64>,
    /// Where it ends.
    pub(super) hard: Option<u64>,
    /// What is left until the rekey; negative when it is overdue.
    pub(super) soft_left: Option<i64>,
    /// What is left until the end.
    pub(super) hard_left: Option<i64>,
    /// Part of the soft limit that is used, else of the hard one.
    pub(super) used: Option<f64>,
}

/// The limit that is nearest by the part that is used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Nearest {
    pub(super) unit: &'static str,
    pub(super) left: i64,
    pub(super) used: f64,
}

/// All units in which there is a limit.
pub(super) fn limits(child: &ChildSaSnapshot) -> Vec<Limit> {
    let (soft, hard) = (child.limits.soft, child.limits.hard);
    // Each direction has an SA of its own with the same limits: the one that has carried more gets there first.
    let most = |of: fn(&ike_model::snapshot::Traffic) -> u64| of(&child.traffic_in).max(of(&child.traffic_out));
    let bytes = limit("bytes", soft.bytes, hard.bytes, most(|traffic| traffic.bytes));
    let packets = limit("packets", soft.packets, hard.packets, most(|traffic| traffic.packets));
    [time(child), bytes, packets].into_iter().flatten().collect()
}

/// The one that comes first at the present pace of all: the most used one.
pub(super) fn nearest(limits: &[Limit]) -> Option<Nearest> {
    let known = limits.iter().filter_map(|limit| {
        Some(Nearest { unit: limit.unit, left: limit.soft_left.or(limit.hard_left)?, used: limit.used? })
    });
    known.max_by(|a, b| a.used.total_cmp(&b.used))
}

/// The daemon itself watches the time, and knows best how much is left: the limit has jitter.
fn time(child: &ChildSaSnapshot) -> Option<Limit> {
    let age = child.installed_seconds?;
    let end = |left: Option<i64>| left.map(|left| age.saturating_add_signed(left));
    let (soft, hard) = (end(child.rekey_seconds), end(child.life_seconds));
    let whole = soft.or(hard)?;
    let used = Some(part(age, whole));
    Some(Limit { unit: "seconds", soft, hard, soft_left: child.rekey_seconds, hard_left: child.life_seconds, used })
}

fn limit(unit: &'static str, soft: Option<u64>, hard: Option<u64>, carried: u64) -> Option<Limit> {
    let left = |limit: Option<u64>| limit.map(|limit| difference(limit, carried));
    let whole = soft.or(hard)?;
    Some(Limit { unit, soft, hard, soft_left: left(soft), hard_left: left(hard), used: Some(part(carried, whole)) })
}

fn difference(limit: u64, carried: u64) -> i64 {
    match limit.checked_sub(carried) {
        Some(left) => i64::try_from(left).unwrap_or(i64::MAX),
        None => i64::try_from(carried - limit).map_or(i64::MIN, |over| -over),
    }
}

/// With four digits: it is drawn.
fn part(of: u64, whole: u64) -> f64 {
    let ten_thousandths =
        if whole == 0 { 10_000 } else { (u128::from(of) * 10_000 / u128::from(whole)).min(1_000_000) };
    f64::from(u32::try_from(ten_thousandths).unwrap_or(u32::MAX)) / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::fixture::child;

    #[test]
    fn the_busier_direction_counts_and_time_is_the_daemons() {
        let mut sa = child("net", 7);
        sa.installed_seconds = Some(600);
        (sa.rekey_seconds, sa.life_seconds) = (Some(2400), Some(3000));
        (sa.limits.soft.packets, sa.limits.hard.packets) = (Some(1000), Some(1200));
        (sa.traffic_in.packets, sa.traffic_out.packets) = (100, 900);
        let limits = limits(&sa);
        let units: Vec<&str> = limits.iter().map(|limit| limit.unit).collect();
        assert_eq!(units, ["seconds", "packets"]);
        assert_eq!((limits[0].soft, limits[0].hard, limits[0].used), (Some(3000), Some(3600), Some(0.2)));
        assert_eq!((limits[1].soft_left, limits[1].hard_left, limits[1].used), (Some(100), Some(300), Some(0.9)));
        assert_eq!(nearest(&limits), Some(Nearest { unit: "packets", left: 100, used: 0.9 }));
    }

    #[test]
    fn what_is_overdue_is_negative_and_no_limit_is_none() {
        let mut sa = child("net", 7);
        sa.limits.hard.bytes = Some(10);
        sa.traffic_in.bytes = u64::MAX;
        let limits = limits(&sa);
        assert_eq!((limits[0].unit, limits[0].soft_left, limits[0].hard_left), ("bytes", None, Some(i64::MIN)));
        assert_eq!(limits[0].used, Some(100.0));
        sa.limits.hard.bytes = None;
        assert_eq!(nearest(&super::limits(&sa)), None);
    }
}
