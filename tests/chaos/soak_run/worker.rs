//! One worker process: works, rests and says how it stands, as the files in its directory tell it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crew::Crew;
use crate::{Failed, sleep};

/// How often a worker looks what it is to do, and says how it stands.
const LOOK: Duration = Duration::from_millis(250);

/// What the conductor wants of all workers: kept in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Work,
    Rest,
}

impl Phase {
    pub(crate) fn write(self, dir: &Path) -> Result<(), Failed> {
        let word = match self {
            Self::Work => "work",
            Self::Rest => "rest",
        };
        write_whole(&dir.join("phase"), word.as_bytes())
    }

    fn read(dir: &Path) -> Self {
        match std::fs::read(dir.join("phase")).as_deref() {
            Ok(b"work") => Self::Work,
            _ => Self::Rest,
        }
    }
}

/// A defect that is put in so that the soak is seen to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// A session that nobody uses is kept, and so renewed for ever.
    Session,
    /// A file is opened and never closed.
    Handle,
    /// Memory that nobody looks at again.
    Memory,
    /// A task that never ends.
    Task,
    /// Answers of effects are never purged.
    Rows,
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "session" => Ok(Self::Session),
            "handle" => Ok(Self::Handle),
            "memory" => Ok(Self::Memory),
            "task" => Ok(Self::Task),
            "rows" => Ok(Self::Rows),
            _ => Err(format!(
                "--plant is {text:?}; allowed is session, handle, memory, task or rows"
            )),
        }
    }
}

impl Plant {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Session => "session",
            Self::Handle => "handle",
            Self::Memory => "memory",
            Self::Task => "task",
            Self::Rows => "rows",
        }
    }
}

/// What a worker is started with.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) coordinators: Vec<String>,
    pub(crate) postgres: String,
    pub(crate) plant: Plant,
}

impl Order {
    pub(crate) fn args(&self) -> [String; 6] {
        [
            "worker".to_owned(),
            self.name.clone(),
            self.dir.display().to_string(),
            self.coordinators.join(","),
            self.postgres.clone(),
            self.plant.word().to_owned(),
        ]
    }

    pub(crate) fn parse(args: &[String]) -> Result<Self, Failed> {
        let [name, dir, coordinators, postgres, plant] = args else {
            return Err("soak worker NAME DIR COORDINATOR[,COORDINATOR] POSTGRES PLANT".into());
        };
        Ok(Self {
            name: name.clone(),
            dir: dir.into(),
            coordinators: coordinators.split(',').map(str::to_owned).collect(),
            postgres: postgres.clone(),
            plant: plant.parse()?,
        })
    }

    /// Where it says how it stands.
    pub(crate) fn status_file(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.name))
    }
}

/// How a worker says that it stands.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) is_resting: bool,
    pub(crate) tasks: u64,
    /// Tasks that have panicked or have not ended when they were to.
    pub(crate) failures: u64,
    pub(crate) work: serde_json::Map<String, Value>,
}

impl Status {
    pub(crate) fn read(file: &Path) -> Option<Self> {
        let status: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        Some(Self {
            is_resting: status["resting"].as_bool()?,
            tasks: status["tasks"].as_u64()?,
            failures: status["failures"].as_u64()?,
            work: status["work"].as_object()?.clone(),
        })
    }
}

pub(crate) async fn run(order: Order) -> Result<(), Failed> {
    let mut crew = Crew::new(order.clone());
    loop {
        match Phase::read(&order.dir) {
            Phase::Work => crew.work()?,
            Phase::Rest => crew.rest().await,
        }
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        let status = json!({
            "resting": !crew.is_at_work(),
            "tasks": tasks,
            "failures": crew.failures(),
            "work": crew.tally(),
        });
        write_whole(&order.status_file(), status.to_string().as_bytes())?;
        sleep(LOOK).await;
    }
}

/// Whoever reads the file sees all of it, or what was there before.
fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, file)?;
    Ok(())
}
