//! What is told of many times that were measured.

use std::time::Duration;

/// Median, 99th of a hundred, longest.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    [at(0.5), at(0.99), at(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_members_of_the_list() {
        let times = (1..=100).rev().map(Duration::from_secs).collect();
        assert_eq!(quantiles(times), [50, 99, 100].map(Duration::from_secs));
        assert_eq!(quantiles(vec![Duration::from_secs(7)]), [Duration::from_secs(7); 3]);
        assert_eq!(quantiles(Vec::new()), [Duration::ZERO; 3]);
    }
}
