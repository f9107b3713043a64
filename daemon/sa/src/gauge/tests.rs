//! Readings against traffic of several shapes, on a clock that is simulated.

use ipsec::{EspAlgorithm, Volume};

use super::*;

/// What a reading and the request that ends the SA take.
const DELAY: f64 = 0.001;
/// The lower bound for sudden traffic, as the core chooses it for few SAs.
const SUDDEN: Duration = Duration::from_secs(1);
const OURS: Each<bool> = Each { bytes: false, packets: false };
const DEVICE: Each<bool> = Each { bytes: true, packets: true };

/// Packets so many seconds after the start.
type Shape = Box<dyn Fn(f64) -> f64>;

fn limits(soft: u64, hard: u64) -> Limits {
    let packets = |packets| Volume { packets: Some(packets), ..Volume::default() };
    Limits { soft: packets(soft), hard: packets(hard) }
}

fn constant(rate: f64) -> Shape {
    Box::new(move |time| time * rate)
}

/// From one rate to another.
fn step(from: f64, to: f64, at: f64) -> Shape {
    Box::new(move |time| time.min(at) * from + (time - at).max(0.0) * to)
}

/// At this rate for the first part of each period.
fn bursts(rate: f64, on: f64, period: f64) -> Shape {
    Box::new(move |time| rate * ((time / period).floor() * on + (time % period).min(on)))
}

/// Readings until the soft limit and until the end, when the soft limit was found, and what had passed in the end.
#[derive(Debug, Default)]
struct Run {
    to_soft: u32,
    readings: u32,
    soft_at: f64,
    ended_at: f64,
    passed: u64,
}

impl Run {
    fn overrun(&self, hard: u64) -> f64 {
        (self.passed as f64 - hard as f64) / hard as f64 * 100.0
    }
}

fn whole(count: f64) -> u64 {
    count as u64
}

fn run(limits: &Limits, raised: Each<bool>, shape: &Shape) -> Run {
    let at = |time: f64| Instant::START + Duration::from_secs_f64(time);
    let mut gauge = Gauge::starting(Instant::START);
    let mut run = Run::default();
    let mut time = 0.0;
    loop {
        time += gauge.next(limits, raised, SUDDEN).expect("there is a limit").as_secs_f64();
        assert!(run.readings < 1_000_000 && time < 1e9, "it never ends: {run:?}");
        run.readings += 1;
        let packets = whole(shape(time));
        gauge.read(Each { bytes: 0, packets }, at(time));
        if run.to_soft == 0 && gauge.soft(limits).is_some() {
            (run.to_soft, run.soft_at) = (run.readings, time);
        }
        if gauge.hard(limits, raised).is_some() {
            (run.ended_at, run.passed) = (time, whole(shape(time + DELAY)));
            return run;
        }
    }
}

struct Case {
    name: &'static str,
    hard: u64,
    shape: Shape,
    /// Readings until the end, at most.
    most: u32,
}

/// The figures are printed: readings, time between them, overrun.
#[test]
fn no_shape_of_traffic_overruns_a_limit_by_a_percent() {
    let sequence = ipsec::Bounds::SEQUENCE;
    let cases = [
        Case { name: "an hour at constant speed", hard: 3_600_000, shape: constant(1_000.0), most: 3_700 },
        Case { name: "ten minutes at constant speed", hard: 60_000_000, shape: constant(100_000.0), most: 1_100 },
        Case { name: "ten seconds at constant speed", hard: 1_000_000, shape: constant(100_000.0), most: 450 },
        Case { name: "one second at constant speed", hard: 100_000, shape: constant(100_000.0), most: 180 },
        Case { name: "a hundred times faster early", hard: 1_000_000, shape: step(100.0, 10_000.0, 30.0), most: 600 },
        Case {
            name: "a hundred times faster late",
            hard: 1_000_000,
            shape: step(1_000.0, 100_000.0, 985.0),
            most: 1_500,
        },
        Case { name: "bursts of 10 ms in 100", hard: 1_000_000, shape: bursts(200_000.0, 0.01, 0.1), most: 700 },
        Case { name: "bursts of a second in ten", hard: 1_000_000, shape: bursts(100_000.0, 1.0, 10.0), most: 700 },
        Case {
            name: "bursts of a minute in an hour",
            hard: 10_000_000,
            shape: bursts(50_000.0, 60.0, 3_600.0),
            most: 15_000,
        },
        Case { name: "line rate of 10 Gbit/s", hard: sequence, shape: constant(14_880_952.0), most: 550 },
        Case { name: "idle, then 10 Gbit/s", hard: sequence, shape: step(0.0, 14_880_952.0, 7_200.5), most: 2_000 },
        Case {
            name: "a trickle, then 10 Gbit/s",
            hard: sequence,
            shape: step(1.0, 14_880_952.0, 7_200.5),
            most: 2_000,
        },
        Case { name: "line rate of 400 Gbit/s", hard: sequence, shape: constant(595_238_095.0), most: 450 },
        Case { name: "faster than any link", hard: sequence, shape: constant(1.2e9), most: 450 },
        Case { name: "a day, with the bound of a cipher", hard: 1 << 37, shape: constant(2e6), most: 2_000 },
    ];
    for Case { name, hard, shape, most } in cases {
        let run = run(&limits(hard - hard / 10, hard), OURS, &shape);
        let overrun = run.overrun(hard);
        let each = run.ended_at / f64::from(run.readings);
        println!("{name}: overrun {overrun:+.3} %, {} readings, one in {each:.3} s", run.readings);
        assert!((-1.0..=1.0).contains(&overrun), "{name}: {overrun:.3} %, {run:?}");
        assert!(run.readings <= most, "{name}: {run:?}");
        // A rekeying has most of the way between both limits left.
        let late = shape(run.soft_at) / (hard - hard / 10) as f64 - 1.0;
        assert!(run.to_soft > 0 && late < 0.03, "{name}: the soft limit is found {late:.4} late");
    }
}

/// At a speed that exhausts the limit between two readings nothing can be promised but that it ends.
#[test]
fn a_limit_that_lasts_no_time_ends_at_the_first_reading_after_it() {
    let run = run(&limits(900, 1_000), OURS, &constant(1_000_000.0));
    assert_eq!(run.readings, 1, "{run:?}");
}

/// The core looks so rarely that it costs nothing, and yet between the two limits.
#[test]
fn what_the_device_raises_is_looked_at_between_both_limits() {
    let cases =
        [(1_000.0, 3_600_000), (10.0, 1_000_000), (100_000.0, 60_000_000), (14_880_952.0, ipsec::Bounds::SEQUENCE)];
    for (rate, hard) in cases {
        let soft = hard - hard / 10;
        let run = run(&limits(soft, hard), DEVICE, &constant(rate));
        let found = rate * run.soft_at;
        println!("{rate} in a second: {} readings until {:.1} % of the way", run.to_soft, found / hard as f64 * 100.0);
        assert!(found < hard as f64, "found after the hard limit: {run:?}");
        let length = hard as f64 / rate;
        assert!(f64::from(run.to_soft) <= 16.0 + length / LONGEST.as_secs_f64(), "{run:?}");
    }
    // Traffic that becomes twice as fast between two readings.
    let mut gauge = Gauge::starting(Instant::START);
    let limits = limits(900_000, 1_000_000);
    gauge.read(Each { bytes: 0, packets: 300_000 }, Instant::START + Duration::from_secs(300));
    let next = gauge.next(&limits, DEVICE, SUDDEN).unwrap();
    let then = 300_000.0 + next.as_secs_f64() * 2_000.0;
    assert!(then < 1_000_000.0, "{then} packets at the next reading");
}

#[test]
fn without_limits_nothing_is_read() {
    let gauge = Gauge::starting(Instant::START);
    assert_eq!(gauge.next(&Limits::default(), OURS, SUDDEN), None);
    let bounded = Limits::default().bounded(EspAlgorithm::AES_256_GCM, false);
    assert!(gauge.next(&bounded, DEVICE, SUDDEN).is_some_and(|next| next > Duration::from_secs(2)));
}

#[test]
fn idle_sas_are_read_as_often_as_their_limit_needs() {
    let next = |limits: &Limits, age: u64| {
        let mut gauge = Gauge::starting(Instant::START);
        gauge.read(Each::default(), Instant::START + Duration::from_secs(age));
        gauge.next(limits, OURS, SUDDEN).unwrap()
    };
    assert_eq!(next(&limits(900, 1_000), 0), FIRST, "a small limit can be gone in no time");
    assert_eq!(next(&limits(900, 1_000), 60), SUDDEN);
    let bounded = |esn| Limits::default().bounded(EspAlgorithm::AES_256_GCM, esn);
    let (few, many) = (next(&bounded(false), 600), next(&bounded(true), 600));
    assert!(few > Duration::from_secs(5) && many > Duration::from_secs(130), "{few:?} {many:?}");
}

#[test]
fn readings_add_up_and_two_in_a_row_measure_nothing() {
    let mut gauge = Gauge::starting(Instant::START);
    let at = |milliseconds| Instant::START + Duration::from_millis(milliseconds);
    let read = |gauge: &mut Gauge, packets, time| gauge.read(Each { bytes: packets * 100, packets }, at(time));
    assert_eq!(read(&mut gauge, 1_000, 1_000), Each { bytes: 100_000, packets: 1_000 });
    assert_eq!(gauge.rate, Each { bytes: 100_000, packets: 1_000 });
    assert_eq!(read(&mut gauge, 1_064, 1_001), Each { bytes: 6_400, packets: 64 });
    assert_eq!((gauge.rate.packets, gauge.count.packets), (1_000, 1_064));
    assert_eq!(read(&mut gauge, 1_100, 1_100).packets, 36);
    assert_eq!(gauge.rate.packets, 1_000, "a hundred in a tenth of a second");
    // A counter that goes back adds nothing.
    assert_eq!(read(&mut gauge, 10, 2_000), Each::default());
}
