//! What `baton doctor` found out, for programs and for people.

use baton_core::doctor::{Finding, kind_of};
use baton_core::settings::Settings;
use serde::Serialize;

use crate::doctor::Examined;
use crate::escape::escape;
use crate::ui::{Colour, Ui};

/// The result as `--output json` has it.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// The service.
    service: String,
    /// What kind of program it is, as far as that is known by its command line.
    kind: &'static str,
    /// The page about it in the guides.
    guide: Option<String>,
    /// The worst of all verdicts: `fine`, `note` or `bad`.
    verdict: &'static str,
    /// One for each thing that was looked at.
    findings: Vec<FindingView>,
    /// What the program wrote last, where it did not start.
    last_lines: Vec<String>,
}

/// One thing that was found out.
#[derive(Debug, Serialize)]
struct FindingView {
    topic: &'static str,
    verdict: &'static str,
    seen: String,
    means: String,
    set: Option<String>,
}

impl Diagnosis {
    /// Of what was found out.
    pub fn new(settings: &Settings, examined: &Examined, findings: &[Finding]) -> Self {
        let kind = kind_of(&examined.seen.processes);
        let view = |finding: &Finding| FindingView {
            topic: finding.topic.word(),
            verdict: finding.verdict.word(),
            seen: finding.seen.clone(),
            means: finding.means.clone(),
            set: finding.set.clone(),
        };
        Self {
            service: settings.service.to_string(),
            kind: kind.name,
            guide: kind.guide.map(|page| format!("docs/guides/{page}")),
            verdict: findings
                .iter()
                .map(|finding| finding.verdict)
                .max()
                .map_or("fine", |worst| worst.word()),
            findings: findings.iter().map(view).collect(),
            last_lines: examined.last_lines.clone(),
        }
    }
}

/// As people read it: for each finding what was seen, what it means, and what to set.
pub fn diagnosis(diagnosis: &Diagnosis, ui: &Ui) -> String {
    let mut text = String::new();
    for finding in &diagnosis.findings {
        let colour = match finding.verdict {
            "fine" => Colour::Green,
            "note" => Colour::Yellow,
            _ => Colour::Red,
        };
        let verdict = ui.paint.colour(colour, &format!("{:<4}", finding.verdict));
        let mut line = |label: &str, words: &str| text.push_str(&wrapped(label, &escape(words), ui.width));
        line(&format!("{verdict}  {:<16}  ", finding.topic), &finding.seen);
        line(&indent("means"), &finding.means);
        if let Some(set) = &finding.set {
            line(&indent("set"), set);
        }
    }
    for line in &diagnosis.last_lines {
        text.push_str(&format!("  | {}\n", escape(line)));
    }
    let bad = diagnosis.findings.iter().filter(|finding| finding.verdict == "bad").count();
    let notes = diagnosis.findings.iter().filter(|finding| finding.verdict == "note").count();
    text.push_str(&match (bad, notes) {
        (0, 0) => format!("\n{} is ready: everything is as it should be\n", diagnosis.service),
        (0, _) => format!("\n{} works; see the notes\n", diagnosis.service),
        (_, _) => format!("\n{} is not ready: see what is bad\n", diagnosis.service),
    });
    if let Some(guide) = &diagnosis.guide {
        text.push_str(&format!("{}: {guide}\n", diagnosis.kind));
    }
    text
}

/// How wide the column with verdicts and topics is: verdict, topic, and the gaps behind them.
const COLUMN: usize = 4 + 2 + 16 + 2;

fn indent(label: &str) -> String {
    format!("{:>width$}  ", label, width = COLUMN - 2)
}

/// The words behind a label, on as many lines as they need; the label takes a whole column.
fn wrapped(label: &str, words: &str, width: usize) -> String {
    let room = width.min(READABLE).saturating_sub(COLUMN).max(READABLE / 4);
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let blank = " ".repeat(COLUMN);
    let line = |(at, line): (usize, &String)| format!("{}{line}\n", if at == 0 { label } else { &blank });
    lines.iter().enumerate().map(line).collect()
}

/// Lines that are longer are hard to read, however wide the terminal is.
const READABLE: usize = 100;

#[cfg(test)]
mod tests {
    use baton_core::doctor::{Seen, Start, Topic, findings};
    use baton_core::settings;

    use super::*;
    use crate::args::Output;

    #[test]
    fn every_topic_has_a_row_in_the_reference() {
        let page = include_str!("../../../../docs/reference/cli.md");
        let section = &page[page.find("\n## baton doctor\n").unwrap()..];
        let rows = section.lines().skip_while(|line| !line.starts_with("| finding")).skip(2);
        let rows = rows.take_while(|line| line.starts_with("| `"));
        let words: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        assert_eq!(words, Topic::ALL.map(Topic::word));
    }

    #[test]
    fn p44_findings_read_as_lines_that_fit_and_drive_no_terminal() {
        let settings = settings::parse("x", "service = \"web\"\nrun.command = [\"web\"]\n").unwrap();
        let why = format!("exit 1 after 1 s: {} \x1b[2J", "so many words ".repeat(20));
        let seen = Seen::of(Start::Failed { why, left_behind: Vec::new() });
        let found = findings(&settings.run, &seen);
        let examined = Examined { seen, last_lines: vec!["\x1b[31mpanic".to_owned()] };
        let ui = Ui::new(Output::Text, None);
        let text = diagnosis(&Diagnosis::new(&settings, &examined, &found), &ui);
        assert!(text.starts_with("bad   start             exit 1 after 1 s: so many words"), "{text}");
        assert!(text.contains("  | \\x1b[31mpanic\n") && !text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|line| line.len() <= READABLE), "{text}");
        assert!(text.ends_with("\nweb is not ready: see what is bad\n"), "{text}");
    }
}
