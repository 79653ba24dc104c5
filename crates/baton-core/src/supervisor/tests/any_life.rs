//! Whatever happens: random lives, and every situation with every event.

use proptest::prelude::*;

use super::*;

/// One thing that may happen in the world.
#[derive(Debug, Clone)]
enum Step {
    Try(u8, u64, Kind),
    Say(usize, Notice),
    HandBack,
    GoBack(u8),
    Answer(usize, bool),
    Ready(usize),
    End { which: usize, code: u8, leaves_children: bool },
    Quiet,
    Pass(u64),
    CannotSpawn(bool),
    NoMemoryLeft,
    Room(u8, Option<u8>),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Web,
    KeptWarm,
    Split,
    Copies,
    Worker,
    Singleton,
}

impl Kind {
    fn settings(self) -> RunSettings {
        let settings = match self {
            Self::Web => settings(),
            Self::KeptWarm => RunSettings { keep_warm: Some(Millis::from_secs(20)), ..settings() },
            Self::Split => RunSettings { split: Some(Share::from_percent(25)), ..settings() },
            Self::Copies => RunSettings { workers: 3, ..settings() },
            Self::Worker => worker(),
            Self::Singleton => singleton(),
        };
        RunSettings { watchdog: Some(Millis::from_secs(20)), ..settings }
    }
}

fn notices() -> Vec<Notice> {
    [
        Notice::Ready,
        Notice::Reloading,
        Notice::Stopping,
        Notice::Status("busy".into()),
        Notice::Alive,
        Notice::Hangs,
        Notice::Extend(Millis::from_secs(120)),
        Notice::MainPid(7),
        Notice::Idle,
    ]
    .to_vec()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (1u8..9, prop_oneof![Just(0u64), Just(5000)], prop_oneof![
            3 => Just(Kind::Web),
            3 => Just(Kind::KeptWarm),
            3 => Just(Kind::Split),
            3 => Just(Kind::Copies),
            1 => Just(Kind::Worker),
            1 => Just(Kind::Singleton),
        ])
            .prop_map(|(n, bake, kind)| Step::Try(n, bake, kind)),
        2 => (0usize..4, proptest::sample::select(notices())).prop_map(|(which, notice)| Step::Say(which, notice)),
        2 => prop_oneof![Just(Step::HandBack), (1u8..9).prop_map(Step::GoBack)],
        6 => (0usize..4, any::<bool>()).prop_map(|(which, good)| Step::Answer(which, good)),
        1 => (0usize..4).prop_map(Step::Ready),
        3 => (0usize..4, prop_oneof![Just(0u8), Just(1), Just(86)], any::<bool>())
            .prop_map(|(which, code, leaves_children)| Step::End { which, code, leaves_children }),
        2 => Just(Step::Quiet),
        4 => (0u64..20_000).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::CannotSpawn),
        2 => prop_oneof![
            Just(Step::NoMemoryLeft),
            any::<(u8, Option<u8>)>().prop_map(|(used, learnt)| Step::Room(used, learnt)),
        ],
    ];
    proptest::collection::vec(step, 0..80)
}

impl World {
    fn nth(&self, which: usize) -> Option<GenerationId> {
        self.processes.keys().nth(which).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Try(number, bake, kind) => {
                let launch = launch_of(kind.settings(), number, bake);
                let ticket = if number % 2 == 0 { Ticket::Reload } else { launch.ticket };
                self.order(Order::Try(Launch { ticket, ..launch }));
            }
            Step::Say(which, notice) => {
                self.nth(which).into_iter().for_each(|id| self.step(Event::Said(id, notice.clone())));
            }
            Step::HandBack => self.order(Order::HandBack),
            Step::GoBack(number) => {
                self.order(Order::GoBack(launch_of(Kind::KeptWarm.settings(), number, 0)));
            }
            Step::Answer(which, good) => {
                let outcome = if good { Outcome::Success } else { Outcome::Failure };
                self.nth(which).into_iter().for_each(|id| self.answer(id, outcome));
            }
            Step::Ready(which) => {
                self.nth(which).into_iter().for_each(|id| self.step(Event::Said(id, Notice::Ready)));
            }
            Step::End { which, code, leaves_children } => {
                let Some(id) = self.nth(which) else { return };
                let process = self.processes.get_mut(&id).unwrap();
                if process.several {
                    let last = process.copies.ilog2();
                    return self.copy_ends(id.0, last, code);
                }
                process.leaves_children = process.main_alive && leaves_children;
                let event = self.end(id, Exit::Code(code), false);
                event.into_iter().for_each(|event| self.step(event));
            }
            Step::Quiet => {
                for slot in std::mem::take(&mut self.rescues) {
                    self.step(Event::Quiet(slot));
                }
            }
            Step::Pass(time) => self.pass(Millis(time), &[]),
            Step::Room(used, learnt) => {
                let (used, limit) = (Bytes(used.into()), Bytes(255));
                self.room = Some(Room { used, grown: Bytes(0), limit });
                self.learnt = learnt.map(|learnt| Bytes(learnt.into()));
            }
            Step::NoMemoryLeft => self.step(Event::NoMemoryLeft),
            Step::CannotSpawn(cannot) => self.cannot_spawn = cannot,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens: the checks of [`World`] hold at every step, and the end always comes.
    #[test]
    fn whatever_happens_the_rules_hold(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            if world.exit.is_some() {
                break;
            }
            world.take(step);
        }
        if world.exit.is_none() {
            world.order(Order::Stop);
            world.pass(Millis::from_secs(31), &[]);
        }
        prop_assert!(world.exit.is_some());
    }
}

/// A member in every situation that differs for what may happen next.
fn situations() -> Vec<(&'static str, World)> {
    let starting = || {
        let mut world = World::serving(1);
        world.order(Order::Try(launch(2, 5000)));
        world
    };
    let baking = || {
        let mut world = starting();
        world.answer(GenerationId(2), Outcome::Success);
        world
    };
    let with = |mut world: World, act: &dyn Fn(&mut World)| {
        act(&mut world);
        world
    };
    [
        ("nothing", World::new()),
        ("first starts", with(World::new(), &|world| world.order(Order::Try(launch(1, 0))))),
        ("serving", World::serving(1)),
        ("candidate starts", starting()),
        ("candidate is ready", with(starting(), &|world| world.say(2, Notice::Ready))),
        ("baking with a standby", baking()),
        ("standby lost", with(baking(), &|world| world.crash(1, 1))),
        ("kept warm", with(warm::warm(), &|_| {})),
        ("several copies", with(copies::copies(), &|_| {})),
        ("draining", with(baking(), &|world| world.pass(Millis(5000), &[2]))),
        ("handed back", with(baking(), &|world| world.order(Order::HandBack))),
        ("launched again", with(World::serving(1), &|world| world.crash(1, 1))),
        ("waiting to be launched again", {
            with(World::serving(1), &|world| {
                world.crash(1, 1);
                world.crash(2, 1);
            })
        }),
        ("unhealthy", with(World::serving(1), &|world| world.pass(Millis::from_secs(5), &[]))),
        ("quiescing", {
            with(World::working(worker()), &|world| {
                world.order(Order::Try(launch_of(worker(), 2, 5000)));
                world.say(2, Notice::Ready);
            })
        }),
        ("waiting to be alone", {
            with(World::working(singleton()), &|world| {
                world.order(Order::Try(launch_of(singleton(), 2, 5000)));
            })
        }),
        ("waiting for memory", {
            with(warm::warm(), &|world| {
                let limit = Bytes(1);
                world.room = Some(Room { used: limit, grown: Bytes(0), limit });
                world.learnt = Some(limit);
                world.order(Order::Try(launch(3, 5000)));
            })
        }),
        ("stopping", with(World::serving(1), &|world| world.order(Order::Stop))),
        ("stopping a trial", with(baking(), &|world| world.order(Order::Stop))),
    ]
    .into_iter()
    .collect()
}

/// Everything that can be said to a supervisor, about generations that there are and one that there is not.
fn events() -> Vec<Event> {
    let mut events = [
        Event::Order(Order::Try(launch(9, 100))),
        Event::Order(Order::Try(reload(9, 100))),
        Event::Order(Order::HandBack),
        Event::Order(Order::GoBack(launch(1, 0))),
        Event::NotSelected,
        Event::NoMemoryLeft,
        Event::Order(Order::Stop),
        Event::Order(Order::Forward(Signal::USR1)),
        Event::Quiet(Slot(0)),
        Event::Quiet(Slot(7)),
        Event::Woken,
    ]
    .to_vec();
    for id in [1, 2, 3, 99].map(GenerationId) {
        let room = Room { used: Bytes(9), grown: Bytes(0), limit: Bytes(9) };
        events.extend([None, Some(room)].map(|room| Event::Measured {
            generation: id,
            room,
            known: Some(Needs::LikeServing(Bytes(1))),
        }));
        events.extend([Event::Started(id), Event::Emptied(id), Event::Examined(id, "it sleeps".into())]);
        events.push(Event::Named { generation: id, pid: 7, started: 1 });
        events.extend(notices().into_iter().map(|notice| Event::Said(id, notice)));
        events.extend([Event::Probed(id, Ok(())), Event::Probed(id, Err("no".into())), Event::NotAsked(id)]);
        let why = Exit::FailedToStart { why: "no".into(), not_found: true };
        events.push(Event::FailedToStart(id, why));
        for exit in [Exit::Code(0), Exit::Code(86), Exit::Signal(Signal::KILL)] {
            events.extend(
                [(0, true), (0, false), (1, false), (9, false)].map(|(copy, empty)| Event::CopyExited {
                    generation: id,
                    copy,
                    exit: exit.clone(),
                    empty,
                }),
            );
            events.extend([true, false].map(|empty| Event::Exited {
                generation: id,
                exit: exit.clone(),
                empty,
            }));
        }
    }
    events
}

/// Also what cannot happen, such as the end of a generation that is gone, is answered and changes nothing else.
#[test]
fn every_situation_answers_every_event() {
    for (situation, world) in situations() {
        for event in events() {
            let mut machine = world.machine.clone();
            let before = machine.status();
            let commands = machine.step(world.now, event.clone());
            let about = std::format!("{situation}: {event:?}");
            let serving = machine.generations().iter().filter(|g| g.state == State::Serving).count();
            assert!(serving <= 1, "{about}: {serving} serve");
            let ended = commands.iter().any(|command| matches!(command, Command::Exit(_)));
            assert!(
                ended || machine.deadline().is_none_or(|at| at > world.now),
                "{about}: it is due at once"
            );
            let stranger = std::format!("{event:?}").contains("GenerationId(99)");
            if stranger && situation != "stopping" {
                assert_eq!((machine.status(), commands), (before, Vec::new()), "{about}");
            }
        }
    }
}
