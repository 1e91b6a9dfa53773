//! What is simulated: who there is, and what goes wrong how often.

use std::time::Duration;

use crate::world::{Config, Delays, Faults, StoreOdds};

/// Nothing goes wrong: what is found here is wrong in the simulation, or badly.
pub(crate) fn calm() -> Config {
    Config {
        name: "calm",
        coordinators: 2,
        clients: 3,
        operators: 1,
        resources: 2,
        ttl: Duration::from_secs(5),
        faulty: Duration::from_secs(20),
        healed: Duration::from_secs(5),
        drift_ppm: 4_000,
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

/// Links lose, delay, and carry nothing in one direction or in both.
pub(crate) fn network() -> Config {
    Config {
        name: "network",
        coordinators: 3,
        clients: 5,
        operators: 1,
        resources: 2,
        faulty: Duration::from_secs(30),
        // What was under way when the faults ended takes 5 s to be given up, and I5 looks at what comes after that.
        healed: Duration::from_secs(16),
        delays: Delays {
            usual: 5,
            slow_one_in: 40,
            slow: 2_000,
        },
        odds: StoreOdds {
            unheard: 10,
            late: 10,
            lost: 10,
            turned_away: 10,
            old_read: 20,
            late_news: 50,
            missed_news: 10,
            broken_watch: 5,
        },
        faults: Faults {
            every: 2_500,
            longest: 9_000,
            cuts: 8,
            islands: 2,
            resets: 4,
            ..Faults::default()
        },
        ..calm()
    }
}

/// Processes end, stand still and come back, the store among them; what is sent to the store may happen, or not, or
/// much later, and nobody is told.
pub(crate) fn crashes() -> Config {
    Config {
        name: "crashes",
        odds: StoreOdds {
            unheard: 40,
            late: 40,
            lost: 20,
            turned_away: 20,
            old_read: 10,
            late_news: 20,
            missed_news: 5,
            broken_watch: 5,
        },
        delays: Delays {
            usual: 3,
            slow_one_in: 200,
            slow: 500,
        },
        faults: Faults {
            every: 2_500,
            longest: 12_000,
            crashes: 5,
            pauses: 4,
            suspends: 4,
            resets: 1,
            store_restarts: 1,
            ..Faults::default()
        },
        ..network()
    }
}

/// The store is put back to older points, with clocks an hour apart; sessions die by the dozen, reads and news are old.
pub(crate) fn restores() -> Config {
    Config {
        name: "restores",
        clients: 6,
        walls_apart: Duration::from_secs(3600),
        odds: StoreOdds {
            unheard: 20,
            late: 20,
            lost: 10,
            turned_away: 10,
            old_read: 150,
            late_news: 150,
            missed_news: 50,
            broken_watch: 20,
        },
        faults: Faults {
            every: 3_000,
            longest: 9_000,
            crashes: 1,
            pauses: 2,
            suspends: 1,
            cuts: 1,
            store_restarts: 1,
            restores: 4,
            disasters: 1,
            ..Faults::default()
        },
        ..network()
    }
}
