use palisade_guard::GuardError;
use palisade_guard::conformance::{Capability, Subject, resources, run_all};
use palisade_guard::decide::Mark;
use palisade_guard::redis::{Guard, GuardedWrite, Sealed};
use palisade_test_support::Redis;
use palisade_token::{Grant, ResourceName};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Value, cmd};
use tokio::sync::Mutex;

use crate::broken::{CHECKED_EARLY, Check, PATIENCE, PAUSE, UNCHECKED, fails, pass};

#[tokio::test]
async fn it_does_what_every_store_must_but_for_what_it_lacks() {
    let server = Server::start().await;
    run_all(|| server.subject(Check::Whole)).await;
}

/// Shown by name, a grant is checked by nobody then.
const SHOWN: &[&str] = &["another_holder_collides", "unsealed_is_refused"];

#[tokio::test]
async fn without_its_check_it_fails() {
    let server = Server::start().await;
    fails(|| server.subject(Check::NotByTheStore), &[SHOWN]).await;
    fails(|| server.subject(Check::BeforeTheWrite), &[CHECKED_EARLY]).await;
    // No write is of several resources here.
    let unchecked: Vec<&str> = UNCHECKED
        .iter()
        .copied()
        .filter(|case| *case != "one_stale_resource_stops_the_whole_write")
        .collect();
    fails(|| server.subject(Check::Never), &[SHOWN, &unchecked]).await;
}

struct Server {
    redis: Mutex<Redis>,
    client: Client,
}

/// A server with a key for each resource.
struct Keys<'a> {
    server: &'a Server,
    guard: Guard,
    check: Check,
    crashes: u32,
    backup: Vec<(String, Vec<u8>)>,
}

struct Write {
    puts: Vec<(ResourceName, u64)>,
    guarded: Option<GuardedWrite>,
    crashes: u32,
}

fn key(resource: &ResourceName) -> String {
    format!("register:{{{resource}}}")
}

impl Server {
    async fn start() -> Self {
        let redis = Redis::start().await.unwrap();
        let client = Client::open(redis.url()).unwrap();
        let new = Self {
            redis: Mutex::new(redis),
            client,
        };
        let mut connection = new.connect().await;
        Guard::new().install(&mut connection).await.unwrap();
        new
    }

    async fn connect(&self) -> MultiplexedConnection {
        let connected = self.client.get_multiplexed_async_connection().await;
        connected.unwrap()
    }

    async fn run<T: redis::FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect().await;
        command.query_async(&mut connection).await.unwrap()
    }

    async fn subject(&self, check: Check) -> Keys<'_> {
        self.run::<()>(&cmd("FLUSHALL")).await;
        Keys {
            server: self,
            guard: Guard::new(),
            check,
            crashes: 0,
            backup: Vec::new(),
        }
    }
}

impl Subject for Keys<'_> {
    const LACKS: &'static [Capability] = &[Capability::Unguarded, Capability::Several];

    type Sealed = Sealed;
    type Write = Write;

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        let mut connection = self.server.connect().await;
        self.guard.seal(&mut connection, grant).await
    }

    async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
        let [sealed] = sealed else {
            panic!("one resource");
        };
        let guarded = match self.check {
            Check::Never => None,
            Check::BeforeTheWrite => {
                let mut connection = self.server.connect().await;
                let nothing = self.guard.begin(sealed)?;
                nothing.commit(&mut connection).await?;
                None
            }
            _ => Some(self.guard.begin(sealed)?),
        };
        Ok(Write {
            puts: Vec::new(),
            guarded,
            crashes: self.crashes,
        })
    }

    async fn put(
        &self,
        write: &mut Write,
        resource: &ResourceName,
        value: u64,
    ) -> Result<(), GuardError> {
        write.puts.push((resource.clone(), value));
        if let Some(guarded) = &mut write.guarded {
            guarded.push(&Cmd::set(key(resource), value))?;
        }
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<(), GuardError> {
        if write.crashes < self.crashes {
            return Err(GuardError::RolledBack(None));
        }
        if let Some(guarded) = write.guarded {
            let mut connection = self.server.connect().await;
            return guarded.commit(&mut connection).await.map(drop);
        }
        for (resource, value) in write.puts {
            self.server
                .run::<()>(&Cmd::set(key(&resource), value))
                .await;
        }
        Ok(())
    }

    async fn get(&self, resource: &ResourceName) -> Option<u64> {
        self.server.run(&Cmd::get(key(resource))).await
    }

    async fn fence(&self, resource: &ResourceName) -> Option<Mark> {
        let mut connection = self.server.connect().await;
        let fence = self.guard.fence(&mut connection, resource).await.unwrap()?;
        Some(Mark {
            token: fence.token,
            holder: fence.holder,
        })
    }

    async fn patience(&self) {
        pass(PATIENCE).await;
    }

    async fn pause(&self) {
        pass(PAUSE).await;
    }

    /// As another language would do it.
    async fn show(&self, grant: &Grant, value: u64) -> Result<(), GuardError> {
        let (resource, presented) = (grant.resource.clone(), grant.token);
        let set = Cmd::set(key(&resource), value);
        if matches!(self.check, Check::Never | Check::NotByTheStore) {
            self.server.run::<()>(&set).await;
            return Ok(());
        }
        let mut call = cmd("FCALL");
        call.arg("palisade_write_1").arg(2);
        call.arg(format!("palisade:{{{resource}}}:fence"));
        call.arg(key(&resource)).arg(resource.as_str());
        call.arg(presented.to_string())
            .arg(grant.holder.to_string());
        call.arg(3).arg("set").arg(key(&resource)).arg(value);
        let reply: Vec<Value> = self.server.run(&call).await;
        let word = |index: usize| -> String {
            let value = reply.get(index).cloned().unwrap_or_default();
            redis::from_redis_value(value).unwrap_or_default()
        };
        let fence = word(1).parse().ok();
        match word(0).as_str() {
            "ok" => Ok(()),
            "stale" => Err(GuardError::Stale {
                resource,
                presented,
                fence: fence.unwrap(),
            }),
            "unsealed" => Err(GuardError::Unsealed {
                resource,
                presented,
                fence,
            }),
            "collision" => Err(GuardError::Collision {
                resource,
                token: presented,
            }),
            other => panic!("{other}"),
        }
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    async fn restart(&mut self) {
        self.server.redis.lock().await.start_again().await.unwrap();
        self.crashes += 1;
    }

    async fn back_up(&mut self) {
        let keys: Vec<String> = self.server.run(cmd("KEYS").arg("*")).await;
        for key in keys {
            let dump = self.server.run(cmd("DUMP").arg(&key)).await;
            self.backup.push((key, dump));
        }
    }

    async fn restore(&mut self) {
        self.server.run::<()>(&cmd("FLUSHALL")).await;
        for (key, dump) in &self.backup {
            let mut restore = cmd("RESTORE");
            restore.arg(key).arg(0).arg(dump);
            self.server.run::<()>(&restore).await;
        }
    }

    async fn delete_data(&mut self) {
        for resource in resources() {
            self.server.run::<()>(&Cmd::del(key(&resource))).await;
        }
    }
}
