//! The process that starts the command and ends its group in time, whatever becomes of `palisade run`.

use std::env;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use palisade_client::{Clock, Moment, SystemClock};
use rustix::process::{Pid, getpid, set_child_subreaper};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::alarm::Alarm;
use super::group::{Exit, Group};
use super::processes;
use super::relay::Relay;
use super::watch::{Act, Watch, Why};
use super::wire::{Order, Report, Wire};
use crate::args::GuardianArgs;
use crate::failure::Failure;

/// How often it looks whether a group that is being ended is gone.
const POLL: Duration = Duration::from_millis(10);

/// How often it tries to kill those who left the group. What cannot be killed by then cannot be.
const STRAY_ROUNDS: u32 = 20;

/// `palisade run-guardian`.
pub(crate) async fn guardian(args: GuardianArgs) -> Result<(), Failure> {
    // Heard, they do nothing: its end is the group's.
    let _survived = Relay::to_survive()?;
    let failed = || Failure::io("guard the command");
    // Whoever loses its parent becomes a child of this process: it can be seen and ended.
    set_child_subreaper(Some(getpid()))
        .map_err(io::Error::from)
        .map_err(failed())?;
    let children = signal(SignalKind::child()).map_err(failed())?;
    let (wire, stdin) = Wire::of_stdin().map_err(failed())?;
    let nanos = Duration::from_nanos;
    let watch = Watch::new(Moment(nanos(args.deadline_ns)), nanos(args.grace_ns));
    let group = start(&args, stdin)?;
    let mut guardian = Guardian {
        wire,
        watch,
        group,
        children,
        alarm: Alarm::new().map_err(failed())?,
        told: None,
        is_orphan: false,
        stray_rounds: 0,
    };
    guardian.tell(Report::Started(group.leader().as_raw_pid()));
    let ended = guardian.guard().await;
    if ended.is_err() {
        // It can guard no longer, so nobody may be left to be guarded.
        drop(group.kill());
    }
    if guardian.is_orphan
        && let Some(litter) = &args.litter
    {
        drop(fs::remove_dir_all(litter));
    }
    let exit = ended.map_err(failed())?;
    guardian.tell(Report::Ended {
        exit,
        why: guardian.watch.why(),
        strays: processes::strays(Some(group.leader())).len(),
    });
    Ok(())
}

/// Starts the command in a group of its own. By this thread, which lives as long as the process: the kernel kills
/// the command when the *thread* that started it ends.
fn start(args: &GuardianArgs, stdin: OwnedFd) -> Result<Group, Failure> {
    let failed = || Failure::io("start the command");
    let mut stage = Command::new(env::current_exe().map_err(failed())?);
    stage
        .arg("run-stage")
        .arg("--guardian")
        .arg(getpid().as_raw_pid().to_string());
    stage.arg("--").args(&args.command);
    let child = stage
        .stdin(stdin)
        .process_group(0)
        .spawn()
        .map_err(failed())?;
    // Not waited for by anybody: its id stays that of the group.
    Ok(Group::of(Pid::from_child(&child)))
}

struct Guardian {
    wire: Wire,
    watch: Watch,
    group: Group,
    children: Signal,
    alarm: Alarm,
    told: Option<Why>,
    is_orphan: bool,
    stray_rounds: u32,
}

impl Guardian {
    /// Returns when nobody of the group is left.
    async fn guard(&mut self) -> io::Result<Exit> {
        loop {
            let now = SystemClock.now();
            let exit = self.group.end_of_leader()?;
            if exit.is_some() {
                self.watch.finished(now);
            }
            self.act(now);
            if let Some(exit) = exit
                && self.group.is_gone()
                && self.are_strays_gone()
            {
                return Ok(exit);
            }
            self.wait(now).await?;
        }
    }

    fn act(&mut self, now: Moment) {
        let done = match self.watch.decide(now) {
            None => Ok(()),
            Some(Act::Terminate) => self.group.terminate(),
            Some(Act::Kill) => self.group.kill(),
        };
        if let Err(error) = done {
            // Of another user's by now. It is not gone, and so not told to be.
            tracing::warn!(%error, "the group was not signalled");
        }
        let why = self.watch.why();
        if let Some(why) = why
            && self.told != Some(why)
        {
            self.told = Some(why);
            self.tell(Report::Ending(why));
        }
    }

    /// When the lease is lost, whoever left the group is killed as far as that can be done. Otherwise it was
    /// perhaps started to stay.
    fn are_strays_gone(&mut self) -> bool {
        if !self.watch.why().is_some_and(Why::is_loss) || self.stray_rounds >= STRAY_ROUNDS {
            return true;
        }
        self.stray_rounds += 1;
        processes::kill_strays(Some(self.group.leader())) == 0
    }

    /// Until there is something new.
    async fn wait(&mut self, now: Moment) -> io::Result<()> {
        let wake = match self.watch.why() {
            None => self.watch.wake(),
            Some(_) => now.after(POLL),
        };
        tokio::select! {
            biased;
            order = self.wire.hear(), if !self.is_orphan => self.hear(order),
            _ = self.children.recv() => self.look_at_children(),
            rung = self.alarm.at(wake) => return rung,
        }
        Ok(())
    }

    fn hear(&mut self, order: Option<Order>) {
        let now = SystemClock.now();
        let moment = |nanos| Moment(Duration::from_nanos(nanos));
        match order {
            Some(Order::Deadline(nanos)) => self.watch.renewed(now, moment(nanos)),
            Some(Order::Stop(nanos)) => self.watch.asked(moment(nanos)),
            None => {
                self.is_orphan = true;
                self.watch.orphaned(now);
            }
        }
    }

    fn look_at_children(&self) {
        if let Some(signal) = self.group.stop_of_leader() {
            self.tell(Report::Stopped(signal));
        }
        processes::reap_strangers(&[self.group.leader()]);
    }

    /// That nobody listens is seen when the wire closes.
    fn tell(&self, report: Report) {
        if let Err(error) = self.wire.tell(&report) {
            tracing::debug!(%error, "not told");
        }
    }
}
