//! Starts, breaks and stops the real servers that tests run on: etcd, PostgreSQL, MariaDB, Redis and
//! coordinators, and a TCP proxy between them.
//!
//! Every server listens on loopback only, on ports reserved across test processes ([`Port`]), keeps its
//! data and logs in a temporary directory, and is ended when its value is dropped, also by a panic. On a
//! panic, or with `PALISADE_TEST_KEEP_LOGS` set, its logs are kept in `tests/logs` of the workspace and
//! the place is printed. Where util-linux's `setpriv` is on PATH the servers also end with the test
//! process itself, however that ends.
//!
//! A program that is not installed is an error that names what installs it, never a skipped test.

mod clock;
mod coordinator;
mod error;
mod etcd;
mod fuzz;
mod home;
mod http;
mod mariadb;
mod owner;
pub mod pki;
mod port;
mod postgres;
mod process;
mod program;
mod proxy;
mod redis;
mod template;
mod tmux;
mod tree;

pub use clock::{eventually, within};
pub use coordinator::{Coordinator, CoordinatorBuilder};
pub use error::Error;
pub use etcd::{Etcd, EtcdBuilder, EtcdCluster, EtcdTls, EtcdVersion};
pub use fuzz::fuzz;
pub use mariadb::{MariaDb, MariaDbBuilder};
pub use port::{Port, free_port};
pub use postgres::{Postgres, PostgresBuilder};
pub use process::Process;
pub use proxy::Proxy;
pub use redis::{Redis, RedisBuilder};
pub use tmux::Tmux;

#[cfg(test)]
mod tests {
    use super::{Coordinator, Etcd, MariaDb, Postgres, Proxy, Redis};

    fn sendable<T>(_future: impl Future<Output = T> + Send) {}

    /// Tests break servers from tasks beside the one under test.
    #[allow(dead_code, reason = "that it compiles is the test")]
    fn futures_can_be_spawned(
        (mut etcd, mut server, mut one): (Etcd, Postgres, Coordinator),
        (mut maria, mut redis): (MariaDb, Redis),
        link: Proxy,
    ) {
        sendable(Etcd::start());
        sendable(Postgres::start());
        sendable(Coordinator::builder().start());
        sendable(etcd.start_again());
        sendable(etcd.stop());
        sendable(etcd.wipe());
        sendable(server.start_again());
        sendable(server.stop());
        sendable(MariaDb::start());
        sendable(maria.start_again());
        sendable(maria.stop());
        sendable(Redis::start());
        sendable(redis.start_again());
        sendable(redis.stop());
        sendable(one.start_again());
        sendable(one.terminate());
        sendable(link.cut());
    }
}
