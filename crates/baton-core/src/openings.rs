//! Where a member listens: which listeners are open, who uses them, and which ones nobody needs any more.
//!
//! A listener is known by its address. It is opened for the first program that wants it, and closed when the last
//! one is gone. Until a program serves on it, clients wait there.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::placeholder::{self, Unfit};
use crate::run::{Address, Listen, RunSettings};
use crate::supervisor::{Selection, Slot};

/// Why a release cannot listen here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The member was told where to have a listener that the release does not know.
    #[error("BATON_LISTEN names a listener {0:?}, and this release has none of that name")]
    Unknown(String),
    /// It was moved to where connections cannot be divided.
    #[error(
        "run.split is not possible where BATON_LISTEN has moved listener {0:?}: the path of a Unix socket leads to \
         one generation"
    )]
    Whole(String),
    /// It was moved to where copies cannot have a socket each.
    #[error(
        "run.listen.per_worker is not possible where BATON_LISTEN has moved listener {0:?}: the path of a Unix \
         socket leads to one socket"
    )]
    OneSocket(String),
    /// It was moved to where it has not what the command names.
    #[error(
        "the command has a placeholder that cannot be filled where BATON_LISTEN has moved the listener: {0}"
    )]
    Unfit(#[from] Unfit),
    /// Who accepts on an address is settled when it is opened.
    #[error(
        "this release has handover {wanted:?} for {address}, and it is open for {open:?}; to change between \
         \"proxy\" and the others start the member anew, or take another address"
    )]
    OtherWay {
        /// Where.
        address: Address,
        /// What the release asks for.
        wanted: &'static str,
        /// How it is open.
        open: &'static str,
    },
}

/// The listeners of a member: those of every release that runs in it.
#[derive(Debug, Clone)]
pub struct Openings {
    /// Where this member listens instead of what its releases say, by name.
    moved: Vec<(String, Address)>,
    open: Vec<Open>,
    /// What the program in a slot listens on, in the order of its settings.
    slots: BTreeMap<Slot, Vec<Listen>>,
    /// Slots whose program is gone. That of the serving one waits for the next.
    left: BTreeSet<Slot>,
    serving: Slot,
}

#[derive(Debug, Clone)]
struct Open {
    /// As it was when it was opened.
    listen: Listen,
    /// Some program that serves, or did, listens here.
    served: bool,
}

impl Openings {
    /// Nothing is open yet; `moved` says where listeners are in this member instead of what its releases say.
    pub fn new(moved: Vec<(String, Address)>) -> Self {
        Self { moved, open: Vec::new(), slots: BTreeMap::new(), left: BTreeSet::new(), serving: Slot(0) }
    }

    /// The slot that new connections go to.
    pub fn serving(&self) -> Slot {
        self.serving
    }

    /// What the program in a slot listens on, in the order of its settings.
    pub fn of(&self, slot: Slot) -> &[Listen] {
        self.slots.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// What the program in a slot calls by this name.
    pub fn named(&self, slot: Slot, name: &str) -> Option<&Listen> {
        self.of(slot).iter().find(|listen| listen.name == name)
    }

    /// The listeners of a release, each where this member has it.
    ///
    /// # Errors
    /// When they cannot be had beside what is open.
    pub fn wanted(&self, release: &RunSettings) -> Result<Vec<Listen>, Refusal> {
        let known = |name: &str| release.listen.iter().any(|listen| listen.name == name);
        if let Some((name, _)) = self.moved.iter().find(|(name, _)| !known(name)) {
            return Err(Refusal::Unknown(name.clone()));
        }
        let here: Vec<Listen> = release.listen.iter().map(|listen| self.here(listen)).collect();
        // A text that never was a placeholder for this release is left as it is.
        let mut filled =
            release.command.iter().filter(|word| placeholder::unfit(word, &release.listen).is_empty());
        if let Some(unfit) = filled.find_map(|word| placeholder::unfit(word, &here).into_iter().next()) {
            return Err(unfit.into());
        }
        let whole = here.iter().find(|listen| release.split.is_some() && listen.is_one_place());
        if let Some(listen) = whole {
            return Err(Refusal::Whole(listen.name.clone()));
        }
        if let Some(listen) = here.iter().find(|listen| listen.per_worker && !listen.is_divisible()) {
            return Err(Refusal::OneSocket(listen.name.clone()));
        }
        here.into_iter().map(|listen| self.fitting(listen)).collect()
    }

    /// A listener as this member has it.
    fn here(&self, listen: &Listen) -> Listen {
        let moved = self.moved.iter().find(|(name, _)| *name == listen.name);
        let address = moved.map_or(&listen.address, |(_, address)| address).clone();
        Listen { address, ..listen.clone() }
    }

    fn fitting(&self, listen: Listen) -> Result<Listen, Refusal> {
        let open = self.open.iter().find(|open| open.listen.address == listen.address);
        let (wanted, open) = (listen.handover, open.map_or(listen.handover, |open| open.listen.handover));
        if wanted.passes_socket() == open.passes_socket() {
            return Ok(listen);
        }
        Err(Refusal::OtherWay { address: listen.address, wanted: wanted.word(), open: open.word() })
    }

    /// Whether this address is open.
    pub fn is_open(&self, address: &Address) -> bool {
        self.open.iter().any(|open| open.listen.address == *address)
    }

    /// It was opened.
    pub fn opened(&mut self, listen: Listen) {
        self.open.push(Open { listen, served: false });
    }

    /// A program that wants these, all of them open, is launched in a slot.
    pub fn launched(&mut self, slot: Slot, wanted: Vec<Listen>) {
        self.left.remove(&slot);
        self.slots.insert(slot, wanted);
        if slot == self.serving {
            // Launched where clients wait already, it serves them at once.
            self.note_served();
        }
    }

    /// New connections go to these slots from now on. Tells which listeners are to obey, and what: one that the
    /// serving release gave up stays with whoever had it, until the end, and one that only it has is not divided.
    pub fn select(&mut self, selection: Selection) -> Vec<(Address, Selection)> {
        self.serving = selection.serving;
        self.note_served();
        let obeys = |open: &&Open| !open.served || uses(self.of(self.serving), &open.listen.address);
        let obeying = self.open.iter().filter(obeys).map(|open| &open.listen.address);
        let told = obeying.map(|address| {
            let split = selection.split.filter(|split| uses(self.of(split.rest), address));
            (address.clone(), Selection { split, ..selection })
        });
        told.collect()
    }

    fn note_served(&mut self) {
        let served = self.slots.get(&self.serving).map_or(&[][..], Vec::as_slice);
        self.open.iter_mut().for_each(|open| open.served |= uses(served, &open.listen.address));
    }

    /// The program in a slot is gone.
    pub fn left(&mut self, slot: Slot) {
        self.left.insert(slot);
    }

    /// Closes what nobody listens on any more, and tells what.
    pub fn close_unused(&mut self) -> Vec<Address> {
        // Until anybody serves, clients wait for the first one that does, however many tries that takes.
        if self.open.iter().all(|open| !open.served) {
            return Vec::new();
        }
        let serving = self.serving;
        self.slots.retain(|slot, _| *slot == serving || !self.left.contains(slot));
        self.left.retain(|slot| *slot == serving);
        let used = |open: &Open| self.slots.values().any(|listens| uses(listens, &open.listen.address));
        let (open, unused) = core::mem::take(&mut self.open).into_iter().partition(used);
        self.open = open;
        unused.into_iter().map(|open: Open| open.listen.address).collect()
    }

    /// Whether the program that serves listens there: clients that wait elsewhere can be sent to it.
    pub fn serves_at(&self, address: &Address) -> bool {
        uses(self.of(self.serving), address)
    }

    /// Nothing is open any more: the member ends.
    pub fn close(&mut self) {
        self.open.clear();
    }
}

fn uses(listens: &[Listen], address: &Address) -> bool {
    listens.iter().any(|listen| listen.address == *address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Handover, MODE_DEFAULT, Proxy, SocketOptions};
    use crate::supervisor::Split;
    use crate::units::Share;

    fn at(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    /// A release with these listeners, each called after its port.
    fn release(ports: &[u16]) -> RunSettings {
        RunSettings { listen: listeners(ports), ..RunSettings::for_command(std::vec!["serve".into()]) }
    }

    fn listeners(ports: &[u16]) -> Vec<Listen> {
        let listen = |port: &u16| Listen {
            name: std::format!("l{port}"),
            address: at(*port),
            mode: MODE_DEFAULT,
            handover: Handover::Auto,
            backlog: 1,
            options: SocketOptions::default(),
            per_worker: false,
        };
        ports.iter().map(listen).collect()
    }

    #[derive(Debug)]
    enum Step {
        /// A program with these listeners is launched in a slot; these are opened for it.
        Launch(u32, &'static [u16], &'static [u16]),
        /// A slot is selected, and these obey.
        Select(u32, &'static [u16]),
        /// The program in a slot is gone.
        Left(u32),
        /// These are open.
        Opened(&'static [u16]),
    }
    use Step::{Launch, Left, Opened, Select};

    fn follow(openings: &mut Openings, step: &Step, name: &str) {
        let ports =
            |addresses: Vec<Address>| -> Vec<u16> { addresses.iter().filter_map(Address::port).collect() };
        match step {
            Launch(slot, wanted, new) => {
                let wanted = openings.wanted(&release(wanted)).unwrap();
                let missing = wanted.iter().filter(|listen| !openings.is_open(&listen.address));
                let missing: Vec<Listen> = missing.cloned().collect();
                assert_eq!(
                    ports(missing.iter().map(|l| l.address.clone()).collect()),
                    *new,
                    "{name}: {step:?}"
                );
                missing.into_iter().for_each(|listen| openings.opened(listen));
                openings.launched(Slot(*slot), wanted);
            }
            Select(slot, obey) => {
                let told = openings.select(Selection::of(Slot(*slot)));
                assert!(told.iter().all(|(_, what)| *what == Selection::of(Slot(*slot))));
                assert_eq!(ports(told.into_iter().map(|(at, _)| at).collect()), *obey, "{name}: {step:?}");
                openings.close_unused();
            }
            Left(slot) => {
                openings.left(Slot(*slot));
                openings.close_unused();
            }
            Opened(expected) => {
                let open = openings.open.iter().map(|open| open.listen.address.clone()).collect();
                assert_eq!(ports(open), *expected, "{name}: {step:?}");
            }
        }
    }

    #[test]
    fn what_is_open_follows_from_who_lives_and_who_serves() {
        // Clients wait at slot 0 until the first program serves, in slot 1.
        const SERVES: &[Step] = &[Select(0, &[]), Launch(1, &[80], &[80]), Select(1, &[80])];
        let table: [(&str, &[Step], &[Step]); 11] = [
            (
                "until anybody serves clients wait, however often it is tried",
                &[],
                &[Launch(1, &[80], &[80]), Left(1), Opened(&[80]), Launch(1, &[80], &[]), Select(1, &[80])],
            ),
            (
                "what only failed tries wanted is closed when another one serves",
                &[Launch(1, &[80, 81], &[80, 81]), Left(1), Launch(1, &[80], &[]), Opened(&[80, 81])],
                &[Select(1, &[80, 81]), Opened(&[80])],
            ),
            (
                "a release adds a listener, and its clients wait there until it serves",
                SERVES,
                &[
                    Launch(0, &[80, 81], &[81]),
                    Opened(&[80, 81]),
                    Select(0, &[80, 81]),
                    Left(1),
                    Opened(&[80, 81]),
                ],
            ),
            (
                "a candidate with a new listener fails",
                SERVES,
                &[Launch(0, &[80, 81], &[81]), Left(0), Opened(&[80]), Select(1, &[80])],
            ),
            (
                "a release removes a listener, and who had it keeps it until it is gone",
                SERVES,
                &[Launch(0, &[81], &[81]), Select(0, &[81]), Opened(&[80, 81]), Left(1), Opened(&[81])],
            ),
            (
                "a listener moves, and comes back when it is handed back",
                SERVES,
                &[Launch(0, &[81], &[81]), Select(0, &[81]), Select(1, &[80]), Left(0), Opened(&[80])],
            ),
            (
                "a release gives up all listeners",
                SERVES,
                &[Launch(0, &[], &[]), Select(0, &[]), Opened(&[80]), Left(1), Opened(&[])],
            ),
            (
                "what serves has crashed, and its clients wait for the next in its slot",
                SERVES,
                &[Left(1), Opened(&[80]), Launch(1, &[80], &[]), Select(1, &[80]), Opened(&[80])],
            ),
            (
                "what serves has crashed, and another release follows in its slot",
                SERVES,
                &[Left(1), Launch(1, &[81], &[81]), Select(1, &[81]), Opened(&[81]), Left(1), Opened(&[81])],
            ),
            (
                "what serves has crashed, and its successor has another slot",
                SERVES,
                &[Left(1), Launch(0, &[80], &[]), Select(0, &[80]), Opened(&[80]), Left(0), Opened(&[80])],
            ),
            (
                "a third release takes up what the second gave up and the first still has",
                SERVES,
                &[
                    Launch(0, &[81], &[81]),
                    Select(0, &[81]),
                    Launch(2, &[80, 81], &[]),
                    Left(1),
                    Opened(&[80, 81]),
                    Select(2, &[80, 81]),
                    Left(0),
                    Opened(&[80, 81]),
                ],
            ),
        ];
        for (name, begins, steps) in table {
            let mut openings = Openings::new(Vec::new());
            begins.iter().chain(steps).for_each(|step| follow(&mut openings, step, name));
        }
    }

    #[test]
    fn a_listener_can_be_moved_and_must_be_known() {
        let moved = |name: &str| Openings::new(std::vec![(name.into(), at(8080))]);
        let wanted = moved("l80").wanted(&release(&[80, 81])).unwrap();
        assert_eq!([&wanted[0].address, &wanted[1].address], [&at(8080), &at(81)]);
        let refused = moved("http").wanted(&release(&[80])).unwrap_err();
        assert_eq!(refused, Refusal::Unknown("http".into()));
        let path = "unix:/run/l80.sock".parse().unwrap();
        let by_port = RunSettings { command: std::vec!["{port:l80}".into()], ..release(&[80]) };
        let refused = Openings::new(std::vec![("l80".into(), path)]).wanted(&by_port).unwrap_err();
        assert_eq!(refused, Refusal::Unfit(Unfit::NoPort("l80".into())));
        let path = "unix:/run/l80.sock".parse().unwrap();
        let divided = RunSettings { split: Some(Share::from_percent(5)), ..release(&[80]) };
        assert!(Openings::new(Vec::new()).wanted(&divided).is_ok());
        let refused = Openings::new(std::vec![("l80".into(), path)]).wanted(&divided).unwrap_err();
        assert_eq!(refused, Refusal::Whole("l80".into()));
        let path = "unix:/run/l80.sock".parse().unwrap();
        let mut each = release(&[80]);
        (each.workers, each.listen[0].per_worker) = (2, true);
        assert!(Openings::new(Vec::new()).wanted(&each).is_ok());
        let refused = Openings::new(std::vec![("l80".into(), path)]).wanted(&each).unwrap_err();
        assert_eq!(refused, Refusal::OneSocket("l80".into()));
    }

    #[test]
    fn only_what_both_listen_on_is_divided() {
        let mut openings = Openings::new(Vec::new());
        for (slot, ports) in [(1, &[80, 81][..]), (2, &[80, 82])] {
            let wanted = openings.wanted(&release(ports)).unwrap();
            for listen in &wanted {
                if !openings.is_open(&listen.address) {
                    openings.opened(listen.clone());
                }
            }
            openings.launched(Slot(slot), wanted);
            openings.select(Selection::of(Slot(slot)));
        }
        let split = Some(Split { share: Share::from_percent(5), rest: Slot(1) });
        let both = Selection { split, ..Selection::of(Slot(2)) };
        assert_eq!(openings.select(both), [(at(80), both), (at(82), Selection::of(Slot(2)))]);
    }

    #[test]
    fn who_accepts_cannot_change_while_an_address_is_open() {
        let mut openings = Openings::new(Vec::new());
        listeners(&[80]).into_iter().for_each(|listen| openings.opened(listen));
        let with = |handover| {
            let mut release = release(&[80]);
            release.listen[0].handover = handover;
            release
        };
        let proxy = with(Handover::Proxy(Proxy::default()));
        assert!(openings.wanted(&with(Handover::Inherit)).is_ok());
        let refused = openings.wanted(&proxy).unwrap_err();
        assert!(matches!(refused, Refusal::OtherWay { wanted: "proxy", open: "auto", .. }), "{refused}");
        openings.close();
        assert!(openings.wanted(&proxy).is_ok());
    }

    #[test]
    fn a_program_is_known_by_what_its_settings_call_its_listeners() {
        let mut openings = Openings::new(Vec::new());
        openings.launched(Slot(1), listeners(&[80, 81]));
        assert_eq!(openings.named(Slot(1), "l81").map(|listen| &listen.address), Some(&at(81)));
        assert_eq!((openings.named(Slot(0), "l81"), openings.of(Slot(0))), (None, &[][..]));
        assert!(!openings.serves_at(&at(80)));
        openings.select(Selection::of(Slot(1)));
        assert!(openings.serves_at(&at(80)) && !openings.serves_at(&at(82)));
    }
}
