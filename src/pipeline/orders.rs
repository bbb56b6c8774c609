//! Commands as orders to delivery: what the desk carries out at once, or the worker that delivers a moment later.
//!
//! In: commands, outcomes. Out: answers. Invariant: an answer says that something is done only after the desk has done it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::control::now_ms;
use crate::{
    admin::{Command, Reply, Told},
    deliver::order::{self, Order, Outcome},
    route::Silence,
    store::{Store, StoreError, blocking},
};

/// The worker that delivers looks for orders every second.
const WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub const BUSY: &str = "too many commands wait for the worker that delivers; try again";

/// Tells whoever asked.
pub type Answer = Box<dyn FnOnce(Told<Outcome>) + Send>;

/// The order that a command amounts to; none where it was answered by that, or needs no desk.
pub fn of(command: Command, now_ms: i64) -> Option<(Order, Answer)> {
    Some(match command {
        Command::AddSilence(request, reply) => match Silence::new(order::new_id(now_ms), request, now_ms) {
            Ok(silence) => {
                let id = silence.id.clone();
                (Order::AddSilence(silence), by(reply, move |outcome| outcome.silence(&id)))
            }
            Err(error) => {
                drop(reply.send(Told::Done(Err(error))));
                return None;
            }
        },
        Command::EndSilence(id, reply) => (Order::EndSilence(id.clone()), by(reply, move |outcome| outcome.silence(&id))),
        Command::Acknowledge(incident, reply) => (Order::Acknowledge(incident), by(reply, |outcome| outcome.is_done())),
        Command::Resolve(incident, reply) => (Order::Resolve(incident), by(reply, |outcome| outcome.is_done())),
        Command::TestAlert { level, pillar, reply } => (Order::TestAlert { level, pillar }, by(reply, Outcome::sinks)),
        Command::ReplayLetter(id, reply) => (Order::ReplayLetter(id), by(reply, |outcome| outcome.is_done())),
        Command::ReplayQuarantined(..) => return None,
    })
}

fn by<T: Send + 'static>(reply: Reply<T>, read: impl FnOnce(Outcome) -> T + Send + 'static) -> Answer {
    Box::new(move |told| {
        let told = match told {
            Told::Done(outcome) => Told::Done(read(outcome)),
            Told::Later => Told::Later,
            Told::Refused(why) => Told::Refused(why),
        };
        // Whoever asked may have left; the change stands.
        drop(reply.send(told));
    })
}

pub fn told(outcome: Outcome) -> Told<Outcome> {
    match outcome {
        Outcome::Refused(why) => Told::Refused(why),
        outcome => Told::Done(outcome),
    }
}

/// Writes the order down and waits a while for its outcome.
pub async fn pass_on(store: Arc<dyn Store>, order: Order, answer: Answer) {
    let passed = pass(&*store, &order).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a command could not be passed on to the worker that delivers");
        Told::Refused(format!("the command can't be passed on to the worker that delivers: {error}"))
    });
    answer(passed);
}

async fn pass(store: &dyn Store, order: &Order) -> Result<Told<Outcome>, StoreError> {
    let since = Instant::now();
    let Some(id) = blocking(|| order::write_down(store, order, now_ms()))? else { return Ok(Told::Refused(BUSY.into())) };
    while since.elapsed() < WAIT {
        tokio::time::sleep(LOOK_EVERY).await;
        match blocking(|| order::outcome(store, &id)) {
            Ok(None) => {}
            Ok(Some(outcome)) => return Ok(told(outcome)),
            // It stands written; what came of it can't be seen.
            Err(error) => {
                tracing::warn!(%error, "the outcome of a command can't be read");
                break;
            }
        }
    }
    Ok(Told::Later)
}
