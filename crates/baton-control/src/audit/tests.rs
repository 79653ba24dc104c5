//! The log, in a real file.

use std::fs;
use std::thread::JoinHandle;

use super::*;
use crate::small_disk;

struct Log {
    audit: Audit,
    writer: JoinHandle<()>,
}

fn open(dir: &Path) -> Log {
    let (audit, writer) = Audit::open(dir, true).unwrap();
    let writer = std::thread::spawn(move || writer.run());
    Log { audit, writer }
}

impl Log {
    /// Ends, with everything written.
    fn close(self) {
        drop(self.audit);
        self.writer.join().unwrap();
    }
}

fn record(detail: &str) -> Record {
    Record {
        at: 1,
        who: "ada".to_owned(),
        from: "127.0.0.1".to_owned(),
        what: "POST /v1/tokens".to_owned(),
        outcome: "201".to_owned(),
        detail: detail.to_owned(),
    }
}

#[tokio::test]
async fn p42_what_was_written_is_there_after_a_restart_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..3 {
        let log = open(dir.path());
        assert_eq!(log.audit.head().number, 2 * start);
        log.audit.add(record("waited for"), Effect::Changed, true).await.unwrap();
        log.audit.add(record("not waited for"), Effect::Changed, false).await.unwrap();
        log.close();
    }
    let log = open(dir.path());
    let lines = log.audit.lines(0, 100).await.unwrap();
    let mut chain = Chain::default();
    lines.iter().for_each(|line| drop(chain.read(line).unwrap()));
    assert_eq!((chain.head(), chain.head().number), (log.audit.head(), 6));
    assert_eq!(log.audit.lines(2, 3).await.unwrap(), lines[2..5]);
    log.close();
}

#[tokio::test]
async fn p42_a_log_that_was_changed_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.audit.add(record("one"), Effect::Changed, true).await.unwrap();
    log.audit.add(record("two"), Effect::Changed, true).await.unwrap();
    log.close();
    let file = dir.path().join("audit.log");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("ada", "eve", 1)).unwrap();
    let error = Audit::open(dir.path(), true).err().unwrap();
    assert!(matches!(error, AuditError::Broken { source: Broken::Hash { number: 1 }, .. }), "{error}");
    // A line that was cut off by a crash was answered to nobody.
    fs::write(&file, &text[..text.len() - 10]).unwrap();
    let log = open(dir.path());
    assert_eq!(log.audit.head().number, 1);
    log.audit.add(record("three"), Effect::Changed, true).await.unwrap();
    assert_eq!(log.audit.head().number, 2);
    log.close();
}

#[tokio::test]
async fn p42_nothing_is_changed_that_cannot_be_written_down() {
    let dir = tempfile::tempdir().unwrap();
    // A disk that is full for ever.
    std::os::unix::fs::symlink("/dev/full", dir.path().join("audit.log")).unwrap();
    let log = open(dir.path());
    assert!(log.audit.ready(Purpose::Other).await.is_ok(), "nothing has failed yet");
    log.audit.add(record("done, and not written"), Effect::Changed, true).await.unwrap_err();
    let refusal = log.audit.ready(Purpose::Other).await.unwrap_err();
    assert!(
        refusal.message.contains("not written down") && refusal.message.contains("No space"),
        "{refusal:?}"
    );
    assert_eq!(log.audit.head().number, 0);
    log.close();
}

#[tokio::test]
async fn p29_p42_what_stops_harm_is_written_down_on_a_disk_that_is_full() {
    match small_disk::disk() {
        Some(disk) => on_full_disk(&disk).await,
        None => {
            let test = "audit::tests::p29_p42_what_stops_harm_is_written_down_on_a_disk_that_is_full";
            small_disk::again(test, "size=4m");
        }
    }
}

async fn on_full_disk(disk: &Path) {
    let log = open(disk);
    log.audit.add(record("while there is space"), Effect::Changed, true).await.unwrap();
    let mut filler = File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    // Whoever is refused, which is what happens there, leaves the space to who stops harm.
    for _ in 0..20_000 {
        log.audit.add(record("refused"), Effect::Nothing, false).await.unwrap();
        log.audit.ready(Purpose::Other).await.unwrap();
    }
    // Those that were written, with the lines that say how many were not.
    let refused = log.audit.head().number - 1;
    let left_out = 20_000 - (refused - interim(&log, refused).await);
    // A server that stops says how many it has left out, and one that starts finds the space that is left.
    log.close();
    let log = open(disk);
    let told = |lines: &[String], count: u64| {
        let told = format!("\t{count} calls that changed nothing, while the disk was full\t");
        assert!(lines[0].contains(&told), "{told} in {lines:#?}");
    };
    told(&log.audit.lines(refused + 1, 1).await.unwrap(), left_out);
    // Who changes something leaves the last of it to who stops harm.
    let mut changed = 0;
    while log.audit.ready(Purpose::Other).await.is_ok() {
        log.audit.add(record("on a full disk"), Effect::Changed, true).await.unwrap();
        changed += 1;
    }
    assert!(changed > 100, "{changed}");
    let why = log.audit.ready(Purpose::Other).await.unwrap_err().message;
    assert!(why.contains("its disk is full") && why.contains("audit.log"), "{why}");
    for _ in 0..200 {
        log.audit.ready(Purpose::StopsHarm).await.unwrap();
        log.audit.add(record("a halt"), Effect::Changed, true).await.unwrap();
    }
    log.audit.add(record("refused"), Effect::Nothing, true).await.unwrap();
    let number = log.audit.head().number;
    assert_eq!(number, 1 + refused + 1 + changed + 200);
    // Once there is space, it is told that there were more.
    drop(filler);
    fs::remove_file(disk.join("filler")).unwrap();
    log.audit.add(record("refused"), Effect::Nothing, true).await.unwrap();
    log.audit.ready(Purpose::Other).await.unwrap();
    let lines = log.audit.lines(number, 2).await.unwrap();
    told(&lines, 1);
    assert!(lines[1].contains("\trefused\t"), "{lines:#?}");
    log.close();
    let log = open(disk);
    assert_eq!(log.audit.head().number, number + 2, "after a restart");
    log.close();
}

/// How many lines say how many were left out so far: ever more seldom, so that there are few.
async fn interim(log: &Log, until: u64) -> u64 {
    let (mut found, mut after) = (0, 0);
    while after < until {
        let lines = log.audit.lines(after, 1000).await.unwrap();
        found += lines.iter().filter(|line| line.contains("changed nothing so far")).count() as u64;
        after += lines.len() as u64;
    }
    assert!((5..=64).contains(&found), "{found}");
    found
}

/// A file that tells how much of it is read.
struct Counted<'a> {
    file: io::Cursor<&'a [u8]>,
    read: &'a std::cell::Cell<usize>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.set(self.read.get() + read);
        Ok(read)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn lines_are_found_by_their_numbers_without_reading_all_before_them() {
    let count = 20_000;
    let line = |number: usize| format!("{number}\t{}", "x".repeat(number % 97));
    let log: String = (1..=count).map(|number| line(number) + "\n").collect();
    let read = std::cell::Cell::new(0);
    let find = |log: &str, after: usize, most| {
        let file = Counted { file: io::Cursor::new(log.as_bytes()), read: &read };
        lines(file, after as u64, most, count as u64 - 1).unwrap()
    };
    for after in (0..60).chain(count - 60..count + 2) {
        let expected: Vec<String> = (after + 1..count).take(3).map(line).collect();
        assert_eq!(find(&log, after, 3), expected, "after {after}");
        // While the next one is being written.
        assert_eq!(find(&log[..log.len() - 3], after, 3), expected, "after {after}");
    }
    read.set(0);
    find(&log, count - 10, 3);
    assert!(read.get() < log.len() / 4, "{} of {} bytes", read.get(), log.len());
}

#[test]
fn in_a_short_log_every_line_is_found_whatever_is_behind_it() {
    for log in
        ["", "1", "1\ta", "1\ta\n", "1\ta\n2\tbb\n", "1\ta\n2\tbb\n3\tc", "1\taaaaaaaaaaaaaaa\n2\t\n3\tcc\n"]
    {
        let whole: Vec<&str> = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
        for after in 0..5 {
            let expected: Vec<&str> = whole.iter().skip(after).copied().collect();
            assert_eq!(
                lines(io::Cursor::new(log), after as u64, 9, 9).unwrap(),
                expected,
                "{log:?} after {after}"
            );
        }
    }
}
