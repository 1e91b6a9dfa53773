//! The story, told twice: the leader is frozen between its read and its write, another takes over, and then
//! the first goes on.

use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};

use super::actor::Actor;
use super::bank::OPENING_BALANCE;
use super::script::{Cue, Line};
use super::stage::Stage;
use super::timeline::{Timeline, Who};
use crate::failure::Failure;
use crate::units::show_duration;

/// What a worker does at once; on a machine that is very busy, later.
const STEP: Duration = Duration::from_secs(30);
const ANNS_DEPOSIT: i64 = 50;
const BOBS_DEPOSIT: i64 = 30;
const BOTH_DEPOSITS: i64 = OPENING_BALANCE + ANNS_DEPOSIT + BOBS_DEPOSIT;

/// Tells all of it. Fails if it could not be told, or did not come out as it must.
pub(crate) async fn tell(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), Failure> {
    let (guarded, plain) = (
        resource("demo/guarded-account")?,
        resource("demo/plain-account")?,
    );
    stage.open(&guarded).await?;
    timeline.text(&format!(
        "\
Two workers, ann and bob, make deposits: read the balance, add to it, write the sum. Only the leader
may do that, the one who holds the lease. But a leader can be paused at any moment, for longer than
its lease lasts, and wake up without knowing.

  coordinator  {}, its state in {}
  account      in {}
  lease        ends when its holder was silent for {}",
        stage.addr(),
        stage.store(),
        stage.database(),
        show_duration(stage.ttl()),
    ))?;
    timeline.act("With the guard: the database checks the token of every write")?;
    timeline.text(
        "\
A new leader first seals the account with its token: from then on the database refuses every smaller
one. Tokens only grow, so whoever led before is shut out, awake or not.
",
    )?;
    with_guard(stage, timeline, &guarded).await?;
    timeline.act("Without the guard: the same, on an account that takes any write")?;
    without_guard(stage, timeline, &plain).await?;
    timeline.outcome()
}

fn resource(name: &str) -> Result<ResourceName, Failure> {
    ResourceName::new(name).map_err(|error| Failure::other(error.to_string()))
}

async fn with_guard(
    stage: &Stage,
    timeline: &mut Timeline,
    resource: &ResourceName,
) -> Result<(), Failure> {
    let mut scene = takeover(stage, timeline, resource, true).await?;
    let (first, second) = (scene.first, scene.second);
    let refused = match scene.ann.says(STEP).await? {
        Line::Refused { presented, fence } => {
            timeline.event(
                Who::Account,
                &format!("REFUSES ann's write: stale token {presented}, the fence is at {fence}"),
            )?;
            presented == first && fence == second
        }
        Line::Wrote => {
            timeline.event(Who::Account, "takes ann's write")?;
            false
        }
        other => return Err(unexpected(Who::Ann, &other)),
    };
    tells_that_it_is_over(timeline, &mut scene.ann).await?;
    let after_bob = OPENING_BALANCE + BOBS_DEPOSIT;
    let balance = stage.balance(true).await?;
    timeline.event(Who::Account, &format!("holds {balance}"))?;
    timeline.check(
        second > first,
        &format!("bob's token is greater: {second} > {first}"),
    )?;
    timeline.check(
        refused,
        "ann's stale write was refused, and the refusal names both tokens",
    )?;
    timeline.check(
        balance == after_bob,
        &format!("bob's deposit is intact: {after_bob}"),
    )?;

    leaves(&mut scene.bob).await?;
    timeline.event(Who::Bob, "is done, and releases the lease")?;
    let third = start_over(timeline, &mut scene.ann).await?;
    leaves(&mut scene.ann).await?;
    let balance = stage.balance(true).await?;
    timeline.event(Who::Account, &format!("holds {balance}"))?;
    timeline.check(
        third > second,
        &format!("ann's new token is greater: {third} > {second}"),
    )?;
    timeline.check(
        balance == BOTH_DEPOSITS,
        &format!("both deposits are in: {OPENING_BALANCE} + {BOBS_DEPOSIT} + {ANNS_DEPOSIT} = {BOTH_DEPOSITS}"),
    )
}

/// A refused worker has lost nothing: it becomes leader again, reads again, and writes.
async fn start_over(timeline: &mut Timeline, ann: &mut Actor) -> Result<FencingToken, Failure> {
    ann.cue(Cue::Lead).await?;
    let token = becomes_leader(ann, Who::Ann).await?;
    let (balance, next, _) = gets_ready(ann, Who::Ann, true).await?;
    timeline.event(
        Who::Ann,
        &format!("starts over: leads with token {token}, seals, reads {balance}, writes {next}"),
    )?;
    writes(ann, Who::Ann).await?;
    Ok(token)
}

async fn without_guard(
    stage: &Stage,
    timeline: &mut Timeline,
    resource: &ResourceName,
) -> Result<(), Failure> {
    let mut scene = takeover(stage, timeline, resource, false).await?;
    let (first, second) = (scene.first, scene.second);
    let taken = match scene.ann.says(STEP).await? {
        Line::Wrote => {
            timeline.event(
                Who::Account,
                "takes ann's write, over bob's: nobody asks for a token",
            )?;
            true
        }
        Line::Refused { .. } => {
            timeline.event(Who::Account, "refuses ann's write")?;
            false
        }
        other => return Err(unexpected(Who::Ann, &other)),
    };
    tells_that_it_is_over(timeline, &mut scene.ann).await?;
    let balance = stage.balance(false).await?;
    timeline.event(
        Who::Account,
        &format!("holds {balance}; both were told that their deposit is in, so it should be {BOTH_DEPOSITS}"),
    )?;
    leaves(&mut scene.bob).await?;
    leaves(&mut scene.ann).await?;
    timeline.check(
        second > first,
        &format!("bob's token is greater: {second} > {first}"),
    )?;
    timeline.check(taken, "ann's stale write was taken")?;
    let lost = BOTH_DEPOSITS - balance;
    timeline.check(
        lost == BOBS_DEPOSIT,
        &format!("without the guard the update is lost: {lost} of {BOTH_DEPOSITS} are gone"),
    )
}

/// Both workers, at the moment when the first has been thawed and is about to write.
struct Scene {
    ann: Actor,
    bob: Actor,
    first: FencingToken,
    second: FencingToken,
}

async fn takeover(
    stage: &Stage,
    timeline: &Timeline,
    resource: &ResourceName,
    guarded: bool,
) -> Result<Scene, Failure> {
    let seals = if guarded { ", seals the account" } else { "" };
    timeline.event(Who::Account, &format!("holds {OPENING_BALANCE}"))?;
    let mut ann = stage
        .actor(Who::Ann.name(), resource, ANNS_DEPOSIT, guarded)
        .await?;
    ann.cue(Cue::Lead).await?;
    let first = becomes_leader(&mut ann, Who::Ann).await?;
    timeline.event(
        Who::Ann,
        &format!("becomes leader with token {first}{seals}"),
    )?;
    let (balance, next, lease_left) = gets_ready(&mut ann, Who::Ann, guarded).await?;
    timeline.event(
        Who::Ann,
        &format!("reads {balance}, will write {next} (a deposit of {ANNS_DEPOSIT})"),
    )?;
    let left = lease_left.as_secs_f64();
    timeline.event(
        Who::Ann,
        &format!("checks her lease just before: good for another {left:.1} s"),
    )?;

    let mut bob = stage
        .actor(Who::Bob.name(), resource, BOBS_DEPOSIT, guarded)
        .await?;
    bob.cue(Cue::Lead).await?;
    match bob.says(STEP).await? {
        Line::Asks => timeline.event(Who::Bob, "asks for the lease, and waits")?,
        other => return Err(unexpected(Who::Bob, &other)),
    }
    ann.freeze().await?;
    timeline.event(
        Who::Stage,
        "FREEZES ann (SIGSTOP), between her check and her write",
    )?;

    let second = match bob.says(stage.ttl() + STEP).await? {
        Line::Leads { token } => token,
        other => return Err(unexpected(Who::Bob, &other)),
    };
    timeline.event(
        Who::Bob,
        &format!("becomes leader with token {second}{seals} (ann was silent too long)"),
    )?;
    let (balance, next, _) = gets_ready(&mut bob, Who::Bob, guarded).await?;
    timeline.event(
        Who::Bob,
        &format!("reads {balance}, writes {next} (a deposit of {BOBS_DEPOSIT})"),
    )?;
    writes(&mut bob, Who::Bob).await?;
    timeline.event(Who::Account, "takes bob's write")?;

    // Told before she wakes: the write is the first thing that she does.
    ann.cue(Cue::Write).await?;
    timeline.event(
        Who::Stage,
        "THAWS ann (SIGCONT): she knows of nothing, and goes straight on to her write",
    )?;
    ann.thaw()?;
    Ok(Scene {
        ann,
        bob,
        first,
        second,
    })
}

async fn becomes_leader(actor: &mut Actor, who: Who) -> Result<FencingToken, Failure> {
    match actor.says(STEP).await? {
        Line::Asks => {}
        other => return Err(unexpected(who, &other)),
    }
    match actor.says(STEP).await? {
        Line::Leads { token } => Ok(token),
        other => Err(unexpected(who, &other)),
    }
}

async fn gets_ready(
    actor: &mut Actor,
    who: Who,
    guarded: bool,
) -> Result<(i64, i64, Duration), Failure> {
    if guarded {
        match actor.says(STEP).await? {
            Line::Sealed => {}
            other => return Err(unexpected(who, &other)),
        }
    }
    match actor.says(STEP).await? {
        Line::Ready {
            balance,
            next,
            lease_left,
        } => Ok((balance, next, lease_left)),
        other => Err(unexpected(who, &other)),
    }
}

/// A leader that was not disturbed writes, and still leads.
async fn writes(actor: &mut Actor, who: Who) -> Result<(), Failure> {
    actor.cue(Cue::Write).await?;
    match actor.says(STEP).await? {
        Line::Wrote => {}
        other => return Err(unexpected(who, &other)),
    }
    match actor.says(STEP).await? {
        Line::Lease { held: true } => Ok(()),
        other => Err(unexpected(who, &other)),
    }
}

/// The client library of a worker that was frozen says so when asked, and a write does not ask.
async fn tells_that_it_is_over(timeline: &mut Timeline, ann: &mut Actor) -> Result<(), Failure> {
    match ann.says(STEP).await? {
        Line::Lease { held } => {
            if !held {
                timeline.event(
                    Who::Ann,
                    "asks her client about the lease: it is over. Her check was true when she made it",
                )?;
            }
            timeline.check(!held, "ann's own clock says that her lease is over")
        }
        other => Err(unexpected(Who::Ann, &other)),
    }
}

async fn leaves(actor: &mut Actor) -> Result<(), Failure> {
    actor.cue(Cue::Leave).await?;
    actor.exits(STEP).await
}

fn unexpected(who: Who, line: &Line) -> Failure {
    Failure::other(format!(
        "{} did something that is not in the story: {line:?}",
        who.name()
    ))
}
