use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use palisade_guard::GuardError;
use palisade_guard::conformance::{Capability, Subject};
use palisade_guard::decide::Mark;
use palisade_guard::memory::{Durability, FenceTable, OwnedPermit, Sealed};
use palisade_token::{Grant, ResourceName};

use crate::broken::{CHECKED_EARLY, Check, PATIENCE, PAUSE, UNCHECKED, UNLOCKED, fails, pass};

palisade_guard::conformance_tests!(
    #[tokio::test]
    Engine::fresh
);

#[tokio::test]
async fn with_a_check_before_the_write_it_fails() {
    fails(|| Engine::with(Check::BeforeTheWrite), &[CHECKED_EARLY]).await;
}

#[tokio::test]
async fn without_the_check_it_fails() {
    let collision: &[_] = &["another_holder_collides", "unsealed_is_refused"];
    let all: &[_] = &[collision, UNCHECKED, UNLOCKED];
    fails(|| Engine::with(Check::Never), all).await;
}

/// What is left of an engine after a crash.
#[derive(Debug, Clone, Default)]
struct Disk {
    fences: Vec<Grant>,
    values: HashMap<ResourceName, u64>,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

impl Durability for Shared {
    async fn raise(&self, fence: &Grant) -> Result<(), Box<dyn Error + Send + Sync>> {
        tokio::task::yield_now().await;
        self.change(|disk| disk.fences.push(fence.clone()));
        Ok(())
    }
}

/// Registers on a disk that takes its time, and fences beside them.
struct Engine {
    disk: Shared,
    backup: Disk,
    table: FenceTable<Shared>,
    crashes: u32,
    check: Check,
}

struct Write {
    resources: Vec<ResourceName>,
    puts: Vec<(ResourceName, u64)>,
    permits: Vec<OwnedPermit>,
    crashes: u32,
}

impl Engine {
    async fn fresh() -> Self {
        Self::with(Check::Whole).await
    }

    async fn with(check: Check) -> Self {
        tokio::task::yield_now().await;
        let disk = Shared::default();
        Self {
            table: FenceTable::new(disk.clone()),
            disk,
            backup: Disk::default(),
            crashes: 0,
            check,
        }
    }

    fn start_again(&mut self) {
        self.crashes += 1;
        let fences = self.disk.change(|disk| disk.fences.clone());
        self.table = FenceTable::recovered(self.disk.clone(), fences).unwrap();
    }

    async fn apply(&self, write: Write) -> Result<(), GuardError> {
        tokio::task::yield_now().await;
        if write.crashes < self.crashes {
            return Err(GuardError::RolledBack(None));
        }
        self.disk.change(|disk| disk.values.extend(write.puts));
        // It is on the disk: now others may go on.
        drop(write.permits);
        Ok(())
    }
}

impl Subject for Engine {
    /// Without a permit there is no write: nobody can go round.
    const LACKS: &'static [Capability] = &[Capability::Unguarded];

    type Sealed = Sealed;
    type Write = Write;

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.table.seal(grant).await
    }

    async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
        let mut permits = match self.check {
            Check::Never => Vec::new(),
            _ => self.table.enter_all(sealed)?,
        };
        if self.check == Check::BeforeTheWrite {
            permits.clear();
        }
        Ok(Write {
            resources: sealed
                .iter()
                .map(|sealed| sealed.grant().resource.clone())
                .collect(),
            puts: Vec::new(),
            permits,
            crashes: self.crashes,
        })
    }

    async fn put(
        &self,
        write: &mut Write,
        resource: &ResourceName,
        value: u64,
    ) -> Result<(), GuardError> {
        assert!(write.resources.contains(resource));
        write.puts.push((resource.clone(), value));
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<(), GuardError> {
        self.apply(write).await
    }

    async fn get(&self, resource: &ResourceName) -> Option<u64> {
        self.disk.change(|disk| disk.values.get(resource).copied())
    }

    async fn fence(&self, resource: &ResourceName) -> Option<Mark> {
        self.table.fence(resource)
    }

    async fn patience(&self) {
        pass(PATIENCE).await;
    }

    async fn pause(&self) {
        pass(PAUSE).await;
    }

    async fn show(&self, grant: &Grant, value: u64) -> Result<(), GuardError> {
        let permits = match self.check {
            Check::Never => Vec::new(),
            _ => vec![self.table.admit_owned(grant)?],
        };
        self.apply(Write {
            resources: Vec::new(),
            puts: vec![(grant.resource.clone(), value)],
            permits,
            crashes: self.crashes,
        })
        .await
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    async fn restart(&mut self) {
        self.start_again();
    }

    async fn back_up(&mut self) {
        self.backup = self.disk.change(|disk| disk.clone());
    }

    async fn restore(&mut self) {
        self.disk.change(|disk| *disk = self.backup.clone());
        self.start_again();
    }

    async fn delete_data(&mut self) {
        self.disk.change(|disk| disk.values.clear());
    }
}
