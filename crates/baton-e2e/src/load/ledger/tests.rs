use super::*;

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";

fn target(name: &str) -> Target {
    name.parse().unwrap()
}

/// The first attempt of request `seq` on connection `seq` to `A`, begun and sent at `at`.
fn attempt(seq: u64, at: u64) -> Attempt {
    Attempt {
        seq,
        conn: seq,
        target: target(A),
        connecting: Millis(at),
        sent: Millis(at),
        habit: Habit::New,
        kind: Kind::Slow,
        pid: None,
    }
}

fn answered(release: &str, pid: u32) -> End {
    End::Answered { release: release.into(), pid }
}

const fn cut(first_byte: bool, close: Close) -> End {
    End::Cut { first_byte, close }
}

/// The account of these attempts, each of which ended at its time.
fn ledger(attempts: impl IntoIterator<Item = (Attempt, u64, End)>) -> Ledger {
    let mut ledger = Ledger::new(Millis(0));
    for (attempt, at, end) in attempts {
        ledger.fold(Event::Begun { seq: attempt.seq });
        ended(&mut ledger, attempt, at, end);
    }
    ledger
}

fn ended(ledger: &mut Ledger, attempt: Attempt, at: u64, end: End) {
    ledger.fold(Event::Ended { attempt, at: Millis(at), took: Duration::ZERO, end });
}

fn say(ledger: &mut Ledger, line: &str, at: u64) {
    let said = Said::parse(line, &[target(A), target(B)]).unwrap();
    ledger.fold(Event::Said { said, at: Millis(at) });
}

fn report(ledger: &Ledger) -> Report {
    ledger.report(Millis(1_000_000))
}

/// The kinds of loss that happened, with their counts.
fn losses(report: &Report) -> Vec<(Loss, u64)> {
    let counts = Loss::ALL.into_iter().map(|loss| (loss, report.count(loss)));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_end_is_counted_as_exactly_that() {
    let why = || "x".to_string();
    for (end, expected) in [
        (answered("r1", 5), None),
        (End::Refused { why: why() }, Some(Loss::Refused)),
        (cut(false, Close::Eof), Some(Loss::ResetBeforeFirstByte)),
        (cut(false, Close::Reset), Some(Loss::ResetBeforeFirstByte)),
        (cut(true, Close::Eof), Some(Loss::ResetAfterFirstByte)),
        (cut(true, Close::Reset), Some(Loss::ResetAfterFirstByte)),
        (End::TimedOut { connected: false }, Some(Loss::TimedOut)),
        (End::TimedOut { connected: true }, Some(Loss::TimedOut)),
        (End::Duplicated, Some(Loss::Duplicated)),
        (End::Mismatched { why: why() }, Some(Loss::Mismatched)),
    ] {
        let report = report(&ledger([(attempt(1, 10), 20, end.clone())]));
        let lost: Vec<_> = expected.map(|loss| (loss, 1)).into_iter().collect();
        assert_eq!(losses(&report), lost, "{end:?}");
        assert_eq!(report.lost, lost.len() as u64, "{end:?}");
        assert_eq!(report.answered, 1 - report.lost, "{end:?}");
        assert_eq!(report.is_clean(), lost.is_empty(), "{end:?}");
        if let Some(loss) = expected {
            let example = report.losses[&loss].example.clone().unwrap();
            assert_eq!((example.sent_ms, example.ended_ms, example.seq), (10, 20, 1), "{end:?}");
        }
    }
}

#[test]
fn what_was_not_sent_or_has_no_end_is_not_lost_and_not_clean() {
    let own_fault = report(&ledger([(attempt(1, 0), 1, End::NotSent { why: "no ports".into() })]));
    assert_eq!((own_fault.lost, own_fault.not_sent, own_fault.is_clean()), (0, 1, false));

    let mut under_way = Ledger::new(Millis(0));
    under_way.fold(Event::Begun { seq: 1 });
    let under_way = report(&under_way);
    assert_eq!((under_way.lost, under_way.unfinished, under_way.is_clean()), (0, 1, false));
}

#[test]
fn an_idle_close_is_a_close_of_a_reused_connection_before_any_work() {
    let soon = IDLE_CLOSE.0 - 1;
    for (pid, slow, after, end, idle_close) in [
        (Some(5), true, soon, cut(false, Close::Eof), true),
        (Some(5), true, soon, cut(false, Close::Reset), true),
        (Some(5), true, soon + 1, cut(false, Close::Reset), false),
        (Some(5), false, soon + 1, cut(false, Close::Reset), true),
        (None, false, soon, cut(false, Close::Reset), false),
        (Some(5), false, soon, cut(true, Close::Reset), false),
        (Some(5), false, soon, End::TimedOut { connected: true }, false),
        (Some(5), false, soon, End::Refused { why: "x".into() }, false),
    ] {
        let kind = if slow { Kind::Slow } else { Kind::Plain };
        let reused = Attempt { pid, kind, ..attempt(1, 100) };
        let mut ledger = ledger([(reused, 100 + after, end.clone())]);
        let before = report(&ledger);
        assert_eq!(before.idle_closes, u64::from(idle_close), "{end:?} after {after}");
        assert_eq!(before.lost, u64::from(!idle_close), "{end:?} after {after}");
        if idle_close {
            assert_eq!(before.unfinished, 1);
            let again = Attempt { conn: 2, ..attempt(1, 400) };
            ended(&mut ledger, again, 410, answered("r1", 6));
            let after = report(&ledger);
            assert_eq!((after.sent, after.answered, after.unfinished), (1, 1, 0));
            assert!(after.is_clean());
        }
    }
}

#[test]
fn a_second_end_and_a_second_answer_are_duplicates() {
    let mut twice = ledger([(attempt(1, 0), 10, answered("r1", 5))]);
    ended(&mut twice, attempt(1, 0), 11, answered("r1", 5));
    let mut surplus = ledger([(attempt(1, 0), 10, answered("r1", 5))]);
    surplus.fold(Event::Surplus { attempt: attempt(1, 0), at: Millis(11) });
    for ledger in [twice, surplus] {
        let report = report(&ledger);
        assert_eq!((report.answered, losses(&report)), (1, vec![(Loss::Duplicated, 1)]));
    }
}

#[test]
fn p2_an_answer_of_a_forbidden_release_is_wrong_whenever_it_came() {
    let mut ledger =
        ledger([(attempt(1, 0), 5, answered("good", 1)), (attempt(2, 10), 15, answered("bad", 2))]);
    assert!(report(&ledger).is_clean());
    say(&mut ledger, "forbid bad", 20);
    ledger.fold(Event::Begun { seq: 3 });
    ended(&mut ledger, attempt(3, 30), 35, answered("bad", 2));
    let report = report(&ledger);
    assert_eq!(losses(&report), [(Loss::WrongRelease, 2)]);
    assert_eq!(report.losses[&Loss::WrongRelease].example.as_ref().map(|example| example.seq), Some(2));
    assert_eq!(report.releases, [("bad".into(), 2), ("good".into(), 1)].into());
}

#[test]
fn p5_after_a_commit_new_connections_belong_to_the_new_release_alone() {
    for (what, on, connecting, pid, release, wrong) in [
        ("the new release", A, 101, None, "new", false),
        ("the old release", A, 101, None, "old", true),
        ("begun at the moment of the commit", A, 100, None, "old", false),
        ("begun before", A, 50, Some(1), "old", false),
        ("begun after and reused", A, 101, Some(1), "old", true),
        ("another member", B, 101, None, "old", false),
    ] {
        let mut ledger = Ledger::new(Millis(0));
        say(&mut ledger, "committed 127.0.0.1:1 new", 100);
        ledger.fold(Event::Begun { seq: 1 });
        let attempt = Attempt { target: target(on), connecting: Millis(connecting), pid, ..attempt(1, 200) };
        ended(&mut ledger, attempt, 210, answered(release, 1));
        let expected: &[_] = if wrong { &[(Loss::WrongRelease, 1)] } else { &[] };
        assert_eq!(losses(&report(&ledger)), expected, "{what}");
    }
}

#[test]
fn p5_an_opened_member_may_answer_with_any_release_until_the_next_commit() {
    let mut ledger = Ledger::new(Millis(0));
    say(&mut ledger, "committed 127.0.0.1:1 r1", 100);
    say(&mut ledger, "open 127.0.0.1:1", 200);
    ledger.fold(Event::Begun { seq: 1 });
    ended(&mut ledger, attempt(1, 150), 210, answered("r2", 2));
    assert!(report(&ledger).is_clean());
    say(&mut ledger, "committed 127.0.0.1:1 r2", 300);
    ledger.fold(Event::Begun { seq: 2 });
    ended(&mut ledger, attempt(2, 301), 310, answered("r1", 1));
    assert_eq!(losses(&report(&ledger)), [(Loss::WrongRelease, 1)]);
}

#[test]
fn an_answer_that_is_wrong_twice_over_is_counted_once() {
    let mut ledger = Ledger::new(Millis(0));
    say(&mut ledger, "committed 127.0.0.1:1 good", 1);
    say(&mut ledger, "forbid bad", 2);
    ledger.fold(Event::Begun { seq: 1 });
    ended(&mut ledger, attempt(1, 10), 20, answered("bad", 1));
    assert_eq!(losses(&report(&ledger)), [(Loss::WrongRelease, 1)]);
}

#[test]
fn a_request_dies_with_its_program_only_within_the_window_of_the_death() {
    let window = "window 127.0.0.1:1 100 200";
    for (what, window, connecting, at, died) in [
        ("in the window", window, 90, 150, true),
        ("begun in the window", window, 200, 250, true),
        ("noticed late", window, 90, 200 + NOTICE.0, true),
        ("before it", window, 90, 99, false),
        ("begun after it", window, 201, 250, false),
        ("long after it", window, 90, 201 + NOTICE.0, false),
        ("another member's", "window 127.0.0.1:2 100 200", 90, 150, false),
    ] {
        for (first_byte, loss) in [(false, Loss::ResetBeforeFirstByte), (true, Loss::ResetAfterFirstByte)] {
            let mut ledger = ledger([(attempt(1, connecting), at, cut(first_byte, Close::Eof))]);
            // The driver may know it only afterwards.
            say(&mut ledger, window, 5000);
            let report = report(&ledger);
            let expected = if died { vec![] } else { vec![(loss, 1)] };
            assert_eq!(losses(&report), expected, "{what}");
            assert_eq!(report.died_with_program, u64::from(died), "{what}");
        }
    }
}

#[test]
fn a_window_can_be_said_as_it_happens() {
    let mut ledger = Ledger::new(Millis(0));
    say(&mut ledger, "window 127.0.0.1:1 begin", 100);
    for (seq, at) in [(1, 150), (2, 250)] {
        ledger.fold(Event::Begun { seq });
        ended(&mut ledger, attempt(seq, at - 1), at, cut(false, Close::Eof));
    }
    assert_eq!(report(&ledger).died_with_program, 2, "still open");
    say(&mut ledger, "window 127.0.0.1:1 end", 200);
    assert_eq!(report(&ledger).died_with_program, 1, "the second was begun after its end");
}

#[test]
fn only_cuts_are_excused_by_a_death() {
    for end in [
        End::Refused { why: "x".into() },
        End::TimedOut { connected: true },
        End::Mismatched { why: "x".into() },
        End::Duplicated,
    ] {
        let mut ledger = ledger([(attempt(1, 110), 150, end.clone())]);
        ledger.mark_died(target(A), Millis(100), Millis(200));
        let report = report(&ledger);
        assert_eq!((report.lost, report.died_with_program), (1, 0), "{end:?}");
    }
}

#[test]
fn a_process_that_answers_later_requests_has_not_died() {
    for (answered_later, died) in [(150, true), (151, false)] {
        let reused = Attempt { pid: Some(5), sent: Millis(50), ..attempt(1, 0) };
        let mut ledger = ledger([
            (reused, 150, cut(true, Close::Reset)),
            (attempt(2, answered_later), 900, answered("r1", 5)),
        ]);
        ledger.mark_died(target(A), Millis(100), Millis(2000));
        let report = report(&ledger);
        assert_eq!(report.died_with_program, u64::from(died), "answered what was sent at {answered_later}");
        assert_eq!(report.lost, u64::from(!died));
    }
}

#[test]
fn p4_a_reset_that_the_accept_queue_could_have_caused_is_told_beside() {
    for (pid, first_byte, close, maybe) in [
        (None, false, Close::Reset, 1),
        (None, false, Close::Eof, 0),
        (None, true, Close::Reset, 0),
        (Some(5), false, Close::Reset, 0),
    ] {
        let attempt = Attempt { pid, ..attempt(1, 0) };
        let mut ledger = ledger([(attempt, 1000, cut(first_byte, close))]);
        ledger.mark_died(target(A), Millis(900), Millis(1100));
        let report = report(&ledger);
        assert_eq!((report.died_with_program, report.died_maybe_queued), (1, maybe), "{close:?}");
    }
}

#[test]
fn every_request_has_exactly_one_end() {
    let ends = [
        answered("r1", 1),
        answered("r2", 2),
        End::Duplicated,
        End::Mismatched { why: "x".into() },
        End::Refused { why: "x".into() },
        cut(false, Close::Eof),
        cut(true, Close::Reset),
        End::TimedOut { connected: true },
        End::NotSent { why: "x".into() },
    ];
    // All orders would be many; all pairs and neighbours are in a few rounds with steps prime to the length.
    let mut ledger = Ledger::new(Millis(0));
    say(&mut ledger, "forbid r2", 0);
    ledger.mark_died(target(A), Millis(200), Millis(400));
    let mut seq = 0;
    for step in [1, 2, 4, 5, 7, 8] {
        for n in 0..ends.len() {
            seq += 1;
            let pid = (seq % 3 == 0).then_some(9);
            ledger.fold(Event::Begun { seq });
            let attempt = Attempt { pid, ..attempt(seq, seq * 10) };
            ended(&mut ledger, attempt, seq * 10 + 5, ends[n * step % ends.len()].clone());
            let report = report(&ledger);
            let lost_unanswered = report.lost - report.count(Loss::WrongRelease);
            let ended = report.answered + lost_unanswered + report.died_with_program + report.not_sent;
            assert_eq!(report.sent, ended + report.unfinished, "after request {seq}");
        }
    }
    let report = report(&ledger);
    assert!(report.died_with_program > 0 && report.idle_closes > 0 && report.lost > 0);
}

#[test]
fn more_cuts_than_can_be_kept_are_still_counted() {
    let mut ledger = Ledger::new(Millis(0));
    let most = CUTS_KEPT_MAX as u64;
    for seq in 1..=most + 1 {
        ledger.fold(Event::Begun { seq });
        ended(&mut ledger, attempt(seq, 10), 20, cut(false, Close::Reset));
    }
    ledger.mark_died(target(A), Millis(0), Millis(100));
    let report = report(&ledger);
    assert_eq!((report.died_with_program, report.lost), (most, 1));
}

#[test]
fn latencies_are_those_of_plain_requests_by_whether_a_handover_was_under_way() {
    let mut ledger = Ledger::new(Millis(0));
    let request = |ledger: &mut Ledger, seq: u64, kind: Kind, sent: u64, at: u64| {
        ledger.fold(Event::Begun { seq });
        let attempt = Attempt { kind, ..attempt(seq, sent) };
        let took = Duration::from_millis(at - sent);
        ledger.fold(Event::Ended { attempt, at: Millis(at), took, end: answered("r1", 5) });
    };
    request(&mut ledger, 1, Kind::Plain, 10, 11);
    say(&mut ledger, "handover begin", 20);
    request(&mut ledger, 2, Kind::Plain, 15, 25);
    request(&mut ledger, 3, Kind::Slow, 15, 29);
    say(&mut ledger, "handover end", 30);
    request(&mut ledger, 4, Kind::Plain, 30, 40);
    request(&mut ledger, 5, Kind::Plain, 31, 41);
    let report = report(&ledger);
    let count = |phase| report.latency(phase).count;
    assert_eq!((count(Phase::During), count(Phase::Between)), (2, 2));
    let slowest = report.latency(Phase::Between).max_us;
    assert!((10_000..10_020).contains(&slowest), "{slowest}");
    assert_eq!(report.habits[&Habit::New].answered, [(Kind::Plain, 4), (Kind::Slow, 1)].into());
}

#[test]
fn who_finds_nobody_where_the_whole_member_is_away_is_not_lost() {
    let refused = || End::Refused { why: "x".into() };
    // Begun before, within, and after the time in which the member is away; and at another one.
    for (connecting, at, away) in [(10, 30, true), (10, 15, false), (30, 31, true), (60, 61, false)] {
        for end in [refused(), End::TimedOut { connected: false }] {
            let mut ledger = Ledger::new(Millis(0));
            let attempt = attempt(1, connecting);
            ledger.fold(Event::Begun { seq: 1 });
            if at < 20 {
                ended(&mut ledger, attempt.clone(), at, end.clone());
            }
            say(&mut ledger, &format!("away {A} begin"), 20);
            if (20..40).contains(&at) {
                ended(&mut ledger, attempt.clone(), at, end.clone());
            }
            say(&mut ledger, &format!("away {A} end"), 40);
            if at >= 40 {
                ended(&mut ledger, attempt, at, end.clone());
            }
            let report = report(&ledger);
            assert_eq!(
                (report.found_nobody, report.lost),
                if away { (1, 0) } else { (0, 1) },
                "{connecting} {at}"
            );
        }
    }
    let mut ledger = Ledger::new(Millis(0));
    say(&mut ledger, &format!("away {B} begin"), 0);
    ledger.fold(Event::Begun { seq: 1 });
    ended(&mut ledger, attempt(1, 10), 11, refused());
    assert_eq!((report(&ledger).found_nobody, report(&ledger).lost), (0, 1), "another member was away");
}
