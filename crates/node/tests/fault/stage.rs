//! Threads of which one goes on at a time, to its next point.

use std::{
    fmt::Write as _,
    io::Write as _,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use cairn_sys::steer::{self, Steers};

/// What is on its way for so long waits for something that nobody here knows of.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one does, and what it is called.
pub type Actor = (&'static str, Box<dyn FnOnce() + Send>);

/// Where an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Goes,
    At(&'static str),
    /// Another has to do something first.
    Waits,
    Gone,
}

#[derive(Default)]
struct State {
    actors: Vec<Stand>,
    turn: Option<usize>,
    /// All go on by themselves.
    over: bool,
}

#[derive(Default)]
struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

/// One actor's tie to the stage.
struct Role {
    stage: Arc<Stage>,
    number: usize,
}

impl Steers for Role {
    fn steers(&self) -> bool {
        !self.stage.lock().over
    }

    fn stops(&self, at: &'static str) {
        self.stage.stand(self.number, Stand::At(at));
    }

    fn waits(&self) {
        self.stage.stand(self.number, Stand::Waits);
    }

    fn wakes(&self) {
        let mut state = self.stage.lock();
        let waiting = state.actors.iter_mut().filter(|at| **at == Stand::Waits);
        waiting.for_each(|at| *at = Stand::At("woken"));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.stage.lock().actors[self.number] = Stand::Gone;
        self.stage.changed.notify_all();
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An actor stands somewhere until its turn comes.
    fn stand(&self, number: usize, at: Stand) {
        let mut state = self.lock();
        if state.over {
            return;
        }
        state.actors[number] = at;
        self.changed.notify_all();
        while !state.over && state.turn != Some(number) {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.turn = None;
        state.actors[number] = Stand::Goes;
    }

    /// Waits until nobody goes.
    fn still(&self, log: &[Step]) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.actors.contains(&Stand::Goes) {
            let woken = self.changed.wait_timeout(state, PATIENCE);
            let (again, waited) = woken.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if waited.timed_out() && state.actors.contains(&Stand::Goes) {
                give_up("it waits for what nobody knows of", &state.actors, log);
            }
        }
        state
    }

    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }
}

/// Who went on, and from where.
struct Step(&'static str, &'static str);

fn told(log: &[Step]) -> String {
    let mut text = String::new();
    for Step(who, from) in log {
        let _ = writeln!(text, "  {who} from {from}");
    }
    text
}

/// Threads that wait for one another cannot be ended, so all of the program is.
fn give_up(why: &str, actors: &[Stand], log: &[Step]) -> ! {
    let text = format!("{why}: {actors:?}\nsteps:\n{}", told(log));
    let _ = std::io::stderr().write_all(text.as_bytes());
    process::exit(101);
}

/// Has actors go on, the one that `choose` says of those that can. Told `after` each step who made it,
/// while all stand still.
///
/// # Panics
/// When `after` or an actor finds something wrong; says by which steps it came to that.
pub fn play(
    actors: Vec<Actor>,
    choose: &mut dyn FnMut(&[usize]) -> usize,
    after: &mut dyn FnMut(usize) -> Result<(), String>,
) {
    let stage = Arc::new(Stage::default());
    stage.lock().actors = vec![Stand::Goes; actors.len()];
    let names: Vec<&'static str> = actors.iter().map(|(name, _)| *name).collect();
    let threads = actors.into_iter().enumerate().map(|(number, (_, act))| {
        let role = Role {
            stage: Arc::clone(&stage),
            number,
        };
        thread::spawn(move || {
            steer::steered(Arc::new(role), || {
                steer::point("the beginning");
                act();
            });
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut log = Vec::new();
    let directed = direct(&stage, &names, choose, after, &mut log);
    stage.end();
    let mut wrong = directed.err();
    for (name, thread) in names.iter().zip(threads) {
        if let Err(panic) = thread.join() {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = format!("{name}: {}", text.unwrap_or("it panicked"));
            let _ = wrong.get_or_insert(text);
        }
    }
    if let Some(wrong) = wrong {
        panic!("{wrong}\nsteps:\n{}", told(&log));
    }
}

fn direct(
    stage: &Stage,
    names: &[&'static str],
    choose: &mut dyn FnMut(&[usize]) -> usize,
    after: &mut dyn FnMut(usize) -> Result<(), String>,
    log: &mut Vec<Step>,
) -> Result<(), String> {
    let mut step = |number: usize, log: &mut Vec<Step>| {
        let mut state = stage.still(log);
        if let Stand::At(from) = state.actors[number] {
            log.push(Step(names[number], from));
        }
        state.actors[number] = Stand::Goes;
        state.turn = Some(number);
        drop(state);
        stage.changed.notify_all();
        drop(stage.still(log));
        after(number)
    };
    // To the first point of each there is nothing that another could see.
    for number in 0..names.len() {
        step(number, &mut *log)?;
    }
    loop {
        let state = stage.still(log);
        let ready = (0..names.len()).filter(|at| matches!(state.actors[*at], Stand::At(_)));
        let ready: Vec<usize> = ready.collect();
        if ready.is_empty() {
            if state.actors.contains(&Stand::Waits) {
                give_up("they wait for one another", &state.actors, log);
            }
            return Ok(());
        }
        drop(state);
        step(choose(&ready), &mut *log)?;
    }
}
