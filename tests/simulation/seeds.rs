//! Runs histories from seeds. A seed that fails is printed with the one command that runs it again.

use std::sync::Arc;
use std::time::Duration;

use crate::history::History;
use crate::planted::Honest;
use crate::world::{Config, Delays, Faults, StoreOdds, run};

/// Nothing goes wrong: what is found here is wrong in the simulation.
pub(crate) fn calm() -> Config {
    Config {
        name: "calm",
        coordinators: 1,
        clients: 2,
        operators: 0,
        resources: 2,
        ttl: Duration::from_secs(5),
        faulty: Duration::from_secs(20),
        healed: Duration::from_secs(5),
        drift_ppm: 0,
        walls_apart: Duration::ZERO,
        delays: Delays {
            usual: 2,
            slow_one_in: 0,
            slow: 0,
        },
        odds: StoreOdds::default(),
        faults: Faults::default(),
    }
}

fn honest(seed: u64, config: &Config) -> History {
    run(seed, config, Arc::new(Honest))
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let config = calm();
    let (one, other) = (honest(7, &config), honest(7, &config));
    assert!(one.entries.len() > 50, "{:#?}", one.entries);
    for (left, right) in one.entries.iter().zip(&other.entries) {
        assert_eq!(left, right);
    }
    assert_eq!(one.entries.len(), other.entries.len());
}
