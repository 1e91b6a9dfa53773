//! Metrics with one label, each value's series resolved once.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::Label;

/// From below a commit of etcd's on a fast disk to beyond the longest call, in seconds.
const LATENCIES: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// Times to live are 1 s to 5 min by default and 15 s as a rule, in seconds.
const LEFT: [f64; 12] = [
    0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0,
];

pub(super) type Pair = (&'static str, &'static str);

/// Makes histograms of how long something took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latencies;

impl MetricConstructor<Histogram> for Latencies {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCIES)
    }
}

/// Where metrics are registered, by full name.
pub(super) trait Register {
    fn counter(&mut self, name: &str, help: &str) -> Counter;
    fn counters<L: Label>(&mut self, name: &str, help: &str) -> Counters<L>;
    fn pairs<A: Label, B: Label>(&mut self, name: &str, help: &str) -> Pairs<A, B>;
    fn latencies(&mut self, name: &str, help: &str) -> Histogram;
    fn latencies_of<L: Label>(&mut self, name: &str, help: &str) -> Histograms<L>;
    fn left(&mut self, name: &str, help: &str) -> Histogram;
}

impl Register for Registry {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    fn counters<L: Label>(&mut self, name: &str, help: &str) -> Counters<L> {
        let family = Family::<[Pair; 1], Counter>::default();
        self.register(name, help, family.clone());
        let resolve = |value: &L| family.get_or_create_owned(&[(L::NAME, value.value())]);
        Counters {
            series: L::ALL.iter().map(resolve).collect(),
            label: PhantomData,
        }
    }

    fn pairs<A: Label, B: Label>(&mut self, name: &str, help: &str) -> Pairs<A, B> {
        let family = Family::<[Pair; 2], Counter>::default();
        self.register(name, help, family.clone());
        let values = A::ALL
            .iter()
            .flat_map(|a| B::ALL.iter().map(move |b| (a, b)));
        let resolve = |(a, b): (&A, &B)| {
            family.get_or_create_owned(&[(A::NAME, a.value()), (B::NAME, b.value())])
        };
        Pairs {
            series: values.map(resolve).collect(),
            labels: PhantomData,
        }
    }

    fn latencies_of<L: Label>(&mut self, name: &str, help: &str) -> Histograms<L> {
        let family = Family::<[Pair; 1], Histogram, Latencies>::new_with_constructor(Latencies);
        self.register(name, help, family.clone());
        let resolve = |value: &L| family.get_or_create_owned(&[(L::NAME, value.value())]);
        Histograms {
            series: L::ALL.iter().map(resolve).collect(),
            label: PhantomData,
        }
    }

    fn latencies(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = Latencies.new_metric();
        self.register(name, help, histogram.clone());
        histogram
    }

    fn left(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = Histogram::new(LEFT);
        self.register(name, help, histogram.clone());
        histogram
    }
}

/// A counter for each value of a label. All are exported from the start, so that the first event is seen as
/// a rise from 0.
#[derive(Debug)]
pub(super) struct Counters<L> {
    series: Box<[Counter]>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    pub(super) fn inc(&self, value: L) {
        self.series[value.index()].inc();
    }
}

/// A counter for each two values of two labels.
#[derive(Debug)]
pub(super) struct Pairs<A, B> {
    series: Box<[Counter]>,
    labels: PhantomData<(A, B)>,
}

impl<A: Label, B: Label> Pairs<A, B> {
    pub(super) fn inc(&self, a: A, b: B) {
        self.series[a.index() * B::ALL.len() + b.index()].inc();
    }
}

/// A histogram of how long something took for each value of a label.
#[derive(Debug)]
pub(super) struct Histograms<L> {
    series: Box<[Histogram]>,
    label: PhantomData<L>,
}

impl<L: Label> Histograms<L> {
    pub(super) fn observe(&self, value: L, took: Duration) {
        observe(&self.series[value.index()], took);
    }
}

pub(super) fn observe(histogram: &Histogram, took: Duration) {
    histogram.observe(took.as_secs_f64());
}
