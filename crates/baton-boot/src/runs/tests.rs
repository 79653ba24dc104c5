use std::ffi::OsString;
use std::process::Child;

use baton_core::run::RunSettings;
use baton_core::supervisor::Running;

use super::*;

const ID: GenerationId = GenerationId(1);

/// A generation with this main process, and where its ends and the news of those who are followed arrive.
struct Fixture {
    runs: Runs,
    memory: Memory,
    ends: mpsc::UnboundedReceiver<Ended>,
    events: mpsc::UnboundedSender<Event>,
    happened: mpsc::UnboundedReceiver<Event>,
}

impl Fixture {
    fn with(main: Main) -> Self {
        let plan = Plan::new(Running::Image, RunSettings::for_command(vec!["server".into()]));
        let (ending, ends) = mpsc::unbounded_channel();
        let (events, happened) = mpsc::unbounded_channel();
        let mut run = Run::new(plan.into(), Slot(0));
        let (mains, former, sockets, notify) = (Vec::new(), Vec::new(), Vec::new(), OsString::new());
        run.root = Some(Root { generation: ID, mains, former, sockets, notify, user: 0 });
        run.after_said = Some(ending);
        run.add_copy(0, main);
        let mut runs = Runs::default();
        runs.insert(ID, run);
        Self { runs, memory: Memory::watch(events.clone()), ends, events, happened }
    }

    fn follow(&mut self, main: Main) -> bool {
        self.runs.follow(ID, main, &self.events)
    }

    /// Waits until who is followed has been seen to end.
    async fn follow_to_the_end(&mut self) {
        while self.happened.recv().await != Some(Event::Woken) {}
        assert_eq!(self.runs.followed_ended(), [], "it is told in its turn");
    }

    /// What the end means that is told next.
    fn told(&mut self) -> Option<Event> {
        let ended = self.ends.try_recv().unwrap();
        self.runs.end(ended)
    }

    fn mains(&self) -> Vec<i32> {
        self.runs.get(ID).unwrap().mains().collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
fn child() -> (Child, Main) {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id().cast_signed();
    (child, Main { pid, started: process::started(pid) })
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn exited(exit: Exit) -> Event {
    Event::Exited { generation: ID, exit, empty: true }
}

#[tokio::test]
async fn an_end_is_that_of_the_generation_if_nobody_was_named_before_it_was_told() {
    let ((one, first), (two, second), (three, third)) = (child(), child(), child());
    let mut fixture = Fixture::with(first);
    end(one);
    assert_eq!(
        fixture.runs.ended(first.pid, Exit::Code(7), &[], &fixture.memory),
        None,
        "it is told in its turn"
    );
    assert!(fixture.mains().is_empty());
    // Each has named the next one before it ended, and that is heard before its end.
    assert!(fixture.follow(second));
    end(two);
    fixture.follow_to_the_end().await;
    assert_eq!(fixture.told(), None, "another one has taken its place");
    assert!(fixture.follow(third), "nobody was told that it has ended");
    assert_eq!(fixture.told(), None);
    assert_eq!(fixture.mains(), [third.pid]);
    end(three);
    fixture.follow_to_the_end().await;
    assert_eq!(fixture.told(), Some(exited(Exit::Code(0))));
    assert!(!fixture.follow(second), "the generation has ended");
}

#[tokio::test]
async fn f21_another_child_with_the_number_of_who_is_followed_is_somebody_else() {
    let ((one, first), (other, child)) = (child(), child());
    let mut fixture = Fixture::with(first);
    // It was another one's child, who has reaped it, and one of ours has got its number.
    let before = Main { started: child.started.map(|started| started - 1), ..child };
    assert!(fixture.follow(before));
    let elsewhere = fixture.runs.followed_elsewhere();
    let killed = Exit::Signal(Signal::KILL);
    assert_eq!(fixture.runs.ended(child.pid, killed.clone(), &elsewhere, &fixture.memory), None);
    assert!(fixture.ends.try_recv().is_err(), "the end of the other one");
    fixture.follow_to_the_end().await;
    end(one);
    assert_eq!(fixture.told(), Some(exited(Exit::Code(0))));
    // One that is our child is told by how it ended.
    let mut fixture = Fixture::with(first);
    assert!(fixture.follow(child));
    assert!(fixture.runs.followed_elsewhere().is_empty());
    assert_eq!(fixture.runs.ended(child.pid, killed.clone(), &[], &fixture.memory), None);
    end(other);
    assert_eq!(fixture.told(), Some(exited(killed)));
}

#[tokio::test]
async fn where_nobody_listens_an_end_is_told_at_once() {
    let (one, first) = child();
    let mut fixture = Fixture::with(first);
    end(one);
    fixture.ends.close();
    let unheard = fixture.runs.ended(first.pid, Exit::Code(7), &[], &fixture.memory).unwrap();
    assert_eq!(fixture.runs.end(unheard), Some(exited(Exit::Code(7))));
}

#[tokio::test]
async fn p20_f7_children_that_end_faster_than_they_are_taken_are_taken_a_few_at_a_time() {
    let Fixture { mut runs, memory, .. } = Fixture::with(Main { pid: i32::MAX, started: Some(1) });
    let mut taken = 0;
    let orphan = || {
        taken += 1;
        assert!(taken <= REAPED_AT_ONCE, "everything else waits");
        Ok(Some(Waited::Ended(1, Exit::Code(0))))
    };
    assert!(runs.reap_from(orphan, &memory).unwrap().more);
    let mut few = vec![Waited::Ended(1, Exit::Code(0)); 3];
    assert!(!runs.reap_from(|| Ok(few.pop()), &memory).unwrap().more);
    assert!(few.is_empty() && runs.reap_from(|| Ok(None), &memory).is_none());
}
